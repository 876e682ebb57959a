/** Check, repair and restore. */

import assert from 'node:assert/strict';
import { appendFileSync, copyFileSync, existsSync, linkSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import type { FileSystem } from '../../../lib/store/file/file-system.ts';
import { inspect } from '../../../lib/store/file/inspect.ts';
import { encodeHeader } from '../../../lib/store/file/record.ts';
import { recover } from '../../../lib/store/file/recover.ts';
import { examine, repair } from '../../../lib/store/file/repair.ts';
import type { RepairOptions, Repaired } from '../../../lib/store/file/repair.ts';
import { readBackup, restore } from '../../../lib/store/file/restore.ts';
import { FileUserStore } from '../../../lib/store/file/file-user-store.ts';
import { exportText } from '../../../lib/transfer/export.ts';
import { intactOf, kinds, makeHistory, tryDamage } from '../../helper/damage.ts';
import { randomFrom } from '../../helper/simulator/crash-states.ts';
import { temporaryDirectory } from '../../helper/temporary.ts';
import { newUser } from '../../helper/user-store-contract.ts';

const at = '2026-11-23T08:00:00.000Z';
const fs = nodeFileSystem;

/** Users 1 to 5; 2 is changed, 3 removed and registered anew as 6. No process has it open. */
async function makeStore(t: TestContext): Promise<{ path: string; lines: string[] }> {
  const path = join(temporaryDirectory(t), 'users.jsonl');
  const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
  for (const n of [1, 2, 3, 4, 5]) await store.create(newUser(`user${n}`));
  await store.replace((await store.findRecord('user2'))!, { kdf: 'pbkdf2:sha256:2', password: 'new', changed: at });
  await store.remove((await store.findRecord('user3'))!, at);
  await store.create(newUser('user3'));
  await store.close();
  return { path, lines: readFileSync(path, 'utf8').split('\n') };
}

/** Spoils a character of the lines, counted from 1, and puts the file in its place. */
function spoil(path: string, lines: readonly string[], ...numbers: number[]): Buffer {
  const spoilt = lines.map((line, n) => (numbers.includes(n + 1) ? line.replace('T', 'X') : line));
  writeFileSync(path, spoilt.join('\n'));
  return readFileSync(path);
}

function repairNow(path: string, more: Partial<RepairOptions> = {}): Promise<Repaired | undefined> {
  return repair({ fs, path, lockWaitMsMax: 5_000, now: new Date('2026-11-23T09:00:00Z'), takesUnverified: false, confirm: async () => undefined, ...more });
}

async function open(t: TestContext, path: string): Promise<FileUserStore> {
  const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
  t.after(() => store.close());
  return store;
}

test('check: a sound file is counted, and nothing is changed', async (t) => {
  const { path } = await makeStore(t);
  const before = readFileSync(path);
  const { size } = statSync(path);
  const facts = { bytes: size, lines: 9, users: 5, deadLines: 3, batches: 8, unfinishedBytes: 0, damage: undefined };
  assert.deepEqual(await inspect(fs, path), facts);
  assert.ok(readFileSync(path).equals(before));
  assert.equal((await examine(fs, path)).reason, undefined);
  // The same while a store has it open, and after a reboot with a torn tail.
  const store = await open(t, path);
  await store.create(newUser('user7'));
  assert.equal((await inspect(fs, path)).users, 6);
  const copy = join(temporaryDirectory(t), 'users.jsonl');
  writeFileSync(copy, Buffer.concat([before, Buffer.from('{"id":7,"login"')]));
  assert.deepEqual(await inspect(fs, copy), { ...facts, bytes: size + 15, unfinishedBytes: 15 });
});

test('check: damage is reported with line and byte, with and without the durable offset', async (t) => {
  const { path, lines } = await makeStore(t);
  const offset = lines.slice(0, 4).join('\n').length + 1;
  spoil(path, lines, 5);
  assert.deepEqual((await inspect(fs, path)).damage, { offset, line: 5, reason: 'fails its checksum, though it was durable' });
  const copy = join(temporaryDirectory(t), 'users.jsonl');
  writeFileSync(copy, readFileSync(path));
  assert.deepEqual((await inspect(fs, copy)).damage, { offset, line: 5, reason: 'fails its checksum' });
});

test('repair: all but the lost line is recovered, the old file is kept as it was, and what is lost is named', async (t) => {
  const { path, lines } = await makeStore(t);
  const damaged = spoil(path, lines, 5);
  const shown: string[] = [];
  const done = await repairNow(path, { confirm: async (reason, { losses }) => void shown.push(reason, ...losses) });
  assert.match(shown[0]!, /line 5 \(byte [\d,]+\) fails its checksum, though it was durable\. Nothing was changed\. .*registrar repair/);
  assert.match(shown[1]!, /^line 5 .* is unreadable\. It reads as user 4, "user4"\. It may have been a new user, .* any user up to id 4$/);
  assert.equal(shown.length, 2);
  assert.equal(done?.users, 4);
  assert.ok(readFileSync(done!.quarantine).equals(damaged));
  assert.equal(statSync(done!.quarantine).mode & 0o777, 0o600);
  assert.equal(statSync(path).nlink, 1);
  const store = await open(t, path);
  assert.deepEqual((await Promise.all([1, 2, 3, 4, 5].map((n) => store.findRecord(`user${n}`)))).map((user) => user?.id), [1, 2, 6, undefined, 5]);
  assert.equal((await store.findRecord('user2'))?.password, 'new');
  assert.equal((await store.create(newUser('next'))).user.id, 7);
  await assert.doesNotReject(store.compact());
  assert.equal(await repairNow(path), undefined, 'nothing is wrong with it any more');
});

test('repair: a change that a service makes while the operator is asked is kept; a new loss is shown, and asked about again', async (t) => {
  const { path } = await makeStore(t);
  const store = await open(t, path);
  await store.create(newUser('holder'));
  const spoilUser = (n: number): void => {
    const bytes = readFileSync(path);
    bytes[bytes.indexOf(`"user${n}"`) + 2]! ^= 1;
    writeFileSync(path, bytes);
  };
  spoilUser(4);
  const asked: number[] = [];
  await repairNow(path, {
    confirm: async (_, { losses }) => {
      asked.push(losses.length);
      if (asked.length > 1) return;
      const user = (await store.findRecord('user1'))!;
      await store.replace(user, { kdf: user.kdf, password: 'changed meanwhile', changed: at });
      spoilUser(5);
    },
  });
  assert.deepEqual(asked, [1, 2]);
  assert.equal((await store.findRecord('user1'))?.password, 'changed meanwhile');
  assert.equal(await store.findRecord('user5'), undefined);
  assert.equal((await store.create(newUser('user5'))).created, true);
});

test('repair: of a lost change the state before is kept, of a lost removal the user is back, unless the login was given again', async (t) => {
  const { path, lines } = await makeStore(t);
  spoil(path, lines, 7, 8);
  const { recovery } = await examine(fs, path);
  assert.match(recovery.losses[0]!, /^line 7 .*reads as user 2, "user2"\..* any user up to id 5$/);
  assert.match(recovery.losses[1]!, /^line 8 .*reads as user 3, "user3"\..* any user up to id 5$/);
  assert.equal(recovery.losses[2], 'user 3, "user3", is left out: user 6 has that login, so the removal of user 3 was lost');
  await repairNow(path);
  const store = await open(t, path);
  assert.deepEqual([(await store.findRecord('user2'))?.version, (await store.findRecord('user3'))?.id, store.size], [1, 6, 5]);
});

test('repair: a line that was taken out, and a file that was cut, are named by what is missing, and so is whom that may concern', async (t) => {
  const { path, lines } = await makeStore(t);
  const without = `${[...lines.slice(0, 7), ...lines.slice(8)].join('\n')}`;
  writeFileSync(path, without);
  const { recovery } = await examine(fs, path);
  assert.match(recovery.losses[0]!, new RegExp(`^line 8 .*: ${lines[7]!.length + 1} bytes are missing before it\\..* any user up to id 5$`));
  writeFileSync(path, `${lines.slice(0, 7).join('\n')}\n`);
  const missing = Buffer.byteLength(lines.slice(7).join('\n'));
  const cut = (await examine(fs, path)).recovery;
  assert.match(cut.losses[0]!, new RegExp(`^line 8 .*: the file ends there, and ${missing} bytes that were durable are missing\\..* any user up to id 5$`));
  assert.deepEqual([cut.users.has(3), cut.nextId], [true, 7], 'user 3 is back, and named; id 6 is not given again');
});

test('repair: a handful of the kinds of damage, with and without the durable offset', async (t) => {
  const random = randomFrom(7);
  for (const name of ['a removal missing', 'the header of another file', 'CR', 'sorted keys', 'no checksums', 'an appended copy of the file', 'cut within a line']) {
    const kind = kinds.find((other) => other.name === name)!;
    for (const withOffset of kind.needsOffset === true ? [true] : [true, false]) {
      const directory = temporaryDirectory(t);
      mkdirSync(join(directory, 'data'));
      const path = join(directory, 'data', 'users.jsonl');
      const truth = await makeHistory(path, random);
      const { wrong, saved } = await tryDamage(path, truth, kind, kind.damage(await intactOf(path, directory), random), withOffset);
      assert.deepEqual(wrong, [], name);
      assert.ok(saved > 0 || kind.needsOffset === true, name);
    }
  }
});

test('repair: without a durable offset ids continue far above the last one where the end or the header is lost', async (t) => {
  const { lines } = await makeStore(t);
  for (const text of [lines.slice(1).join('\n'), `${lines.slice(0, -2).join('\n')}\n{"id":6,"login":"us`]) {
    const copy = join(temporaryDirectory(t), 'users.jsonl');
    writeFileSync(copy, text);
    assert.ok(recover(fs, copy).nextId > 1_000_000);
  }
});

test('repair: a later format, another kind of file, and one in which nothing can be read are refused and not touched', async (t) => {
  const { path, lines } = await makeStore(t);
  for (const [text, expected] of [
    ['{"users":[]}\n', /contains no header, no user and no removal/],
    ['\0'.repeat(2_000), /contains no header, no user and no removal/],
    [encodeHeader({ version: 2, created: at, nextId: 1, seed: 5 }) + lines.slice(1).join('\n'), /format version 2/],
  ] as const) {
    writeFileSync(path, text);
    await assert.rejects(repairNow(path), (error: RegistrarError) => error.code === 'corrupt' && expected.test(error.message));
    assert.equal(readFileSync(path, 'utf8'), text);
  }
});

test('repair: where it fails, nothing is changed and nothing is left', async (t) => {
  const { path, lines } = await makeStore(t);
  const damaged = spoil(path, lines, 5);
  const names = readdirSync(`${path}.lock`).sort();
  for (const kind of ['write', 'datasync', 'link', 'rename'] as const) {
    const failing = { ...fs, [kind]: () => {
      throw Object.assign(new Error('injected'), { code: 'ENOSPC' });
    } } as FileSystem;
    await assert.rejects(repairNow(path, { fs: failing }), /injected|no room/);
    assert.ok(readFileSync(path).equals(damaged));
    assert.deepEqual(readdirSync(`${path}.lock`).sort(), names);
  }
  await assert.rejects(repairNow(path, { confirm: () => Promise.reject(new Error('no')) }), /no/);
  assert.ok(readFileSync(path).equals(damaged));
  // A file that was given another name, as by a repair that was killed, is repaired all the same.
  linkSync(path, `${path}.damaged-before`);
  await repairNow(path);
  assert.equal((await open(t, path)).size, 4);
});

test('repair: what the disk cannot read is lost, and nothing else', async (t) => {
  const path = join(temporaryDirectory(t), 'users.jsonl');
  const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
  await store.createMany(Array.from({ length: 200 }, (_, n) => newUser(`user${n}`)));
  await store.close();
  const bad = 5 * 4096;
  const { ino } = statSync(path);
  const read: FileSystem['read'] = (fd, into, offset, length, position) => {
    if (fs.statFd(fd).inode === ino && position < bad + 4096 && position + length > bad) throw Object.assign(new Error('injected EIO'), { code: 'EIO' });
    return fs.read(fd, into, offset, length, position);
  };
  const failing = { ...fs, read };
  const { reason, recovery } = await examine(failing, path);
  assert.match(reason!, /the disk failed to read some of it/);
  const around = readFileSync(path).subarray(bad, bad + 4096).toString().split('\n').length;
  assert.equal(recovery.users.size, 200 - around);
  assert.equal(recovery.losses.length, 1);
  await repairNow(path, { fs: failing });
  assert.equal((await open(t, path)).size, 200 - around);
});

test('repair: a name that a repair gave before it was killed does not keep the store from opening; two in one millisecond find names', async (t) => {
  const { path, lines } = await makeStore(t);
  linkSync(path, `${path}.damaged-20261123T090000.000Z`);
  const store = await open(t, path);
  assert.equal((await store.create(newUser('next'))).created, true);
  linkSync(path, `${path}.elsewhere`);
  await store.close();
  await assert.rejects(open(t, path), /3 names/);
  const other = await makeStore(t);
  const kept = [];
  for (let n = 0; n < 2; n++) {
    appendFileSync(other.path, 'x\n');
    kept.push((await repairNow(other.path))!.quarantine);
  }
  assert.equal(new Set(kept).size, 2);
  assert.equal(lines.length, 10);
});


async function restoreNow(path: string, backup: string): Promise<string | undefined> {
  const found = await readBackup(nodeFileSystem, backup);
  return restore({ fs: nodeFileSystem, path, lockWaitMsMax: 5_000, now: new Date(), beforeReplace: async () => undefined }, found);
}

/** Alice, changed; bob, removed; carol. Then a copy and an export, and dave, who is in neither. */
async function makeBackups(t: TestContext): Promise<{ path: string; copy: string; exported: string }> {
  const directory = temporaryDirectory(t);
  const [path, copy, exported] = [join(directory, 'users.jsonl'), join(directory, 'copy'), join(directory, 'export')];
  const store = await open(t, path);
  for (const login of ['alice', 'bob', 'carol']) await store.create(newUser(login));
  await store.replace((await store.findRecord('alice'))!, { ...newUser('alice'), changed: at });
  await store.remove((await store.findRecord('bob'))!, at);
  copyFileSync(path, copy);
  const pages: Buffer[] = [];
  for await (const page of exportText(store)) pages.push(page);
  writeFileSync(exported, Buffer.concat(pages));
  await store.create(newUser('dave'));
  await store.close();
  return { path, copy, exported };
}

test('restore: a copy and an export are put in place, the present file is kept, and no id is given again', async (t) => {
  for (const kind of ['copy', 'exported'] as const) {
    const backups = await makeBackups(t);
    const { path } = backups;
    const before = readFileSync(path);
    // A copy that was made while a service wrote ends in a torn line.
    if (kind === 'copy') appendFileSync(backups.copy, '{"id":5,"login":"e');
    const kept = await restoreNow(path, backups[kind]);
    assert.ok(readFileSync(kept!).equals(before));
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(existsSync(`${path}.lock`), false);
    const store = await open(t, path);
    const found = await Promise.all(['alice', 'bob', 'carol', 'dave'].map(async (login) => (await store.findRecord(login))?.version));
    assert.deepEqual(found, [2, undefined, 1, undefined], kind);
    assert.equal((await store.create(newUser('erin'))).user.id, 5, kind);
  }
});

test('restore: without a present file, or with a damaged one, ids continue far above', async (t) => {
  const { path, copy } = await makeBackups(t);
  writeFileSync(path, 'damaged\n');
  await restoreNow(path, copy);
  assert.ok((await (await open(t, path)).create(newUser('erin'))).user.id > 4);
  const other = join(temporaryDirectory(t), 'users.jsonl');
  assert.equal(await restoreNow(other, copy), undefined);
  assert.ok((await (await open(t, other)).create(newUser('erin'))).user.id > 1_000_000);
});

test('restore: while a service has the file open, and from a damaged backup or another file, it is refused and nothing is changed', async (t) => {
  const { path, copy, exported } = await makeBackups(t);
  const before = readFileSync(path);
  for (const [backup, damage] of [[copy, 'alice'], [exported, '"kdf"']] as const) {
    const good = readFileSync(backup, 'utf8');
    writeFileSync(backup, good.replace(damage, 'X'));
    await assert.rejects(restoreNow(path, backup), { code: 'corrupt', message: /Cannot restore/ });
    writeFileSync(backup, good);
  }
  writeFileSync(`${copy}.txt`, '{"users":[]}\n');
  await assert.rejects(restoreNow(path, `${copy}.txt`), { code: 'corrupt' });
  const store = await open(t, path);
  await assert.rejects(restoreNow(path, copy), { code: 'busy', message: /Stop every service/ });
  assert.equal((await store.findRecord('dave'))?.id, 4);
  assert.ok(readFileSync(path).equals(before));
  assert.deepEqual(readdirSync(join(path, '..')).filter((name) => name.startsWith('users.jsonl')).sort(), ['users.jsonl', 'users.jsonl.lock']);
});
