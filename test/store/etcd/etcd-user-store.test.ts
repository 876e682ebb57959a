/** The etcd store: its gateway's bodies, histories, and the suites on a member in memory. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { UnexpectedResponse, alarmsRequest, authenticationRequest, get, hasValue, isAbsent, isUnchanged, keysOf, nested, put, range, rangeOf, readErrorMessage, remove, removeAll, transactionRequest } from '../../../lib/store/etcd/gateway.ts';
import { assignIds, parseCounter } from '../../../lib/store/etcd/id-allocator.ts';
import { EtcdUserStore } from '../../../lib/store/etcd/etcd-user-store.ts';
import type { EtcdUserStoreOptions } from '../../../lib/store/etcd/etcd-user-store.ts';
import { readUser } from '../../../lib/store/etcd/user-reader.ts';
import { MemoryUserStore } from '../../../lib/store/memory.ts';
import type { UserStore } from '../../../lib/user-store.ts';
import { testEtcdFaults } from '../../helper/etcd-suites.ts';
import { isError, newPrefix, openStore, testEtcdStore } from '../../helper/etcd-suites.ts';
import { startFakeEtcd } from '../../helper/fake-etcd.ts';
import type { FakeEtcd } from '../../helper/fake-etcd.ts';
import { readable, startFaultProxy } from '../../helper/fault-proxy.ts';
import { isLinearizable } from '../../helper/user-history.ts';
import type { Model } from '../../helper/user-history.ts';
import { until } from '../../helper/temporary.ts';
import { findViolations, runLoad } from '../../helper/user-history.ts';
import type { History } from '../../helper/user-history.ts';
import { newUser, testUserStore } from '../../helper/user-store-contract.ts';

const keys = keysOf('/p/');

test('keys are plain, and those of ids sort as numbers do', () => {
  assert.deepEqual(
    [keys.format, keys.nextId, keys.user('алиса'), keys.id(17), keys.kdfs, keys.writeTokens, keys.secret('admin')],
    ['/p/format', '/p/next-id', '/p/user/алиса', '/p/id/0000000000000017', '/p/kdf/', '/p/write/', '/p/secret/admin'],
  );
  assert.ok(keys.id(9) < keys.id(10) && keys.id(99_999) < keys.id(Number.MAX_SAFE_INTEGER));
});

test('comparisons, operations and requests are these, byte for byte', () => {
  const absent = '{"key":"L3AvdXNlci9hbGljZQ==","target":"CREATE","result":"EQUAL","create_revision":"0"}';
  const unchanged = '{"key":"L3AvdXNlci9hbGljZQ==","target":"MOD","result":"EQUAL","mod_revision":"5"}';
  const putting = '{"request_put":{"key":"L3AvdXNlci9hbGljZQ==","value":"e30="}}';
  const getting = '{"request_range":{"key":"L3AvdXNlci9hbGljZQ=="}}';
  const removing = '{"request_delete_range":{"key":"L3AvdXNlci9hbGljZQ=="}}';
  const user = keys.user('alice');
  const golden: readonly [value: object, expected: string][] = [
    [isAbsent(user), absent],
    [isUnchanged(user, '5'), unchanged],
    [hasValue(keys.secret('k'), 'а'), '{"key":"L3Avc2VjcmV0L2s=","target":"VALUE","result":"EQUAL","value":"0LA="}'],
    [put(user, '{}'), putting],
    [get(user), getting],
    [range(keys.id(1), keys.id(3), 2), '{"request_range":{"key":"L3AvaWQvMDAwMDAwMDAwMDAwMDAwMQ==","range_end":"L3AvaWQvMDAwMDAwMDAwMDAwMDAwMw==","limit":2}}'],
    [rangeOf(keys.kdfs, 9), '{"request_range":{"key":"L3Ava2RmLw==","range_end":"L3Ava2RmMA==","limit":9}}'],
    [remove(user), removing],
    [removeAll(keys.writeTokens), '{"request_delete_range":{"key":"L3Avd3JpdGUv","range_end":"L3Avd3JpdGUw"}}'],
    [
      nested({ compare: [isAbsent(user)], success: [put(user, '{}')], failure: [get(user)] }),
      `{"request_txn":{"compare":[${absent}],"success":[${putting}],"failure":[${getting}]}}`,
    ],
  ];
  for (const [value, expected] of golden) assert.equal(JSON.stringify(value), expected);
  const transaction = transactionRequest({ compare: [isUnchanged(user, '5')], success: [remove(user)], failure: [get(user)] });
  const requests = [transaction, transactionRequest({ success: [get(user)] }), authenticationRequest('root', 'p"w'), alarmsRequest];
  assert.deepEqual(requests.map(({ path, body }) => [path, body]), [
    ['/v3/kv/txn', `{"compare":[${unchanged}],"success":[${removing}],"failure":[${getting}]}`],
    ['/v3/kv/txn', `{"compare":[],"success":[${getting}],"failure":[]}`],
    ['/v3/auth/authenticate', '{"name":"root","password":"p\\"w"}'],
    ['/v3/maintenance/alarm', '{"action":"GET"}'],
  ]);
});

const { read } = transactionRequest({ success: [] });

/** From etcd 3.4.23. */
const failure = `{"header":{"cluster_id":"1","member_id":"2","revision":"3","raft_term":"2"},"responses":[
  {"response_range":{"header":{"revision":"2"},"kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"1","value":"eA=="}],"count":"1"}},
  {"response_range":{"header":{"revision":"2"}}},{"response_put":{"header":{"revision":"3"}}}]}`;
