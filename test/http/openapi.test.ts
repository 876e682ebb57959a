/** The API's description: the routes are those that are served, and what the service answers is as it says. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openApiJson } from '../../lib/http/openapi.ts';
import { operations } from '../../lib/http/openapi-operations.ts';
import { opsRoutes } from '../../lib/http/ops-routes.ts';
import { routes } from '../../lib/http/routes.ts';
import type { RouteEntry } from '../../lib/http/routes.ts';
import { resolveReference, schemaProblems } from '../helper/json-schema.ts';
import { adminToken, cheap, openService } from '../helper/service.ts';
import type { Answer, AskOptions } from '../helper/service.ts';
import { loader, npmEnvironment, root, temporaryDirectory } from '../helper/temporary.ts';

const document = JSON.parse(openApiJson());
const password = 'correct horse';

/** Anything that is asked of it is itself: the table of routes is made of it, and nothing is called. */
const inert: any = new Proxy(() => inert, {
  get: (_target, name) => (name === Symbol.toPrimitive ? () => '0' : name === Symbol.iterator ? [][Symbol.iterator] : inert),
});

const isPage = ({ pattern }: RouteEntry): boolean => pattern === '/' || pattern.startsWith('/page/');

test('openapi: what is served is described, what is described is served, and for whom it is is the same', () => {
  const served = [...routes(inert), ...opsRoutes(inert)].filter((entry) => !isPage(entry)).map(({ method, pattern, action }) => `${method} ${pattern}: ${action}`);
  assert.deepEqual(served.sort(), Object.entries(operations).map(([key, { action }]) => `${key}: ${action}`).sort());
  const inDocument = Object.entries<object>(document.paths).flatMap(([path, item]) => Object.keys(item).map((method) => `${method.toUpperCase()} ${path}`));
  assert.deepEqual(inDocument.sort(), Object.keys(operations).sort());
});

test('openapi: the command prints what the service answers, and the version is the package\'s', async (t) => {
  const { ask } = await openService(t);
  const { text, headers } = await ask('/openapi.json');
  assert.equal(headers['content-type'], 'application/json');
  const printed = spawnSync(process.execPath, [...loader, 'bin/registrar.ts', 'openapi'], { cwd: root, encoding: 'utf8', timeout: 30_000 });
  assert.deepEqual([printed.status, printed.stderr, printed.stdout === text], [0, '', true]);
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

const keys = Object.keys(operations) as (keyof typeof operations)[];
const hasBody = (key: keyof typeof operations): boolean => 'body' in operations[key];
const path = (key: string, login = 'alice'): string => (key.split(' ')[1] ?? '').replace('{login}', login);
const send = (method: string, body?: unknown, headers: Record<string, string> = {}): AskOptions => ({ method, body, headers });
const basic = (login: string, word = password): Record<string, string> => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });
const firstCall = (key: string): string => key.split(' ')[0] ?? '';

