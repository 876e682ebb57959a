/** Telemetry: the log, metrics, and readiness, of a service in this process. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { LoggedRequest } from '../../lib/auth/request-context.ts';
import { Log } from '../../lib/telemetry/log.ts';
import { Metrics } from '../../lib/telemetry/metrics.ts';
import type { Output } from '../../lib/telemetry/log.ts';
import { Telemetry } from '../../lib/telemetry/telemetry.ts';
import { runCommand } from '../helper/command.ts';
import { exercise } from '../helper/exercise.ts';
import { adminToken, cheap, openService } from '../helper/service.ts';
import type { Service } from '../helper/service.ts';
import { until } from '../helper/temporary.ts';

test('health: it is ready until a check says why not, and never again once it drains', async () => {
  let reason: string | undefined;
  const telemetry = new Telemetry(undefined);
  const sources = { version: '', connections: () => 0, hashQueue: () => ({ queued: 0, rejected: 0 }), store: () => ({}), certificateExpires: () => undefined };
  telemetry.start(sources, [() => undefined, () => reason]);
  assert.equal(telemetry.unhealthyReason(), undefined);
  reason = 'no room';
  assert.equal(telemetry.unhealthyReason(), 'no room');
  reason = undefined;
  assert.equal(telemetry.unhealthyReason(), undefined);
  telemetry.drain();
  assert.equal(telemetry.unhealthyReason(), 'the service is stopping');
  await telemetry.close();
});

test('metrics: counters, gauges and histograms have the text that the format asks for', () => {
  const metrics = new Metrics();
  metrics.counter('a_total', 'Of a.', { kind: 'x "y" \\ z\n' }).value += 2;
  metrics.counter('a_total', 'Of a.', { kind: 'other' });
  metrics.read('gauge', 'b', 'Of b.', () => 0.5);
  metrics.read('gauge', 'c', 'Of c.', () => undefined);
  metrics.read('counter', 'd_total', 'Of d.', () => 7);
  assert.equal(metrics.text(), [
    '# HELP a_total Of a.', '# TYPE a_total counter', 'a_total{kind="x \\"y\\" \\\\ z\\n"} 2', 'a_total{kind="other"} 0',
    '# HELP b Of b.', '# TYPE b gauge', 'b 0.5',
    '# HELP d_total Of d.', '# TYPE d_total counter', 'd_total 7', '',
  ].join('\n'));
});

test('metrics: the buckets of a histogram hold what is at most their bound, each with all below it', () => {
  const metrics = new Metrics();
  const histogram = metrics.histogram('h_seconds', 'Of h.', [0.1, 1], { of: 'h' });
  for (const value of [0.1, 0.05, 0.5, 7]) histogram.observe(value);
  const lines = metrics.text().split('\n').slice(2, -1);
  assert.deepEqual(lines, [
    'h_seconds_bucket{of="h",le="0.1"} 2', 'h_seconds_bucket{of="h",le="1"} 3', 'h_seconds_bucket{of="h",le="+Inf"} 4',
    'h_seconds_sum{of="h"} 7.65', 'h_seconds_count{of="h"} 4',
  ]);
});

const at = Date.parse('2026-11-23T08:09:10.007Z');

function served(more: Partial<LoggedRequest> = {}): LoggedRequest {
  return {
    id: 'p-1', method: 'GET', route: { method: 'GET', pattern: '/user/{login}', action: 'read' }, status: 200, bytes: 80, startedMs: 0, code: undefined,
    principal: { kind: 'user', by: 'basic', id: 17, login: 'alice', version: 1, session: undefined, json: '' },
    isUnauthenticatedMode: false, client: { name: '192.0.2.7', networks: [{ key: '', factor: 1 }] }, rateLimits: [], ...more,
  };
}

/** A log whose writes are answered by hand. */
function open({ isTerminal = false, now = () => at } = {}): { log: Log; texts: string[]; answer: (error?: Error) => void } {
  const texts: string[] = [];
  let waiting: ((error?: Error) => void) | undefined;
  const write = (text: string): Promise<void> => {
    assert.equal(waiting, undefined, 'one write at a time');
    texts.push(text);
    return new Promise((resolve, reject) => (waiting = (error) => (error === undefined ? resolve() : reject(error))));
  };
  const log = new Log({ isTerminal, write }, now);
  log.open();
  const answer = (error?: Error): void => {
    const done = waiting;
    waiting = undefined;
    done?.(error);
  };
  return { log, texts, answer };
}

