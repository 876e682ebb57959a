/** The file's format: records, checksums, the durable offset, the index, the data directory, and durable files. */

import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { crc32 } from 'node:zlib';
import { nodeDurableFileCalls, writeDurableFile } from '../../../lib/durable-file.ts';
import type { DurableFileCalls } from '../../../lib/durable-file.ts';
import { BulkChecksum, seedOf } from '../../../lib/store/file/checksum.ts';
import { prepareDirectory, surroundings } from '../../../lib/store/file/directory.ts';
import { DurableOffsetFile, decodeDurableOffset, encodeDurableOffset } from '../../../lib/store/file/durable-offset.ts';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import { halfSipHash } from '../../../lib/store/file/half-sip-hash.ts';
import { LoginIndex } from '../../../lib/store/file/login-index.ts';
import { checksumHolds, copyPublic, decodeHeader, decodeUser, encodeHeader, encodeRemoval, encodeUser, newScanned, scanLine } from '../../../lib/store/file/record.ts';
import type { Scanned } from '../../../lib/store/file/record.ts';
import { temporaryDirectory, until } from '../../helper/temporary.ts';

const seed = 0x5e0c41d7;
const user = {
  id: 17,
  login: 'алиса',
  registered: '2026-11-22T15:00:00.000Z',
  version: 2,
  changed: '2026-11-23T08:00:00.000Z',
  kdf: 'pbkdf2:sha256:600000',
  password: `${'9c1f'.repeat(8)}$${'5be0'.repeat(16)}`,
  key: 'ab'.repeat(32),
};

function scan(line: Buffer): Scanned | string {
  const scanned = newScanned();
  return scanLine(line, 0, line.length - 1, seed, scanned) ?? scanned;
}

test('record: the vectors of version 1 are read and written as they always were', () => {
  const lines = readFileSync(new URL('../../vectors/users-v1.jsonl', import.meta.url));
  const [first = '', ...rest] = lines.toString('utf8').trimEnd().split('\n');
  const header = decodeHeader(Buffer.from(first));
  if (typeof header === 'string') throw new Error(header);
  assert.deepEqual(header, { version: 1, created: '2026-11-22T15:00:00.000Z', nextId: 1, seed });
  assert.equal(encodeHeader(header).toString(), `${first}\n`);
  for (const text of rest) {
    const line = Buffer.from(`${text}\n`);
    assert.equal(checksumHolds(line, 0, line.length - 1, seed), true);
    const { id, login, deleted, batch } = JSON.parse(text);
    const found = decodeUser(line, 0, line.length - 1);
    const again = found === undefined ? encodeRemoval(id, login, deleted, batch, seed) : encodeUser(found, batch, seed);
    assert.equal(again.toString(), line.toString());
  }
  assert.equal(rest.length, 9);
});

test('record: a line says all that is kept, and its checksum is the CRC-32 of what is before it', () => {
  const line = encodeUser(user, 20_480, seed);
  const { batch, crc, ...fields } = JSON.parse(line.toString());
  assert.deepEqual(fields, user);
  assert.deepEqual(Object.keys(fields), ['id', 'login', 'registered', 'version', 'changed', 'kdf', 'password', 'key']);
  assert.equal(batch, 20_480);
  assert.equal(crc, crc32(line.subarray(0, line.indexOf(',"crc"')), seed).toString(16).padStart(8, '0'));
  assert.equal(line.at(-1), 0x0a);
});

test('record: the public JSON is a prefix of the line and has no secret in it', () => {
  const line = encodeUser(user, 20_480, seed);
  const { kdf, password, key, ...open } = user;
  const json = Buffer.alloc(line.length);
  assert.deepEqual(JSON.parse(json.subarray(0, copyPublic(line, 0, line.length - 1, json, 0)).toString()), open);
  assert.ok(kdf && password && key);
  const removal = encodeRemoval(17, 'bob', '2026-11-23T08:00:00.000Z', 5, seed);
  assert.throws(() => copyPublic(removal, 0, removal.length - 1, json, 0), RangeError);
});

