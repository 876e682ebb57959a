/** The lock: its files, its processes, and a model of its protocol. */

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { lutimesSync, mkdirSync, openSync, readFileSync, readdirSync, readlinkSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { FileLock } from '../../../lib/store/file/file-lock.ts';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import { directoryTag, isGone, newIdentity, pidOf } from '../../../lib/store/file/identity.ts';
import { spawnStore } from '../../helper/store-process.ts';
import { childEnvironment, loader, root, temporaryDirectory, until } from '../../helper/temporary.ts';
import { explore } from '../../helper/lock-model.ts';

const ownerOf = (directory: string): string => readlinkSync(join(directory, 'lock')).replace(/\.s$/, '');
const tagOf = (directory: string): string => directoryTag({ inode: statSync(directory).ino, device: statSync(directory).dev });

async function join_(t: Pick<TestContext, 'after'>, directory: string, onWaiter?: (lock: FileLock) => void): Promise<FileLock> {
  mkdirSync(directory, { recursive: true });
  const lock: FileLock = await FileLock.join({ fs: nodeFileSystem, directory, onWaiter: () => onWaiter?.(lock) });
  t.after(() => lock.leave().catch(() => undefined));
  return lock;
}

test('lock: it is held until it is wanted, and then handed over', async (t) => {
  const directory = temporaryDirectory(t);
  const a = await join_(t, directory, (lock) => lock.release());
  const b = await join_(t, directory);
  await a.acquire(1000);
  assert.equal(ownerOf(directory), a.identity);
  assert.equal(a.isHeld, true);
  await a.acquire(1000);
  await b.acquire(5000);
  assert.equal(a.isHeld, false);
  assert.equal(ownerOf(directory), b.identity);
});

test('lock: a holder that is working lets go when it is done', async (t) => {
  const directory = temporaryDirectory(t);
  const a = await join_(t, directory);
  const b = await join_(t, directory);
  await a.acquire(1000);
  const acquired = b.acquire(5000);
  await until(() => a.hasWaiters, 'the wish to arrive');
  assert.equal(b.isHeld, false);
  a.release();
  await acquired;
  assert.equal(b.isHeld, true);
});

test('lock: a waiter gives up at its deadline and names the pid of the holder', async (t) => {
  const directory = temporaryDirectory(t);
  const a = await join_(t, directory);
  const b = await join_(t, directory);
  await a.acquire(1000);
  await assert.rejects(b.acquire(200), { code: 'busy', message: new RegExp(`process ${process.pid},`) });
  assert.equal(b.isHeld, false);
});

test('lock: eight that take turns never hold it at once', async (t) => {
  const directory = temporaryDirectory(t);
  const locks = await Promise.all(Array.from({ length: 8 }, () => join_(t, directory)));
  let holders = 0;
  let turns = 0;
  await Promise.all(
    locks.map(async (lock) => {
      for (let n = 0; n < 25; n++) {
        await lock.acquire(20_000);
        assert.equal(++holders, 1);
        await new Promise((resolve) => setImmediate(resolve));
        turns++;
        holders--;
        lock.release();
      }
    }),
  );
  assert.equal(turns, 200);
});

test('lock: the lock of a killed process is taken over, and what it has left is removed', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await spawnStore(t, join(directory, 'users.jsonl'));
  await store.tell({ do: 'create', logins: ['alice'] });
  const lockDirectory = join(directory, 'users.jsonl.lock');
  const deadHolder = ownerOf(lockDirectory);
  assert.equal(pidOf(deadHolder), String(store.child.pid));
  assert.equal(isGone(deadHolder, tagOf(lockDirectory)), false);
  const lock = await join_(t, lockDirectory);
  const acquired = lock.acquire(20_000);
  // A waiter that is connected learns of the death by the connection's end.
  // Node 20's `node --test` gives up at a link that leads nowhere, wherever in the tree: there is none.
  const everyLinkLeads = (): void => readdirSync(lockDirectory).forEach((name) => void statSync(join(lockDirectory, name)));
  everyLinkLeads();
  store.child.kill('SIGKILL');
  everyLinkLeads();
  await acquired;
  // Its sockets close a moment before its pid is gone: only its liveness socket could tell so early.
  await until(() => isGone(deadHolder, tagOf(lockDirectory)), 'the pid to go');
  assert.deepEqual(readdirSync(lockDirectory).filter((name) => name.includes(deadHolder)), []);
});

