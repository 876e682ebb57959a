import assert from 'node:assert/strict';
import { pbkdf2Sync } from 'node:crypto';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../lib/errors.ts';
import { Hasher } from '../lib/password/hasher.ts';
import { roundsOf } from '../lib/password/kdf.ts';
import type { Derivation } from '../lib/password/kdf.ts';
import { Registry } from '../lib/registry.ts';
import { MemoryUserStore } from '../lib/store/memory.ts';
import { until } from './helper/temporary.ts';

const policy = { codePointsMin: 8, codePointsMax: 256, common: new Set(['password']) };
const horse = 'correct horse';

function open(t: TestContext, iterations = 1) {
  const store = new MemoryUserStore();
  const hasher = new Hasher({ kdf: { digest: 'sha256', iterations }, workers: 1, waitMsMax: 60_000, queueMax: 100 });
  t.after(() => hasher.close());
  let hashes = 0;
  let meanwhile: (() => Promise<unknown>) | undefined;
  /** Counts, and lets something happen while a hash is made. */
  const counting = {
    hash: async (password: string, signal?: AbortSignal) => {
      hashes++;
      const credential = await hasher.hash(password, signal);
      const happen = meanwhile;
      meanwhile = undefined;
      await happen?.();
      return credential;
    },
    verify: async (...args: Parameters<Hasher['verify']>) => {
      hashes++;
      return hasher.verify(...args);
    },
    needsRehash: (credential: { kdf: string; password: string }) => hasher.needsRehash(credential),
  };
  const registry = new Registry({ store, hasher: counting, policy, now: () => new Date('2026-11-22T15:00:00Z') });
  return { store, registry, count: () => hashes, while: (happen: () => Promise<unknown>) => (meanwhile = happen) };
}

test('registry: a taken login costs no hash', async (t) => {
  const { registry, count } = open(t);
  await registry.register({ login: 'alice', password: horse });
  assert.equal(count(), 1);
  await assert.rejects(registry.register({ login: 'ALICE', password: 'another horse' }), { code: 'taken' });
  assert.equal(count(), 1);
});

test('registry: a login taken while its password is hashed is refused', async (t) => {
  const { registry, while: meanwhile } = open(t);
  meanwhile(() => registry.register({ login: 'alice', password: 'another horse' }));
  await assert.rejects(registry.register({ login: 'alice', password: horse }), { code: 'taken' });
  assert.equal((await registry.verify('alice', 'another horse'))?.id, 1);
});

test('registry: every rule that is broken is told at once', async (t) => {
  const { registry } = open(t);
  await assert.rejects(registry.register({ login: 'a:b', password: 'short' }), (error: any) => {
    assert.equal(error.code, 'invalid');
    assert.deepEqual(error.fields.map(({ pointer }: any) => pointer), ['#/login', '#/password']);
    return true;
  });
  const place = { parameter: 'login' };
  await assert.rejects(registry.register({ login: '', password: horse, loginPlace: place }), (error: any) => {
    assert.deepEqual(error.fields.map(({ parameter }: any) => parameter), ['login']);
    return true;
  });
});

test('registry: a repeat with the same key and password gets the first answer, with another password none', async (t) => {
  const { registry, while: meanwhile } = open(t);
  const first = await registry.register({ login: 'alice', password: horse, key: 'k1' });
  assert.deepEqual(await registry.register({ login: 'alice', password: horse, key: 'k1' }), first);
  await assert.rejects(registry.register({ login: 'alice', password: 'another horse', key: 'k1' }), { code: 'key-reused' });
  await assert.rejects(registry.register({ login: 'alice', password: horse, key: 'k2' }), { code: 'taken' });
  await assert.rejects(registry.register({ login: 'alice', password: horse }), { code: 'taken' });
  // Two at once: the one that comes second at the store is the first one's repeat.
  meanwhile(() => registry.register({ login: 'bob', password: horse, key: 'k3' }));
  assert.equal((await registry.register({ login: 'bob', password: horse, key: 'k3' })).id, 2);
  // After a change there is nothing left to compare with.
  await registry.changePassword('alice', { password: 'third horse' });
  await assert.rejects(registry.register({ login: 'alice', password: horse, key: 'k1' }), { code: 'taken' });
});

test('registry: a key is not kept as it is', async (t) => {
  const { registry, store } = open(t);
  await registry.register({ login: 'alice', password: horse, key: 'my-secret-key' });
  const user = await store.findRecord('alice');
  assert.match(user?.key ?? '', /^[0-9a-f]{64}$/);
  assert.ok(!JSON.stringify(user).includes('my-secret-key'));
});

test('registry: a change wants the current password only if it is given, and then the right one', async (t) => {
  const { registry } = open(t);
  await registry.register({ login: 'alice', password: horse });
  await assert.rejects(registry.changePassword('alice', { password: 'second horse', current: 'wrong horse' }), { code: 'wrong-password' });
  await assert.rejects(registry.changePassword('alice', { password: 'short', current: horse }), { code: 'invalid' });
  assert.equal((await registry.changePassword('alice', { password: 'second horse', current: horse })).version, 2);
  assert.equal((await registry.changePassword('alice', { password: 'third horse' })).version, 3);
  assert.equal(await registry.verify('alice', 'second horse'), undefined);
  assert.equal((await registry.verify('alice', 'third horse'))?.version, 3);
  await assert.rejects(registry.changePassword('bob', { password: 'third horse' }), { code: 'not-found' });
});

