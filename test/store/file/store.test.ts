import assert from 'node:assert/strict';
import { appendFileSync, linkSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import type { FileSystem } from '../../../lib/store/file/file-system.ts';
import { FileLock } from '../../../lib/store/file/lock.ts';
import { decodeMark, encodeMark } from '../../../lib/store/file/mark.ts';
import { FileUserStore } from '../../../lib/store/file/store.ts';
import type { FileUserStoreOptions } from '../../../lib/store/file/store.ts';
import { MemoryDisk } from '../../helper/memory-disk.ts';
import { MemoryFileSystem } from '../../helper/memory-file-system.ts';
import { temporaryDirectory, until } from '../../helper/temporary.ts';
import { candidate, testUserStore } from '../../helper/user-store-contract.ts';

const at = '2026-11-23T08:00:00.000Z';

async function openStore(
  t: Pick<TestContext, 'after'>,
  directory: string,
  options: Partial<FileUserStoreOptions> = {},
): Promise<FileUserStore> {
  const store = await FileUserStore.open({ path: join(directory, 'users.jsonl'), lockWaitMsMax: 5_000, ...options });
  t.after(() => store.close());
  return store;
}

/** A file system of which one kind of call fails, when told to. */
function failing(kind: 'read' | 'write' | 'datasync' | 'truncate' | 'writeNow' | 'symlink' | 'rename', code: string): { fs: FileSystem; isOn: boolean } {
  const state = { isOn: false, fs: nodeFileSystem };
  const fail = (): never => {
    throw Object.assign(new Error(`injected ${code}`), { code });
  };
  const original = nodeFileSystem[kind] as (...args: unknown[]) => unknown;
  state.fs = { ...nodeFileSystem, [kind]: (...args: unknown[]) => (state.isOn ? fail() : original(...args)) };
  return state;
}

/** Changes a byte in the line of the first user. */
function rot(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.indexOf('2026-11-22T15') + 3]! ^= 1;
  writeFileSync(path, bytes);
}

testUserStore('file', async (t) => openStore(t, temporaryDirectory(t)));

test('file: what was written is there when it is opened again', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory);
  const { user } = await first.create(candidate('alice'));
  const { user: bob } = await first.create(candidate('bob'));
  await first.remove(bob, at);
  await first.close();
  const second = await openStore(t, directory);
  assert.deepEqual(await second.find('alice'), user);
  assert.equal(await second.find('bob'), undefined);
  // The id of a removed user is not given again.
  assert.equal((await second.create(candidate('carol'))).user.id, 3);
});

test('file: two stores on one directory see each other\'s writes at once, either way', async (t) => {
  const directory = temporaryDirectory(t);
  const a = await openStore(t, directory);
  const b = await openStore(t, directory);
  for (let n = 0; n < 20; n++) {
    const [writer, reader] = n % 2 === 0 ? [a, b] : [b, a];
    const { user } = await writer.create(candidate(`user${n}`));
    assert.equal(user.id, n + 1);
    // Whoever does not hold the lock has something to catch up with, and comes to it later.
    assert.equal((await reader.view(`user${n}`))?.id, user.id);
    assert.deepEqual(await reader.find(`user${n}`), user);
    assert.equal((await reader.page(undefined, 100)).users.length, n + 1);
  }
});

test('file: users from elsewhere are one batch, however many they are', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  const before = store.create(candidate('before'));
  const arrivals = Array.from({ length: 2_500 }, (_, n) => candidate(`user${n}`));
  const [, outcomes] = await Promise.all([before, store.createMany(arrivals), store.create(candidate('after'))]);
  assert.ok(outcomes.every(({ created }) => created));
  const [, ...lines] = readFileSync(join(directory, 'users.jsonl'), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
  assert.equal(new Set(lines.filter(({ login }) => login.startsWith('user')).map(({ batch }) => batch)).size, 1);
  assert.deepEqual(lines.map(({ id }) => id), Array.from({ length: 2_502 }, (_, n) => n + 1));
});