test('log: a request is one line of JSON with who, what and how long, and without the login', async () => {
  const { log, texts } = open();
  log.request(served(), 1.23456);
  log.request(served({ principal: undefined, route: undefined, status: 503, code: 'overloaded', isUnauthenticatedMode: true }), 2);
  log.event('warn', 'report', { message: 'a "line"\nand another' });
  await until(() => texts.length > 0, 'the timer');
  const [line = '', second = '', third = ''] = texts[0]!.split('\n');
  assert.deepEqual(JSON.parse(line), {
    time: '2026-11-23T08:09:10.007Z', level: 'info', event: 'request', id: 'p-1', method: 'GET', route: '/user/{login}', status: 200, ms: 1.235,
    bytes: 80, client: '192.0.2.7', who: 'basic', user: 17,
  });
  const { level, route, error, client } = JSON.parse(second);
  assert.deepEqual([level, route, error, client], ['error', '-', 'overloaded', undefined]);
  assert.equal(JSON.parse(third).message, 'a "line"\nand another');
  assert.doesNotMatch(texts[0]!, /alice/);
});

test('log: times are right to the millisecond, also when the clock goes back', async () => {
  const times = [at, at + 92, at + 93, at + 992, at + 993, at - 5000, at + 61_000];
  let n = 0;
  const { log, texts, answer } = open({ now: () => times[n++]! });
  for (const _ of times) log.request(served(), 1);
  await until(() => texts.length > 0, 'the timer');
  answer();
  const told = texts.join('').trimEnd().split('\n').map((line) => Date.parse(JSON.parse(line).time));
  assert.deepEqual(told, times);
});

test('log: a terminal gets a short form, and no events, which it has from standard error', async () => {
  const { log, texts } = open({ isTerminal: true });
  log.event('warn', 'report', { message: 'x' });
  log.request(served({ code: 'taken', status: 409 }), 3.14);
  await until(() => texts.length > 0, 'the timer');
  assert.match(texts[0]!, /^\d\d:\d\d:\d\d 409 GET \/user\/\{login\} 3\.1 ms 80 bytes user 17 by basic from 192\.0\.2\.7 taken\n$/);
});

test('log: while its reader is slow lines are kept up to a bound, then dropped, and their number is told', async () => {
  const { log, texts, answer } = open();
  for (let n = 0; n < 30_000; n++) log.request(served(), 1);
  assert.equal(texts.length, 1, 'the second write waits for the first');
  const kept = texts[0]!.split('\n').length - 1;
  const dropped = log.dropped;
  assert.ok(dropped > 0 && dropped < 30_000, String(dropped));
  answer();
  await until(() => texts.length > 1, 'the next write');
  assert.ok(texts[1]!.length < (1 << 20) + 1000, String(texts[1]!.length));
  answer();
  await until(() => texts.join('').includes('log-dropped'), 'the note');
  const lines = texts.join('').trimEnd().split('\n').map((line) => JSON.parse(line));
  assert.equal(lines.filter(({ event }) => event === 'request').length, 30_000 - dropped);
  assert.equal(lines.find(({ event }) => event === 'log-dropped').lines, dropped);
  assert.ok(kept < 30_000 - dropped);
});

