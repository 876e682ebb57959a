import assert from 'node:assert/strict';
import { appendFileSync, copyFileSync, linkSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import type { FileSystem } from '../../../lib/store/file/file-system.ts';
import { FileLock } from '../../../lib/store/file/file-lock.ts';
import { decodeDurableOffset, encodeDurableOffset } from '../../../lib/store/file/durable-offset.ts';
import { FileUserStore } from '../../../lib/store/file/file-user-store.ts';
import type { FileUserStoreOptions } from '../../../lib/store/file/file-user-store.ts';
import { MemoryDisk } from '../../helper/simulator/memory-disk.ts';
import { MemoryFileSystem } from '../../helper/simulator/memory-file-system.ts';
import { temporaryDirectory, until } from '../../helper/temporary.ts';
import { newUser, testUserStore } from '../../helper/user-store-contract.ts';

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
function failing(kind: 'open' | 'read' | 'write' | 'append' | 'datasync' | 'truncate' | 'writeNow' | 'symlink' | 'rename', code: string): { fs: FileSystem; isOn: boolean } {
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
  const { user } = await first.create(newUser('alice'));
  const { user: bob } = await first.create(newUser('bob'));
  await first.remove(bob, at);
  await first.close();
  const second = await openStore(t, directory);
  assert.deepEqual(await second.findRecord('alice'), user);
  assert.equal(await second.findRecord('bob'), undefined);
  // The id of a removed user is not given again.
  assert.equal((await second.create(newUser('carol'))).user.id, 3);
});

test('file: two stores on one directory see each other\'s writes at once, either way', async (t) => {
  const directory = temporaryDirectory(t);
  const a = await openStore(t, directory);
  const b = await openStore(t, directory);
  for (let n = 0; n < 20; n++) {
    const [writer, reader] = n % 2 === 0 ? [a, b] : [b, a];
    const { user } = await writer.create(newUser(`user${n}`));
    assert.equal(user.id, n + 1);
    // A process without the lock catches up later.
    assert.equal((await reader.findPublic(`user${n}`))?.id, user.id);
    assert.deepEqual(await reader.findRecord(`user${n}`), user);
    assert.equal((await reader.page(undefined, 100)).users.length, n + 1);
  }
});

test('file: users from elsewhere are one batch, however many they are', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  const before = store.create(newUser('before'));
  const arrivals = Array.from({ length: 2_500 }, (_, n) => newUser(`user${n}`));
  const [, outcomes] = await Promise.all([before, store.createMany(arrivals), store.create(newUser('after'))]);
  assert.ok(outcomes.every(({ created }) => created));
  const [, ...lines] = readFileSync(join(directory, 'users.jsonl'), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
  assert.equal(new Set(lines.filter(({ login }) => login.startsWith('user')).map(({ batch }) => batch)).size, 1);
  assert.deepEqual(lines.map(({ id }) => id), Array.from({ length: 2_502 }, (_, n) => n + 1));
});

test('file: an id from elsewhere is kept where it is above all others, and raises the next, also for other processes', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  const [ten, two] = await store.createMany([{ ...newUser('ten'), id: 10 }, { ...newUser('two'), id: 2 }]);
  assert.deepEqual([ten?.user.id, two?.user.id], [10, 11]);
  const other = await openStore(t, directory);
  assert.equal((await other.create(newUser('next'))).user.id, 12);
  await store.compact();
  assert.equal((await store.createMany([{ ...newUser('far'), id: 20 }]))[0]?.user.id, 20);
});

test('file: the costliest kdf of each digest is known after opening, after compaction, and of what other processes write', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory);
  await first.createMany([newUser('a'), { ...newUser('b', { kdf: 'pbkdf2:sha256:29000:hex' }), version: 10, changed: at }]);
  const second = await openStore(t, directory);
  assert.deepEqual(await second.kdfs(), ['pbkdf2:sha256:29000:hex']);
  await second.createMany([newUser('c', { kdf: 'pbkdf2:sha384:7' }), newUser('d', { kdf: 'scrypt:32768:8:1' }), newUser('e', { kdf: 'none' })]);
  await second.createMany([newUser('f', { kdf: 'pbkdf2:sha256:9999' }), newUser('g', { kdf: 'scrypt:16384:8:3' })]);
  assert.deepEqual(await first.kdfs(), ['pbkdf2:sha256:29000:hex', 'pbkdf2:sha384:7', 'scrypt:16384:8:3']);
  const user = await first.findRecord('b');
  await first.replace(user!, { kdf: 'pbkdf2:sha512:8', password: user!.password });
  // Until compaction it may still be the kdf of another user.
  assert.equal((await first.kdfs()).includes('pbkdf2:sha256:29000:hex'), true);
  await first.compact();
  const left = ['pbkdf2:sha256:9999', 'pbkdf2:sha512:8', 'pbkdf2:sha384:7', 'scrypt:16384:8:3'];
  assert.deepEqual(await first.kdfs(), left);
  assert.deepEqual(await second.kdfs(), left);
  assert.ok(Array.isArray(first.kdfs()), 'without a promise: every failed sign-in reads it');
});