test('record: only a line whose public fields are those of the format, in their order, is a user; unknown fields follow the password', () => {
  const sealed = (text: string): Buffer => Buffer.from(`${text},"crc":"${crc32(text, seed).toString(16).padStart(8, '0')}"}\n`);
  const before = '{"id":17,"login":"bob","registered":"2026-11-22T15:00:00.000Z","version":1';
  const after = '"kdf":"none","password":"","batch":5';
  for (const [text, expected] of [
    [`${before},"disabled":"2026-11-23T08:00:00.000Z",${after}`, 'user'],
    [`${before},${after.replace(',"batch"', ',"deleted":"x","z":{"a":["\\n"]},"batch"')}`, 'user'],
    [`${before},"phone":"1",${after}`, 'is no record of a user'],
    [before.replace('"registered"', '"domain":"x","registered"') + `,${after}`, 'is no record of a user'],
    [`${before},"disabled":"2026-11-23T08:00:00.000Z","changed":"2026-11-23T08:00:00.000Z",${after}`, 'is no record of a user'],
    ['{"id":17,"login":"bob","deleted":"2026-11-23T08:00:00.000Z","by":"admin","batch":5', 'removal'],
  ] as const) {
    const found = scan(sealed(text));
    assert.equal(typeof found === 'string' ? found : found.isRemoval ? 'removal' : 'user', expected, text);
  }
  const line = encodeUser({ ...user, unknownFields: { phone: 'a\nb', n: 1e300 } }, 20_480, seed);
  const decoded = decodeUser(line, 0, line.length - 1);
  assert.deepEqual(decoded?.unknownFields, { phone: 'a\nb', n: 1e300 });
  assert.ok(encodeUser(decoded!, 20_480, seed).equals(line));
  assert.throws(() => encodeUser({ ...user, login: 'a"b' }, 5, seed), RangeError);
});

test('record: a scan finds id, login, batch and whether it is a removal', () => {
  const line = encodeUser(user, 20_480, seed);
  const found = scan(line);
  assert.ok(typeof found !== 'string');
  assert.deepEqual([found.id, found.isRemoval, found.batch], [17, false, 20_480]);
  assert.equal(line.toString('utf8', found.loginStart, found.loginEnd), 'алиса');
  const removal = scan(encodeRemoval(900_719_925_474_099, 'bob', '2026-11-23T08:00:00.000Z', 105, seed));
  assert.ok(typeof removal !== 'string');
  assert.deepEqual([removal.id, removal.isRemoval, removal.batch], [900_719_925_474_099, true, 105]);
});

test('record: no single changed byte passes, nor another seed', () => {
  const line = encodeUser(user, 20_480, seed);
  for (let at = 0; at < line.length - 1; at++) {
    for (const bit of [1, 8, 128]) {
      const bad = Buffer.from(line);
      bad[at]! ^= bit;
      assert.equal(scan(bad), 'fails its checksum', `byte ${at}`);
    }
  }
  assert.equal(checksumHolds(line, 0, line.length - 1, seed + 1), false);
});

test('record: a line with a good checksum that is no record is told', () => {
  const text = '{"hello":1';
  const line = Buffer.from(`${text},"crc":"${crc32(text, seed).toString(16).padStart(8, '0')}"}\n`);
  assert.equal(scan(line), 'is no record of a user');
  assert.equal(scan(Buffer.from('\n')), 'fails its checksum');
});

test('record: a header of another kind is refused by name', () => {
  const good = encodeHeader({ version: 1, created: 'x', nextId: 1, seed }).subarray(0, -1).toString();
  const cases: [string, RegExp][] = [
    ['nonsense', /not JSON/],
    ['[]', /does not say/],
    ['{"format":"other"}', /does not say/],
    [good.replace('"version":1', '"version":2'), /format version 2, and this program knows version 1 only/],
    [good.replace('"nextId":1', '"nextId":2'), /fails its checksum/],
    [good.replace('"seed":"5e', '"seed":"5E'), /lacks a field/],
  ];
  for (const [text, pattern] of cases) assert.match(String(decodeHeader(Buffer.from(text))), pattern);
});

/** Lines of many lengths, as `encodeUser` makes them. */
function lines(count: number, seed: number): Buffer[] {
  return Array.from({ length: count }, (_, n) => {
    if (n % 7 === 3) return encodeRemoval(n + 1, `user${n}`, '2026-11-22T15:00:00.000Z', n * 100, seed);
    const login = 'ж'.repeat(randomInt(1, 64));
    const password = `${randomBytes(16).toString('hex')}$${randomBytes(randomInt(32, 65)).toString('hex')}`;
    return encodeUser({ id: n + 1, login, registered: '2026-11-22T15:00:00.000Z', version: 1, kdf: 'pbkdf2:sha256:1', password }, n * 100, seed);
  });
}

