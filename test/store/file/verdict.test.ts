/** One verdict on a damaged file: for opening, writing, check and repair; and stores that only read. */

import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { encodeDurableOffset } from '../../../lib/store/file/durable-offset.ts';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import type { FileSystem } from '../../../lib/store/file/file-system.ts';
import { bootId } from '../../../lib/store/file/identity.ts';
import { inspect } from '../../../lib/store/file/inspect.ts';
import { ReadOnlyUserStore } from '../../../lib/store/file/read-only-user-store.ts';
import { decodeHeader, encodeHeader, encodeRemoval, encodeUser } from '../../../lib/store/file/record.ts';
import { FileUserStore } from '../../../lib/store/file/file-user-store.ts';
import type { StoredUser } from '../../../lib/user-store.ts';
import { temporaryDirectory } from '../../helper/temporary.ts';
import { newUser } from '../../helper/user-store-contract.ts';

const seed = 0x5e0c41d7;
const at = '2026-11-23T08:00:00.000Z';

/** A file made of batches of logins, and where each batch begins. The mark of it is another boot's: none. */
function makeFile(batches: readonly (readonly string[])[]): { bytes: Buffer; begins: number[] } {
  const parts = [encodeHeader({ version: 1, created: at, nextId: 1, seed })];
  const begins: number[] = [];
  let length = parts[0]!.length;
  let id = 0;
  for (const logins of batches) {
    begins.push(length);
    const lines = logins.map((login) => encodeUser({ id: ++id, version: 1, ...newUser(login) }, begins.at(-1)!, seed));
    parts.push(...lines);
    length += Buffer.concat(lines).length;
  }
  return { bytes: Buffer.concat(parts), begins };
}

function put(directory: string, bytes: Buffer): string {
  const path = join(directory, 'users.jsonl');
  writeFileSync(path, bytes);
  return path;
}

async function open(t: Pick<TestContext, 'after'>, path: string, reports: string[] = []): Promise<FileUserStore> {
  const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000, report: (line) => reports.push(line) });
  t.after(() => store.close());
  return store;
}

const three = [['alice', 'bob'], ['carol'], ['dave', 'erin', 'frank']] as const;

test('verdict: every cut of the last batch loses that batch at most, and nothing half is left', async (t) => {
  const { bytes, begins } = makeFile(three);
  const last = begins.at(-1)!;
  const directory = temporaryDirectory(t);
  for (let cut = last; cut <= bytes.length; cut++) {
    // Around each line's end, and now and then between; the trial of crash states takes every byte.
    if (!bytes.subarray(cut - 2, cut + 2).includes(0x0a) && cut % 41 !== 0) continue;
    const own = join(directory, String(cut));
    mkdirSync(own);
    const path = put(own, bytes.subarray(0, cut));
    const store = await open(t, path);
    for (const login of ['alice', 'bob', 'carol']) assert.equal((await store.findRecord(login))?.login, login, `cut at ${cut}`);
    // A line that lacks its newline alone is complete.
    const lines = bytes.subarray(last).toString().split('\n');
    const whole = lines.filter((line, n) => line !== '' && last + lines.slice(0, n + 1).join('\n').length <= cut).length;
    assert.equal((await store.page(undefined, 100)).users.length, 3 + whole, `cut at ${cut}`);
    // What was cut off is quarantined, to the byte, and the next write follows a whole line.
    const torn = readdirSync(own).filter((name) => name.includes('.torn-'));
    const kept = torn.map((name) => readFileSync(join(own, name)));
    assert.equal(Buffer.concat([bytes.subarray(0, Math.min(cut, statSync(path).size)), ...kept]).equals(bytes.subarray(0, cut)), true);
    await store.create(newUser('grace'));
    await store.close();
    const again = await open(t, path);
    assert.equal((await again.findRecord('grace'))?.id, 4 + whole, `cut at ${cut}`);
    await again.close();
  }
});