test('registry: of a password change that was verified before another one, the other one stays', async (t) => {
  const { registry, while: meanwhile } = open(t);
  await registry.register({ login: 'alice', password: horse });
  meanwhile(() => registry.changePassword('alice', { password: 'newer horse', current: horse }));
  await assert.rejects(registry.changePassword('alice', { password: 'older horse', current: horse }), { code: 'conflict' });
  assert.equal((await registry.verify('alice', 'newer horse'))?.version, 2);
  // With a precondition it is the precondition that is told.
  const strict = ({ version }: { version: number }): void => {
    if (version !== 2) throw new RegistrarError('precondition-failed', 'changed');
  };
  meanwhile(() => registry.changePassword('alice', { password: 'third horse' }));
  await assert.rejects(registry.changePassword('alice', { password: 'older horse' }, strict), { code: 'precondition-failed' });
});

test('registry: a rehash that lost to a change is dropped, and so is one that lost to a removal', async (t) => {
  const { registry, store, while: meanwhile } = open(t);
  const old = new Hasher({ kdf: { digest: 'sha512', iterations: 3 }, workers: 1, waitMsMax: 60_000, queueMax: 10 });
  t.after(() => old.close());
  const make = async (login: string) => (await store.create({ login, registered: 'r', ...(await old.hash(horse)) })).user;
  const alice = await make('alice');
  const { replace, remove } = store;
  let rehashes = 0;
  store.replace = async (expected, replacement) => {
    const outcome = await replace.call(store, expected, replacement);
    if (replacement.changed === undefined) rehashes++;
    return outcome;
  };
  meanwhile(() => registry.changePassword('alice', { password: 'newer horse' }));
  assert.equal((await registry.verify('alice', horse))?.id, alice.id);
  await until(() => rehashes === 1, 'the rehash');
  assert.equal(await registry.verify('alice', horse), undefined);
  assert.equal((await registry.verify('alice', 'newer horse'))?.version, 2);
  await make('bob');
  meanwhile(() => registry.remove('bob'));
  assert.equal((await registry.verify('bob', horse))?.login, 'bob');
  await until(() => rehashes === 2, 'the rehash');
  assert.equal(await store.findRecord('bob'), undefined);
  assert.equal(store.remove, remove);
});

test('registry: two changes and a rehash that race end with the later change, a hundred times', async (t) => {
  const { registry, store } = open(t);
  const old = new Hasher({ kdf: { digest: 'sha512', iterations: 3 }, workers: 1, waitMsMax: 60_000, queueMax: 10 });
  t.after(() => old.close());
  for (let n = 0; n < 100; n++) {
    const login = `user${n}`;
    await store.create({ login, registered: 'r', ...(await old.hash(horse)) });
    const change = (password: string) =>
      registry.changePassword(login, { password, current: horse }).then(() => password, (error: any) => error.code);
    const [first, second] = await Promise.all([change('first horse'), change('second horse'), registry.verify(login, horse)]);
    const won = [first, second].filter((outcome) => outcome.endsWith('horse'));
    assert.equal(won.length, 1, `${first}, ${second}`);
    assert.equal((await registry.verify(login, won[0]!))?.version, 2);
    assert.equal(await registry.verify(login, horse), undefined);
  }
});

test('registry: a good sign-in with an old hash makes it anew, with no new version', async (t) => {
  const { registry, store, count } = open(t);
  const old = new Hasher({ kdf: { digest: 'sha512', iterations: 3 }, workers: 1, waitMsMax: 60_000, queueMax: 10 });
  t.after(() => old.close());
  await store.create({ login: 'alice', registered: 'r', ...(await old.hash(horse)) });
  assert.equal(await registry.verify('alice', 'wrong horse'), undefined);
  assert.equal((await store.findRecord('alice'))?.kdf, 'pbkdf2:sha512:3');
  assert.equal((await registry.verify('Alice', horse))?.id, 1);
  await until(async () => (await store.findRecord('alice'))?.kdf === 'pbkdf2:sha256:1', 'the rehash');
  assert.equal((await store.findRecord('alice'))?.version, 1);
  const before = count();
  await registry.verify('alice', horse);
  assert.equal(count(), before + 1);
});

test('registry: a sign-in is good also where the new hash cannot be saved', async (t) => {
  const { registry, store } = open(t);
  const old = new Hasher({ kdf: { digest: 'sha512', iterations: 3 }, workers: 1, waitMsMax: 60_000, queueMax: 10 });
  t.after(() => old.close());
  await store.create({ login: 'alice', registered: 'r', ...(await old.hash(horse)) });
  let tried = 0;
  store.replace = async () => {
    tried++;
    throw new RegistrarError('storage-full', 'full');
  };
  assert.equal((await registry.verify('alice', horse))?.login, 'alice');
  await until(() => tried === 1, 'the rehash');
});

