/** Several stores and services on a real cluster of etcd: histories, leaders killed, members cut off, quotas full. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { RegistrarError } from '../../lib/errors.ts';
import { EtcdUserStore } from '../../lib/store/etcd/etcd-user-store.ts';
import { startJob } from '../bench/etcd-load.ts';
import { runCommand } from '../helper/command.ts';
import { Cluster } from '../helper/etcd-cluster.ts';
import type { ClusterOptions, Member } from '../helper/etcd-cluster.ts';
import { newPrefix } from '../helper/etcd-suites.ts';
import { isUserWrite, startFaultProxy } from '../helper/fault-proxy.ts';
import type { Fault, FaultProxy } from '../helper/fault-proxy.ts';
import { cannotUnshare } from '../helper/possible.ts';
import { adminToken, cheap, openService, spawnService } from '../helper/service.ts';
import type { Ask, Service } from '../helper/service.ts';
import { childEnvironment, loader, root, until } from '../helper/temporary.ts';
import { afterTrials, beforeTrials, trial, trialCount } from '../helper/trial.ts';
import { findViolations, runLoad } from '../helper/user-history.ts';
import type { Load } from '../helper/user-history.ts';
import { newUser } from '../helper/user-store-contract.ts';

const trials = trialCount('TRIALS', 2);
const operations = Math.max(10_000, trials * 1_000);

/** A cluster and stores on the same users in it, closed before it goes. */
async function start(t: TestContext, stores: number, options?: ClusterOptions): Promise<{ cluster: Cluster; stores: EtcdUserStore[] }> {
  const cluster = await Cluster.start(options);
  const prefix = newPrefix();
  const opened: EtcdUserStore[] = [];
  t.after(async () => {
    await Promise.all(opened.map((store) => store.close()));
    await cluster.stop();
  });
  for (let n = 0; n < stores; n++) opened.push(await EtcdUserStore.open({ endpoints: cluster.endpoints, prefix }));
  return { cluster, stores: opened };
}

const someLogins = (count: number): string[] => Array.from({ length: count }, (_, n) => `user${n}`);
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;

function describeLoad({ history, errors }: Load): string {
  return `${history.length} operations; not done: ${[...errors].map(([name, count]) => `${count} ${name}`).join(', ') || 'none'}`;
}

/** The only errors are those that say that nothing was done, or that the outcome is unknown. */
function assertExpectedErrors({ errors }: Load): void {
  const known = new Set(['unavailable to a read', 'unavailable to a write', 'outcome-unknown to a write']);
  assert.deepEqual([...errors.keys()].filter((name) => !known.has(name)), []);
}

trial(`etcd: the history of ${operations} operations of three stores on the same users is linearizable`, { needs: ['etcd'] }, async (t) => {
  const { stores } = await start(t, 3);
  const load = await runLoad(stores, { logins: someLogins(Math.ceil(operations / 60)), clients: 48, operations });
  assert.deepEqual(findViolations(load.history), []);
  assertExpectedErrors(load);
  // A busy machine may be late for some.
  assert.ok(load.history.length > operations * 0.95, describeLoad(load));
  t.diagnostic(describeLoad(load));
});

trial(`etcd: a store with stale reads is detected`, { needs: ['etcd'] }, async (t) => {
  const { stores } = await start(t, 3);
  // The planted fault is a cache.
  const cached = new Map<string, { at: number; found: ReturnType<EtcdUserStore['findRecord']> }>();
  const faulty: EtcdUserStore = Object.assign(Object.create(stores[0]!), {
    create: (...args: Parameters<EtcdUserStore['create']>) => stores[0]!.create(...args),
    createMany: (...args: Parameters<EtcdUserStore['createMany']>) => stores[0]!.createMany(...args),
    replace: (...args: Parameters<EtcdUserStore['replace']>) => stores[0]!.replace(...args),
    remove: (...args: Parameters<EtcdUserStore['remove']>) => stores[0]!.remove(...args),
    findRecord: (login: string) => {
      const known = cached.get(login);
      if (known !== undefined && performance.now() - known.at < 500) return known.found;
      const found = stores[0]!.findRecord(login);
      cached.set(login, { at: performance.now(), found });
      return found;
    },
  });
  const { history } = await runLoad([stores[1]!, stores[2]!, faulty], { logins: someLogins(5), clients: 12, operations: 600 });
  assert.notDeepEqual(findViolations(history), []);
});

