/**
 * What a store in etcd does in a second, against the same calls straight to the gateway: rows of `test/bench/bench.ts`. Every
 * client is in a process of its own, which this file is, too, when it is run.
 */

import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { fileURLToPath } from 'node:url';
import { get, isAbsent, keysOf, put, transactionRequest } from '../../lib/store/etcd/gateway.ts';
import { EtcdUserStore } from '../../lib/store/etcd/etcd-user-store.ts';
import { encodeRecord } from '../../lib/store/user-record.ts';
import { Cluster } from '../helper/etcd-cluster.ts';
import type { Sides } from './figures.ts';
import { loader } from '../helper/temporary.ts';

export interface Job {
  /** The store, or the gateway and nothing in between. */
  readonly through: 'store' | 'gateway';
  readonly do: 'create' | 'find';
  readonly endpoints: readonly string[];
  readonly prefix: string;
  /** So that no two processes create the same logins. */
  readonly name: string;
  readonly clients: number;
  readonly users: number;
}

const credential = { kdf: 'pbkdf2:sha256:600000', password: `${'0'.repeat(32)}$${'1'.repeat(64)}` };
const registered = '2026-11-22T15:00:00.000Z';

/** So many clients ask each process, one thing after the other each. */
const clients = 64;

const filledMax = 20_000;

/** For `test/bench/bench.ts`, by the name of the row. `users` is among how many is read, 20,000 at most. */
export const etcdMeasures: Readonly<Record<string, (flags: { readonly users: number }) => Promise<Sides>>> = {
  'etcd-find': (flags) => against(flags, 'gateway', 'find'),
  'etcd-create': (flags) => against(flags, 'gateway', 'create'),
  'etcd-create-2': (flags) => against(flags, 'store', 'create', 2),
  'etcd-create-3': (flags) => against(flags, 'store', 'create', 3),
};

/** So many services with a store ÷ the same calls straight to the gateway, or one service. Users are counted at the end. */
async function against(flags: { readonly users: number }, through: Job['through'], what: Job['do'], services = 1): Promise<Sides> {
  const users = Math.min(flags.users, filledMax);
  const cluster = await Cluster.start();
  const prefix = '/bench/';
  const store = await EtcdUserStore.open({ endpoints: cluster.endpoints, prefix });
  for (let from = 0; from < users; from += 5_000) {
    await store.createMany(Array.from({ length: Math.min(5_000, users - from) }, (_, n) => ({ login: `user-${from + n}`, registered, ...credential })));
  }
  await store.close();
  let turns = 0;
  let created = 0;
  const turn = (by: Job['through'], count: number) => async (seconds: number): Promise<{ value: number }> => {
    const names = Array.from({ length: count }, (_, n) => `turn-${++turns}-${n}`);
    const jobs = names.map((name): Job => ({ through: by, do: what, endpoints: cluster.endpoints, prefix, name, clients, users }));
    const { done, all } = await runJobs(jobs, seconds);
    if (what === 'create') created += all;
    return { value: done / seconds };
  };
  const end = async (): Promise<void> => {
    const there = (await cluster.read(`${prefix}user/`)).size;
    await cluster.stop();
    if (there !== users + created) throw new Error(`${there} users are in etcd, not ${users + created}`);
  };
  return { unit: '/s', service: turn('store', services), baseline: turn(through, 1), end, ...(services === 1 ? { mark: 0.7 } : {}) };
}

interface Done {
  /** Answered within the time. */
  readonly done: number;
  /** With those that were answered after it. */
  readonly all: number;
}

/** A process that waits to be sent how many seconds it is to work. */
export async function startJob(job: Job): Promise<ChildProcess> {
  const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(job)], { execArgv: [...loader] });
  await said(child);
  return child;
}

async function runJobs(jobs: readonly Job[], seconds: number): Promise<Done> {
  const children = await Promise.all(jobs.map(startJob));
  const counts = children.map(said);
  for (const child of children) child.send(seconds);
  const each = await Promise.all(counts);
  for (const child of children) child.disconnect();
  return each.reduce((sum, { done, all }) => ({ done: sum.done + done, all: sum.all + all }));
}

async function said(child: ChildProcess): Promise<Done> {
  const ended = once(child, 'exit').then(([code]) => Promise.reject(new Error(`a client ended with ${code}`)));
  const [message] = await Promise.race([once(child, 'message'), ended]);
  return message as Done;
}

/** What a client does once. */
async function open(job: Job): Promise<(n: number) => Promise<unknown>> {
  const { endpoints, prefix, name, users } = job;
  const some = (): string => `user-${Math.floor(Math.random() * users)}`;
  if (job.through === 'store') {
    const store = await EtcdUserStore.open({ endpoints, prefix });
    if (job.do === 'find') {
      return async () => {
        const login = some();
        if ((await store.findRecord(login))?.login !== login) throw new Error(`${login} was not found`);
      };
    }
    return async (n) => {
      const { created } = await store.create({ login: `${name}-${n}`, registered, ...credential });
      if (!created) throw new Error(`${name}-${n} was not created`);
    };
  }
  const keys = keysOf(prefix);
  const agents = endpoints.map(() => new Agent({ keepAlive: true, maxSockets: clients }));
  let at = 0;
  const post = async (path: string, body: string): Promise<unknown> => {
    const which = at++ % endpoints.length;
    const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) };
    const request = httpRequest(endpoints[which]! + path, { method: 'POST', agent: agents[which], headers });
    request.end(body);
    const [response] = await once(request, 'response');
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    if (response.statusCode !== 200) throw new Error(`${path}: ${response.statusCode}`);
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  };
  if (job.do === 'find') return () => post('/v3/kv/range', JSON.stringify({ key: Buffer.from(keys.user(some())).toString('base64') }));
  // Ids that no store gives, and that no other process uses.
  const base = 2 ** 48 + Math.floor(Math.random() * 2 ** 48);
  return (n) => {
    const user = { id: base + n, login: `${name}-${n}`, registered, version: 1, ...credential };
    const [record, entry] = [keys.user(user.login), keys.id(user.id)];
    const compare = [isAbsent(record), isAbsent(entry)];
    const success = [put(record, encodeRecord(user)), put(entry, user.login)];
    return post('/v3/kv/txn', transactionRequest({ compare, success, failure: [get(record)] }).body);
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.send !== undefined && process.argv[2] !== undefined) {
  const job: Job = JSON.parse(process.argv[2]);
  const act = await open(job);
  const heard = once(process, 'message');
  process.send!({ done: 0, all: 0 });
  const [seconds] = await heard;
  const end = performance.now() + Number(seconds) * 1_000;
  let begun = 0;
  let done = 0;
  await Promise.all(Array.from({ length: job.clients }, async () => {
    while (performance.now() < end) {
      await act(begun++);
      if (performance.now() < end) done++;
    }
  }));
  process.send!({ done, all: begun });
  process.once('disconnect', () => process.exit());
}
