/** The life of an account: invitations and password links, disabled accounts, sessions that are renewed, forward authentication. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { PasswordLinks } from '../../lib/auth/password-links.ts';
import { SecretFiles } from '../../lib/auth/secret-files.ts';
import { Sessions } from '../../lib/auth/sessions.ts';
import { SigningKeys } from '../../lib/auth/signing-keys.ts';
import { Registry } from '../../lib/registry.ts';
import { MemoryUserStore } from '../../lib/store/memory.ts';
import { runCommand } from '../helper/command.ts';
import { adminToken, cheap, openService, readUsersFile } from '../helper/service.ts';
import type { Answer } from '../helper/service.ts';
import { temporaryDirectory } from '../helper/temporary.ts';

const password = 'correct horse';
const chosen = 'battery staple';
const admin = { authorization: `Bearer ${adminToken}` };
const closed = { REGISTRAR_ADMIN_TOKEN: adminToken };
const basic = (login: string, word: string) => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });
const cookieOf = ({ headers }: Answer): Record<string, string> => ({ cookie: String(headers['set-cookie']).split(';')[0]! });

async function open(t: TestContext, args: readonly string[] = []) {
  const service = await openService(t, [...cheap, '--public-url', 'https://x.example/accounts', ...args], closed);
  const { ask } = service;
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  const issue = (login: string) => ask(`/user/${encodeURIComponent(login)}/password-link`, { method: 'POST', headers: admin });
  const use = (token: string, word = chosen) => ask('/password', { method: 'POST', body: { token, password: word } });
  const disable = (login: string, disabled: boolean) => ask(`/user/${login}`, { method: 'PATCH', body: { disabled }, headers: admin });
  return { ...service, issue, use, disable };
}

test('link: an invited user is created without a password, and chooses one', async (t) => {
  const { ask, issue, use, data } = await open(t);
  const { status, json: { link, token, expires } } = await issue('Борис');
  assert.equal(status, 201);
  assert.equal(link, `https://x.example/accounts/#password=${token}`);
  assert.ok(Math.abs(Date.parse(expires) - Date.now() - 24 * 3_600_000) < 60_000, expires);
  const [invited] = readUsersFile(data).slice(-1);
  assert.deepEqual([invited.login, invited.kdf, invited.password], ['борис', 'none', '']);
  const listed = await ask('/user/', { headers: admin });
  assert.deepEqual(listed.json.users.map((user: any) => [user.login, user.invited]), [['alice', undefined], ['борис', true]]);
  assert.equal((await ask('/user/%D0%B1%D0%BE%D1%80%D0%B8%D1%81', { headers: admin })).json.invited, true);
  for (const word of ['', chosen]) {
    assert.equal((await ask('/session', { method: 'POST', body: { login: 'борис', password: word } })).status, 401);
  }
  assert.equal((await ask('/user/', { method: 'POST', body: { login: 'борис', password } })).status, 409);
  const weak = await use(token, 'password');
  assert.deepEqual([weak.status, weak.json.errors[0].pointer], [422, '#/password']);
  const used = await use(token);
  assert.deepEqual([used.status, used.json.login, used.json.version, used.json.invited], [200, 'борис', 2, undefined]);
  assert.equal((await ask('/session', { method: 'POST', body: { login: 'борис', password: chosen } })).status, 201);
});

test('link: a reset changes nothing until it is used, then ends every session, and works once', async (t) => {
  const { ask, issue, use } = await open(t);
  const { json: { token: session } } = await ask('/session', { method: 'POST', body: { login: 'alice', password } });
  const bearer = { authorization: `Bearer ${session}` };
  const { json: { token } } = await issue('ALICE');
  const { json: { token: other } } = await issue('alice');
  assert.equal((await ask('/session', { headers: bearer })).status, 200);
  assert.equal((await use(token)).status, 200);
  assert.equal((await ask('/session', { headers: bearer })).status, 401);
  assert.equal((await ask('/user/alice', { headers: basic('alice', password) })).status, 401);
  assert.equal((await ask('/user/alice', { headers: basic('alice', chosen) })).status, 200);
  const refusals = [await use(token), await use(other), await use(`${token.slice(0, -1)}A`), await use('x'), await use(session), await use(adminToken)];
  for (const { status, json } of refusals) {
    assert.deepEqual([status, json.type, json.detail], [403, 'urn:registrar:invalid-link', refusals[0]!.json.detail]);
  }
});

test('link: of two uses at the same time in two processes one wins', async (t) => {
  const { issue, use, data } = await open(t);
  const other = await openService(t, [...cheap, '--data', data], closed);
  const { json: { token } } = await issue('alice');
  const body = (word: string) => ({ method: 'POST', body: { token, password: word } });
  const uses = await Promise.all([use(token, 'first password'), other.ask('/password', body('second password'))]);
  assert.deepEqual(uses.map(({ status }) => status).sort(), [200, 403]);
});

test('link: a change, the end of all sessions, disabling, a removal and a replaced key void it', async (t) => {
  const { ask, issue, use, disable, data } = await open(t);
  const voids: [string, () => Promise<unknown>][] = [
    ['a change', () => ask('/user/alice', { method: 'PATCH', body: { password: chosen }, headers: admin })],
    ['the end of all sessions', () => ask('/user/alice/session', { method: 'DELETE', headers: admin })],
    ['disabling', async () => [await disable('alice', true), await disable('alice', false)]],
    ['a rotated key', () => runCommand(['token', '--signing-key', '--data', data])],
    ['a revoked key', () => runCommand(['token', '--revoke-keys', '--data', data])],
    ['a removal', async () => [await ask('/user/alice', { method: 'DELETE', headers: admin }), await issue('alice')]],
  ];
  for (const [name, act] of voids) {
    const { json: { token } } = await issue('alice');
    await act();
    assert.equal((await use(token, 'one more password')).status, 403, name);
  }
});

test('link: guesses are limited, and a token opens nothing else', async (t) => {
  const { ask, issue, use } = await open(t);
  const { json: { token } } = await issue('alice');
  for (const path of ['/session', '/user/alice', '/user/', '/metrics', '/auth']) {
    assert.equal((await ask(path, { headers: { authorization: `Bearer ${token}` } })).status, 401, path);
    assert.equal((await ask(path, { headers: { cookie: `__Host-registrar=${token}` } })).status, 401, path);
  }
  const guess = (n: number) => use(`${token.slice(0, -6)}${String(100_000 + n)}`);
  const statuses = (await Promise.all(Array.from({ length: 40 }, (_, n) => guess(n)))).map(({ status }) => status);
  assert.deepEqual([...new Set(statuses)].sort(), [403, 429]);
});

test('link: it expires by the clock, and is good again while the clock is set back', async () => {
  const store = new MemoryUserStore();
  let ms = Date.parse('2026-11-26T12:00:00Z');
  const now = (): Date => new Date(ms);
  const hasher = { hash: async () => ({ kdf: 'k', password: 'p' }), verify: async () => false, needsRehash: () => false };
  const policy = { serviceNames: [], codePointsMin: 8, codePointsMax: 256, common: new Set<string>() };
  const registry = new Registry({ store, hasher, policy, now });
  const secrets = new Map<string, string>();
  const keys = await SigningKeys.open({
    secrets: { get: (name) => secrets.get(name), replace: async (name, _, value) => (secrets.set(name, value), true) }, now, report: () => undefined, keepSeconds: 60,
  });
  const links = (publicUrl: string | undefined) => new PasswordLinks({ registry, keys, seconds: 3_600, publicUrl, now });
  const { user } = await registry.invite('alice');
  const { token, link } = await links(undefined).issue(user);
  assert.equal(link, undefined);
  const use = () => links('https://other.example').use(token, chosen, (_, check) => check());
  ms += 3_600_000;
  await assert.rejects(use(), { code: 'invalid-link' });
  ms -= 1_000;
  assert.equal((await use()).version, 2, 'also by a service with another public URL');
  ms -= 7_200_000;
  await assert.rejects(use(), { code: 'invalid-link' });
});

test('disabled: the right password is 403 on every route, a wrong one and every token 401; enabling gives nothing back', async (t) => {
  const { ask, disable, issue } = await open(t);
  const { json: { token } } = await ask('/session', { method: 'POST', body: { login: 'alice', password } });
  const cookie = cookieOf(await ask('/session', { method: 'POST', body: { login: 'alice', password, cookie: 'persistent' } }));
  assert.equal((await ask('/user/alice', { headers: basic('alice', password) })).status, 200);
  assert.equal((await ask('/user/alice', { method: 'PATCH', body: { disabled: true }, headers: basic('alice', password) })).status, 403);
  const { status, json } = await disable('alice', true);
  assert.deepEqual([status, json.version, typeof json.disabled], [200, 2, 'string']);
  assert.deepEqual((await disable('alice', true)).json, json, 'disabling twice changes nothing');
  for (const [method, path] of [['GET', '/user/alice'], ['DELETE', '/user/alice'], ['GET', '/session'], ['GET', '/auth'], ['DELETE', '/user/alice/session']]) {
    const right = await ask(path!, { method, headers: basic('alice', password) });
    assert.deepEqual([right.status, right.json.type], [403, 'urn:registrar:disabled'], `${method} ${path}`);
    assert.equal((await ask(path!, { method, headers: basic('alice', 'wrong horse') })).status, 401);
    assert.equal((await ask(path!, { method, headers: { authorization: `Bearer ${token}` } })).status, 401);
    assert.equal((await ask(path!, { method, headers: cookie })).status, 401);
  }
  assert.equal((await ask('/session', { method: 'POST', body: { login: 'alice', password } })).json.type, 'urn:registrar:disabled');
  assert.equal((await ask('/user/', { method: 'POST', body: { login: 'alice', password } })).status, 409);
  assert.equal((await issue('alice')).status, 409);
  assert.equal((await disable('alice', false)).json.version, 3);
  assert.equal((await ask('/session', { headers: cookie })).status, 401);
  assert.equal((await ask('/user/alice', { headers: basic('alice', password) })).status, 200);
  const both = await ask('/user/alice', { method: 'PATCH', body: { disabled: true, password: chosen }, headers: admin });
  assert.deepEqual([both.status, both.json.errors[0].pointer], [422, '#/disabled']);
  assert.equal((await disable('nobody', true)).status, 404);
});

test('commands: invite, reset, disable, enable and sign-out work beside a service', async (t) => {
  const { ask, use, data } = await open(t);
  const run = (...args: string[]) => runCommand(['user', ...args, '--data', data, '--json', '--public-url', 'https://x.example']);
  const invited = JSON.parse((await run('invite', 'Bob')).stdout);
  assert.equal(invited.link, `https://x.example/#password=${invited.token}`);
  assert.equal((await use(invited.token)).status, 200);
  assert.match((await run('invite', 'bob')).stderr, /The login "bob" is taken\. Run "registrar user reset bob"\./);
  const reset = JSON.parse((await run('reset', 'bob')).stdout);
  assert.equal((await run('disable', 'bob')).status, 0);
  assert.equal((await use(reset.token)).status, 403);
  assert.match((await run('reset', 'bob')).stderr, /"bob" is disabled: enable it first\./);
  assert.equal((await ask('/user/bob', { headers: basic('bob', chosen) })).json.type, 'urn:registrar:disabled');
  assert.equal((await run('enable', 'bob')).status, 0);
  const { json: { token } } = await ask('/session', { method: 'POST', body: { login: 'bob', password: chosen } });
  assert.equal((await run('sign-out', 'bob')).status, 0);
  assert.equal((await ask('/session', { headers: { authorization: `Bearer ${token}` } })).status, 401);
  assert.match((await run('reset', 'nobody')).stderr, /There is no user with this login/);
});

test('sessions: a cookie is renewed when half of its lifetime is over, up to the end of the session', async (t) => {
  const start = Date.parse('2026-11-26T12:00:00Z');
  let ms = start;
  const now = (): Date => new Date(ms);
  const keys = await SigningKeys.open({ secrets: new SecretFiles(temporaryDirectory(t)), now, report: () => undefined, keepSeconds: 100 });
  const sessions = new Sessions({ keys, issuer: 'i', audience: 'a', seconds: { bearer: 50, cookie: 100 }, sessionSecondsMax: 250, now });
  const alice = { id: 17, login: 'alice', version: 1 };
  let { token } = await sessions.issue(alice, 'cookie', true);
  const read = async () => (await sessions.read(token, 'cookie'))!;
  ms += 49_000;
  assert.equal(await sessions.renew(await read()), undefined);
  // Seconds after the sign-in, and the lifetime of the token that is issued then.
  for (const [at, lifetime] of [[51, 100], [100, undefined], [110, 100], [170, 80], [230, undefined]] as const) {
    ms = start + at * 1000;
    const renewed = await sessions.renew(await read());
    assert.equal(renewed?.seconds, lifetime, `at ${at}`);
    token = renewed?.token ?? token;
    assert.deepEqual([(await read()).signedIn, (await read()).isPersistent], [start / 1000, true]);
  }
  ms = start + 250_000;
  assert.equal(await sessions.read(token, 'cookie'), undefined);
});

test('auth: it names the user, sends browsers that navigate to the page, and programs get 401', async (t) => {
  const { ask } = await open(t);
  const cookie = cookieOf(await ask('/session', { method: 'POST', body: { login: 'alice', password, cookie: 'session' } }));
  for (const headers of [cookie, basic('alice', password)]) {
    const { status, headers: { 'x-user': user, 'x-user-id': id }, text } = await ask('/auth?any', { headers });
    assert.deepEqual([status, user, id, text], [200, 'alice', '1', '']);
  }
  const navigations: [Record<string, string>, string][] = [
    [{ accept: 'text/html,*/*' }, '/accounts/sign-in'],
    [{ 'sec-fetch-mode': 'navigate', 'x-forwarded-uri': '/app?a=1&b=2' }, '/accounts/sign-in?to=%2Fapp%3Fa%3D1%26b%3D2'],
    [{ accept: 'text/html', 'x-forwarded-method': 'HEAD', 'x-forwarded-uri': '//evil.example' }, '/accounts/sign-in'],
    [{ accept: 'text/html', 'x-forwarded-uri': '/\\evil.example' }, '/accounts/sign-in'],
    [{ accept: 'text/html', 'x-forwarded-uri': 'https://evil.example/' }, '/accounts/sign-in'],
  ];
  for (const [headers, location] of navigations) {
    const { status, headers: { location: found } } = await ask('/auth', { headers });
    assert.deepEqual([status, found], [303, location], JSON.stringify(headers));
  }
  const programs: Record<string, string>[] = [{}, { accept: 'application/json' }, { accept: 'text/html', 'sec-fetch-mode': 'cors' }, { accept: 'text/html', 'x-forwarded-method': 'POST' }];
  for (const headers of programs) assert.equal((await ask('/auth', { headers })).status, 401, JSON.stringify(headers));
  assert.equal((await ask('/auth', { headers: admin })).status, 403);
  assert.match((await ask('/sign-in?to=%2Fapp')).text, /<html/);
});