/** Resolves when etcd executes a put again: the earliest time at which any client can succeed. */
async function firstBareWrite(cluster: Cluster, members: readonly Member[]): Promise<number> {
  for (let n = 0; ; n++) {
    const put = cluster.ask('/v3/kv/put', { key: 'L2JhcmU=', value: '' }, members[n % members.length]!);
    const isDone = put.then(() => true, () => false);
    if (await Promise.race([isDone, new Promise((resolve) => setTimeout(resolve, 100, false))])) return performance.now();
  }
}

trial(`etcd: the leader is killed under load ${trials} times: no acknowledged write is lost, none is done twice`, { needs: ['etcd'] }, async (t) => {
  const { cluster, stores } = await start(t, 3);
  let isOver = false;
  const successes: number[] = [];
  const loading = runLoad(stores, { logins: someLogins(40 * trials), clients: 24, until: () => isOver, successes });
  const times: { killedAt: number; electedAt: number; bare: number }[] = [];
  try {
    for (let n = 0; n < trials; n++) {
      const enough = successes.length + 200;
      await until(() => successes.length >= enough, 'load');
      const leader = await cluster.leader();
      const old = await cluster.leaderOf(leader);
      const killedAt = performance.now();
      await cluster.kill(leader);
      const others = cluster.members.filter((member) => member !== leader);
      const bare = firstBareWrite(cluster, others);
      await until(async () => {
        const leaders = await Promise.all(others.map((member) => cluster.leaderOf(member)));
        return leaders.some((now) => now !== undefined && now !== old);
      }, 'another leader');
      const electedAt = performance.now();
      times.push({ killedAt, electedAt, bare: await bare });
      await until(() => successes.at(-1)! >= electedAt, 'a write that succeeds');
      cluster.launch(leader);
      await cluster.ready();
    }
  } finally {
    isOver = true;
  }
  const load = await loading;
  assert.deepEqual(findViolations(load.history), []);
  assertExpectedErrors(load);
  const rows = times.map(({ killedAt, electedAt, bare }) => {
    const success = successes.find((at) => at >= electedAt)!;
    return { elected: electedAt - killedAt, bare: bare - killedAt, success: success - killedAt, since: success - electedAt };
  });
  t.diagnostic(describeLoad(load));
  const round = (values: readonly number[]): string => `median ${Math.round(median(values))} ms, max ${Math.round(Math.max(...values))} ms`;
  t.diagnostic(`from kill -9 to the election: ${round(rows.map(({ elected }) => elected))}; from there to the first success: ${round(rows.map(({ since }) => since))}`);
  t.diagnostic(`from kill -9 to the first success: ${round(rows.map(({ success }) => success))}; of a bare write: ${round(rows.map(({ bare }) => bare))}`);
});

