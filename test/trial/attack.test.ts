/** What an attacker tries: hidden requests behind nginx, limits from many addresses, and where every secret ends up. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import https from 'node:https';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Authenticator } from '../../lib/auth/authenticator.ts';
import type { AuthenticatorOptions } from '../../lib/auth/authenticator.ts';
import { parseTrustedProxies } from '../../lib/auth/client-address.ts';
import { Limits } from '../../lib/auth/limits.ts';
import { RequestContext } from '../../lib/auth/request-context.ts';
import { sendRaw } from '../helper/raw.ts';
import { adminToken, cheap, client, openService, readUsersFile, spawnService } from '../helper/service.ts';
import type { Answer, Ask, AskOptions } from '../helper/service.ts';
import { ambiguousRequests, hiddenRequest } from '../helper/raw.ts';
import { spawnNginx } from '../helper/proxy.ts';
import { childEnvironment, loader, root, temporaryDirectory, until } from '../helper/temporary.ts';
import { trial } from '../helper/trial.ts';

const admin = { headers: { authorization: `Bearer ${adminToken}` } };

trial('smuggling: what nginx passes on is one request to both, and none that nginx did not see', { needs: ['nginx'] }, async (t) => {
  const args = [...cheap, '--limits', 'off', '--trusted-proxy', '127.0.0.1'];
  const { url, ask } = await openService(t, args, { REGISTRAR_ADMIN_TOKEN: adminToken });
  const settings = 'proxy_http_version 1.1; proxy_set_header Connection "";';
  // As it stands in guides, with connections that are kept, and with bodies that are passed on while they come.
  const proxy = await spawnNginx(t, url, ['', settings, `${settings} proxy_request_buffering off;`]);
  // All requests that the service has answered, by its own counters.
  const requestNumber = async (): Promise<number> => {
    const { text } = await ask('/metrics', admin);
    return [...text.matchAll(/^registrar_request_duration_seconds_count\{.*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
  };
  const before = await requestNumber();
  const sent = proxy.urls.flatMap((front, site) => ambiguousRequests.map(({ bytes }, n) => ({ front, bytes: bytes(hiddenRequest(`hidden${site}-${n}`)) })));
  for (let from = 0; from < sent.length; from += 50) {
    await Promise.all(sent.slice(from, from + 50).map(({ front, bytes }) => sendRaw(front, [bytes], 1_500)));
  }
  const judged = await requestNumber() - before - 1;
  const passed = proxy.passed();
  assert.ok(passed.length > 20, `nginx has passed on ${passed.length}`);
  assert.equal(judged, passed.length, 'requests that the service saw, and that nginx has passed on');
  // nginx reads some of them in one way, and what stands behind is a request of its own then: it says so.
  const { users } = (await ask('/user/?limit=1000', admin)).json;
  const seen = new Set(passed.map((line) => /PUT \/user\/(\S+) /.exec(line)?.[1]));
  assert.deepEqual(users.filter(({ login }: { login: string }) => !seen.has(login)), []);
});

trial('smuggling: unauthenticated mode serves no client behind a stock nginx', { needs: ['nginx'] }, async (t) => {
  const { url, ask } = await openService(t);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password: 'correct horse' } });
  const names = [
    'X-Forwarded-For', 'X-Forwarded-Host', 'X-Forwarded-Proto', 'X-Forwarded-Port', 'X-Forwarded-Server', 'X-Forwarded-Prefix', 'X-Real-IP', 'Forwarded',
    'Forwarded-For', 'Via', 'X-Client-IP', 'X-Cluster-Client-IP', 'X-Original-URL', 'X-Original-Host', 'X-Envoy-External-Address', 'CF-Connecting-IP',
    'True-Client-IP', 'Fastly-Client-IP',
  ];
  const modern = 'proxy_http_version 1.1; proxy_set_header Host localhost;';
  const proxy = await spawnNginx(t, url, [
    // The address of the upstream for a host, in HTTP/1.0; the client's host; HTTP/1.1 with the client's host.
    '', 'proxy_set_header Host $host;', 'proxy_http_version 1.1; proxy_set_header Host $host;', 'proxy_set_header Host localhost;',
    ...names.map((name) => `${modern} proxy_set_header ${name} $remote_addr;`),
  ]);
  const agent = new https.Agent({ keepAlive: true });
  t.after(() => agent.destroy());
  for (const [n, front] of proxy.urls.entries()) {
    const through = client(front, agent);
    const headers = { host: n === 2 ? 'evil.example' : 'localhost' };
    const asked = [['GET', '/user/'], ['GET', '/user/alice'], ['DELETE', '/user/alice'], ['OPTIONS', '/user/'], ['GET', '/nothing']] as const;
    for (const [method, path] of asked) {
      const { status, json } = await through(path, { method, headers });
      assert.equal(status, 403, `site ${n}: ${method} ${path}`);
      assert.equal(json.type, 'urn:registrar:forbidden');
      assert.match(json.detail, /registrar token/);
    }
  }
  assert.equal((await ask('/user/alice')).status, 200);
});

const password = 'correct horse';
const trusting = [...cheap, '--trusted-proxy', '127.0.0.1'];
const closed = { REGISTRAR_ADMIN_TOKEN: adminToken };
const basic = (login: string, word: string): Record<string, string> => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });
const post = (body: unknown, headers: Record<string, string> = {}): AskOptions => ({ method: 'POST', body, headers });

/** Asks from an address, as a proxy that is trusted says. */
function from(ask: Ask, address: string): Ask {
  return (path, options = {}) => ask(path, { ...options, headers: { ...options.headers, 'x-forwarded-for': address } });
}