const success = `{"header":{"revision":"2"},"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}},
  {"response_txn":{"header":{},"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}}]}},
  {"response_range":{"kvs":[{"key":"YQ==","create_revision":"1","mod_revision":"1","version":"1"}]}}]}`;

test('a response is read although fields with default values are omitted', () => {
  assert.deepEqual(read(JSON.parse(failure)), { succeeded: false, revision: '3', found: [[{ key: 'a', value: 'x', revision: '3' }], [], []] });
  assert.deepEqual(read(JSON.parse(success)), { succeeded: true, revision: '2', found: [[], [], [{ key: 'a', value: '', revision: '1' }]] });
  assert.deepEqual([alarmsRequest.read({}), alarmsRequest.read({ alarms: [{ memberID: '1', alarm: 'NOSPACE' }] })], [[], ['NOSPACE']]);
  assert.equal(authenticationRequest('', '').read({ header: {}, token: 'abc.1' }), 'abc.1');
});

test('a response of another shape is an UnexpectedResponse', () => {
  const unexpected = [null, [], 'x', 7, {}, { header: {} }, { header: { revision: 3 } }, { header: { revision: '3' }, responses: {} }];
  const ranges = [{ kvs: {} }, { kvs: [{}] }, { kvs: [{ key: 'YQ==' }] }, 7].map((range) => ({ header: { revision: '3' }, responses: [{ response_range: range }] }));
  for (const json of [...unexpected, ...ranges]) assert.throws(() => read(json), UnexpectedResponse, JSON.stringify(json));
  assert.throws(() => authenticationRequest('', '').read({}), UnexpectedResponse);
});

test('the message of an error is read from JSON and from text', () => {
  assert.equal(readErrorMessage('{"error":"etcdserver: request timed out","message":"…","code":14}'), 'etcdserver: request timed out');
  assert.equal(readErrorMessage('404 page not found\n'), '404 page not found');
  assert.equal(readErrorMessage('null'), 'null');
});

test('ids are kept if they were never assigned, once, and new ones are above all of them', () => {
  assert.deepEqual(assignIds([], 5), { ids: [], next: 5 });
  assert.deepEqual(assignIds([undefined, 7, 4, 7, 5], 5), { ids: [8, 7, 9, 10, 5], next: 11 });
  assert.deepEqual(assignIds([Number.MAX_SAFE_INTEGER, 2 ** 47], 1), { ids: [2 ** 47 + 1, 2 ** 47], next: 2 ** 47 + 2 });
});