test('lock: a stopped holder is waited for', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await spawnStore(t, join(directory, 'users.jsonl'));
  await store.tell({ do: 'create', logins: ['alice'] });
  const lock = await join_(t, join(directory, 'users.jsonl.lock'));
  store.child.kill('SIGSTOP');
  await assert.rejects(lock.acquire(300), { code: 'busy', message: new RegExp(`process ${store.child.pid},`) });
  store.child.kill('SIGCONT');
  await lock.acquire(20_000);
  assert.equal(lock.isHeld, true);
});

test('lock: a chain of breakers that died is followed to its end', async (t) => {
  const directory = temporaryDirectory(t);
  const dead = () => `00000000-1-1-1-1-${newIdentity('x').split('-')[5]}`;
  const [deadHolder, first, second] = [dead(), dead(), dead()];
  symlinkSync(deadHolder, join(directory, 'lock'));
  symlinkSync(first, join(directory, `${deadHolder}.b0`));
  symlinkSync(second, join(directory, `${deadHolder}.b1`));
  const lock = await join_(t, directory);
  await lock.acquire(5000);
  assert.deepEqual(readdirSync(directory).sort(), [`${lock.identity}.s`, 'lock', 'protocol-1'].sort());
});

test('lock: a break lock of a living process is respected', async (t) => {
  const directory = temporaryDirectory(t);
  const deadHolder = '00000000-1-1-1-aa';
  const breaker = await join_(t, directory);
  symlinkSync(deadHolder, join(directory, 'lock'));
  symlinkSync(breaker.identity, join(directory, `${deadHolder}.b0`));
  const other = await join_(t, directory);
  await assert.rejects(other.acquire(200), { code: 'busy' });
  assert.equal(ownerOf(directory), deadHolder);
  await breaker.acquire(5000);
  assert.equal(breaker.isHeld, true);
});

test('lock: a holder of whom nothing can be told is taken for alive', async (t) => {
  const directory = temporaryDirectory(t);
  const [boot, , , , place] = newIdentity(tagOf(directory)).split('-');
  // Its liveness socket is gone, and its pid is of another namespace.
  symlinkSync(`${boot}-1-77-1-${place}-ee`, join(directory, 'lock'));
  const lock = await join_(t, directory);
  await assert.rejects(lock.acquire(150), { code: 'busy', message: /process 77,/ });
  // Nor is a breaker of whom nothing can be told.
  nodeFileSystem.unlink(join(directory, 'lock'));
  symlinkSync('00000000-1-1-1-ff', join(directory, 'lock'));
  symlinkSync(`${boot}-1-78-1-${place}-ee`, join(directory, '00000000-1-1-1-ff.b0'));
  await assert.rejects(lock.acquire(150), { code: 'busy' });
});

test('lock: a directory in which no link can be made is an error, not a wait', async (t) => {
  const directory = temporaryDirectory(t);
  const fs = {
    ...nodeFileSystem,
    symlink: (target: string, path: string) => {
      if (path.endsWith('/lock')) throw Object.assign(new Error('read-only'), { code: 'EROFS' });
      nodeFileSystem.symlink(target, path);
    },
  };
  const lock = await FileLock.join({ fs, directory, onWaiter: () => undefined });
  t.after(() => lock.leave());
  await assert.rejects(lock.acquire(1000), { code: 'EROFS' });
  const none = { ...nodeFileSystem, open: (path: string, flags: 'r' | 'r+' | 'wx+') => {
    if (flags === 'wx+') throw Object.assign(new Error('read-only'), { code: 'EROFS' });
    return nodeFileSystem.open(path, flags);
  } };
  await assert.rejects(FileLock.join({ fs: none, directory: temporaryDirectory(t), onWaiter: () => undefined }), { code: 'EROFS' });
});