function authenticator(parts: Partial<AuthenticatorOptions> = {}): Authenticator {
  const trusted = parseTrustedProxies('127.0.0.1,unix');
  assert.ok('addresses' in trusted);
  const options = {
    registry: { findPublic: () => undefined, verify: async () => undefined },
    admin: { isSet: () => true, matches: (token: string) => token === adminToken },
    sessions: { read: (token: string) => (token === 'alice' ? { id: 1, login: 'alice', version: 1, expires: '' } : undefined) },
    metrics: { matches: () => false },
    limits: new Limits({ now: () => 1, waitMsMax: 5_000 }),
    trusted,
    origins: { own: undefined, allowed: [], isHttps: true },
    verifiedSecondsMax: 60,
    verifiedEntriesMax: 100,
    now: () => 0,
    ...parts,
  };
  // Of the registry and the sessions only what the authenticator asks here.
  return new Authenticator(options as unknown as AuthenticatorOptions);
}

function contextOf(address: string, headers: Record<string, string> = {}): RequestContext {
  const request = { method: 'GET', httpVersion: '1.1', socket: { remoteAddress: '127.0.0.1' }, headers: { 'x-forwarded-for': address, ...headers } };
  // No response: its `close` event, which aborts the signal, never comes.
  return new RequestContext(request as never, { once: () => undefined } as never, 'id');
}

function codeOf(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error: any) {
    return error.code;
  }
}

trial('limits: the memory for addresses and logins is bounded', async () => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const auth = authenticator();
  const bytesAfter = async (from: number): Promise<number> => {
    for (let n = from; n < from + 30_000; n++) {
      const context = contextOf(n % 2 === 0 ? `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}` : `2001:${(n >> 16).toString(16)}:${(n & 0xffff).toString(16)}::1`);
      auth.begin(context);
      auth.admit(context);
      await auth.attempt(context, `login${n}`, async () => false).catch(({ code }) => assert.equal(code, 'rate-limited'));
    }
    gc();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const first = await bytesAfter(0);
  const second = await bytesAfter(30_000);
  assert.ok(second - first < 4_000_000, `${second - first} bytes more for 30,000 more`);
});