test('log: a full disk costs lines and no more, a reader that has gone ends it', async () => {
  const { log, texts, answer } = open();
  log.request(served(), 1);
  await until(() => texts.length === 1, 'the timer');
  answer(Object.assign(new Error('no room'), { code: 'ENOSPC' }));
  await until(() => log.dropped === 1, 'the line is counted');
  log.request(served(), 1);
  await until(() => texts.length === 2, 'the next write');
  assert.match(texts[1]!, /"log-dropped","lines":1}/);
  answer(Object.assign(new Error('gone'), { code: 'EPIPE' }));
  log.request(served(), 1);
  await log.close();
  assert.equal(texts.length, 2);
  assert.equal(log.dropped, 3 + 1, 'the note is a line too');
});

test('log: closing writes what is left, behind what is being written', async () => {
  const { log, texts, answer } = open();
  log.request(served({ id: 'first' }), 1);
  await until(() => texts.length === 1, 'the timer');
  log.request(served({ id: 'second' }), 1);
  const closed = log.close();
  answer();
  await until(() => texts.length === 2, 'the second write');
  assert.match(texts[1]!, /"id":"second"/);
  answer();
  await closed;
});

test('log: closing does not try again and again where nothing can be written', { timeout: 10_000 }, async () => {
  let writes = 0;
  const write = async (): Promise<void> => {
    writes++;
    throw Object.assign(new Error('no room'), { code: 'ENOSPC' });
  };
  const log = new Log({ isTerminal: false, write }, () => at);
  log.open();
  log.request(served(), 1);
  await log.close();
  assert.equal(writes, 1);
});

test('log: nothing is written before it is opened', async () => {
  const texts: string[] = [];
  const log = new Log({ isTerminal: false, write: async (text) => void texts.push(text) }, () => at);
  log.event('info', 'report');
  await log.close();
  assert.deepEqual(texts, []);
});

const password = 'correct horse battery';
const closed = { REGISTRAR_ADMIN_TOKEN: adminToken };
const admin = { Authorization: `Bearer ${adminToken}` };