test('an invalid counter or record is corrupt, and its key is named', () => {
  assert.equal(parseCounter('/p/next-id', '17 mark'), 17);
  for (const value of ['', '17', '0 x', '-1 x', '1e3 x', '99999999999999999 x']) assert.throws(() => parseCounter('/p/next-id', value), isError('corrupt', /"\/p\/next-id"/), value);
  const value = '{"id":1,"login":"bob","registered":"2026","version":1,"kdf":"none","password":""}';
  assert.equal(readUser({ key: '/p/user/bob', value, revision: '5' }, 'bob').id, 1);
  for (const bad of [value.replace('bob', 'eve'), value.slice(1), '', 'null', value.replace('{', '{"id":2,')]) {
    assert.throws(() => readUser({ key: '/p/user/bob', value: bad, revision: '5' }, 'bob'), isError('corrupt', /"\/p\/user\/bob"/), bad);
  }
});

type Access = { readonly write: number } | { readonly read: number };
const register: Model<number, Access> = {
  initial: 0,
  step: (state, call) => ('write' in call ? call.write : call.read === state ? state : undefined),
  key: String,
};
const write = (value: number, from: number, to = Infinity) => ({ call: { write: value }, from, to });
const readAt = (value: number, from: number, to: number) => ({ call: { read: value }, from, to });

test('a register is linearizable if one order explains every read', () => {
  const yes = [
    [],
    [readAt(0, 0, 1)],
    [write(1, 0, 1), readAt(1, 2, 3)],
    [write(1, 0, 10), readAt(0, 1, 2), readAt(1, 3, 4)],
    [write(1, 0, 10), write(2, 0, 10), readAt(2, 1, 3), readAt(1, 4, 5)],
    [write(1, 0), readAt(0, 5, 6), readAt(1, 7, 8)],
    [write(1, 0), readAt(0, 5, 6)],
  ];
  const no = [
    [readAt(1, 0, 1)],
    [write(1, 0, 1), readAt(0, 2, 3)],
    [write(1, 0, 10), readAt(1, 1, 2), readAt(0, 3, 4)],
    [write(1, 0, 10), write(2, 0, 10), readAt(2, 1, 2), readAt(1, 3, 4), readAt(2, 5, 6)],
    [write(1, 3), readAt(1, 1, 2)],
    [write(1, 0), readAt(1, 1, 2), readAt(0, 3, 4)],
  ];
  for (const history of yes) assert.equal(isLinearizable(history, register), true, JSON.stringify(history));
  for (const history of no) assert.equal(isLinearizable(history, register), false, JSON.stringify(history));
});

const logins = ['alice', 'bob', 'carol'];

/** Interleaves with other clients, as requests do. */
function slow(store: UserStore, faults: Partial<UserStore> = {}): UserStore {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const own: Partial<UserStore> = {
    findRecord: async (login) => (await turn(), await turn(), faults.findRecord ? faults.findRecord(login) : store.findRecord(login)),
    create: async (candidate) => (await turn(), faults.create ? faults.create(candidate) : store.create(candidate)),
    createMany: async (users) => (await turn(), store.createMany(users)),
    replace: async (expected, replacement) => (await turn(), faults.replace ? faults.replace(expected, replacement) : store.replace(expected, replacement)),
    remove: async (expected, at) => (await turn(), faults.remove ? faults.remove(expected, at) : store.remove(expected, at)),
  };
  return Object.assign(Object.create(store), own);
}

async function historyOf(faults: (store: UserStore) => Partial<UserStore>): Promise<History> {
  const store = new MemoryUserStore();
  const stores = [slow(store), slow(store), slow(store, faults(store))];
  return (await runLoad(stores, { logins, clients: 6, operations: 300 })).history;
}

test('the history of a correct store has no violation', async () => {
  for (let n = 0; n < 5; n++) assert.deepEqual(findViolations(await historyOf(() => ({}))), []);
});