trial('limits: a hundred addresses at their limits reject clients without credentials, and no client that is authenticated', async () => {
  const known = { id: 1, login: 'alice', version: 1, registered: '', json: '{}' };
  const registry = { findPublic: (login: string) => (login === 'alice' ? known : undefined), verify: async (_: string, word: string) => (word === password ? known : undefined) };
  const auth = authenticator({ registry: registry as never });
  const read = (address: string, headers: Record<string, string> = {}): ReturnType<Authenticator['authenticate']> => {
    const context = contextOf(address, headers);
    auth.begin(context);
    auth.admit(context);
    return auth.authenticate(context, 'read');
  };
  assert.ok(await read('192.0.2.1', basic('alice', password)));
  const rejections = new Map<string | undefined, number>();
  for (let n = 0; n < 100 * 3_100; n++) {
    const code = codeOf(() => read(`10.0.0.${n % 100}`));
    rejections.set(code, (rejections.get(code) ?? 0) + 1);
  }
  assert.ok(Math.abs(rejections.get(undefined)! - 200_000) < 10);
  assert.equal(codeOf(() => read('192.0.2.1')), 'rate-limited');
  assert.equal(codeOf(() => read('192.0.2.1', basic('bob', 'wrong'))), 'rate-limited', 'what would cost a hash');
  for (const headers of [bearer('alice'), bearer(adminToken), basic('alice', password)]) assert.ok(read('192.0.2.1', headers));
});

trial('limits: a login that is limited is not looked up, so time does not tell whether it exists', async () => {
  const looks: string[] = [];
  const registry = { findPublic: (login: string) => void looks.push(login), verify: async (login: string) => void looks.push(login) };
  const auth = authenticator({ registry: registry as never });
  let address = 0;
  const guess = async (login: string): Promise<string[]> => {
    looks.length = 0;
    const context = contextOf(`10.0.0.${address++}`, basic(login, 'wrong'));
    auth.begin(context);
    auth.admit(context);
    await Promise.resolve(auth.authenticate(context, 'read')).catch((error) => looks.push(error.code));
    return looks;
  };
  for (let n = 0; n < 20; n++) for (const login of ['alice', 'nobody']) assert.deepEqual(await guess(login), [login, 'unauthenticated']);
  for (const login of ['alice', 'nobody']) assert.deepEqual(await guess(login), ['rate-limited'], login);
});

trial('limits: guesses from a hundred addresses leave the user her token, and her password where she has signed in before', async (t) => {
  const { ask } = await openService(t, trusting, closed);
  const home = from(ask, '198.51.100.7');
  assert.equal((await home('/user/', post({ login: 'alice', password }))).status, 201);
  const { token } = (await home('/session', post({ login: 'alice', password }))).json;
  const guesses = await Promise.all(Array.from({ length: 400 }, (_, n) =>
    from(ask, `203.0.113.${n % 100}`)(n % 2 === 0 ? '/session' : '/user/alice', n % 2 === 0 ? post({ login: 'alice', password: `wrong ${n}` }) : { headers: basic('alice', `wrong ${n}`) })));
  const statuses = guesses.map(({ status }) => status);
  assert.equal(statuses.filter((status) => status === 401).length, 20, 'no more than the limit, though all at once');
  assert.equal(statuses.filter((status) => status === 429).length, 380);
  assert.equal((await home('/user/alice', { headers: bearer(token) })).status, 200);
  assert.equal((await home('/user/alice', { headers: basic('alice', password) })).status, 200);
  assert.equal((await home('/session', post({ login: 'alice', password }))).status, 201);
  assert.equal((await from(ask, '192.0.2.55')('/user/alice', { headers: bearer(token) })).status, 200, 'from anywhere');
});

