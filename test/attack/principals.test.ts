/** Every route asked by everybody who may not: from the table of routes, so that a new one is asked too. */

import assert from 'node:assert/strict';
import { createHmac, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Action } from '../../lib/access.ts';
import { Router } from '../../lib/http/router.ts';
import type { RouteEntry } from '../../lib/http/routes.ts';
import { signToken } from '../../lib/session/token.ts';
import type { Claims } from '../../lib/session/token.ts';
import { adminToken, cheap, openService, readUsersFile } from '../helper/service.ts';
import type { Ask } from '../helper/service.ts';

const password = 'correct horse';
const basic = (login: string, word: string): Record<string, string> => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });
const cookie = (token: string): Record<string, string> => ({ cookie: `__Host-registrar=${token}` });
const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** What somebody is to the table; `bad` is whoever shows something that proves nothing. */
type Kind = 'nobody' | 'bad' | 'admin' | 'other' | 'other by cookie' | 'owner by basic' | 'owner by bearer' | 'owner by cookie';

/** Who is refused, and how, for a user who is alice; whoever is not named is let through. */
const refusals: Readonly<Record<Action, Partial<Record<Kind, 401 | 403>>>> = {
  public: {},
  'open-session': {},
  register: { bad: 401 },
  list: { nobody: 401, bad: 401, other: 403, 'other by cookie': 401, 'owner by basic': 403, 'owner by bearer': 403, 'owner by cookie': 401 },
  'read-metrics': { nobody: 401, bad: 401, other: 403, 'other by cookie': 401, 'owner by basic': 403, 'owner by bearer': 403, 'owner by cookie': 401 },
  read: { nobody: 401, bad: 401, other: 403, 'other by cookie': 401, 'owner by cookie': 401 },
  'change-password': { nobody: 401, bad: 401, other: 403, 'other by cookie': 401, 'owner by cookie': 401 },
  remove: { nobody: 401, bad: 401, other: 403, 'other by cookie': 401, 'owner by cookie': 401, 'owner by bearer': 403 },
  'read-session': { nobody: 401, bad: 401, admin: 403 },
  'end-session': { nobody: 401, bad: 401, admin: 403 },
};

/** Those of `--registration admin`. */
const closedRegistration: Partial<Record<Kind, 401 | 403>> = {
  nobody: 401, bad: 401, other: 403, 'other by cookie': 401, 'owner by basic': 403, 'owner by bearer': 403, 'owner by cookie': 401,
};

const issuer = 'https://registrar.example';

async function tokenOf(ask: Ask, login: string): Promise<string> {
  const { status, json } = await ask('/session', { method: 'POST', body: { login, password } });
  assert.equal(status, 201);
  return json.token;
}

/** Tokens that somebody has made, or made out of a good one. */
function forgeries(data: string, good: string, jwk: Record<string, string>): Readonly<Record<string, string>> {
  const pem = readFileSync(join(data, 'signing-key.pem'), 'utf8');
  const [head = '', payload = '', signature = ''] = good.split('.');
  const header = JSON.parse(Buffer.from(head, 'base64url').toString());
  const claims: Claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
  const privateKey = createPrivateKey(pem);
  const publicKey = createPublicKey(privateKey);
  const own = { kid: header.kid, privateKey, publicKey };
  const now = Math.floor(Date.now() / 1000);
  const stranger = generateKeyPairSync('ed25519');
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
    'expired': signToken(own, { ...claims, iat: now - 7200, exp: now - 3600 }),
    'expired this second': signToken(own, { ...claims, iat: now - 3600, exp: now }),
    'from the future': signToken(own, { ...claims, iat: now + 3600, exp: now + 7200 }),
    'of another issuer': signToken(own, { ...claims, iss: 'https://evil.example' }),
    'of the issuer with a slash': signToken(own, { ...claims, iss: `${issuer}/` }),
    'of an earlier version': signToken(own, { ...claims, version: claims.version + 1 }),
    'of another id': signToken(own, { ...claims, sub: '999' }),
    'of another login': signToken(own, { ...claims, preferred_username: 'bob' }),
    'of somebody else\'s key': signToken({ ...own, privateKey: stranger.privateKey }, claims),
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

async function everybody(t: TestContext, registration: 'open' | 'admin') {
  const args = [...cheap, '--limits', 'off', '--public-url', issuer, '--registration', registration];
  const service = await openService(t, args, { REGISTRAR_ADMIN_TOKEN: adminToken });
  const { ask, data } = service;
  const asAdmin = { headers: bearer(adminToken) };
  for (const login of ['alice', 'bob']) await ask('/user/', { method: 'POST', body: { login, password }, ...asAdmin });
  const [alice, bob] = [await tokenOf(ask, 'alice'), await tokenOf(ask, 'bob')];
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
    ['bad credentials and a good cookie', 'bad', { ...basic('alice', 'wrong'), ...cookie(alice) }],
  ];
  const nobody: [string, Kind, Record<string, string>][] = [
    ['nobody', 'nobody', {}], ['the admin token in the cookie', 'nobody', cookie(adminToken)], ['two cookies', 'nobody', { cookie: `__Host-registrar=${alice}; __Host-registrar=${alice}` }],
    ['a cookie of another name', 'nobody', { cookie: `registrar=${alice}; __host-registrar=${alice}` }], ['the admin token in another header', 'nobody', { 'x-admin-token': adminToken }],
    ['a proxy that says who it is', 'nobody', { 'x-user': 'alice', 'x-remote-user': 'alice', 'x-forwarded-user': 'alice', 'proxy-authorization': `Bearer ${adminToken}` }],
  ];
  const good: [string, Kind, Record<string, string>][] = [
    ['the admin', 'admin', bearer(adminToken)], ['bob by Basic', 'other', basic('bob', password)], ['bob by Bearer', 'other', bearer(bob)],
    ['bob by cookie', 'other by cookie', cookie(bob)], ['alice by Basic', 'owner by basic', basic('alice', password)], ['alice by Bearer', 'owner by bearer', bearer(alice)],
    ['alice by cookie', 'owner by cookie', cookie(alice)],
  ];
  return { ...service, principals: [...nobody, ...bad, ...forged, ...good] };
}

