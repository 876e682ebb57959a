/** Who is asking: the authenticator, and sessions over HTTP. */

import assert from 'node:assert/strict';
import { createPublicKey, verify } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { Authenticator } from '../../lib/auth/authenticator.ts';
import { parseTrustedProxies } from '../../lib/auth/client-address.ts';
import { Limits } from '../../lib/auth/limits.ts';
import { RequestContext } from '../../lib/auth/request-context.ts';
import { adminToken, cheap, openService, readUsersFile } from '../helper/service.ts';
import type { Answer, Ask, Service } from '../helper/service.ts';



function openAuthenticator() {
  const calls: string[] = [];
  const alice = { id: 1, login: 'alice', version: 1, registered: '', json: '{}' };
  let [ms, wait] = [1, Promise.resolve()];
  const registry = {
    findPublic: (login: string) => (calls.push(`find ${login}`), login === 'alice' ? alice : undefined),
    verify: async (login: string, word: string, signal: AbortSignal) => {
      calls.push(`verify ${login}`);
      await wait;
      signal.throwIfAborted();
      return login === 'alice' && word === password ? { ...alice } : undefined;
    },
  };
  const authenticator = new Authenticator({
    registry: registry as never, admin: { isSet: () => true, matches: () => false }, metrics: { matches: () => false }, sessions: { read: () => undefined },
    limits: new Limits({ now: () => ms, waitMsMax: 5_000 }), trusted: parseTrustedProxies('') as never,
    origins: { own: undefined, allowed: [], isHttps: true }, corsHeaders: () => ({}), verifiedSecondsMax: 60, verifiedEntriesMax: 100, now: () => ms,
  });
  const send = (login: string, word: string, response = new EventEmitter()) => {
    const headers = { authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` };
    const request = { method: 'GET', httpVersion: '1.1', socket: { remoteAddress: '192.0.2.1' }, headers };
    const context = new RequestContext(request as never, response as never, 'id');
    authenticator.begin(context);
    authenticator.admit(context);
    return Promise.resolve(authenticator.authenticate(context, 'read')).then(({ kind }) => kind, ({ code }) => code);
  };
  return { alice, calls, send, pass: (seconds: number) => void (ms += seconds * 1000), hold: (promise: Promise<void>) => void (wait = promise) };
}

test('authenticator: Basic looks the user up once, whether the password was verified a moment ago, is new, or is wrong', async () => {
  const { alice, calls, send, pass } = openAuthenticator();
  const during = async (login: string, word: string): Promise<unknown[]> => [await send(login, word), ...calls.splice(0)];
  assert.deepEqual(await during('Alice', password), ['user', 'verify alice']);
  assert.deepEqual(await during('ALICE', password), ['user', 'find alice']);
  assert.deepEqual(await during('alice', 'wrong'), ['unauthenticated', 'verify alice']);
  assert.deepEqual(await during('nobody', password), ['unauthenticated', 'verify nobody']);
  // Each condition of a hit is checked: the version, the id, the time.
  alice.version = 2;
  assert.deepEqual(await during('alice', password), ['user', 'find alice', 'verify alice']);
  alice.id = 2;
  assert.deepEqual(await during('alice', password), ['user', 'find alice', 'verify alice']);
  pass(59);
  assert.deepEqual(await during('alice', password), ['user', 'find alice']);
  pass(2);
  assert.deepEqual(await during('alice', password), ['user', 'verify alice']);
});

test('authenticator: equal sign-ins at the same time are one, and go on when the client that began leaves', async () => {
  const { calls, send, hold } = openAuthenticator();
  assert.deepEqual(await Promise.all(Array.from({ length: 50 }, () => send('alice', password))), Array.from({ length: 50 }, () => 'user'));
  assert.equal(calls.length, 1);
  assert.deepEqual(await Promise.all(Array.from({ length: 50 }, () => send('alice', 'wrong'))), Array.from({ length: 50 }, () => 'unauthenticated'));
  let go = (): void => undefined;
  hold(new Promise((resolve) => (go = resolve)));
  const response = new EventEmitter();
  const [leaving, staying] = [send('bob', password, response), send('bob', password)];
  response.emit('close');
  go();
  assert.deepEqual(await Promise.all([leaving, staying]), ['timeout', 'unauthenticated']);
});

const password = 'correct horse';
const basic = (login: string, word: string): Record<string, string> => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });
const cookie = (token: string): Record<string, string> => ({ cookie: `other=1; __Host-registrar=${token}` });
const admin = bearer(adminToken);

/** In authenticated mode, with alice. */
async function open(t: TestContext, ...args: string[]): Promise<Service & { ask: Ask }> {
  const service = await openService(t, [...cheap, '--limits', 'off', ...args], { REGISTRAR_ADMIN_TOKEN: adminToken });
  assert.equal((await service.ask('/user/', { method: 'POST', body: { login: 'alice', password } })).status, 201);
  return service;
}

async function signIn(ask: Ask, login = 'alice', word = password): Promise<string> {
  const { status, json } = await ask('/session', { method: 'POST', body: { login, password: word } });
  assert.equal(status, 201);
  return json.token;
}

function tokenOf(setCookie: string): string {
  return /^__Host-registrar=([^;]+)/.exec(setCookie)![1]!;
}

async function signInByCookie(ask: Ask, login: string): Promise<string> {
  const { headers } = await ask('/session', { method: 'POST', body: { login, password, cookie: 'session' } });
  return tokenOf(String(headers['set-cookie']));
}

test('session: a password gives a token that names its user, and that other services verify by the JWKS alone', async (t) => {
  const { ask } = await open(t, '--public-url', 'https://registrar.example');
  const { status, json, headers } = await ask('/session', { method: 'POST', body: { login: 'ALICE', password } });
  assert.equal(status, 201);
  assert.deepEqual(Object.keys(json), ['token', 'type', 'expires', 'user']);
  assert.equal(json.type, 'Bearer');
  assert.equal(json.user.login, 'alice');
  assert.equal(headers['set-cookie'], undefined);
  assert.equal(headers['cache-control'], 'no-store');

  const { json: jwks, headers: jwksHeaders } = await ask('/.well-known/jwks.json');
  assert.match(String(jwksHeaders['content-type']), /^application\/jwk-set\+json/);
  const [head = '', payload = '', signature = ''] = json.token.split('.');
  const { kid, alg } = JSON.parse(Buffer.from(head, 'base64url').toString());
  assert.equal(alg, 'ES256');
  const key = createPublicKey({ key: jwks.keys.find((jwk: { kid: string }) => jwk.kid === kid), format: 'jwk' });
  assert.ok(verify('sha256', Buffer.from(`${head}.${payload}`), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url')));
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
  assert.deepEqual([claims.iss, claims.aud, claims.use, claims.persistent], ['https://registrar.example', 'https://registrar.example', 'bearer', false]);
  assert.equal(claims.sub, String(json.user.id));
  assert.equal(claims.preferred_username, 'alice');
  assert.equal(new Date(claims.exp * 1000).toISOString(), json.expires);
  assert.equal(claims.exp - claims.iat, 3600);
});

test('session: GET tells the user by Basic, Bearer and cookie, and a proxy by a header', async (t) => {
  const { ask } = await open(t);
  assert.equal((await ask('/user/', { method: 'POST', body: { login: 'Алиса', password } })).status, 201);
  const [token, inCookie] = [await signIn(ask, 'алиса'), await signInByCookie(ask, 'алиса')];
  for (const headers of [basic('АЛИСА', password), bearer(token), cookie(inCookie)]) {
    const answer = await ask('/session', { headers });
    assert.equal(answer.status, 200);
    assert.equal(answer.json.user.login, 'алиса');
    assert.equal(answer.headers['x-user'], encodeURIComponent('алиса'));
    assert.equal(answer.json.expires === null, headers.authorization?.startsWith('Basic') ?? false);
  }
  const refused: [string, Record<string, string>, number][] = [
    ['nothing', {}, 401], ['the admin token', admin, 403], ['a wrong password', basic('алиса', 'wrong'), 401], ['no token', bearer('a.b.c'), 401],
    ['a cut token', bearer(token.slice(0, -2)), 401], ['another name of the cookie', { cookie: `registrar=${token}` }, 401],
    ['two cookies', { cookie: `__Host-registrar=${inCookie}; __Host-registrar=${inCookie}` }, 401],
    ['a Bearer token in the cookie', cookie(token), 401], ['a token of the cookie by Bearer', bearer(inCookie), 401],
  ];
  for (const [what, headers, status] of refused) assert.equal((await ask('/session', { headers })).status, status, what);
});

test('session: the cookie is set on request, unreadable for scripts, good for the session only, and its token is nowhere else', async (t) => {
  const { ask } = await open(t);
  const { headers, json, text } = await ask('/session', { method: 'POST', body: { login: 'alice', password, cookie: 'session' } });
  const [set = ''] = headers['set-cookie'] ?? [];
  assert.match(set, /^__Host-registrar=[^;]+; Path=\/; Secure; HttpOnly; SameSite=Lax$/);
  const persistent = await ask('/session', { method: 'POST', body: { login: 'alice', password, cookie: 'persistent' } });
  assert.match(String(persistent.headers['set-cookie']), /^__Host-registrar=[^;]+; Path=\/; Max-Age=43200; Secure; HttpOnly; SameSite=Lax$/);
  const token = tokenOf(set);
  assert.deepEqual(Object.keys(json), ['expires', 'user']);
  assert.ok(!text.includes(token));
  for (const wrong of ['yes', '', true, false]) {
    assert.equal((await ask('/session', { method: 'POST', body: { login: 'alice', password, cookie: wrong } })).status, 422, String(wrong));
  }
  assert.equal((await ask('/user/alice', { headers: cookie(token) })).status, 401);
  assert.equal((await ask('/user/alice', { method: 'PATCH', body: { password: 'new password', current: password }, headers: cookie(token) })).status, 401);
  // A page of another site can make the browser send it, and is told from ours.
  const crossSite = { ...cookie(token), 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' };
  assert.equal((await ask('/session', { method: 'DELETE', headers: crossSite })).status, 403);
  assert.equal((await ask('/session', { headers: cookie(token) })).status, 200);
  const ended = await ask('/session', { method: 'DELETE', headers: cookie(token) });
  assert.equal(ended.status, 204);
  assert.match(String(ended.headers['set-cookie']), /^__Host-registrar=; .*Max-Age=0;/);
  // A copy of the cookie is good until every session of the user ends, which the cookie itself can do.
  assert.equal((await ask('/session', { headers: cookie(token) })).status, 200);
  assert.equal((await ask('/user/alice/session', { method: 'DELETE', headers: crossSite })).status, 403);
  assert.equal((await ask('/user/alice/session', { method: 'DELETE', headers: cookie(token) })).status, 204);
  assert.equal((await ask('/session', { headers: cookie(token) })).status, 401);
  for (const headers of [basic('alice', password), bearer('x')]) {
    const { status, json: problem } = await ask('/session', { method: 'DELETE', headers });
    assert.equal(status, 400);
    assert.match(problem.detail, /DELETE \/user\/\{login\}\/session/);
  }
});

test('session: DELETE ends every token of the user and no other\'s, and leaves password and dates as they are', async (t) => {
  const { ask, data } = await open(t);
  await ask('/user/', { method: 'POST', body: { login: 'bob', password } });
  const [one, two, bobs] = [await signIn(ask), await signIn(ask), await signIn(ask, 'bob')];
  assert.equal((await ask('/user/alice/session', { method: 'DELETE', headers: bearer(one) })).status, 204);
  for (const token of [one, two]) assert.equal((await ask('/session', { headers: bearer(token) })).status, 401);
  assert.equal((await ask('/session', { headers: bearer(bobs) })).status, 200);
  const { json } = await ask('/user/alice', { headers: basic('alice', password) });
  assert.deepEqual([json.version, json.changed], [2, undefined]);
  assert.equal(readUsersFile(data).filter(({ login }) => login === 'alice').at(-1).version, 2);
  assert.equal((await ask('/session', { headers: bearer(await signIn(ask)) })).status, 200);
});

test('session: a change of the password and a removal end the tokens, and a new user of that login does not get them back', async (t) => {
  const { ask } = await open(t);
  const before = await signIn(ask);
  const changed = await ask('/user/alice', { method: 'PATCH', body: { password: 'battery staple', current: password }, headers: bearer(before) });
  assert.equal(changed.status, 200);
  assert.equal((await ask('/user/alice', { headers: bearer(before) })).status, 401);
  assert.equal((await ask('/user/alice', { headers: basic('alice', password) })).status, 401);
  const after = await signIn(ask, 'alice', 'battery staple');
  assert.equal((await ask('/user/alice', { method: 'DELETE', headers: basic('alice', 'battery staple') })).status, 204);
  assert.equal((await ask('/user/alice', { headers: bearer(after) })).status, 401);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password: 'battery staple' } });
  assert.equal((await ask('/user/alice', { headers: bearer(after) })).status, 401);
});

test('session: a token alone changes no password and removes no user', async (t) => {
  const { ask } = await open(t);
  const headers = bearer(await signIn(ask));
  const missing = await ask('/user/alice', { method: 'PATCH', body: { password: 'battery staple' }, headers });
  assert.equal(missing.status, 422);
  assert.deepEqual(missing.json.errors.map(({ pointer }: { pointer: string }) => pointer), ['#/current']);
  const wrong = await ask('/user/alice', { method: 'PATCH', body: { password: 'battery staple', current: 'wrong' }, headers });
  assert.equal(wrong.json.type, 'urn:registrar:wrong-password');
  const removal = await ask('/user/alice', { method: 'DELETE', headers });
  assert.equal(removal.status, 403);
  assert.match(removal.json.detail, /curl -u/);
  assert.equal((await ask('/user/alice', { headers })).status, 200);
});

test('session: unknown login and wrong password are answered with the same bytes', async (t) => {
  const { ask } = await open(t);
  // The exact id of the request, the time, and nothing else may differ.
  const strip = ({ status, headers, text }: Answer): unknown => {
    const { date: _date, 'x-request-id': _id, ...rest } = headers;
    return [status, rest, text.replace(/"request":"[^"]+"/, '')];
  };
  const ways: ((login: string) => Promise<Answer>)[] = [
    (login) => ask('/session', { method: 'POST', body: { login, password: 'wrong password' } }),
    (login) => ask('/session', { headers: basic(login, 'wrong password') }),
    (login) => ask(`/user/${login}`, { headers: basic(login, 'wrong password') }),
    (login) => ask('/user/alice', { headers: basic(login, 'wrong password') }),
    (login) => ask('/user/nobody', { headers: basic(login, 'wrong password') }),
    (login) => ask('/user/', { method: 'POST', body: { login: 'x', password }, headers: basic(login, 'wrong password') }),
  ];
  for (const [n, way] of ways.entries()) {
    const [known, unknown] = [strip(await way('alice')), strip(await way('nobody'))];
    assert.deepEqual(known, unknown, `way ${n}`);
    assert.equal((known as unknown[])[0], 401);
  }
});

test('session: the account of another user gets the same response whether it exists or not', async (t) => {
  const { ask } = await open(t);
  await ask('/user/', { method: 'POST', body: { login: 'bob', password } });
  const token = await signIn(ask, 'bob');
  for (const headers of [basic('bob', password), bearer(token)]) {
    for (const [method, body] of [['GET'], ['HEAD'], ['DELETE'], ['PATCH', { password: 'battery staple', current: 'x' }]] as const) {
      const answers = await Promise.all(['alice', 'nobody', 'not a login'].map((login) => ask(`/user/${encodeURIComponent(login)}`, { method, body, headers })));
      assert.deepEqual(answers.map(({ status }) => status), [403, 403, 403], method);
      assert.equal(new Set(answers.map(({ text }) => text.replace(/"request":"[^"]+"/, ''))).size, 1);
    }
  }
});

test('session: a good Basic check is remembered, and ends at once with a change, a removal, or the end of sessions elsewhere', async (t) => {
  const { ask, data } = await openService(t, ['--kdf', 'pbkdf2:sha256:300000', '--limits', 'off'], { REGISTRAR_ADMIN_TOKEN: adminToken });
  const other = await openService(t, ['--kdf', 'pbkdf2:sha256:300000', '--limits', 'off', '--data', data], { REGISTRAR_ADMIN_TOKEN: adminToken });
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  const headers = basic('alice', password);
  const spent = async (act: () => Promise<unknown>): Promise<number> => {
    const started = performance.now();
    await act();
    return performance.now() - started;
  };
  const hashed = await spent(async () => assert.equal((await ask('/user/alice', { headers })).status, 200));
  const remembered = await spent(async () => {
    for (let n = 0; n < 10; n++) assert.equal((await ask('/user/alice', { headers })).status, 200);
  });
  assert.ok(remembered < hashed * 5, `ten remembered checks took ${remembered} ms, one hashed ${hashed} ms`);
  assert.equal((await other.ask('/user/alice/session', { method: 'DELETE', headers })).status, 204);
  assert.equal((await ask('/user/alice', { headers })).status, 200, 'the password is still right');
  const change = { password: 'battery staple' };
  assert.equal((await other.ask('/user/alice', { method: 'PATCH', body: change, headers })).status, 200);
  assert.equal((await ask('/user/alice', { headers })).status, 401);
  const renewed = basic('alice', 'battery staple');
  assert.equal((await ask('/user/alice', { headers: renewed })).status, 200);
  assert.equal((await other.ask('/user/alice', { method: 'DELETE', headers: admin })).status, 204);
  assert.equal((await ask('/user/alice', { headers: renewed })).status, 401);
});

test('session: fifty times the same Basic check at once are one hash, and are not limited', async (t) => {
  const { ask } = await openService(t, cheap, { REGISTRAR_ADMIN_TOKEN: adminToken });
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  const answers = await Promise.all(Array.from({ length: 50 }, () => ask('/user/alice', { headers: basic('alice', password) })));
  assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
});

test('session: in unauthenticated mode a session needs credentials, and credentials are checked everywhere', async (t) => {
  const { ask } = await openService(t);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  assert.equal((await ask('/session')).status, 401);
  assert.equal((await ask('/session', { headers: basic('alice', 'wrong') })).status, 401);
  assert.equal((await ask('/session', { headers: basic('alice', password) })).status, 200);
  assert.equal((await ask('/session', { headers: bearer(await signIn(ask)) })).status, 200);
  assert.equal((await ask('/user/alice', { headers: basic('alice', 'wrong') })).status, 401);
});

test('session: guesses at a password by repeats with an Idempotency-Key are limited like all others', async (t) => {
  const { ask } = await openService(t, cheap, { REGISTRAR_ADMIN_TOKEN: adminToken });
  const register = (word: string) => ask('/user/', { method: 'POST', body: { login: 'alice', password: word }, headers: { 'idempotency-key': '"k"' } });
  assert.equal((await register(password)).status, 201);
  assert.equal((await register(password)).status, 201);
  const statuses = [];
  for (let n = 0; n < 25; n++) statuses.push((await register(`battery staple ${n}`)).status);
  assert.deepEqual([statuses.filter((status) => status === 422).length, statuses.at(-1)], [20, 429]);
});