test('file: an id from elsewhere is kept where it is above all others, and raises the next, also for other processes', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  const [ten, two] = await store.createMany([{ ...candidate('ten'), id: 10 }, { ...candidate('two'), id: 2 }]);
  assert.deepEqual([ten?.user.id, two?.user.id], [10, 11]);
  const other = await openStore(t, directory);
  assert.equal((await other.create(candidate('next'))).user.id, 12);
  await store.compact();
  assert.equal((await store.createMany([{ ...candidate('far'), id: 20 }]))[0]?.user.id, 20);
});

test('file: kdfs are known after opening, after compaction, and of what other processes write', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory);
  await first.createMany([candidate('a'), { ...candidate('b', { kdf: 'pbkdf2:sha256:29000:hex' }), version: 10, changed: at }]);
  const second = await openStore(t, directory);
  assert.deepEqual(await second.kdfs(), ['pbkdf2:sha256:1', 'pbkdf2:sha256:29000:hex']);
  await second.create(candidate('c', { kdf: 'pbkdf2:sha384:7' }));
  assert.deepEqual(await first.kdfs(), ['pbkdf2:sha256:1', 'pbkdf2:sha256:29000:hex', 'pbkdf2:sha384:7']);
  const user = await first.find('c');
  await first.replace(user!, { kdf: 'pbkdf2:sha512:8', password: user!.password });
  assert.equal((await first.kdfs()).includes('pbkdf2:sha512:8'), true);
  await first.compact();
  const left = ['pbkdf2:sha256:1', 'pbkdf2:sha256:29000:hex', 'pbkdf2:sha512:8'];
  assert.deepEqual(await first.kdfs(), left);
  assert.deepEqual(await second.kdfs(), left);
  // Nothing has to be waited for: it is asked at each sign-in that fails.
  assert.ok(Array.isArray(first.kdfs()));
});

test('file: four stores that want the same logins at once give each to one', async (t) => {
  const directory = temporaryDirectory(t);
  const stores = await Promise.all([1, 2, 3, 4].map(() => openStore(t, directory)));
  const logins = Array.from({ length: 200 }, (_, n) => `user${n}`);
  const outcomes = await Promise.all(stores.flatMap((store) => logins.map((login) => store.create(candidate(login)))));
  assert.equal(outcomes.filter(({ created }) => created).length, 200);
  assert.equal(new Set(outcomes.map(({ user }) => user.id)).size, 200);
});

test('file: a write is answered after fdatasync and the mark, and is not visible before', async (t) => {
  const calls: string[] = [];
  let seen: unknown = 'nothing';
  const fs: FileSystem = {
    ...nodeFileSystem,
    write: (...args) => {
      calls.push('write');
      return nodeFileSystem.write(...args);
    },
    datasync: async (fd) => {
      calls.push('datasync');
      if (calls.includes('write')) seen = await store?.find('alice');
      return nodeFileSystem.datasync(fd);
    },
    writeNow: (...args) => {
      calls.push('mark');
      return nodeFileSystem.writeNow(...args);
    },
  };
  let store: FileUserStore | undefined;
  store = await openStore(t, temporaryDirectory(t), { fs });
  calls.length = 0;
  await store.create(candidate('alice'));
  calls.push('answer');
  assert.deepEqual(calls, ['write', 'datasync', 'mark', 'answer']);
  assert.equal(seen, undefined);
});

test('file: writes that come while a batch is synced share the next one', async (t) => {
  let syncs = 0;
  const fs = { ...nodeFileSystem, datasync: (fd: number) => (syncs++, nodeFileSystem.datasync(fd)) };
  const store = await openStore(t, temporaryDirectory(t), { fs });
  syncs = 0;
  await Promise.all(Array.from({ length: 500 }, (_, n) => store.create(candidate(`user${n}`))));
  assert.ok(syncs <= 2, `${syncs} syncs for 500 users`);
});

test('file: short writes are carried on', async (t) => {
  const fs: FileSystem = {
    ...nodeFileSystem,
    write: (fd, from, offset, length, position) => nodeFileSystem.write(fd, from, offset, Math.min(length, 7), position),
  };
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory, { fs });
  const { user } = await store.create(candidate('alice'));
  await store.close();
  assert.deepEqual(await (await openStore(t, directory)).find('alice'), user);
});