test('openapi: every operation answers as it is described, in open mode, with all that a client can do wrong', async (t) => {
  const { ask, data } = await openService(t);
  const key = { 'Idempotency-Key': 'one' };
  const steps: [key: string, path: string, options: AskOptions, status: number][] = [
    ['GET /user', '/user', {}, 200],
    ['POST /user', '/user/', send('POST', { login: 'Alice', password }, key), 201],
    ['POST /user', '/user', send('POST', { login: 'alice', password: 'another horse' }, key), 422],
    ['POST /user', '/user', send('POST', { login: 'alice', password }), 409],
    ['PUT /user/{login}', '/user/Борис'.replace('Борис', encodeURIComponent('Борис')), send('PUT', { password }), 201],
    ['PUT /user/{login}', '/user/alice', send('PUT', { password }), 409],
    ['PUT /user/{login}', '/user/alice', send('PUT', { password }, { 'If-None-Match': '*' }), 412],
    ['PUT /user/{login}', '/user/a%2Fb', send('PUT', { password }), 422],
    ['GET /user', '/user?limit=1', {}, 200],
    ['GET /user', '/user', { headers: { accept: 'application/x-ndjson' } }, 200],
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
    ['POST /session', '/session', send('POST', { login: 'alice', password: 'second horse', cookie: true }), 201],
    ['POST /session', '/session', send('POST', { login: 'alice', password: 'wrong horse' }), 401],
    ['GET /session', '/session', { headers: basic('alice', 'second horse') }, 200],
    ['DELETE /session', '/session', send('DELETE', undefined, basic('alice', 'second horse')), 204],
    ['GET /.well-known/jwks.json', '/.well-known/jwks.json', {}, 200],
    ['GET /openapi.json', '/openapi.json', {}, 200],
    ['GET /health/live', '/health/live', {}, 200],
    ['GET /health/ready', '/health/ready', {}, 200],
    ['GET /metrics', '/metrics', {}, 200],
    ['DELETE /user/{login}', '/user/alice', send('DELETE'), 204],
    ['POST /user', '/user', send('POST', { login: 'alice', password }), 201],
  ];
  for (const [name, target, options, status] of steps) {
    const answer = await ask(target, options);
    assert.equal(answer.status, status, `${name}: ${answer.text}`);
    checkAnswer(name, answer);
  }
  const changes = await Promise.all(Array.from({ length: 8 }, (_, n) => ask('/user/alice', send('PATCH', { password: `${password} ${n}` }))));
  for (const answer of changes) checkAnswer('PATCH /user/{login}', answer);
  assert.ok(seen.has('PATCH /user/{login} 409'));
  assert.equal((await ask('/user/alice', send('PATCH', { password }))).status, 200);
  for (const name of keys) {
    const method = firstCall(name);
    const credentials = name.endsWith('/session') ? basic('alice') : {};
    const wrong: [AskOptions, string, number][] = [
      [send(method, undefined, credentials), name === 'GET /metrics' ? '/%ff' : `${path(name)}?nonsense`, 400],
      [send(method, undefined, { 'X-Forwarded-For': '192.0.2.1' }), path(name), 403],
      [send(method, undefined, { Expect: 'the best' }), path(name), 417],
      [send(method, undefined, { 'X-Long': 'x'.repeat(9_000) }), path(name), 431],
    ];
    if (hasBody(name)) {
      const login = 'carol';
      wrong.push([send(method, 'x'.repeat(16_385)), path(name, login), 413]);
      wrong.push([send(method, 'a=b', { 'Content-Type': 'text/plain' }), path(name, login), 415]);
      wrong.push([send(method, { nonsense: 1 }), path(name, login), 422]);
    }
    for (const [options, target, status] of wrong) {
      const answer = await ask(target, options);
      assert.equal(answer.status, status, `${name}: ${answer.text}`);
      checkAnswer(name, answer);
    }
  }
  // What an operator has to mend.
  const file = join(data, 'users.jsonl');
  const bytes = readFileSync(file);
  bytes[bytes.lastIndexOf('alice') + 2]! ^= 1;
  writeFileSync(file, bytes);
  const broken: [string, AskOptions][] = [
    ['GET /user', {}], ['GET /user/{login}', {}], ['PATCH /user/{login}', send('PATCH', { password })], ['DELETE /user/{login}', send('DELETE')],
    ['PUT /user/{login}', send('PUT', { password })], ['POST /user', send('POST', { login: 'alice', password })],
    ['POST /session', send('POST', { login: 'alice', password })], ['GET /session', { headers: basic('alice') }], ['DELETE /session', send('DELETE', undefined, basic('alice'))],
  ];
  for (const [name, options] of broken) {
    const answer = await ask(path(name), options);
    assert.equal(answer.status, 500, `${name}: ${answer.text}`);
    checkAnswer(name, answer);
  }
});

