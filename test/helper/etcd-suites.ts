/** What a store in etcd must do besides the contract: on the fake member in the fast tests, and on a cluster as trials. */

import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../lib/errors.ts';
import type { ErrorCode } from '../../lib/errors.ts';
import { EtcdUserStore } from '../../lib/store/etcd/etcd-user-store.ts';
import type { EtcdUserStoreOptions } from '../../lib/store/etcd/etcd-user-store.ts';
import type { UserPage } from '../../lib/user-store.ts';
import { isUserWrite, readable, startFaultProxy } from './fault-proxy.ts';
import type { Fault, FaultProxy } from './fault-proxy.ts';
import { until } from './temporary.ts';
import { newUser } from './user-store-contract.ts';

/** A cluster, or the fake of one. */
export interface EtcdServer {
  readonly endpoints: readonly string[];
  /** Values by key, of all keys with the prefix. */
  read(prefix: string): Promise<Map<string, string>>;
  put(key: string, value: string): Promise<void>;
  removeAll(prefix: string): Promise<void>;
}

export type Register = (name: string, run: (t: TestContext) => Promise<void>) => unknown;

let prefixes = 0;

/** A prefix of its own, for a store that shares its cluster with others. */
export function newPrefix(): string {
  return `/test-${++prefixes}/`;
}

/** With time enough for a busy machine. */
export async function openStore(t: TestContext, server: EtcdServer, options: Partial<EtcdUserStoreOptions> = {}): Promise<EtcdUserStore> {
  const store = await EtcdUserStore.open({ endpoints: server.endpoints, prefix: newPrefix(), waitMsMax: 20_000, ...options });
  t.after(() => store.close());
  return store;
}

export const isError = (code: ErrorCode, message = /./) => (error: unknown): boolean =>
  error instanceof RegistrarError && error.code === code && message.test(error.message);

const at = '2026-11-23T08:00:00.000Z';
const other = { kdf: 'pbkdf2:sha512:2', password: `${'2'.repeat(32)}$${'3'.repeat(128)}` };
const rejected = { status: 400, body: '{"error":"etcdserver: no","code":3}' };