test('file: a full disk fails the batch with 507, cuts the file back, and heals', async (t) => {
  let room = Infinity;
  const fs: FileSystem = {
    ...nodeFileSystem,
    write: async (fd, from, offset, length, position) => {
      if (room === 0) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      const done = await nodeFileSystem.write(fd, from, offset, Math.min(length, room), position);
      room -= done;
      return done;
    },
  };
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory, { fs });
  const { user } = await store.create(candidate('alice'));
  const { size } = statSync(join(directory, 'users.jsonl'));
  room = 50;
  await assert.rejects(store.create(candidate('bob')), { code: 'storage-full' });
  assert.equal(statSync(join(directory, 'users.jsonl')).size, size);
  assert.deepEqual(await store.find('alice'), user);
  assert.equal(await store.find('bob'), undefined);
  room = Infinity;
  assert.equal((await store.create(candidate('bob'))).user.id, 2);
});

test('file: after a failed fdatasync nothing is answered 2xx, and the next to open writes the file anew', async (t) => {
  const sync = failing('datasync', 'EIO');
  const failures: string[] = [];
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory, { fs: sync.fs, onFailed: ({ code }) => failures.push(code) });
  const { user } = await store.create(candidate('alice'));
  sync.isOn = true;
  const writes = await Promise.allSettled(['bob', 'carol'].map((login) => store.create(candidate(login))));
  sync.isOn = false;
  assert.deepEqual(writes.map((write) => write.status === 'rejected' && write.reason.code), ['outcome-unknown', 'outcome-unknown']);
  // The process is to end after those who wait have been answered.
  assert.deepEqual(failures, []);
  await until(() => failures.length > 0, 'the failure to be announced');
  assert.deepEqual(failures, ['unavailable']);
  await assert.rejects(store.create(candidate('dave')), { code: 'unavailable' });
  await assert.rejects(store.find('alice'), { code: 'unavailable' });
  await store.close();
  assert.ok(readdirSync(join(directory, 'users.jsonl.lock')).includes('suspect'));

  const before = statSync(join(directory, 'users.jsonl')).ino;
  const reports: string[] = [];
  const next = await openStore(t, directory, { report: (line) => reports.push(line) });
  assert.notEqual(statSync(join(directory, 'users.jsonl')).ino, before);
  assert.ok(!readdirSync(join(directory, 'users.jsonl.lock')).includes('suspect'));
  assert.match(reports.join(), /was written anew/);
  assert.deepEqual(await next.find('alice'), user);
});

test('file: another process follows a file that was written anew', async (t) => {
  const directory = temporaryDirectory(t);
  const sync = failing('datasync', 'EIO');
  const first = await openStore(t, directory, { fs: sync.fs });
  const other = await openStore(t, directory);
  const { user } = await first.create(candidate('alice'));
  sync.isOn = true;
  await assert.rejects(first.create(candidate('bob')), { code: 'outcome-unknown' });
  await first.close();
  const third = await openStore(t, directory);
  const { user: carol } = await third.create(candidate('carol'));
  assert.deepEqual(await other.find('alice'), user);
  assert.deepEqual(await other.find('carol'), carol);
  assert.equal((await other.create(candidate('dave'))).created, true);
});

test('file: without room for a torn tail the store is read-only until there is some', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const first = await openStore(t, directory);
  const { user } = await first.create(candidate('alice'));
  await first.close();
  writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from('{"id":2,"login":"b')]));
  const full = failing('write', 'ENOSPC');
  full.isOn = true;
  const store = await openStore(t, directory, { fs: full.fs });
  assert.deepEqual(await store.find('alice'), user);
  await assert.rejects(store.create(candidate('bob')), { code: 'storage-full' });
  assert.equal(statSync(path).size, readFileSync(path).length);
  assert.match(readFileSync(path, 'utf8'), /"login":"b$/);
  full.isOn = false;
  assert.equal((await store.create(candidate('bob'))).created, true);
  const [torn] = readdirSync(directory).filter((name) => name.includes('.torn-'));
  assert.equal(readFileSync(join(directory, torn!), 'utf8'), '{"id":2,"login":"b');
});