test('planted faults are detected: a stale read, a lost write, a write done twice, an id assigned twice', async () => {
  const planted: Readonly<Record<string, (store: UserStore) => Partial<UserStore>>> = {
    'a stale read': (store) => {
      const old = new Map<string, Awaited<ReturnType<UserStore['findRecord']>>>();
      return {
        findRecord: async (login) => {
          const before = old.get(login);
          old.set(login, await store.findRecord(login));
          return before;
        },
      };
    },
    'a change is acknowledged and not done': (store) => ({ replace: async (expected, { kdf, password }) => {
      const user = await store.findRecord(expected.login);
      return user?.id === expected.id && user.version === expected.version ? { ...user, kdf, password, version: user.version + 1 } : undefined;
    } }),
    'a removal is done and reported as not done': (store) => ({ remove: async (expected, at) => (await store.remove(expected, at)) && false }),
    'a create is repeated': (store) => ({ create: async (candidate) => {
      await store.create(candidate);
      return store.create(candidate);
    } }),
  };
  for (const [what, faults] of Object.entries(planted)) assert.notDeepEqual(findViolations(await historyOf(faults)), [], what);
  const twice = await historyOf(() => ({}));
  const creation = twice.find(({ call }) => call.do === 'create' && call.outcome?.created === true)!;
  assert.ok(findViolations([...twice, { ...creation, call: { ...creation.call, login: 'dora' } }]).some((violation) => /assigned twice/.test(violation)));
});

let fake: FakeEtcd;
before(async () => {
  fake = await startFakeEtcd();
});

testUserStore('fake etcd', (t) => openStore(t, fake));
testEtcdStore('fake etcd', () => fake, test);
testEtcdFaults('fake etcd', () => fake, test);

async function openLogged(t: TestContext, options: EtcdUserStoreOptions): Promise<{ store: EtcdUserStore; lines: string[] }> {
  const lines: string[] = [];
  const store = await EtcdUserStore.open({ prefix: newPrefix(), log: (line) => lines.push(line), ...options });
  t.after(() => store.close());
  return { store, lines };
}

test('etcd: an invalid endpoint is rejected, and plain http to another machine', async () => {
  const wrong = ['', 'x', 'localhost:2379', '127.0.0.1', 'ftp://127.0.0.1', 'https://a:2379/v3', 'https://u:p@a:2379', 'https://a:2379/?x', 'https://a:2379/#x'];
  const plain = ['http://10.0.0.1:2379', 'http://etcd:2379', 'http://127.0.0.1.example:2379', 'http://128.0.0.1', 'http://[::2]:2379', 'http://0.0.0.0:2379'];
  for (const endpoint of wrong) await assert.rejects(EtcdUserStore.open({ endpoints: [endpoint] }), isError('usage', /not the address/), endpoint);
  for (const endpoint of plain) await assert.rejects(EtcdUserStore.open({ endpoints: [endpoint] }), isError('usage', /plain http/), endpoint);
  await assert.rejects(EtcdUserStore.open({ endpoints: [] }), isError('usage', /No etcd endpoint/));
});

