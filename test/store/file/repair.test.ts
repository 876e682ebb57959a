import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { linkSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import type { FileSystem } from '../../../lib/store/file/file-system.ts';
import { encodeHeader } from '../../../lib/store/file/record.ts';
import { check, repair, survey } from '../../../lib/store/file/repair.ts';
import { describeLosses } from '../../../lib/store/file/salvage.ts';
import { FileUserStore } from '../../../lib/store/file/store.ts';
import { temporaryDirectory } from '../../helper/temporary.ts';
import { candidate } from '../../helper/user-store-contract.ts';

const at = '2026-11-23T08:00:00.000Z';
const fs = nodeFileSystem;

/** users 1 to 5; 2 is changed, 3 removed and registered anew as 6. Nobody has it open. */
async function makeStore(t: TestContext): Promise<{ path: string; lines: string[] }> {
  const path = join(temporaryDirectory(t), 'users.jsonl');
  const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
  for (const n of [1, 2, 3, 4, 5]) await store.create(candidate(`user${n}`));
  await store.replace((await store.find('user2'))!, { kdf: 'pbkdf2:sha256:2', password: 'new', changed: at });
  await store.remove((await store.find('user3'))!, at);
  await store.create(candidate('user3'));
  await store.close();
  return { path, lines: readFileSync(path, 'utf8').split('\n') };
}

/** Spoils a character of the line, counted from 1, and puts the file in its place. */
function spoil(path: string, lines: readonly string[], ...numbers: number[]): Buffer {
  const spoilt = lines.map((line, n) => (numbers.includes(n + 1) ? line.replace('T', 'X') : line));
  writeFileSync(path, spoilt.join('\n'));
  return readFileSync(path);
}

function repairNow(path: string, found: Awaited<ReturnType<typeof survey>>['salvage'], more: Partial<Parameters<typeof repair>[0]> = {}): Promise<string> {
  return repair({ fs, path, lockWaitMsMax: 5_000, now: new Date('2026-11-23T09:00:00Z'), ...more }, found);
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
  assert.deepEqual(await check(fs, path), facts);
  assert.deepEqual(await check(fs, path), facts);
  assert.ok(readFileSync(path).equals(before));
  assert.equal((await survey(fs, path)).reason, undefined);
  // The same while a store has it open, and after a reboot with a torn tail.
  const store = await open(t, path);
  await store.create(candidate('user7'));
  assert.equal((await check(fs, path)).users, 6);
  const copy = join(temporaryDirectory(t), 'users.jsonl');
  writeFileSync(copy, Buffer.concat([before, Buffer.from('{"id":7,"login"')]));
  assert.deepEqual(await check(fs, copy), { ...facts, bytes: size + 15, unfinishedBytes: 15 });
});

test('check: damage is told with line and byte, whether or not the mark is there', async (t) => {
  const { path, lines } = await makeStore(t);
  const offset = lines.slice(0, 4).join('\n').length + 1;
  spoil(path, lines, 5);
  assert.deepEqual((await check(fs, path)).damage, { offset, line: 5, reason: 'fails its checksum' });
  const copy = join(temporaryDirectory(t), 'users.jsonl');
  writeFileSync(copy, readFileSync(path));
  assert.deepEqual((await check(fs, copy)).damage, { offset, line: 5, reason: 'fails its checksum' });
  // Shorter than it was known to be.
  writeFileSync(path, `${lines.slice(0, 3).join('\n')}\n`);
  const { damage } = await check(fs, path);
  assert.match(damage!.reason, /bytes were durable/);
});

test('repair: all but the lost line is saved, the old file is kept as it was, and what is lost is told', async (t) => {
  const { path, lines } = await makeStore(t);
  const damaged = spoil(path, lines, 5);
  const { reason, salvage } = await survey(fs, path);
  assert.match(reason!, /line 5 \(byte [\d,]+\) fails its checksum: nothing was changed; .*registrar repair/);
  assert.match(describeLosses(salvage).join('\n'), /^line 5 \(byte [\d,]+, \d+ bytes\) fails its checksum: it seems to be about user 4, "user4", who is not saved$/);
  const aside = await repairNow(path, salvage);
  assert.ok(readFileSync(aside).equals(damaged));
  assert.equal(statSync(aside).mode & 0o777, 0o600);
  assert.equal(statSync(path).nlink, 1);
  const store = await open(t, path);
  assert.equal(store.size, 4);
  assert.deepEqual((await Promise.all([1, 2, 3, 4, 5].map((n) => store.find(`user${n}`)))).map((user) => user?.id), [1, 2, 6, undefined, 5]);
  assert.equal((await store.find('user2'))?.password, 'new');
  // No id is given again, also not one that the lost line may have given.
  assert.ok((await store.create(candidate('next'))).user.id > 7);
  await assert.doesNotReject(store.compact());
});