test('file: where there is no room for a socket it is read, and written to when there is', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory);
  const { user } = await first.create(candidate('alice'));
  const before = readdirSync(join(directory, 'users.jsonl.lock')).sort();
  const full = failing('rename', 'ENOSPC');
  full.isOn = true;
  const store = await openStore(t, directory, { fs: full.fs });
  assert.deepEqual(await store.find('alice'), user);
  await assert.rejects(store.create(candidate('bob')), { code: 'storage-full' });
  assert.deepEqual(readdirSync(join(directory, 'users.jsonl.lock')).sort(), before);
  // Nobody can take the lock without one, be it to make the file or to settle what a reboot has left.
  await assert.rejects(openStore(t, temporaryDirectory(t), { fs: full.fs }), { code: 'storage-full', message: /no room/ });
  full.isOn = false;
  assert.equal((await store.create(candidate('bob'))).created, true);
  assert.equal((await first.create(candidate('carol'))).created, true);
});

test('file: an empty file, and a missing one that was there before, are refused', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  writeFileSync(path, '');
  await assert.rejects(openStore(t, directory), { code: 'corrupt', message: /is empty/ });
  assert.equal(statSync(path).size, 0);
  rmSync(path);
  await (await openStore(t, directory)).close();
  renameSync(path, `${path}.old`);
  await assert.rejects(openStore(t, directory), { code: 'cannot-start', message: /was here before: restore.*users\.jsonl\.old/ });
  rmSync(`${path}.old`);
  await assert.rejects(openStore(t, directory), { code: 'cannot-start', message: /users\.jsonl\.lock/ });
  assert.deepEqual(readdirSync(directory), ['users.jsonl.lock']);
});

test('file: a file removed or replaced underneath stops the store, and is not made anew', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const failures: string[] = [];
  const store = await openStore(t, directory, { onFailed: ({ message }) => failures.push(message) });
  await store.create(candidate('alice'));
  rmSync(path);
  await assert.rejects(store.create(candidate('bob')), { code: 'unavailable' });
  await until(() => failures.length > 0, 'the failure to be announced');
  assert.match(failures.join(), /removed or replaced/);
  assert.deepEqual(readdirSync(directory), ['users.jsonl.lock']);
});

test('file: a lock directory removed underneath stops the store', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  await store.create(candidate('alice'));
  rmSync(join(directory, 'users.jsonl.lock'), { recursive: true });
  await assert.rejects(store.create(candidate('bob')), { code: 'unavailable' });
});

test('file: a file shorter than what was durable is refused', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const store = await openStore(t, directory);
  await store.create(candidate('alice'));
  await store.create(candidate('bob'));
  await store.close();
  const lines = readFileSync(path, 'utf8').split('\n');
  writeFileSync(path, `${lines.slice(0, 2).join('\n')}\n`);
  await assert.rejects(openStore(t, directory), { code: 'corrupt', message: /bytes were durable/ });
  assert.equal(readFileSync(path, 'utf8').split('\n').length, 3);
});

test('file: a line that changes after it was read is not served', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const store = await openStore(t, directory);
  await store.create(candidate('alice'));
  rot(path);
  await assert.rejects(store.find('alice'), (error) => error instanceof RegistrarError && error.code === 'corrupt');
});

test('file: a store that is closed refuses, and closing waits for what was asked for', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  const writing = store.create(candidate('alice'));
  await store.close();
  assert.equal((await writing).created, true);
  await assert.rejects(store.create(candidate('bob')), { code: 'unavailable' });
  assert.deepEqual(readdirSync(join(directory, 'users.jsonl.lock')).sort(), ['durable', 'protocol-1']);
});

test('file: a write that fails in another way than for room is 503, and nothing is left of it', async (t) => {
  const fault = failing('write', 'EIO');
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory, { fs: fault.fs });
  await store.create(candidate('alice'));
  const { size } = statSync(join(directory, 'users.jsonl'));
  fault.isOn = true;
  await assert.rejects(store.create(candidate('bob')), { code: 'busy', message: /cannot be written to \(EIO\); nothing was changed/ });
  fault.isOn = false;
  assert.equal(statSync(join(directory, 'users.jsonl')).size, size);
  assert.equal((await store.create(candidate('bob'))).created, true);
});

