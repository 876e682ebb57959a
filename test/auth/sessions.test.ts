/** Sessions, the keys that sign them, and the admin token. */

import assert from 'node:assert/strict';
import { createHash, createHmac, createPublicKey, generateKeyPairSync, randomInt, sign, verify } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { StaticToken, SecretToken, makeToken } from '../../lib/auth/static-token.ts';
import { FileWatcher } from '../../lib/auth/file-watcher.ts';
import { checkMode, markAuthenticated } from '../../lib/auth/mode.ts';
import type { ModeConfig } from '../../lib/auth/mode.ts';
import { SecretFiles } from '../../lib/auth/secret-files.ts';
import type { SecretStore } from '../../lib/auth/secret-store.ts';
import { Sessions } from '../../lib/auth/sessions.ts';
import { SigningKeys } from '../../lib/auth/signing-keys.ts';
import { isCurrent, readToken, signToken } from '../../lib/auth/token.ts';
import type { Claims, TokenRules } from '../../lib/auth/token.ts';
import { temporaryDirectory } from '../helper/temporary.ts';

const issuer = 'https://localhost:8443';
const start = new Date('2026-11-22T15:00:00Z');
const iat = start.getTime() / 1000;
const claims: Claims = {
  iss: issuer, aud: issuer, sub: '17', preferred_username: 'алиса', version: 3, iat, exp: iat + 3600, auth_time: iat, jti: 'j', use: 'bearer', persistent: false,
};
const rules: TokenRules = { issuer, audience: issuer, use: 'bearer', secondsMax: 3600, sessionSecondsMax: 3600, now: start };
const key = { kid: 'k1', ...generateKeyPairSync('ec', { namedCurve: 'P-256' }) };
const find = (kid: string): typeof key | undefined => (kid === 'k1' ? key : undefined);
const good = signToken(key, claims);
const [header = '', payload = '', signature = ''] = good.split('.');
const ours = { alg: 'ES256', typ: 'JWT', kid: 'k1' };

