/** Leaders killed, quorums lost, members cut off, quotas full: a little of each; more with `make etcd-trials TRIALS=50`. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { RegistrarError } from '../../../lib/errors.ts';
import { EtcdUserStore } from '../../../lib/store/etcd/store.ts';
import { Cluster, newPrefix, withoutEtcd } from '../../helper/etcd-cluster.ts';
import type { ClusterOptions, Member } from '../../helper/etcd-cluster.ts';
import { startJob } from '../../helper/etcd-load.ts';
import { isWrite, startGateway } from '../../helper/gateway.ts';
import type { Fate, Gateway } from '../../helper/gateway.ts';
import { cannotUnshare, testIf } from '../../helper/possible.ts';
import { loader, root, until, without } from '../../helper/temporary.ts';
import { findLies, runLoad } from '../../helper/user-history.ts';
import type { Load } from '../../helper/user-history.ts';
import { candidate } from '../../helper/user-store-contract.ts';

const skip = withoutEtcd;
const trials = Number(process.env.TRIALS ?? 2);
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

/** Nothing may fail but with what says that nothing was done, or that nobody knows. */
function assertExplained({ errors }: Load): void {
  const known = new Set(['unavailable to a read', 'unavailable to a write', 'outcome-unknown to a write']);
  assert.deepEqual([...errors.keys()].filter((name) => !known.has(name)), []);
}

test(`etcd: ${operations} operations of three stores on the same users are one history`, { skip }, async (t) => {
  const { stores } = await start(t, 3);
  const load = await runLoad(stores, { logins: someLogins(Math.ceil(operations / 60)), clients: 48, operations });
  assert.deepEqual(findLies(load.history), []);
  assertExplained(load);
  // A busy machine may be late for some.
  assert.ok(load.history.length > operations * 0.95, describeLoad(load));
  t.diagnostic(describeLoad(load));
});

test(`etcd: a store that reads of one member what may be old is found out`, { skip }, async (t) => {
  const { stores } = await start(t, 3);
  // The fault: what was read is remembered for a moment, as a cache in front of the store would.
  const cached = new Map<string, { at: number; found: ReturnType<EtcdUserStore['find']> }>();
  const faulty: EtcdUserStore = Object.assign(Object.create(stores[0]!), {
    create: (...args: Parameters<EtcdUserStore['create']>) => stores[0]!.create(...args),
    replace: (...args: Parameters<EtcdUserStore['replace']>) => stores[0]!.replace(...args),
    remove: (...args: Parameters<EtcdUserStore['remove']>) => stores[0]!.remove(...args),
    find: (login: string) => {
      const known = cached.get(login);
      if (known !== undefined && performance.now() - known.at < 50) return known.found;
      const found = stores[0]!.find(login);
      cached.set(login, { at: performance.now(), found });
      return found;
    },
  });
  const { history } = await runLoad([stores[1]!, stores[2]!, faulty], { logins: someLogins(5), clients: 12, operations: 600 });
  assert.notDeepEqual(findLies(history), []);
});

/** When etcd itself carries something out again, as soon as anybody can know. */
async function writeBare(cluster: Cluster, members: readonly Member[]): Promise<number> {
  for (let n = 0; ; n++) {
    const put = cluster.ask('/v3/kv/put', { key: 'L2JhcmU=', value: '' }, members[n % members.length]!);
    const isDone = put.then(() => true, () => false);
    if (await Promise.race([isDone, new Promise((resolve) => setTimeout(resolve, 100, false))])) return performance.now();
  }
}

test(`etcd: the leader is killed under load ${trials} times, and nothing that was acknowledged is lost, nothing is there twice`, { skip }, async (t) => {
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
      const bare = writeBare(cluster, others);
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
  assert.deepEqual(findLies(load.history), []);
  assertExplained(load);
  const rows = times.map(({ killedAt, electedAt, bare }) => {
    const success = successes.find((at) => at >= electedAt)!;
    return { elected: electedAt - killedAt, bare: bare - killedAt, success: success - killedAt, since: success - electedAt };
  });
  t.diagnostic(describeLoad(load));
  const round = (values: readonly number[]): string => `median ${Math.round(median(values))} ms, max ${Math.round(Math.max(...values))} ms`;
  t.diagnostic(`from kill -9 to the election: ${round(rows.map(({ elected }) => elected))}; from there to the first success: ${round(rows.map(({ since }) => since))}`);
  t.diagnostic(`from kill -9 to the first success: ${round(rows.map(({ success }) => success))}; of a bare write: ${round(rows.map(({ bare }) => bare))}`);
});