// They wait for deadlines and probes, each with servers or keys of its own: together they wait as long as one.
describe('etcd: waiting', { concurrency: true }, () => {
  test('etcd: without a listening member nothing is opened, and the error names endpoint and cause', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await once(server.close(), 'close');
    for (const endpoint of [`http://127.0.0.1:${port}`, `https://127.0.0.1:${port}`]) {
      const opening = EtcdUserStore.open({ endpoints: [endpoint], waitMsMax: 400 });
      await assert.rejects(opening, isError('cannot-start', new RegExp(`${endpoint}.*ECONNREFUSED`)));
    }
  });

  test('etcd: another server than etcd is not opened', async () => {
    const server = await startFakeEtcd();
    const responses = [{ status: 404, body: '404 page not found' }, { status: 200, body: '<html>' }, { status: 200, body: '{}' }, { status: 302, body: '' }];
    for (const response of responses) {
      server.respond = () => response;
      await assert.rejects(EtcdUserStore.open({ endpoints: server.endpoints, waitMsMax: 100 }), isError('cannot-start'), JSON.stringify(response));
    }
  });

  test('etcd: a member that hangs is skipped and probed, and used again when it responds', async (t) => {
    const proxy = await startFaultProxy(fake.url);
    proxy.fault = () => 'hang';
    const { store, lines } = await openLogged(t, { endpoints: [proxy.url, fake.url], waitMsMax: 600 });
    for (let n = 0; n < 10; n++) assert.equal((await store.create(newUser(`user${n}`))).created, true);
    await until(() => lines.length > 0, 'a line in the log');
    assert.equal(lines[0], `etcd: ${proxy.url} does not respond (no response in time). It is skipped until it does.`);
    const known = proxy.requests.length;
    for (let n = 10; n < 40; n++) assert.equal((await store.create(newUser(`user${n}`))).created, true);
    await until(() => proxy.requests.length > known, 'a probe');
    assert.ok(proxy.requests.slice(known).every(({ body }) => /format"/.test(readable(body)) && !/write/.test(readable(body))));
    proxy.fault = () => 'none';
    await until(() => lines.includes(`etcd: ${proxy.url} responds again.`), 'the member responds');
    const before = proxy.requests.length;
    for (let n = 0; n < 10; n++) await store.findRecord(`user${n}`);
    assert.ok(proxy.requests.length >= before + 4, 'half of the requests');
    assert.equal(lines.length, 2);
  });

  test('etcd: a temporary error is tried again, and a permanent one ends the request', async (t) => {
    const proxy = await startFaultProxy(fake.url);
    const { store, lines } = await openLogged(t, { endpoints: [proxy.url], waitMsMax: 600 });
    const errors = [
      { status: 429, body: '{"error":"etcdserver: too many requests","code":8}' },
      { status: 503, body: '{"error":"etcdserver: request timed out","code":14}' },
      { status: 401, body: '{"error":"etcdserver: invalid auth token","code":16}' },
    ];
    proxy.fault = () => errors.shift() ?? 'none';
    assert.equal((await store.create(newUser('alice'))).created, true);
    const denied = { status: 403, body: '{"error":"etcdserver: permission denied","code":7}' };
    proxy.fault = () => denied;
    await assert.rejects(store.create(newUser('bob')), isError('unavailable'));
    assert.deepEqual(lines.filter((line) => line.includes('rejects')), ['etcd rejects a request: 403 etcdserver: permission denied']);
    const faults = ['none', 'lose-response'] as const;
    let n = 0;
    proxy.fault = () => faults[n++] ?? denied;
    await assert.rejects(store.replace((await store.findRecord('alice'))!, { kdf: 'pbkdf2:sha256:1', password: 'x' }), isError('unavailable'));
    proxy.fault = ({ body }) => (/write/.test(readable(body)) ? (n++ === 9 ? denied : 'lose-response') : 'none');
    n = 8;
    await assert.rejects(store.create(newUser('carol')), isError('outcome-unknown'));
    proxy.fault = () => ({ status: 429, body: '{"error":"etcdserver: mvcc: database space exceeded","code":8}' });
    await assert.rejects(store.create(newUser('dora')), isError('storage-full', /NOSPACE/));
    proxy.fault = () => 'none';
  });

  test('etcd: readiness names an alarm', async (t) => {
    const server = await startFakeEtcd();
    const { store } = await openLogged(t, { endpoints: server.endpoints });
    server.respond = (path) => (path === '/v3/maintenance/alarm' ? { status: 200, body: '{"alarms":[{"memberID":"1","alarm":"NOSPACE"}]}' } : undefined);
    await until(() => /NOSPACE/.test(store.unhealthyReason ?? ''), 'the alarm is reported');
    server.respond = () => undefined;
    await until(() => store.unhealthyReason === undefined, 'the store is healthy again');
  });
});
