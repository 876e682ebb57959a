/** Two services on one etcd cluster, as processes over HTTPS: whatever one was told, the other knows. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { TestContext } from 'node:test';
import { Cluster, newPrefix, withoutEtcd } from './helper/etcd-cluster.ts';
import { adminToken, cheap, openService } from './helper/service.ts';
import type { Ask, Service } from './helper/service.ts';

const password = 'correct horse';
const basic = (login: string, word: string): Record<string, string> => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

let cluster: Cluster | undefined;
before(async () => {
  if (withoutEtcd === false) cluster = await Cluster.start();
});
after(() => cluster?.stop());

/** So many services, each with a data directory of its own. */
async function open(t: TestContext, count: number): Promise<Service[]> {
  const { endpoints } = cluster ?? assert.fail();
  const args = [...cheap, '--etcd', endpoints.join(','), '--etcd-prefix', newPrefix()];
  return Promise.all(Array.from({ length: count }, () => openService(t, args, { REGISTRAR_ADMIN_TOKEN: adminToken })));
}

async function register(ask: Ask, login: string, key?: string): Promise<number> {
  const headers: Record<string, string> = { ...bearer(adminToken), ...(key === undefined ? {} : { 'idempotency-key': key }) };
  return (await ask('/user/', { method: 'POST', body: { login, password }, headers })).status;
}

test('cluster: the six steps through two services, and no users\' file', { skip: withoutEtcd }, async (t) => {
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

test('cluster: of one login that is registered through three services at once, one is, and a repeat with the same key is that one', { skip: withoutEtcd }, async (t) => {
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

test('cluster: a session of one service is good at the other at once, and ends there at once', { skip: withoutEtcd }, async (t) => {
  const [one, two] = (await open(t, 2)) as [Service, Service];
  await register(one.ask, 'alice');
  const signIn = async ({ ask }: Service, word = password): Promise<string> => {
    const { status, json } = await ask('/session', { method: 'POST', body: { login: 'alice', password: word } });
    assert.equal(status, 201);
    return json.token;
  };
  // The key is made by whoever signs first; the other has never seen it.
  const token = await signIn(one);
  assert.equal((await two.ask('/session', { headers: bearer(token) })).status, 200);
  assert.deepEqual((await two.ask('/.well-known/jwks.json')).json, (await one.ask('/.well-known/jwks.json')).json);
  assert.equal((await two.ask('/session', { headers: basic('alice', password) })).status, 200);
  const change = { password: 'battery staple', current: password };
  assert.equal((await one.ask('/user/alice', { method: 'PATCH', body: change, headers: bearer(token) })).status, 200);
  assert.equal((await two.ask('/session', { headers: bearer(token) })).status, 401);
  assert.equal((await two.ask('/session', { headers: basic('alice', password) })).status, 401, 'not even what was remembered');
  const next = await signIn(two, 'battery staple');
  assert.equal((await one.ask('/session', { method: 'DELETE', headers: bearer(next) })).status, 204);
  assert.equal((await two.ask('/session', { headers: bearer(next) })).status, 401);
});

test('cluster: while its leader is killed every answer is true, and it goes on', { skip: withoutEtcd }, async (t) => {
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

test('cluster: etcd that is not there keeps the service from starting, with a reason', { skip: withoutEtcd }, async (t) => {
  await assert.rejects(openService(t, [...cheap, '--etcd', 'http://127.0.0.1:9']), { code: 'cannot-start', message: /Cannot use etcd at http:\/\/127\.0\.0\.1:9/ });
  await assert.rejects(openService(t, [...cheap, '--etcd', 'http://192.0.2.1:2379']), { code: 'usage', message: /https/ });
});