test('verdict: a last batch with holes of zeros, as a lost block leaves, is a torn tail', async (t) => {
  const { bytes, begins } = makeFile(three);
  const last = begins.at(-1)!;
  const directory = temporaryDirectory(t);
  for (let hole = 0; hole < 10; hole++) {
    const own = join(directory, String(hole));
    mkdirSync(own);
    const torn = Buffer.from(bytes);
    const from = last + Math.floor(((bytes.length - last) * hole) / 11);
    torn.fill(0, from, Math.min(bytes.length, from + 100));
    const reports: string[] = [];
    const store = await open(t, put(own, torn), reports);
    for (const login of ['alice', 'bob', 'carol']) assert.equal((await store.findRecord(login))?.login, login);
    assert.match(reports.join(), /was cut off, .*: its \d+ bytes/);
    await store.close();
  }
});

/** The line (from 1) and the byte at which it begins, for a byte of the file. */
function placeOf(bytes: Buffer, offset: number): { line: number; byte: number } {
  const before = bytes.subarray(0, offset);
  return { line: before.toString('latin1').split('\n').length, byte: before.lastIndexOf(0x0a) + 1 };
}

test('verdict: 30 random bit flips before the last batch are refused with line and byte, and nothing is touched', async (t) => {
  const { bytes, begins } = makeFile([...three, ...Array.from({ length: 20 }, (_, n) => [`user${n}`]), ['x', 'y']]);
  const last = begins.at(-1)!;
  const directory = temporaryDirectory(t);
  for (let flip = 0; flip < 30; flip++) {
    const offset = Math.floor(Math.random() * last);
    const bit = 1 << Math.floor(Math.random() * 8);
    const bad = Buffer.from(bytes);
    bad[offset]! ^= bit;
    const own = join(directory, String(flip));
    mkdirSync(own);
    const path = put(own, bad);
    const place = placeOf(bytes, offset);
    const where = `line ${place.line} (byte ${place.byte.toLocaleString('en-US')})`;
    await assert.rejects(open(t, path), (error: Error & { code: string }) => {
      assert.equal(error.code, 'corrupt', `bit ${bit} of byte ${offset}: ${error.message}`);
      assert.ok(error.message.includes(where), `${error.message}, and not ${where}`);
      assert.match(error.message, /[Rr]estore|format version/);
      return true;
    });
    assert.ok(readFileSync(path).equals(bad));
    assert.deepEqual(readdirSync(own).filter((name) => name !== 'users.jsonl.lock'), ['users.jsonl']);
  }
});

test('verdict: in a file whose lines are checked many at a time, the line that is bad is named, and the lines before it count', async (t) => {
  const { bytes, begins } = makeFile(Array.from({ length: 10_000 }, (_, n) => [`user${n}`]));
  assert.ok(bytes.length > 2 << 20);
  const whole = await open(t, put(temporaryDirectory(t), bytes));
  assert.equal(whole.size, 10_000);
  for (const n of [0, 1, 4_999, 9_000, 9_998]) {
    const damaged = Buffer.from(bytes);
    damaged[begins[n]! + 40]! ^= 4;
    const expected = `line ${(n + 2).toLocaleString('en-US')} (byte ${begins[n]!.toLocaleString('en-US')}) fails its checksum`;
    const path = put(temporaryDirectory(t), damaged);
    await assert.rejects(open(t, path), (error: Error) => error.message.includes(expected));
    assert.ok(readFileSync(path).equals(damaged));
  }
});

test('verdict: a bad last line that is whole to the eye is refused', async (t) => {
  const { bytes } = makeFile([['alice'], ['bob']]);
  bytes[bytes.length - 60]! ^= 1;
  await assert.rejects(open(t, put(temporaryDirectory(t), bytes)), { code: 'corrupt', message: /line 3 .*fails its checksum/ });
});

test('verdict: a last line that is whole but for its newline, which is another character, is refused', async (t) => {
  const { bytes } = makeFile([['alice'], ['bob']]);
  bytes[bytes.length - 1]! ^= 4;
  await assert.rejects(open(t, put(temporaryDirectory(t), bytes)), { code: 'corrupt', message: /line 3/ });
});

