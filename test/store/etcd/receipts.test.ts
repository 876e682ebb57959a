/** Answers that are lost, requests that are late, and what others do meanwhile: on a real member behind a bad network. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import { EtcdUserStore } from '../../../lib/store/etcd/store.ts';
import { Cluster, newPrefix, withoutEtcd } from '../../helper/etcd-cluster.ts';
import { decoded, isWrite, startGateway } from '../../helper/gateway.ts';
import type { Fate, Gateway } from '../../helper/gateway.ts';
import { until } from '../../helper/temporary.ts';
import { candidate } from '../../helper/user-store-contract.ts';

const skip = withoutEtcd;
let cluster: Cluster;
if (skip === false) {
  before(async () => (cluster = await Cluster.start({ members: 1 })));
  after(() => cluster.stop());
}

const at = '2026-11-23T08:00:00.000Z';
const changed = { kdf: 'pbkdf2:sha512:2', password: `${'2'.repeat(32)}$${'3'.repeat(128)}`, changed: at };

interface Pair {
  readonly gateway: Gateway;
  /** Behind the gateway. */
  readonly store: EtcdUserStore;
  /** Has a network of its own, which is sound. */
  readonly other: EtcdUserStore;
  readonly prefix: string;
}

async function open(t: TestContext): Promise<Pair> {
  const gateway = await startGateway(t, cluster.members[0]!.url);
  const prefix = newPrefix();
  const store = await EtcdUserStore.open({ endpoints: [gateway.url], prefix });
  const other = await EtcdUserStore.open({ endpoints: cluster.endpoints, prefix });
  t.after(async () => {
    gateway.fate = () => 'pass';
    await Promise.all([store.close(), other.close()]);
  });
  return { gateway, store, other, prefix };
}

/** The fates of the writes to come, one each, with something to do once that has happened; then all pass. */
function meet(gateway: Gateway, ...fates: (Fate | [Fate, () => Promise<unknown>])[]): void {
  let ahead: (() => Promise<unknown>) | undefined;
  gateway.fate = async (asked) => {
    if (!isWrite(asked)) return 'pass';
    await ahead?.();
    const next = fates.shift() ?? 'pass';
    ahead = Array.isArray(next) ? next[1] : undefined;
    return Array.isArray(next) ? next[0] : next;
  };
}

const isUnknown = (error: unknown): boolean => error instanceof RegistrarError && error.code === 'outcome-unknown';

test('a write whose answer is lost is known to have been done, and is done once', { skip }, async (t) => {
  const { gateway, store, other, prefix } = await open(t);
  meet(gateway, 'lose');
  const created = await store.create(candidate('alice'));
  assert.equal(created.created, true);
  assert.deepEqual(await other.find('alice'), created.user);
  meet(gateway, 'lose', 'lose');
  const replaced = await store.replace(created.user, changed);
  assert.equal(replaced?.version, 2);
  assert.deepEqual(await other.find('alice'), replaced);
  meet(gateway, 'lose', 'hold');
  assert.equal(await store.remove(replaced, at), true);
  assert.equal(await other.find('alice'), undefined);
  assert.deepEqual([...(await cluster.read(`${prefix}user/`))], []);
  assert.deepEqual([...(await cluster.read(`${prefix}id/`))], []);
});

test('a write that never arrived is sent again', { skip }, async (t) => {
  const { gateway, store, other } = await open(t);
  meet(gateway, 'hold');
  const { user } = await store.create(candidate('alice'));
  meet(gateway, 'hold', 'hold');
  assert.equal((await store.replace(user, changed))?.version, 2);
  assert.equal((await other.find('alice'))?.version, 2);
});

test('a create whose answer is lost is done, though somebody has changed the user since', { skip }, async (t) => {
  const { gateway, store, other } = await open(t);
  meet(gateway, ['lose', async () => assert.equal((await other.replace((await other.find('alice'))!, changed))?.version, 2)]);
  const { created, user } = await store.create(candidate('alice'));
  assert.deepEqual([created, user.version, (await other.find('alice'))?.version], [true, 1, 2]);
});