test('openapi: every operation answers as it is described, in closed mode, limits included', async (t) => {
  const { ask } = await openService(t, [...cheap, '--registration', 'admin'], { REGISTRAR_ADMIN_TOKEN: adminToken });
  const admin = bearer(adminToken);
  for (const login of ['alice', 'bob']) checkAnswer('POST /user', await ask('/user', send('POST', { login, password }, admin)));
  const session = await ask('/session', send('POST', { login: 'alice', password }));
  checkAnswer('POST /session', session);
  const token = bearer(session.json.token);
  const steps: [key: string, path: string, options: AskOptions, status: number][] = [
    ['GET /session', '/session', { headers: token }, 200],
    ['GET /session', '/session', { headers: { cookie: `__Host-registrar=${session.json.token}` } }, 200],
    ['GET /session', '/session', { headers: admin }, 403],
    ['GET /user', '/user', { headers: token }, 403],
    ['GET /user', '/user', { headers: admin }, 200],
    ['GET /user/{login}', '/user/bob', { headers: token }, 403],
    ['GET /user/{login}', '/user/alice', { headers: basic('alice') }, 200],
    ['DELETE /user/{login}', '/user/alice', send('DELETE', undefined, token), 403],
    ['PATCH /user/{login}', '/user/alice', send('PATCH', { password: 'second horse' }, token), 422],
    ['PATCH /user/{login}', '/user/alice', send('PATCH', { password: 'second horse', current: password }, token), 200],
    ['DELETE /session', '/session', send('DELETE', undefined, token), 401],
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
    if (operations[name].action !== 'public') assert.equal(answer.status, 401, name);
  }
  // More than a client may ask in 10 s; one more is refused whatever it is.
  const refusedIn = async (name: (typeof keys)[number]): Promise<boolean> => {
    const options = send(firstCall(name), undefined);
    const answers = await Promise.all(Array.from({ length: 50 }, () => ask(path(name), options)));
    for (const answer of answers) checkAnswer(name, answer);
    return answers.some(({ status }) => status === 429);
  };
  for (let n = 0; n < 400 && !(await refusedIn('GET /.well-known/jwks.json')); n++);
  for (const name of keys.filter((key) => !key.startsWith('GET /health/'))) {
    for (let n = 0; n < 50 && !seen.has(`${name} 429`); n++) await refusedIn(name);
    assert.ok(seen.has(`${name} 429`), name);
  }
});

/** What a test would have to wait for, fill or break a disk for: other tests do. */
const unprovoked = new Set(['408', '503', '507']);
/** What takes another request in the very moment, and what is there of `internal` alone. */
const rare = [
  'DELETE /user/{login} 409', 'GET /session 404', 'DELETE /session 404', 'DELETE /session 409', 'GET /.well-known/jwks.json 500', 'GET /openapi.json 500',
  'GET /health/live 500', 'GET /health/ready 500', 'GET /metrics 500',
];

test('openapi: every status that is described was answered, but for those that take a slow client, a full disk or luck', () => {
  const described = keys.flatMap((key) => {
    const [method = '', where = ''] = key.split(' ');
    return Object.keys(document.paths[where][method.toLowerCase()].responses).filter((status) => !unprovoked.has(status)).map((status) => `${key} ${status}`);
  });
  assert.deepEqual(described.filter((answer) => !seen.has(answer)).sort(), rare.sort());
});

const redocly = ['@redocly/cli', 'lint', '--extends', 'recommended', '--format', 'json'];
const spectral = ['@stoplight/spectral-cli', 'lint', '--fail-severity', 'hint', '--ruleset', 'rules.yaml'];

test('openapi: Redocly and Spectral find nothing to say, and do where there is something', async (t) => {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'good.json'), openApiJson());
  const { info: { license, ...info }, ...rest } = structuredClone(document);
  delete rest.paths['/user'].get.responses['200'].description;
  writeFileSync(join(directory, 'bad.json'), JSON.stringify({ ...rest, info }));
  writeFileSync(join(directory, 'rules.yaml'), 'extends: ["spectral:oas"]\n');
  const env = { ...npmEnvironment(), REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' };
  const run = (words: readonly string[]) => spawnSync('npx', ['--yes', ...words], { cwd: directory, encoding: 'utf8', timeout: 300_000, env });
  for (const [program, ...words] of [redocly, spectral]) {
    const good = run([program!, ...words, 'good.json']);
    if (/^npm (?:error|ERR!)/m.test(good.stderr)) return t.skip(`npx cannot fetch ${program}: ${good.stderr.trim().split('\n').at(-1)}`);
    assert.equal(good.status, 0, good.stdout + good.stderr);
    if (program === redocly[0]) assert.deepEqual(JSON.parse(good.stdout.slice(good.stdout.indexOf('{'))).totals, { errors: 0, warnings: 0, ignored: 0 });
    assert.notEqual(run([program!, ...words, 'bad.json']).status, 0, `${program} takes anything`);
  }
  assert.equal(license.identifier, 'MIT');
});
