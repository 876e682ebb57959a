/** The contract and the etcd suites on a real cluster, and clients of members that are gone, slow, or want TLS. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { EtcdUserStore } from '../../lib/store/etcd/etcd-user-store.ts';
import type { EtcdUserStoreOptions } from '../../lib/store/etcd/etcd-user-store.ts';
import { Cluster, makeCertificates } from '../helper/etcd-cluster.ts';
import { isError, newPrefix, openStore, testEtcdFaults, testEtcdStore } from '../helper/etcd-suites.ts';
import type { Register } from '../helper/etcd-suites.ts';
import { readable, startFaultProxy } from '../helper/fault-proxy.ts';
import type { FaultProxy } from '../helper/fault-proxy.ts';
import { temporaryDirectory, until } from '../helper/temporary.ts';
import { afterTrials, beforeTrials, trial } from '../helper/trial.ts';
import { newUser, testUserStore } from '../helper/user-store-contract.ts';

let cluster: Cluster;
beforeTrials(async () => {
  cluster = await Cluster.start();
});
afterTrials(() => cluster.stop());

const register: Register = (name, run) => trial(name, { needs: ['etcd'] }, run);

testUserStore('etcd', (t) => openStore(t, cluster), register);
testEtcdStore('etcd', () => cluster, register);
testEtcdFaults('etcd', () => cluster, register);

const needs = ['etcd', 'openssl'];

async function open(t: TestContext, options: EtcdUserStoreOptions): Promise<{ store: EtcdUserStore; lines: string[] }> {
  const lines: string[] = [];
  const store = await EtcdUserStore.open({ prefix: newPrefix(), log: (line) => lines.push(line), ...options });
  t.after(() => store.close());
  return { store, lines };
}

trial('etcd client: a killed member is skipped, and used again when it is started', { needs }, async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.stop());
  const { store, lines } = await open(t, { endpoints: cluster.endpoints });
  const leader = await cluster.leader();
  const killed = cluster.members.find((member) => member !== leader)!;
  for (let n = 0; n < 6; n++) await store.create(newUser(`before${n}`));
  await cluster.kill(killed);
  for (let n = 0; n < 20; n++) assert.equal((await store.create(newUser(`while${n}`))).created, true);
  // On a busy machine other members may be late as well.
  const ofKilled = (): string[] => lines.filter((line) => line.includes(killed.url));
  await until(() => ofKilled().length > 0, 'a line in the log');
  assert.match(ofKilled()[0]!, /does not respond/);
  cluster.launch(killed);
  await until(() => ofKilled().length > 1, 'a second line');
  assert.equal(ofKilled()[1], `etcd: ${killed.url} responds again.`);
  assert.equal((await store.findRecord('while7'))?.login, 'while7');
});

const rootPassword = 'the password of root';
const password = 'the password of registrar';

/** With root, and a user who may read and write below the prefix. */
async function enableAuthentication(cluster: Cluster, prefix: string): Promise<void> {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  await cluster.ask('/v3/auth/user/add', { name: 'root', password: rootPassword });
  await cluster.ask('/v3/auth/role/add', { name: 'root' });
  await cluster.ask('/v3/auth/user/grant', { user: 'root', role: 'root' });
  await cluster.ask('/v3/auth/user/add', { name: 'registrar', password });
  await cluster.ask('/v3/auth/role/add', { name: 'registrar' });
  const perm = { permType: 'READWRITE', key: base64(prefix), range_end: base64(`${prefix.slice(0, -1)}0`) };
  await cluster.ask('/v3/auth/role/grant', { name: 'registrar', perm });
  await cluster.ask('/v3/auth/user/grant', { user: 'registrar', role: 'registrar' });
  await cluster.ask('/v3/auth/enable', {});
}