test('registry: an unknown login costs a hash too, and an impossible password is just wrong', async (t) => {
  const { registry, count } = open(t);
  assert.equal(await registry.verify('nobody', horse), undefined);
  assert.equal(await registry.verify('not a login', horse), undefined);
  assert.equal(count(), 2);
  await registry.register({ login: 'alice', password: horse });
  assert.equal(await registry.verify('alice', '\ud800'), undefined);
  // Not a hash less for it: time would tell that there is an Alice.
  assert.equal(count(), 4);
});

test('registry: a disabled or invited user does not sign in, after the work of every failure', async (t) => {
  const done: (readonly Derivation[])[] = [];
  const kdf = { digest: 'sha256', iterations: 30 } as const;
  const hasher = new Hasher({ kdf, workers: 1, waitMsMax: 60_000, queueMax: 100, onHash: (_, calls) => done.push(calls) });
  t.after(() => hasher.close());
  const store = new MemoryUserStore();
  const registry = new Registry({ store, hasher, policy, now: () => new Date('2026-11-22T15:00:00Z') });
  const registered = '2026-11-22T15:00:00.000Z';
  await store.createMany([
    { login: 'alice', registered, disabled: registered, ...(await hasher.hash(horse)) }, { login: 'bob', registered, kdf: 'none', password: '' },
    { login: 'carol', registered, kdf: 'pbkdf2:sha256:30', password: `salt$${pbkdf2Sync('', 'salt', 30, 32, 'sha256').toString('hex')}` },
  ]);
  done.length = 0;
  for (const [login, password] of [['alice', horse], ['bob', ''], ['bob', horse], ['carol', ''], ['nobody', horse]]) {
    if (login === 'alice') await assert.rejects(registry.verify(login, password!), { code: 'disabled' });
    else assert.equal(await registry.verify(login!, password!), undefined, login);
    // The right password of a disabled account needs no work of a failure: its response tells that it is right.
    assert.deepEqual(done.splice(0).map((calls) => calls.map(roundsOf)), [login === 'alice' ? [30] : [30, 1]], login);
  }
});

test('registry: reserved logins are registered by the administrator only', async (t) => {
  const { registry } = open(t);
  await assert.rejects(registry.register({ login: 'Post.Master', password: horse }), /The login "post.master" is reserved/);
  assert.equal((await registry.register({ login: 'postmaster', password: horse, isReservedAllowed: true })).login, 'postmaster');
});

test('registry: an unknown login and a wrong password are the same work, to the hasher and to the store', async (t) => {
  const done: string[] = [];
  const kdf = { digest: 'sha256', iterations: 30 } as const;
  const onHash = (_: number, calls: readonly Derivation[]): void =>
    void done.push(calls.map(({ digest }) => digest).sort().join(' '), `${calls.reduce((sum, call) => sum + roundsOf(call), 0)}`);
  const hasher = new Hasher({ kdf, workers: 1, waitMsMax: 60_000, queueMax: 100, onHash });
  const old = new Hasher({ kdf: { digest: 'sha512', iterations: 10 }, workers: 1, waitMsMax: 60_000, queueMax: 100 });
  t.after(() => Promise.all([hasher.close(), old.close()]));
  const store = new MemoryUserStore();
  const registry = new Registry({ store, hasher, policy, now: () => new Date('2026-11-22T15:00:00Z') });
  await registry.register({ login: 'alice', password: horse });
  await store.create({ login: 'bob', registered: 'r', ...(await old.hash(horse)) });
  let hits = 0;
  let looks = 0;
  const find = store.findRecord.bind(store);
  store.findRecord = async (login) => {
    const user = await find(login);
    looks++;
    if (user !== undefined) hits++;
    return user;
  };
  done.length = 0;
  for (const [login, password] of [['alice', 'wrong horse'], ['bob', 'wrong horse'], ['nobody', horse], ['bob', '\ud800'], ['nobody', '\ud800']]) {
    assert.equal(await registry.verify(login!, password!), undefined);
    assert.deepEqual(done.splice(0), ['sha256 sha256 sha512 sha512', '42'], login);
    assert.deepEqual([looks, hits], [2, 1], login);
    looks = hits = 0;
  }
});

test('registry: a removal means the user as it is, unless it has a precondition', async (t) => {
  const { registry, store } = open(t);
  await registry.register({ login: 'alice', password: horse });
  const remove = store.remove.bind(store);
  let tries = 0;
  store.remove = async (expected, at) => {
    if (tries++ === 0) await registry.changePassword('alice', { password: 'newer horse' });
    return remove(expected, at);
  };
  const strict = () => {
    if (tries > 0) throw new Error('precondition');
  };
  await assert.rejects(registry.remove('alice', strict), /precondition/);
  tries = 0;
  await registry.remove('alice');
  await assert.rejects(registry.getRecord('alice'), { code: 'not-found' });
  store.remove = async () => false;
  await registry.register({ login: 'bob', password: horse });
  await assert.rejects(registry.remove('bob'), { code: 'conflict' });
});