test('checksum: many lines are verified together, whatever their lengths, seed and place', () => {
  for (const seed of [0, 1, 0x5e0c41d7, 0xffffffff]) {
    const proof = new BulkChecksum();
    for (let n = 0; n < 20; n++) {
      const before = randomBytes(n);
      const bytes = Buffer.concat([before, ...lines(n * 10 + 1, seed), Buffer.from('{"id":')]);
      const end = bytes.length - 6;
      assert.equal(proof.holds(bytes, n, end, seed), true);
      assert.equal(proof.holds(bytes, n, end, (seed ^ 1) >>> 0), false);
      assert.equal(proof.holds(bytes, n, end - 1, seed), false, 'the last line has no end');
    }
  }
});

test('checksum: no bit of any line may change', () => {
  const proof = new BulkChecksum();
  const bytes = Buffer.concat(lines(8, 0x5e0c41d7));
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    assert.equal(proof.holds(bytes, 0, bytes.length, 0x5e0c41d7), false, `bit ${bit}`);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
  }
  assert.equal(proof.holds(bytes, 0, bytes.length, 0x5e0c41d7), true);
});

test('checksum: together and one by one say the same of lines that are changed, swapped, dropped, doubled or glued', () => {
  const proof = new BulkChecksum();
  const seed = 0xabad1dea;
  for (let n = 0; n < 2_000; n++) {
    const all = lines(6, seed);
    const [a, b] = [randomInt(6), randomInt(6)];
    const kind = n % 5;
    if (kind === 0) all[a]![randomInt(all[a]!.length)] = randomInt(256);
    if (kind === 1) [all[a], all[b]] = [all[b]!, all[a]!];
    if (kind === 2) all.splice(a, 1);
    if (kind === 3) all.splice(a, 0, all[b]!);
    if (kind === 4) all[a] = all[a]!.subarray(0, -1);
    const bytes = Buffer.concat(all);
    let isEachRight = bytes.at(-1) === 0x0a;
    for (let start = 0; start < bytes.length; ) {
      const found = bytes.indexOf(0x0a, start);
      const end = found < 0 ? bytes.length : found;
      isEachRight &&= checksumHolds(bytes, start, end, seed);
      start = end + 1;
    }
    assert.equal(proof.holds(bytes, 0, bytes.length, seed), isEachRight, `kind ${kind}`);
  }
});

test('checksum: any line and its checksum give the seed', () => {
  for (let n = 0; n < 300; n++) {
    const [bytes, seed] = [randomBytes(1 + n * 13), randomBytes(4).readUInt32LE()];
    assert.equal(seedOf(bytes, crc32(bytes, seed)), seed);
  }
});

const durable = { boot: 'f65472d9-ef0b-44c0-9cf6-4c3c850a7de8', inode: 2 ** 52, seed: 0xfffffff0, end: 2 ** 52 + 2, nextId: 2 ** 48 };

/** The path of a users file that has a lock directory, and that of its durable offset. */
function usersFile(t: TestContext): [users: string, durable: string] {
  const users = join(temporaryDirectory(t), 'users.jsonl');
  mkdirSync(`${users}.lock`);
  return [users, join(`${users}.lock`, 'durable')];
}

test('durable offset: what is written is read, by others too, and in place', (t) => {
  const [users, path] = usersFile(t);
  const writer = new DurableOffsetFile(nodeFileSystem, users);
  const reader = new DurableOffsetFile(nodeFileSystem, users);
  t.after(() => {
    writer.close();
    reader.close();
  });
  assert.equal(reader.read(), undefined);
  writer.write(durable);
  const { ino } = statSync(path);
  assert.deepEqual(reader.read(), durable);
  assert.equal(reader.read(), reader.read());
  writer.write({ ...durable, end: 5 });
  assert.deepEqual(reader.read(), { ...durable, end: 5 });
  assert.equal(statSync(path).ino, ino);
  assert.equal(statSync(path).size, 256);
});

test('durable offset: half of one, or one with a changed byte, is none', (t) => {
  const bytes = encodeDurableOffset(durable);
  assert.deepEqual(decodeDurableOffset(bytes), durable);
  for (let at = 0; at < bytes.length; at++) {
    const bad = Buffer.from(bytes);
    bad[at]! ^= 1;
    assert.equal(decodeDurableOffset(bad), undefined, `byte ${at}`);
  }
  const [users, path] = usersFile(t);
  writeFileSync(path, bytes.subarray(0, 80));
  const reader = new DurableOffsetFile(nodeFileSystem, users);
  t.after(() => reader.close());
  assert.equal(reader.read(), undefined);
  assert.throws(() => encodeDurableOffset({ ...durable, boot: 'x'.repeat(200) }), RangeError);
});

test('durable offset: a write in part is an error', (t) => {
  const fs = { ...nodeFileSystem, writeNow: () => 10 };
  const writer = new DurableOffsetFile(fs, usersFile(t)[0]);
  t.after(() => writer.close());
  assert.throws(() => writer.write(durable), /in part/);
});

