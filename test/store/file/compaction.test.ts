/** Compaction, and other processes that read the compacted file. */

import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import type { FileSystem } from '../../../lib/store/file/file-system.ts';
import type { StoredUser } from '../../../lib/user-store.ts';
import { temporaryDirectory, until } from '../../helper/temporary.ts';
import { newUser } from '../../helper/user-store-contract.ts';
import { allUsers, fill, names, openStore } from '../../helper/file-store.ts';

const at = '2026-11-23T08:00:00.000Z';

/** A file system that holds the first piece of a compaction back until it is released. */
function holding(): { fs: FileSystem; release: () => void } {
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  const write: FileSystem['write'] = async (...args) => {
    if (args[3] > 10_000 && args[4] < 1_000) await held;
    return nodeFileSystem.write(...args);
  };
  return { fs: { ...nodeFileSystem, write }, release: () => release() };
}

function linesOf(directory: string): any[] {
  return readFileSync(join(directory, 'users.jsonl'), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
}

test('compact: obsolete lines go, every user stays as it was, and no id is given again', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  const users = await fill(store, names(300));
  for (const user of users.slice(0, 100)) await store.remove(user, at);
  for (const user of users.slice(100, 200)) await store.replace(user, { kdf: 'k2', password: 'p2', changed: at });
  const last = users.at(-1)!;
  await store.remove(last, at);
  const [before, found] = [await allUsers(store), await store.findRecord('user150')];
  const { users: count, bytesBefore, bytesAfter } = await store.compact();
  assert.equal(count, 199);
  assert.ok(bytesAfter < bytesBefore / 2);
  assert.equal(statSync(join(directory, 'users.jsonl')).size, bytesAfter);
  assert.deepEqual(await allUsers(store), before);
  assert.deepEqual(await store.findRecord('user150'), found);
  assert.equal(await store.findRecord('user0'), undefined);
  const [header, ...lines] = linesOf(directory);
  assert.equal(header.nextId, last.id + 1);
  assert.deepEqual(lines.map(({ login }) => login), names(300).slice(100, 299));
  assert.equal((await store.create(newUser('user299'))).user.id, last.id + 1);
  // The same after opening it again; nothing is left beside it.
  await store.close();
  const again = await openStore(t, directory);
  assert.deepEqual((await allUsers(again)).slice(0, -1), before);
  assert.equal((await again.create(newUser('next'))).user.id, last.id + 2);
  assert.deepEqual(readdirSync(join(directory, 'users.jsonl.lock')).filter((name) => name.startsWith('.')), []);
});

test('compact: what is written while it goes on is in the new file, and who was removed stays removed', async (t) => {
  const directory = temporaryDirectory(t);
  let turns = 0;
  let meanwhile = async (): Promise<void> => undefined;
  // After each piece of the copy something is done to the store.
  const fs: FileSystem = {
    ...nodeFileSystem,
    write: async (...args) => {
      const written = await nodeFileSystem.write(...args);
      if (args[3] > 100_000) {
        turns++;
        await meanwhile();
      }
      return written;
    },
  };
  const store = await openStore(t, directory, { fs });
  const users = await fill(store, names(5_000));
  for (const user of users.slice(0, 10)) await store.remove(user, at);
  const expected = new Map((await allUsers(store)).map((json) => [JSON.parse(json).login as string, JSON.parse(json)]));
  const note = (user: StoredUser | undefined): void => {
    assert.ok(user !== undefined);
    const { id, login, registered, version, changed } = user;
    expected.set(login, changed === undefined ? { id, login, registered, version } : { id, login, registered, version, changed });
  };
  meanwhile = async () => {
    meanwhile = async () => undefined;
    // Some are copied already, some are not; some do several things.
    for (const n of [10, 11, 4_900, 4_901]) {
      await store.remove(users[n]!, at);
      expected.delete(`user${n}`);
    }
    for (const n of [20, 21, 4_910]) note(await store.replace(users[n]!, { kdf: 'k', password: 'p2', changed: at }));
    for (const n of [22, 4_911]) {
      const changed = await store.replace(users[n]!, { kdf: 'k', password: 'p2', changed: at });
      await store.remove(changed!, at);
      expected.delete(`user${n}`);
    }
    note((await store.create(newUser('user10'))).user);
    note((await store.create(newUser('new'))).user);
    const { user: brief } = await store.create(newUser('brief'));
    await store.remove(brief, at);
  };
  await store.compact();
  assert.ok(turns > 2);
  const sorted = [...expected.values()].sort((a, b) => a.id - b.id);
  assert.deepEqual((await allUsers(store)).map((json) => JSON.parse(json)), sorted);
  await store.close();
  const again = await openStore(t, directory);
  assert.deepEqual((await allUsers(again)).map((json) => JSON.parse(json)), sorted);
  assert.equal((await again.create(newUser('next'))).user.id, 5_004);
});

