/** Who may do what, and the principals of each request at each route. */

import assert from 'node:assert/strict';
import { createHmac, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { authorize, isLoopback, requireDirectClient, requireOwnOrigin } from '../lib/access.ts';
import type { Action, IncomingRequest, Principal, Proof } from '../lib/access.ts';
import { signToken } from '../lib/auth/token.ts';
import type { Claims } from '../lib/auth/token.ts';
import { RegistrarError } from '../lib/errors.ts';
import { pageRoutes } from '../lib/http/page-routes.ts';
import { apiRoutes } from '../lib/http/routes.ts';
import { adminToken, cheap, openService, readUsersFile } from './helper/service.ts';
import type { Ask } from './helper/service.ts';

const direct: IncomingRequest = { method: 'POST', peer: '127.0.0.1', httpVersion: '1.1', host: 'localhost:8443', headers: {} };
const withHeaders = (headers: IncomingRequest['headers']): IncomingRequest => ({ ...direct, headers });
const withHost = (host: string | undefined): IncomingRequest => ({ ...direct, host });

test('unauthenticated mode: direct clients on this machine are served', () => {
  for (const peer of ['127.0.0.1', '127.8.8.8', '::1', '::ffff:127.0.0.1']) requireDirectClient({ ...direct, peer });
  for (const host of ['localhost', 'LOCALHOST:1', '127.0.0.1', '127.0.0.1:8443', '[::1]', '[::1]:8443']) requireDirectClient(withHost(host));
});

test('unauthenticated mode: requests that may come from elsewhere are rejected, with the remedy', () => {
  const refused: [string, IncomingRequest][] = [
    ['another machine', { ...direct, peer: '192.0.2.1' }],
    ['another machine', { ...direct, peer: '::ffff:192.0.2.1' }],
    ['another machine', { ...direct, peer: undefined }],
    ['HTTP/1.0', { ...direct, httpVersion: '1.0' }],
    ['another host', withHost('registrar.example')],
    ['another host', withHost('localhost.evil.example')],
    ['another host', withHost('127.0.0.1.evil.example:8443')],
    ['another host', withHost('127.0.0.2')],
    ['another host', withHost(undefined)],
    ['another host', withHost('')],
    ...['forwarded', 'via', 'x-real-ip', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-anything', 'cf-connecting-ip', 'x-client-ip'].map(
      (name): [string, IncomingRequest] => [`"${name}"`, withHeaders({ [name]: '' })],
    ),
  ];
  for (const [why, approach] of refused) {
    assert.throws(() => requireDirectClient(approach), (error: any) => {
      assert.equal(error.code, 'forbidden');
      assert.ok(error.message.includes(why), `${error.message}: ${why}`);
      assert.match(error.message, /curl -k/);
      return true;
    });
  }
});

test('access: a page of another origin changes nothing, unless the origin is the service\'s own or allowed', () => {
  const origins = { own: 'https://registrar.example', isHttps: true, allowed: ['https://app.example', 'http://localhost:3000'] };
  const foreign: IncomingRequest['headers'][] = [
    { 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }, { origin: 'https://evil.example' }, { origin: 'null' }, { origin: '' },
    { origin: 'https://localhost:9999' }, { origin: 'https://app.example.evil.example' }, { origin: 'https://app.example:8443' },
    { origin: 'http://app.example' }, { origin: 'http://localhost:8443' }, { origin: 'https://evil.example', 'sec-fetch-site': 'same-origin' },
  ];
  const ours: IncomingRequest['headers'][] = [
    {}, { 'sec-fetch-site': 'none' }, { 'sec-fetch-site': 'same-origin' }, { origin: 'https://localhost:8443', 'sec-fetch-site': 'same-origin' },
    { origin: 'https://registrar.example' }, { origin: 'https://app.example', 'sec-fetch-site': 'cross-site' },
    { origin: 'http://localhost:3000', 'sec-fetch-site': 'same-site' },
  ];
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    for (const headers of foreign) {
      assert.throws(() => requireOwnOrigin({ ...withHeaders(headers), method }, origins), { code: 'forbidden' }, JSON.stringify(headers));
    }
    for (const headers of ours) requireOwnOrigin({ ...withHeaders(headers), method }, origins);
  }
  requireOwnOrigin(withHeaders({ origin: 'http://localhost:8443' }), { ...origins, isHttps: false });
  for (const method of ['GET', 'HEAD', 'OPTIONS']) {
    for (const headers of foreign) requireOwnOrigin({ ...withHeaders(headers), method }, origins);
  }
});