test('etcd: a network that loses requests and answers, and delivers some long after, makes nobody say anything false', { skip }, async (t) => {
  const { cluster } = await start(t, 0);
  const prefix = newPrefix();
  const gateways: Gateway[] = [];
  for (const { url } of cluster.members) gateways.push(await startGateway(t, url));
  const stores = await Promise.all([1, 2, 3].map(() => EtcdUserStore.open({ endpoints: gateways.map(({ url }) => url), prefix })));
  const fates: readonly Fate[] = ['lose', 'lose', 'hold', 'hang', { status: 503, body: '{"error":"etcdserver: request timed out","code":14}' }];
  let isOver = false;
  let faults = 0;
  for (const gateway of gateways) {
    gateway.fate = (asked) => {
      if (Math.random() > (isWrite(asked) ? 0.08 : 0.01)) return 'pass';
      faults++;
      return fates[Math.floor(Math.random() * fates.length)]!;
    };
  }
  const releasing = (async () => {
    for (let n = 0; !isOver; n++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      await gateways[n % gateways.length]!.release();
    }
    for (const gateway of gateways) await gateway.release();
  })();
  const successes: number[] = [];
  const load = await runLoad(stores, { logins: someLogins(20 * trials), clients: 24, until: () => successes.length >= 600 * trials, successes });
  isOver = true;
  await releasing;
  for (const gateway of gateways) gateway.fate = () => 'pass';
  assert.deepEqual(findLies(load.history), []);
  assertExplained(load);
  t.diagnostic(`${faults} faults; ${describeLoad(load)}`);
  // What came late has changed nothing that the index of ids would not know of.
  await assertWhole(cluster, prefix);
  await Promise.all(stores.map((store) => store.close()));
});

/** Every user has one id, every id one user, and the counter is above all of them. */
async function assertWhole(cluster: Cluster, prefix: string): Promise<number> {
  // In one look, since what a killed service sent may still arrive.
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

test(`etcd: services that are killed while they create users leave ids unused, and none used twice, ${trials * 3} times`, { skip }, async (t) => {
  const { cluster } = await start(t, 0);
  const prefix = '/killed/';
  let last = 0;
  for (let n = 0; n < trials; n++) {
    const children = await Promise.all([0, 1, 2].map((which) =>
      startJob({ through: 'store', do: 'create', endpoints: cluster.endpoints, prefix, name: `${n}-${which}`, clients: 16, users: 0 })));
    for (const child of children) child.send(600);
    await until(async () => (await cluster.read(`${prefix}user/`)).size > last + 200, 'users');
    for (const child of children) child.kill('SIGKILL');
    last = await assertWhole(cluster, prefix);
  }
  t.diagnostic(`${last} users`);
});

test('etcd: without a quorum everything is rejected before etcd itself would say so, nothing succeeds, and it heals by itself', { skip }, async (t) => {
  const { cluster, stores: [store] } = await start(t, 1);
  assert.ok(store !== undefined);
  const { user } = await store.create(candidate('alice'));
  assert.deepEqual(await store.health(), { ready: true });
  const [first, second] = cluster.members;
  // One is gone, and one hangs with its connections open.
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
    rejects(() => store.find('alice')), rejects(async () => store.view('alice')), rejects(() => store.page(undefined, 5)),
    rejects(() => store.create(candidate('bob'))), rejects(() => store.replace(user, { kdf: 'x', password: 'y' })), rejects(() => store.remove(user, 'now')),
    ...Array.from({ length: 5 }, () => rejects(() => store.create(candidate('carol')))),
  ]);
  assert.deepEqual([...new Set(codes)].sort().filter((code) => code !== 'outcome-unknown'), ['unavailable']);
  assert.deepEqual(codes.slice(0, 3), ['unavailable', 'unavailable', 'unavailable']);
  assert.ok(Math.max(...waits) < 5_000, `${Math.max(...waits)} ms, and etcd says so after 7 s`);
  assert.equal((await store.health()).ready, false);
  t.diagnostic(`rejected after ${Math.round(Math.max(...waits))} ms at most`);
  second!.child!.kill('SIGCONT');
  cluster.launch(first!);
  await until(() => store.find('alice').then(() => true, () => false), 'it is back');
  assert.deepEqual(await store.find('alice'), user);
  await until(async () => (await store.health()).ready, 'it is ready');
  // What was of unknown outcome may have been done, once.
  const { created, user: carol } = await store.create(candidate('carol'));
  assert.ok(created || codes.slice(6).includes('outcome-unknown'));
  const users = (await store.records(undefined)).users;
  assert.equal(new Set(users.map(({ id }) => id)).size, users.length);
  assert.deepEqual(users.filter(({ login }) => login === 'carol'), [carol]);
});

