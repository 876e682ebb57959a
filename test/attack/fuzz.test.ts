/** Requests by the thousand out of a grammar, half of them valid in most of their parts; every answer is judged. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { judgeAnswer } from '../helper/sound-answer.ts';
import type { JudgedAnswer } from '../helper/sound-answer.ts';
import { adminToken, cheap, spawnService } from '../helper/service.ts';
import { loader, root, temporaryDirectory } from '../helper/temporary.ts';

const trials = Number(process.env.TRIALS ?? 2_000);
const seed = Number(process.env.SEED ?? Date.now() % 1e9);

/** Mulberry32: the same seed, the same requests. */
function random(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Shaped {
  readonly method: string;
  readonly text: Buffer;
}

const password = 'correct horse';
const logins = ['alice', 'bob', 'ALICE', 'josé', 'алиса', 'a', 'x'.repeat(64), 'a.b_c-d@e+f', '__proto__', 'constructor', 'nobody', 'user7'];
const oddLogins = ['', '..', 'a b', 'a:b', 'a/b', 'аlice', 'x'.repeat(65), '\0', '\u202e', '\ud800', 'é\u0301\u0302', '😀', 'null', '0', '-', '%', 'admin\r\nX: y'];
const words = [password, 'battery staple', 'pässwörter', 'x'.repeat(256), 'short', 'password', '', 'x'.repeat(257), 'correct horse\0', '\ud800 horse horse', '        '];

/** @param tokens of sessions, good at the beginning. */
function shaper(next: () => number, tokens: readonly string[]): () => Shaped {
  const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)]!;
  const often = (share: number): boolean => next() < share;
  const login = (): string => (often(0.8) ? pick(logins) : pick(oddLogins));
  const word = (): string => (often(0.6) ? password : pick(words));
  const anything = (): unknown => pick<unknown>([null, true, 0, -1, 1e308, [], {}, [[[]]], 'x', { length: 9 }, ['alice'], { toString: 'x' }]);
  const segment = (): string => {
    const text = pick([login, () => encodeURIComponent(pick(logins)), () => encodeURIComponent(login().toWellFormed()), () => pick(['%', '%ff', '%2e%2e', '.', '..', '%00', ';', '%2f'])])();
    return text;
  };
  const path = (): string => pick([
    () => `/user/${encodeURIComponent(pick(logins))}`, () => `/user/${encodeURIComponent(pick(logins))}`, () => '/user/', () => '/user', () => '/session', () => '/session',
    () => '/.well-known/jwks.json', () => `/user/${segment()}`, () => `/${segment()}/${segment()}`, () => pick(['/', '//', '/user//', '*', '', '/openapi.json', '/metrics', '/health/live']),
  ])();
  const query = (): string => (often(0.75) ? '' : `?${pick(['limit=10', 'limit=0', 'limit=1001', 'limit=x', 'after=', 'after=x', 'after=%ff', 'limit=1&limit=2', 'x=y', '', '&', '=', 'after=aWQ6MQ&limit=3', '%'])}`);
  const credentials = (): string => {
    const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;
    return pick([
      () => `Authorization: Bearer ${adminToken}`, () => `Authorization: Bearer ${adminToken}`, () => `Authorization: Bearer ${adminToken}`,
      () => `Authorization: ${basic(`${login()}:${word()}`)}`, () => `Authorization: ${basic(`alice:${password}`)}`, () => `Authorization: Bearer ${pick(tokens)}`,
      () => `Authorization: Bearer ${pick(tokens).slice(0, -3)}abc`, () => `Cookie: __Host-registrar=${pick(tokens)}`, () => `Authorization: ${pick(['', 'Basic', 'Basic =', 'Bearer', 'Digest x', `Basic ${'A'.repeat(99)}`, 'x y'])}`,
    ])();
  };
  const header = (): string => pick([
    'Accept: application/x-ndjson', 'Accept: */*', 'Accept: application/x-ndjson;q=0', 'If-Match: *', 'If-Match: "1.1"', 'If-None-Match: *', 'If-None-Match: "1.1", "2.1"', 'If-Match: x',
    'If-None-Match: W/"1.1"', 'Idempotency-Key: "k1"', 'Idempotency-Key: k1', 'Idempotency-Key: "', 'Origin: https://evil.example', 'Origin: null', 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Dest: empty',
    'Content-Encoding: gzip', 'Content-Encoding: identity', 'X-Forwarded-For: 192.0.2.1', 'X-Forwarded-For: ,,x', 'Forwarded: for=x', 'Access-Control-Request-Method: PUT', 'Expect: x',
    'Expect: 100-continue', 'X-HTTP-Method-Override: DELETE', '__proto__: x', 'constructor: x', 'Range: bytes=0-1', 'TE: trailers', 'Upgrade: h2c', 'Via: 1.0 x', 'Host: localhost', `X: ${'y'.repeat(8_100)}`,
  ]);
  const body = (): string => {
    if (often(0.25)) return pick(['', '{', '[]', 'null', '"x"', '\ufeff{}', '['.repeat(9_000), 'x'.repeat(17_000), '{"a":1,"a":2}', '{"__proto__":{}}', '{"login":"alice","login":"bob","password":"correct horse"}']);
    const fields: Record<string, unknown> = {};
    if (often(0.7)) fields.password = often(0.9) ? word() : anything();
    if (often(0.6)) fields.login = often(0.9) ? login() : anything();
    if (often(0.3)) fields.current = often(0.9) ? word() : anything();
    if (often(0.1)) fields.cookie = often(0.6) ? often(0.5) : anything();
    if (often(0.05)) fields[pick(['id', 'admin', 'constructor', 'version'])] = anything();
    return JSON.stringify(fields);
  };
  return () => {
    const known = (): string => `/user/${encodeURIComponent(pick(logins))}`;
    // Mostly what there is.
    const [fit, place]: readonly [string | undefined, () => string] = often(0.75) ? pick([
      ['GET', known], ['HEAD', known], ['PUT', known], ['PUT', known], ['PATCH', known], ['DELETE', known], ['POST', () => '/user/'], ['POST', () => '/user'], ['POST', () => '/user/'],
      ['GET', () => '/user/'], ['POST', () => '/session'], ['GET', () => '/session'], ['DELETE', () => '/session'], ['GET', () => '/.well-known/jwks.json'],
    ] as const) : [undefined, path];
    const method = fit !== undefined ? fit : often(0.95) ? pick(['GET', 'GET', 'GET', 'HEAD', 'POST', 'POST', 'PUT', 'PUT', 'PATCH', 'PATCH', 'DELETE', 'OPTIONS']) : pick(['TRACE', 'PURGE', 'QUERY', 'get', 'BREW', 'CONNECT']);
    const sent = ['POST', 'PUT', 'PATCH'].includes(method) || often(0.05) ? Buffer.from(body()) : undefined;
    const lines = [`${method} ${place()}${query()} HTTP/1.1`, often(0.98) ? 'Host: localhost' : 'Host: evil.example', 'Connection: close'];
    if (often(0.75)) lines.push(credentials());
    for (let n = often(0.6) ? 0 : Math.ceil(next() * 3); n > 0; n--) lines.push(header());
    let framed = sent;
    if (sent !== undefined) {
      if (often(0.8)) lines.push('Content-Type: application/json');
      else if (often(0.5)) lines.push(pick(['Content-Type: text/plain', 'Content-Type: application/json; charset=utf-8', 'Content-Type: application/json; charset=utf-16', 'Content-Type: x']));
      if (often(0.85)) {
        lines.push(`Content-Length: ${sent.length}`);
      } else {
        lines.push('Transfer-Encoding: chunked');
        const half = Math.floor(sent.length / 2);
        const piece = (part: Buffer): Buffer => Buffer.concat([Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n')]);
        framed = Buffer.concat([...(half > 0 ? [piece(sent.subarray(0, half))] : []), ...(sent.length > half ? [piece(sent.subarray(half))] : []), Buffer.from('0\r\n\r\n')]);
      }
    }
    return { method, text: Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`), framed ?? Buffer.alloc(0)]) };
  };
}

/** Sends it and resolves with what came until the connection was closed. */
function send(port: number, { method, text }: Shaped): Promise<JudgedAnswer | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let received = '';
    const timer = setTimeout(() => socket.destroy(), 15_000);
    socket.on('data', (chunk) => (received += chunk.toString('latin1')));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(judgeAnswer(received, method));
    });
    socket.write(text);
  });
}

test(`fuzz: ${trials} requests of seed ${seed} are all answered soundly, and the service and its file are sound afterwards`, async (t) => {
  const data = temporaryDirectory(t);
  writeFileSync(join(data, 'admin-token'), `${adminToken}\n`, { mode: 0o600 });
  const service = await spawnService(t, { data, args: [...cheap, '--http', '--limits', 'off', '--trusted-proxy', '127.0.0.1'] });
  const port = Number(new URL(service.url).port);
  const counts = new Map<number, number>();
  const findings: string[] = [];
  const say = async (method: string, path: string, body: object): Promise<string> => {
    const sent = JSON.stringify(body);
    const answer = await send(port, { method, text: Buffer.from(`${method} ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${sent.length}\r\n\r\n${sent}`) });
    return answer?.text ?? '';
  };
  const tokens: string[] = [];
  for (const login of ['alice', 'bob']) {
    await say('POST', '/user/', { login, password });
    tokens.push(/"token":"([^"]+)"/.exec(await say('POST', '/session', { login, password }))?.[1] ?? '');
  }
  assert.ok(tokens.every((token) => token !== ''));
  const shape = shaper(random(seed), tokens);
  for (let from = 0; from < trials && findings.length < 5; from += 20) {
    const shaped = Array.from({ length: Math.min(20, trials - from) }, shape);
    const answers = await Promise.all(shaped.map((one) => send(port, one)));
    for (const [n, answer] of answers.entries()) {
      const what = JSON.stringify(shaped[n]!.text.toString('utf8').slice(0, 600));
      // A tunnel, and what cannot be read behind what was answered, is closed with nothing said.
      if (answer === undefined) {
        if (shaped[n]!.method !== 'CONNECT') findings.push(`${what}: no answer`);
        continue;
      }
      counts.set(answer.status, (counts.get(answer.status) ?? 0) + 1);
      if (answer.end === undefined) findings.push(`${what}: no end: ${answer.text}`);
      for (const finding of answer.findings) findings.push(`${what}: ${finding}: ${answer.text.slice(0, 800)}`);
    }
  }
  assert.deepEqual(findings, [], `SEED=${seed}`);
  const statuses = [...counts.keys()].sort();
  // Whatever can be answered was.
  for (const status of [200, 201, 204, 400, 401, 403, 404, 405, 409, 415, 422, 431]) assert.ok(counts.has(status), `no ${status} among ${statuses}`);
  console.error(`# ${[...counts].sort(([a], [b]) => a - b).map(([status, count]) => `${status}: ${count}`).join(', ')}`);
  assert.equal(service.child.exitCode, null);
  assert.match(await say('POST', '/session', { login: 'nobody at all', password }), /^HTTP\/1\.1 401 /);
  assert.deepEqual(service.stderr().split('\n').filter((line) => line.includes('failed')), []);
  const checked = spawnSync(process.execPath, [...loader, 'bin/registrar.ts', 'check', '--data', data], { cwd: root, encoding: 'utf8', timeout: 30_000 });
  assert.equal(checked.status, 0, checked.stderr);
  service.terminate();
  assert.equal(await service.ended, 0);
});
