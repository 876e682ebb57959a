/** Import and export, from lines to files. */

import assert from 'node:assert/strict';
import { pbkdf2Sync } from 'node:crypto';
import { lstatSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../lib/errors.ts';
import { Hasher } from '../../lib/password/hasher.ts';
import { FileUserStore } from '../../lib/store/file/file-user-store.ts';
import { MemoryUserStore } from '../../lib/store/memory.ts';
import { exportText } from '../../lib/transfer/export.ts';
import type { ExportOptions } from '../../lib/transfer/export.ts';
import { importLines } from '../../lib/transfer/import.ts';
import type { ImportOptions, ImportResult } from '../../lib/transfer/import.ts';
import { lineBytesMax, readLines } from '../../lib/transfer/lines.ts';
import type { Line } from '../../lib/transfer/lines.ts';
import { writeWholeFile } from '../../lib/transfer/whole-file.ts';
import { temporaryDirectory } from '../helper/temporary.ts';
import { newUser } from '../helper/user-store-contract.ts';

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(input: AsyncIterable<Uint8Array>): Promise<Line[]> {
  const lines: Line[] = [];
  for await (const some of readLines(input)) lines.push(...some);
  return lines;
}

test('lines: however they are cut into chunks they are the same', async () => {
  const long = 'x'.repeat(lineBytesMax);
  const bytes = Buffer.concat([
    Buffer.from(`\ufeff{"a":1}\r\nверная 😀\n\n  \n${long}\n${long}y\nlast but one\n`), Buffer.from([0xff, 0xfe, 0x0a]), Buffer.from('no end'),
  ]);
  const expected: Line[] = [
    { number: 1, text: '{"a":1}\r' },
    { number: 2, text: 'верная 😀' },
    { number: 5, text: long },
    { number: 6, problem: 'It is longer than 16384 bytes' },
    { number: 7, text: 'last but one' },
    { number: 8, problem: 'It is not UTF-8 text' },
    { number: 9, text: 'no end' },
  ];
  for (const size of [1, 2, 7, 100, 16_384, 16_385, bytes.length]) assert.deepEqual(await read(pieces(bytes, size)), expected, String(size));
});

test('lines: what ends in the middle of a character, or is too long and has no end, is told', async () => {
  assert.deepEqual(await read(pieces(Buffer.from([0x61, 0xd0]), 1)), [{ number: 1, problem: 'It is not UTF-8 text' }]);
  assert.deepEqual(await read(pieces(Buffer.alloc(40_000, 'x'), 1_000)), [{ number: 1, problem: 'It is longer than 16384 bytes' }]);
  assert.deepEqual(await read(pieces(Buffer.alloc(0), 1)), []);
});

test('lines: of a line of a gigabyte next to nothing is in memory', async () => {
  const chunk = Buffer.alloc(1 << 20, 'x');
  async function* gigabyte(): AsyncGenerator<Buffer> {
    for (let n = 0; n < 1024; n++) yield chunk;
    yield Buffer.from('\n{}\n');
  }
  const before = process.memoryUsage().arrayBuffers;
  const input = gigabyte();
  let most = 0;
  async function* watched(): AsyncGenerator<Buffer> {
    for await (const bytes of input) {
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
      if (most > 64 << 20) break;
      yield bytes;
    }
  }
  assert.deepEqual(await read(watched()), [{ number: 1, problem: 'It is longer than 16384 bytes' }, { number: 2, text: '{}' }]);
  assert.ok(most < 64 << 20, `${most} bytes`);
});

test('lines: a byte order mark is dropped at the start of the file, and reported at the start of a later line', async () => {
  const problem = 'It begins with a byte order mark (U+FEFF), which may begin a file only';
  const lines = await read(pieces(Buffer.from('\ufeff{"a":1}\n\ufeff{"b":2}\n\ufeff\n{"c":"\ufeff"}\n'), 5));
  assert.deepEqual(lines, [{ number: 1, text: '{"a":1}' }, { number: 2, problem }, { number: 3, problem }, { number: 4, text: '{"c":"\ufeff"}' }]);
});

const policy = { codePointsMin: 8, codePointsMax: 256, common: new Set<string>() };
const at = '2026-11-22T15:00:00.000Z';
const hash = `${'9c1f'.repeat(8)}$${'5be0'.repeat(16)}`;
const otherHash = `${'9c1f'.repeat(8)}$${'5be1'.repeat(16)}`;
const kdf = 'pbkdf2:sha256:1';

function open(t: Pick<TestContext, 'after'>, more: Partial<ImportOptions> = {}): ImportOptions & { store: MemoryUserStore } {
  const hasher = new Hasher({ kdf: { digest: 'sha256', iterations: 1 }, workers: 2, waitMsMax: Infinity, queueMax: 1000 });
  t.after(() => hasher.close());
  return { store: new MemoryUserStore(), hasher, policy, now: () => new Date(at), from: undefined, isDryRun: false, ...more } as
    ImportOptions & { store: MemoryUserStore };
}

async function* text(lines: readonly unknown[], chunkBytes = 1000): AsyncGenerator<Buffer> {
  const bytes = Buffer.from(lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''));
  for (let n = 0; n < bytes.length; n += chunkBytes) yield bytes.subarray(n, n + chunkBytes);
}

