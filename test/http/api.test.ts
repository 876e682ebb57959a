import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openService, readUsersFile } from '../helper/service.ts';
import type { Answer, AskOptions } from '../helper/service.ts';

const horse = 'correct horse';
const alice = { login: 'alice', password: horse };

interface Scenario {
  readonly name: string;
  readonly path: string;
  readonly options?: AskOptions;
  readonly status: number;
  readonly headers?: Readonly<Record<string, string | RegExp | undefined>>;
  /** Parts of the answer's JSON. */
  readonly json?: Readonly<Record<string, unknown>>;
  readonly excludes?: readonly string[];
}

const post = (body: unknown, headers: Record<string, string> = {}): AskOptions => ({ method: 'POST', body, headers });
const send = (method: string, body?: unknown, headers: Record<string, string> = {}): AskOptions => ({ method, body, headers });
const problem = (code: string) => ({ type: `urn:registrar:${code}` });

/** In this order, on one service: what the later ones find is what the earlier ones left. */
const scenarios: readonly Scenario[] = [
  { name: 'an empty list', path: '/user/', status: 200, json: { users: [], next: null }, headers: { link: undefined } },
  {
    name: 'POST creates', path: '/user/', options: post(alice), status: 201, json: { id: 1, login: 'alice', version: 1 },
    headers: { location: '/user/alice', etag: '"1.1"', 'content-type': 'application/json', 'cache-control': 'no-store', 'x-request-id': /^[0-9a-f]{16}$/ },
  },
  { name: 'POST, no slash, no type', path: '/user', options: post({ login: 'Борис', password: horse }), status: 201, headers: { location: '/user/%D0%B1%D0%BE%D1%80%D0%B8%D1%81' } },
  { name: 'POST with a type', path: '/user', options: post({ login: 'carol', password: horse }, { 'Content-Type': 'application/json; charset=UTF-8' }), status: 201 },
  { name: 'POST of a taken login', path: '/user/', options: post({ login: 'ALICE', password: 'another horse' }), status: 409, json: problem('taken') },
  { name: 'PUT creates, with no ETag', path: '/user/Dave', options: send('PUT', { password: horse }), status: 201, json: { id: 4, login: 'dave' }, headers: { location: '/user/dave', etag: undefined } },
  { name: 'PUT never overwrites', path: '/user/dave', options: send('PUT', { password: 'another horse' }), status: 409, json: problem('taken') },
  { name: 'PUT If-None-Match: *', path: '/user/dave', options: send('PUT', { password: 'another horse' }, { 'If-None-Match': '*' }), status: 412, json: problem('precondition-failed') },
  { name: 'PUT If-None-Match of another', path: '/user/dave', options: send('PUT', { password: 'another horse' }, { 'If-None-Match': '"9.9"' }), status: 409 },
  { name: 'PUT If-None-Match: * of a free login', path: '/user/erin', options: send('PUT', { password: horse }, { 'If-None-Match': '*' }), status: 201 },
  { name: 'PUT If-Match of a free login', path: '/user/nobody', options: send('PUT', { password: horse }, { 'If-Match': '*' }), status: 412 },
  { name: 'PUT If-Match of a taken login', path: '/user/dave', options: send('PUT', { password: horse }, { 'If-Match': '*' }), status: 409 },
  { name: 'PUT of no login', path: '/user/a%2Fb', options: send('PUT', { password: horse }), status: 422, json: { errors: [{ detail: "The login may hold letters, digits and . _ - @ + ' only", parameter: 'login' }] } },
  { name: 'PUT of two scripts', path: `/user/${encodeURIComponent('pаypal')}`, options: send('PUT', { password: horse }), status: 422, json: problem('invalid') },
  { name: 'GET', path: '/user/alice', status: 200, json: { id: 1, login: 'alice' }, headers: { etag: '"1.1"' } },
  { name: 'GET with a slash', path: '/user/alice/', status: 200, json: { id: 1 } },
  { name: 'GET in another spelling', path: '/user/AL%49CE', status: 200, json: { login: 'alice' } },
  { name: 'GET of a Cyrillic login', path: '/user/%D0%91%D0%BE%D1%80%D0%B8%D1%81', status: 200, json: { login: 'борис' } },
  { name: 'HEAD', path: '/user/alice', options: send('HEAD'), status: 200, headers: { etag: '"1.1"', 'content-length': /^\d\d+$/ } },
  { name: 'GET of nobody', path: '/user/nobody', status: 404, json: problem('not-found') },
  { name: 'GET of what cannot be a login', path: '/user/a%00b', status: 404, json: problem('not-found') },
  { name: 'GET of a constructor', path: '/user/__proto__', status: 404 },
  { name: 'GET If-None-Match', path: '/user/alice', options: { headers: { 'If-None-Match': '"9.9", W/"1.1"' } }, status: 304, headers: { etag: '"1.1"', 'content-length': undefined } },
  { name: 'GET If-None-Match: *', path: '/user/alice', options: { headers: { 'If-None-Match': '*' } }, status: 304 },
  { name: 'GET If-None-Match of an older one', path: '/user/alice', options: { headers: { 'If-None-Match': '"1.0"' } }, status: 200 },
  { name: 'GET If-Match that fails', path: '/user/alice', options: { headers: { 'If-Match': '"1.0"' } }, status: 412 },
  { name: 'PATCH', path: '/user/alice', options: send('PATCH', { password: 'second horse' }), status: 200, json: { id: 1, version: 2 }, headers: { etag: '"1.2"' } },
  { name: 'PATCH with the right current password', path: '/user/alice', options: send('PATCH', { password: horse, current: 'second horse' }), status: 200, json: { version: 3 } },
  { name: 'PATCH with a wrong one', path: '/user/alice', options: send('PATCH', { password: horse, current: 'wrong horse' }), status: 403, json: { ...problem('wrong-password'), errors: [{ detail: 'It is not the password of this user', pointer: '#/current' }] } },
  { name: 'PATCH If-Match that fails', path: '/user/alice', options: send('PATCH', { password: horse }, { 'If-Match': '"1.2"' }), status: 412, json: problem('precondition-failed') },
  { name: 'PATCH If-Match without quotes', path: '/user/alice', options: send('PATCH', { password: horse }, { 'If-Match': '1.3' }), status: 400, json: problem('malformed') },
  { name: 'GET If-None-Match without quotes', path: '/user/alice', options: { headers: { 'If-None-Match': '1.3' } }, status: 400, json: problem('malformed') },
  { name: 'PUT with an empty body', path: '/user/zoe', options: send('PUT', ''), status: 400, json: { detail: 'The body is empty. Send an object as {"password":"…"}' } },
  { name: 'PATCH If-Match, weak', path: '/user/alice', options: send('PATCH', { password: horse }, { 'If-Match': 'W/"1.3"' }), status: 412 },
  { name: 'PATCH If-Match', path: '/user/alice', options: send('PATCH', { password: horse }, { 'If-Match': '"7.7", "1.3"' }), status: 200, json: { version: 4 } },
  { name: 'PATCH to a common password', path: '/user/alice', options: send('PATCH', { password: 'iloveyou' }), status: 422, json: { errors: [{ detail: 'The password is on the list of common passwords', pointer: '#/password' }] } },
  { name: 'PATCH of nobody', path: '/user/nobody', options: send('PATCH', { password: horse }), status: 404 },
  { name: 'PATCH If-None-Match: *', path: '/user/alice', options: send('PATCH', { password: horse }, { 'If-None-Match': '*' }), status: 412 },
  { name: 'DELETE If-None-Match of what is there', path: '/user/alice', options: send('DELETE', undefined, { 'If-None-Match': '"1.4"' }), status: 412 },
  { name: 'DELETE If-Match that fails', path: '/user/alice', options: send('DELETE', undefined, { 'If-Match': '"1.1"' }), status: 412 },
  { name: 'DELETE If-Match', path: '/user/alice', options: send('DELETE', undefined, { 'If-Match': '"1.4"' }), status: 204, headers: { 'content-type': undefined, 'content-length': undefined } },
  { name: 'DELETE again', path: '/user/alice', options: send('DELETE'), status: 404 },
  { name: 'POST of a login that was removed', path: '/user/', options: post(alice), status: 201, json: { id: 6 } },
  { name: 'OPTIONS of a user', path: '/user/alice', options: send('OPTIONS'), status: 204, headers: { allow: 'DELETE, GET, HEAD, OPTIONS, PATCH, PUT' } },
  { name: 'OPTIONS of the collection', path: '/user/', options: send('OPTIONS'), status: 204, headers: { allow: 'GET, HEAD, OPTIONS, POST' } },
  { name: 'OPTIONS of nothing', path: '/nothing', options: send('OPTIONS'), status: 404 },
  { name: 'a method that is not there', path: '/user/', options: send('DELETE'), status: 405, headers: { allow: 'GET, HEAD, OPTIONS, POST' }, json: problem('method-not-allowed') },
  { name: 'POST on a user', path: '/user/alice', options: send('POST', alice), status: 405, headers: { allow: /PUT/ } },
  { name: 'a path that is not there', path: '/users', status: 404, json: problem('not-found') },
  { name: 'a path of bad UTF-8', path: '/user/%ff', status: 400, json: problem('malformed') },
  { name: 'no JSON', path: '/user/', options: post('{"login":"alice","password":"hunter2hunter2"'), status: 400, json: problem('malformed'), excludes: ['hunter2'] },
  { name: 'a secret where JSON ends', path: '/user/', options: post('hunter2hunter2'), status: 400, excludes: ['hunter2'] },
  { name: 'an empty body', path: '/user/', options: post(''), status: 400, json: { detail: 'The body is empty. Send an object as {"login":"…","password":"…"}' } },
  { name: 'an array', path: '/user/', options: post([alice]), status: 400 },
  { name: 'null', path: '/user/', options: post('null'), status: 400 },
  { name: 'a field twice', path: '/user/', options: post('{"login":"x","login":"y","password":"hunter2hunter2"}'), status: 400, excludes: ['hunter2'] },
  { name: 'bad UTF-8', path: '/user/', options: post(Buffer.from([0x7b, 0xff, 0x7d])), status: 400, json: problem('malformed') },
  { name: 'overlong UTF-8', path: '/user/', options: post(Buffer.concat([Buffer.from('{"login":"'), Buffer.from([0xc0, 0xaf]), Buffer.from('"}')])), status: 400 },
  { name: 'fields that are missing', path: '/user/', options: post({}), status: 422, json: { errors: [{ detail: '"login" is missing', pointer: '#/login' }, { detail: '"password" is missing', pointer: '#/password' }] } },
  { name: 'fields of another type', path: '/user/', options: post({ login: 5, password: [horse] }), status: 422, json: { errors: [{ detail: '"login" has to be text', pointer: '#/login' }, { detail: '"password" has to be text', pointer: '#/password' }] }, excludes: [horse] },
  { name: 'an unknown field', path: '/user/', options: post({ ...alice, hunter2hunter2: 1 }), status: 422, json: { errors: [{ detail: 'The body has an unknown field: it may have "login", "password"', pointer: '#' }] }, excludes: ['hunter2'] },
  { name: 'a prototype', path: '/user/', options: post('{"login":"mallory","password":"correct horse","__proto__":{"a":1}}'), status: 422 },
  { name: 'half a surrogate pair', path: '/user/', options: post('{"login":"mallory","password":"correct \\ud800 horse"}'), status: 422 },
  { name: 'a short password', path: '/user/', options: post({ login: 'mallory', password: 'sh0rt' }), status: 422, json: { detail: 'The password has 5 characters: it needs at least 8' }, excludes: ['sh0rt'] },
  { name: 'the login as the password', path: '/user/', options: post({ login: 'mallory1', password: 'MALLORY1' }), status: 422, json: { detail: 'The password is little more than the login' } },
  { name: 'a form', path: '/user/', options: post('login=x', { 'Content-Type': 'application/x-www-form-urlencoded' }), status: 415, json: { detail: "The body's Content-Type has to be application/json: with curl add -H 'Content-Type: application/json'" } },
  { name: 'another charset', path: '/user/', options: post(alice, { 'Content-Type': 'application/json; charset=latin1' }), status: 415 },
  { name: 'a compressed body', path: '/user/', options: post('xx', { 'Content-Encoding': 'gzip' }), status: 415 },
  { name: 'a body that is too long', path: '/user/', options: post('x'.repeat(16_385)), status: 413, json: problem('too-large'), headers: { connection: 'close' } },
  { name: 'one that says so', path: '/user/', options: post('x'.repeat(16_385), { 'Transfer-Encoding': 'chunked' }), status: 413, headers: { connection: 'close' } },
  { name: 'a proxy', path: '/user/', options: { headers: { 'X-Forwarded-For': '192.0.2.1' } }, status: 403, json: problem('forbidden') },
  { name: 'another host', path: '/user/', options: { headers: { Host: 'evil.example' } }, status: 403 },
  { name: 'another site', path: '/user/alice', options: send('DELETE', undefined, { Origin: 'https://evil.example' }), status: 403 },
  { name: 'a bad key', path: '/user/', options: post(alice, { 'Idempotency-Key': '"' }), status: 400, json: problem('malformed') },
  { name: 'an upgrade is ignored', path: '/user/', options: { headers: { Connection: 'Upgrade', Upgrade: 'h2c' } }, status: 200 },
  { name: 'charset=utf8', path: '/user/', options: post(alice, { 'Content-Type': 'application/json; charset=utf8' }), status: 409 },
  { name: 'a quoted charset and a trailing semicolon', path: '/user/', options: post(alice, { 'Content-Type': 'Application/JSON ; Charset="UTF-8" ;' }), status: 409 },
  { name: 'another parameter of the type', path: '/user/', options: post(alice, { 'Content-Type': 'application/json;odata.metadata=minimal' }), status: 409 },
  { name: 'a type behind U+00A0, which is no white space', path: '/user/', options: post(alice, { 'Content-Type': '\xa0application/json' }), status: 415 },
  { name: 'a key with escapes, spaces and parameters', path: '/user/', options: post(alice, { 'Idempotency-Key': '"a \\"b\\\\ c";p=1' }), status: 409 },
  { name: 'a key with another escape', path: '/user/', options: post(alice, { 'Idempotency-Key': '"a\\b"' }), status: 400 },
  { name: 'a key that is empty', path: '/user/', options: post(alice, { 'Idempotency-Key': '""' }), status: 400 },
  { name: 'If-None-Match with empty elements', path: '/user/alice', options: { headers: { 'If-None-Match': ', "9.9",, W/"6.1" ,' } }, status: 304 },
  { name: 'If-Match with empty elements', path: '/user/alice', options: { headers: { 'If-Match': ',, "6.1"' } }, status: 200 },
  { name: 'If-Match without any element', path: '/user/alice', options: { headers: { 'If-Match': ' , ,' } }, status: 400 },
  { name: 'two question marks', path: '/user/??limit=3', status: 400, json: { errors: [{ detail: 'It is not a known parameter of the query: here it may have limit and after', parameter: '?limit' }] } },
  { name: 'a parameter that may be a secret', path: '/user/?correct%20horse=1', status: 400, json: { errors: [{ detail: 'It is not a known parameter of the query: here it may have limit and after', parameter: '…' }] } },
  { name: 'text that is no JSON', path: '/user/', options: post('{"a":1,}'), status: 400, json: { detail: /at character 8\b/ } },
  { name: 'a wrong password', path: '/session', options: post({ login: 'alice', password: 'wrong horse' }), status: 401, json: { title: 'The request is not authenticated' } },
  ...([
    ['application/json;q=0.9, application/x-ndjson', 'application/x-ndjson'], ['application/json, application/x-ndjson;q=0.9', 'application/json'],
    ['application/json, application/x-ndjson', 'application/json'], ['application/x-ndjson;q=0', 'application/json'],
    ['application/x-ndjson, */*', 'application/x-ndjson'], ['*/*', 'application/json'], ['text/html', 'application/json'],
    [', ,application/x-ndjson;q=0.5,application/*;q=0.4', 'application/x-ndjson'],
  ] as const).map(([Accept, type]): Scenario => ({ name: `Accept: ${Accept}`, path: '/user/', options: { headers: { Accept } }, status: 200, headers: { 'content-type': type } })),
  { name: 'an expectation', path: '/user/', options: send('POST', alice, { Expect: 'the best' }), status: 417, json: problem('expectation-failed') },
  { name: 'a limit of 0', path: '/user/?limit=0', status: 400, json: { errors: [{ detail: 'It has to be a whole number from 1 to 1000', parameter: 'limit' }] } },
  { name: 'a limit of 1001', path: '/user/?limit=1001', status: 400 },
  { name: 'a limit that is none', path: '/user/?limit=1e2', status: 400 },
  { name: 'two limits', path: '/user/?limit=1&limit=2', status: 400 },
  { name: 'an unknown parameter', path: '/user/?limt=5', status: 400, json: { detail: '"limt" is not a known parameter of the query: here it may have limit and after' } },
  { name: 'a parameter on a user', path: '/user/alice?x', status: 400, json: { detail: '"x" is not a known parameter of the query: there are none here' } },
  { name: 'a cursor that is none', path: '/user/?after=nonsense', status: 400, json: { errors: [{ detail: 'It is no cursor: take it from "next" of a list', parameter: 'after' }] } },
];