/** What a service that was opened here has put into its router: all that it serves, whoever has added it. */
const served = new Map<string, Pick<RouteEntry, 'method' | 'pattern' | 'action'>>();
const { add } = Router.prototype;
Router.prototype.add = function (method: string, pattern: string, entry: unknown): void {
  const { action } = entry as RouteEntry;
  served.set(`${method} ${pattern}`, { method, pattern, action });
  if (method === 'GET') served.set(`HEAD ${pattern}`, { method: 'HEAD', pattern, action });
  add.call(this, method, pattern, entry);
};

for (const registration of ['open', 'admin'] as const) {
  test(`principals: every route refuses whoever may not, registration ${registration}`, async (t) => {
    const { ask, data, principals } = await everybody(t, registration);
    const findings: string[] = [];
    let asked = 0;
    const before = readUsersFile(data).length;
    assert.ok(served.size >= 20 && served.has('GET /metrics') && served.has('POST /session'), [...served.keys()].join(', '));
    for (const { method, pattern, action } of served.values()) {
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
        // A cookie that holds no session is shown where cookies count, and nobody's elsewhere: both are 401.
        if (answer.status !== status) findings.push(`${method} ${path} by ${name}: ${answer.status}`);
        if (status === 401 && !/^Basic realm=.*, Bearer realm=/.test(String(answer.headers['www-authenticate']))) findings.push(`${method} ${path} by ${name}: no challenge`);
        if (method === 'HEAD' ? answer.text !== '' : !/^urn:registrar:(?:unauthenticated|forbidden)$/.test(String(answer.json?.type))) findings.push(`${method} ${path} by ${name}: ${answer.text}`);
      }));
    }
    assert.deepEqual(findings, []);
    assert.ok(asked > 300, `only ${asked} were asked`);
    assert.equal(readUsersFile(data).length, before, 'nothing was written');
  });
}

test('principals: every route lets through whoever may', async (t) => {
  const kinds: Kind[] = ['nobody', 'admin', 'owner by basic', 'owner by bearer', 'owner by cookie', 'other', 'other by cookie'];
  let world = await everybody(t, 'open');
  for (const { method, pattern, action } of [...served.values()]) {
    for (const kind of kinds) {
      if (refusals[action][kind] !== undefined) continue;
      const [name = '', , headers = {}] = world.principals.find((principal) => principal[1] === kind) ?? [];
      // Without a body where one is wanted it is let through and then refused for that, and nothing changes.
      const { status } = await world.ask(pattern.replace('{login}', 'alice'), { method, headers, body: '' });
      if (action === 'end-session' || action === 'remove') {
        assert.equal(status, 204, `${method} ${pattern} by ${name}`);
        world = await everybody(t, 'open');
      }
      assert.ok(![401, 403].includes(status) && status < 500, `${method} ${pattern} by ${name}: ${status}`);
    }
  }
});

test('principals: a user of open mode is asked by a session only, and by nothing else', async (t) => {
  const { ask } = await openService(t);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  for (const headers of [basic('alice', 'wrong'), bearer('x'), { authorization: 'x' }]) {
    assert.equal((await ask('/user/alice', { headers })).status, 200);
    assert.equal((await ask('/session', { headers })).status, 401);
    assert.equal((await ask('/session', { method: 'DELETE', headers })).status, 401);
  }
});