test('an address that does not exist is a page for a browser, and a problem for a program', async (t) => {
  const { ask } = await open(t);
  const browsers: Record<string, string>[] = [{ accept: 'text/html,*/*' }, { accept: '*/*', 'sec-fetch-mode': 'navigate' }];
  for (const headers of browsers) {
    const { status, text, headers: { 'content-type': type, 'content-security-policy': policy } } = await ask('/nope', { headers });
    assert.deepEqual([status, type], [404, 'text/html; charset=utf-8']);
    assert.match(text, /<h2>Page not found<\/h2>.*href="\/accounts\/".*lang="ru"/s);
    assert.match(String(policy), /default-src 'none'/);
    assert.doesNotMatch(text, /<script|style=|"\/page/);
  }
  const programs: Record<string, string>[] = [{}, { accept: 'application/json' }, { accept: 'text/html', 'sec-fetch-mode': 'cors' }];
  for (const headers of programs) {
    assert.equal((await ask('/nope', { headers })).json.type, 'urn:registrar:not-found');
  }
  // A user who does not exist is an answer of the API, also to a browser.
  assert.equal((await ask('/user/nobody', { headers: { ...admin, accept: 'text/html' } })).json.type, 'urn:registrar:not-found');
});

test('a path of the public URL is in front of every address that a response names', async (t) => {
  const { ask } = await open(t);
  const created = await ask('/user/', { method: 'POST', body: { login: 'bob', password } });
  assert.equal(created.headers.location, '/accounts/user/bob');
  const { headers, json } = await ask('/user/?limit=1', { headers: admin });
  assert.match(json.next, /^\/accounts\/user\/\?after=/);
  assert.equal(headers.link, `<${json.next}>; rel="next"`);
  assert.equal((await ask('/openapi.json')).json.servers[0].url, '/accounts/');
  assert.match((await ask('/')).text, /src="\/accounts\/page\/page\.js"/);
  const set = String((await ask('/session', { method: 'POST', body: { login: 'bob', password, cookie: 'session' } })).headers['set-cookie']);
  assert.match(set, /; Path=\/;/);
});