test('etcd: a full quota is "storage-full", reads go on, and it heals when the alarm is disarmed', { skip }, async (t) => {
  const { cluster, stores: [store] } = await start(t, 1, { members: 1, args: ['--quota-backend-bytes', String(4 << 20)] });
  assert.ok(store !== undefined);
  const { user } = await store.create(candidate('alice'));
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  // Somebody else's data fills it.
  const filler = base64('x'.repeat(500_000));
  await assert.rejects(async () => {
    for (let n = 0; n < 100; n++) await cluster.ask('/v3/kv/put', { key: base64('/filler'), value: filler });
  }, /database space exceeded/);
  const isFull = (error: unknown): boolean => error instanceof RegistrarError && error.code === 'storage-full';
  await assert.rejects(store.create(candidate('bob')), isFull);
  await assert.rejects(store.replace(user, { kdf: 'pbkdf2:sha256:1', password: 'x$y', changed: 'now' }), isFull);
  await assert.rejects(store.remove(user, 'now'), isFull);
  await assert.rejects(store.createMany([candidate('carol')]), isFull);
  assert.deepEqual(await store.find('alice'), user);
  assert.equal((await store.view('alice'))?.id, user.id);
  assert.equal((await store.page(undefined, 10)).users.length, 1);
  const health = await store.health();
  assert.equal(health.ready, false);
  assert.match(health.reason ?? '', /NOSPACE/);
  // What an operator does: compact, defragment, disarm.
  const { header } = await cluster.ask('/v3/kv/range', { key: base64('/filler') });
  await cluster.ask('/v3/kv/compaction', { revision: header.revision, physical: true });
  await cluster.ask('/v3/maintenance/defragment', {});
  await cluster.ask('/v3/maintenance/alarm', { action: 'DEACTIVATE', memberID: header.member_id, alarm: 'NOSPACE' });
  assert.equal((await store.create(candidate('bob'))).created, true);
  assert.equal(await store.remove(user, 'now'), true);
  await until(async () => (await store.health()).ready, 'it is ready again');
});

const cut = Math.max(1, Math.round(trials / 5));
testIf(cannotUnshare('--net', '--mount'), `etcd: members that are cut off from the others say nothing false, and come back, ${cut} times`, async (t) => {
  const command = ['--net', '--mount', process.execPath, ...loader, 'test/trial/etcd-partition.ts', String(cut)];
  const { stdout } = await promisify(execFile)('unshare', command, { cwd: root, timeout: 120_000 + cut * 60_000 });
  const { lies, errors, unexplained, alone, healed, operations: count } = JSON.parse(stdout);
  assert.deepEqual([lies, unexplained], [[], []]);
  // Who can ask the one that is cut off only is answered nothing at all, and everything again when it is back.
  assert.deepEqual([...new Set(alone)].sort().filter((code) => code !== 'outcome-unknown'), ['unavailable']);
  assert.equal(healed, cut * 2);
  t.diagnostic(`${count} operations; not done: ${JSON.stringify(errors)}; of one who can ask the lost member only: ${alone.length}, all rejected`);
}, skip || without('ip'));
