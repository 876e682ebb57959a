import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../lib/errors.ts';
import { Hasher } from '../../lib/password/hasher.ts';
import { FileUserStore } from '../../lib/store/file/store.ts';
import { MemoryUserStore } from '../../lib/store/memory.ts';
import { exportText } from '../../lib/transfer/export.ts';
import { importLines } from '../../lib/transfer/import.ts';
import type { ImportOptions, ImportResult } from '../../lib/transfer/import.ts';
import { temporaryDirectory } from '../helper/temporary.ts';
import { candidate } from '../helper/user-store-contract.ts';

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
  await options.store.create(candidate('taken'));
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
  assert.match(JSON.stringify(first[3]), /The login \\"taken\\" is that of user 1, who was registered 2026-11-22T15:00:00\.000Z/);
  assert.ok(!JSON.stringify(first).includes('horse') && !JSON.stringify(first).includes('5be0'));
  const alice = await options.store.find('alice');
  assert.equal(alice?.registered, at);
  assert.equal(await options.hasher.verify('correct horse battery', alice!, { kdfs: [] }), true);
  const before = await exported(options.store);
  const again = await run(text(lines), options);
  assert.deepEqual(outcomes(again), outcomes(first).map((outcome) => outcome.replace('added', 'unchanged')));
  assert.equal(await exported(options.store), before);
});

test('import: a dry run says the same and writes nothing', async (t) => {
  const options = open(t);
  await options.store.create(candidate('taken'));
  const lines = [
    { login: 'alice', password: 'correct horse battery' }, { login: 'taken', kdf, password: hash }, { login: 'bob', kdf, password: hash },
    { login: 'bob', kdf, password: hash }, { login: 'bob', kdf, password: otherHash }, 'x', { login: 'alice', password: 'correct horse battery' },
    { login: 'alice', password: 'another horse' }, { login: 'taken', kdf, password: candidate('x').password },
  ];
  const before = await exported(options.store);
  const dry = await run(text(lines), { ...options, isDryRun: true });
  assert.equal(await exported(options.store), before);
  assert.deepEqual(outcomes(dry), outcomes(await run(text(lines), options)));
});

test('import: whoever has signed in or changed the password since is the same still, and is left alone', async (t) => {
  const options = open(t);
  const registered = '2020-01-02T03:04:05.678Z';
  const lines = [
    { login: 'alice', kdf, password: hash, registered }, { login: 'bob', password: 'correct horse battery', registered }, { login: 'carol', kdf, password: hash },
    { id: 9, login: 'dave', registered, version: 1, kdf, password: hash },
  ];
  await run(text(lines), options);
  for (const login of ['alice', 'bob', 'carol', 'dave']) {
    const user = await options.store.find(login);
    await options.store.replace(user!, { kdf: 'pbkdf2:sha256:2', password: otherHash, ...(login === 'carol' ? {} : { changed: at }) });
  }
  const before = await exported(options.store);
  // Of carol no time was told: that it is she cannot be known.
  assert.deepEqual(outcomes(await run(text(lines), options)), ['1 unchanged', '2 unchanged', '3 refused', '4 unchanged']);
  // Here is less than there: nothing is changed by an import.
  const later = await run(text([{ id: 9, login: 'dave', registered, version: 3, changed: at, kdf, password: hash }]), options);
  assert.deepEqual(outcomes(later), ['1 refused']);
  assert.equal(await exported(options.store), before);
});

test('import: what was exported comes out the same bit for bit, and an id that was given already is told', async (t) => {
  const options = open(t);
  const users = Array.from({ length: 9_000 }, (_, n) => ({ ...candidate(`user${n}`, n % 3 === 0 ? { key: 'ab'.repeat(32) } : {}), id: n * 2 + 5 }));
  await options.store.createMany(users);
  const first = await options.store.find('user1');
  await options.store.replace(first!, { kdf: 'pbkdf2:sha256:29000:hex', password: `00ff$${'5be0'.repeat(16)}`, changed: at });
  await options.store.remove((await options.store.find('user2'))!, at);
  const before = await exported(options.store);
  const file = await FileUserStore.open({ path: join(temporaryDirectory(t), 'users.jsonl'), lockWaitMsMax: 5_000 });
  t.after(() => file.close());
  const results = await run(text([before.trimEnd()], 70_001), { ...options, store: file });
  assert.equal(results.length, 8_999);
  assert.ok(results.every((result) => result.outcome === 'added' && !('detail' in result)));
  assert.equal(await exported(file), before);
  const [late] = await run(text([{ ...candidate('late'), id: 5 }]), { ...options, store: file });
  assert.equal(late?.outcome, 'added');
  assert.match(JSON.stringify(late), /Id 5 was, or may have been, given here already: it became 18004/);
});

test('import: where the store fails, what was added before is told, and run again it goes on', async (t) => {
  const options = open(t);
  const lines = Array.from({ length: 9_500 }, (_, n) => ({ login: `user${n}`, kdf, password: hash }));
  let calls = 0;
  const failing = {
    find: (login: string) => options.store.find(login),
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
  assert.equal(await options.store.find('alice'), undefined);
});

test('import: a signal ends it after what is being written, and hashes that wait are not waited for', async (t) => {
  const interruption = new AbortController();
  const options = open(t, { signal: interruption.signal });
  const slow = { ...options.hasher, hash: (_: string, signal?: AbortSignal) => new Promise<never>((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason))), verify: options.hasher.verify };
  const lines = [...Array.from({ length: 4_000 }, (_, n) => ({ login: `user${n}`, kdf, password: hash })), { login: 'alice', password: 'correct horse battery' }];
  const told: ImportResult[] = [];
  for await (const results of importLines(text(lines, 65_536), { ...options, hasher: slow })) {
    told.push(...results);
    setImmediate(() => interruption.abort());
  }
  assert.equal(told.length, 4_000);
  assert.equal(await options.store.find('alice'), undefined);
  assert.ok(await options.store.find('user3999'));
});
