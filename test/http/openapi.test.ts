/** The API's description: the routes are those that are served, and what the service answers is as it says. */

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { apiRoutes, openApiJson } from '../../lib/http/routes.ts';
import { resolveReference, schemaProblems } from '../helper/json-schema.ts';
import { adminToken, cheap, openService } from '../helper/service.ts';
import type { Answer, AskOptions } from '../helper/service.ts';
import { root } from '../helper/temporary.ts';

const document = JSON.parse(openApiJson());
const password = 'correct horse';

test('openapi: each route is described with HEAD and OPTIONS, and names are those that generators accept', () => {
  const described = Object.entries<object>(document.paths).flatMap(([path, item]) => Object.keys(item).map((method) => `${method.toUpperCase()} ${path}`));
  const served = apiRoutes.flatMap(({ method, pattern }) => [`${method} ${pattern}`, `OPTIONS ${pattern}`, ...(method === 'GET' ? [`HEAD ${pattern}`] : [])]);
  assert.deepEqual(described.sort(), [...new Set(served)].sort());
  for (const kind of Object.values<object>(document.components)) {
    for (const name of Object.keys(kind)) assert.match(name, /^[A-Za-z][A-Za-z0-9_-]*$/);
  }
  const ids = Object.values<any>(document.paths).flatMap((item) => Object.values<any>(item).map(({ operationId }) => operationId));
  assert.equal(new Set(ids).size, ids.length);
  // Generators make a field that has a default required.
  assert.doesNotMatch(openApiJson(), /"default"/);
});

test("openapi: the version is the package's", () => {
  assert.equal(document.info.version, JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version);
});

test('openapi: every example is as its schema says', () => {
  let examples = 0;
  const visit = (node: any, path: string): void => {
    if (typeof node !== 'object' || node === null) return;
    const given = [...(node.schema !== undefined && node.example !== undefined ? [node.example] : [])];
    for (const example of given) assert.deepEqual(schemaProblems(example, node.schema, document), [], path);
    if (Array.isArray(node.examples)) for (const example of node.examples) assert.deepEqual(schemaProblems(example, node, document), [], path);
    examples += given.length + (Array.isArray(node.examples) ? node.examples.length : 0);
    for (const [name, part] of Object.entries(node)) if (name !== 'example' && name !== 'examples') visit(part, `${path}/${name}`);
  };
  visit(document, '#');
  assert.ok(examples > 20, String(examples));
});

test('openapi: what checks the answers fails on what is wrong, and on what it does not know', () => {
  const user = { $ref: '#/components/schemas/User' };
  const good = { id: 1, login: 'alice', registered: '2026-11-22T15:00:00.000Z', version: 1 };
  assert.deepEqual(schemaProblems(good, user, document), []);
  for (const bad of [null, [], { ...good, id: 0 }, { ...good, id: '1' }, { ...good, login: '' }, { ...good, registered: 'yesterday' }, { ...good, password: 'x' }, { id: 1 }]) {
    assert.notDeepEqual(schemaProblems(bad, user, document), [], JSON.stringify(bad));
  }
  assert.throws(() => schemaProblems(1, { exclusiveMinimum: 0 }, document), /exclusiveMinimum is not understood/);
  assert.throws(() => schemaProblems('x', { format: 'email' }, document), /email is not understood/);
  assert.throws(() => schemaProblems(1, { $ref: '#/components/schemas/Nobody' }, document), /leads nowhere/);
});

/** What was seen, as `POST /user 201`. */
const seen = new Set<string>();
const quiet = new Set(['connection', 'content-length', 'content-type', 'date', 'keep-alive', 'transfer-encoding', 'x-content-type-options']);