test('file: where a failed write cannot be cut back, and where the mark cannot be written, the store fails', async (t) => {
  for (const kind of ['truncate', 'writeNow'] as const) {
    const write = failing('write', 'EIO');
    const fault = failing(kind, 'EIO');
    const fs = { ...write.fs, [kind]: fault.fs[kind] };
    const failures: string[] = [];
    const directory = temporaryDirectory(t);
    const store = await openStore(t, directory, { fs, onFailed: ({ code }) => failures.push(code) });
    fault.isOn = true;
    write.isOn = kind === 'truncate';
    await assert.rejects(store.create(candidate('alice')), { code: 'outcome-unknown' });
    await until(() => failures.length > 0, 'the failure to be announced');
    assert.deepEqual(failures, ['unavailable']);
    await store.close();
    assert.ok(readdirSync(join(directory, 'users.jsonl.lock')).includes('suspect'));
  }
});

test('file: a store that fails and cannot even say so keeps the lock, so that nobody trusts the file', async (t) => {
  const sync = failing('datasync', 'EIO');
  const link = failing('symlink', 'EIO');
  const directory = temporaryDirectory(t);
  const reports: string[] = [];
  const failures: string[] = [];
  const store = await openStore(t, directory, {
    fs: { ...sync.fs, symlink: link.fs.symlink },
    report: (line) => reports.push(line),
    onFailed: ({ code }) => failures.push(code),
  });
  const other = await openStore(t, directory, { lockWaitMsMax: 200 });
  await store.create(candidate('alice'));
  sync.isOn = true;
  link.isOn = true;
  await assert.rejects(store.create(candidate('bob')), { code: 'outcome-unknown' });
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(failures, []);
  assert.match(reports.join(), /keeping the lock until this process is ended/);
  await store.close();
  await assert.rejects(other.create(candidate('carol')), { code: 'busy' });
  assert.equal((await other.find('alice'))?.login, 'alice');
  assert.equal(await other.find('bob'), undefined);
});

test('file: a durable mark that is damaged underneath refuses reads, and the next to write mends it', async (t) => {
  const directory = temporaryDirectory(t);
  const a = await openStore(t, directory);
  const b = await openStore(t, directory);
  await a.create(candidate('alice'));
  writeFileSync(join(directory, 'users.jsonl.lock', 'durable'), 'x'.repeat(160));
  await assert.rejects(b.find('alice'), { code: 'unavailable', message: /durable mark/ });
  await b.create(candidate('bob'));
  assert.equal((await a.find('bob'))?.login, 'bob');
});

test('file: a torn tail of a store that has failed is set aside before the file is written anew', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const first = await openStore(t, directory);
  const { user } = await first.create(candidate('alice'));
  await first.close();
  writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from('{"id":2,"login":"b')]));
  nodeFileSystem.symlink('somebody', join(directory, 'users.jsonl.lock', 'suspect'));
  const store = await openStore(t, directory);
  assert.deepEqual(await store.find('alice'), user);
  assert.equal((await store.create(candidate('bob'))).user.id, 2);
  const [torn] = readdirSync(directory).filter((name) => name.includes('.torn-'));
  assert.equal(readFileSync(join(directory, torn!), 'utf8'), '{"id":2,"login":"b');
});

test('file: a file cut short underneath is refused by readers, and none of them hangs', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const a = await openStore(t, directory);
  const b = await openStore(t, directory);
  await a.create(candidate('alice'));
  truncateSync(path, statSync(path).size - 10);
  await assert.rejects(b.find('alice'), { code: 'corrupt', message: /bytes were durable/ });
});

test('file: a file that another hand has written to is not written over', async (t) => {
  for (const change of [(path: string) => appendFileSync(path, 'x'), (path: string) => truncateSync(path, 130)]) {
    const directory = temporaryDirectory(t);
    const path = join(directory, 'users.jsonl');
    const store = await openStore(t, directory);
    await store.create(candidate('alice'));
    change(path);
    const before = readFileSync(path);
    await assert.rejects(store.create(candidate('bob')), { code: 'unavailable', message: /another length/ });
    assert.ok(readFileSync(path).equals(before));
  }
});