test('lock: the holder tidies what killed processes left, and nothing of the living', async (t) => {
  const directory = temporaryDirectory(t);
  const living = await join_(t, directory);
  const dead = '00000000-1-1-1-bb';
  writeFileSync(join(directory, `${dead}.s`), '');
  symlinkSync(dead, join(directory, '00000000-1-1-1-cc.b0'));
  symlinkSync(living.identity, join(directory, '00000000-1-1-1-dd.b0'));
  writeFileSync(join(directory, '.t-old'), '');
  utimesSync(join(directory, '.t-old'), 1, 1);
  writeFileSync(join(directory, '.t-new'), '');
  writeFileSync(join(directory, '.new-other'), '');
  const lock = await join_(t, directory);
  await lock.acquire(5000);
  const expected = [`${living.identity}.s`, `${lock.identity}.s`, '00000000-1-1-1-dd.b0', '.t-new', 'lock', 'protocol-1'];
  assert.deepEqual(readdirSync(directory).sort(), expected.sort());
});

test('lock: another protocol is refused, and nothing is touched', async (t) => {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'protocol-9'), '');
  await assert.rejects(join_(t, directory), { code: 'cannot-start', message: /protocol-9/ });
  assert.deepEqual(readdirSync(directory), ['protocol-9']);
});

test('lock: a lock that a hand has taken away is noticed', async (t) => {
  const directory = temporaryDirectory(t);
  const lock = await join_(t, directory);
  await lock.acquire(1000);
  nodeFileSystem.unlink(join(directory, 'lock'));
  symlinkSync('somebody', join(directory, 'lock'));
  assert.throws(() => lock.assertHeld(), { code: 'unavailable' });
  assert.throws(() => lock.release(), { code: 'unavailable' });
  await lock.leave();
  assert.equal(readlinkSync(join(directory, 'lock')), 'somebody');
});

test('lock: data paths longer than a socket\'s may be work', { skip: process.platform !== 'linux' }, async (t) => {
  const directory = join(temporaryDirectory(t), 'x'.repeat(200));
  const lock = await join_(t, directory);
  await lock.acquire(1000);
  assert.equal(lock.isHeld, true);
});

test('lock: a lock that came with a copied directory has no holder', async (t) => {
  const directory = temporaryDirectory(t);
  // A living process of this machine, which takes part in another directory; sockets are not copied.
  symlinkSync(newIdentity(directoryTag({ inode: statSync(directory).ino, device: statSync(directory).dev + 1 })), join(directory, 'lock'));
  const lock = await join_(t, directory);
  await lock.acquire(2_000);
  assert.equal(lock.isHeld, true);
});

test('lock: leaving does not wait for a connected process that is silent', async (t) => {
  const directory = temporaryDirectory(t);
  const lock = await join_(t, directory);
  const silent = connect({ path: `/proc/self/fd/${openSync(directory, 'r')}/${lock.identity}.s` });
  silent.on('error', () => undefined);
  await once(silent, 'connect');
  await lock.leave();
  assert.deepEqual(readdirSync(directory), ['protocol-1']);
});