function check({ name, status, headers = {}, json = {}, excludes = [] }: Scenario, answer: Answer): void {
  assert.equal(answer.status, status, `${name}: ${answer.text}`);
  for (const [header, expected] of Object.entries(headers)) {
    if (expected instanceof RegExp) assert.match(String(answer.headers[header]), expected, `${name}: ${header}`);
    else assert.equal(answer.headers[header], expected, `${name}: ${header}`);
  }
  for (const [field, expected] of Object.entries(json)) {
    if (expected instanceof RegExp) assert.match(answer.json[field], expected, `${name}: ${field}`);
    else assert.deepEqual(answer.json[field], expected, `${name}: ${field}`);
  }
  for (const secret of [...excludes, 'pbkdf2', '$', 'node:', '.ts:']) assert.ok(!answer.text.includes(secret), `${name}: ${secret} in ${answer.text}`);
  if (status >= 400 && answer.text !== '') {
    assert.equal(answer.headers['content-type'], 'application/problem+json', name);
    assert.equal(answer.json.status, status, name);
    assert.match(answer.json.request, /^[0-9a-f]{16}$/, name);
    assert.ok(answer.json.title && answer.json.detail && answer.json.type, name);
  }
}

test('api: every request of the table gets its answer', async (t) => {
  const service = await openService(t);
  for (const scenario of scenarios) check(scenario, await service.ask(scenario.path, scenario.options));
  assert.deepEqual(service.reports.filter((line) => !line.includes('OWASP')), []);
});