test('file: thousands of different kdfs are no more to remember than one', async (t) => {
  const store = await openStore(t, temporaryDirectory(t));
  await store.createMany(Array.from({ length: 3_000 }, (_, n) => newUser(`user${n}`, { kdf: `pbkdf2:sha256:${n + 1}` })));
  assert.deepEqual(await store.kdfs(), ['pbkdf2:sha256:3000']);
});

test('file: a list reads little more than the file, whatever the order of earlier changes', async (t) => {
  for (const order of ['ascending', 'descending', 'mixed'] as const) {
    let bytes = 0;
    const fs: FileSystem = {
      ...nodeFileSystem,
      read: (...args) => {
        const read = nodeFileSystem.read(...args);
        bytes += read;
        return read;
      },
    };
    const directory = temporaryDirectory(t);
    const store = await openStore(t, directory, { fs });
    const users = (await store.createMany(Array.from({ length: 3_000 }, (_, n) => newUser(`user${n}`)))).map(({ user }) => user);
    const changed = users.filter((_, n) => n % 3 === 0);
    if (order === 'descending') changed.reverse();
    if (order === 'mixed') changed.sort((a, b) => (a.id * 7919) % 997 - (b.id * 7919) % 997);
    await Promise.all(changed.map((user) => store.replace(user, { kdf: 'k', password: 'p'.repeat(97), changed: at })));
    bytes = 0;
    let count = 0;
    for (let after: string | undefined, isFirst = true; isFirst || after !== undefined; isFirst = false) {
      const page = await store.ndjsonPage(after);
      count += page.bytes.toString().split('\n').length - 1;
      after = page.next;
    }
    assert.equal(count, 3_000);
    const { size } = statSync(join(directory, 'users.jsonl'));
    assert.ok(bytes < 2 * size, `${order}: ${bytes} bytes were read of a file of ${size}`);
  }
});

test('file: four stores that want the same logins at once give each to one', async (t) => {
  const directory = temporaryDirectory(t);
  const stores = await Promise.all([1, 2, 3, 4].map(() => openStore(t, directory)));
  const logins = Array.from({ length: 200 }, (_, n) => `user${n}`);
  const outcomes = await Promise.all(stores.flatMap((store) => logins.map((login) => store.create(newUser(login)))));
  assert.equal(outcomes.filter(({ created }) => created).length, 200);
  assert.equal(new Set(outcomes.map(({ user }) => user.id)).size, 200);
});

test('file: a write is answered after fdatasync and the durable offset, and is not visible before', async (t) => {
  const calls: string[] = [];
  let seen: unknown = 'nothing';
  const fs: FileSystem = {
    ...nodeFileSystem,
    append: (...args) => {
      calls.push('write');
      return nodeFileSystem.append(...args);
    },
    datasync: async (fd) => {
      calls.push('datasync');
      if (calls.includes('write')) seen = await store?.findRecord('alice');
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
  await store.create(newUser('alice'));
  calls.push('answer');
  assert.deepEqual(calls, ['write', 'datasync', 'mark', 'answer']);
  assert.equal(seen, undefined);
});

test('file: writes that come while a batch is synced share the next one', async (t) => {
  let syncs = 0;
  const fs = { ...nodeFileSystem, datasync: (fd: number) => (syncs++, nodeFileSystem.datasync(fd)) };
  const store = await openStore(t, temporaryDirectory(t), { fs });
  syncs = 0;
  await Promise.all(Array.from({ length: 500 }, (_, n) => store.create(newUser(`user${n}`))));
  assert.ok(syncs <= 2, `${syncs} syncs for 500 users`);
});

test('file: short writes are carried on', async (t) => {
  const fs: FileSystem = {
    ...nodeFileSystem,
    append: (fd, from, position) => nodeFileSystem.append(fd, from.subarray(0, 7), position),
  };
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory, { fs });
  const { user } = await store.create(newUser('alice'));
  await store.close();
  assert.deepEqual(await (await openStore(t, directory)).findRecord('alice'), user);
});

test('file: a full disk fails the batch with 507, cuts the file back, and heals', async (t) => {
  let room = Infinity;
  const fs: FileSystem = {
    ...nodeFileSystem,
    append: (fd, from, position) => {
      if (room === 0) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      const done = nodeFileSystem.append(fd, from.subarray(0, room), position);
      room -= done;
      return done;
    },
  };
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory, { fs });
  const { user } = await store.create(newUser('alice'));
  const { size } = statSync(join(directory, 'users.jsonl'));
  room = 50;
  await assert.rejects(store.create(newUser('bob')), { code: 'storage-full' });
  assert.equal(statSync(join(directory, 'users.jsonl')).size, size);
  assert.deepEqual(await store.findRecord('alice'), user);
  assert.equal(await store.findRecord('bob'), undefined);
  room = Infinity;
  assert.equal((await store.create(newUser('bob'))).user.id, 2);
});