test('file: a file with two names, which two locks would guard, is refused', async (t) => {
  const directory = temporaryDirectory(t);
  await (await openStore(t, directory)).close();
  const other = join(directory, 'other');
  mkdirSync(other);
  linkSync(join(directory, 'users.jsonl'), join(other, 'users.jsonl'));
  await assert.rejects(openStore(t, directory), { code: 'cannot-start', message: /2 names/ });
  await assert.rejects(openStore(t, other), { code: 'cannot-start', message: /2 names/ });
  rmSync(join(other, 'users.jsonl'));
  symlinkSync(join(directory, 'users.jsonl'), join(other, 'users.jsonl'));
  await assert.rejects(openStore(t, other), { code: 'cannot-start', message: /symbolic link/ });
  assert.equal((await openStore(t, directory)).size, 0);
});

test('file: after its lock directory was removed a reader does not go on with what it knew', async (t) => {
  const directory = temporaryDirectory(t);
  const reader = await openStore(t, directory);
  const writer = await openStore(t, directory);
  await writer.create(candidate('alice'));
  assert.equal((await reader.find('alice'))?.login, 'alice');
  rmSync(join(directory, 'users.jsonl.lock', 'durable'));
  await assert.rejects(reader.find('alice'), { code: 'unavailable' });
  // The next write leaves a new mark.
  await writer.create(candidate('bob'));
  assert.equal((await reader.find('bob'))?.login, 'bob');
});

test('file system: what the system says is passed on, and what is missing is undefined', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'file');
  writeFileSync(path, 'x');
  await assert.rejects(nodeFileSystem.datasync(1_000_000), { code: 'EBADF' });
  assert.throws(() => nodeFileSystem.readLink(join(path, 'below')), { code: 'ENOTDIR' });
  assert.equal(nodeFileSystem.readLink(path), undefined);
  assert.equal(nodeFileSystem.readLink(join(directory, 'nothing')), undefined);
  assert.equal(nodeFileSystem.stat(join(directory, 'nothing')), undefined);
  nodeFileSystem.unlink(join(directory, 'nothing'));
});

test('file: the next process writes anew what another could not sync, and does not sync it again', async (t) => {
  const sync = failing('datasync', 'EIO');
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory, { fs: sync.fs });
  const opened = new Set<number>();
  const synced: number[] = [];
  const path = join(directory, 'users.jsonl');
  const fs: FileSystem = {
    ...nodeFileSystem,
    open: (name, ...rest) => {
      const fd = nodeFileSystem.open(name, ...rest);
      if (name === path) opened.add(fd);
      else opened.delete(fd);
      return fd;
    },
    datasync: (fd) => (synced.push(fd), nodeFileSystem.datasync(fd)),
  };
  const second = await openStore(t, directory, { fs });
  const { user } = await first.create(candidate('alice'));
  sync.isOn = true;
  await assert.rejects(first.create(candidate('bob')), { code: 'outcome-unknown' });
  const old = [...opened];
  synced.length = 0;
  await second.create(candidate('carol'));
  assert.deepEqual(synced.filter((fd) => old.includes(fd)), []);
  assert.deepEqual(await second.find('alice'), user);
  assert.equal((await second.find('carol'))?.login, 'carol');
});

test('file: where there is no room to write it anew it is read, up to what was durable', async (t) => {
  const sync = failing('datasync', 'EIO');
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory, { fs: sync.fs });
  const { user } = await first.create(candidate('alice'));
  sync.isOn = true;
  await assert.rejects(first.create(candidate('bob')), { code: 'outcome-unknown' });
  await first.close();
  const full = failing('write', 'ENOSPC');
  full.isOn = true;
  const reports: string[] = [];
  const second = await openStore(t, directory, { fs: full.fs, report: (line) => reports.push(line) });
  assert.match(reports.join(), /no room to write the file anew/);
  assert.deepEqual(await second.find('alice'), user);
  assert.equal(await second.find('bob'), undefined);
  await assert.rejects(second.create(candidate('carol')), { code: 'storage-full' });
  full.isOn = false;
  assert.equal((await second.create(candidate('carol'))).created, true);
});