test('a change or removal whose answer is lost is done, whatever others have done since', { skip }, async (t) => {
  const { gateway, store, other } = await open(t);
  const { user } = await store.create(candidate('alice'));
  meet(gateway, ['lose', async () => {
    const current = (await other.find('alice'))!;
    assert.equal(current.version, 2);
    assert.equal(await other.remove(current, at), true);
    assert.equal((await other.create(candidate('alice'))).created, true);
  }]);
  assert.equal((await store.replace(user, changed))?.version, 2);
  const again = (await other.find('alice'))!;
  assert.ok(again.id > user.id);
  meet(gateway, ['lose', () => other.create(candidate('alice'))]);
  assert.equal(await store.remove(again, at), true);
  assert.ok((await other.find('alice'))!.id > again.id);
});

test('of a create that may have been undone by others nothing false is said', { skip }, async (t) => {
  const { gateway, store, other } = await open(t);
  meet(gateway, ['lose', async () => other.remove((await other.find('alice'))!, at)]);
  await assert.rejects(store.create(candidate('alice')), isUnknown);
  assert.equal(await other.find('alice'), undefined);
  meet(gateway, ['lose', async () => {
    await other.remove((await other.find('bob'))!, at);
    await other.create(candidate('bob'));
  }]);
  await assert.rejects(store.create(candidate('bob')), isUnknown);
});

test('a login that was somebody else\'s before is taken, also if the answer that says so is lost', { skip }, async (t) => {
  const { gateway, store, other } = await open(t);
  const { user } = await other.create(candidate('alice'));
  meet(gateway, 'lose');
  assert.deepEqual(await store.create(candidate('alice')), { created: false, user });
  // What was never sent is decided by the repeat, which somebody else was ahead of.
  meet(gateway, ['hold', () => other.create(candidate('bob'))]);
  const bob = await store.create(candidate('bob'));
  assert.deepEqual([bob.created, bob.user], [false, await other.find('bob')]);
});

test('what arrives after its answer was given changes nothing', { skip }, async (t) => {
  const { gateway, store, other, prefix } = await open(t);
  // The create was held back, and the repeat made the user, who was removed.
  meet(gateway, 'hold');
  const { user: alice } = await store.create(candidate('alice'));
  assert.equal(await other.remove(alice, at), true);
  // The create was held back, and the repeat found the login taken by somebody who is removed.
  meet(gateway, ['hold', () => other.create(candidate('bob'))]);
  assert.equal((await store.create(candidate('bob'))).created, false);
  assert.equal(await other.remove((await other.find('bob'))!, at), true);
  const { user: carol } = await other.create(candidate('carol'));
  // A removal that was held back and lost: it comes when the same state might be there again.
  meet(gateway, ['hold', () => other.replace(carol, changed)]);
  assert.equal(await store.remove(carol, at), false);
  const late = await gateway.release();
  assert.equal(late.length, 3);
  for (const answer of late) assert.doesNotMatch(answer, /"succeeded":true/);
  assert.deepEqual([...(await cluster.read(`${prefix}user/`)).keys()], [`${prefix}user/carol`]);
  assert.deepEqual([...(await cluster.read(`${prefix}id/`)).values()], ['carol']);
});

