/** The contract on a real cluster of three, and what a store in etcd has to do besides. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import type { ErrorCode } from '../../../lib/errors.ts';
import { EtcdUserStore } from '../../../lib/store/etcd/store.ts';
import type { EtcdUserStoreOptions } from '../../../lib/store/etcd/store.ts';
import { Cluster, newPrefix, withoutEtcd } from '../../helper/etcd-cluster.ts';
import { decoded, startGateway } from '../../helper/gateway.ts';
import type { Fate } from '../../helper/gateway.ts';
import { candidate, testUserStore } from '../../helper/user-store-contract.ts';

const skip = withoutEtcd;

let cluster: Cluster;
if (skip === false) {
  before(async () => (cluster = await Cluster.start()));
  after(() => cluster.stop());
}

async function open(t: TestContext, options: Partial<EtcdUserStoreOptions> = {}): Promise<EtcdUserStore> {
  // Patient, since the machine may be busy and time is not what these are about.
  const store = await EtcdUserStore.open({ endpoints: cluster.endpoints, prefix: newPrefix(), waitMsMax: 20_000, ...options });
  t.after(() => store.close());
  return store;
}

if (skip === false) testUserStore('etcd', open);
else test('etcd: the contract', { skip }, () => undefined);

const at = '2026-11-23T08:00:00.000Z';
const other = { kdf: 'pbkdf2:sha512:2', password: `${'2'.repeat(32)}$${'3'.repeat(128)}` };
const is = (code: ErrorCode) => (error: unknown) => error instanceof RegistrarError && error.code === code;

test('etcd: three services create the same logins at once, each login is given once, and no id twice', { skip }, async (t) => {
  const prefix = newPrefix();
  const stores = await Promise.all([1, 2, 3].map(() => open(t, { prefix })));
  const logins = Array.from({ length: 300 }, (_, n) => `user${n}`);
  const outcomes = await Promise.all(stores.map((store, n) => {
    const own = n === 1 ? logins.toReversed() : logins;
    return Promise.all(own.map((login) => store.create(candidate(login))));
  }));
  const created = outcomes.flat().filter((outcome) => outcome.created).map(({ user }) => user);
  assert.deepEqual(created.map(({ login }) => login).sort(), [...logins].sort());
  assert.equal(new Set(created.map(({ id }) => id)).size, 300);
  for (const { user } of outcomes.flat()) assert.deepEqual(user, created.find(({ login }) => login === user.login));
  // The index of ids and the records are the same users.
  const ids = [...(await cluster.read(`${prefix}id/`))].map(([key, login]) => [login, Number(key.slice(-16))]);
  assert.deepEqual(new Map(created.map(({ login, id }) => [login, id])), new Map(ids as [string, number][]));
});

test('etcd: of changes and removals that several services mean for one state, one happens', { skip }, async (t) => {
  const prefix = newPrefix();
  const stores = await Promise.all([1, 2, 3].map(() => open(t, { prefix })));
  for (let n = 0; n < 20; n++) {
    const { user } = await stores[0]!.create(candidate(`user${n}`));
    const outcomes = await Promise.all(stores.map((store, which) => (which === 2 ? store.remove(user, at) : store.replace(user, { ...other, changed: at }))));
    assert.equal(outcomes.filter((outcome) => outcome !== undefined && outcome !== false).length, 1);
    const left = await stores[1]!.find(user.login);
    assert.equal(left?.version, outcomes[2] === true ? undefined : 2);
  }
});

test('etcd: a hash made anew by two services is made anew by both, since the version stays', { skip }, async (t) => {
  const prefix = newPrefix();
  const [first, second] = await Promise.all([open(t, { prefix }), open(t, { prefix })]);
  const { user } = await first.create(candidate('alice'));
  const rehashed = await Promise.all([first.replace(user, other), second.replace(user, other)]);
  assert.deepEqual(rehashed, [{ ...user, ...other }, { ...user, ...other }]);
});

test('etcd: arrivals keep id, version and change, unless the id may have been given', { skip }, async (t) => {
  const store = await open(t);
  const { user } = await store.create(candidate('first'));
  assert.equal(user.id, 1);
  const outcomes = await store.createMany([
    { ...candidate('alice'), id: 1_000, version: 7, changed: at },
    { ...candidate('first'), id: 1_001 },
    { ...candidate('bob'), id: 1 },
    { ...candidate('carol') },
    { ...candidate('dora'), id: 1_000 },
    { ...candidate('alice'), id: 2_000 },
    { ...candidate('emil'), id: 1_500 },
  ]);
  assert.deepEqual(outcomes.map(({ created }) => created), [true, false, true, true, true, false, true]);
  const [alice, first, bob, carol, dora, again, emil] = outcomes.map((outcome) => outcome.user);
  assert.deepEqual(alice, { ...candidate('alice'), id: 1_000, version: 7, changed: at });
  assert.deepEqual([first, again], [user, alice]);
  assert.equal(emil?.id, 1_500);
  // Somebody's own block goes on, or what is above all that was kept.
  const ids = [bob!.id, carol!.id, dora!.id];
  assert.ok(new Set(ids).size === 3 && ids.every((id) => (id > 1 && id <= 16) || id > 2_000), String(ids));
  assert.deepEqual(await store.find('alice'), alice);
  assert.deepEqual(await store.createMany([]), []);
  const next = await store.createMany([{ ...candidate('frida'), id: 1_700 }]);
  assert.ok(next[0]!.user.id !== 1_700);
});

test('etcd: a failure ends createMany, when nothing of it is under way any more', { skip }, async (t) => {
  const gateway = await startGateway(t, cluster.members[0]!.url);
  const store = await open(t, { endpoints: [gateway.url] });
  gateway.fate = ({ path, body }) => (path === '/v3/kv/txn' && decoded(body).includes('user300') ? { status: 400, body: '{"error":"etcdserver: no","code":3}' } : 'pass');
  await assert.rejects(store.createMany(Array.from({ length: 2_000 }, (_, n) => candidate(`user${n}`))), is('unavailable'));
  const asked = gateway.asked.length;
  gateway.fate = () => 'pass';
  await store.find('user1');
  assert.equal(gateway.asked.length, asked + 1);
  await store.close();
});

test('etcd: records are whole users in the order of pages, and lead out of one store into another', { skip }, async (t) => {
  const store = await open(t);
  await store.createMany(Array.from({ length: 1_200 }, (_, n) => candidate(`user${n}`, n % 2 === 0 ? {} : { key: 'ab'.repeat(32) })));
  const { users: [user] } = await store.records(undefined);
  await store.replace(user!, { ...other, changed: at });
  const records = [];
  for (let after: string | undefined, more = true; more; ) {
    const piece = await store.records(after);
    assert.ok(piece.users.length > 0);
    records.push(...piece.users);
    after = piece.next;
    more = after !== undefined;
  }
  assert.equal(records.length, 1_200);
  assert.deepEqual(records.map(({ id }) => id), records.map(({ id }) => id).sort((a, b) => a - b));
  assert.deepEqual(records[0], { ...user, ...other, version: 2, changed: at });
  const target = await open(t);
  const outcomes = await target.createMany(records);
  assert.deepEqual(outcomes.map((outcome) => outcome.user), records);
  assert.deepEqual((await target.records(undefined)).users, records.slice(0, 500));
});

test('etcd: a page asks for as many ids as it needs, also among many, and finds its way over gaps', { skip }, async (t) => {
  const gateway = await startGateway(t, cluster.members[0]!.url);
  const store = await open(t, { endpoints: [gateway.url] });
  const logins = (page: { users: readonly Buffer[] }) => page.users.map((user) => JSON.parse(user.toString()).login);
  await store.createMany(Array.from({ length: 300 }, (_, n) => ({ ...candidate(`user${n}`), id: n + 1 })));
  gateway.asked.length = 0;
  const first = await store.page(undefined, 100);
  const second = await store.page(first.next, 100);
  assert.deepEqual(logins(second), Array.from({ length: 100 }, (_, n) => `user${n + 100}`));
  const windows = gateway.asked.map(({ body }) => /id\/(\d{16})","range_end":"[^"]*id\/(\d{16})/.exec(decoded(body))).filter((match) => match !== null);
  assert.equal(gateway.asked.length, 4);
  assert.deepEqual(windows.map(([, from, to]) => [Number(from), Number(to)]), [[1, 102], [101, 202]]);
  assert.doesNotMatch(gateway.asked.map(({ body }) => body).join(), /sort/);
  // Everybody between the first and the last is gone, and the next one is very far.
  for (let after: string | undefined, more = true; more; ) {
    const { users, next } = await store.records(after);
    await Promise.all(users.filter(({ id }) => id > 5 && id < 300).map((user) => store.remove(user, at)));
    after = next;
    more = after !== undefined;
  }
  await store.createMany([{ ...candidate('far'), id: 1_000_000_000_000 }, { ...candidate('farther'), id: 2 ** 47 }]);
  gateway.asked.length = 0;
  const sparse = await store.page(undefined, 6);
  assert.deepEqual(logins(sparse), ['user0', 'user1', 'user2', 'user3', 'user4', 'user299']);
  assert.deepEqual(logins(await store.page(sparse.next, 6)), ['far', 'farther']);
  assert.ok(gateway.asked.length < 60, `${gateway.asked.length} requests`);
  await store.close();
});

test('etcd: who was removed and is back between the look at the ids and that at the records is not there for the old id', { skip }, async (t) => {
  const gateway = await startGateway(t, cluster.members[0]!.url);
  const prefix = newPrefix();
  const store = await open(t, { endpoints: [gateway.url], prefix });
  const other = await open(t, { prefix });
  await store.createMany(['alice', 'bob', 'carol'].map((login) => candidate(login)));
  gateway.fate = async ({ body }): Promise<Fate> => {
    if (!decoded(body).includes('/user/')) return 'pass';
    gateway.fate = () => 'pass';
    for (const login of ['alice', 'bob']) await other.remove((await other.find(login))!, at);
    await other.create(candidate('bob'));
    return 'pass';
  };
  const { users } = await store.page(undefined, 10);
  assert.deepEqual(users.map((user) => JSON.parse(user.toString()).login), ['carol']);
  assert.deepEqual((await store.records(undefined)).users.map(({ login }) => login), ['carol', 'bob']);
  await store.close();
});

test('etcd: a login that is taken costs no id', { skip }, async (t) => {
  const store = await open(t);
  await store.create(candidate('alice'));
  for (let n = 0; n < 40; n++) assert.equal((await store.create(candidate('alice'))).created, false);
  const { user } = await store.create(candidate('bob'));
  assert.equal(user.id, 2);
});

test('etcd: users who register while a list is read are found once, and those removed are left out', { skip }, async (t) => {
  const store = await open(t);
  await store.createMany(Array.from({ length: 50 }, (_, n) => candidate(`user${n}`)));
  const first = await store.page(undefined, 20);
  const seen = first.users.map((user) => JSON.parse(user.toString()));
  const back = seen[3]!;
  assert.equal(await store.remove(back, at), true);
  assert.equal((await store.create(candidate(back.login))).created, true);
  assert.equal(await store.remove((await store.find('user30'))!, at), true);
  for (let after = first.next; after !== undefined; ) {
    const page = await store.page(after, 20);
    seen.push(...page.users.map((user) => JSON.parse(user.toString())));
    after = page.next;
  }
  assert.equal(new Set(seen.map(({ id }) => id)).size, seen.length);
  assert.deepEqual(new Set(seen.map(({ login }) => login)), new Set(Array.from({ length: 50 }, (_, n) => `user${n}`).filter((login) => login !== 'user30')));
});

test('etcd: the counter never gives an id that somebody has, though it was put back', { skip }, async (t) => {
  const prefix = newPrefix();
  const first = await open(t, { prefix });
  for (let n = 0; n < 20; n++) await first.create(candidate(`user${n}`));
  await cluster.put(`${prefix}next-id`, '1 put-back');
  const reports: string[] = [];
  const second = await open(t, { prefix, report: (line) => reports.push(line) });
  const { created, user } = await second.create(candidate('late'));
  assert.equal(created, true);
  assert.ok(user.id > 20, String(user.id));
  assert.match(reports.join(), /the id 1 was given before/);
});

test('etcd: every kdf that some user has is known to every service', { skip }, async (t) => {
  const prefix = newPrefix();
  const first = await open(t, { prefix });
  assert.deepEqual(await first.kdfs(), []);
  const { user } = await first.create(candidate('alice'));
  await first.replace(user, other);
  assert.deepEqual(await first.kdfs(), ['pbkdf2:sha256:1', 'pbkdf2:sha512:2']);
  const second = await open(t, { prefix });
  assert.deepEqual([...(await second.kdfs())].sort(), ['pbkdf2:sha256:1', 'pbkdf2:sha512:2']);
});

test('etcd: a record that cannot be read is corrupt, with its key, and so is a counter', { skip }, async (t) => {
  const prefix = newPrefix();
  const store = await open(t, { prefix });
  await store.create(candidate('alice'));
  await cluster.put(`${prefix}user/alice`, '{"id":1}');
  for (const ask of [() => store.find('alice'), () => store.view('alice'), () => store.page(undefined, 5), () => store.create(candidate('alice'))]) {
    await assert.rejects(async () => ask(), is('corrupt'));
  }
  await cluster.put(`${prefix}next-id`, 'x');
  await assert.rejects(store.page(undefined, 5), is('corrupt'));
});

test('etcd: a prefix that holds something else is not opened, nor one that is none', { skip }, async (t) => {
  const prefix = newPrefix();
  await cluster.put(`${prefix}format`, '{"format":"registrar-users","version":2}');
  await assert.rejects(open(t, { prefix }), is('cannot-start'));
  for (const bad of ['/users', '/us ers/', '/пользователи/']) await assert.rejects(open(t, { prefix: bad }), is('usage'));
});

test('etcd: what is asked for before the close is done, and of what is asked for after it nothing', { skip }, async (t) => {
  const prefix = newPrefix();
  const store = await open(t, { prefix });
  const creating = Array.from({ length: 100 }, (_, n) => store.create(candidate(`user${n}`)));
  await store.close();
  for (const outcome of await Promise.all(creating)) assert.equal(outcome.created, true);
  await assert.rejects(store.create(candidate('late')), is('unavailable'));
  await assert.rejects(store.find('user1'), is('unavailable'));
});

test('etcd: secrets are shared, the first one put wins, and only what is expected is replaced', { skip }, async (t) => {
  const prefix = newPrefix();
  const [first, second] = (await Promise.all([open(t, { prefix }), open(t, { prefix })])).map(({ secrets }) => secrets);
  assert.equal(await first!.get('key'), undefined);
  const both = await Promise.all([first!.putIfAbsent('key', 'one'), second!.putIfAbsent('key', 'two')]);
  assert.ok(both[0] === both[1] && ['one', 'two'].includes(both[0]!), String(both));
  assert.equal(await second!.get('key'), both[0]);
  assert.equal(await first!.replace('key', 'three', 'four'), false);
  assert.equal(await first!.replace('none', 'three', 'four'), false);
  assert.equal(await first!.replace('key', both[0]!, 'ключ\n'), true);
  assert.equal(await second!.get('key'), 'ключ\n');
});

test('etcd: a secret whose answer was lost is there once, and the winner is known', { skip }, async (t) => {
  const gateway = await startGateway(t, cluster.members[0]!.url);
  const { secrets } = await open(t, { endpoints: [gateway.url] });
  const loseOne = (): void => {
    gateway.fate = () => ((gateway.fate = () => 'pass'), 'lose');
  };
  loseOne();
  assert.equal(await secrets.putIfAbsent('key', 'one'), 'one');
  loseOne();
  assert.equal(await secrets.replace('key', 'one', 'two'), true);
  assert.equal(await secrets.get('key'), 'two');
});

test('etcd: what is read at once is read together, each as it is, and one that is corrupt is so for its reader only', { skip }, async (t) => {
  const gateway = await startGateway(t, cluster.members[0]!.url);
  const prefix = newPrefix();
  const store = await open(t, { endpoints: [gateway.url], prefix });
  const logins = Array.from({ length: 100 }, (_, n) => `user${n}`);
  const users = new Map((await store.createMany(logins.map((login) => candidate(login)))).map(({ user }) => [user.login, user]));
  await cluster.put(`${prefix}user/user7`, 'null');
  gateway.asked.length = 0;
  const asked = [...logins, 'nobody', 'user1', 'user1'];
  const found = await Promise.allSettled(asked.map((login) => store.find(login)));
  assert.ok(gateway.asked.length <= 3, `${gateway.asked.length} requests`);
  for (const [n, login] of asked.entries()) {
    const outcome = found[n]!;
    if (login === 'user7') assert.ok(outcome.status === 'rejected' && is('corrupt')(outcome.reason));
    else assert.deepEqual(outcome, { status: 'fulfilled', value: users.get(login) });
  }
  gateway.fate = () => ({ status: 403, body: '{"error":"etcdserver: permission denied","code":7}' });
  const refused = await Promise.allSettled(logins.map((login) => store.find(login)));
  assert.ok(refused.every((outcome) => outcome.status === 'rejected' && is('unavailable')(outcome.reason)));
  gateway.fate = () => 'pass';
  assert.equal((await store.find('user1'))?.login, 'user1');
  await store.close();
});