test('verdict: what was durable in this boot or an earlier one is refused, whether it looks torn or is missing', async (t) => {
  const { bytes, begins } = makeFile([['alice'], ['bob']]);
  for (const boot of [bootId, 'another']) {
    for (const cut of [bytes.length - 5, bytes.length - 1, begins[1]!]) {
      const path = put(temporaryDirectory(t), bytes.subarray(0, cut));
      mkdirSync(`${path}.lock`, { mode: 0o700 });
      const durable = { boot, inode: statSync(path).ino, seed, end: bytes.length, nextId: 3 };
      writeFileSync(join(`${path}.lock`, 'durable'), encodeDurableOffset(durable));
      await assert.rejects(open(t, path), { code: 'corrupt', message: /line 3 .*durable/ });
      assert.equal((await inspect(nodeFileSystem, path)).damage?.line, 3);
      assert.equal(statSync(path).size, cut);
    }
  }
});

test('verdict: bytes behind a valid durable offset are refused at opening and by check, with one reason', async (t) => {
  const appended: [string, (bytes: Buffer) => Buffer, RegExp][] = [
    ['a line by echo', () => Buffer.from('hello\n'), /fails its checksum/],
    ['a copy of all lines', (bytes) => bytes.subarray(bytes.indexOf(0x0a) + 1), /is not where it was written/],
    ['a copy of the file', (bytes) => bytes, /line 4 .*fails its checksum|is no record/],
  ];
  for (const [what, extra, reason] of appended) {
    const directory = temporaryDirectory(t);
    const path = put(directory, makeFile([['alice'], ['bob']]).bytes);
    await (await open(t, path)).close();
    const damaged = Buffer.concat([readFileSync(path), extra(readFileSync(path))]);
    writeFileSync(path, damaged);
    const refused = await open(t, path).then(() => 'opened', (error: Error) => error.message);
    assert.match(refused, reason, what);
    const { damage } = await inspect(nodeFileSystem, path);
    assert.ok(damage !== undefined && refused.includes(damage.reason) && damage.line === 4, what);
    assert.ok(readFileSync(path).equals(damaged));
  }
});

test('verdict: of a last line that lacks its newline alone nothing is lost, and a removal stays one', async (t) => {
  const { bytes } = makeFile([['alice'], ['bob']]);
  const removal = encodeRemoval(2, 'bob', at, bytes.length, seed);
  const path = put(temporaryDirectory(t), Buffer.concat([bytes, removal]).subarray(0, -1));
  assert.deepEqual((await inspect(nodeFileSystem, path)).damage, undefined);
  const reports: string[] = [];
  const store = await open(t, path, reports);
  assert.match(reports.join(), /ended without a newline/);
  assert.equal(await store.findRecord('bob'), undefined);
  assert.equal((await store.create(newUser('carol'))).user.id, 3);
  await store.close();
  assert.equal((await inspect(nodeFileSystem, path)).damage, undefined);
});

test('verdict: lines in a wrong place or order are refused', async (t) => {
  const { bytes, begins } = makeFile([['alice'], ['bob']]);
  const [first = 0] = begins;
  const user = (login: string, id: number): StoredUser => ({ id, version: 1, ...newUser(login) });
  const cases: [string, Buffer, RegExp][] = [
    ['lines twice', bytes.subarray(first), /is not where it was written/],
    ['a batch that is not there', encodeUser(user('carol', 3), first, seed), /is not where it was written/],
    ['an id twice', encodeUser(user('carol', 1), bytes.length, seed), /gives id 1 a second time/],
    ['no user to remove', encodeRemoval(9, 'carol', at, bytes.length, seed), /removes user 9, who does not exist/],
  ];
  for (const [what, line, pattern] of cases) {
    const path = put(temporaryDirectory(t), Buffer.concat([bytes, line]));
    await assert.rejects(open(t, path), { code: 'corrupt', message: pattern }, what);
  }
});