/** Fails unless the description has this answer of this operation, headers and body included. */
function checkAnswer(key: string, { status, headers, text }: Answer): void {
  const [method = '', path = ''] = key.split(' ');
  const described = document.paths[path][method.toLowerCase()].responses[status];
  assert.ok(described !== undefined, `${key}: ${status} is not described: ${text}`);
  seen.add(`${key} ${status}`);
  assert.ok(headers['x-request-id'] !== undefined || [400, 408, 431].includes(status), `${key} ${status}: names no request`);
  const answer = described.$ref === undefined ? described : resolveReference(described.$ref, document);
  const known = Object.entries<any>(answer.headers).map(([name, header]) => [name.toLowerCase(), resolveReference(header.$ref, document)] as const);
  for (const [name, header] of known) {
    const value = [headers[name]].flat()[0];
    if (value === undefined) assert.ok(header.required !== true, `${key} ${status}: has no ${name}`);
    else assert.deepEqual(schemaProblems(value, header.schema, document), [], `${key} ${status}: ${name}`);
  }
  const always = new Set([...quiet, 'cache-control', ...known.map(([name]) => name)]);
  assert.deepEqual(Object.keys(headers).filter((name) => !always.has(name)), [], `${key} ${status}: headers that are not described`);
  if (answer.content === undefined) return assert.equal(text, '', `${key} ${status}`);
  const [type = ''] = String(headers['content-type']).split(';');
  const { schema } = answer.content[type] ?? assert.fail(`${key} ${status}: ${type} is not described`);
  const value = /json$/.test(type) && !/ndjson$/.test(type) ? JSON.parse(text) : text;
  assert.deepEqual(schemaProblems(value, schema, document), [], `${key} ${status}: ${text}`);
}

const actions = new Map(apiRoutes.map(({ method, pattern, action }) => [`${method} ${pattern}`, action]));
const keys = [...actions.keys()];
const hasBody = (key: string): boolean => apiRoutes.some(({ method, pattern, fields }) => key === `${method} ${pattern}` && fields !== undefined);
const path = (key: string, login = 'alice'): string => (key.split(' ')[1] ?? '').replace('{login}', login);
const send = (method: string, body?: unknown, headers: Record<string, string> = {}): AskOptions => ({ method, body, headers });
const basic = (login: string, word = password): Record<string, string> => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });
const firstCall = (key: string): string => key.split(' ')[0] ?? '';