async function run(input: AsyncIterable<Uint8Array>, options: ImportOptions): Promise<ImportResult[]> {
  const all: ImportResult[] = [];
  for await (const results of importLines(input, options)) all.push(...results);
  return all;
}

async function exported(store: Parameters<typeof exportText>[0]): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of exportText(store)) pieces.push(piece);
  return Buffer.concat(pieces).toString('utf8');
}

const outcomes = (results: readonly ImportResult[]): string[] => results.map(({ line, outcome }) => `${line} ${outcome}`);

test('import: each line has its result, in order, and run again nothing is done', async (t) => {
  const options = open(t);
  await options.store.create(newUser('taken'));
  const lines = [
    { login: 'Alice', password: 'correct horse battery' },
    { login: 'bob', kdf, password: hash },
    'nonsense',
    { login: 'taken', kdf, password: hash },
    { login: 'taken', password: 'correct horse battery' },
    { login: 'bob', kdf, password: hash },
    { login: 'bob', kdf, password: otherHash },
    { login: 'alice', password: 'correct horse battery' },
    { login: 'ALICE', password: 'another horse' },
    { login: 'carol', password: 'short' },
  ];
  const first = await run(text(lines), options);
  const expected = ['added', 'added', 'invalid', 'refused', 'refused', 'unchanged', 'refused', 'unchanged', 'refused', 'invalid'];
  assert.deepEqual(outcomes(first), expected.map((outcome, n) => `${n + 1} ${outcome}`));
  assert.deepEqual(first[0], { line: 1, outcome: 'added', login: 'alice', id: 2 });
  assert.match(JSON.stringify(first[3]), /The login \\"taken\\" belongs to user 1, registered 2026-11-22T15:00:00\.000Z, with another password or hash/);
  assert.ok(!JSON.stringify(first).includes('horse') && !JSON.stringify(first).includes('5be0'));
  const alice = await options.store.findRecord('alice');
  assert.equal(alice?.registered, at);
  assert.equal(await options.hasher.verify('correct horse battery', alice!, {}), true);
  const before = await exported(options.store);
  const again = await run(text(lines), options);
  assert.deepEqual(outcomes(again), outcomes(first).map((outcome) => outcome.replace('added', 'unchanged')));
  assert.equal(await exported(options.store), before);
});

test('import: a dry run says the same and writes nothing', async (t) => {
  const options = open(t);
  await options.store.create(newUser('taken'));
  const lines = [
    { login: 'alice', password: 'correct horse battery' }, { login: 'taken', kdf, password: hash }, { login: 'bob', kdf, password: hash },
    { login: 'bob', kdf, password: hash }, { login: 'bob', kdf, password: otherHash }, 'x', { login: 'alice', password: 'correct horse battery' },
    { login: 'alice', password: 'another horse' }, { login: 'taken', kdf, password: newUser('x').password },
  ];
  const before = await exported(options.store);
  const dry = await run(text(lines), { ...options, isDryRun: true });
  assert.equal(await exported(options.store), before);
  assert.deepEqual(outcomes(dry), outcomes(await run(text(lines), options)));
});