test('lock: the liveness socket of a cluster\'s worker dies with the worker, not with its primary', async (t) => {
  const directory = temporaryDirectory(t);
  const script = join(temporaryDirectory(t), 'cluster.mjs');
  const lib = new URL('../../../lib/store/file/', import.meta.url);
  writeFileSync(script, `
    import cluster from 'node:cluster';
    if (cluster.isPrimary) {
      const worker = cluster.fork();
      worker.on('message', (message) => process.send(message));
      worker.on('exit', (code, signal) => signal === null && process.exit(1));
      process.on('message', () => process.kill(worker.process.pid, 'SIGKILL'));
    } else {
      const { FileLock } = await import(${JSON.stringify(new URL('file-lock.ts', lib).href)});
      const { nodeFileSystem } = await import(${JSON.stringify(new URL('file-system.ts', lib).href)});
      const lock = await FileLock.join({ fs: nodeFileSystem, directory: ${JSON.stringify(directory)}, onWaiter: () => undefined });
      await lock.acquire(5000);
      process.send(lock.identity);
    }
  `);
  const primary = fork(script, { cwd: root, env: childEnvironment(), execArgv: [...loader] });
  t.after(async () => {
    primary.kill('SIGKILL');
    if (primary.exitCode === null && primary.signalCode === null) await once(primary, 'exit');
  });
  const identity = await new Promise<unknown>((resolve, reject) => {
    primary.once('message', resolve);
    primary.once('exit', () => reject(new Error('the worker does not take the lock')));
  });
  assert.equal(ownerOf(directory), identity);
  const lock = await join_(t, directory);
  const acquired = lock.acquire(20_000);
  primary.send('kill it');
  await acquired;
  assert.equal(ownerOf(directory), lock.identity);
  assert.equal(primary.exitCode, null);
});