/** Requests about the account of alice, where they are about one. */
const user = (login: string, by: Proof): Principal => ({ kind: 'user', by, id: 7, login, version: 1, session: undefined, json: '{}' });
const principals = {
  unauthenticated: { kind: 'unauthenticated' },
  anonymous: { kind: 'anonymous' },
  metrics: { kind: 'metrics' },
  admin: { kind: 'admin' },
  'alice by Basic': user('alice', 'basic'),
  'alice by Bearer': user('alice', 'bearer'),
  'alice by cookie': user('alice', 'cookie'),
  'bob by Basic': user('bob', 'basic'),
  'bob by Bearer': user('bob', 'bearer'),
  'bob by cookie': user('bob', 'cookie'),
} as const satisfies Record<string, Principal>;

/** Allowed (yes), needs credentials (401), forbidden (403), in the order of the principals above. */
const yes = 'yes';
const table: readonly (readonly [Action, 'open' | 'admin', ...(readonly ('yes' | 401 | 403)[])])[] = [
  //       in the order of `principals`
  ['public', 'open', yes, yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['public', 'admin', yes, yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['register', 'open', yes, yes, 403, yes, yes, yes, 401, yes, yes, 401],
  ['register', 'admin', yes, 401, 403, yes, 403, 403, 401, 403, 403, 401],
  ['list', 'open', yes, 401, 403, yes, 403, 403, 401, 403, 403, 401],
  ['list', 'admin', yes, 401, 403, yes, 403, 403, 401, 403, 403, 401],
  ['read', 'open', yes, 401, 403, yes, yes, yes, 401, 403, 403, 401],
  ['read', 'admin', yes, 401, 403, yes, yes, yes, 401, 403, 403, 401],
  ['change-password', 'open', yes, 401, 403, yes, yes, yes, 401, 403, 403, 401],
  ['change-password', 'admin', yes, 401, 403, yes, yes, yes, 401, 403, 403, 401],
  ['remove', 'open', yes, 401, 403, yes, yes, 403, 401, 403, 403, 401],
  ['remove', 'admin', yes, 401, 403, yes, yes, 403, 401, 403, 403, 401],
  ['open-session', 'open', yes, yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['open-session', 'admin', yes, yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['read-session', 'open', 401, 401, 403, 403, yes, yes, yes, yes, yes, yes],
  ['read-session', 'admin', 401, 401, 403, 403, yes, yes, yes, yes, yes, yes],
  ['forward-auth', 'open', 401, 401, 403, 403, yes, yes, yes, yes, yes, yes],
  ['forward-auth', 'admin', 401, 401, 403, 403, yes, yes, yes, yes, yes, yes],
  ['close-session', 'open', yes, yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['close-session', 'admin', yes, yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['end-sessions', 'open', yes, 401, 403, yes, yes, yes, yes, 403, 403, 403],
  ['end-sessions', 'admin', yes, 401, 403, yes, yes, yes, yes, 403, 403, 403],
  ['issue-link', 'open', yes, 401, 403, yes, 403, 403, 401, 403, 403, 401],
  ['issue-link', 'admin', yes, 401, 403, yes, 403, 403, 401, 403, 403, 401],
  ['use-link', 'open', yes, yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['use-link', 'admin', yes, yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['read-metrics', 'open', yes, 401, yes, yes, 403, 403, 401, 403, 403, 401],
  ['read-metrics', 'admin', yes, 401, yes, yes, 403, 403, 401, 403, 403, 401],
];

function decide(principal: Principal, action: Action, registration: 'open' | 'admin', login?: string): 'yes' | 401 | 403 {
  try {
    authorize(principal, action, { registration }, login);
    return yes;
  } catch (error) {
    assert.ok(error instanceof RegistrarError);
    assert.ok(error.code === 'unauthenticated' || error.code === 'forbidden', error.code);
    return error.code === 'unauthenticated' ? 401 : 403;
  }
}

for (const [action, registration, ...cells] of table) {
  test(`access: principals that may ${action}, with --registration ${registration}`, () => {
    const found = Object.values(principals).map((principal) => decide(principal, action, registration, 'alice'));
    assert.deepEqual(found, cells);
  });
}

test('access: without a login there is no owner, and an unknown action is forbidden', () => {
  for (const action of ['read', 'change-password', 'remove'] as const) {
    assert.equal(decide(principals['alice by Basic'], action, 'open'), 403);
    assert.equal(decide(user('', 'basic'), action, 'open'), 403);
  }
  const unknown = 'shut-down' as Action;
  assert.equal(decide(principals['alice by Basic'], unknown, 'open', 'alice'), 403);
  assert.equal(decide(principals['alice by Bearer'], unknown, 'open', 'alice'), 403);
  assert.equal(decide(principals.anonymous, unknown, 'open'), 401);
});

test('access: what is a loopback address, and what only looks like one', () => {
  for (const address of ['127.0.0.1', '127.255.0.3', '::1', 'localhost', '::FFFF:127.0.0.1']) assert.equal(isLoopback(address), true, address);
  for (const address of ['0.0.0.0', '::', '128.0.0.1', '1127.0.0.1', '127.0.0.1.example', '', '10.0.0.1']) {
    assert.equal(isLoopback(address), false, address);
  }
});

const password = 'correct horse';
const basic = (login: string, word: string): Record<string, string> => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });
const cookie = (token: string): Record<string, string> => ({ cookie: `__Host-registrar=${token}` });
const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** The principal in the table; `bad` has credentials that are not valid. */
type Kind = 'nobody' | 'bad' | 'admin' | 'metrics' | 'other' | 'other by cookie' | 'owner by basic' | 'owner by bearer' | 'owner by cookie';

/** Which principals are rejected, and how, where the user is alice. Others are permitted. */
const refusals: Readonly<Record<Action, Partial<Record<Kind, 401 | 403>>>> = {
  public: {},
  'open-session': {},
  register: { bad: 401, metrics: 403 },
  list: { nobody: 401, bad: 401, metrics: 403, other: 403, 'other by cookie': 401, 'owner by basic': 403, 'owner by bearer': 403, 'owner by cookie': 401 },
  'read-metrics': { nobody: 401, bad: 401, other: 403, 'other by cookie': 401, 'owner by basic': 403, 'owner by bearer': 403, 'owner by cookie': 401 },
  read: { nobody: 401, bad: 401, metrics: 403, other: 403, 'other by cookie': 401, 'owner by cookie': 401 },
  'change-password': { nobody: 401, bad: 401, metrics: 403, other: 403, 'other by cookie': 401, 'owner by cookie': 401 },
  remove: { nobody: 401, bad: 401, metrics: 403, other: 403, 'other by cookie': 401, 'owner by cookie': 401, 'owner by bearer': 403 },
  'read-session': { nobody: 401, bad: 401, metrics: 403, admin: 403 },
  'forward-auth': { nobody: 401, bad: 401, metrics: 403, admin: 403 },
  'close-session': {},
  'end-sessions': { nobody: 401, bad: 401, metrics: 403, other: 403, 'other by cookie': 403 },
  'issue-link': { nobody: 401, bad: 401, metrics: 403, other: 403, 'other by cookie': 401, 'owner by basic': 403, 'owner by bearer': 403, 'owner by cookie': 401 },
  'use-link': {},
};

/** Those of `--registration admin`. */
const closedRegistration: Partial<Record<Kind, 401 | 403>> = {
  nobody: 401, bad: 401, metrics: 403, other: 403, 'other by cookie': 401, 'owner by basic': 403, 'owner by bearer': 403, 'owner by cookie': 401,
};

const issuer = 'https://registrar.example';
const metricsToken = 'the-metrics-token-of-these-tests';

/** A token for Bearer and one for the cookie. */
async function tokensOf(ask: Ask, login: string): Promise<[bearer: string, cookie: string]> {
  const { json } = await ask('/session', { method: 'POST', body: { login, password } });
  const { headers } = await ask('/session', { method: 'POST', body: { login, password, cookie: 'session' } });
  return [json.token, /^__Host-registrar=([^;]+)/.exec(String(headers['set-cookie']))![1]!];
}

/** Forged tokens, some of them made from a valid one. */
function forgeries(data: string, good: string, jwk: Record<string, string>): Readonly<Record<string, string>> {
  const { keys: [record] } = JSON.parse(readFileSync(join(data, 'signing-keys.json'), 'utf8'));
  const [head = '', payload = '', signature = ''] = good.split('.');
  const header = JSON.parse(Buffer.from(head, 'base64url').toString());
  const claims: Claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
  const privateKey = createPrivateKey({ key: record, format: 'jwk' });
  const publicKey = createPublicKey(privateKey);
  const own = { kid: header.kid, privateKey, publicKey };
  const now = Math.floor(Date.now() / 1000);
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const hmac = (secret: string | Buffer): string => {
    const text = `${encode({ ...header, alg: 'HS256' })}.${payload}`;
    return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
  };
  const withHeader = (fields: object): string => {
    const made = signToken(own, claims).split('.');
    return [encode({ ...header, ...fields }), made[1], made[2]].join('.');
  };
  const flipped = Buffer.from(signature, 'base64url');
  flipped[5] = flipped[5]! ^ 1;
  return {
    'of a year': signToken(own, { ...claims, exp: claims.iat + 365 * 86_400 }),
    'of a million years': signToken(own, { ...claims, exp: 2 ** 53 - 1 }),
    'of another audience': signToken(own, { ...claims, aud: 'https://evil.example' }),
    'not valid yet': signToken(own, { ...claims, nbf: now + 3600 }),
    'for a cookie': signToken(own, { ...claims, use: 'cookie' }),
    'expired': signToken(own, { ...claims, iat: now - 7200, exp: now - 3600 }),
    'expired this second': signToken(own, { ...claims, iat: now - 3600, exp: now }),
    'from the future': signToken(own, { ...claims, iat: now + 3600, exp: now + 7200 }),
    'of another issuer': signToken(own, { ...claims, iss: 'https://evil.example' }),
    'of the issuer with a slash': signToken(own, { ...claims, iss: `${issuer}/` }),
    'of an earlier version': signToken(own, { ...claims, version: claims.version + 1 }),
    'of another id': signToken(own, { ...claims, sub: '999' }),
    'of another login': signToken(own, { ...claims, preferred_username: 'bob' }),
    'of a foreign key': signToken({ ...own, privateKey: stranger.privateKey }, claims),
    'of a key that is not ours': signToken({ kid: 'unknown', ...stranger }, claims),
    'with another kid': withHeader({ kid: 'unknown' }),
    'with a path for a kid': withHeader({ kid: '../../../../dev/null' }),
    'with __proto__ for a kid': withHeader({ kid: '__proto__' }),
    'alg none': `${encode({ ...header, alg: 'none' })}.${payload}.`,
    'alg None, signed': `${encode({ ...header, alg: 'None' })}.${payload}.${signature}`,
    'no signature': `${head}.${payload}.`,
    'no third part': `${head}.${payload}`,
    'four parts': `${good}.x`,
    'HS256 with the public PEM': hmac(publicKey.export({ type: 'spki', format: 'pem' })),
    'HS256 with the public DER': hmac(publicKey.export({ type: 'spki', format: 'der' })),
    'HS256 with the JWK': hmac(JSON.stringify(jwk)),
    'HS256 with the x of the JWK': hmac(Buffer.from(jwk.x ?? '', 'base64url')),
    'HS256 with nothing': hmac(''),
    'its own key in the header': (() => {
      const text = `${encode({ ...header, jwk: stranger.publicKey.export({ format: 'jwk' }) })}.${payload}`;
      return `${text}.${signToken({ ...own, privateKey: stranger.privateKey }, claims).split('.')[2]}`;
    })(),
    'other claims under the same signature': `${head}.${encode({ ...claims, exp: claims.exp + 999 })}.${signature}`,
    'a signature with a bit turned': `${head}.${payload}.${flipped.toString('base64url')}`,
    'a signature of zeroes': `${head}.${payload}.${Buffer.alloc(64).toString('base64url')}`,
    'the signature in another spelling': `${good}=`,
    'a sub with a sign': signToken(own, { ...claims, sub: `+${claims.sub}` }),
    'an exp of text': signToken(own, { ...claims, exp: String(claims.exp) as never }),
  };
}

async function openPrincipals(t: TestContext, registration: 'open' | 'admin') {
  const args = [...cheap, '--limits', 'off', '--public-url', issuer, '--registration', registration];
  const service = await openService(t, args, { REGISTRAR_ADMIN_TOKEN: adminToken, REGISTRAR_METRICS_TOKEN: metricsToken });
  const { ask, data } = service;
  const asAdmin = { headers: bearer(adminToken) };
  for (const login of ['alice', 'bob']) await ask('/user/', { method: 'POST', body: { login, password }, ...asAdmin });
  const [[alice, aliceCookie], [bob, bobCookie]] = [await tokensOf(ask, 'alice'), await tokensOf(ask, 'bob')];
  const [jwk] = (await ask('/.well-known/jwks.json')).json.keys;
  const forged = Object.entries(forgeries(data, alice, jwk)).map(([name, token]): [string, Kind, Record<string, string>] => [`a token ${name}`, 'bad', bearer(token)]);
  const bad: [string, Kind, Record<string, string>][] = [
    ['a wrong password', 'bad', basic('alice', 'wrong')], ['no password', 'bad', basic('alice', '')], ['no login', 'bad', basic('', password)],
    ['somebody unknown', 'bad', basic('nobody', password)], ['a password in capitals', 'bad', basic('alice', password.toUpperCase())],
    ['a password and a space', 'bad', basic('alice', `${password} `)], ['a password and a NUL', 'bad', basic('alice', `${password}\0`)],
    ['the admin token for a password', 'bad', basic('admin', adminToken)], ['the admin token for alice\'s', 'bad', basic('alice', adminToken)],
    ['alice\'s token for her password', 'bad', basic('alice', alice)], ['the hash for a password', 'bad', basic('alice', readUsersFile(data).at(-2).password)],
    ['half of the admin token', 'bad', bearer(adminToken.slice(0, -1))], ['more than the admin token', 'bad', bearer(`${adminToken}x`)],
    ['the admin token in capitals', 'bad', bearer(adminToken.toUpperCase())], ['the admin token by another scheme', 'bad', { authorization: `Token ${adminToken}` }],
    ['the admin token alone', 'bad', { authorization: adminToken }], ['an empty scheme', 'bad', { authorization: '' }], ['Basic alone', 'bad', { authorization: 'Basic' }],
    ['Basic that is no base64', 'bad', { authorization: 'Basic %%%%' }], ['Basic that is no UTF-8', 'bad', { authorization: `Basic ${Buffer.from([0x61, 0x3a, 0xff]).toString('base64')}` }],
    ['Basic without a colon', 'bad', { authorization: `Basic ${Buffer.from('alice').toString('base64')}` }], ['Bearer alone', 'bad', { authorization: 'Bearer ' }],
    ['bad credentials and a good cookie', 'bad', { ...basic('alice', 'wrong'), ...cookie(aliceCookie) }],
    ['the token of a cookie by Bearer', 'bad', bearer(aliceCookie)], ['half of the metrics token', 'bad', bearer(metricsToken.slice(1))],
  ];
  const nobody: [string, Kind, Record<string, string>][] = [
    ['nobody', 'nobody', {}], ['the admin token in the cookie', 'nobody', cookie(adminToken)], ['two cookies', 'nobody', { cookie: `__Host-registrar=${aliceCookie}; __Host-registrar=${aliceCookie}` }],
    ['a Bearer token in the cookie', 'nobody', cookie(alice)], ['the metrics token in the cookie', 'nobody', cookie(metricsToken)],
    ['a cookie of another name', 'nobody', { cookie: `registrar=${aliceCookie}; __host-registrar=${aliceCookie}; \u00a0__Host-registrar=${aliceCookie}` }], ['the admin token in another header', 'nobody', { 'x-admin-token': adminToken }],
    ['a proxy that says who it is', 'nobody', { 'x-user': 'alice', 'x-remote-user': 'alice', 'x-forwarded-user': 'alice', 'proxy-authorization': `Bearer ${adminToken}` }],
  ];
  const good: [string, Kind, Record<string, string>][] = [
    ['the admin', 'admin', bearer(adminToken)], ['bob by Basic', 'other', basic('bob', password)], ['bob by Bearer', 'other', bearer(bob)],
    ['bob by cookie', 'other by cookie', cookie(bobCookie)], ['alice by Basic', 'owner by basic', basic('alice', password)], ['alice by Bearer', 'owner by bearer', bearer(alice)],
    ['alice by cookie', 'owner by cookie', cookie(aliceCookie)], ['the metrics token', 'metrics', bearer(metricsToken)],
  ];
  return { ...service, principals: [...nobody, ...bad, ...forged, ...good] };
}

/** All that is served, and HEAD for each GET. */
const served = [...apiRoutes, ...pageRoutes({ length: { codePointsMin: 8, codePointsMax: 256 }, prefix: '', help: '' })].flatMap(({ method, pattern, action }) =>
  [{ method, pattern, action }, ...(method === 'GET' ? [{ method: 'HEAD', pattern, action }] : [])]);

for (const registration of ['open', 'admin'] as const) {
  test(`principals: every route rejects each principal without the right, registration ${registration}`, async (t) => {
    const { ask, data, principals } = await openPrincipals(t, registration);
    const findings: string[] = [];
    let asked = 0;
    const before = readUsersFile(data).length;
    assert.ok(served.length >= 20);
    // With --registration admin only the routes that register differ.
    const routes = served.filter(({ action }) => registration === 'open' || action === 'register');
    for (const { method, pattern, action } of routes) {
      const refused = action === 'register' && registration === 'admin' ? closedRegistration : refusals[action];
      if (refused === undefined) throw new Error(`${method} ${pattern}: "${action}" is new: say here who may not`);
      const path = pattern.replace('{login}', action === 'register' ? 'mallory' : 'alice');
      assert.doesNotMatch(path, /[{}]/, 'a parameter that is new');
      await Promise.all(principals.map(async ([name, kind, headers]) => {
        const status = refused[kind];
        if (status === undefined) return;
        asked++;
        const body = ['GET', 'HEAD', 'DELETE'].includes(method) ? {} : { body: { login: 'mallory', password: 'battery staple', current: password } };
        const answer = await ask(path, { method, headers, ...body });
        // A cookie without a session is invalid where cookies count, and ignored elsewhere: both are 401.
        if (answer.status !== status) findings.push(`${method} ${path} by ${name}: ${answer.status}`);
        if (status === 401 && !/^Basic realm=.*, Bearer realm=/.test(String(answer.headers['www-authenticate']))) findings.push(`${method} ${path} by ${name}: no challenge`);
        if (method === 'HEAD' ? answer.text !== '' : !/^urn:registrar:(?:unauthenticated|forbidden)$/.test(String(answer.json?.type))) findings.push(`${method} ${path} by ${name}: ${answer.text}`);
      }));
    }
    assert.deepEqual(findings, []);
    assert.ok(asked > (registration === 'open' ? 300 : 20), `only ${asked} were asked`);
    assert.equal(readUsersFile(data).length, before, 'nothing was written');
  });
}

test('principals: every route permits each principal with the right', async (t) => {
  const kinds: Kind[] = ['nobody', 'admin', 'owner by basic', 'owner by bearer', 'owner by cookie', 'other', 'other by cookie'];
  let world = await openPrincipals(t, 'open');
  for (const { method, pattern, action } of served) {
    for (const kind of kinds) {
      if (refusals[action][kind] !== undefined) continue;
      const [name = '', , headers = {}] = world.principals.find((principal) => principal[1] === kind) ?? [];
      // Without a body where one is wanted it is let through and then refused for that, and nothing changes.
      const { status } = await world.ask(pattern.replace('{login}', 'alice'), { method, headers, body: '' });
      if (action === 'end-sessions' || action === 'remove') {
        assert.equal(status, 204, `${method} ${pattern} by ${name}`);
        world = await openPrincipals(t, 'open');
      }
      assert.ok(![401, 403].includes(status) && status < 500, `${method} ${pattern} by ${name}: ${status}`);
    }
  }
});

test('principals: in unauthenticated mode credentials are not needed, and are checked', async (t) => {
  const { ask } = await openService(t);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  for (const headers of [basic('alice', 'wrong'), bearer('x'), { authorization: 'x' }]) {
    for (const path of ['/user/alice', '/user/', '/user/nobody', '/metrics']) assert.equal((await ask(path, { headers })).status, 401);
    assert.equal((await ask('/user/bob', { method: 'PUT', headers, body: { password } })).status, 401);
    assert.equal((await ask('/session', { headers })).status, 401);
    assert.equal((await ask('/user/alice/session', { method: 'DELETE', headers })).status, 401);
  }
  assert.equal((await ask('/user/', { headers: basic('alice', password) })).status, 200);
  assert.equal((await ask('/user/')).status, 200);
});