test('file: after a failed fdatasync nothing is answered 2xx, and the next process recovers the file as after a kill', async (t) => {
  const sync = failing('datasync', 'EIO');
  const failures: string[] = [];
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory, { fs: sync.fs, onFailed: ({ code }) => failures.push(code) });
  const { user } = await store.create(newUser('alice'));
  sync.isOn = true;
  const writes = await Promise.allSettled(['bob', 'carol'].map((login) => store.create(newUser(login))));
  sync.isOn = false;
  assert.deepEqual(writes.map((write) => write.status === 'rejected' && write.reason.code), ['outcome-unknown', 'outcome-unknown']);
  // The process is to end after those who wait have been answered.
  assert.deepEqual(failures, []);
  await until(() => failures.length > 0, 'the failure to be announced');
  assert.deepEqual(failures, ['unavailable']);
  await assert.rejects(store.create(newUser('dave')), { code: 'unavailable' });
  await assert.rejects(store.findRecord('alice'), { code: 'unavailable' });
  await store.close();

  const { ino, size } = statSync(join(directory, 'users.jsonl'));
  const rewritten: number[] = [];
  const fs: FileSystem = {
    ...nodeFileSystem,
    write: (fd, from, offset, length, position) => (rewritten.push(length), nodeFileSystem.write(fd, from, offset, length, position)),
    append: (fd, from, position) => (rewritten.push(from.length), nodeFileSystem.append(fd, from, position)),
  };
  const next = await openStore(t, directory, { fs });
  assert.deepEqual(await next.findRecord('alice'), user);
  // The bytes that the kernel may take for written are written once more, and synced, before they are read.
  assert.equal(rewritten.length, 1);
  assert.equal((await next.findRecord('bob'))?.id, 2);
  await next.create(newUser('dave'));
  assert.equal(rewritten.length, 2);
  assert.equal(statSync(join(directory, 'users.jsonl')).ino, ino);
  assert.equal(statSync(join(directory, 'users.jsonl')).size, size + rewritten[1]!);
});

test('file: without room for a torn tail the store is read-only until there is some', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const first = await openStore(t, directory);
  const { user } = await first.create(newUser('alice'));
  await first.close();
  writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from('{"id":2,"login":"b')]));
  const full = failing('write', 'ENOSPC');
  full.isOn = true;
  const store = await openStore(t, directory, { fs: full.fs });
  assert.deepEqual(await store.findRecord('alice'), user);
  await assert.rejects(store.create(newUser('bob')), { code: 'storage-full' });
  assert.equal(statSync(path).size, readFileSync(path).length);
  assert.match(readFileSync(path, 'utf8'), /"login":"b$/);
  full.isOn = false;
  assert.equal((await store.create(newUser('bob'))).created, true);
  const [torn] = readdirSync(directory).filter((name) => name.includes('.torn-'));
  assert.equal(readFileSync(join(directory, torn!), 'utf8'), '{"id":2,"login":"b');
});