trial('limits: responses for a login that does not exist are the same, to the byte', async (t) => {
  const { ask } = await openService(t, trusting, closed);
  await from(ask, '198.51.100.7')('/user/', post({ login: 'alice', password }));
  const strip = ({ status, headers, text }: Answer): unknown => {
    const { date: _date, 'x-request-id': _id, ratelimit, 'retry-after': retry, ...rest } = headers;
    // The seconds may be one apart, since time goes on between the two.
    return [status, rest, String(ratelimit).replace(/t=\d+/g, 't'), retry === undefined, text.replace(/"request":"[^"]+"|\d+ s/g, '')];
  };
  for (const way of ['session', 'basic'] as const) {
    for (let n = 0; n < 25; n++) {
      const one = async (login: string, net: string): Promise<unknown> => {
        const door = from(ask, `${net}.${n}`);
        return strip(way === 'session' ? await door('/session', post({ login, password: 'wrong' })) : await door('/session', { headers: basic(`${login}`, 'wrong') }));
      };
      assert.deepEqual(await one('alice', way === 'session' ? '10.1.0' : '10.2.0'), await one('nobody', way === 'session' ? '10.3.0' : '10.4.0'), `${way} ${n}`);
    }
  }
});

trial('limits: 429 tells when to come again, and counts the client that a trusted proxy names', async (t) => {
  const { ask } = await openService(t, trusting, closed);
  const register = (n: number, address: string): Promise<Answer> => from(ask, address)('/user/', post({ login: `user${n}`, password }));
  const answers = await Promise.all(Array.from({ length: 65 }, (_, n) => register(n, '192.0.2.1')));
  const refused = answers.filter(({ status }) => status === 429);
  assert.deepEqual([refused.length, answers.filter(({ status }) => status === 201).length], [5, 60]);
  const [{ headers, json }] = refused as [Answer];
  assert.equal(json.type, 'urn:registrar:rate-limited');
  assert.match(String(headers['retry-after']), /^[1-9]\d*$/);
  assert.equal(headers['ratelimit-policy'], '"registrations";q=60;w=3600');
  assert.match(String(headers.ratelimit), /^"registrations";r=0;t=\d+$/);
  assert.equal((await register(70, '192.0.2.2')).status, 201, 'another client');
  assert.equal((await register(71, '192.0.2.2, 192.0.2.1')).status, 429, 'what the client wrote itself stands before');
  assert.equal((await register(72, '192.0.2.1, 192.0.2.2')).status, 201);
  assert.equal((await register(73, '::ffff:192.0.2.1')).status, 429, 'the same address in another spelling');
});

trial('limits: forwarding headers of a client that is no trusted proxy are ignored', async (t) => {
  const { ask } = await openService(t, cheap, closed);
  const statuses = [];
  for (let n = 0; n < 62; n++) {
    const headers = { 'x-forwarded-for': `192.0.2.${n}`, forwarded: `for=192.0.2.${n}`, 'x-real-ip': `192.0.2.${n}`, 'true-client-ip': `192.0.2.${n}` };
    statuses.push((await ask('/user/', post({ login: `user${n}`, password }, headers))).status);
  }
  assert.deepEqual(statuses.slice(58), [201, 201, 429, 429]);
});

interface Secret {
  readonly what: string;
  readonly text: string;
  /** Answers that may hold it, by their number: a token is told to whom it is for. */
  readonly told?: number;
}

trial('secrets: none is in a log line, in an answer but a token in its own, or in a file but where it is kept', async (t) => {
  const data = temporaryDirectory(t);
  const command = (...args: string[]) => spawnSync(process.execPath, [...loader, 'bin/registrar.ts', ...args, '--data', data], { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 30_000 });
  const printed: string[] = [];
  const adminToken = command('token').stdout.trim();
  const secrets: Secret[] = [{ what: 'the admin token', text: adminToken }];
  const fresh = (what: string): string => {
    const text = `S3cret-${randomBytes(15).toString('base64url')}`;
    secrets.push({ what, text });
    return text;
  };
  // A kdf that is made anew, so that old and new hashes are there.
  const service = await spawnService(t, { data, args: ['--kdf', 'pbkdf2:sha256:1000', '--limits', 'off'] });
  service.child.stdout?.on('data', (chunk) => printed.push(String(chunk)));
  const answers: { what: string; text: string }[] = [];
  const ask: typeof service.ask = async (path, options) => {
    const answer: Answer = await service.ask(path, options);
    answers.push({ what: `${options?.method ?? 'GET'} ${path}: ${answer.status}`, text: `${JSON.stringify(answer.headers)}\n${answer.text}` });
    return answer;
  };
  const basic = (login: string, word: string): Record<string, string> => {
    const authorization = `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}`;
    secrets.push({ what: `Basic of ${login}`, text: authorization.slice(6) });
    return { authorization };
  };
  const signIn = async (login: string, word: string): Promise<[cookie: string, bearer: string]> => {
    const issued = [];
    for (const cookie of ['session', undefined]) {
      const { status, json, headers } = await ask('/session', { method: 'POST', body: { login, password: word, cookie } });
      assert.equal(status, 201);
      const token = cookie ? /=([^;]+)/.exec(String(headers['set-cookie']))![1]! : json.token;
      const told = answers.length - 1;
      secrets.push({ what: `token of ${login}`, text: token, told }, { what: `signature of ${login}`, text: token.split('.')[2], told });
      issued.push(token);
    }
    return issued as [string, string];
  };
  const admin = { authorization: `Bearer ${adminToken}` };
  for (const login of ['alice', 'bob', 'carol']) {
    const [first, second, third] = [fresh(`${login}'s`), fresh(`${login}'s second`), fresh(`${login}'s third`)];
    const key = fresh(`idempotency key of ${login}`);
    const idempotent = { 'idempotency-key': `"${key}"` };
    assert.equal((await ask('/user/', { method: 'POST', body: { login, password: first }, headers: idempotent })).status, 201);
    assert.equal((await ask('/user/', { method: 'POST', body: { login, password: first }, headers: idempotent })).status, 201);
    assert.equal((await ask('/user/', { method: 'POST', body: { login, password: fresh('another password') }, headers: idempotent })).status, 422);
    const [cookie, token] = await signIn(login, first);
    assert.equal((await ask('/session', { headers: { cookie: `__Host-registrar=${cookie}` } })).status, 200);
    const bearer = { authorization: `Bearer ${token}` };
    assert.equal((await ask(`/user/${login}`, { method: 'PATCH', body: { password: second, current: fresh('a wrong current one') }, headers: bearer })).status, 403);
    assert.equal((await ask(`/user/${login}`, { method: 'PATCH', body: { password: second, current: first }, headers: bearer })).status, 200);
    assert.equal((await ask(`/user/${login}`, { method: 'PATCH', body: { password: third }, headers: basic(login, second) })).status, 200);
    assert.equal((await ask(`/user/${login}`, { headers: basic(login, third) })).status, 200);
    await signIn(login, third);
  }
  // Secrets where they do not belong, in what is wrong in every other way.
  const lost = fresh('one in the wrong place');
  const wrong: Parameters<typeof ask>[] = [
    ['/session', { method: 'POST', body: { login: 'alice', password: fresh('a wrong one') } }], ['/session', { method: 'POST', body: { login: lost, password: lost } }],
    ['/session', { method: 'POST', body: `{"login":"alice","password":"${lost}` }], ['/session', { method: 'POST', body: lost }], ['/session', { method: 'POST', body: { [lost]: lost } }],
    ['/session', { method: 'POST', body: `login=alice&password=${lost}`, headers: { 'content-type': 'application/x-www-form-urlencoded' } }],
    ['/user/alice', { headers: basic('alice', fresh('a wrong one by Basic')) }], ['/user/alice', { headers: { authorization: `Bearer ${lost}` } }], ['/user/alice', { headers: { authorization: lost } }],
    ['/user/alice', { headers: { cookie: `__Host-registrar=${lost}` } }], ['/session', { headers: { cookie: `__Host-registrar=${lost}` } }], [`/session?access_token=${lost}`],
    [`/user/?after=${lost}`, { headers: admin }], [`/user/?limit=${lost}`, { headers: admin }], [`/user/${lost}`, { headers: admin }], [`/${lost}`], ['/user/alice', { method: 'GET', headers: { ...admin, 'if-match': lost } }],
    ['/user/', { method: 'POST', body: { login: 'x', password: lost }, headers: { 'content-type': lost } }], ['/user/', { method: 'POST', body: { login: 'x', password: 'short' } }],
    ['/user/', { method: 'POST', body: { login: 'x', password: `${lost}\t` } }], ['/user/', { method: 'POST', body: { login: `${lost}:`, password: lost } }], ['/user/alice', { method: 'DELETE', headers: basic('bob', lost) }],
    ['/user/', { method: 'POST', body: { login: 'x', password: lost }, headers: { 'idempotency-key': `${lost} ${lost}` } }], ['/user/', { headers: { ...admin, accept: 'application/x-ndjson' } }],
    ['/user/', { headers: admin }], ['/.well-known/jwks.json'], ['/user/alice', { method: 'PATCH', body: { password: lost, current: lost, [lost]: 1 }, headers: admin }],
  ];
  for (const [path, options] of wrong) assert.ok((await ask(path, options)).status < 500);
  for (const text of [`GET /user/${lost} HTTP/9.9\r\n\r\n`, `${lost}\r\n\r\n`, `GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${lost}\r\nHost: b\r\n\r\n`, `POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n${lost}`]) {
    answers.push({ what: text.slice(0, 20), text: await sendRaw(service.url, [text], 500) });
  }
  assert.equal((await ask('/user/carol', { method: 'DELETE', headers: admin })).status, 204);
  const formerKey = readFileSync(join(data, 'signing-keys.json'), 'utf8');
  assert.equal(command('token', '--signing-key').status, 0);
  await until(async () => (await service.ask('/.well-known/jwks.json')).json.keys.length === 2, 'the second key');
  await signIn('alice', secrets.find(({ what }) => what === 'alice\'s third')!.text);
  const checked = command('check');
  service.terminate();
  assert.equal(await service.ended, 0);

  const stored = readUsersFile(data).flatMap(({ password = '' }) => (password as string).split('$')).filter((part) => part !== '');
  assert.ok(stored.length >= 18);
  secrets.push(...stored.map((text) => ({ what: 'a salt or a hash', text })));
  for (const document of [formerKey, readFileSync(join(data, 'signing-keys.json'), 'utf8')]) {
    secrets.push({ what: 'a private key', text: JSON.parse(document).keys[0].d });
  }
  assert.ok(secrets.every(({ text }) => text.length >= 16) && secrets.length > 60, String(secrets.length));

  const findings: string[] = [];
  const look = (where: string, text: string, number?: number): void => {
    for (const secret of secrets) {
      const isTold = secret.told !== undefined && secret.told === number;
      const spellings = [secret.text, encodeURIComponent(secret.text), Buffer.from(secret.text).toString('base64').slice(0, -4), Buffer.from(secret.text).toString('hex')];
      if (!isTold && spellings.some((spelling) => text.includes(spelling))) findings.push(`${secret.what} in ${where}`);
    }
  };
  for (const [n, { what, text }] of answers.entries()) look(`the answer to ${what}`, text, n);
  look('standard error', service.stderr());
  look('standard output', printed.join(''));
  look('what check says', checked.stdout + checked.stderr);
  const home: Readonly<Record<string, RegExp>> = { 'users.jsonl': /^a salt or a hash$/, 'admin-token': /^the admin token$/, 'signing-keys.json': /^a private key$/ };
  for (const name of readdirSync(data, { recursive: true, encoding: 'utf8' })) {
    const path = join(data, name);
    const found = statSync(path);
    if (!found.isFile()) continue;
    const before = findings.length;
    look(name, readFileSync(path, 'utf8'));
    const here = findings.splice(before);
    findings.push(...here.filter((finding) => !(home[name]?.test(finding.slice(0, finding.lastIndexOf(` in ${name}`))) ?? false)));
    if (home[name] !== undefined) assert.equal(found.mode & 0o777, 0o600, name);
    // What is meant to be found is found: the search can fail.
    if (home[name] !== undefined) assert.ok(here.length > 0, `nothing in ${name}`);
  }
  assert.deepEqual(findings, []);
});