test('half-sip-hash: the reference vectors', () => {
  // HalfSipHash-2-4, 32 bits, key 00..07, input 00, 01, …, as long as the vector's position.
  const vectors = ['a9359f5b', '27475ab8', 'fa62a603', '8afee704', '2a6e4689', 'c5fab669', '5863fc23', '8bcf63c5', 'd0b8848f'];
  const input = Buffer.from(vectors.map((_, n) => n));
  for (const [length, vector] of vectors.entries()) {
    const expected = Buffer.from(vector, 'hex').readUInt32LE();
    assert.equal(halfSipHash(0x03020100, 0x07060504, input, 0, length), expected);
    assert.equal(halfSipHash(0x03020100, 0x07060504, Buffer.concat([Buffer.from('x'), input]), 1, length + 1), expected);
  }
});

/** A generator with a seed, so that a failure can be had again. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

for (const hashBits of [32, 4]) {
  test(`index: it agrees with a Map, with hashes of ${hashBits} bits`, () => {
    const next = random(hashBits);
    const index = new LoginIndex([1, 2]);
    const model = new Map<string, { id: number; offset: number }>();
    const logins = new Map<number, string>();
    const hashOf = (login: string): number => {
      const bytes = Buffer.from(login);
      return index.hash(bytes, 0, bytes.length) % 2 ** hashBits;
    };
    const find = (login: string): number => index.find(hashOf(login), (rank) => logins.get(index.id(rank)) === login);
    let id = 0;
    let offset = 0;
    const steps = hashBits === 32 ? 60_000 : 1_500;
    for (let step = 0; step < steps; step++) {
      const login = `user${next(steps / 6)}`;
      offset += 200 + next(2 ** 33);
      const known = model.get(login);
      const rank = find(login);
      assert.equal(rank >= 0, known !== undefined);
      if (known === undefined) {
        id += 1 + next(2 ** 20);
        index.add(hashOf(login), id, offset);
        logins.set(id, login);
        model.set(login, { id, offset });
      } else if (next(3) === 0) {
        index.remove(rank);
        model.delete(login);
      } else {
        index.move(rank, offset);
        known.offset = offset;
      }
    }
    assert.equal(index.size, model.size);
    assert.equal(index.lastId, id);
    assert.ok(offset > 2 ** 40 && id > 2 ** 28);
    for (const [login, known] of model) {
      const rank = find(login);
      assert.equal(index.id(rank), known.id);
      assert.equal(index.offset(rank), known.offset);
      assert.equal(index.rankAfter(known.id), rank + 1);
      assert.equal(index.rankAfter(known.id - 1), rank);
    }
  });
}

test('index: ids above 32 bits are kept, and ascend', () => {
  const index = new LoginIndex([1, 2]);
  const high = 2 ** 45 + 12_345;
  index.add(7, high, 2 ** 47 + 5);
  assert.equal(index.id(0), high);
  assert.equal(index.offset(0), 2 ** 47 + 5);
  index.move(0, 2 ** 33 + 1);
  assert.equal(index.id(0), high);
  assert.equal(index.offset(0), 2 ** 33 + 1);
  assert.throws(() => index.add(8, high, 1), RangeError);
});

test('index: at most 32 bytes a user, and no insertion allocates more than a block of entries', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const allocated = (): number => process.memoryUsage().arrayBuffers;
  collect();
  const atStart = allocated();
  const index = new LoginIndex([1, 2]);
  for (let id = 1, before = allocated(); id <= 400_000; id++) {
    index.add(Math.imul(id, 0x9e3779b1) >>> 0, id, id * 250);
    if (id % 100 !== 0) continue;
    // A table that doubles as a whole would add 4 MB near the end, and block as long as that takes to fill.
    assert.ok(allocated() - before <= 3_000_000, `${allocated() - before} bytes for a hundred users up to ${id}`);
    before = allocated();
  }
  // What was collected is returned by another thread, some time later.
  await until(() => {
    collect();
    return (allocated() - atStart) / 400_000 <= 32;
  }, 'at most 32 bytes a user');
  assert.equal(index.lastId, 400_000);
});

test('directory: one that is missing is made, for its owner alone', (t) => {
  const directory = join(temporaryDirectory(t), 'a', 'b');
  assert.equal(prepareDirectory(directory), directory);
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  assert.equal(prepareDirectory(directory), directory);
});

test('directory: a file system that another kernel may write to is refused, by name, and nothing is made', { skip: process.platform !== 'linux' }, (t) => {
  const directory = join(temporaryDirectory(t), 'a');
  const cases: [number, RegExp][] = [
    [0x6969, /\(NFS\)/], [0x65735546, /\(FUSE\).*Docker Desktop.*named volume/], [0x01021997, /\(9p\)/], [0xff534d42, /\(CIFS\)/], [0x1234, /\(of type 0x1234\)/],
  ];
  for (const [type, pattern] of cases) {
    assert.throws(() => prepareDirectory(directory, { ...surroundings, fileSystemType: () => type }), { code: 'cannot-start', message: pattern });
  }
  assert.equal(existsSync(directory), false);
});

test('directory: another owner is named, or numbered where there is no name', (t) => {
  const directory = temporaryDirectory(t);
  assert.throws(() => prepareDirectory(directory, { ...surroundings, uid: 54_321 }), { code: 'cannot-start', message: /belongs to \w+, not to you: .*sudo -u \w+/ });
});

test('directory: what others can read or write is refused with the chmod command; group access is accepted', (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  writeFileSync(path, 'x');
  for (const [mode, isAccepted] of [[0o644, false], [0o602, false], [0o660, true], [0o600, true]] as const) {
    chmodSync(path, mode);
    if (isAccepted) assert.equal(prepareDirectory(directory), directory);
    else assert.throws(() => prepareDirectory(directory), { code: 'cannot-start', message: /chmod o-rwx ".*users\.jsonl"$/ });
  }
  chmodSync(directory, 0o707);
  assert.throws(() => prepareDirectory(directory), { code: 'cannot-start', message: /chmod o-w / });
  chmodSync(directory, 0o770);
  // As a volume of Kubernetes: root's, and writable by the group.
  if (process.getuid?.() === 0) assert.equal(prepareDirectory(directory, { ...surroundings, uid: 54_321 }), directory);
});

test('directory: a file in its place is refused', (t) => {
  const path = join(temporaryDirectory(t), 'file');
  writeFileSync(path, '');
  assert.throws(() => prepareDirectory(path), { message: /not a directory/ });
  assert.throws(() => prepareDirectory(join(path, 'below')), { message: /cannot be looked at \(ENOTDIR\)|not a directory/ });
});

const text = [Buffer.from('one\n'), Buffer.from('two\n')];

/** The calls in order; the one of that name fails. */
function recording(calls: string[], failing?: keyof DurableFileCalls): DurableFileCalls {
  return new Proxy(nodeDurableFileCalls, {
    get: (target, name: keyof DurableFileCalls) => (...args: never[]) => {
      calls.push(name);
      if (name === failing) throw Object.assign(new Error('injected'), { code: 'EIO' });
      return (target[name] as (...args: never[]) => unknown)(...args);
    },
  });
}