test('file: where there is no room for a socket it is read, and written to when there is', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory);
  const { user } = await first.create(newUser('alice'));
  const before = readdirSync(join(directory, 'users.jsonl.lock')).sort();
  const full = failing('rename', 'ENOSPC');
  full.isOn = true;
  const store = await openStore(t, directory, { fs: full.fs });
  assert.deepEqual(await store.findRecord('alice'), user);
  await assert.rejects(store.create(newUser('bob')), { code: 'storage-full' });
  assert.deepEqual(readdirSync(join(directory, 'users.jsonl.lock')).sort(), before);
  // No process can take the lock without one, to make the file or to recover after a reboot.
  await assert.rejects(openStore(t, temporaryDirectory(t), { fs: full.fs }), { code: 'storage-full', message: /no room/ });
  full.isOn = false;
  assert.equal((await store.create(newUser('bob'))).created, true);
  assert.equal((await first.create(newUser('carol'))).created, true);
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
  await store.create(newUser('alice'));
  rmSync(path);
  await assert.rejects(store.create(newUser('bob')), { code: 'unavailable' });
  await until(() => failures.length > 0, 'the failure to be announced');
  assert.match(failures.join(), /removed or replaced/);
  assert.deepEqual(readdirSync(directory), ['users.jsonl.lock']);
});

test('file: a lock directory removed underneath stops the store', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  await store.create(newUser('alice'));
  rmSync(join(directory, 'users.jsonl.lock'), { recursive: true });
  await assert.rejects(store.create(newUser('bob')), { code: 'unavailable' });
});

test('file: a file shorter than what was durable is refused', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const store = await openStore(t, directory);
  await store.create(newUser('alice'));
  await store.create(newUser('bob'));
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
  await store.create(newUser('alice'));
  rot(path);
  await assert.rejects(store.findRecord('alice'), (error) => error instanceof RegistrarError && error.code === 'corrupt');
});

test('file: a store that is closed refuses, and closing waits for what was asked for', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  const writing = store.create(newUser('alice'));
  await store.close();
  assert.equal((await writing).created, true);
  await assert.rejects(store.create(newUser('bob')), { code: 'unavailable' });
  assert.deepEqual(readdirSync(join(directory, 'users.jsonl.lock')).sort(), ['durable', 'protocol-1']);
});

test('file: a write that fails in another way than for room is 503, and nothing is left of it', async (t) => {
  const fault = failing('append', 'EIO');
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory, { fs: fault.fs });
  await store.create(newUser('alice'));
  const { size } = statSync(join(directory, 'users.jsonl'));
  fault.isOn = true;
  await assert.rejects(store.create(newUser('bob')), { code: 'unavailable', message: /cannot be written to \(EIO\); nothing was changed/ });
  fault.isOn = false;
  assert.equal(statSync(join(directory, 'users.jsonl')).size, size);
  assert.equal((await store.create(newUser('bob'))).created, true);
});

test('file: where a failed write cannot be cut back, and where the durable offset cannot be written, the store fails', async (t) => {
  for (const kind of ['truncate', 'writeNow'] as const) {
    const write = failing('append', 'EIO');
    const fault = failing(kind, 'EIO');
    const fs = { ...write.fs, [kind]: fault.fs[kind] };
    const failures: string[] = [];
    const directory = temporaryDirectory(t);
    const store = await openStore(t, directory, { fs, onFailed: ({ code }) => failures.push(code) });
    fault.isOn = true;
    write.isOn = kind === 'truncate';
    await assert.rejects(store.create(newUser('alice')), { code: 'outcome-unknown' });
    await until(() => failures.length > 0, 'the failure to be announced');
    assert.deepEqual(failures, ['unavailable']);
    await store.close();
    assert.equal((await (await openStore(t, directory)).create(newUser('bob'))).created, true);
  }
});

test('file: a durable offset that is removed, damaged or of another boot under a running reader is made anew by its next read', async (t) => {
  for (const change of [
    (path: string) => rmSync(path),
    (path: string) => writeFileSync(path, 'x'.repeat(256)),
    (path: string) => writeFileSync(path, encodeDurableOffset({ ...decodeDurableOffset(readFileSync(path))!, boot: 'another' }), { flag: 'r+' }),
  ]) {
    const directory = temporaryDirectory(t);
    const a = await openStore(t, directory);
    const b = await openStore(t, directory);
    const { user } = await a.create(newUser('alice'));
    change(join(directory, 'users.jsonl.lock', 'durable'));
    assert.deepEqual(await b.findRecord('alice'), user);
    assert.deepEqual(await b.findRecord('alice'), user);
    await a.create(newUser('bob'));
    assert.equal((await b.findRecord('bob'))?.login, 'bob');
  }
});

