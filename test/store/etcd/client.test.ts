/** Members that are not there, hang, come back, speak TLS and ask who is there: all of them real. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import type { ErrorCode } from '../../../lib/errors.ts';
import { EtcdUserStore } from '../../../lib/store/etcd/store.ts';
import type { EtcdUserStoreOptions } from '../../../lib/store/etcd/store.ts';
import { makeCertificates } from '../../helper/etcd-certificates.ts';
import { Cluster, freePorts, newPrefix, withoutEtcd } from '../../helper/etcd-cluster.ts';
import { decoded, startGateway } from '../../helper/gateway.ts';
import type { Gateway } from '../../helper/gateway.ts';
import { temporaryDirectory, until, without } from '../../helper/temporary.ts';
import { candidate } from '../../helper/user-store-contract.ts';

const skip = withoutEtcd;
const is = (code: ErrorCode, message = /./) => (error: unknown) =>
  error instanceof RegistrarError && error.code === code && message.test(error.message);

async function open(t: TestContext, options: EtcdUserStoreOptions): Promise<{ store: EtcdUserStore; reports: string[] }> {
  const reports: string[] = [];
  const store = await EtcdUserStore.open({ prefix: newPrefix(), report: (line) => reports.push(line), ...options });
  t.after(() => store.close());
  return { store, reports };
}

test('what is no address of a member is refused, and plain http beyond this machine', async () => {
  const wrong = ['', 'x', 'localhost:2379', '127.0.0.1', 'ftp://127.0.0.1', 'https://a:2379/v3', 'https://u:p@a:2379', 'https://a:2379/?x', 'https://a:2379/#x'];
  const plain = ['http://10.0.0.1:2379', 'http://etcd:2379', 'http://127.0.0.1.example:2379', 'http://128.0.0.1', 'http://[::2]:2379', 'http://0.0.0.0:2379'];
  for (const endpoint of wrong) await assert.rejects(EtcdUserStore.open({ endpoints: [endpoint] }), is('usage', /no address/), endpoint);
  for (const endpoint of plain) await assert.rejects(EtcdUserStore.open({ endpoints: [endpoint] }), is('usage', /plain http/), endpoint);
  await assert.rejects(EtcdUserStore.open({ endpoints: [] }), is('usage'));
});

test('where nobody answers, nothing is opened, and the error says where and why', async () => {
  const [port] = await freePorts(1);
  for (const endpoint of [`http://127.0.0.1:${port}`, `https://127.0.0.1:${port}`, `http://localhost:${port}`]) {
    const opening = EtcdUserStore.open({ endpoints: [endpoint], waitMsMax: 300 });
    await assert.rejects(opening, is('cannot-start', new RegExp(`${endpoint}.*ECONNREFUSED`)));
  }
});

test('what is not etcd is not opened', async (t) => {
  const gateway = await startGateway(t, 'http://127.0.0.1:1');
  for (const fate of [{ status: 404, body: '404 page not found' }, { status: 200, body: '<html>' }, { status: 200, body: '{}' }, { status: 302, body: '' }]) {
    gateway.fate = () => fate;
    await assert.rejects(EtcdUserStore.open({ endpoints: [gateway.url], waitMsMax: 300 }), is('cannot-start'), JSON.stringify(fate));
  }
});

describe('a cluster of three', { skip }, () => {
  let cluster: Cluster;
  before(async () => (cluster = await Cluster.start()));
  after(() => cluster.stop());

  test('members that are gone are passed over, and used again when they are back', async (t) => {
    const { store, reports } = await open(t, { endpoints: cluster.endpoints });
    const leader = await cluster.leader();
    const victim = cluster.members.find((member) => member !== leader)!;
    for (let n = 0; n < 6; n++) await store.create(candidate(`before${n}`));
    await cluster.kill(victim);
    for (let n = 0; n < 20; n++) assert.equal((await store.create(candidate(`while${n}`))).created, true);
    // A busy machine may have others late as well.
    const ofVictim = (): string[] => reports.filter((line) => line.includes(victim.url));
    await until(() => ofVictim().length > 0, 'a report');
    assert.match(ofVictim()[0]!, /does not answer/);
    cluster.launch(victim);
    await until(() => ofVictim().length > 1, 'a second report');
    assert.equal(ofVictim()[1], `etcd: ${victim.url} answers again`);
    assert.equal((await store.find('while7'))?.login, 'while7');
  });

  test('a member that accepts and never answers is asked by probes alone, once that is known', async (t) => {
    const gateway = await startGateway(t, cluster.members[0]!.url);
    gateway.fate = () => 'hang';
    const { store, reports } = await open(t, { endpoints: [gateway.url, cluster.members[1]!.url, cluster.members[2]!.url] });
    const ofGateway = (): string | undefined => reports.find((line) => line.includes(gateway.url));
    for (let n = 0; n < 30; n++) assert.equal((await store.create(candidate(`user${n}`))).created, true);
    await until(() => ofGateway() !== undefined, 'a report');
    assert.match(ofGateway() ?? '', /no answer in time/);
    const known = gateway.asked.length;
    for (let n = 30; n < 60; n++) assert.equal((await store.create(candidate(`user${n}`))).created, true);
    await until(() => gateway.asked.length > known, 'a probe');
    assert.ok(gateway.asked.slice(known).every(({ path }) => path === '/v3/kv/range'));
    gateway.fate = () => 'pass';
    await until(() => reports.includes(`etcd: ${gateway.url} answers again`), 'it is back');
    const before = gateway.asked.length;
    for (let n = 0; n < 9; n++) await store.find(`user${n}`);
    assert.ok(gateway.asked.length >= before + 3, 'a third of them at least');
    await store.close();
  });

  test('an answer that says "later" is asked for again, and a member that says "no" ends it', async (t) => {
    const gateway = await startGateway(t, cluster.members[0]!.url);
    const { store, reports } = await open(t, { endpoints: [gateway.url] });
    const answers = [
      { status: 429, body: '{"error":"etcdserver: too many requests","code":8}' },
      { status: 503, body: '{"error":"etcdserver: request timed out","code":14}' },
      { status: 401, body: '{"error":"etcdserver: invalid auth token","code":16}' },
    ];
    gateway.fate = () => answers.shift() ?? 'pass';
    assert.equal((await store.create(candidate('alice'))).created, true);
    gateway.fate = () => ({ status: 403, body: '{"error":"etcdserver: permission denied","code":7}' });
    await assert.rejects(store.create(candidate('bob')), is('unavailable'));
    assert.deepEqual(reports.filter((line) => /refuses/.test(line)), ['etcd refuses what it is asked: 403 etcdserver: permission denied']);
    let times = 0;
    gateway.fate = () => (times++ === 0 ? 'lose' : { status: 403, body: '{"error":"etcdserver: permission denied","code":7}' });
    await assert.rejects(store.create(candidate('bob')), is('outcome-unknown'));
    gateway.fate = () => 'pass';
    await store.close();
  });
});

const rootPassword = 'the password of root';
const password = 'the password of registrar';

/** One root, and one user who may do what it likes below the prefix. */
async function turnOnAuth(cluster: Cluster, prefix: string): Promise<void> {
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

describe('a member that speaks TLS and asks who is there', { skip: skip || without('openssl') }, () => {
  const cleanups: (() => unknown)[] = [];
  const prefix = '/registrar/';
  let cluster: Cluster;
  let tls: { ca: Buffer; cert: Buffer; key: Buffer };
  before(async () => {
    const certificates = makeCertificates(temporaryDirectory({ after: (run) => void cleanups.push(run as () => unknown) }));
    tls = { ca: readFileSync(certificates.ca), cert: readFileSync(certificates.clientCert), key: readFileSync(certificates.clientKey) };
    cluster = await Cluster.start({ members: 1, tls: certificates, client: tls });
    await turnOnAuth(cluster, prefix);
  });
  after(async () => {
    await cluster.stop();
    for (const clean of cleanups) await clean();
  });

  test('the contract is kept with a certificate and a password, also when etcd has forgotten its tokens', async (t) => {
    const { store } = await open(t, { endpoints: cluster.endpoints, prefix, tls, user: 'registrar', password });
    const { user } = await store.create(candidate('alice'));
    assert.deepEqual(await store.health(), { ready: true });
    await cluster.kill(cluster.members[0]!);
    cluster.launch(cluster.members[0]!);
    await until(() => store.find('alice').then((found) => found !== undefined, () => false), 'the member is back');
    assert.deepEqual(await store.find('alice'), user);
    assert.equal((await store.create(candidate('bob'))).created, true);
    assert.deepEqual((await store.records(undefined)).users.map(({ login }) => login), ['alice', 'bob']);
  });

  test('who may not is told what is missing when it starts', async () => {
    const { ca, ...own } = tls;
    const cases: readonly [Partial<EtcdUserStoreOptions>, RegExp][] = [
      [{ tls, prefix }, /permission denied|user name is empty/],
      [{ tls, prefix, user: 'registrar', password: 'wrong' }, /authentication failed/],
      [{ tls, prefix: '/elsewhere/', user: 'registrar', password }, /permission denied/],
      [{ tls: own, prefix, user: 'registrar', password }, /self.signed|unable to/],
      [{ tls: { ca }, prefix, user: 'registrar', password }, /certificate/],
    ];
    for (const [options, why] of cases) {
      const opening = EtcdUserStore.open({ endpoints: cluster.endpoints, waitMsMax: 1_500, ...options });
      await assert.rejects(opening, (error) => is('cannot-start', why)(error) && !String(error).includes(password), String(why));
    }
  });
});

/** What a store does by itself when it was opened is over. */
async function swept(store: EtcdUserStore, gateway: Gateway): Promise<void> {
  await until(() => gateway.asked.some(({ body }) => decoded(body).includes('/receipt/')), 'the sweep');
  await store.find('nobody');
}

describe('tokens', { skip }, () => {
  const prefix = '/registrar/';
  let cluster: Cluster;
  before(async () => {
    cluster = await Cluster.start({ members: 1 });
    await turnOnAuth(cluster, prefix);
  });
  after(() => cluster.stop());

  test('a token that etcd has not heard of yet keeps a request waiting, so it is dropped and another one asked for', async (t) => {
    const gateway = await startGateway(t, cluster.members[0]!.url);
    const { store } = await open(t, { endpoints: [gateway.url], prefix, user: 'registrar', password });
    await swept(store, gateway);
    assert.equal(gateway.asked.filter(({ path }) => path === '/v3/auth/authenticate').length, 1);
    // The token is known to be old by its next use, and the one that comes instead is ahead of etcd.
    let isBad = false;
    gateway.fate = ({ path }) => {
      if (path === '/v3/auth/authenticate' && !isBad) {
        isBad = true;
        return { status: 200, body: '{"token":"AAAAAAAAAAAAAAAA.999999999"}' };
      }
      return isBad ? 'pass' : { status: 401, body: '{"error":"etcdserver: invalid auth token","code":16}' };
    };
    assert.equal((await store.create(candidate('alice'))).created, true);
    const tokens = gateway.asked.map(({ token }) => token).filter((token) => token !== undefined);
    assert.ok(tokens.includes('AAAAAAAAAAAAAAAA.999999999'));
    assert.notEqual(tokens.at(-1), 'AAAAAAAAAAAAAAAA.999999999');
    await store.close();
  });

  test('a connection that is closed where a token was to be refused is taken for that', async (t) => {
    const gateway = await startGateway(t, cluster.members[0]!.url);
    const { store } = await open(t, { endpoints: [gateway.url], prefix, user: 'registrar', password });
    await swept(store, gateway);
    const old = gateway.asked.at(-1)!.token;
    gateway.fate = ({ token }) => (token === old ? 'hold' : 'pass');
    assert.equal((await store.create(candidate('bob'))).created, true);
    assert.equal((await store.find('bob'))?.login, 'bob');
    gateway.fate = () => 'pass';
    await store.close();
  });

  test('many requests at once ask for one token', async (t) => {
    const gateway = await startGateway(t, cluster.members[0]!.url);
    const { store } = await open(t, { endpoints: [gateway.url], prefix, user: 'registrar', password });
    await swept(store, gateway);
    const old = gateway.asked.at(-1)!.token;
    gateway.fate = ({ token }) => (token === old ? { status: 401, body: '{"error":"etcdserver: invalid auth token","code":16}' } : 'pass');
    gateway.asked.length = 0;
    await Promise.all(Array.from({ length: 50 }, (_, n) => store.find(`user${n}`)));
    assert.equal(gateway.asked.filter(({ path }) => path === '/v3/auth/authenticate').length, 1);
    await store.close();
  });

  test('a user and a password do no harm where etcd does not ask for them', async (t) => {
    const open1 = await Cluster.start({ members: 1 });
    t.after(() => open1.stop());
    const { store } = await open(t, { endpoints: open1.endpoints, user: 'registrar', password });
    assert.equal((await store.create(candidate('alice'))).created, true);
    await store.close();
  });
});