export function testEtcdStore(name: string, serverOf: () => EtcdServer, register: Register): void {
  const loginsOf = ({ users }: UserPage): string[] => users.map((user) => JSON.parse(user.toString()).login);
  const open = (t: TestContext, options?: Partial<EtcdUserStoreOptions>): Promise<EtcdUserStore> => openStore(t, serverOf(), options);
  const three = async (t: TestContext, prefix = newPrefix()): Promise<EtcdUserStore[]> => Promise.all([1, 2, 3].map(() => open(t, { prefix })));

  register(`${name}: three stores create the same logins concurrently: each login once, no id twice`, async (t) => {
    const prefix = newPrefix();
    const stores = await three(t, prefix);
    const logins = Array.from({ length: 100 }, (_, n) => `user${n}`);
    const outcomes = await Promise.all(stores.map((store, n) => {
      const own = n === 1 ? logins.toReversed() : logins;
      return n === 2 ? store.createMany(own.map((login) => newUser(login))) : Promise.all(own.map((login) => store.create(newUser(login))));
    }));
    const created = outcomes.flat().filter((outcome) => outcome.created).map(({ user }) => user);
    assert.deepEqual(created.map(({ login }) => login).sort(), [...logins].sort());
    assert.equal(new Set(created.map(({ id }) => id)).size, 100);
    for (const { user } of outcomes.flat()) assert.deepEqual(user, created.find(({ login }) => login === user.login));
    const ids = [...(await serverOf().read(`${prefix}id/`))].map(([key, login]) => [login, Number(key.slice(-16))] as const);
    assert.deepEqual(new Map(created.map(({ login, id }) => [login, id])), new Map(ids));
  });

  register(`${name}: of concurrent changes and removals of one state one is done`, async (t) => {
    const stores = await three(t);
    for (let n = 0; n < 20; n++) {
      const { user } = await stores[0]!.create(newUser(`user${n}`));
      const outcomes = await Promise.all(stores.map((store, which) => (which === 2 ? store.remove(user, at) : store.replace(user, { ...other, changed: at }))));
      assert.equal(outcomes.filter((outcome) => outcome !== undefined && outcome !== false).length, 1);
      const left = await stores[1]!.findRecord(user.login);
      assert.equal(left?.version, outcomes[2] === true ? undefined : 2);
    }
  });

  register(`${name}: two stores may rehash the same user, since the version stays`, async (t) => {
    const [first, second] = await three(t);
    const { user } = await first!.create(newUser('alice'));
    const rehashed = await Promise.all([first!.replace(user, other), second!.replace(user, other)]);
    assert.deepEqual(rehashed, [{ ...user, ...other }, { ...user, ...other }]);
  });

  register(`${name}: createMany keeps ids that were never assigned, and assigns new ones above them`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(newUser('first'));
    const outcomes = await store.createMany([
      { ...newUser('alice'), id: 1_000, version: 7, changed: at },
      { ...newUser('first'), id: 1_001 },
      { ...newUser('bob'), id: 1 },
      { ...newUser('carol') },
      { ...newUser('dora'), id: 1_000 },
      { ...newUser('alice'), id: 2_000 },
      { ...newUser('emil'), id: 1_500 },
    ]);
    assert.deepEqual(outcomes.map(({ created }) => created), [true, false, true, true, true, false, true]);
    const [alice, first, bob, carol, dora, again, emil] = outcomes.map((outcome) => outcome.user);
    assert.deepEqual(alice, { ...newUser('alice'), id: 1_000, version: 7, changed: at });
    assert.deepEqual([first, again, emil?.id], [user, alice, 1_500]);
    assert.deepEqual([bob?.id, carol?.id, dora?.id], [2_001, 2_002, 2_003]);
    const next = await store.createMany([{ ...newUser('frida'), id: 1_700 }, { ...newUser('gerd'), id: 3_000 }]);
    assert.deepEqual(next.map((outcome) => outcome.user.id), [3_001, 3_000]);
  });

  register(`${name}: createMany puts 62 users in a transaction, and those whose login is free in the next one`, async (t) => {
    const proxy = await startFaultProxy(serverOf().endpoints[0]!);
    const store = await open(t, { endpoints: [proxy.url] });
    await store.create(newUser('user7'));
    await store.create(newUser('user70'));
    proxy.requests.length = 0;
    const outcomes = await store.createMany(Array.from({ length: 124 }, (_, n) => newUser(`user${n}`)));
    assert.deepEqual(outcomes.flatMap(({ created }, n) => (created ? [] : [n])), [7, 70]);
    // The counter is read and raised, and both transactions are repeated without the user who exists.
    assert.equal(proxy.requests.length, 6);
    assert.equal((await store.recordPage(undefined)).users.length, 124);
  });

  register(`${name}: a rejected transaction ends createMany, and no other is under way`, async (t) => {
    const proxy = await startFaultProxy(serverOf().endpoints[0]!);
    const store = await open(t, { endpoints: [proxy.url] });
    proxy.fault = ({ body }) => (readable(body).includes('user300') ? rejected : 'none');
    await assert.rejects(store.createMany(Array.from({ length: 600 }, (_, n) => newUser(`user${n}`))), isError('unavailable'));
    const requests = proxy.requests.length;
    proxy.fault = () => 'none';
    assert.equal((await store.findRecord('user1'))?.login, 'user1');
    assert.equal(proxy.requests.length, requests + 1);
  });

  register(`${name}: records of one store can be created in another as they are, unknown fields left out`, async (t) => {
    const [prefix, store] = [newPrefix(), await open(t)];
    await store.createMany(Array.from({ length: 700 }, (_, n) => newUser(`user${n}`, n % 2 === 0 ? {} : { key: 'ab'.repeat(32) })));
    const { users: [user], next } = await store.recordPage(undefined);
    await store.replace(user!, { ...other, changed: at });
    const records = [...(await store.recordPage(undefined)).users, ...(await store.recordPage(next)).users];
    assert.deepEqual(records.map(({ id }) => id), Array.from({ length: 700 }, (_, n) => user!.id + n));
    const target = await open(t, { prefix });
    assert.deepEqual((await target.createMany(records)).map((outcome) => outcome.user), records);
    assert.deepEqual((await target.recordPage(undefined)).users, records.slice(0, 500));
  });

  register(`${name}: every write keeps the unknown fields of a record, and none is public`, async (t) => {
    const prefix = newPrefix();
    const store = await open(t, { prefix });
    const { user } = await store.create(newUser('alice'));
    const key = `${prefix}user/alice`;
    const value = (await serverOf().read(key)).get(key)!;
    await serverOf().put(key, value.replace(/}$/, ',"email":{"address":"a@example"},"groups":[1,"two"]}'));
    const unknownFields = { email: { address: 'a@example' }, groups: [1, 'two'] };
    assert.deepEqual(await store.findRecord('alice'), { ...user, unknownFields });
    await store.replace(user, { ...other, changed: at });
    const changed = await store.replace({ ...user, version: 2 }, { ...other, disabled: at });
    assert.deepEqual(changed?.unknownFields, unknownFields);
    assert.match((await serverOf().read(key)).get(key)!, /,"email":\{"address":"a@example"\},"groups":\[1,"two"\]\}$/);
    const json = `{"id":1,"login":"alice","registered":"${user.registered}","version":3,"changed":"${at}","disabled":"${at}"}`;
    assert.equal((await store.findPublic('alice'))?.json, json);
    assert.equal((await store.ndjsonPage(undefined)).bytes.toString(), `${json}\n`);
  });

  register(`${name}: a page reads a window of as many ids as it needs, and finds the next ids over gaps`, async (t) => {
    const proxy = await startFaultProxy(serverOf().endpoints[0]!);
    const store = await open(t, { endpoints: [proxy.url] });
    await store.createMany(Array.from({ length: 300 }, (_, n) => ({ ...newUser(`user${n}`), id: n + 1 })));
    proxy.requests.length = 0;
    const first = await store.page(undefined, 100);
    const second = await store.page(first.next, 100);
    assert.deepEqual(loginsOf(second), Array.from({ length: 100 }, (_, n) => `user${n + 100}`));
    const windows = proxy.requests.map(({ body }) => /id\/(\d{16})","range_end":"[^"]*id\/(\d{16})/.exec(readable(body))).filter((match) => match !== null);
    assert.equal(proxy.requests.length, 4);
    assert.deepEqual(windows.map(([, from, to]) => [Number(from), Number(to)]), [[1, 102], [101, 202]]);
    const sparse = await open(t, { endpoints: [proxy.url] });
    await sparse.createMany([1, 2, 3, 4, 5, 300, 1_000_000_000_000, 2 ** 47].map((id) => ({ ...newUser(`user${id}`), id })));
    proxy.requests.length = 0;
    const page = await sparse.page(undefined, 6);
    assert.deepEqual(loginsOf(page), ['user1', 'user2', 'user3', 'user4', 'user5', 'user300']);
    assert.deepEqual(loginsOf(await sparse.page(page.next, 6)), ['user1000000000000', `user${2 ** 47}`]);
    assert.ok(proxy.requests.length < 60, `${proxy.requests.length} requests`);
  });

  register(`${name}: a user who registers again between the reads of a list is not listed under the old id`, async (t) => {
    const proxy = await startFaultProxy(serverOf().endpoints[0]!);
    const prefix = newPrefix();
    const store = await open(t, { endpoints: [proxy.url], prefix });
    const second = await open(t, { prefix });
    await store.createMany(['alice', 'bob', 'carol'].map((login) => newUser(login)));
    proxy.fault = async ({ body }): Promise<Fault> => {
      if (!readable(body).includes('/user/')) return 'none';
      proxy.fault = () => 'none';
      for (const login of ['alice', 'bob']) await second.remove((await second.findRecord(login))!, at);
      await second.create(newUser('bob'));
      return 'none';
    };
    assert.deepEqual(loginsOf(await store.page(undefined, 10)), ['carol']);
    assert.deepEqual((await store.recordPage(undefined)).users.map(({ login }) => login), ['carol', 'bob']);
  });

  register(`${name}: blocks of ids double under load, so that few creates wait for the counter`, async (t) => {
    const proxy = await startFaultProxy(serverOf().endpoints[0]!);
    const store = await open(t, { endpoints: [proxy.url] });
    await Promise.all(Array.from({ length: 200 }, (_, n) => store.create(newUser(`user${n}`))));
    const raises = proxy.requests.filter(({ body }) => /"compare":\[\{"key":"[^"]*\/next-id"/.test(readable(body)));
    assert.ok(raises.length <= 5, `${raises.length} raises of the counter`);
  });

  register(`${name}: an id counter that was set too low is reported, and no id is assigned twice`, async (t) => {
    const prefix = newPrefix();
    const first = await open(t, { prefix });
    for (let n = 0; n < 20; n++) await first.create(newUser(`user${n}`));
    await serverOf().put(`${prefix}next-id`, '1 by-hand');
    const second = await open(t, { prefix });
    await assert.rejects(second.create(newUser('late')), isError('corrupt', /next-id" in etcd is too low.*etcdctl put/));
    await serverOf().put(`${prefix}next-id`, '900 by-hand');
    assert.equal((await (await open(t, { prefix })).create(newUser('late'))).user.id, 900);
  });

  register(`${name}: the costliest kdf of each algorithm is known to every store`, async (t) => {
    const prefix = newPrefix();
    const first = await open(t, { prefix });
    await first.create(newUser('alice', { kdf: 'pbkdf2:sha256:7' }));
    const second = await open(t, { prefix });
    await Promise.all([5, 9, 8, 6].map((n) => second.create(newUser(`user${n}`, { kdf: `pbkdf2:sha256:${n}` }))));
    await first.create(newUser('bob', { kdf: 'pbkdf2:sha256:8' }));
    const keys = await serverOf().read(`${prefix}kdf/`);
    assert.deepEqual([...keys], [[`${prefix}kdf/pbkdf2:sha256`, 'pbkdf2:sha256:9']]);
    for (const store of [first, second, await open(t, { prefix })]) assert.deepEqual(await store.kdfs(), ['pbkdf2:sha256:9']);
  });

  register(`${name}: an invalid record or counter is corrupt, and its key is named`, async (t) => {
    const prefix = newPrefix();
    const store = await open(t, { prefix });
    await store.create(newUser('alice'));
    for (const value of ['', 'null', '[]', '{"id":1}', `{"id":1,"id":1,"login":"alice","registered":"${at}","version":1,"kdf":"none","password":""}`]) {
      await serverOf().put(`${prefix}user/alice`, value);
      for (const read of [() => store.findRecord('alice'), () => store.findPublic('alice'), () => store.page(undefined, 5), () => store.create(newUser('alice'))]) {
        await assert.rejects(read, isError('corrupt', new RegExp(`"${prefix}user/alice"`)), value);
      }
    }
    await serverOf().put(`${prefix}next-id`, 'x');
    await assert.rejects(store.page(undefined, 5), isError('corrupt', /next-id/));
  });

  register(`${name}: a prefix that holds another format is not opened, nor an invalid prefix`, async (t) => {
    const prefix = newPrefix();
    await serverOf().put(`${prefix}format`, '{"format":"registrar-users","version":2}');
    await assert.rejects(open(t, { prefix }), isError('cannot-start', /version":2/));
    for (const bad of ['/users', '/us ers/', '/пользователи/']) await assert.rejects(open(t, { prefix: bad }), isError('usage'));
  });

  register(`${name}: close finishes the writes before it, and rejects every call after it`, async (t) => {
    const store = await open(t);
    const creating = Array.from({ length: 100 }, (_, n) => store.create(newUser(`user${n}`)));
    const many = store.createMany(Array.from({ length: 100 }, (_, n) => newUser(`more${n}`)));
    await store.close();
    for (const outcome of [...(await Promise.all(creating)), ...(await many)]) assert.equal(outcome.created, true);
    await assert.rejects(store.create(newUser('late')), isError('unavailable'));
    await assert.rejects(store.findRecord('user1'), isError('unavailable'));
  });

  register(`${name}: secrets are shared, and put by compare-and-set, also when a response is lost`, async (t) => {
    const prefix = newPrefix();
    const proxy = await startFaultProxy(serverOf().endpoints[0]!);
    const [first, second] = [(await open(t, { prefix, endpoints: [proxy.url] })).secrets, (await open(t, { prefix })).secrets];
    assert.equal(await first.get('key'), undefined);
    assert.deepEqual((await Promise.all([first.replace('key', undefined, 'one'), second.replace('key', undefined, 'two')])).sort(), [false, true]);
    const won = (await second.get('key'))!;
    assert.equal(await first.replace('key', 'three', 'four'), false);
    assert.equal(await first.replace('none', 'three', 'four'), false);
    assert.equal(await first.replace('key', won, 'ключ\n'), true);
    assert.equal(await second.get('key'), 'ключ\n');
    const loseOne = (): void => void (proxy.fault = () => ((proxy.fault = () => 'none'), 'lose-response'));
    loseOne();
    assert.equal(await first.replace('other', undefined, 'one'), true);
    loseOne();
    assert.equal(await first.replace('other', 'one', 'two'), true);
    assert.equal(await second.get('other'), 'two');
  });

  register(`${name}: concurrent reads share a request, and a corrupt record fails its own reader only`, async (t) => {
    const proxy = await startFaultProxy(serverOf().endpoints[0]!);
    const prefix = newPrefix();
    const store = await open(t, { endpoints: [proxy.url], prefix });
    const logins = Array.from({ length: 100 }, (_, n) => `user${n}`);
    const users = new Map((await store.createMany(logins.map((login) => newUser(login)))).map(({ user }) => [user.login, user]));
    await serverOf().put(`${prefix}user/user7`, 'null');
    proxy.requests.length = 0;
    const requested = [...logins, 'unknown', 'user1', 'user1'];
    const found = await Promise.allSettled(requested.map((login) => store.findRecord(login)));
    assert.equal(proxy.requests.length, 1);
    for (const [n, login] of requested.entries()) {
      const outcome = found[n]!;
      if (login === 'user7') assert.ok(outcome.status === 'rejected' && isError('corrupt')(outcome.reason));
      else assert.deepEqual(outcome, { status: 'fulfilled', value: users.get(login) });
    }
    proxy.fault = () => rejected;
    const rejections = await Promise.allSettled(logins.map((login) => store.findRecord(login)));
    assert.ok(rejections.every((outcome) => outcome.status === 'rejected' && isError('unavailable')(outcome.reason)));
    proxy.fault = () => 'none';
    assert.equal((await store.findRecord('user1'))?.login, 'user1');
  });

  register(`${name}: a store removes its write tokens when it closes, and tokens that others left a day ago`, async (t) => {
    const prefix = newPrefix();
    const tokens = async (): Promise<string[]> => [...(await serverOf().read(`${prefix}write/`)).keys()];
    const first = await open(t, { prefix });
    await first.create(newUser('alice'));
    assert.equal((await tokens()).length, 1);
    await first.close();
    assert.deepEqual(await tokens(), []);
    await serverOf().put(`${prefix}write/old/0`, '3 done 2026-11-21T07:00:00.000Z');
    await serverOf().put(`${prefix}write/new/0`, '3 refused 2026-11-22T07:00:00.000Z');
    await serverOf().put(`${prefix}write/odd/0`, '?');
    await open(t, { prefix, now: () => new Date('2026-11-22T08:00:00.000Z') });
    await until(async () => (await tokens()).length === 2, 'the old token is removed');
    assert.deepEqual(await tokens(), [`${prefix}write/new/0`, `${prefix}write/odd/0`]);
  });
}

const changed = { kdf: 'pbkdf2:sha512:2', password: `${'2'.repeat(32)}$${'3'.repeat(128)}`, changed: at };

interface Pair {
  readonly proxy: FaultProxy;
  /** Behind the proxy. */
  readonly store: EtcdUserStore;
  /** Connected directly. */
  readonly other: EtcdUserStore;
  readonly prefix: string;
}

/** The faults of the next writes, one each, and what happens after the fault; later writes have none. */
function plan(proxy: FaultProxy, ...faults: (Fault | [Fault, () => Promise<unknown>])[]): void {
  let then: (() => Promise<unknown>) | undefined;
  proxy.fault = async (request) => {
    if (!isUserWrite(request)) return 'none';
    await then?.();
    const next = faults.shift() ?? 'none';
    then = Array.isArray(next) ? next[1] : undefined;
    return Array.isArray(next) ? next[0] : next;
  };
}

export function testEtcdFaults(name: string, serverOf: () => EtcdServer, register: Register): void {
  async function open(t: TestContext, waitMsMax = 20_000): Promise<Pair> {
    const proxy = await startFaultProxy(serverOf().endpoints[0]!);
    const prefix = newPrefix();
    const store = await EtcdUserStore.open({ endpoints: [proxy.url], prefix, waitMsMax });
    const other = await EtcdUserStore.open({ endpoints: serverOf().endpoints, prefix });
    t.after(async () => {
      proxy.fault = () => 'none';
      await Promise.all([store.close(), other.close()]);
    });
    return { proxy, store, other, prefix };
  }

  register(`${name}: a write whose response is lost is reported as done, and is done once`, async (t) => {
    const { proxy, store, other, prefix } = await open(t);
    plan(proxy, 'lose-response');
    const created = await store.create(newUser('alice'));
    assert.equal(created.created, true);
    assert.deepEqual(await other.findRecord('alice'), created.user);
    plan(proxy, 'lose-response', 'lose-response');
    const replaced = await store.replace(created.user, changed);
    assert.equal(replaced?.version, 2);
    assert.deepEqual(await other.findRecord('alice'), replaced);
    plan(proxy, 'lose-response', 'delay');
    assert.equal(await store.remove(replaced, at), true);
    assert.equal(await other.findRecord('alice'), undefined);
    assert.equal((await serverOf().read(`${prefix}user/`)).size + (await serverOf().read(`${prefix}id/`)).size, 0);
    plan(proxy, 'lose-response');
    const many = await store.createMany(['bob', 'carol'].map((login) => newUser(login)));
    assert.deepEqual(many.map((outcome) => outcome.created), [true, true]);
    assert.deepEqual((await other.recordPage(undefined)).users, many.map(({ user }) => user));
  });

  register(`${name}: a write that did not arrive is sent again`, async (t) => {
    const { proxy, store, other } = await open(t);
    plan(proxy, 'delay');
    const { user } = await store.create(newUser('alice'));
    plan(proxy, 'delay', 'delay');
    assert.equal((await store.replace(user, changed))?.version, 2);
    assert.equal((await other.findRecord('alice'))?.version, 2);
  });

  register(`${name}: a create whose response is lost is done, whatever other stores did with the user since`, async (t) => {
    const { proxy, store, other } = await open(t);
    plan(proxy, ['lose-response', async () => assert.equal((await other.replace((await other.findRecord('alice'))!, changed))?.version, 2)]);
    const { created, user } = await store.create(newUser('alice'));
    assert.deepEqual([created, user.version, (await other.findRecord('alice'))?.version], [true, 1, 2]);
    plan(proxy, ['lose-response', async () => other.remove((await other.findRecord('bob'))!, at)]);
    assert.equal((await store.create(newUser('bob'))).created, true);
    assert.equal(await other.findRecord('bob'), undefined);
    plan(proxy, ['lose-response', async () => {
      await other.remove((await other.findRecord('carol'))!, at);
      await other.create(newUser('carol'));
    }]);
    const carol = await store.create(newUser('carol'));
    assert.equal(carol.created, true);
    assert.ok((await other.findRecord('carol'))!.id !== carol.user.id);
  });

  register(`${name}: a change or removal whose response is lost is done, whatever other stores did since`, async (t) => {
    const { proxy, store, other } = await open(t);
    const { user } = await store.create(newUser('alice'));
    plan(proxy, ['lose-response', async () => {
      const current = (await other.findRecord('alice'))!;
      assert.equal(current.version, 2);
      assert.equal(await other.remove(current, at), true);
      assert.equal((await other.create(newUser('alice'))).created, true);
    }]);
    assert.equal((await store.replace(user, changed))?.version, 2);
    const again = (await other.findRecord('alice'))!;
    assert.notEqual(again.id, user.id);
    plan(proxy, ['lose-response', () => other.create(newUser('alice'))]);
    assert.equal(await store.remove(again, at), true);
    assert.notEqual((await other.findRecord('alice'))!.id, again.id);
  });

  register(`${name}: a login that was taken is reported as taken, also if that response is lost`, async (t) => {
    const { proxy, store, other } = await open(t);
    const { user } = await other.create(newUser('alice'));
    plan(proxy, 'lose-response');
    assert.deepEqual(await store.create(newUser('alice')), { created: false, user });
    // The create did not arrive, and the other store is faster than its repetition.
    plan(proxy, ['delay', () => other.create(newUser('bob'))]);
    const bob = await store.create(newUser('bob'));
    assert.deepEqual([bob.created, bob.user], [false, await other.findRecord('bob')]);
    // A refused create whose response is lost, and whose obstacle is gone since, is tried again.
    await other.create(newUser('carol'));
    plan(proxy, ['lose-response', async () => other.remove((await other.findRecord('carol'))!, at)]);
    assert.equal((await store.create(newUser('carol'))).created, true);
  });

  register(`${name}: a request that arrives after its outcome was reported changes nothing`, async (t) => {
    const { proxy, store, other, prefix } = await open(t);
    // The repetition created the user, who was removed since.
    plan(proxy, 'delay');
    const { user: alice } = await store.create(newUser('alice'));
    assert.equal(await other.remove(alice, at), true);
    // The repetition found the login taken, and the owner was removed since.
    plan(proxy, ['delay', () => other.create(newUser('bob'))]);
    assert.equal((await store.create(newUser('bob'))).created, false);
    assert.equal(await other.remove((await other.findRecord('bob'))!, at), true);
    // The repetition found another state.
    const { user: carol } = await other.create(newUser('carol'));
    plan(proxy, ['delay', () => other.replace(carol, changed)]);
    assert.equal(await store.remove(carol, at), false);
    const late = await proxy.release();
    assert.equal(late.length, 3);
    for (const response of late) assert.doesNotMatch(response, /"succeeded":true/);
    assert.deepEqual([...(await serverOf().read(`${prefix}user/`)).keys()], [`${prefix}user/carol`]);
    assert.deepEqual([...(await serverOf().read(`${prefix}id/`)).values()], ['carol']);
  });

  register(`${name}: without a response until its deadline a write is of unknown outcome, and its token is not used again`, async (t) => {
    const { proxy, store, other } = await open(t, 600);
    proxy.fault = (request) => (isUserWrite(request) ? 'lose-response' : 'none');
    await assert.rejects(store.create(newUser('alice')), isError('outcome-unknown'));
    assert.equal((await store.findRecord('alice'))?.login, 'alice');
    proxy.fault = (request) => (isUserWrite(request) ? 'delay' : 'none');
    await assert.rejects(store.create(newUser('bob')), isError('outcome-unknown'));
    const before = proxy.requests.length;
    proxy.fault = () => 'none';
    assert.equal((await store.create(newUser('carol'))).created, true);
    const tokensOf = (requests: FaultProxy['requests']): (string | undefined)[] => requests.filter(isUserWrite).map(({ body }) => /\/write\/[^"]+/.exec(readable(body))?.[0]);
    const [token, ...more] = tokensOf(proxy.requests.slice(before));
    assert.ok(more.length === 0 && !tokensOf(proxy.requests.slice(0, before)).includes(token));
    // One of the delayed requests creates bob.
    await proxy.release();
    const { users } = await other.recordPage(undefined);
    assert.deepEqual(users.map(({ login }) => login).sort(), ['alice', 'bob', 'carol']);
    assert.equal(new Set(users.map(({ id }) => id)).size, 3);
  });

  register(`${name}: a response that is not one of etcd counts as none`, async (t) => {
    const { proxy, store, other } = await open(t);
    plan(proxy, { status: 200, body: '{}' }, { status: 200, body: '<html>' }, { status: 200, body: '{"header":{"revision":7}}' });
    assert.equal((await store.create(newUser('alice'))).created, true);
    assert.equal((await other.findRecord('alice'))?.login, 'alice');
  });

  register(`${name}: no id is lost with the response of the counter`, async (t) => {
    const { proxy, store } = await open(t);
    let lost = 0;
    proxy.fault = ({ body }) => (/"compare":\[\{"key":"[^"]*\/next-id"/.test(readable(body)) && lost++ < 2 ? 'lose-response' : 'none');
    const { user } = await store.create(newUser('alice'));
    assert.deepEqual([user.id, lost], [1, 3]);
    assert.equal((await store.create(newUser('bob'))).user.id, 2);
  });

  register(`${name}: a create with time left is not rejected with an earlier one that waits for the same ids`, async (t) => {
    const { proxy, store } = await open(t, 1_200);
    let isCut = true;
    const ofCounter = (): number => proxy.requests.filter(({ body }) => readable(body).includes('/next-id"')).length;
    proxy.fault = ({ body }) => (isCut && readable(body).includes('/next-id"') ? 'hang' : 'none');
    const first = assert.rejects(store.create(newUser('alice')), isError('unavailable'));
    await until(() => ofCounter() >= 2, 'a second try');
    const second = store.create(newUser('bob'));
    await first;
    isCut = false;
    assert.equal((await second).created, true);
  });

  register(`${name}: a removed write token is replaced, and a write whose response is lost with it is of unknown outcome`, async (t) => {
    const { proxy, store, prefix } = await open(t);
    const { user } = await store.create(newUser('alice'));
    const removeTokens = (): Promise<void> => serverOf().removeAll(`${prefix}write/`);
    await removeTokens();
    assert.equal((await store.replace(user, changed))?.version, 2);
    plan(proxy, ['lose-response', removeTokens]);
    await assert.rejects(store.remove({ ...user, version: 2 }, at), isError('outcome-unknown'));
  });
}