test('file: a file cut short underneath is refused by readers, and none of them hangs', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const a = await openStore(t, directory);
  const b = await openStore(t, directory);
  await a.create(newUser('alice'));
  truncateSync(path, statSync(path).size - 10);
  await assert.rejects(b.findRecord('alice'), { code: 'corrupt', message: /though it was durable/ });
});

test('file: a file that another hand has written to is not written over', async (t) => {
  for (const change of [(path: string) => appendFileSync(path, 'x'), (path: string) => truncateSync(path, 130)]) {
    const directory = temporaryDirectory(t);
    const path = join(directory, 'users.jsonl');
    const store = await openStore(t, directory);
    await store.create(newUser('alice'));
    change(path);
    const before = readFileSync(path);
    await assert.rejects(store.create(newUser('bob')), { code: 'unavailable', message: /its length has changed/ });
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

test('file: without room for bytes that another process could not sync the file is read, up to what was durable', async (t) => {
  const sync = failing('datasync', 'EIO');
  const directory = temporaryDirectory(t);
  const first = await openStore(t, directory, { fs: sync.fs });
  const { user } = await first.create(newUser('alice'));
  sync.isOn = true;
  await assert.rejects(first.create(newUser('bob')), { code: 'outcome-unknown' });
  await first.close();
  const full = failing('write', 'ENOSPC');
  full.isOn = true;
  const reports: string[] = [];
  const second = await openStore(t, directory, { fs: full.fs, report: (line) => reports.push(line) });
  assert.deepEqual(reports, []);
  assert.deepEqual(await second.findRecord('alice'), user);
  assert.equal(await second.findRecord('bob'), undefined);
  await assert.rejects(second.create(newUser('carol')), { code: 'storage-full' });
  full.isOn = false;
  assert.equal((await second.create(newUser('carol'))).created, true);
});

test('file: one rotten line fails the writes of one user, not those at the same time', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const store = await openStore(t, directory);
  await store.create(newUser('rotten'));
  rot(path);
  const outcomes = await Promise.allSettled(['alice', 'rotten', 'bob'].map((login) => store.create(newUser(login))));
  assert.deepEqual(outcomes.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled']);
});

test('file: a taken login is told also where nothing can be written', async (t) => {
  const full = failing('append', 'ENOSPC');
  const store = await openStore(t, temporaryDirectory(t), { fs: full.fs });
  await store.create(newUser('alice'));
  full.isOn = true;
  const [taken, refused] = await Promise.allSettled([store.create(newUser('alice')), store.create(newUser('bob'))]);
  assert.equal(taken.status === 'fulfilled' && taken.value.created, false);
  assert.equal(refused.status === 'rejected' && refused.reason.code, 'storage-full');
});

test('file: whatever the system says becomes an error of the contract', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'users.jsonl'));
  await assert.rejects(openStore(t, directory), { code: 'cannot-start', message: /EISDIR/ });
  const read = failing('read', 'EIO');
  const store = await openStore(t, temporaryDirectory(t), { fs: read.fs });
  await store.create(newUser('alice'));
  read.isOn = true;
  await assert.rejects(store.findRecord('alice'), { code: 'unavailable' });
  await assert.rejects(store.create(newUser('alice')), { code: 'unavailable' });
});

test('file: a write that writes nothing is an error, not a loop', async (t) => {
  let isStuck = false;
  const fs: FileSystem = { ...nodeFileSystem, append: (...args) => (isStuck ? 0 : nodeFileSystem.append(...args)) };
  const store = await openStore(t, temporaryDirectory(t), { fs });
  isStuck = true;
  await assert.rejects(store.create(newUser('alice')), { code: 'unavailable', message: /EIO/ });
});

test('file: what could not be read again is never written', async (t) => {
  const store = await openStore(t, temporaryDirectory(t));
  await assert.rejects(store.create(newUser('a"b')), { code: 'unavailable' });
  await assert.rejects(store.create(newUser('alice', { password: 'x'.repeat(5000) })), { code: 'unavailable' });
  assert.equal((await store.create(newUser('alice'))).user.id, 1);
});

test('file: another file in the place of the one of the durable offset is read as it is', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const other = temporaryDirectory(t);
  const there = await openStore(t, other);
  for (let n = 0; n < 5; n++) await there.create(newUser(`user${n}`));
  await there.close();
  const here = await openStore(t, directory);
  await here.create(newUser('alice'));
  await here.close();
  const { ino } = statSync(path);
  writeFileSync(path, readFileSync(join(other, 'users.jsonl')));
  assert.equal(statSync(path).ino, ino);
  const store = await openStore(t, directory);
  assert.equal(store.size, 5);
  assert.equal(await store.findRecord('alice'), undefined);
});