test('identity: it proves that its process is gone, or does not tell, and fits into an inode', () => {
  const tag = directoryTag({ inode: 5, device: 7 });
  assert.notEqual(tag, directoryTag({ inode: 5, device: 8 }), 'an identically made volume has the same inode numbers');
  const identity = newIdentity(tag);
  assert.ok(newIdentity(directoryTag({ inode: 2 ** 60, device: 2 ** 31 })).length < 60, identity);
  const [boot, namespace, pid, start, , random] = identity.split('-');
  const name = (...parts: unknown[]) => parts.join('-');
  assert.equal(isGone(identity, tag), false);
  assert.equal(isGone(identity, 'other'), true);
  assert.equal(isGone(name('ffffffff', namespace, pid, start, tag, random), tag), true);
  assert.equal(isGone(name(boot, namespace, pid, '1', tag, random), tag), true);
  assert.equal(isGone(name(boot, namespace, '4194304', start, tag, random), tag), true);
  // Another pid namespace: the number means nothing here.
  assert.equal(isGone(name(boot, '1', '4194304', start, tag, random), tag), false);
  assert.equal(readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').slice(0, 8), boot);
});

test('lock: a copy of the directory with its links followed is used, not waited for', async (t) => {
  for (const content of ['a socket or a file', '']) {
    const directory = temporaryDirectory(t);
    // `cp -rL` makes files of the links.
    for (const name of ['lock', 'copied.b0', '00000000-1-1-1-aa-0000000000000000.s']) writeFileSync(join(directory, name), content);
    const lock = await join_(t, directory);
    await lock.acquire(2_000);
    assert.equal(ownerOf(directory), lock.identity);
    lock.release();
  }
});

test('lock: waiters get it in the order in which they came, each woken once', async (t) => {
  const directory = temporaryDirectory(t);
  let attempts = 0;
  const fs = { ...nodeFileSystem, symlink: (target: string, path: string) => {
    if (path.endsWith('/lock')) attempts++;
    nodeFileSystem.symlink(target, path);
  } };
  let asked = 0;
  const holder = await FileLock.join({ fs, directory, onWaiter: () => asked++ });
  t.after(() => holder.leave());
  await holder.acquire(1_000);
  const order: number[] = [];
  const waiting: Promise<void>[] = [];
  for (let n = 0; n < 12; n++) {
    const lock = await FileLock.join({ fs, directory, onWaiter: () => undefined });
    t.after(() => lock.leave());
    waiting.push(lock.acquire(30_000).then(() => {
      order.push(n);
      lock.release();
    }));
    await until(() => asked === n + 1, 'it to ask');
  }
  attempts = 0;
  holder.release();
  await Promise.all(waiting);
  assert.deepEqual([...order].sort((a, b) => a - b), Array.from({ length: 12 }, (_, n) => n));
  // On a busy machine a woken process may miss its turn, and the next one comes first.
  const displacement = order.reduce((sum, n, place) => sum + Math.abs(n - place), 0);
  assert.ok(displacement <= 8, `the order was ${order.join(' ')}`);
  // Three a turn: one of the woken process, two of the one that wakes the next. Woken together they would take 78.
  assert.ok(attempts <= 60, `${attempts} attempts for 12 turns`);
});

test('lock: a holder that has no descriptors left costs its waiters a pause each time, not a loop', async (t) => {
  const directory = temporaryDirectory(t);
  const holder = await join_(t, directory);
  await holder.acquire(1_000);
  // What a waiter sees of it: every connection is accepted and closed.
  const identity = `00000000-1-77-1-${tagOf(directory)}-0000000000000000`;
  const server = createServer((connection) => connection.destroy());
  await new Promise<void>((resolve) => server.listen(`/proc/self/fd/${openSync(directory, 'r')}/${identity}.s`, resolve));
  t.after(() => server.close());
  nodeFileSystem.unlink(join(directory, 'lock'));
  symlinkSync(`${identity}.s`, join(directory, 'lock'));
  // Held for a minute already: longer than the waiter waits, whatever the clocks' resolution.
  lutimesSync(join(directory, 'lock'), Date.now() / 1000 - 60, Date.now() / 1000 - 60);
  let attempts = 0;
  const fs = { ...nodeFileSystem, symlink: (target: string, path: string) => {
    attempts++;
    nodeFileSystem.symlink(target, path);
  } };
  const waiter = await FileLock.join({ fs, directory, onWaiter: () => undefined });
  t.after(() => waiter.leave());
  await assert.rejects(waiter.acquire(300), { code: 'busy', message: /process 77,/ });
  assert.ok(attempts < 80, `${attempts} attempts in 0.3 s`);
});

test('lock: a waiter that found no turn says so, and blames no process', async (t) => {
  const directory = temporaryDirectory(t);
  const [a, b, waiter] = [await join_(t, directory), await join_(t, directory), await join_(t, directory)];
  await a.acquire(1_000);
  const refused = assert.rejects(waiter.acquire(150), { code: 'busy', message: /other processes wrote in turn for 0\.\d s/ });
  await until(() => a.hasWaiters, 'it to wait');
  // Taken anew meanwhile, though not by the process that waits.
  setTimeout(() => {
    nodeFileSystem.unlink(join(directory, 'lock'));
    symlinkSync(`${b.identity}.s`, join(directory, 'lock'));
  }, 60);
  await refused;
});

test('lock: a caller that gives up while the lock is being taken does not hold it', async (t) => {
  const directory = temporaryDirectory(t);
  let isSlow = true;
  // Housekeeping follows the taking, and lasts until after the deadline.
  const fs = { ...nodeFileSystem, list: (path: string) => {
    const until = performance.now() + 60;
    if (isSlow && nodeFileSystem.readLink(join(directory, 'lock')) !== undefined) while (performance.now() < until);
    return nodeFileSystem.list(path);
  } };
  await join_(t, directory);
  const lock = await FileLock.join({ fs, directory, onWaiter: () => undefined });
  t.after(() => lock.leave());
  await assert.rejects(lock.acquire(30), { code: 'busy' });
  await until(() => nodeFileSystem.readLink(join(directory, 'lock')) === undefined, 'it to be released');
  isSlow = false;
  await lock.acquire(5_000);
  assert.equal(lock.isHeld, true);
  assert.equal(ownerOf(directory), lock.identity);
});

test('lock model: two processes that are killed up to three times each are safe too', () => {
  const { states, violation, stuck } = explore('break lock', 2, 2);
  assert.deepEqual([violation, stuck], [undefined, 0]);
  assert.equal(states, 10_596);
});

test('lock model: removing a dead holder\'s lock at once lets two hold it', () => {
  assert.match(explore('unlink at once', 3, 1).violation ?? '', /2 hold the lock/);
});

test('lock model: a plain mutex around the removal is safe, and gets stuck when its owner is killed', () => {
  const { violation, stuck } = explore('plain mutex', 3, 1);
  assert.equal(violation, undefined);
  assert.ok(stuck > 0);
});