test('import: of one login the same user is the one with the same date, and the same id or hash', async (t) => {
  const options = open(t);
  const registered = '2020-01-02T03:04:05.678Z';
  const other = '2021-01-02T03:04:05.678Z';
  const lines = [
    { login: 'alice', kdf, password: hash, registered }, { login: 'bob', password: 'correct horse battery', registered }, { login: 'carol', kdf, password: hash },
    { id: 9, login: 'dave', registered, version: 1, kdf, password: hash }, { login: 'eve', kdf: 'none', password: '', registered },
    { id: 12, login: 'frank', registered, version: 2, disabled: at, kdf, password: hash },
  ];
  await run(text(lines), options);
  assert.deepEqual(outcomes(await run(text(lines), options)), lines.map((_, n) => `${n + 1} unchanged`));
  // Another date, or another hash without the id, is another user: no user may be lost as "there already".
  const others = [
    { ...lines[0]!, registered: other }, { ...lines[0]!, login: 'Alice', password: otherHash }, { ...lines[1]!, registered: other },
    { ...lines[1]!, password: 'battery horse correct' }, { ...lines[3]!, registered: other }, { ...lines[3]!, id: 10, password: otherHash }, { ...lines[4]!, registered: other },
  ];
  assert.deepEqual(outcomes(await run(text(others), options)), others.map((_, n) => `${n + 1} refused`));
  // With the id a changed password is the same user, and a later version is not here.
  const { disabled, ...frank } = (await options.store.findRecord('frank'))!;
  assert.equal(disabled, at);
  await options.store.replace(frank, { kdf, password: otherHash, changed: at });
  assert.deepEqual(outcomes(await run(text([lines[5], { ...lines[5]!, version: 9 }]), options)), ['1 unchanged', '2 refused']);
});

test('import: Alice and alice with one date and two hashes are two users: the second is refused, in a dry run as well', async (t) => {
  const registered = '2020-01-02T03:04:05.678Z';
  const cases = [
    [{ login: 'Alice', kdf, password: hash, registered }, { login: 'alice', kdf, password: otherHash, registered }],
    [{ id: 5, login: 'alice', kdf, password: hash, registered }, { id: 5, login: 'alice', kdf, password: otherHash, registered }],
    [{ login: 'alice', kdf, password: hash }, { login: 'alice', kdf, password: hash, registered }],
    [{ login: 'alice', password: 'correct horse battery' }, { login: 'alice', kdf, password: hash }],
    [{ login: 'alice', kdf, password: hash }, { login: 'alice', password: 'correct horse battery' }],
  ];
  for (const isBetween of [false, true]) {
    for (const lines of cases) {
      // With lines between them the two are in batches of their own.
      const between = Array.from({ length: isBetween ? 4_100 : 0 }, (_, n) => ({ login: `user${n}`, kdf, password: hash }));
      const [options, dry] = [open(t), open(t)];
      const results = (await run(text([lines[0], ...between, lines[1]], 65_536), options)).map(({ outcome }) => outcome);
      assert.deepEqual([results[0], results.at(-1)], ['added', 'refused'], JSON.stringify(lines));
      const dryResults = await run(text([lines[0], ...between, lines[1]], 65_536), { ...dry, isDryRun: true });
      assert.deepEqual(dryResults.map(({ outcome }) => outcome), results);
      assert.match(JSON.stringify(dryResults.at(-1)), /belongs to an earlier line/);
    }
  }
});

test('import: a costly hash needs its flag, and says what it costs; with its flag the hash of an empty password is refused', async (t) => {
  const options = open(t);
  const empty = pbkdf2Sync('', 'salt', 1, 32, 'sha256').toString('hex');
  const lines = [{ login: 'alice', kdf: 'pbkdf2:sha256:1000', password: hash }, { login: 'bob', kdf, password: `salt$${empty}` }, { login: 'carol', kdf: 'none', password: '' }];
  assert.deepEqual(outcomes(await run(text(lines), { ...open(t), isEmptyChecked: true })), ['1 invalid', '2 invalid', '3 added']);
  const results = await run(text(lines), { ...options, isCostlyAllowed: true });
  assert.deepEqual(results[0], { line: 1, outcome: 'added', login: 'alice', id: 1, costs: 1000 });
  assert.deepEqual(results[1], { line: 2, outcome: 'added', login: 'bob', id: 2 });
  const dry = await run(text(lines), { ...open(t), isCostlyAllowed: true, isEmptyChecked: true, isDryRun: true });
  assert.deepEqual(dry[0], { line: 1, outcome: 'added', login: 'alice', costs: 1000 });
  assert.match(JSON.stringify(dry[1]), /invalid.*that of an empty password/);
});