trial('etcd: a network that loses requests and responses, and delivers some late, leads to no false response', { needs: ['etcd'] }, async (t) => {
  const { cluster } = await start(t, 0);
  const prefix = newPrefix();
  const proxies: FaultProxy[] = [];
  for (const { url } of cluster.members) proxies.push(await startFaultProxy(url));
  const stores = await Promise.all([1, 2, 3].map(() => EtcdUserStore.open({ endpoints: proxies.map(({ url }) => url), prefix })));
  const kinds: readonly Fault[] = ['lose-response', 'lose-response', 'delay', 'hang', { status: 503, body: '{"error":"etcdserver: request timed out","code":14}' }];
  let isOver = false;
  let faults = 0;
  for (const proxy of proxies) {
    proxy.fault = (request) => {
      if (Math.random() > (isUserWrite(request) ? 0.08 : 0.01)) return 'none';
      faults++;
      return kinds[Math.floor(Math.random() * kinds.length)]!;
    };
  }
  const releasing = (async () => {
    for (let n = 0; !isOver; n++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      await proxies[n % proxies.length]!.release();
    }
    for (const proxy of proxies) await proxy.release();
  })();
  const successes: number[] = [];
  const load = await runLoad(stores, { logins: someLogins(20 * trials), clients: 24, until: () => successes.length >= 600 * trials, successes });
  isOver = true;
  await releasing;
  for (const proxy of proxies) proxy.fault = () => 'none';
  assert.deepEqual(findViolations(load.history), []);
  assertExpectedErrors(load);
  t.diagnostic(`${faults} faults; ${describeLoad(load)}`);
  // Late requests left records and ids consistent.
  await assertConsistent(cluster, prefix);
  await Promise.all(stores.map((store) => store.close()));
});

/** Every user has one id, every id one user, and the counter is above all ids. @returns the number of users. */
async function assertConsistent(cluster: Cluster, prefix: string): Promise<number> {
  // In one read, since requests of a killed service may still arrive.
  const all = [...(await cluster.read(prefix))].map(([key, value]) => [key.slice(prefix.length), value] as const);
  const under = (name: string): (readonly [string, string])[] => all.filter(([key]) => key.startsWith(name));
  const records = under('user/').map(([, value]) => JSON.parse(value) as { id: number; login: string });
  const index = new Map(under('id/').map(([key, login]) => [Number(key.slice(3)), login]));
  assert.equal(records.length, index.size);
  for (const { id, login } of records) assert.equal(index.get(id), login);
  const next = Number(under('next-id')[0]?.[1].split(' ')[0]);
  assert.ok(records.every(({ id }) => id < next), `an id is not below ${next}`);
  return records.length;
}

trial(`etcd: ${trials * 3} services are killed while they create users: no id is assigned twice`, { needs: ['etcd'] }, async (t) => {
  const { cluster } = await start(t, 0);
  const prefix = '/killed/';
  let last = 0;
  for (let n = 0; n < trials; n++) {
    const children = await Promise.all([0, 1, 2].map((which) =>
      startJob({ through: 'store', do: 'create', endpoints: cluster.endpoints, prefix, name: `${n}-${which}`, clients: 16, users: 0 })));
    for (const child of children) child.send(600);
    await until(async () => (await cluster.read(`${prefix}user/`)).size > last + 200, 'users');
    for (const child of children) child.kill('SIGKILL');
    last = await assertConsistent(cluster, prefix);
  }
  t.diagnostic(`${last} users`);
});

trial('etcd: without a quorum every request is rejected within 5 s, and the store recovers by itself', { needs: ['etcd'] }, async (t) => {
  const { cluster, stores: [store] } = await start(t, 1);
  assert.ok(store !== undefined);
  const { user } = await store.create(newUser('alice'));
  assert.equal(store.unhealthyReason, undefined);
  const [first, second] = cluster.members;
  // One is killed, and one hangs with its connections open.
  await cluster.kill(first!);
  second!.child!.kill('SIGSTOP');
  const waits: number[] = [];
  const rejects = async (run: () => Promise<unknown>): Promise<string> => {
    const from = performance.now();
    const outcome = await run().then(() => 'success', (error: unknown) => (error instanceof RegistrarError ? error.code : String(error)));
    waits.push(performance.now() - from);
    return outcome;
  };
  const codes = await Promise.all([
    rejects(() => store.findRecord('alice')), rejects(async () => store.findPublic('alice')), rejects(() => store.page(undefined, 5)),
    rejects(() => store.create(newUser('bob'))), rejects(() => store.replace(user, { kdf: 'x', password: 'y' })), rejects(() => store.remove(user, 'now')),
    ...Array.from({ length: 5 }, () => rejects(() => store.create(newUser('carol')))),
  ]);
  assert.deepEqual([...new Set(codes)].sort().filter((code) => code !== 'outcome-unknown'), ['unavailable']);
  assert.deepEqual(codes.slice(0, 3), ['unavailable', 'unavailable', 'unavailable']);
  assert.ok(Math.max(...waits) < 5_000, `${Math.max(...waits)} ms`);
  await until(() => store.unhealthyReason !== undefined, 'the store is not ready');
  t.diagnostic(`rejected after ${Math.round(Math.max(...waits))} ms at most`);
  second!.child!.kill('SIGCONT');
  cluster.launch(first!);
  await until(() => store.findRecord('alice').then(() => true, () => false), 'a read succeeds');
  assert.deepEqual(await store.findRecord('alice'), user);
  await until(() => store.unhealthyReason === undefined, 'the store is ready');
  // A create of unknown outcome may have been done, once.
  const { created, user: carol } = await store.create(newUser('carol'));
  assert.ok(created || codes.slice(6).includes('outcome-unknown'));
  const users = (await store.recordPage(undefined)).users;
  assert.equal(new Set(users.map(({ id }) => id)).size, users.length);
  assert.deepEqual(users.filter(({ login }) => login === 'carol'), [carol]);
});