test('verdict: a good line glued to one whose end is gone still shows that later writes follow', async (t) => {
  const { bytes, begins } = makeFile([['alice'], ['bob'], ['carol']]);
  bytes.fill(0, begins[2]! - 40, begins[2]);
  await assert.rejects(open(t, put(temporaryDirectory(t), bytes)), { code: 'corrupt', message: /line 3 .*later writes follow/ });
});

test('verdict: ids go on from the header of a file whose removals were dropped', async (t) => {
  const path = put(temporaryDirectory(t), encodeHeader({ version: 1, created: at, nextId: 41, seed }));
  const store = await open(t, path);
  assert.equal((await store.create(newUser('alice'))).user.id, 41);
});

test('verdict: a file of a later format is refused and not touched', async (t) => {
  const { bytes } = makeFile([['alice']]);
  const later = Buffer.from(bytes.toString().replace('"version":1', '"version":7'));
  const path = put(temporaryDirectory(t), later);
  await assert.rejects(open(t, path), { code: 'corrupt', message: /format version 7/ });
  assert.ok(readFileSync(path).equals(later));
  assert.equal(typeof decodeHeader(later.subarray(0, later.indexOf(0x0a))), 'string');
});

/** As on a read-only mount. */
const readOnlyCalls = new Set<keyof FileSystem>(['close', 'read', 'statFd', 'stat', 'readLink', 'list']);
const readOnly = new Proxy(nodeFileSystem, {
  get: (target, name: keyof FileSystem) => (...args: unknown[]) => {
    const isAllowed = readOnlyCalls.has(name) || (name === 'open' && args[1] === 'r');
    if (!isAllowed) throw Object.assign(new Error(`EROFS: ${name}`), { code: 'EROFS' });
    return (target[name] as (...args: unknown[]) => unknown)(...args);
  },
});

async function makeFileReadOnly(t: TestContext): Promise<{ path: string; store: FileUserStore }> {
  const path = join(temporaryDirectory(t), 'users.jsonl');
  const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
  t.after(() => store.close());
  for (const login of ['alice', 'bob', 'carol']) await store.create(newUser(login));
  await store.remove((await store.findRecord('bob'))!, '2026-11-23T08:00:00.000Z');
  return { path, store };
}

test('verdict: a torn tail that another process cuts off, and writes on, while it is read without the lock is no damage', async (t) => {
  const { path, store } = await makeFileReadOnly(t);
  await store.close();
  const sound = readFileSync(path);
  const { seed: own } = decodeHeader(sound.subarray(0, sound.indexOf(0x0a))) as { seed: number };
  const line = encodeUser({ id: 4, version: 1, ...newUser('dave') }, sound.length, own);
  const torn = Buffer.concat([line.subarray(0, -1), line.subarray(0, 40)]);
  const opens = [inspect, (fs: FileSystem, at: string) => ReadOnlyUserStore.open(fs, at)];
  // After the first read of the tail, and after the second.
  for (const [open, from] of opens.flatMap((one) => [[one, 1], [one, sound.length]] as const)) {
    writeFileSync(path, Buffer.concat([sound, torn]));
    let isCut = false;
    const read: FileSystem['read'] = (fd, buffer, offset, length, position) => {
      const bytes = nodeFileSystem.read(fd, buffer, offset, length, position);
      if (!isCut && position >= from && position + bytes > sound.length) {
        isCut = true;
        writeFileSync(path, Buffer.concat([sound, line]));
      }
      return bytes;
    };
    const opened = await open({ ...nodeFileSystem, read }, path);
    assert.ok(isCut);
    if ('damage' in opened) assert.equal(opened.damage, undefined);
    else await opened.close();
  }
});