test('file: an opener that has to recover waits for the holder of the lock', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  await store.create(newUser('alice'));
  await store.close();
  const lockDirectory = join(directory, 'users.jsonl.lock');
  rmSync(join(lockDirectory, 'durable'));
  const lock = await FileLock.join({ fs: nodeFileSystem, directory: lockDirectory, onWaiter: () => undefined });
  t.after(() => lock.leave());
  await lock.acquire(1000);
  const reports: string[] = [];
  const opening = openStore(t, directory, { lockWaitMsMax: 60, report: (line) => reports.push(line) });
  await until(() => reports.length > 1, 'it to wait');
  lock.release();
  assert.equal((await (await opening).findRecord('alice'))?.login, 'alice');
  assert.match(reports[0]!, new RegExp(`locked by process ${process.pid}.* Waiting`));
});

test('file: a reader waits for the durable offset of a file that is just being put in place', async (t) => {
  const directory = temporaryDirectory(t);
  const writer = await openStore(t, directory);
  const reader = await openStore(t, directory);
  const { user } = await writer.create(newUser('alice'));
  const path = join(directory, 'users.jsonl.lock', 'durable');
  const right = readFileSync(path);
  const mark = decodeDurableOffset(right);
  assert.ok(mark !== undefined);
  const put = (bytes: Buffer): void => writeFileSync(path, bytes, { flag: 'r+' });
  put(encodeDurableOffset({ ...mark, inode: mark.inode + 1 }));
  const reading = reader.findRecord('alice');
  await new Promise((resolve) => setImmediate(resolve));
  put(right);
  assert.deepEqual(await reading, user);
});

test('file: a holder that only reads notices that its lock was taken away', async (t) => {
  const directory = temporaryDirectory(t);
  const failures: string[] = [];
  const store = await openStore(t, directory, { checkMs: 5, onFailed: ({ message }) => failures.push(message) });
  await store.create(newUser('alice'));
  rmSync(join(directory, 'users.jsonl.lock'), { recursive: true });
  await until(() => failures.length > 0, 'the failure to be announced');
  await assert.rejects(store.findRecord('alice'), { code: 'unavailable', message: /removed or replaced/ });
});

test('file: a file that is gone when the lock is taken again stops the store', async (t) => {
  const directory = temporaryDirectory(t);
  const a = await openStore(t, directory);
  const b = await openStore(t, directory);
  await a.create(newUser('alice'));
  await b.create(newUser('bob'));
  rmSync(join(directory, 'users.jsonl'));
  await assert.rejects(a.create(newUser('carol')), { code: 'unavailable', message: /was removed underneath/ });
  assert.deepEqual(readdirSync(directory), ['users.jsonl.lock']);
});

test('file: damage in what another process wrote, and had said to be durable, is refused by the next to write', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const a = await openStore(t, directory);
  const b = await openStore(t, directory);
  await a.create(newUser('alice'));
  await a.close();
  const bytes = readFileSync(path);
  bytes.fill(0, bytes.length - 30);
  writeFileSync(path, bytes);
  await assert.rejects(b.create(newUser('bob')), { code: 'corrupt', message: /line 2 .*durable/ });
  await assert.rejects(b.findRecord('alice'), { code: 'corrupt', message: /line 2 .*durable/ });
  assert.ok(readFileSync(path).equals(bytes));
});

test('file: what a dead process could not sync does not stand before what is written later', async () => {
  const fs = new MemoryFileSystem(new MemoryDisk());
  const failing = await FileUserStore.open({ path: fs.path, lockWaitMsMax: 5_000, fs });
  await failing.create(newUser('alice'));
  fs.failNext.push({ call: 'datasync', fault: { code: 'EIO' } });
  await assert.rejects(failing.create(newUser('bob')), { code: 'outcome-unknown' });
  const next = new MemoryFileSystem(fs.disk);
  await next.bury();
  const store = await FileUserStore.open({ path: next.path, lockWaitMsMax: 5_000, fs: next });
  await store.create(newUser('carol'));
  await store.close();
  // The power fails: what was synced is left, and the durable offset is gone.
  const left = fs.disk.afterPowerCut({ edit: () => false, content: ({ durable }) => durable, name: (name) => name.replace('durable', 'old') });
  const last = new MemoryFileSystem(left);
  await last.bury();
  const again = await FileUserStore.open({ path: last.path, lockWaitMsMax: 5_000, fs: last });
  assert.equal((await again.findRecord('alice'))?.id, 1);
  assert.equal((await again.findRecord('carol'))?.login, 'carol');
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
    await store.create(newUser('alice'));
    assert.equal((await store.findRecord('alice'))?.id, 1);
    await store.close();
  }
});