trial('etcd: an exceeded quota is "storage-full", reads succeed, and writes recover when the alarm is disarmed', { needs: ['etcd'] }, async (t) => {
  const { cluster, stores: [store] } = await start(t, 1, { members: 1, args: ['--quota-backend-bytes', String(4 << 20)] });
  assert.ok(store !== undefined);
  const { user } = await store.create(newUser('alice'));
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  // Other data fills the quota.
  const filler = base64('x'.repeat(500_000));
  await assert.rejects(async () => {
    for (let n = 0; n < 100; n++) await cluster.ask('/v3/kv/put', { key: base64('/filler'), value: filler });
  }, /database space exceeded/);
  const isFull = (error: unknown): boolean => error instanceof RegistrarError && error.code === 'storage-full';
  await assert.rejects(store.create(newUser('bob')), isFull);
  await assert.rejects(store.replace(user, { kdf: 'pbkdf2:sha256:1', password: 'x$y', changed: 'now' }), isFull);
  await assert.rejects(store.remove(user, 'now'), isFull);
  await assert.rejects(store.createMany([newUser('carol')]), isFull);
  assert.deepEqual(await store.findRecord('alice'), user);
  assert.equal((await store.findPublic('alice'))?.id, user.id);
  assert.equal((await store.page(undefined, 10)).users.length, 1);
  await until(() => /NOSPACE/.test(store.unhealthyReason ?? ''), 'the alarm is reported');
  // The operator compacts, defragments and disarms.
  const { header } = await cluster.ask('/v3/kv/range', { key: base64('/filler') });
  await cluster.ask('/v3/kv/compaction', { revision: header.revision, physical: true });
  await cluster.ask('/v3/maintenance/defragment', {});
  await cluster.ask('/v3/maintenance/alarm', { action: 'DEACTIVATE', memberID: header.member_id, alarm: 'NOSPACE' });
  assert.equal((await store.create(newUser('bob'))).created, true);
  assert.equal(await store.remove(user, 'now'), true);
  await until(() => store.unhealthyReason === undefined, 'the store is ready');
});

const cut = Math.max(1, Math.round(trials / 5));
trial(`etcd: the leader and a follower are cut off from the others ${cut} times each: no false response, and they recover`, { needs: ['etcd', 'ip'], cannot: () => cannotUnshare('--net', '--mount') }, async (t) => {
  const command = ['--net', '--mount', process.execPath, ...loader, 'test/helper/etcd-partition.ts', String(cut)];
  const { stdout } = await promisify(execFile)('unshare', command, { cwd: root, env: childEnvironment(), timeout: 120_000 + cut * 60_000 });
  const { violations, errors, unexpected, alone, recovered, operations: count } = JSON.parse(stdout);
  assert.deepEqual([violations, unexpected], [[], []]);
  // A store that reaches only the lost member gets no response until that member is back.
  assert.deepEqual([...new Set(alone)].sort().filter((code) => code !== 'outcome-unknown'), ['unavailable']);
  assert.equal(recovered, cut * 2);
  t.diagnostic(`${count} operations; not done: ${JSON.stringify(errors)}; requests of a store that reaches only the lost member: ${alone.length}, all rejected`);
});