test('read-only store: where the file is recovered while it is opened, and cannot be opened again, each descriptor is closed once', async (t) => {
  const { path, store } = await makeFileReadOnly(t);
  await store.close();
  rmSync(`${path}.lock`, { recursive: true });
  const sound = readFileSync(path);
  const { seed: own } = decodeHeader(sound.subarray(0, sound.indexOf(0x0a))) as { seed: number };
  const line = encodeUser({ id: 4, version: 1, ...newUser('dave') }, sound.length, own);
  writeFileSync(path, Buffer.concat([sound, line.subarray(0, -1), line.subarray(0, 40)]));
  const opened = new Set<number>();
  let [opens, isCut] = [0, false];
  const fs: FileSystem = {
    ...nodeFileSystem,
    open: (...args) => {
      if (args[0] === path && ++opens === 3) throw Object.assign(new Error('EIO'), { code: 'EIO' });
      const fd = nodeFileSystem.open(...args);
      opened.add(fd);
      return fd;
    },
    close: (fd) => {
      assert.ok(opened.delete(fd), 'a descriptor is closed twice');
      nodeFileSystem.close(fd);
    },
    read: (fd, into, offset, length, position) => {
      const bytes = nodeFileSystem.read(fd, into, offset, length, position);
      if (!isCut && position >= sound.length) {
        isCut = true;
        writeFileSync(path, Buffer.concat([sound, line]));
      }
      return bytes;
    },
  };
  await assert.rejects(ReadOnlyUserStore.open(fs, path), /EIO/);
  assert.deepEqual([opens, opened.size], [3, 0]);
});

test('read-only store: it reads on a read-only mount, beside a service, and creates nothing', async (t) => {
  const { path, store } = await makeFileReadOnly(t);
  const before = readdirSync(`${path}.lock`).sort();
  const reader = await ReadOnlyUserStore.open(readOnly, path);
  t.after(() => reader.close());
  assert.deepEqual(readdirSync(`${path}.lock`).sort(), before);
  assert.deepEqual(await reader.findRecord('alice'), await store.findRecord('alice'));
  assert.equal(reader.findPublic('bob'), undefined);
  const { users, next } = await reader.page(undefined, 1);
  assert.equal(JSON.parse(String(users[0])).login, 'alice');
  assert.equal(JSON.parse(String((await reader.page(next, 1)).users[0])).login, 'carol');
  assert.deepEqual((await reader.recordPage(undefined)).users.map(({ id }) => id), [1, 3]);
  assert.equal((await reader.ndjsonPage(undefined)).bytes.toString().split('\n').length, 3);
  assert.equal(await reader.lastId(), 3);
  // It is the state at its opening.
  await store.create(newUser('dave'));
  assert.equal(await reader.findRecord('dave'), undefined);
  for (const write of [reader.create(), reader.createMany(), reader.replace(), reader.remove()]) await assert.rejects(write, { code: 'unavailable' });
});

test('read-only store: bytes that are not durable are not read, a torn tail is passed over, damage is refused', async (t) => {
  const { path, store } = await makeFileReadOnly(t);
  const size = readFileSync(path).length;
  await store.create(newUser('dave'));
  await store.close();
  const durable = readFileSync(join(`${path}.lock`, 'durable'));
  // A write in progress: its bytes are there, and its durable offset is not.
  const decoded = durable.toString('latin1').trimEnd();
  assert.ok(decoded.includes(`"end":${readFileSync(path).length}`));
  rmSync(`${path}.lock`, { recursive: true });
  appendFileSync(path, '{"id":5,"login":"e');
  const reader = await ReadOnlyUserStore.open(readOnly, path);
  t.after(() => reader.close());
  assert.equal(reader.size, 3);
  const bytes = readFileSync(path);
  bytes[size - 60]! ^= 1;
  writeFileSync(path, bytes);
  await assert.rejects(ReadOnlyUserStore.open(readOnly, path), { code: 'corrupt', message: /Restore a backup/ });
  rmSync(path);
  await assert.rejects(ReadOnlyUserStore.open(readOnly, path), { code: 'cannot-start', message: /Cannot read .*ENOENT/ });
});