test('compact: it begins by itself when more is dead than alive, and not before', async (t) => {
  const directory = temporaryDirectory(t);
  const reports: string[] = [];
  const store = await openStore(t, directory, { report: (line) => reports.push(line) });
  const users = await fill(store, names(6_000));
  const size = (): number => statSync(join(directory, 'users.jsonl')).size;
  const change = async (some: readonly StoredUser[]): Promise<void> => {
    await Promise.all(some.map((user) => store.replace(user, { kdf: 'k', password: 'p'.repeat(97), changed: at })));
  };
  const once = size();
  await change(users.slice(0, 4_000));
  assert.deepEqual(reports, []);
  assert.ok(size() > 1.6 * once);
  await change(users.slice(4_000));
  await until(() => reports.length === 1, 'the report of compaction');
  assert.match(reports[0]!, /was compacted from \d+ to \d+ bytes/);
  assert.ok(size() < 1.4 * once);
  assert.equal((await allUsers(store)).length, 6_000);
});

test('compact: one process at a time; what a killed one has left is removed', async (t) => {
  const directory = temporaryDirectory(t);
  const { fs, release } = holding();
  const first = await openStore(t, directory, { fs });
  const second = await openStore(t, directory);
  await fill(second, names(100));
  const compacting = first.compact();
  await until(() => readdirSync(join(directory, 'users.jsonl.lock')).some((name) => name.startsWith('.compact-')), 'a file that is compacted into');
  await assert.rejects(second.compact(), (error: RegistrarError) => error.code === 'busy' && /compacting/.test(error.message));
  // Asked for twice in one process it is done once.
  assert.equal(first.compact(), compacting);
  release();
  await compacting;
  const stale = join(directory, 'users.jsonl.lock', '.compact-00000000-x-1-1-1-0000000000000000');
  writeFileSync(stale, 'half');
  await second.compact();
  const third = await openStore(t, directory);
  await third.create(newUser('after'));
  assert.equal(readdirSync(join(directory, 'users.jsonl.lock')).some((name) => name.startsWith('.compact-')), false);
});

test('compact: where it fails nothing is changed, nothing is left, and the store goes on', async (t) => {
  for (const [kind, code, expected] of [['write', 'ENOSPC', 'storage-full'], ['datasync', 'EIO', 'busy'], ['rename', 'EIO', 'busy'], ['open', 'EMFILE', 'busy']] as const) {
    const directory = temporaryDirectory(t);
    let isOn = false;
    const original = nodeFileSystem[kind] as (...args: unknown[]) => unknown;
    const fs = { ...nodeFileSystem, [kind]: (...args: unknown[]) => {
      if (isOn) throw Object.assign(new Error(`injected ${code}`), { code });
      return original(...args);
    } } as FileSystem;
    const store = await openStore(t, directory, { fs });
    const users = await fill(store, names(100));
    for (const user of users.slice(0, 50)) await store.remove(user, at);
    const before = readFileSync(join(directory, 'users.jsonl'));
    isOn = true;
    await assert.rejects(store.compact(), (error: RegistrarError) => ['storage-full', 'busy', 'unavailable'].includes(error.code), `${kind}: ${expected}`);
    isOn = false;
    assert.ok(readFileSync(join(directory, 'users.jsonl')).equals(before), kind);
    assert.deepEqual(readdirSync(join(directory, 'users.jsonl.lock')).filter((name) => name.startsWith('.')), [], kind);
    await store.create(newUser('after'));
    assert.equal((await store.compact()).users, 51, kind);
  }
});

test('compact: a rotten line is not carried over as if it were good', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  await fill(store, names(10));
  const path = join(directory, 'users.jsonl');
  const bytes = readFileSync(path);
  bytes[bytes.indexOf('user5') + 2]! ^= 1;
  writeFileSync(path, bytes);
  await assert.rejects(store.compact(), (error: RegistrarError) => error.code === 'corrupt' && /byte/.test(error.message));
  assert.ok(readFileSync(path).equals(bytes));
});

test('compact: closing gives it up and leaves nothing', async (t) => {
  const directory = temporaryDirectory(t);
  const { fs, release } = holding();
  const filler = await openStore(t, directory);
  await fill(filler, names(5_000));
  await filler.close();
  const store = await openStore(t, directory, { fs });
  const before = readFileSync(join(directory, 'users.jsonl'));
  const compacting = store.compact();
  await until(() => readdirSync(join(directory, 'users.jsonl.lock')).some((name) => name.startsWith('.compact-')), 'a file that is compacted into');
  const closed = store.close();
  release();
  await assert.rejects(compacting, /given up/);
  await closed;
  assert.ok(readFileSync(join(directory, 'users.jsonl')).equals(before));
  assert.deepEqual(readdirSync(join(directory, 'users.jsonl.lock')).filter((name) => name.startsWith('.')), []);
});