const password = 'correct horse';
const basic = (login: string, word: string): Record<string, string> => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

let cluster: Cluster;
beforeTrials(async () => {
  cluster = await Cluster.start();
});
afterTrials(() => cluster.stop());

/** Services with a data directory each. */
async function open(t: TestContext, count: number, prefix = newPrefix()): Promise<Service[]> {
  const { endpoints } = cluster;
  const args = [...cheap, '--etcd', endpoints.join(','), '--etcd-prefix', prefix];
  return Promise.all(Array.from({ length: count }, () => openService(t, args, { REGISTRAR_ADMIN_TOKEN: adminToken })));
}

async function register(ask: Ask, login: string, key?: string): Promise<number> {
  const headers: Record<string, string> = { ...bearer(adminToken), ...(key === undefined ? {} : { 'idempotency-key': key }) };
  return (await ask('/user/', { method: 'POST', body: { login, password }, headers })).status;
}

trial('cluster: the six steps through two services, and no users\' file', { needs: ['etcd'] }, async (t) => {
  const [one, two] = (await open(t, 2)) as [Service, Service];
  for (const [first, second] of [['alice', 'bob'], ['алиса', 'борис']] as const) {
    assert.equal(await register(one.ask, first), 201);
    assert.equal(await register(two.ask, second), 201);
    assert.equal(await register(two.ask, first), 409);
    const path = `/user/${encodeURIComponent(first)}`;
    const read = await two.ask(path, { headers: basic(first, password) });
    assert.deepEqual([read.status, read.json.login], [200, first]);
    assert.equal((await two.ask(path, { headers: { ...basic(first, password), 'if-none-match': String(read.headers.etag) } })).status, 304);
    assert.equal((await one.ask(path, { method: 'DELETE', headers: basic(first, password) })).status, 204);
    assert.equal((await two.ask(path, { headers: bearer(adminToken) })).status, 404);
  }
  assert.equal(existsSync(join(one.data, 'users.jsonl')), false);
});

trial('cluster: of concurrent registrations of one login through three services one succeeds, and a repetition with its key returns it', { needs: ['etcd'] }, async (t) => {
  const services = await open(t, 3);
  for (let n = 0; n < 10; n++) {
    const statuses = await Promise.all(services.flatMap(({ ask }) => [register(ask, `user-${n}`), register(ask, `user-${n}`)]));
    assert.deepEqual(statuses.sort(), [201, 409, 409, 409, 409, 409]);
  }
  const repeats = await Promise.all(services.map(({ ask }) => register(ask, 'alice', 'one-key')));
  assert.deepEqual(repeats, [201, 201, 201]);
  const { json } = await services[0]!.ask('/user/?limit=5', { headers: bearer(adminToken) });
  assert.equal(json.users.length, 5);
  const rest = await services[1]!.ask(json.next, { headers: bearer(adminToken) });
  const logins = [...json.users, ...rest.json.users].map(({ login }: { login: string }) => login);
  const all = await services[2]!.ask('/user/', { headers: { ...bearer(adminToken), accept: 'application/x-ndjson' } });
  assert.deepEqual(all.text.trimEnd().split('\n').slice(0, logins.length).map((line) => JSON.parse(line).login), logins);
  assert.equal(all.text.trimEnd().split('\n').length, 11);
});