trial('etcd client: TLS with client certificates and authentication', { needs }, async (t) => {
  const prefix = '/registrar/';
  const certificates = makeCertificates(temporaryDirectory(t));
  const tls = { ca: readFileSync(certificates.ca), cert: readFileSync(certificates.clientCert), key: readFileSync(certificates.clientKey) };
  const cluster = await Cluster.start({ members: 1, tls: certificates, client: tls });
  t.after(() => cluster.stop());
  await enableAuthentication(cluster, prefix);

  await t.test('writes and reads succeed, also after a restart of etcd, which forgets its tokens', async (t) => {
    const { store } = await open(t, { endpoints: cluster.endpoints, prefix, tls, user: 'registrar', password });
    const { user } = await store.create(newUser('alice'));
    await cluster.kill(cluster.members[0]!);
    cluster.launch(cluster.members[0]!);
    await until(() => store.findRecord('alice').then((found) => found !== undefined, () => false), 'the member responds');
    assert.deepEqual(await store.findRecord('alice'), user);
    assert.equal((await store.create(newUser('bob'))).created, true);
    assert.deepEqual((await store.recordPage(undefined)).users.map(({ login }) => login), ['alice', 'bob']);
    await until(() => store.unhealthyReason === undefined, 'the store is healthy');
  });

  await t.test('a missing permission is named at the start, and no password is', async () => {
    const { ca, ...own } = tls;
    const cases: readonly [Partial<EtcdUserStoreOptions>, RegExp][] = [
      [{ tls, prefix }, /permission denied|user name is empty/],
      [{ tls, prefix, user: 'registrar', password: 'wrong' }, /authentication failed/],
      [{ tls, prefix: '/elsewhere/', user: 'registrar', password }, /permission denied/],
      [{ tls: own, prefix, user: 'registrar', password }, /self.signed|unable to/],
      [{ tls: { ca }, prefix, user: 'registrar', password }, /certificate/],
    ];
    for (const [options, reason] of cases) {
      const opening = EtcdUserStore.open({ endpoints: cluster.endpoints, waitMsMax: 1_500, ...options });
      await assert.rejects(opening, (error) => isError('cannot-start', reason)(error) && !String(error).includes(password), String(reason));
    }
  });
});

const invalidToken = { status: 401, body: '{"error":"etcdserver: invalid auth token","code":16}' };

/** The requests that a store sends by itself when it is opened are over. */
async function swept(store: EtcdUserStore, proxy: FaultProxy): Promise<void> {
  await until(() => proxy.requests.some(({ body }) => readable(body).includes('/write/')), 'the sweep');
  await store.findRecord('unknown');
}

trial('etcd client: authentication tokens', { needs }, async (t) => {
  const prefix = '/registrar/';
  const cluster = await Cluster.start({ members: 1 });
  t.after(() => cluster.stop());
  await enableAuthentication(cluster, prefix);
  const openBehindProxy = async (t: TestContext): Promise<{ proxy: FaultProxy; store: EtcdUserStore; authentications: () => number }> => {
    const proxy = await startFaultProxy(cluster.members[0]!.url);
    const { store } = await open(t, { endpoints: [proxy.url], prefix, user: 'registrar', password });
    await swept(store, proxy);
    return { proxy, store, authentications: () => proxy.requests.filter(({ path }) => path === '/v3/auth/authenticate').length };
  };

  await t.test('a token that etcd does not know yet never gets a response, and is replaced', async (t) => {
    const { proxy, store, authentications } = await openBehindProxy(t);
    assert.equal(authentications(), 1);
    // The first token is rejected, and the next one is ahead of etcd.
    let isAhead = false;
    proxy.fault = ({ path }) => {
      if (path === '/v3/auth/authenticate' && !isAhead) {
        isAhead = true;
        return { status: 200, body: '{"token":"AAAAAAAAAAAAAAAA.999999999"}' };
      }
      return isAhead ? 'none' : invalidToken;
    };
    assert.equal((await store.create(newUser('alice'))).created, true);
    const tokens = proxy.requests.map(({ token }) => token).filter((token) => token !== undefined);
    assert.ok(tokens.includes('AAAAAAAAAAAAAAAA.999999999'));
    assert.notEqual(tokens.at(-1), 'AAAAAAAAAAAAAAAA.999999999');
  });

  await t.test('a token whose connection is closed is replaced', async (t) => {
    const { proxy, store } = await openBehindProxy(t);
    const old = proxy.requests.at(-1)!.token;
    proxy.fault = ({ token }) => (token === old ? 'delay' : 'none');
    assert.equal((await store.create(newUser('bob'))).created, true);
    assert.equal((await store.findRecord('bob'))?.login, 'bob');
  });

  await t.test('concurrent requests share one authentication', async (t) => {
    const { proxy, store, authentications } = await openBehindProxy(t);
    const old = proxy.requests.at(-1)!.token;
    proxy.fault = ({ token }) => (token === old ? invalidToken : 'none');
    proxy.requests.length = 0;
    await Promise.all(Array.from({ length: 50 }, (_, n) => store.create(newUser(`user${n}`))));
    assert.equal(authentications(), 1);
  });

  await t.test('an authentication response without a token counts as none', async (t) => {
    const proxy = await startFaultProxy(cluster.members[0]!.url);
    let isFirst = true;
    proxy.fault = () => {
      if (!isFirst) return 'none';
      isFirst = false;
      return { status: 200, body: '{}' };
    };
    const { store } = await open(t, { endpoints: [proxy.url], prefix, user: 'registrar', password });
    assert.equal((await store.findRecord('bob'))?.login, 'bob');
  });

  await t.test('credentials are accepted by a member without authentication', async (t) => {
    const plain = await Cluster.start({ members: 1 });
    t.after(() => plain.stop());
    const { store } = await open(t, { endpoints: plain.endpoints, user: 'registrar', password });
    assert.equal((await store.create(newUser('alice'))).created, true);
  });
});