test('import: what was exported comes out the same bit for bit, and an id that was given already is told', async (t) => {
  const options = open(t);
  const users = Array.from({ length: 9_000 }, (_, n) => ({ ...newUser(`user${n}`, n % 3 === 0 ? { key: 'ab'.repeat(32) } : {}), id: n * 2 + 5 }));
  await options.store.createMany(users);
  const first = await options.store.findRecord('user1');
  await options.store.replace(first!, { kdf: 'pbkdf2:sha256:29000:hex', password: `00ff$${'5be0'.repeat(16)}`, changed: at });
  await options.store.remove((await options.store.findRecord('user2'))!, at);
  const before = await exported(options.store);
  const file = await FileUserStore.open({ path: join(temporaryDirectory(t), 'users.jsonl'), lockWaitMsMax: 5_000 });
  t.after(() => file.close());
  const results = await run(text([before.trimEnd()], 70_001), { ...options, store: file, isCostlyAllowed: true });
  assert.equal(results.length, 8_999);
  assert.ok(results.every((result) => result.outcome === 'added' && !('detail' in result)));
  assert.equal(await exported(file), before);
  const [late] = await run(text([{ ...newUser('late'), id: 5 }]), { ...options, store: file });
  assert.equal(late?.outcome, 'added');
  assert.match(JSON.stringify(late), /Id 5 has been assigned before, or may have been: the user has got 18004/);
});

test('import: where the store fails, what was added before is told, and run again it goes on', async (t) => {
  const options = open(t);
  const lines = Array.from({ length: 9_500 }, (_, n) => ({ login: `user${n}`, kdf, password: hash }));
  let calls = 0;
  const failing = {
    findRecord: (login: string) => options.store.findRecord(login),
    createMany: async (arrivals: Parameters<MemoryUserStore['createMany']>[0]) => {
      if (++calls === 3) throw new RegistrarError('storage-full', 'There is no room');
      return options.store.createMany(arrivals);
    },
  };
  const told: ImportResult[] = [];
  await assert.rejects(async () => {
    for await (const results of importLines(text(lines, 65_536), { ...options, store: failing })) told.push(...results);
  }, { code: 'storage-full' });
  assert.equal(told.length, 8_000);
  assert.ok(told.every(({ outcome }) => outcome === 'added'));
  const again = await run(text(lines, 65_536), options);
  assert.equal(again.filter(({ outcome }) => outcome === 'unchanged').length, 8_000);
  assert.equal(again.filter(({ outcome }) => outcome === 'added').length, 1_500);
});

test('import: an input that breaks off is told after all that came before it', async (t) => {
  const options = open(t);
  async function* broken(): AsyncGenerator<Buffer> {
    yield* text([{ login: 'alice', kdf, password: hash }, { login: 'bob', kdf, password: hash }]);
    throw new Error('the input is gone');
  }
  await assert.rejects(run(broken(), options), /the input is gone/);
  // A batch that was not full when the input broke off was not begun.
  assert.equal(await options.store.findRecord('alice'), undefined);
});

test('import: a signal ends it after what is being written, and hashes that wait are not waited for', async (t) => {
  const interruption = new AbortController();
  const options = open(t, { signal: interruption.signal });
  const slow = { kdf: options.hasher.kdf, hash: (_: string, signal?: AbortSignal) => new Promise<never>((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason))), verify: options.hasher.verify };
  const lines = [...Array.from({ length: 4_000 }, (_, n) => ({ login: `user${n}`, kdf, password: hash })), { login: 'alice', password: 'correct horse battery' }];
  const told: ImportResult[] = [];
  for await (const results of importLines(text(lines, 65_536), { ...options, hasher: slow })) {
    told.push(...results);
    setImmediate(() => interruption.abort());
  }
  assert.equal(told.length, 4_000);
  assert.equal(await options.store.findRecord('alice'), undefined);
  assert.ok(await options.store.findRecord('user3999'));
});

async function whole(store: MemoryUserStore, isDocument = false, options: ExportOptions = {}): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of exportText(store, { ...options, isDocument })) pieces.push(piece);
  return Buffer.concat(pieces).toString('utf8');
}

test('export: a line for each user in the order of ids, all fields in one order; or one document', async () => {
  const store = new MemoryUserStore();
  assert.equal(await whole(store, false), '');
  assert.deepEqual(JSON.parse(await whole(store, true)), { users: [] });
  const arrivals = Array.from({ length: 1_200 }, (_, n) => newUser(`user${n}`, n === 7 ? { key: 'ab'.repeat(32) } : {}));
  await store.createMany(arrivals);
  const lines = (await whole(store, false)).split('\n');
  assert.equal(lines.pop(), '');
  const users = lines.map((line) => JSON.parse(line));
  assert.deepEqual(users.map(({ id }) => id), arrivals.map((_, n) => n + 1));
  assert.deepEqual(Object.keys(users[7]), ['id', 'login', 'registered', 'version', 'kdf', 'password', 'key']);
  assert.deepEqual(JSON.parse(await whole(store, true)), { users });
});