test('api: pages of the list have every user once, and link to the next', async (t) => {
  const { ask } = await openService(t);
  for (let n = 0; n < 25; n++) await ask(`/user/user${n}`, send('PUT', { password: horse }));
  const seen: string[] = [];
  let path: string | null = '/user/?limit=10';
  for (let pages = 0; path !== null; pages++) {
    const { json, headers }: Answer = await ask(path);
    seen.push(...json.users.map(({ login }: { login: string }) => login));
    assert.equal(headers.link, json.next === null ? undefined : `<${json.next}>; rel="next"`);
    path = json.next;
    assert.ok(pages < 3);
  }
  assert.deepEqual(seen, Array.from({ length: 25 }, (_, n) => `user${n}`));
  assert.equal((await ask('/user/')).json.users.length, 25);
});

test('api: all users as NDJSON, one line each', async (t) => {
  const { ask } = await openService(t);
  const ndjson = { headers: { Accept: 'application/x-ndjson' } };
  assert.equal((await ask('/user/', ndjson)).text, '');
  for (let n = 0; n < 12; n++) await ask(`/user/user${n}`, send('PUT', { password: horse }));
  const { text, headers } = await ask('/user/', ndjson);
  assert.equal(headers['content-type'], 'application/x-ndjson');
  const users = text.trimEnd().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(users.map(({ login }) => login), Array.from({ length: 12 }, (_, n) => `user${n}`));
  assert.deepEqual(Object.keys(users[0]), ['id', 'login', 'registered', 'version']);
  const { next } = (await ask('/user/?limit=10')).json;
  const rest = await ask(next.replace('&limit=10', ''), ndjson);
  assert.equal(rest.text.split('\n').length - 1, 2);
  assert.equal((await ask('/user/?limit=10', ndjson)).status, 400);
  const refusing = await ask('/user/', { headers: { Accept: 'application/json, application/x-ndjson;q=0' } });
  assert.equal(refusing.headers['content-type'], 'application/json');
  assert.equal(refusing.headers.vary, 'Accept');
  assert.equal((await ask('/user/', { ...ndjson, method: 'HEAD' })).text, '');
});