function basic(login: string, word = password): Record<string, string> {
  return { Authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` };
}

/** The value of a series of /metrics, as it is written there. */
async function metric({ ask }: Service, series: string): Promise<string | undefined> {
  const { text } = await ask('/metrics', { headers: admin });
  return text.split('\n').find((line) => line.startsWith(`${series} `))?.slice(series.length + 1);
}

test('metrics: in authenticated mode they are for the admin token only', async (t) => {
  const { ask } = await openService(t, cheap, closed);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  assert.equal((await ask('/metrics')).status, 401);
  assert.equal((await ask('/metrics', { headers: basic('alice') })).status, 403);
});

test('metrics: the token that the command makes opens them within a second, and nothing else', async (t) => {
  const { ask, data } = await openService(t, cheap, closed);
  const made = await runCommand(['token', '--metrics', '--data', data]);
  assert.equal(made.status, 0, made.stderr);
  const headers = { Authorization: `Bearer ${made.stdout.trim()}` };
  await until(async () => (await ask('/metrics', { headers })).status === 200, 'the token is noticed');
  for (const path of ['/user/', '/user/alice', '/session', '/auth']) assert.equal((await ask(path, { headers })).status, 403, path);
  assert.equal((await runCommand(['token', '--metrics', '--data', data])).stdout, made.stdout);
  assert.equal((await runCommand(['token', '--metrics', '--new', '--data', data])).status, 0);
  await until(async () => (await ask('/metrics', { headers })).status === 401, 'the earlier token is void');
});

test('metrics: unknown paths and methods make no new series', async (t) => {
  const service = await openService(t);
  const count = async (): Promise<number> => (await service.ask('/metrics')).text.split('\n').length;
  for (const method of ['GET', 'PROPFIND']) await service.ask('/nowhere', { method });
  await service.ask('/user/u', { method: 'PROPFIND' });
  await count();
  const before = await count();
  for (let n = 0; n < 50; n++) await service.ask(`/nowhere-${n}`, { method: ['GET', 'PROPFIND', 'LOCK'][n % 3]! });
  for (let n = 0; n < 50; n++) await service.ask(`/user/u${n}`, { method: ['MKCOL', 'PROPFIND', 'LOCK'][n % 3]! });
  assert.equal(await count(), before);
});

test('metrics: a limit that refuses is counted by its name', async (t) => {
  const service = await openService(t, cheap, closed);
  for (let n = 0; n < 21; n++) await service.ask('/user/alice', { headers: basic('alice', `wrong-${n}`) });
  assert.equal(await metric(service, 'registrar_rate_limited_total{limit="sign-in-failures-of-login"}'), '1');
});

test('log: one line for each request, with the id of its answer, and nothing secret', async (t) => {
  const { lines, service } = await openLogged(t);
  await exercise(service);
  const { headers } = await service.ask('/user/bob', { headers: admin });
  await until(() => lines().some(({ id }) => id === headers['x-request-id']), 'the last line');
  const requests = lines().filter(({ event }) => event === 'request');
  assert.deepEqual(requests.map(({ method, route, status, who }) => `${method} ${route} ${status} ${who}`), [
    'POST /user/ 201 anonymous', 'POST /user/ 409 anonymous', 'GET /user/{login} 200 basic', 'GET /user/{login} 401 undefined',
    'HEAD /user/{login} 200 admin', 'GET /user/ 200 admin', 'POST /session 201 anonymous', 'POST /session 201 anonymous', 'GET /session 200 bearer', 'GET /session 200 cookie',
    'GET - 404 undefined', 'GET /user/{login} 404 admin',
  ]);
  assert.equal(new Set(requests.map(({ id }) => id)).size, requests.length);
  for (const { ms, client, time } of requests) assert.ok(ms > 0 && client === '127.0.0.1' && Date.parse(time) <= Date.now());
  assert.deepEqual(requests.filter(({ user }) => user === 1).length, 3);
  const [, , read, , head, stream] = requests;
  assert.ok(read!.bytes > 50 && head!.bytes === 0 && stream!.bytes === read!.bytes, JSON.stringify([read, head, stream]));
  assert.doesNotMatch(JSON.stringify(requests), /alice|horse|secret|eyJ|registrar-|administrators/);
});

test('log: an error of ours is an event with the id that the client was told', async (t) => {
  const { lines, service } = await openLogged(t);
  await service.ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  const path = join(service.data, 'users.jsonl');
  const bytes = readFileSync(path);
  bytes[bytes.length - 30]! ^= 1;
  const fd = openSync(path, 'r+');
  spawnSync('dd', [`of=${path}`, 'conv=notrunc', 'status=none'], { input: bytes });
  closeSync(fd);
  const { status, json } = await service.ask('/user/alice', { headers: admin });
  assert.equal(status, 500);
  await until(() => lines().some(({ event, id }) => event === 'report' && id === json.request), 'the event');
  const { level, message } = lines().find(({ event, id }) => event === 'report' && id !== undefined);
  assert.equal(level, 'error');
  assert.match(message, /corrupt: .*fails its checksum/);
});

/** A service in this process with a log that is kept. */
async function openLogged(t: Parameters<typeof openService>[0]): Promise<{ lines: () => any[]; service: Service }> {
  let text = '';
  const output: Output = {
    isTerminal: false,
    write: async (more) => void (text += more),
  };
  const service = await openService(t, cheap, closed, output);
  return { lines: () => text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line)), service };
}

test('metrics: the lock is waited for and handed over between two services, and both count it', async (t) => {
  const first = await openService(t, cheap, closed);
  const second = await openService(t, [...cheap, '--data', first.data], closed);
  for (const [n, { ask }] of [first, second, first, second].entries()) {
    assert.equal((await ask('/user/', { method: 'POST', body: { login: `user-${n}`, password } })).status, 201);
  }
  for (const service of [first, second]) {
    assert.match((await metric(service, 'registrar_store_lock_wait_seconds_count')) ?? '', /^[1-9]/);
    assert.equal(await metric(service, 'registrar_store_sync_duration_seconds_count'), '2');
  }
});