test('file: one rotten line is the trouble of one user, not of all who write at the same time', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const store = await openStore(t, directory);
  await store.create(candidate('rotten'));
  rot(path);
  const outcomes = await Promise.allSettled(['alice', 'rotten', 'bob'].map((login) => store.create(candidate(login))));
  assert.deepEqual(outcomes.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled']);
});

test('file: a taken login is told also where nothing can be written', async (t) => {
  const full = failing('write', 'ENOSPC');
  const store = await openStore(t, temporaryDirectory(t), { fs: full.fs });
  await store.create(candidate('alice'));
  full.isOn = true;
  const [taken, refused] = await Promise.allSettled([store.create(candidate('alice')), store.create(candidate('bob'))]);
  assert.equal(taken.status === 'fulfilled' && taken.value.created, false);
  assert.equal(refused.status === 'rejected' && refused.reason.code, 'storage-full');
});

test('file: whatever the system says becomes an error of the contract', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'users.jsonl'));
  await assert.rejects(openStore(t, directory), { code: 'cannot-start', message: /EISDIR/ });
  const read = failing('read', 'EIO');
  const store = await openStore(t, temporaryDirectory(t), { fs: read.fs });
  await store.create(candidate('alice'));
  read.isOn = true;
  await assert.rejects(store.find('alice'), { code: 'unavailable' });
  await assert.rejects(store.create(candidate('alice')), { code: 'unavailable' });
});

test('file: a write that writes nothing is an error, not a loop', async (t) => {
  let isStuck = false;
  const fs: FileSystem = { ...nodeFileSystem, write: async (...args) => (isStuck ? 0 : nodeFileSystem.write(...args)) };
  const store = await openStore(t, temporaryDirectory(t), { fs });
  isStuck = true;
  await assert.rejects(store.create(candidate('alice')), { code: 'busy', message: /EIO/ });
});

test('file: what could not be read again is never written', async (t) => {
  const store = await openStore(t, temporaryDirectory(t));
  await assert.rejects(store.create(candidate('a"b')), { code: 'unavailable' });
  await assert.rejects(store.create(candidate('alice', { password: 'x'.repeat(5000) })), { code: 'unavailable' });
  assert.equal((await store.create(candidate('alice'))).user.id, 1);
});

test('file: another file in the place of the one that the mark is of is read as it is', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const other = temporaryDirectory(t);
  const there = await openStore(t, other);
  for (let n = 0; n < 5; n++) await there.create(candidate(`user${n}`));
  await there.close();
  const here = await openStore(t, directory);
  await here.create(candidate('alice'));
  await here.close();
  const { ino } = statSync(path);
  writeFileSync(path, readFileSync(join(other, 'users.jsonl')));
  assert.equal(statSync(path).ino, ino);
  const store = await openStore(t, directory);
  assert.equal(store.size, 5);
  assert.equal(await store.find('alice'), undefined);
});

test('file: an opener that has to settle waits for whoever has the lock', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  await store.create(candidate('alice'));
  await store.close();
  const lockDirectory = join(directory, 'users.jsonl.lock');
  rmSync(join(lockDirectory, 'durable'));
  const lock = await FileLock.join({ fs: nodeFileSystem, directory: lockDirectory, onWanted: () => undefined });
  t.after(() => lock.leave());
  await lock.acquire(1000);
  const reports: string[] = [];
  const opening = openStore(t, directory, { lockWaitMsMax: 60, report: (line) => reports.push(line) });
  await until(() => reports.length > 1, 'it to wait');
  lock.release();
  assert.equal((await (await opening).find('alice'))?.login, 'alice');
  assert.match(reports[0]!, new RegExp(`locked by process ${process.pid}.*: waiting`));
});

test('file: a reader waits for the mark of a file that is just being put in place', async (t) => {
  const directory = temporaryDirectory(t);
  const writer = await openStore(t, directory);
  const reader = await openStore(t, directory);
  const { user } = await writer.create(candidate('alice'));
  const path = join(directory, 'users.jsonl.lock', 'durable');
  const right = readFileSync(path);
  const mark = decodeMark(right);
  assert.ok(mark !== undefined);
  const put = (bytes: Buffer): void => writeFileSync(path, bytes, { flag: 'r+' });
  put(encodeMark({ ...mark, inode: mark.inode + 1 }));
  const reading = reader.find('alice');
  await new Promise((resolve) => setImmediate(resolve));
  put(right);
  assert.deepEqual(await reading, user);
});