test('durable file: content is synced before the rename, and the directory after it', async (t) => {
  const path = join(temporaryDirectory(t), 'file');
  writeFileSync(path, 'before', { mode: 0o644 });
  const calls: string[] = [];
  assert.equal(await writeDurableFile(path, text, { calls: recording(calls) }), true);
  assert.deepEqual(calls, ['open', 'write', 'write', 'datasync', 'close', 'rename', 'syncDirectory', 'unlink']);
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwo\n');
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('durable file: whichever call fails before the rename, the file is as it was and no temporary file is left', async (t) => {
  for (const call of ['open', 'write', 'datasync', 'rename'] as const) {
    const directory = temporaryDirectory(t);
    const path = join(directory, 'file');
    writeFileSync(path, 'before');
    await assert.rejects(writeDurableFile(path, text, { calls: recording([], call) }), /injected/);
    assert.equal(readFileSync(path, 'utf8'), 'before', call);
    assert.deepEqual(readdirSync(directory), ['file'], call);
  }
  const path = join(temporaryDirectory(t), 'file');
  const refuse = async (temporary: string): Promise<void> => assert.equal(readFileSync(temporary, 'utf8'), 'never equal');
  await assert.rejects(writeDurableFile(path, text, { beforeRename: refuse }), assert.AssertionError);
  await assert.rejects(writeDurableFile(path, text, { calls: { ...nodeDurableFileCalls, write: async () => 0 } }), { code: 'EIO' });
});

test('durable file: with isNew an existing file is kept, and of many writers at once one succeeds', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'file');
  const results = await Promise.all([0, 1, 2, 3, 4].map((n) => writeDurableFile(path, [Buffer.from(String(n))], { isNew: true })));
  assert.equal(results.filter(Boolean).length, 1);
  assert.equal(readFileSync(path, 'utf8'), String(results.indexOf(true)));
  assert.deepEqual(readdirSync(directory), ['file']);
});