test('api: an Idempotency-Key repeats the answer that was missed', async (t) => {
  const { ask, data } = await openService(t);
  const key = { 'Idempotency-Key': '"8e03978e-40d5-43dd-bc93-6894a57f9324"' };
  const bare = { 'Idempotency-Key': '8e03978e-40d5-43dd-bc93-6894a57f9324' };
  const first = await ask('/user/', post(alice, key));
  assert.equal(first.status, 201);
  for (const again of [await ask('/user/', post(alice, key)), await ask('/user/', post(alice, bare))]) {
    assert.equal(again.status, 201);
    assert.deepEqual(again.json, first.json);
    assert.equal(again.headers.location, first.headers.location);
    assert.equal(again.headers.etag, first.headers.etag);
  }
  assert.equal((await ask('/user/alice', send('PUT', { password: horse }, key))).status, 201);
  assert.equal((await ask('/user/', post({ ...alice, password: 'another horse' }, key))).json.type, 'urn:registrar:key-reused');
  assert.equal((await ask('/user/', post(alice))).status, 409);
  // Of many at once with the same key, all get the one user.
  const many = await Promise.all(Array.from({ length: 8 }, () => ask('/user/bob', send('PUT', { password: horse }, key))));
  assert.deepEqual(new Set(many.map(({ status, json }) => `${status} ${json.id}`)), new Set(['201 2']));
  const lines = readUsersFile(data);
  assert.equal(lines.length, 3);
  assert.ok(!JSON.stringify(lines).includes('8e03978e'));
});

test('api: a damaged line is told to the operator, and to a client no more than where to look', async (t) => {
  const { ask, data, reports } = await openService(t);
  await ask('/user/', post(alice));
  const path = join(data, 'users.jsonl');
  const bytes = readFileSync(path);
  bytes[bytes.length - 30]! ^= 1;
  writeFileSync(path, bytes);
  const { status, json } = await ask('/user/alice');
  assert.equal(status, 500);
  assert.doesNotMatch(json.detail, /users|line|byte/);
  assert.match(reports.at(-1) ?? '', new RegExp(`${json.request} failed: corrupt: .*line at byte`));
});

test('api: many registrations of one login at once give it to one', async (t) => {
  const { ask } = await openService(t);
  const answers = await Promise.all(Array.from({ length: 40 }, (_, n) => ask('/user/', post({ login: 'alice', password: `${horse} ${n}` }))));
  const statuses = answers.map(({ status }) => status).sort();
  assert.deepEqual(statuses, [201, ...Array.from({ length: 39 }, () => 409)]);
});
