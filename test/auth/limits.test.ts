/** Rate limits: credentials, client addresses, and the work that concurrent requests share. */

import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { BoundedMap } from '../../lib/auth/bounded-map.ts';
import { clientAddress, clientOf, parseTrustedProxies } from '../../lib/auth/client-address.ts';
import type { TrustedProxies } from '../../lib/auth/client-address.ts';
import { clearCookie, readAuthorization, readCookie, setCookie, trimOws } from '../../lib/auth/credentials.ts';
import { Limits } from '../../lib/auth/limits.ts';
import type { LimitedRequest } from '../../lib/auth/limits.ts';
import { RateLimiter, rateLimitHeaders } from '../../lib/auth/rate-limiter.ts';
import type { Policy } from '../../lib/auth/rate-limiter.ts';

const basic = (text: string | Buffer): string => `Basic ${Buffer.from(text).toString('base64')}`;

test('credentials: Basic is UTF-8, and the first colon parts login and password', () => {
  const cases: [string, string, string][] = [
    ['alice:correct horse', 'alice', 'correct horse'], ['алиса:пароль:с:двоеточием', 'алиса', 'пароль:с:двоеточием'], [':', '', ''],
    ['a:', 'a', ''], ['a:\ufeffb', 'a', '\ufeffb'],
  ];
  for (const [text, login, password] of cases) assert.deepEqual(readAuthorization(basic(text)), { kind: 'basic', login, password });
  assert.deepEqual(readAuthorization('bAsIc   YTpi'), { kind: 'basic', login: 'a', password: 'b' });
  assert.deepEqual(readAuthorization(`Basic ${Buffer.from('a:bc').toString('base64').replace(/=+$/, '')}`), { kind: 'basic', login: 'a', password: 'bc' });
});

test('credentials: Bearer is taken as it is, no header is none, and anything else is unreadable', () => {
  assert.deepEqual(readAuthorization('Bearer abc.def'), { kind: 'bearer', token: 'abc.def' });
  assert.deepEqual(readAuthorization(undefined), { kind: 'none' });
  const unreadable = [
    '', 'Basic', 'Basic ', 'Basic !!!!', 'Basic YQ', basic('no colon'), basic(Buffer.from([0x61, 0x3a, 0xff])), basic(Buffer.from([0xc0, 0xaf, 0x3a])),
    'Bearer', 'Bearer ', 'Digest username="a"', 'YTpi', 'Basic YTpi YTpi', 'Basic YTp\u00eb', 'Bearer a b', 'Bearer abc\u00a0', 'Bearer\u00a0abc', '\u00a0Bearer abc', 'Bearer\tabc', 'Basic YTpi\u00a0',
  ];
  for (const header of unreadable) assert.deepEqual(readAuthorization(header), { kind: 'unreadable' }, header);
});

test('credentials: the cookie is found among others, and not if it is there twice, or under a name that looks the same', () => {
  // Browsers bind __Host- to the host; a sibling site may set any other name, and U+00A0 is a character of one.
  for (const space of ['\u00a0', '\ufeff', '\u2003', '\v', '\f', '\r', '\n', '\u0085']) {
    assert.equal(readCookie(`${space}__Host-registrar=evil`), undefined, JSON.stringify(space));
    assert.equal(readCookie(`${space}__Host-registrar=evil; __Host-registrar=good`), 'good', JSON.stringify(space));
  }
  assert.equal(readCookie('a=b;\t __Host-registrar=t.o.k\t'), 't.o.k');
  assert.equal(readCookie('a=b; __Host-registrar=t.o.k; c=d'), 't.o.k');
  assert.equal(readCookie('__Host-registrar='), '');
  for (const header of [undefined, '', 'registrar=x', '__host-registrar=x', '__Host-registrar =x', 'x__Host-registrar=x', '__Host-registrarx=x', '__Host-registrar=a; __Host-registrar=b']) {
    assert.equal(readCookie(header), undefined, header);
  }
  const [pair = '', ...attributes] = setCookie('t.o.k', 3600).split('; ');
  assert.equal(readCookie(pair), 't.o.k');
  assert.deepEqual(attributes, ['Path=/', 'Max-Age=3600', 'Secure', 'HttpOnly', 'SameSite=Lax']);
  assert.match(clearCookie(), /^__Host-registrar=; .*Max-Age=0/);
});