trial('cluster: a session of one service is valid at the other at once, and ends there at once', { needs: ['etcd'] }, async (t) => {
  const prefix = newPrefix();
  const [one, two] = (await open(t, 2, prefix)) as [Service, Service];
  await register(one.ask, 'alice');
  const signIn = async ({ ask }: Service, word = password): Promise<string> => {
    const { status, json } = await ask('/session', { method: 'POST', body: { login: 'alice', password: word } });
    assert.equal(status, 201);
    return json.token;
  };
  // The first service creates the signing key; the second has not read it yet.
  const token = await signIn(one);
  assert.equal((await two.ask('/session', { headers: bearer(token) })).status, 200);
  assert.deepEqual((await two.ask('/.well-known/jwks.json')).json, (await one.ask('/.well-known/jwks.json')).json);
  assert.equal((await two.ask('/session', { headers: basic('alice', password) })).status, 200);
  const change = { password: 'battery staple', current: password };
  assert.equal((await one.ask('/user/alice', { method: 'PATCH', body: change, headers: bearer(token) })).status, 200);
  assert.equal((await two.ask('/session', { headers: bearer(token) })).status, 401);
  assert.equal((await two.ask('/session', { headers: basic('alice', password) })).status, 401, 'nor by a cached password');
  const next = await signIn(two, 'battery staple');
  assert.equal((await one.ask('/user/alice/session', { method: 'DELETE', headers: bearer(next) })).status, 204);
  assert.equal((await two.ask('/session', { headers: bearer(next) })).status, 401);
  const last = await signIn(one, 'battery staple');
  const headers = bearer(last);
  for (const { ask } of [one, two]) assert.equal((await ask('/session', { headers })).status, 200);
  const revoked = await runCommand(['token', '--revoke-keys', '--etcd', cluster.endpoints.join(','), '--etcd-prefix', prefix]);
  assert.equal(revoked.status, 0, revoked.stderr);
  for (const { ask } of [one, two]) assert.equal((await ask('/session', { headers })).status, 401, 'revoked when the command returns');
  for (const { ask } of [one, two]) assert.equal((await ask('/.well-known/jwks.json')).json.keys[0].kid, revoked.stdout.trim());
});

trial('cluster: a link of one service works once at another one, and a disabled account is disabled in both at once', { needs: ['etcd'] }, async (t) => {
  const prefix = newPrefix();
  const [one, two] = (await open(t, 2, prefix)) as [Service, Service];
  const admin = bearer(adminToken);
  const use = async ({ ask }: Service, token: string, word: string): Promise<number> => (
    (await ask('/password', { method: 'POST', body: { token, password: word } })).status
  );
  const issue = ({ ask }: Service, login: string): ReturnType<Ask> => ask(`/user/${login}/password-link`, { method: 'POST', headers: admin });
  const invited = await issue(one, 'alice');
  assert.equal(invited.status, 201);
  assert.equal((await two.ask('/user/alice', { headers: admin })).json.invited, true);
  assert.equal((await two.ask('/session', { headers: basic('alice', '') })).status, 401);
  const used = await Promise.all([one, two].map((service) => use(service, invited.json.token, password)));
  assert.deepEqual(used.toSorted(), [200, 403]);
  for (const { ask } of [one, two]) assert.equal((await ask('/session', { headers: basic('alice', password) })).status, 200);
  const reset = await issue(two, 'alice');
  assert.equal(await use(one, reset.json.token, 'battery staple'), 200);
  assert.equal((await two.ask('/session', { headers: basic('alice', password) })).status, 401, 'nor by a cached password');
  const { json: { token } } = await one.ask('/session', { method: 'POST', body: { login: 'alice', password: 'battery staple' } });
  const unused = await issue(one, 'alice');
  const command = ['user', 'disable', 'alice', '--etcd', cluster.endpoints.join(','), '--etcd-prefix', prefix];
  assert.equal((await runCommand(command)).status, 0);
  for (const { ask } of [one, two]) {
    assert.equal((await ask('/session', { headers: basic('alice', 'battery staple') })).json.type, 'urn:registrar:disabled');
    assert.equal((await ask('/session', { headers: bearer(token) })).status, 401);
  }
  assert.equal((await issue(two, 'alice')).status, 409);
  const enabled = await two.ask('/user/alice', { method: 'PATCH', body: { disabled: false }, headers: admin });
  assert.equal(enabled.status, 200);
  assert.equal(await use(one, unused.json.token, password), 403, 'enabling does not revive a link');
  assert.equal((await one.ask('/session', { headers: basic('alice', 'battery staple') })).status, 200);
  const exported = await runCommand(['export', '--etcd', cluster.endpoints.join(','), '--etcd-prefix', prefix]);
  assert.match(exported.stdout, /"login":"alice"/);
});