test('openapi: every operation answers as it is described, in unauthenticated mode, with all that a client can do wrong', async (t) => {
  const { ask, data } = await openService(t);
  const key = { 'Idempotency-Key': 'one' };
  const steps: [key: string, path: string, options: AskOptions, status: number][] = [
    ['GET /user/', '/user', {}, 200],
    ['POST /user/', '/user/', send('POST', { login: 'Alice', password }, key), 201],
    ['POST /user/', '/user', send('POST', { login: 'alice', password: 'another horse' }, key), 422],
    ['POST /user/', '/user', send('POST', { login: 'alice', password }), 409],
    ['PUT /user/{login}', '/user/Борис'.replace('Борис', encodeURIComponent('Борис')), send('PUT', { password }), 201],
    ['PUT /user/{login}', '/user/alice', send('PUT', { password }), 409],
    ['PUT /user/{login}', '/user/alice', send('PUT', { password }, { 'If-None-Match': '*' }), 412],
    ['PUT /user/{login}', '/user/a%2Fb', send('PUT', { password }), 422],
    ['GET /user/', '/user?limit=1', {}, 200],
    ['GET /user/', '/user', { headers: { accept: 'application/x-ndjson' } }, 200],
    ['GET /user/{login}', '/user/alice', {}, 200],
    ['GET /user/{login}', '/user/alice', { headers: { 'If-None-Match': '"1.1"' } }, 304],
    ['GET /user/{login}', '/user/alice', { headers: { 'If-Match': '"9.9"' } }, 412],
    ['GET /user/{login}', '/user/nobody', {}, 404],
    ['PATCH /user/{login}', '/user/alice', send('PATCH', { password: 'second horse', current: password }), 200],
    ['PATCH /user/{login}', '/user/alice', send('PATCH', { password, current: 'wrong horse' }), 403],
    ['PATCH /user/{login}', '/user/alice', send('PATCH', { password }, { 'If-Match': '"1.1"' }), 412],
    ['PATCH /user/{login}', '/user/nobody', send('PATCH', { password }), 404],
    ['DELETE /user/{login}', '/user/alice', send('DELETE', undefined, { 'If-Match': '"1.1"' }), 412],
    ['DELETE /user/{login}', '/user/nobody', send('DELETE'), 404],
    ['POST /session', '/session', send('POST', { login: 'alice', password: 'second horse', cookie: 'session' }), 201],
    ['POST /session', '/session', send('POST', { login: 'alice', password: 'wrong horse' }), 401],
    ['GET /session', '/session', { headers: basic('alice', 'second horse') }, 200],
    ['GET /auth', '/auth', { headers: basic('alice', 'second horse') }, 200],
    ['GET /auth', '/auth', { headers: { accept: 'text/html' } }, 303],
    ['DELETE /session', '/session', send('DELETE'), 204],
    ['DELETE /user/{login}/session', '/user/alice/session', send('DELETE'), 204],
    ['DELETE /user/{login}/session', '/user/nobody/session', send('DELETE'), 404],
    ['POST /user/{login}/password-link', '/user/dora/password-link', send('POST'), 201],
    ['POST /user/{login}/password-link', '/user/a%2Fb/password-link', send('POST'), 422],
    ['POST /password', '/password', send('POST', { token: 'x', password }), 403],
    ['PATCH /user/{login}', '/user/dora', send('PATCH', { disabled: true }), 200],
    ['POST /user/{login}/password-link', '/user/dora/password-link', send('POST'), 409],
    ['GET /.well-known/jwks.json', '/.well-known/jwks.json', {}, 200],
    ['GET /openapi.json', '/openapi.json', {}, 200],
    ['GET /health/live', '/health/live', {}, 200],
    ['GET /health/ready', '/health/ready', {}, 200],
    ['GET /metrics', '/metrics', {}, 200],
    ['DELETE /user/{login}', '/user/alice', send('DELETE'), 204],
    ['POST /user/', '/user', send('POST', { login: 'alice', password }), 201],
  ];
  for (const [name, target, options, status] of steps) {
    const answer = await ask(target, options);
    assert.equal(answer.status, status, `${name}: ${answer.text}`);
    checkAnswer(name, answer);
  }
  // Of changes at the same time some are refused; on a busy machine they may come one after the other, so it is tried again.
  for (let round = 0; round < 50 && !seen.has('PATCH /user/{login} 409'); round++) {
    const changes = await Promise.all(Array.from({ length: 8 }, (_, n) => ask('/user/alice', send('PATCH', { password: `${password} ${n}` }))));
    for (const answer of changes) checkAnswer('PATCH /user/{login}', answer);
  }
  assert.ok(seen.has('PATCH /user/{login} 409'));
  assert.equal((await ask('/user/alice', send('PATCH', { password }))).status, 200);
  for (const name of keys) {
    const method = firstCall(name);
    const credentials = name === 'GET /session' || name === 'GET /auth' ? basic('alice') : {};
    const wrong: [AskOptions, string, number][] = [
      [send(method, undefined, credentials), name === 'GET /metrics' || name === 'GET /auth' ? '/%ff' : `${path(name)}?nonsense`, 400],
      [send(method, undefined, { 'X-Forwarded-For': '192.0.2.1' }), path(name), 403],
      [send(method, undefined, { Expect: 'the best' }), path(name), 417],
      [send(method, undefined, { 'X-Long': 'x'.repeat(9_000) }), path(name), 431],
      [send(method, 'x'.repeat(16_385), { ...credentials, 'Content-Length': '16385' }), path(name), 413],
    ];
    if (hasBody(name)) {
      const login = 'carol';
      wrong.push([send(method, 'a=b', { 'Content-Type': 'text/plain' }), path(name, login), 415]);
      wrong.push([send(method, { nonsense: 1 }), path(name, login), 422]);
    }
    for (const [options, target, status] of wrong) {
      const answer = await ask(target, options);
      assert.equal(answer.status, status, `${name}: ${answer.text}`);
      checkAnswer(name, answer);
    }
  }
  const used = await ask('/user/alice/password-link', send('POST'));
  checkAnswer('POST /password', await ask('/password', send('POST', { token: used.json.token, password })));
  const link = await ask('/user/alice/password-link', send('POST'));
  // What an operator has to mend.
  const file = join(data, 'users.jsonl');
  const bytes = readFileSync(file);
  bytes[bytes.lastIndexOf('alice') + 2]! ^= 1;
  writeFileSync(file, bytes);
  const broken: [string, AskOptions][] = [
    ['GET /user/', {}], ['GET /user/{login}', {}], ['PATCH /user/{login}', send('PATCH', { password })], ['DELETE /user/{login}', send('DELETE')],
    ['PUT /user/{login}', send('PUT', { password })], ['POST /user/', send('POST', { login: 'alice', password })],
    ['POST /session', send('POST', { login: 'alice', password })], ['GET /session', { headers: basic('alice') }], ['GET /auth', { headers: basic('alice') }],
    ['DELETE /user/{login}/session', send('DELETE')], ['POST /user/{login}/password-link', send('POST')], ['POST /password', send('POST', { token: link.json.token, password })],
  ];
  for (const [name, options] of broken) {
    const answer = await ask(path(name), options);
    assert.equal(answer.status, 500, `${name}: ${answer.text}`);
    checkAnswer(name, answer);
  }
});