test('a write that has no answer until its deadline is of unknown outcome, and its receipt is not used again', { skip }, async (t) => {
  const { gateway, store, other } = await open(t);
  gateway.fate = (asked) => (isWrite(asked) ? 'lose' : 'pass');
  await assert.rejects(store.create(candidate('alice')), isUnknown);
  // It was done, and whoever looks sees it.
  assert.equal((await store.find('alice'))?.login, 'alice');
  gateway.fate = (asked) => (isWrite(asked) ? 'hold' : 'pass');
  await assert.rejects(store.create(candidate('bob')), isUnknown);
  const before = gateway.asked.length;
  gateway.fate = () => 'pass';
  assert.equal((await store.create(candidate('carol'))).created, true);
  const receipts = gateway.asked.slice(0, before).filter(isWrite).map(({ body }) => /\/receipt\/[^"]+/.exec(decoded(body))?.[0]);
  const later = gateway.asked.slice(before).filter(isWrite).map(({ body }) => /\/receipt\/[^"]+/.exec(decoded(body))?.[0]);
  assert.equal(later.length, 1);
  assert.ok(!receipts.includes(later[0]));
  // It arrives at last: of all its sendings one makes bob, and with an id that is nobody else's.
  await gateway.release();
  const users = (await other.records(undefined)).users;
  assert.deepEqual(users.map(({ login }) => login).sort(), ['alice', 'bob', 'carol']);
  assert.equal(new Set(users.map(({ id }) => id)).size, 3);
});

test('a counter whose answer is lost gives its ids all the same, and wastes none', { skip }, async (t) => {
  const { gateway, store } = await open(t);
  let lost = 0;
  gateway.fate = ({ path, body }) => (path === '/v3/kv/txn' && decoded(body).includes('/next-id"') && lost++ < 2 ? 'lose' : 'pass');
  const { user } = await store.create(candidate('alice'));
  assert.deepEqual([user.id, lost], [1, 3]);
  assert.equal((await store.create(candidate('bob'))).user.id, 2);
});

test('who has more time than the one who first asked for ids is not refused with them', { skip }, async (t) => {
  const { gateway, store } = await open(t);
  let isCut = true;
  gateway.fate = ({ body }) => (isCut && decoded(body).includes('/next-id"') ? 'hang' : 'pass');
  const first = store.create(candidate('alice'));
  const refused = assert.rejects(first, (error) => error instanceof RegistrarError && error.code === 'unavailable');
  await until(() => gateway.asked.filter(({ body }) => decoded(body).includes('/next-id"')).length >= 2, 'a second try');
  const second = store.create(candidate('bob'));
  await refused;
  isCut = false;
  assert.equal((await second).created, true);
});

test('receipts that somebody removed are made anew, and what is in doubt then is unknown', { skip }, async (t) => {
  const { gateway, store, prefix } = await open(t);
  const { user } = await store.create(candidate('alice'));
  const clear = async (): Promise<void> => {
    const key = Buffer.from(`${prefix}receipt/`).toString('base64');
    await cluster.ask('/v3/kv/deleterange', { key, range_end: Buffer.from(`${prefix}receipt0`).toString('base64') });
  };
  await clear();
  assert.equal((await store.replace(user, changed))?.version, 2);
  meet(gateway, ['lose', clear]);
  await assert.rejects(store.remove({ ...user, version: 2 }, at), isUnknown);
});

test('a store removes its receipts when it closes, and those that others left a day ago', { skip }, async () => {
  const prefix = newPrefix();
  const first = await EtcdUserStore.open({ endpoints: cluster.endpoints, prefix });
  await first.create(candidate('alice'));
  assert.equal((await cluster.read(`${prefix}receipt/`)).size, 1);
  await first.close();
  assert.equal((await cluster.read(`${prefix}receipt/`)).size, 0);
  await cluster.put(`${prefix}receipt/old/0`, '3 2026-11-21T07:00:00.000Z');
  await cluster.put(`${prefix}receipt/new/0`, '3 2026-11-22T07:00:00.000Z');
  await cluster.put(`${prefix}receipt/odd/0`, '?');
  const store = await EtcdUserStore.open({ endpoints: cluster.endpoints, prefix, now: () => new Date('2026-11-22T08:00:00.000Z') });
  for (let n = 0; (await cluster.read(`${prefix}receipt/`)).size === 3; n++) assert.ok(n < 1_000);
  assert.deepEqual([...(await cluster.read(`${prefix}receipt/`)).keys()], [`${prefix}receipt/new/0`, `${prefix}receipt/odd/0`]);
  await store.close();
});