test('repair: of a lost change the state before is kept, of a lost removal the user is back, unless the login was given again', async (t) => {
  const { path, lines } = await makeStore(t);
  spoil(path, lines, 7, 8);
  const { salvage } = await survey(fs, path);
  const losses = describeLosses(salvage);
  assert.match(losses[0]!, /^line 7 .*user 2, "user2", who is kept as of version 1$/);
  assert.match(losses[1]!, /^line 8 .*user 3, "user3", who is not saved$/);
  assert.equal(losses[2], 'user 3, "user3", is left out: by a later line user 6 has that login');
  await repairNow(path, salvage);
  const store = await open(t, path);
  assert.deepEqual([(await store.find('user2'))?.version, (await store.find('user3'))?.id, store.size], [1, 6, 5]);
  const other = await makeStore(t);
  writeFileSync(other.path, [...other.lines.slice(0, 8), ''].join('\n').replace('"deleted":"2026', '"deleted":"2027'));
  const found = await survey(fs, other.path);
  assert.match(describeLosses(found.salvage)[0]!, /user 3, "user3", who is kept as of version 1/);
});

test('repair: a lost header costs nobody, and no id is given again', async (t) => {
  const { path, lines } = await makeStore(t);
  for (const header of [`X${lines[0]!.slice(1)}`, lines[0]!.replace(/"seed":"./, '"seed":"!'), '\0'.repeat(lines[0]!.length), '', lines[0]!.replace('"version":1', '"version":3')]) {
    writeFileSync(path, [header, ...lines.slice(1)].join('\n'));
    const { reason, salvage } = await survey(fs, path);
    assert.match(reason!, /line 1 \(byte 0\)/);
    assert.deepEqual([...salvage.users.keys()].sort(), [1, 2, 4, 5, 6], header);
    assert.match(describeLosses(salvage)[0]!, /^line 1 .*it is made anew$/);
    await repairNow(path, salvage, { now: new Date() });
    const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
    assert.equal(store.size, 5);
    assert.ok((await store.create(candidate('next'))).user.id > 1_000_000);
    await store.close();
  }
});

test('repair: a good line behind one whose end is lost, lines out of order, and a file without its first block are made the best of', async (t) => {
  const { path, lines } = await makeStore(t);
  const glued = lines.join('\n').replace(`\n${lines[4]!}`, `!${lines[4]!}`);
  writeFileSync(path, glued);
  assert.deepEqual([...(await survey(fs, path)).salvage.users.keys()].sort(), [1, 2, 4, 5, 6]);
  // A change before the registration, a removal before the user.
  writeFileSync(path, [lines[0], lines[6], lines[7], ...lines.slice(1, 6), ...lines.slice(8)].join('\n'));
  const { salvage } = await survey(fs, path);
  assert.deepEqual([salvage.users.get(2)?.version, salvage.users.has(3), salvage.users.has(6)], [2, false, true]);
  const bytes = Buffer.from(lines.join('\n'));
  writeFileSync(path, bytes.fill(0, 0, 512));
  assert.deepEqual([...(await survey(fs, path)).salvage.users.keys()].sort(), [2, 4, 5, 6]);
});

test('repair: a later format, another kind of file, and one in which nothing can be read are refused and not touched', async (t) => {
  const { path, lines } = await makeStore(t);
  for (const [text, expected] of [
    ['{"users":[]}\n', /too few lines tell/],
    ['\0'.repeat(2_000), /too few lines tell/],
    [encodeHeader({ version: 2, created: at, nextId: 1, seed: 5 }) + lines.slice(1).join('\n'), /format version 2/],
  ] as const) {
    writeFileSync(path, text);
    await assert.rejects(survey(fs, path), (error: RegistrarError) => error.code === 'corrupt' && expected.test(error.message));
    assert.equal(readFileSync(path, 'utf8'), text);
  }
});

test('repair: services that have the file open follow the new one', async (t) => {
  const path = join(temporaryDirectory(t), 'users.jsonl');
  const [writer, reader] = [await open(t, path), await open(t, path)];
  for (let n = 0; n < 50; n++) await writer.create(candidate(`user${n}`));
  assert.equal((await reader.find('user7'))?.id, 8);
  const bytes = readFileSync(path);
  bytes[bytes.indexOf('user20') + 3]! ^= 1;
  writeFileSync(path, bytes);
  await assert.rejects(reader.find('user20'), (error: RegistrarError) => error.code === 'corrupt');
  await repairNow(path, (await survey(fs, path)).salvage);
  for (const store of [writer, reader]) {
    assert.equal(await store.find('user20'), undefined);
    assert.equal((await store.find('user21'))?.id, 22);
  }
  assert.equal((await writer.create(candidate('user20'))).created, true);
  assert.equal((await reader.find('user20'))!.id > 51, true);
});

test('repair: where it fails, or the file has changed, nothing is changed and nothing is left', async (t) => {
  const { path, lines } = await makeStore(t);
  const damaged = spoil(path, lines, 5);
  const { salvage } = await survey(fs, path);
  const names = readdirSync(`${path}.lock`).sort();
  for (const kind of ['write', 'datasync', 'link', 'rename'] as const) {
    const failing = { ...fs, [kind]: () => {
      throw Object.assign(new Error('injected'), { code: 'ENOSPC' });
    } } as FileSystem;
    await assert.rejects(repairNow(path, salvage, { fs: failing }), /injected/);
    assert.ok(readFileSync(path).equals(damaged));
    assert.deepEqual(readdirSync(`${path}.lock`).sort(), names);
  }
  spoil(path, lines, 5, 6);
  await assert.rejects(repairNow(path, salvage), (error: RegistrarError) => error.code === 'busy' && /changed meanwhile/.test(error.message));
  // A file that was given another name, as by a repair that was killed, is repaired all the same.
  linkSync(path, `${path}.damaged-before`);
  await repairNow(path, (await survey(fs, path)).salvage, { now: new Date() });
  assert.equal((await open(t, path)).size, 3);
});

test('repair: what the disk cannot read is lost, and nothing else', async (t) => {
  const path = join(temporaryDirectory(t), 'users.jsonl');
  const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
  for (let n = 0; n < 200; n++) await store.create(candidate(`user${n}`));
  await store.close();
  const bad = 5 * 4096;
  const { ino } = statSync(path);
  const read: FileSystem['read'] = (fd, into, offset, length, position) => {
    if (fs.statFd(fd).inode === ino && position < bad + 4096 && position + length > bad) throw Object.assign(new Error('injected EIO'), { code: 'EIO' });
    return fs.read(fd, into, offset, length, position);
  };
  const failing = { ...fs, read };
  const { reason, salvage } = await survey(failing, path);
  assert.match(reason!, /the disk does not give some of it/);
  const around = readFileSync(path).subarray(bad, bad + 4096).toString().split('\n').length;
  assert.equal(salvage.users.size, 200 - around);
  assert.ok(salvage.lost.length === 1 && salvage.lost[0]!.offset <= bad && salvage.lost[0]!.bytes >= 4096);
  await repairNow(path, salvage, { fs: failing });
  assert.equal((await open(t, path)).size, 200 - around);
});

test('repair: a name that a repair gave and was killed behind does not keep the store from opening', async (t) => {
  const { path } = await makeStore(t);
  linkSync(path, `${path}.damaged-20261123T090000.000Z`);
  const store = await open(t, path);
  assert.equal((await store.create(candidate('next'))).created, true);
  linkSync(path, `${path}.elsewhere`);
  await store.close();
  await assert.rejects(open(t, path), /3 names/);
});

test('repair: whatever 100 random files lose, nobody else is lost, and the new file opens', async (t) => {
  const directory = temporaryDirectory(t);
  const { lines } = await makeStore(t);
  const good = Buffer.from(lines.join('\n'));
  for (let n = 0; n < 100; n++) {
    const path = join(directory, `users${n}.jsonl`);
    const bytes = Buffer.from(good);
    const from = randomInt(lines[0]!.length + 1, bytes.length);
    const to = Math.min(bytes.length, from + randomInt(1, 600));
    if (n % 3 === 0) bytes.fill(0, from, to);
    else for (let flip = 0; flip < 3; flip++) bytes[randomInt(from, to)]! ^= 1 << randomInt(8);
    writeFileSync(path, n % 5 === 0 ? Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]) : bytes);
    const { salvage, reason } = await survey(fs, path);
    const text = readFileSync(path, 'utf8');
    const whole = lines.slice(1, -1).filter((line) => text.includes(line)).map((line) => JSON.parse(line));
    const expected = new Map<number, string>();
    for (const { id, login, deleted } of whole) {
      if (deleted === undefined) expected.set(id, login);
      else expected.delete(id);
    }
    if (expected.has(3) && expected.has(6)) expected.delete(3);
    assert.deepEqual([...salvage.users].map(([id, { login }]) => `${id} ${login}`).sort(), [...expected].map((entry) => entry.join(' ')).sort());
    if (reason === undefined) continue;
    await repairNow(path, salvage);
    const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
    assert.equal(store.size, expected.size);
    await store.close();
  }
});