const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** Signed with the right key, whatever it says. */
function forge(head: unknown, body: unknown, signer = key): string {
  const text = `${encode(head)}.${encode(body)}`;
  return `${text}.${sign('sha256', Buffer.from(text), { key: signer.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

test('token: what was signed is read again, and nothing else that the payload has', () => {
  assert.deepEqual(readToken(good, find), { ...claims, nbf: undefined, kid: 'k1' });
  assert.deepEqual(readToken(forge(ours, { ...claims, admin: true }), find), { ...claims, nbf: undefined, kid: 'k1' });
  assert.deepEqual(JSON.parse(Buffer.from(header, 'base64url').toString()), ours);
});

test('token: any other header is rejected, although the signature is right', () => {
  const heads: unknown[] = [
    { ...ours, alg: 'none' }, { ...ours, alg: 'HS256' }, { ...ours, alg: 'es256' }, { ...ours, alg: 'EdDSA' }, { ...ours, alg: ['ES256'] },
    { ...ours, typ: 'at+jwt' }, { alg: 'ES256', kid: 'k1' }, { ...ours, kid: 'k2' }, { ...ours, kid: 1 }, { alg: 'ES256', typ: 'JWT' },
    { ...ours, crit: ['exp'] }, { ...ours, b64: false }, { ...ours, jwk: { kty: 'EC' } }, { ...ours, jku: 'https://evil.example/' },
    [], null, '', 'no JSON', '"ES256"', '\ufeff' + JSON.stringify(ours),
  ];
  for (const head of heads) assert.equal(readToken(forge(head, claims), find), undefined, JSON.stringify(head));
});

test('token: claims of another type are rejected, although the signature is right', () => {
  const wrong: Record<string, unknown>[] = [
    { iss: undefined }, { aud: undefined }, { aud: [issuer] }, { sub: 17 }, { sub: '017' }, { sub: '' }, { sub: '-1' }, { preferred_username: 1 },
    { version: '3' }, { version: 0 }, { version: 1.5 }, { version: undefined }, { iat: undefined }, { exp: undefined }, { exp: String(iat + 10) },
    { exp: 1e300 }, { nbf: 'x' }, { auth_time: undefined }, { jti: undefined }, { use: 'link' }, { use: undefined }, { persistent: 'true' },
  ];
  for (const part of wrong) assert.equal(readToken(forge(ours, { ...claims, ...part }), find), undefined, JSON.stringify(part));
  for (const body of ['[]', 'null', '1', '{', '']) assert.equal(readToken(forge(ours, body), find), undefined, body);
});

test('token: every claim that time or configuration decides is checked at every use', () => {
  const at = (seconds: number): TokenRules => ({ ...rules, now: new Date((iat + seconds) * 1000) });
  for (const seconds of [-59, 0, 3599]) assert.equal(isCurrent(claims, at(seconds)), true, `${seconds}`);
  for (const seconds of [-61, 3600, 1e9]) assert.equal(isCurrent(claims, at(seconds)), false, `${seconds}`);
  const stale: Partial<Claims>[] = [
    { exp: iat + 3601 }, { exp: iat + 9 * 365 * 86_400 }, { exp: Number.MAX_SAFE_INTEGER }, { exp: iat }, { iat: iat - 3600, exp: iat },
    { iat: iat + 61, exp: iat + 100 }, { nbf: iat + 61 }, { auth_time: iat + 61 }, { iss: 'https://localhost' }, { aud: 'https://localhost' }, { use: 'cookie' },
  ];
  for (const part of stale) assert.equal(isCurrent({ ...claims, ...part }, rules), false, JSON.stringify(part));
  assert.equal(isCurrent({ ...claims, nbf: iat - 1 }, rules), true);
});

test('token: another spelling of the same token is another token', () => {
  const last = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  // The last character of 64 bytes has four bits without meaning.
  const stray = signature.slice(0, -1) + last[last.indexOf(signature.at(-1)!) + 1];
  assert.deepEqual(Buffer.from(stray, 'base64url'), Buffer.from(signature, 'base64url'));
  const spellings = [
    `${header}.${payload}.${stray}`, `${good}=`, `${good}==`, `${good}.`, `.${good}`, `${good}.${signature}`, `${header}..${signature}`, `${header}.${payload}.`,
    ` ${good}`, `${good}\n`, `${header}.${payload}.${signature.replaceAll('-', '+').replaceAll('_', '/')}+`, `${header}.${payload}`, '', '..', '...',
    `${good}${'A'.repeat(4000)}`,
  ];
  for (const spelling of spellings) assert.equal(readToken(spelling, find), undefined, spelling);
  for (let n = 0; n < 200; n++) {
    const [place, put] = [randomInt(good.length), 'ABCxyz019-_.'[randomInt(12)]!];
    if (good[place] !== put) assert.equal(readToken(good.slice(0, place) + put + good.slice(place + 1), find), undefined, `${place} ${put}`);
  }
});

test('token: another key with the same id, a DER signature and the public key as a secret are rejected', () => {
  assert.equal(readToken(signToken({ kid: 'k1', ...generateKeyPairSync('ec', { namedCurve: 'P-256' }) }, claims), find), undefined);
  assert.equal(readToken(`${header}.${payload}.${sign('sha256', Buffer.from(`${header}.${payload}`), key.privateKey).toString('base64url')}`, find), undefined);
  const text = `${encode({ ...ours, alg: 'HS256' })}.${payload}`;
  const mac = createHmac('sha256', key.publicKey.export({ type: 'spki', format: 'pem' })).update(text).digest('base64url');
  assert.equal(readToken(`${text}.${mac}`, find), undefined);
});

test('token: the longest login fits into the 4 KB of a cookie', () => {
  const token = signToken(key, { ...claims, preferred_username: '𝒜'.repeat(254), sub: '9007199254740991' });
  assert.ok(token.length < 4096 - 150, `${token.length}`);
  assert.equal(readToken(token, find)?.preferred_username.length, 508);
});

/** Services and commands on one directory. */
function open(t: TestContext, secrets: SecretStore | undefined = undefined) {
  const directory = temporaryDirectory(t);
  let ms = start.getTime();
  const now = (): Date => new Date(ms);
  const options = { secrets: secrets ?? new SecretFiles(directory), now, report: () => undefined, keepSeconds: 3600 };
  const openKeys = (): Promise<SigningKeys> => SigningKeys.open(options);
  const openSessions = async (audience = issuer): Promise<Sessions> =>
    new Sessions({ keys: await openKeys(), issuer, audience, seconds: { bearer: 3600, cookie: 7200 }, sessionSecondsMax: 20_000, now });
  return { directory, path: join(directory, 'signing-keys.json'), options, openKeys, openSessions, pass: (seconds: number) => void (ms += seconds * 1000) };
}

const alice = { id: 17, login: 'alice', version: 1 };

/** By the RFCs 7515, 7517, 7518 and 7638 alone, as another implementation would. */
function verifyElsewhere(token: string, jwks: string): Record<string, unknown> | undefined {
  const [head = '', body = '', mac = ''] = token.split('.');
  const { kid, alg } = JSON.parse(Buffer.from(head, 'base64url').toString());
  const jwk = JSON.parse(jwks).keys.find((known: { kid: string }) => known.kid === kid);
  if (jwk === undefined || alg !== 'ES256' || jwk.use !== 'sig' || jwk.alg !== 'ES256') return undefined;
  assert.deepEqual(Object.keys(jwk).sort(), ['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y']);
  assert.equal(createHash('sha256').update(`{"crv":"P-256","kty":"EC","x":"${jwk.x}","y":"${jwk.y}"}`).digest('base64url'), kid);
  const publicKey = createPublicKey({ key: jwk, format: 'jwk' });
  const isRight = verify('sha256', Buffer.from(`${head}.${body}`), { key: publicKey, dsaEncoding: 'ieee-p1363' }, Buffer.from(mac, 'base64url'));
  return isRight ? JSON.parse(Buffer.from(body, 'base64url').toString()) : undefined;
}

test('sessions: a token has the claims that other services need, and the JWKS verifies it', async (t) => {
  const { directory, openSessions, path } = open(t);
  const sessions = await openSessions('app');
  assert.deepEqual(readdirSync(directory), [], 'no key is made before it is needed');
  const { token, expires, seconds } = await sessions.issue(alice, 'cookie', true);
  const { jti, ...rest } = verifyElsewhere(token, await sessions.jwks())!;
  assert.match(String(jti), /^[\w-]{22}$/);
  assert.deepEqual(rest, {
    iss: issuer, aud: 'app', sub: '17', preferred_username: 'alice', version: 1, iat, exp: iat + 7200, auth_time: iat, use: 'cookie', persistent: true,
  });
  assert.deepEqual([expires, seconds], ['2026-11-22T17:00:00.000Z', 7200]);
  assert.deepEqual(sessions.read(token, 'cookie'), { ...alice, issued: iat, expires: iat + 7200, expiresAt: expires, signedIn: iat, isPersistent: true });
  assert.equal(sessions.read(token, 'bearer'), undefined);
  const bearer = await sessions.issue(alice, 'bearer');
  assert.deepEqual([sessions.read(bearer.token, 'cookie'), bearer.seconds], [undefined, 3600]);
  assert.deepEqual(readdirSync(directory), ['signing-keys.json']);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  // A restart accepts it, a service of another audience does not.
  assert.ok((await openSessions('app')).read(token, 'cookie'));
  assert.equal((await openSessions('other')).read(token, 'cookie'), undefined);
});

test('sessions: a token in the cache is rejected as soon as it has expired or its key is gone', async (t) => {
  const { openSessions, openKeys, pass, path, options } = open(t);
  const [sessions, command] = [await openSessions(), await openKeys()];
  const { token } = await sessions.issue(alice, 'bearer');
  assert.ok(sessions.read(token, 'bearer') && sessions.read(token, 'bearer'));
  pass(3599);
  assert.ok(sessions.read(token, 'bearer'));
  pass(1);
  assert.equal(sessions.read(token, 'bearer'), undefined);
  const next = (await sessions.issue(alice, 'bearer')).token;
  await command.rotate();
  pass(1);
  assert.ok(sessions.read(next, 'bearer'), 'a rotation keeps the old key');
  const kept = readFileSync(path);
  await SigningKeys.revoke(options);
  pass(1);
  assert.equal(sessions.read(next, 'bearer'), undefined, 'a revocation does not');
  assert.equal(JSON.parse(await sessions.jwks()).keys.length, 1);
  // A huge `exp` of a right signature, with a key that is known.
  const { privateKey, kid } = await command.current();
  const forged = forge({ ...ours, kid }, { ...claims, exp: 2 ** 53 - 1 }, { ...key, privateKey });
  assert.equal(sessions.read(forged, 'bearer'), undefined);
  writeFileSync(path, kept);
  pass(1);
  assert.ok(sessions.read(next, 'bearer'));
  rmSync(path);
  pass(1);
  assert.equal(sessions.read(next, 'bearer'), undefined, 'nor do keys that were removed by hand');
});

test('signing-keys: a rotation in another process is noticed, and old keys stay until their tokens have expired', async (t) => {
  const { openKeys, openSessions, pass, path } = open(t);
  const [sessions, other, command] = [await openSessions(), await openSessions(), await openKeys()];
  const old = (await sessions.issue(alice, 'bearer')).token;
  pass(1);
  const { kid } = await command.rotate();
  const young = (await other.issue(alice, 'bearer')).token;
  pass(0.02);
  assert.ok(sessions.read(young, 'bearer'), 'an unknown key is looked for at once');
  const jwks = await sessions.jwks();
  assert.deepEqual(JSON.parse(jwks).keys.map((jwk: { kid: string }) => jwk.kid === kid), [true, false]);
  for (const token of [old, young]) assert.ok(verifyElsewhere(token, jwks) && sessions.read(token, 'bearer'));
  assert.equal(readFileSync(path, 'utf8').match(/"d":/g)?.length, 1, 'only the current key has its private part');
  await command.rotate();
  await command.rotate();
  pass(1);
  assert.equal(JSON.parse(await sessions.jwks()).keys.length, 4);
  pass(3700);
  assert.equal(JSON.parse(await sessions.jwks()).keys.length, 1);
  await command.rotate();
  assert.equal(JSON.parse(readFileSync(path, 'utf8')).keys.length, 2, 'keys that are no longer needed are removed');
});

test('signing-keys: of processes that make, rotate and revoke at the same time each sees the one before', async (t) => {
  const { openKeys, options } = open(t);
  const made = await Promise.all(Array.from({ length: 8 }, async () => (await openKeys()).current()));
  assert.equal(new Set(made.map(({ kid }) => kid)).size, 1);
  const rotated = await Promise.all(Array.from({ length: 8 }, async () => (await openKeys()).rotate()));
  const kids = async (): Promise<string[]> => (await (await openKeys()).jwks()).keys.map((jwk: any) => jwk.kid);
  assert.deepEqual(new Set(await kids()), new Set([...made, ...rotated].map(({ kid }) => kid)));
  await Promise.all([...Array.from({ length: 4 }, async () => (await openKeys()).rotate()), SigningKeys.revoke(options)]);
  for (const { kid } of [...made, ...rotated]) assert.ok(!(await kids()).includes(kid), 'a rotation does not bring revoked keys back');
});

test('signing-keys: a document that cannot be used is refused at start, and rejects every token while it lasts', async (t) => {
  const { openKeys, openSessions, pass, path, options } = open(t);
  const sessions = await openSessions();
  const { token } = await sessions.issue(alice, 'bearer');
  const text = readFileSync(path);
  for (const [spoil, pattern] of [
    [() => chmodSync(path, 0o604), /chmod o=/],
    [() => writeFileSync(path, 'rubbish'), /not a JWK set.*--revoke-keys/],
    [() => writeFileSync(path, String(text).replaceAll('P-256', 'P-384')), /not a JWK set/],
    [() => writeFileSync(path, ''), /empty/],
  ] as const) {
    spoil();
    pass(1);
    for (let n = 0; n < 2; n++) assert.throws(() => sessions.read(token, 'bearer'), pattern);
    await assert.rejects(openKeys(), { code: 'cannot-start', message: pattern });
    chmodSync(path, 0o660);
    writeFileSync(path, text);
    pass(1);
    assert.ok(sessions.read(token, 'bearer'));
  }
  writeFileSync(path, 'rubbish');
  assert.ok((await SigningKeys.revoke(options)).kid);
  pass(1);
  assert.equal(sessions.read(token, 'bearer'), undefined);
});

test('signing-keys: they may be in a cluster, which is read once a second and not for every unknown key', async (t) => {
  const texts = new Map<string, string>();
  let reads = 0;
  const secrets: SecretStore = {
    get: async (name) => (reads++, texts.get(name)),
    replace: async (name, expected, value) => texts.get(name) === expected && texts.set(name, value) === texts,
  };
  const { openSessions, pass, options } = open(t, secrets);
  const [one, other] = [await openSessions(), await openSessions()];
  const { token } = await one.issue(alice, 'bearer');
  pass(1);
  assert.ok(await other.read(token, 'bearer'));
  const before = reads;
  for (let n = 0; n < 500; n++) await other.read(forge({ ...ours, kid: `${n}` }, claims), 'bearer');
  assert.ok(reads - before <= 1, `${reads - before}`);
  await SigningKeys.revoke(options);
  pass(1);
  assert.deepEqual([await one.read(token, 'bearer'), await other.read(token, 'bearer')], [undefined, undefined]);
});

test('secret-files: of replacements at once each sees the one before', async (t) => {
  const directory = temporaryDirectory(t);
  const add = async (): Promise<void> => {
    const secrets = new SecretFiles(directory);
    for (;;) {
      const text = secrets.get('key');
      if (await secrets.replace('key', text, String(Number(text ?? 0) + 1))) return;
    }
  };
  await Promise.all(Array.from({ length: 20 }, add));
  const secrets = new SecretFiles(directory);
  assert.equal(secrets.get('key'), '20');
  assert.deepEqual([await secrets.replace('key', '19', '21'), await secrets.replace('other', 'x', 'y'), await secrets.replace('key', undefined, 'y')], [false, false, false]);
  assert.equal(statSync(join(directory, 'key')).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory), ['key']);
});

test('secret-files: the lock of a process that died is broken', async (t) => {
  const directory = temporaryDirectory(t);
  const lock = join(directory, '.key.lock');
  writeFileSync(lock, '');
  utimesSync(lock, new Date(), new Date(Date.now() - 20_000));
  assert.equal(await new SecretFiles(directory).replace('key', undefined, '1'), true);
  assert.deepEqual(readdirSync(directory), ['key']);
});

test('secret-files: the group may read a secret; a file that others can access, or that is no file, is refused', (t) => {
  const directory = temporaryDirectory(t);
  const secrets = new SecretFiles(directory);
  mkdirSync(join(directory, 'directory'));
  writeFileSync(join(directory, 'open'), 'x');
  writeFileSync(join(directory, 'empty'), ' \n', { mode: 0o600 });
  symlinkSync(join(directory, 'open'), join(directory, 'link'));
  for (const mode of [0o604, 0o602, 0o601]) {
    chmodSync(join(directory, 'open'), mode);
    for (const name of ['open', 'link']) assert.throws(() => secrets.get(name), { code: 'cannot-start', message: /Run "chmod o= / }, `${name} ${mode}`);
  }
  for (const name of ['directory', 'empty', 'empty/below']) assert.throws(() => secrets.get(name), { code: 'cannot-start' }, name);
  writeFileSync(join(directory, 'group'), 'x');
  chmodSync(join(directory, 'group'), 0o660);
  assert.equal(secrets.get('group'), 'x');
});

const secret = 'a-token-of-the-administrator';

function openAdminToken(t: TestContext, configured?: string) {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'admin-token');
  const lines: string[] = [];
  let [ms, sets] = [0, 0];
  const openToken = (): StaticToken => new StaticToken({ name: 'admin', configured, directory, report: (line) => lines.push(line), onSet: () => sets++, now: () => ms });
  const put = (text: string): void => writeFileSync(path, text, { mode: 0o600 });
  return { directory, path, lines, openToken, put, sets: () => sets, pass: (seconds = 1) => void (ms += seconds * 1000) };
}

test('admin-token: a configured token is compared, and the file is not read', (t) => {
  const { openToken, put, pass } = openAdminToken(t, secret);
  put('another-token-of-16');
  const token = openToken();
  assert.deepEqual([token.isSet(), token.matches(secret), token.matches('another-token-of-16'), token.matches('')], [true, true, false, false]);
  pass();
  assert.equal(token.matches('another-token-of-16'), false);
});

test('admin-token: a token that is empty, weak or not ASCII is refused wherever it comes from, and not repeated', (t) => {
  for (const weak of ['', ' ', 'fifteen-letters', 'with a space in it', ` ${secret}`, `${secret} `, `${secret}\n${secret}`, 'ключ-администратора', `${secret}\u00a0`]) {
    const refused = (error: any): boolean => error.code === 'cannot-start' && (weak.trim() === '' || !error.message.includes(weak.trim()));
    assert.throws(openAdminToken(t, weak).openToken, refused, weak);
    const { openToken, put } = openAdminToken(t);
    put(weak);
    assert.throws(openToken, refused, weak);
  }
  const { openToken, put } = openAdminToken(t);
  put(`${secret}\r\n`);
  assert.equal(openToken().matches(secret), true);
});

test('admin-token: one that is made while the service runs ends unauthenticated mode within a second', async (t) => {
  const { openToken, pass, path, directory, lines, sets } = openAdminToken(t);
  const service = openToken();
  assert.deepEqual([service.isSet(), service.matches('')], [false, false]);
  const made = await makeToken(directory, 'admin');
  assert.match(made.value, /^[\w-]{43}$/);
  assert.equal(readFileSync(path, 'utf8'), `${made.value}\n`);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory), ['admin-token', 'authenticated-mode']);
  pass();
  assert.deepEqual([service.isSet(), service.matches(made.value), service.matches(`${made.value}x`), sets()], [true, true, false, 1]);
  assert.deepEqual(await makeToken(directory, 'admin'), { ...made, isNew: false });
  const next = await makeToken(directory, 'admin', { isNew: true });
  pass();
  assert.deepEqual([service.matches(made.value), service.matches(next.value), sets()], [false, true, 1]);
  assert.ok(!lines.join('\n').includes(made.value));
});

test('admin-token: whatever becomes of the file, authenticated mode goes on', (t) => {
  const spoils: [name: string, spoil: (path: string) => void, problem: RegExp][] = [
    ['removed', (path) => rmSync(path), /was removed/],
    ['emptied', (path) => writeFileSync(path, ''), /empty/],
    ['of white space', (path) => writeFileSync(path, '\n \n'), /empty/],
    ['weak', (path) => writeFileSync(path, 'short'), /16 visible/],
    ['readable by others', (path) => chmodSync(path, 0o604), /chmod o=/],
    ['a directory', (path) => (rmSync(path), mkdirSync(path)), /not a regular file|EISDIR/],
    ['too large', (path) => writeFileSync(path, 'x'.repeat(100_000)), /more than 65536 bytes/],
  ];
  for (const [name, spoil, problem] of spoils) {
    const { openToken, put, pass, path, lines } = openAdminToken(t);
    put(secret);
    const token = openToken();
    assert.equal(token.matches(secret), true);
    spoil(path);
    for (let n = 0; n < 3; n++) {
      pass();
      assert.deepEqual([token.isSet(), token.matches(secret), token.matches('')], [true, false, false], name);
    }
    assert.equal(lines.length, 1, `${name}: ${lines.join('\n')}`);
    assert.match(lines[0]!, problem, name);
    if (name !== 'removed') assert.throws(openToken, { code: 'cannot-start' }, name);
    rmSync(path, { recursive: true, force: true });
    put('the-next-token-is-good');
    pass();
    assert.deepEqual([token.isSet(), token.matches('the-next-token-is-good')], [true, true], name);
  }
});

test('admin-token: a file that cannot be used ends unauthenticated mode as well', (t) => {
  const { openToken, path, pass, lines, sets } = openAdminToken(t);
  const token = openToken();
  writeFileSync(path, secret, { mode: 0o644 });
  pass();
  assert.deepEqual([token.isSet(), token.matches(secret), lines.length, sets()], [true, false, 1, 1]);
  chmodSync(path, 0o640);
  pass();
  assert.equal(token.matches(secret), true);
});

test('admin-token: a secret matches itself and nothing else', () => {
  const token = new SecretToken(secret);
  assert.deepEqual([secret, `${secret} `, secret.slice(1), secret.toUpperCase(), ''].map((text) => token.matches(text)), [true, false, false, false, false]);
});

test('file-watcher: a write, a replacement, a change of mode and a removal are noticed, once each', (t) => {
  const directory = temporaryDirectory(t);
  const [path, other] = [join(directory, 'a'), join(directory, 'b')];
  let ms = 0;
  const watcher = new FileWatcher([path, other], () => ms);
  const changes = (): boolean[] => [1, 2].map(() => ((ms += 1000), watcher.hasChanged()));
  assert.deepEqual(changes(), [false, false]);
  for (const act of [
    () => writeFileSync(path, 'x'), () => writeFileSync(other, 'y'), () => chmodSync(path, 0o604),
    () => (writeFileSync(`${path}.tmp`, 'x'), renameSync(`${path}.tmp`, path)), () => rmSync(path), () => mkdirSync(path),
  ]) {
    act();
    assert.equal(watcher.hasChanged(), false, 'not looked at before a second has passed');
    assert.deepEqual(changes(), [true, false]);
  }
});

test('mode: unauthenticated mode is refused where it would be a mistake', async (t) => {
  const data = temporaryDirectory(t);
  const config: ModeConfig = { host: '127.0.0.1', socket: undefined, data, isCluster: false, isOpen: false };
  const refused = (part: Partial<ModeConfig>, pattern: RegExp): void => assert.throws(() => checkMode('unauthenticated', { ...config, ...part }), { code: 'cannot-start', message: pattern });
  for (const host of ['127.0.0.1', 'localhost', '::1']) checkMode('unauthenticated', { ...config, host });
  for (const isOpen of [false, true]) {
    for (const host of ['0.0.0.0', '::', '192.0.2.1']) refused({ host, isOpen }, /--host .* needs an admin token.*registrar token/);
    refused({ socket: '/run/registrar', isOpen }, /--socket/);
  }
  refused({ isCluster: true }, /--etcd.*REGISTRAR_ADMIN_TOKEN_FILE.*--open/);
  checkMode('unauthenticated', { ...config, isCluster: true, isOpen: true });
  await markAuthenticated(data);
  await markAuthenticated(data);
  refused({}, /was in authenticated mode.*registrar token --data.*--open/);
  checkMode('unauthenticated', { ...config, isOpen: true });
  checkMode('authenticated', { ...config, host: '0.0.0.0', isCluster: true });
  assert.throws(() => checkMode('authenticated', { ...config, isOpen: true }), { code: 'cannot-start', message: /--open/ });
});