function trust(text: string): TrustedProxies {
  const parsed = parseTrustedProxies(text);
  assert.ok('addresses' in parsed, JSON.stringify(parsed));
  return parsed;
}

test('client-address: X-Forwarded-For counts as far as trusted hops have written it', () => {
  const rows: [trusted: string, peer: string | undefined, forwardedFor: string | undefined, client: string][] = [
    ['', '192.0.2.1', undefined, '192.0.2.1'],
    ['', '192.0.2.1', '198.51.100.7', '192.0.2.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7', '198.51.100.7'],
    ['127.0.0.1', '127.0.0.1', undefined, '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.2', '198.51.100.7', '127.0.0.2'],
    // What the client itself has written stands to the left.
    ['127.0.0.1', '127.0.0.1', '203.0.113.9, 198.51.100.7', '198.51.100.7'],
    ['127.0.0.1', '127.0.0.1', '127.0.0.1, 198.51.100.7', '198.51.100.7'],
    ['127.0.0.1, 10.0.0.0/8', '127.0.0.1', '203.0.113.9, 198.51.100.7, 10.1.2.3', '198.51.100.7'],
    ['127.0.0.1, 10.0.0.0/8', '127.0.0.1', '10.9.9.9,10.1.2.3', '10.9.9.9'],
    ['127.0.0.1', '127.0.0.1', 'unknown', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7, _hidden', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7,', '127.0.0.1'],
    ['127.0.0.1,10.0.0.0/8', '127.0.0.1', '198.51.100.7, rubbish, 10.0.0.1', '10.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7.example', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '\t 198.51.100.7 \t', '198.51.100.7'],
    ['127.0.0.1', '127.0.0.1', '\u00a0198.51.100.7', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7:4711', '198.51.100.7'],
    ['127.0.0.1', '127.0.0.1', '[2001:db8::1]:4711', '2001:db8::1'],
    ['127.0.0.1', '127.0.0.1', '2001:DB8::1', '2001:db8::1'],
    // A dual-stack listener sees IPv4 peers as mapped ones.
    ['127.0.0.1', '::ffff:127.0.0.1', '198.51.100.7', '198.51.100.7'],
    ['127.0.0.0/8', '::ffff:7f00:1', '::ffff:198.51.100.7', '198.51.100.7'],
    ['::ffff:10.0.0.0/104', '10.3.0.1', '198.51.100.7', '198.51.100.7'],
    ['fd00::/8', 'fd12::1', '198.51.100.7', '198.51.100.7'],
    ['fd00::/8', 'fe80::1%eth0', '198.51.100.7', 'fe80::1'],
    ['::1', '::1', '198.51.100.7', '198.51.100.7'],
    ['unix', undefined, '198.51.100.7', '198.51.100.7'],
    ['unix', '', '198.51.100.7', '198.51.100.7'],
    ['127.0.0.1', undefined, '198.51.100.7', 'unix'],
    // No client of a proxy is on the socket.
    ['127.0.0.1,unix', '127.0.0.1', 'unix', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', `198.51.100.7${', 127.0.0.1'.repeat(1000)}`, '127.0.0.1'],
  ];
  for (const [trusted, peer, forwardedFor, client] of rows) {
    assert.equal(clientAddress(peer, forwardedFor, trust(trusted)), client, JSON.stringify([trusted, peer, forwardedFor]));
  }
});

test('client-address: what is no list of proxies is said', () => {
  for (const wrong of ['localhost', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0/8', 'fd00::/129', '::ffff:10.0.0.0/8', '10.0.0.0/-1', '1.2.3.4, all', '*', 'fe80::1%eth0']) {
    const parsed = parseTrustedProxies(wrong);
    assert.ok('problem' in parsed && parsed.problem.includes(wrong.split(', ').at(-1)!), wrong);
  }
  assert.ok('addresses' in parseTrustedProxies(' 10.0.0.0/8 ,, unix,::/0,0.0.0.0/0 '));
});

test('client-address: IPv4 is limited by address, IPv6 by /64, /56 and /48, in whatever spelling', () => {
  const keys = (address: string): string[] => clientOf(address).networks.map(({ key, factor }) => `${key} ${factor}`);
  assert.deepEqual([keys('192.0.2.1'), keys('unix')], [['192.0.2.1 1'], ['unix 1']]);
  const same = ['2001:db8:1:abcd::', '2001:db8:1:abcd:ffff:ffff:ffff:ffff', '2001:0db8:0001:abcd::1', '2001:DB8:1:ABCD::192.0.2.1'];
  for (const address of same) {
    assert.equal(clientOf(address).name, '2001:db8:1:abcd::/64', address);
    assert.deepEqual(keys(address), ['2001:db8:1:abcd::/64 1', '2001:db8:1:ab00::/56 2', '2001:db8:1:0::/48 4'], address);
  }
  assert.deepEqual(keys('2001:db8:1:ab00::1').slice(1), keys(same[0]!).slice(1));
  assert.deepEqual(keys('2001:db8:1:ac00::1')[1], '2001:db8:1:ac00::/56 2');
  assert.deepEqual(keys('2001:db8:1:ac00::1')[2], keys(same[0]!)[2]);
  assert.deepEqual(['::1', '::1.2.3.4', '::'].map((address) => clientOf(address).name), Array.from({ length: 3 }, () => '0:0:0:0::/64'));
  assert.equal(clientOf('1::2:3:4:5:6').name, '1:0:0:2::/64');
  assert.equal(clientOf('1:2:3:4:5:6:7:8').name, '1:2:3:4::/64');
});

test('client-address: no header makes it anything but an address or "unix"', () => {
  const trusted = trust('127.0.0.1,10.0.0.0/8,unix');
  const alphabet = ['1', '255', '256', '.', ':', '::', ',', ' ', '[', ']', 'ffff', '%', 'x', '10.0.0.1', '127.0.0.1', '\t', '"', '0'];
  for (let n = 0; n < 20_000; n++) {
    const header = Array.from({ length: randomInt(12) }, () => alphabet[randomInt(alphabet.length)]).join('');
    const client = clientAddress('127.0.0.1', header, trusted);
    assert.match(client, /^(?:\d+\.\d+\.\d+\.\d+|[0-9a-f:]*:[0-9a-f:.]*)$/, JSON.stringify(header));
  }
});

const signIn: Policy = { name: 'sign-in', quota: 20, windowSeconds: 600 };

function openLimiter(policy: Policy = signIn, keysMax = 1024) {
  let ms = 5_000_000;
  const limiter = new RateLimiter({ policy, keysMax, now: () => ms });
  return { limiter, pass: (seconds: number) => void (ms += seconds * 1000) };
}

function openLimits(waitMsMax = 5_000) {
  let ms = 1;
  return { limits: new Limits({ now: () => ms, waitMsMax }), pass: (seconds: number) => void (ms += seconds * 1000) };
}

function request(address: string): LimitedRequest {
  return { client: clientOf(address), rateLimits: [], overGlobalLimit: false };
}

const never = new AbortController().signal;
const wrong = async (): Promise<boolean> => false;
const right = async (): Promise<boolean> => true;

/** How often it succeeds before it is rejected. */
async function count(act: () => unknown, max = 10_000): Promise<number> {
  for (let n = 0; n < max; n++) {
    try {
      await act();
    } catch (error: any) {
      assert.equal(error.code, 'rate-limited');
      assert.ok(error.retryAfterSeconds >= 1, String(error.retryAfterSeconds));
      return n;
    }
  }
  return max;
}

test('bounded-map: the entry that was set longest ago is evicted', () => {
  const map = new BoundedMap<number>(3);
  for (const [n, key] of ['a', 'b', 'c', 'a', 'd'].entries()) map.set(key, n);
  assert.deepEqual(['a', 'b', 'c', 'd'].map((key) => map.get(key)), [3, undefined, 2, 4]);
  map.delete('a');
  assert.equal(map.get('a'), undefined);
});

test('rate-limiter: a bucket gives its quota at once, then one token for each refill, and tells when', () => {
  const { limiter, pass } = openLimiter();
  for (let left = 19; left >= 0; left--) {
    assert.equal(limiter.take('a'), true);
    assert.deepEqual(limiter.status('a'), { policy: signIn, remaining: left, resetSeconds: 30 });
  }
  assert.equal(limiter.take('a'), false);
  pass(29);
  assert.deepEqual([limiter.take('a'), limiter.status('a').resetSeconds], [false, 1]);
  pass(1);
  assert.deepEqual([limiter.take('a'), limiter.take('a'), limiter.take('b')], [true, false, true]);
  pass(600);
  assert.deepEqual(limiter.status('a'), { policy: signIn, remaining: 20, resetSeconds: 0 });
});

test('rate-limiter: a rejection costs nothing, so a client that comes back when told succeeds', () => {
  const { limiter, pass } = openLimiter({ name: 'odd', quota: 3, windowSeconds: 10 });
  for (let n = 0; n < 200; n++) {
    while (limiter.take('a'));
    for (let m = 0; m < 5; m++) assert.equal(limiter.take('a'), false);
    const { resetSeconds } = limiter.status('a');
    assert.ok(resetSeconds > 0 && resetSeconds <= 4);
    pass(resetSeconds);
    assert.ok(limiter.take('a'), `${n}`);
  }
});

test('rate-limiter: over a long time no more tokens are taken than quota and refill', () => {
  const { limiter, pass } = openLimiter({ name: 'odd', quota: 7, windowSeconds: 60 });
  let taken = 0;
  for (let n = 0; n < 6000; n++) {
    if (limiter.take('a')) taken++;
    pass(0.1);
  }
  assert.ok(taken >= 76 && taken <= 77, `${taken}`);
});

test('rate-limiter: a refund never fills a bucket above its quota, and a factor multiplies the quota', () => {
  const { limiter } = openLimiter({ name: 'two', quota: 2, windowSeconds: 60 });
  assert.deepEqual([1, 2, 3].map(() => limiter.take('a')), [true, true, false]);
  limiter.refund('a');
  assert.equal(limiter.status('a').remaining, 1);
  for (let n = 0; n < 9; n++) limiter.refund('a');
  assert.deepEqual([1, 2, 3].map(() => limiter.take('a')), [true, true, false]);
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7].map(() => limiter.take('wide', 3)), [true, true, true, true, true, true, false]);
  assert.deepEqual(limiter.status('wide', 3), { policy: { name: 'two', quota: 6, windowSeconds: 60 }, remaining: 0, resetSeconds: 10 });
});

test('rate-limiter: the header fields are structured, one item for each policy', () => {
  const { limiter } = openLimiter();
  limiter.take('a');
  assert.deepEqual(rateLimitHeaders([limiter.status('a'), limiter.status('b')]), {
    'RateLimit-Policy': '"sign-in";q=20;w=600, "sign-in";q=20;w=600', RateLimit: '"sign-in";r=19;t=30, "sign-in";r=20;t=0',
  });
});

test('limits: wrong passwords for one login are limited over all clients, and time refills', async () => {
  const { limits, pass } = openLimits();
  let address = 0;
  const guess = (): unknown => limits.attempt(request(`10.0.0.${address++}`), 'alice', never, wrong);
  assert.equal(await count(guess), 20);
  assert.equal(await count(() => limits.attempt(request('10.9.9.9'), 'bob', never, wrong), 5), 5, 'another login');
  pass(30);
  assert.equal(await count(guess), 1);
  pass(86_400);
  assert.equal(await count(guess), 20);
});

test('limits: a client that has signed in before has an allowance of its own', async () => {
  const { limits } = openLimits();
  await limits.attempt(request('192.0.2.1'), 'alice', never, right);
  let address = 0;
  await count(() => limits.attempt(request(`10.0.0.${address++}`), 'alice', never, wrong));
  await assert.rejects(limits.attempt(request('192.0.2.2'), 'alice', never, right), { code: 'rate-limited' });
  assert.equal(await limits.attempt(request('192.0.2.1'), 'alice', never, right), true);
  assert.equal(await count(() => limits.attempt(request('192.0.2.1'), 'alice', never, wrong)), 20);
});

test('limits: right passwords and failures of the service do not count, a client that leaves does', async () => {
  const { limits } = openLimits();
  assert.equal(await count(() => limits.attempt(request('192.0.2.1'), 'alice', never, right), 1000), 1000);
  for (let n = 0; n < 50; n++) {
    await assert.rejects(limits.attempt(request('192.0.2.2'), 'bob', never, async () => { throw new Error('busy'); }), /busy/);
  }
  const gone = async (): Promise<unknown> => {
    const controller = new AbortController();
    return limits.attempt(request('192.0.2.3'), 'bob', controller.signal, async () => {
      controller.abort(new Error('gone'));
      throw controller.signal.reason;
    }).catch((error: any) => { if (error.code === 'rate-limited') throw error; });
  };
  assert.equal(await count(gone), 20);
});

test('limits: sign-ins in progress are no failures: any number with the right password get in, and parallel guesses do not exceed the limit', async () => {
  const { limits } = openLimits();
  const slowly = (answer: boolean) => () => new Promise<boolean>((resolve) => setImmediate(resolve, answer));
  const good = Array.from({ length: 300 }, (_, n) => limits.attempt(request(`10.0.${n >> 8}.${n & 255}`), 'alice', never, slowly(true)));
  assert.deepEqual(new Set(await Promise.all(good)), new Set([true]));
  let checks = 0;
  const guesses = Array.from({ length: 300 }, (_, n) =>
    limits.attempt(request(`10.1.${n >> 8}.${n & 255}`), 'bob', never, () => (checks++, slowly(false)())));
  const results = await Promise.allSettled(guesses);
  assert.equal(checks, 20);
  assert.equal(results.filter(({ status }) => status === 'rejected').length, 280);
  // Of a mixture: failures use up the limit, and the rest is rejected.
  const mixed = Array.from({ length: 100 }, (_, n) => limits.attempt(request(`10.2.0.${n}`), 'carol', never, slowly(n >= 50)));
  assert.equal((await Promise.allSettled(mixed)).filter(({ status }) => status === 'fulfilled').length, 20);
});

test('limits: a sign-in waits no longer than its limit, and not for a client that has left', async () => {
  const { limits } = openLimits(20);
  let end = (): void => undefined;
  const blocked = new Promise<boolean>((resolve) => (end = () => resolve(true)));
  const holders = Array.from({ length: 20 }, (_, n) => limits.attempt(request(`10.0.0.${n}`), 'alice', never, () => blocked));
  const controller = new AbortController();
  const leaving = limits.attempt(request('10.0.1.1'), 'alice', controller.signal, right);
  controller.abort(new Error('gone'));
  await assert.rejects(leaving, /gone/);
  await assert.rejects(limits.attempt(request('10.0.1.2'), 'alice', never, right), { code: 'overloaded', retryAfterSeconds: 1 });
  end();
  await Promise.all(holders);
  assert.equal(await limits.attempt(request('10.0.1.3'), 'alice', never, right), true);
});

test('limits: a client that guesses at many logins is stopped, and rejected attempts are not counted', async () => {
  const { limits } = openLimits();
  let login = 0;
  assert.equal(await count(() => limits.attempt(request('192.0.2.1'), `user${login++}`, never, wrong)), 100);
  for (let n = 0; n < 100; n++) await assert.rejects(limits.attempt(request('192.0.2.1'), 'victim', never, wrong), { code: 'rate-limited' });
  assert.equal(await count(() => limits.attempt(request('192.0.2.2'), 'victim', never, wrong)), 20);
});

test('limits: one site with all networks of a /48 leaves sign-ins to all other clients', async () => {
  const { limits } = openLimits();
  let [n, login] = [0, 0];
  const from56 = (): unknown => limits.attempt(request(`2001:db8:1:${(n++ & 255).toString(16)}::1`), `user${login++}`, never, wrong);
  assert.equal(await count(from56), 200, 'a /56 has twice the limit of a /64');
  const from48 = (): unknown => limits.attempt(request(`2001:db8:1:${(256 + (n++ & 0xf7ff)).toString(16)}::1`), `user${login++}`, never, wrong);
  assert.equal(await count(from48), 200, 'a /48 has four times the limit');
  assert.equal(await count(() => limits.request(request(`2001:db8:2:${(n++ & 0xffff).toString(16)}::1`)), 20_000), 12_000);
  assert.equal(await limits.attempt(request('2001:db8:3::1'), 'alice', never, right), true);
});

test('limits: the global budget keeps a third for clients without a failure', async () => {
  const { limits } = openLimits();
  let [failures, login] = [0, 0];
  for (let n = 0; n < 100; n++) failures += await count(() => limits.attempt(request(`10.0.0.${n}`), `user${login++}`, never, wrong));
  assert.ok(failures >= 2_000 && failures < 2_200, `${failures}`);
  await assert.rejects(limits.attempt(request('10.0.0.1'), 'alice', never, right), { code: 'rate-limited' });
  assert.equal(await limits.attempt(request('192.0.2.1'), 'alice', never, right), true);
});

test('limits: registrations are limited for each client and in all', async () => {
  const { limits } = openLimits();
  assert.equal(await count(() => limits.registration(request('192.0.2.1'))), 60);
  let address = 0;
  assert.equal(await count(() => limits.registration(request(`10.0.0.${address++}`))), 600 - 60);
});

test('limits: a request counts for its client, or for the login that it is authenticated as, or for the administrator not at all', async () => {
  const { limits } = openLimits();
  const send = (address: string, login?: string | null): void => {
    const sent = request(address);
    limits.request(sent);
    if (login !== undefined) limits.authenticated(sent, login ?? undefined);
  };
  assert.equal(await count(() => send('192.0.2.1', 'alice')), 3000);
  assert.equal(await count(() => send('192.0.2.1', null), 5000), 5000);
  assert.equal(await count(() => send('192.0.2.1')), 3000);
  assert.equal(await count(() => send('192.0.2.2', 'bob'), 100), 100);
});

test('limits: RateLimit fields tell of the client, not of a login, and of a rejection which limit it was', async () => {
  const { limits } = openLimits();
  const fields = ({ rateLimits }: LimitedRequest): unknown => rateLimits.map(({ policy, remaining }) => [policy.name, remaining]);
  // Known to the service or not, first or second failure for the login: the same.
  await limits.attempt(request('192.0.2.1'), 'alice', never, right);
  await limits.attempt(request('192.0.2.9'), 'alice', never, wrong);
  const sent = request('192.0.2.1');
  await limits.attempt(sent, 'alice', never, wrong);
  assert.deepEqual(fields(sent), [['sign-in-failures', 99]]);
  await limits.attempt(sent, 'mallory', never, wrong);
  assert.deepEqual(fields(sent), [['sign-in-failures', 98]]);
  await count(() => limits.attempt(request('192.0.2.2'), 'mallory', never, wrong));
  await assert.rejects(limits.attempt(sent, 'mallory', never, wrong), { message: 'Too many wrong passwords for this login: try again in 30 s.' });
  assert.deepEqual(fields(sent), [['sign-in-failures-of-login', 0]]);
});

test('credentials: white space is SP and HTAB, and its removal takes linear time', () => {
  assert.deepEqual(['', ' \t', ' a \t', 'a b', '\u00a0a\u00a0', '\na'].map(trimOws), ['', '', 'a', 'a b', '\u00a0a\u00a0', '\na']);
  const before = performance.now();
  const long = `x${' '.repeat(1_000_000)}y`;
  assert.equal(trimOws(long), long);
  // A backtracking pattern takes minutes.
  assert.ok(performance.now() - before < 1_000);
});