test('export: a login that is removed and registered again meanwhile is in it once, and no id above the last one at its start', async () => {
  for (const isShared of [false, true]) {
    const store = new MemoryUserStore();
    await store.createMany(Array.from({ length: 1_200 }, (_, n) => newUser(`user${n}`)));
    const last = await store.lastId();
    const recordPage = store.recordPage.bind(store);
    let pages = 0;
    store.recordPage = async (after) => {
      const page = await recordPage(after);
      if (++pages === 1) {
        // One that was read, and one whose turn is to come.
        for (const login of ['user3', 'user1100']) {
          await store.remove((await store.findRecord(login))!, '2026-11-23T08:00:00.000Z');
          await store.create(newUser(login));
        }
        await store.create(newUser('late'));
      }
      return page;
    };
    // In a cluster another service may assign a lower id than the last one.
    if (isShared) store.lastId = async () => Infinity;
    const users = (await whole(store, false, { isShared })).trimEnd().split('\n').map((line) => JSON.parse(line));
    assert.equal(new Set(users.map(({ login }) => login)).size, users.length);
    assert.ok(users.some(({ login, id }) => login === 'user3' && id === 4));
    if (!isShared) assert.ok(users.every(({ id }) => id <= last));
    assert.equal(users.length, isShared ? 1_201 : 1_199);
  }
});

test('export: disabled and invited users are exported, unknown fields are left out and counted', async () => {
  const store = new MemoryUserStore();
  const disabled = '2026-11-23T08:00:00.000Z';
  await store.createMany([{ ...newUser('alice'), disabled, version: 2 }, { ...newUser('bob'), kdf: 'none', password: '' }]);
  const recordPage = store.recordPage.bind(store);
  store.recordPage = async (after) => {
    const { users, next } = await recordPage(after);
    return { users: users.map((user) => ({ ...user, unknownFields: { quota: 5, ...(user.id === 1 ? { note: '' } : {}) } })), next };
  };
  const leftOut = new Map<string, number>();
  const users = (await whole(store, false, { leftOut })).trimEnd().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(users.map((user) => Object.keys(user).join()), ['id,login,registered,version,disabled,kdf,password', 'id,login,registered,version,kdf,password']);
  assert.deepEqual([users[0].disabled, users[1].kdf, users[1].password], [disabled, 'none', '']);
  assert.deepEqual([...leftOut], [['quota', 2], ['note', 1]]);
});

async function* chunks(...texts: readonly string[]): AsyncGenerator<Buffer> {
  for (const text of texts) yield Buffer.from(text);
}

test('whole file: it is there whole, for its owner alone, in the place of what was there', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'backup.jsonl');
  writeFileSync(path, 'before', { mode: 0o644 });
  assert.equal(await writeWholeFile(path, chunks('one\n', 'two\n')), 8);
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwo\n');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory), ['backup.jsonl']);
  // A link goes on being one.
  symlinkSync('backup.jsonl', join(directory, 'link'));
  await writeWholeFile(join(directory, 'link'), chunks('three\n'));
  assert.ok(lstatSync(join(directory, 'link')).isSymbolicLink());
  assert.equal(readFileSync(path, 'utf8'), 'three\n');
});

test('whole file: where it fails, what was there is as it was, and nothing else is there', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'backup.jsonl');
  writeFileSync(path, 'before');
  async function* failing(error: unknown): AsyncGenerator<Buffer> {
    yield Buffer.from('half');
    throw error;
  }
  const full = Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC' });
  await assert.rejects(writeWholeFile(path, failing(full)), (error: Error & { code: string }) => {
    assert.equal(error.code, 'storage-full');
    assert.match(error.message, /^Cannot write ".*backup\.jsonl": there is no room for it; nothing is left of it$/);
    return true;
  });
  await assert.rejects(writeWholeFile(path, chunks('x'), AbortSignal.abort()), { name: 'AbortError' });
  assert.equal(readFileSync(path, 'utf8'), 'before');
  assert.deepEqual(readdirSync(directory), ['backup.jsonl']);
  mkdirSync(join(directory, 'directory'));
  for (const other of [join(directory, 'directory'), '/dev/null', join(directory, 'missing', 'x'), join(path, 'x')]) {
    await assert.rejects(writeWholeFile(other, chunks('x')), { code: 'cannot-start' }, other);
  }
});