test('file: the only process on a directory holds the lock from its start, and takes it back when another one has ended', async (t) => {
  const directory = temporaryDirectory(t);
  let reads = 0;
  const fs: FileSystem = { ...nodeFileSystem, statFd: (fd) => (reads++, nodeFileSystem.statFd(fd)) };
  const holder = (): string => nodeFileSystem.readLink(join(directory, 'users.jsonl.lock', 'lock')) ?? '';
  const service = await openStore(t, directory, { fs, checkMs: 5 });
  const first = holder();
  assert.notEqual(first, '');
  const command = await openStore(t, directory);
  assert.equal(holder(), first, 'a second process opens without the lock');
  await command.create(newUser('alice'));
  assert.notEqual(holder(), first);
  await command.close();
  await until(() => holder() === first, 'the service to take the lock back');
  await service.findRecord('alice');
  reads = 0;
  for (let n = 0; n < 10; n++) assert.equal((await service.findRecord('alice'))?.id, 1);
  assert.equal(reads, 0, 'its reads make no system call to find out whether they are current');
});

test('file: what keeps a process from reading or writing is the reason why it is not ready, and is reported once', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const reports: string[] = [];
  const holder = await openStore(t, directory);
  const reader = await openStore(t, directory, { checkMs: 5, report: (line) => reports.push(line) });
  for (let n = 0; n < 50; n++) await holder.create(newUser(`user${n}`));
  await until(() => reader.size === 50, 'the reader to follow without a request');
  assert.equal(reader.unhealthyReason, undefined);
  // Another process compacts the file, and the new one is damaged at once.
  const damaging: FileSystem = { ...nodeFileSystem, rename: (from, to) => {
    nodeFileSystem.rename(from, to);
    if (to === path) rot(path);
  } };
  const compactor = await openStore(t, directory, { fs: damaging });
  await compactor.compact();
  await until(() => reader.unhealthyReason !== undefined, 'the reason');
  assert.match(reader.unhealthyReason!, /users\.jsonl": line 2 .* fails its checksum/);
  await until(() => reports.length > 0, 'the report');
  const descriptors = (): number => readdirSync('/proc/self/fd').length;
  const before = descriptors();
  for (let n = 0; n < 20; n++) await assert.rejects(reader.findRecord('user1'), { code: 'corrupt' });
  assert.ok(descriptors() <= before + 2, 'a file that cannot be read costs no descriptor a read');
  assert.equal(reports.length, 1);
});

test('file: a write that fails in an unexpected way makes the store not ready until one succeeds', async (t) => {
  const fault = failing('append', 'EACCES');
  const reports: string[] = [];
  const store = await openStore(t, temporaryDirectory(t), { fs: fault.fs, report: (line) => reports.push(line) });
  fault.isOn = true;
  await assert.rejects(store.create(newUser('alice')), { code: 'unavailable' });
  assert.match(store.unhealthyReason!, /EACCES/);
  assert.deepEqual(reports, [store.unhealthyReason]);
  fault.isOn = false;
  await store.create(newUser('alice'));
  assert.equal(store.unhealthyReason, undefined);
});

test('file: descriptors that are missing for a moment end neither a write nor a compaction for good', async (t) => {
  const fault = failing('open', 'EMFILE');
  const failures: string[] = [];
  const directory = temporaryDirectory(t);
  const fs: FileSystem = { ...fault.fs, rename: (from, to) => {
    nodeFileSystem.rename(from, to);
    // From the moment at which the compacted file is in place.
    fault.isOn = to.endsWith('users.jsonl');
  } };
  const store = await openStore(t, directory, { fs, onFailed: ({ message }) => failures.push(message) });
  await store.create(newUser('alice'));
  await store.compact();
  await store.create(newUser('bob'));
  assert.equal((await store.findRecord('bob'))?.id, 2);
  await assert.rejects(store.compact(), { code: 'busy', message: /EMFILE/ });
  assert.equal(store.unhealthyReason, undefined);
  assert.deepEqual(failures, []);
});

