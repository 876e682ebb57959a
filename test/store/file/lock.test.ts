import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync, readFileSync, readdirSync, readlinkSync, symlinkSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import { isGone, newIdentity, pidOf } from '../../../lib/store/file/identity.ts';
import { FileLock } from '../../../lib/store/file/lock.ts';
import { spawnStore } from '../../helper/store-process.ts';
import { loader, root, temporaryDirectory, until } from '../../helper/temporary.ts';

const ownerOf = (directory: string): string => readlinkSync(join(directory, 'lock')).replace(/\.s$/, '');
const inodeOf = (directory: string): number => statSync(directory).ino;

async function join_(t: Pick<TestContext, 'after'>, directory: string, onWanted?: (lock: FileLock) => void): Promise<FileLock> {
  mkdirSync(directory, { recursive: true });
  const lock: FileLock = await FileLock.join({ fs: nodeFileSystem, directory, onWanted: () => onWanted?.(lock) });
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
  await until(() => a.isWanted, 'the wish to arrive');
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
  const victim = ownerOf(lockDirectory);
  assert.equal(pidOf(victim), String(store.child.pid));
  assert.equal(isGone(victim, inodeOf(lockDirectory)), false);
  const lock = await join_(t, lockDirectory);
  const acquired = lock.acquire(20_000);
  // A waiter that is connected learns of the death by the connection's end.
  // Node 20's `node --test` gives up at a link that leads nowhere, wherever in the tree: there is none.
  const everyLinkLeads = (): void => readdirSync(lockDirectory).forEach((name) => void statSync(join(lockDirectory, name)));
  everyLinkLeads();
  store.child.kill('SIGKILL');
  everyLinkLeads();
  await acquired;
  // Its sockets close a moment before its pid is gone: only the beacon could tell so early.
  await until(() => isGone(victim, inodeOf(lockDirectory)), 'the pid to go');
  assert.deepEqual(readdirSync(lockDirectory).filter((name) => name.includes(victim)), []);
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
  const dead = () => `00000000-1-1-1-1-${newIdentity(1).split('-')[5]}`;
  const [victim, first, second] = [dead(), dead(), dead()];
  symlinkSync(victim, join(directory, 'lock'));
  symlinkSync(first, join(directory, `${victim}.b0`));
  symlinkSync(second, join(directory, `${victim}.b1`));
  const lock = await join_(t, directory);
  await lock.acquire(5000);
  assert.deepEqual(readdirSync(directory).sort(), [`${lock.identity}.s`, 'lock', 'protocol-1'].sort());
});

test('lock: a break right of a living process is respected', async (t) => {
  const directory = temporaryDirectory(t);
  const victim = '00000000-1-1-1-aa';
  const breaker = await join_(t, directory);
  symlinkSync(victim, join(directory, 'lock'));
  symlinkSync(breaker.identity, join(directory, `${victim}.b0`));
  const other = await join_(t, directory);
  await assert.rejects(other.acquire(200), { code: 'busy' });
  assert.equal(ownerOf(directory), victim);
  await breaker.acquire(5000);
  assert.equal(breaker.isHeld, true);
});

test('lock: a holder of whom nothing can be told is taken for alive', async (t) => {
  const directory = temporaryDirectory(t);
  const [boot, , , , place] = newIdentity(inodeOf(directory)).split('-');
  // Its beacon is gone, and its pid is of another namespace.
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
  const lock = await FileLock.join({ fs, directory, onWanted: () => undefined });
  t.after(() => lock.leave());
  await assert.rejects(lock.acquire(1000), { code: 'EROFS' });
  const none = { ...nodeFileSystem, open: (path: string, flags: 'r' | 'r+' | 'wx+') => {
    if (flags === 'wx+') throw Object.assign(new Error('read-only'), { code: 'EROFS' });
    return nodeFileSystem.open(path, flags);
  } };
  await assert.rejects(FileLock.join({ fs: none, directory: temporaryDirectory(t), onWanted: () => undefined }), { code: 'EROFS' });
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

test('lock: a lock that came with a copied directory is nobody\'s', async (t) => {
  const directory = temporaryDirectory(t);
  // A living process of this machine, which takes part in another directory; sockets are not copied.
  symlinkSync(newIdentity(inodeOf(directory) + 1), join(directory, 'lock'));
  const lock = await join_(t, directory);
  await lock.acquire(2_000);
  assert.equal(lock.isHeld, true);
});

test('lock: leaving waits for nobody who is connected and says nothing', async (t) => {
  const directory = temporaryDirectory(t);
  const lock = await join_(t, directory);
  const silent = connect({ path: `/proc/self/fd/${openSync(directory, 'r')}/${lock.identity}.s` });
  silent.on('error', () => undefined);
  await once(silent, 'connect');
  await lock.leave();
  assert.deepEqual(readdirSync(directory), ['protocol-1']);
});

test('lock: the beacon of a cluster\'s worker dies with the worker, not with its primary', async (t) => {
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
      const { FileLock } = await import(${JSON.stringify(new URL('lock.ts', lib).href)});
      const { nodeFileSystem } = await import(${JSON.stringify(new URL('file-system.ts', lib).href)});
      const lock = await FileLock.join({ fs: nodeFileSystem, directory: ${JSON.stringify(directory)}, onWanted: () => undefined });
      await lock.acquire(5000);
      process.send(lock.identity);
    }
  `);
  const primary = fork(script, { cwd: root, execArgv: [...loader] });
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

test('identity: a name tells that its process is gone, or does not tell, and fits into an inode', () => {
  const identity = newIdentity(5);
  assert.ok(newIdentity(2 ** 60).length < 60, identity);
  const [boot, namespace, pid, start, place, random] = identity.split('-');
  const name = (...parts: unknown[]) => parts.join('-');
  assert.equal(isGone(identity, 5), false);
  assert.equal(isGone(identity, 6), true);
  assert.equal(isGone(name('ffffffff', namespace, pid, start, place, random), 5), true);
  assert.equal(isGone(name(boot, namespace, pid, '1', place, random), 5), true);
  assert.equal(isGone(name(boot, namespace, '4194304', start, place, random), 5), true);
  // Another pid namespace: the number means nothing here.
  assert.equal(isGone(name(boot, '1', '4194304', start, place, random), 5), false);
  assert.equal(readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').slice(0, 8), boot);
});
