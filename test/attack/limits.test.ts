/** Those who ask too often, seen from the service: what they cannot do to others, to its memory, and with headers that they make up. */

import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Gate } from '../../lib/http/gate.ts';
import type { GateOptions } from '../../lib/http/gate.ts';
import { parseTrustedProxies } from '../../lib/http/client-address.ts';
import { Limits } from '../../lib/http/limits.ts';
import { VerifiedPasswords } from '../../lib/session/verified-passwords.ts';
import { adminToken, cheap, openService } from '../helper/service.ts';
import type { Answer, Ask, AskOptions } from '../helper/service.ts';

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

function gate(parts: Partial<GateOptions> = {}): Gate {
  const trusted = parseTrustedProxies('127.0.0.1,unix');
  assert.ok('addresses' in trusted);
  const options = {
    registry: { look: () => undefined },
    admin: { isSet: () => true, matches: (token: string) => token === adminToken },
    sessions: { read: (token: string) => (token === 'alice' ? { id: 1, login: 'alice', version: 1, expires: '' } : undefined) },
    verified: new VerifiedPasswords({ secondsMax: 60, entriesMax: 100, now: () => 0 }),
    limits: new Limits(() => 0),
    trusted,
    origins: { own: undefined, allowed: [] },
    ...parts,
  };
  // Of the registry and the sessions only what the gate asks here.
  return new Gate(options as unknown as GateOptions);
}

function request(address: string, headers: Record<string, string> = {}): IncomingMessage {
  const message = { method: 'GET', httpVersion: '1.1', socket: { remoteAddress: '127.0.0.1' }, headers: { 'x-forwarded-for': address, ...headers } };
  return message as unknown as IncomingMessage;
}

function codeOf(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error: any) {
    return error.code;
  }
}

const never = (): AbortSignal => new AbortController().signal;

/** A million takes half a minute. */
const addressesMax = Number(process.env.TRIALS ?? 100_000);

test(`limits: ${addressesMax} addresses leave no memory behind`, () => {
  // The first one also pays for what is compiled.
  memoryAfterFlood(10_000);
  const bytes = memoryAfterFlood(addressesMax);
  console.error(`# ${addressesMax} addresses: ${bytes} bytes`);
  // A place for each would be several times as much.
  assert.ok(bytes < 10 * addressesMax, `${bytes} bytes`);
});

/** How much the process has grown. */
function memoryAfterFlood(addresses: number): number {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const door = gate();
  gc();
  const before = process.memoryUsage();
  let refused = 0;
  for (let n = 0; n < addresses; n++) {
    const asking = request(n % 2 === 0 ? `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}` : `2001:db8:${(n >> 16).toString(16)}:${(n & 0xffff).toString(16)}::1`);
    const visit = door.visit(asking);
    door.admit(visit, asking);
    if (codeOf(() => door.attempt(visit, `login${n}`)) !== undefined) refused++;
  }
  gc();
  const after = process.memoryUsage();
  assert.ok(refused > 0 && refused < addresses);
  return after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
}

test('limits: a hundred addresses that ask all they may shut out nobody who has a token or was remembered', () => {
  const known = { id: 1, login: 'alice', version: 1 };
  const verified = new VerifiedPasswords({ secondsMax: 60, entriesMax: 100, now: () => 0 });
  verified.remember(known, password);
  const door = gate({ verified, registry: { look: (login: string) => (login === 'alice' ? known : undefined) } as never });
  const read = (address: string, headers: Record<string, string> = {}): string | undefined => codeOf(() => {
    const asking = request(address, headers);
    const visit = door.visit(asking);
    door.admit(visit, asking);
    const principal = door.principal(visit, asking.headers, 'read', never);
    assert.ok(!(principal instanceof Promise));
  });
  const refusals = new Map<string | undefined, number>();
  for (let n = 0; n < 100 * 3_100; n++) {
    const code = read(`10.0.0.${n % 100}`);
    refusals.set(code, (refusals.get(code) ?? 0) + 1);
  }
  assert.equal(refusals.get(undefined), 200_000);
  assert.equal(read('192.0.2.1'), 'rate-limited', 'whoever proves nothing is refused');
  assert.equal(read('192.0.2.1', basic('bob', 'wrong')), 'rate-limited', 'and whoever would cost a hash');
  assert.equal(read('192.0.2.1', bearer('alice')), undefined);
  assert.equal(read('192.0.2.1', bearer(adminToken)), undefined);
  assert.equal(read('192.0.2.1', basic('alice', password)), undefined);
});

test('limits: by Basic a login that is limited is looked for as one that nobody has', async () => {
  const known = { id: 1, login: 'alice', version: 1 };
  const looks: string[] = [];
  const verified = { has: () => (looks.push('compared'), false), remember: () => undefined };
  const registry = {
    look: (login: string) => (looks.push(login === 'alice' ? 'found' : 'not found'), login === 'alice' ? known : undefined),
    verify: async () => undefined,
  };
  const door = gate({ verified, registry: registry as never });
  let address = 0;
  const guess = async (login: string): Promise<string[]> => {
    looks.length = 0;
    const asking = request(`10.0.0.${address++}`, basic(login, 'wrong'));
    const visit = door.visit(asking);
    door.admit(visit, asking);
    await Promise.resolve(door.principal(visit, asking.headers, 'read', never)).catch((error) => looks.push(error.code));
    return [...looks].sort();
  };
  for (let n = 0; n < 20; n++) for (const login of ['alice', 'nobody']) assert.ok((await guess(login)).includes('unauthenticated'));
  for (const login of ['alice', 'nobody', 'no login']) assert.deepEqual(await guess(login), ['compared', 'found', 'not found', ...(login === 'no login' ? ['unauthenticated'] : ['rate-limited'])], login);
});

test('limits: guesses from a hundred addresses leave alice her token, and her password where she was before', async (t) => {
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

test('limits: a login that nobody has is limited like any other, to the byte', async (t) => {
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

test('limits: over HTTP 429 tells when to come again, and counts whom a trusted proxy names', async (t) => {
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

test('limits: a client that makes up where it comes from is who it is', async (t) => {
  const { ask } = await openService(t, cheap, closed);
  const statuses = [];
  for (let n = 0; n < 62; n++) {
    const headers = { 'x-forwarded-for': `192.0.2.${n}`, forwarded: `for=192.0.2.${n}`, 'x-real-ip': `192.0.2.${n}`, 'true-client-ip': `192.0.2.${n}` };
    statuses.push((await ask('/user/', post({ login: `user${n}`, password }, headers))).status);
  }
  assert.deepEqual(statuses.slice(58), [201, 201, 429, 429]);
});