trial('cluster: while the leader is killed every response is true, and registrations succeed again', { needs: ['etcd'] }, async (t) => {
  const services = await open(t, 2);
  const created = new Set<string>();
  let isOver = false;
  const workers = services.flatMap(({ ask }, service) => [0, 1, 2, 3].map(async (worker) => {
    for (let n = 0; !isOver; n++) {
      const login = `u-${service}-${worker}-${n}`;
      const status = await register(ask, login);
      if (status === 201) created.add(login);
      else assert.equal(status, 503, login);
    }
  }));
  const leader = await cluster!.leader();
  while (created.size < 20) await new Promise((resolve) => setImmediate(resolve));
  await cluster!.kill(leader);
  const before = created.size;
  while (created.size < before + 50) await new Promise((resolve) => setImmediate(resolve));
  isOver = true;
  await Promise.all(workers);
  cluster!.launch(leader);
  await cluster!.ready();
  const { text } = await services[1]!.ask('/user/', { headers: { ...bearer(adminToken), accept: 'application/x-ndjson' } });
  const users = text.trimEnd().split('\n').map((line) => JSON.parse(line));
  for (const login of created) assert.ok(users.some((user) => user.login === login), login);
  assert.equal(new Set(users.map(({ id }) => id)).size, users.length);
});

trial('cluster: without etcd the service does not start, and names the reason', { needs: ['etcd'] }, async (t) => {
  await assert.rejects(openService(t, [...cheap, '--open', '--etcd', 'http://127.0.0.1:9']), { code: 'cannot-start', message: /Cannot use etcd at http:\/\/127\.0\.0\.1:9/ });
  await assert.rejects(openService(t, [...cheap, '--open', '--etcd', 'http://192.0.2.1:2379']), { code: 'usage', message: /https/ });
});

trial('cluster: services succeed without one member, are not ready without a majority, and recover by themselves', { needs: ['etcd'] }, async (t) => {
  const own = await Cluster.start();
  t.after(() => own.stop());
  const args = [...cheap, '--open', '--etcd', own.endpoints.join(',')];
  const [first, second] = await Promise.all([spawnService(t, { args }), spawnService(t, { args })]);
  assert.equal((await first.ask('/user/', { method: 'POST', body: { login: 'alice', password: 'correct horse' } })).status, 201);

  await own.kill(await own.leader());
  await until(async () => (await first.ask('/user/', { method: 'POST', body: { login: 'bob', password: 'correct horse' } })).status === 409, 'bob is created');
  assert.equal((await second.ask('/user/bob')).status, 200);

  const [left, other] = own.members.filter(({ child }) => child !== undefined);
  await own.kill(other!);
  for (const { ask } of [first, second]) {
    assert.equal((await ask('/user/alice')).status, 503);
    const refused = await ask('/user/', { method: 'POST', body: { login: 'carol', password: 'correct horse' } });
    assert.equal(refused.status, 503);
    assert.doesNotMatch(refused.text, new RegExp(new URL(left!.url).host), 'the address of etcd is not in the response');
    await until(async () => (await ask('/health/ready')).status === 503, 'the service is not ready');
    assert.equal((await ask('/health/live')).status, 200);
  }
  own.launch(other!);
  for (const { ask } of [first, second]) {
    await until(async () => (await ask('/user/alice')).status === 200, 'a read succeeds');
    await until(async () => (await ask('/health/ready')).status === 200, 'the service is ready');
  }
  for (const { terminate, ended } of [first, second]) {
    terminate();
    assert.equal(await ended, 0);
  }
});