test('file: a second name is noticed while the file is in use, and writes go on when it is removed', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const store = await openStore(t, directory, { checkMs: 5, lockWaitMsMax: 50 });
  await store.create(newUser('alice'));
  linkSync(path, join(directory, 'second'));
  await until(() => store.unhealthyReason !== undefined, 'the second name to be noticed');
  assert.match(store.unhealthyReason!, /2 names/);
  await assert.rejects(store.create(newUser('bob')), /2 names/);
  assert.equal((await store.findRecord('alice'))?.id, 1);
  rmSync(join(directory, 'second'));
  // A write that succeeds makes the store healthy again.
  assert.equal((await store.create(newUser('bob'))).user.id, 2);
  await until(() => store.unhealthyReason === undefined, 'its end to be noticed');
});

test('file: an older file that is moved into place under two services is adopted by neither', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const failures: string[] = [];
  const open_ = async (): Promise<FileUserStore> => {
    const store: FileUserStore = await openStore(t, directory, { checkMs: 5, onFailed: ({ message }) => {
      failures.push(message);
      // As the service does: its process ends.
      void store.close();
    } });
    return store;
  };
  const [a, b] = [await open_(), await open_()];
  await a.create(newUser('alice'));
  copyFileSync(path, join(directory, 'older'));
  await b.create(newUser('bob'));
  renameSync(join(directory, 'older'), path);
  await until(() => failures.length === 2, 'both to notice');
  assert.match(failures.join(), /replaced.*replaced/);
  for (const store of [a, b]) await assert.rejects(store.create(newUser('carol')), { code: 'unavailable' });
});

test('file: a compacted file whose process was killed before it wrote the durable offset is adopted', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const durable = join(directory, 'users.jsonl.lock', 'durable');
  const other = await openStore(t, directory);
  const compactor = await openStore(t, directory);
  await compactor.create(newUser('alice'));
  await other.findRecord('alice');
  const before = readFileSync(durable);
  await compactor.compact();
  await compactor.close();
  writeFileSync(durable, before, { flag: 'r+' });
  assert.equal((await other.create(newUser('bob'))).user.id, 2);
  assert.equal(JSON.parse(readFileSync(path, 'utf8').split('\n')[0]!).compactedFrom.length, 8);
});

test('file: a file that is a mount of its own is refused, since another directory may share it', async (t) => {
  const directory = temporaryDirectory(t);
  await (await openStore(t, directory)).close();
  const inodes = new Map<number, string>();
  const fs: FileSystem = {
    ...nodeFileSystem,
    open: (path, ...rest) => {
      const fd = nodeFileSystem.open(path, ...rest);
      inodes.set(fd, path);
      return fd;
    },
    mountId: (fd) => (inodes.get(fd)?.endsWith('.jsonl') === true ? '2' : '1'),
  };
  await assert.rejects(openStore(t, directory, { fs }), { code: 'cannot-start', message: /a mount of its own.*Mount its directory/ });
});

test('file: a process that ends before it can compact a wasteful file says what to do', async (t) => {
  const directory = temporaryDirectory(t);
  const reports: string[] = [];
  const store = await openStore(t, directory, { report: (line) => reports.push(line) });
  const { user } = await store.create(newUser('alice', { password: 'p'.repeat(3_000) }));
  let current = user;
  for (let n = 0; n < 5; n++) {
    const changes = Array.from({ length: 100 }, async () => (await store.replace(current, { kdf: 'k', password: 'p'.repeat(3_000) }))!);
    current = (await Promise.all(changes)).at(-1)!;
  }
  await store.close();
  assert.match(reports.join(), /\d\d % of the users file is obsolete\. Run "registrar compact"/);
});

test('file: a check during an append or while a compacted file is put in place takes neither for a hand', async (t) => {
  const slow = async (): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, 60));
  };
  const fs: FileSystem = {
    ...nodeFileSystem,
    datasync: async (fd) => {
      await nodeFileSystem.datasync(fd);
      await slow();
    },
    syncOpenDirectory: async (fd) => {
      await nodeFileSystem.syncOpenDirectory(fd);
      await slow();
    },
  };
  const failures: string[] = [];
  const store = await openStore(t, temporaryDirectory(t), { fs, checkMs: 5, onFailed: ({ message }) => failures.push(message) });
  await store.create(newUser('alice'));
  await store.compact();
  await store.create(newUser('bob'));
  assert.deepEqual(failures, []);
  assert.equal((await store.findRecord('bob'))?.id, 2);
});