test('openapi: every operation answers as it is described, in authenticated mode, limits included', async (t) => {
  const { ask } = await openService(t, [...cheap, '--registration', 'admin'], { REGISTRAR_ADMIN_TOKEN: adminToken });
  const admin = bearer(adminToken);
  for (const login of ['alice', 'bob']) checkAnswer('POST /user/', await ask('/user', send('POST', { login, password }, admin)));
  const session = await ask('/session', send('POST', { login: 'alice', password }));
  checkAnswer('POST /session', session);
  const token = bearer(session.json.token);
  const opened = await ask('/session', send('POST', { login: 'alice', password, cookie: 'session' }));
  checkAnswer('POST /session', opened);
  const [cookie = ''] = String(opened.headers['set-cookie']).split(';');
  const steps: [key: string, path: string, options: AskOptions, status: number][] = [
    ['GET /session', '/session', { headers: token }, 200],
    ['GET /session', '/session', { headers: { cookie } }, 200],
    ['GET /session', '/session', { headers: admin }, 403],
    ['GET /user/', '/user', { headers: token }, 403],
    ['GET /user/', '/user', { headers: admin }, 200],
    ['GET /user/{login}', '/user/bob', { headers: token }, 403],
    ['GET /user/{login}', '/user/alice', { headers: basic('alice') }, 200],
    ['DELETE /user/{login}', '/user/alice', send('DELETE', undefined, token), 403],
    ['PATCH /user/{login}', '/user/alice', send('PATCH', { password: 'second horse' }, token), 422],
    ['PATCH /user/{login}', '/user/alice', send('PATCH', { password: 'second horse', current: password }, token), 200],
    ['DELETE /session', '/session', send('DELETE', undefined, token), 400],
    ['GET /auth', '/auth', { headers: { cookie } }, 401],
    ['GET /auth', '/auth', { headers: admin }, 403],
  ];
  for (const [name, target, options, status] of steps) {
    const answer = await ask(target, options);
    assert.equal(answer.status, status, `${name}: ${answer.text}`);
    checkAnswer(name, answer);
  }
  const body = { login: 'carol', password };
  for (const name of keys) {
    const options = send(firstCall(name), hasBody(name) ? body : undefined);
    const answer = await ask(path(name), options);
    checkAnswer(name, answer);
    if (!['public', 'close-session', 'use-link'].includes(actions.get(name) ?? '')) assert.equal(answer.status, 401, name);
  }
  const guesses = await Promise.all(Array.from({ length: 30 }, (_, n) => ask('/session', send('POST', { login: 'alice', password: `wrong horse ${n}` }))));
  for (const answer of guesses) checkAnswer('POST /session', answer);
  assert.ok(seen.has('POST /session 429'));
});

/** What a test would have to wait for, flood the service, or fill a disk for: other tests do. */
const unprovoked = new Set(['408', '429', '503', '507']);
/** What takes another request in the very moment, and what is there of `internal` alone. */
const rare = [
  'DELETE /user/{login} 409', 'DELETE /user/{login}/session 409', 'DELETE /session 500', 'GET /.well-known/jwks.json 500', 'GET /openapi.json 500',
  'GET /health/live 500', 'GET /health/ready 500', 'GET /metrics 500',
];

test('openapi: every status that is described was answered, but for those that take a slow client, a full disk or luck', () => {
  const described = keys.flatMap((key) => {
    const [method = '', where = ''] = key.split(' ');
    return Object.keys(document.paths[where][method.toLowerCase()].responses).filter((status) => !unprovoked.has(status)).map((status) => `${key} ${status}`);
  });
  assert.deepEqual(described.filter((answer) => !seen.has(answer)).sort(), rare.sort());
});