test('file: a holder that only reads notices that its lock was taken away', async (t) => {
  const directory = temporaryDirectory(t);
  const failures: string[] = [];
  const store = await openStore(t, directory, { onFailed: ({ message }) => failures.push(message) });
  await store.create(candidate('alice'));
  rmSync(join(directory, 'users.jsonl.lock'), { recursive: true });
  await assert.rejects(store.find('alice'), { code: 'unavailable', message: /removed or replaced/ });
  await until(() => failures.length > 0, 'the failure to be announced');
});

test('file: a file that is gone when the lock is taken again stops the store', async (t) => {
  const directory = temporaryDirectory(t);
  const a = await openStore(t, directory);
  const b = await openStore(t, directory);
  await a.create(candidate('alice'));
  await b.create(candidate('bob'));
  rmSync(join(directory, 'users.jsonl'));
  await assert.rejects(a.create(candidate('carol')), { code: 'unavailable', message: /was removed underneath/ });
  assert.deepEqual(readdirSync(directory), ['users.jsonl.lock']);
});

test('file: damage in what another process wrote, and had said to be durable, is refused by the next to write', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const a = await openStore(t, directory);
  const b = await openStore(t, directory);
  await a.create(candidate('alice'));
  await a.close();
  const bytes = readFileSync(path);
  bytes.fill(0, bytes.length - 30);
  writeFileSync(path, bytes);
  await assert.rejects(b.create(candidate('bob')), { code: 'corrupt', message: /line 2 .*durable/ });
  await assert.rejects(b.find('alice'), { code: 'corrupt', message: /line 2 .*durable/ });
  assert.ok(readFileSync(path).equals(bytes));
});

test('file: what a dead process could not sync, and could not say so, does not stand before what is written later', async () => {
  const fs = new MemoryFileSystem(new MemoryDisk(), {
    fault: (call, _, path) => (call === 'symlink' && path.endsWith('suspect') ? { code: 'EIO' } : undefined),
  });
  const failing = await FileUserStore.open({ path: fs.path, lockWaitMsMax: 5_000, fs });
  await failing.create(candidate('alice'));
  fs.failNext.push({ call: 'datasync', fault: { code: 'EIO' } });
  await assert.rejects(failing.create(candidate('bob')), { code: 'outcome-unknown' });
  const next = new MemoryFileSystem(fs.disk);
  await next.bury();
  const store = await FileUserStore.open({ path: next.path, lockWaitMsMax: 5_000, fs: next });
  await store.create(candidate('carol'));
  await store.close();
  // The power fails: what was synced is left, and the mark is gone.
  const left = fs.disk.afterPowerCut({ edit: () => false, content: ({ durable }) => durable, name: (name) => name.replace('durable', 'old') });
  const last = new MemoryFileSystem(left);
  await last.bury();
  const again = await FileUserStore.open({ path: last.path, lockWaitMsMax: 5_000, fs: last });
  assert.equal((await again.find('alice'))?.id, 1);
  assert.equal((await again.find('carol'))?.login, 'carol');
  await again.close();
});

test('file: a store that is made on a full disk, and cannot say what is durable, does not open, and opens when there is room', async () => {
  for (const call of ['writeNow', 'syncDirectory'] as const) {
    const fs = new MemoryFileSystem(new MemoryDisk());
    if (call === 'syncDirectory') {
      // Made by a process that died before it could say so.
      await (await FileUserStore.open({ path: fs.path, lockWaitMsMax: 5_000, fs })).close();
      fs.unlink(`${fs.path}.lock/durable`);
    }
    fs.failNext.push({ call, fault: { code: 'ENOSPC' } });
    await assert.rejects(FileUserStore.open({ path: fs.path, lockWaitMsMax: 5_000, fs }), { code: 'storage-full' });
    const store = await FileUserStore.open({ path: fs.path, lockWaitMsMax: 5_000, fs });
    await store.create(candidate('alice'));
    assert.equal((await store.find('alice'))?.id, 1);
    await store.close();
  }
});
