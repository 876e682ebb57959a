import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, createPublicKey, verify } from 'node:crypto';
import { chmodSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { SecretFiles } from '../../lib/session/secret-files.ts';
import { SigningKeys } from '../../lib/session/signing-keys.ts';
import type { SecretStore } from '../../lib/session/secret-store.ts';
import { signToken, verifyToken } from '../../lib/session/token.ts';
import { loader, root, temporaryDirectory } from '../helper/temporary.ts';

const issuer = 'https://localhost:8443';

function open(t: TestContext, directory = temporaryDirectory(t)) {
  let ms = Date.parse('2026-11-22T15:00:00Z');
  const lines: string[] = [];
  const now = (): Date => new Date(ms);
  const report = (line: string): void => void lines.push(line);
  const options = { secrets: new SecretFiles(directory), now, report, keepSeconds: 3600 };
  return { directory, lines, now, pass: (seconds: number) => void (ms += seconds * 1000), openKeys: () => SigningKeys.open(options), options };
}

function claimsAt(now: Date) {
  const iat = Math.floor(now.getTime() / 1000);
  return { iss: issuer, sub: '17', preferred_username: 'alice', version: 1, iat, exp: iat + 3600 };
}

/** From the JWKS and the RFCs 7515, 7517, 7638 and 8037 alone, as somebody else would write it. */
function verifyElsewhere(token: string, jwks: string): Record<string, unknown> | undefined {
  const [head = '', body = '', signature = ''] = token.split('.');
  const { kid, alg } = JSON.parse(Buffer.from(head, 'base64url').toString());
  const jwk = JSON.parse(jwks).keys.find((key: { kid: string }) => key.kid === kid);
  if (jwk === undefined || alg !== 'EdDSA' || jwk.kty !== 'OKP' || jwk.crv !== 'Ed25519' || jwk.use !== 'sig' || jwk.alg !== 'EdDSA') return undefined;
  assert.equal(createHash('sha256').update(`{"crv":"Ed25519","kty":"OKP","x":"${jwk.x}"}`).digest('base64url'), kid);
  const key = createPublicKey({ key: { kty: jwk.kty, crv: jwk.crv, x: jwk.x }, format: 'jwk' });
  const isRight = verify(null, Buffer.from(`${head}.${body}`), key, Buffer.from(signature, 'base64url'));
  return isRight ? JSON.parse(Buffer.from(body, 'base64url').toString()) : undefined;
}

test('signing-keys: a token is verified elsewhere by the JWKS alone, which holds no private half', async (t) => {
  const { directory, now, openKeys } = open(t);
  const keys = await openKeys();
  assert.deepEqual(readdirSync(directory), []);
  const token = signToken(await keys.current(), claimsAt(now()));
  const jwks = JSON.stringify(await keys.jwks());
  assert.deepEqual(verifyElsewhere(token, jwks), claimsAt(now()));
  assert.deepEqual(verifyToken(token, keys, { now: now(), issuer }), claimsAt(now()));
  assert.deepEqual(Object.keys(JSON.parse(jwks).keys[0]).sort(), ['alg', 'crv', 'kid', 'kty', 'use', 'x']);
  assert.equal(statSync(join(directory, 'signing-key.pem')).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory), ['signing-key.pem']);
  // A restart goes on with it.
  assert.deepEqual(verifyToken(token, await openKeys(), { now: now(), issuer }), claimsAt(now()));
});

test('signing-keys: of many processes that need one at once, one makes it', { timeout: 60_000 }, async (t) => {
  const { directory } = open(t);
  const script = `
    const { SecretFiles } = await import('./lib/session/secret-files.ts');
    const { SigningKeys } = await import('./lib/session/signing-keys.ts');
    const keys = await SigningKeys.open({ secrets: new SecretFiles(${JSON.stringify(directory)}), now: () => new Date(), report: () => {}, keepSeconds: 1 });
    const [a, b] = await Promise.all([keys.current(), keys.current()]);
    console.log(a.kid, b.kid);`;
  const run = () => promisify(execFile)(process.execPath, [...loader, '--input-type=module', '-e', script], { cwd: root });
  const kids = (await Promise.all([1, 2, 3, 4].map(run))).flatMap(({ stdout }) => stdout.trim().split(' '));
  assert.equal(new Set(kids).size, 1);
  assert.deepEqual(readdirSync(directory), ['signing-key.pem']);
});

test('signing-keys: a rotation in another process is noticed, and old tokens are good until they expire', async (t) => {
  const { now, pass, openKeys, directory } = open(t);
  const [service, command] = [await openKeys(), await openKeys()];
  const old = signToken(await service.current(), claimsAt(now()));
  pass(1);
  const { kid } = await command.rotate();
  const young = signToken(await command.current(), claimsAt(now()));
  pass(0.02);
  const at = () => ({ now: now(), issuer });
  assert.ok(verifyToken(young, service, at()), 'a key that is not known yet is looked for');
  assert.ok(verifyToken(old, service, at()));
  pass(1);
  assert.equal((await service.current()).kid, kid);
  const jwks = await service.jwks();
  assert.deepEqual(jwks.keys.map((key) => key.kid === kid), [true, false]);
  for (const token of [old, young]) assert.ok(verifyElsewhere(token, JSON.stringify(jwks)));
  assert.ok(!readFileSync(join(directory, 'signing-keys-retired.json'), 'utf8').includes('"d"'));
  // Twice more, and all three are there.
  await command.rotate();
  await command.rotate();
  pass(1);
  assert.equal((await service.jwks()).keys.length, 4);
  pass(3700);
  assert.equal((await service.jwks()).keys.length, 1);
  assert.equal(service.find(kid), undefined);
  await command.rotate();
  assert.equal(JSON.parse(readFileSync(join(directory, 'signing-keys-retired.json'), 'utf8')).keys.length, 1);
});

test('signing-keys: rotations at once are all kept', async (t) => {
  const { openKeys, pass } = open(t);
  const first = await (await openKeys()).current();
  const rotated = await Promise.all(Array.from({ length: 8 }, async () => (await openKeys()).rotate()));
  const keys = await openKeys();
  const kids = (await keys.jwks()).keys.map(({ kid }) => kid);
  assert.ok(kids.includes(first.kid));
  for (const { kid } of rotated) assert.ok(kids.includes(kid), kid);
  pass(1);
  assert.ok(rotated.some(({ kid }) => kid === kids[0]));
});

test('signing-keys: a key that others may read, or that is none, is refused at the start, and later kept as it was', async (t) => {
  const { directory, lines, pass, openKeys, now } = open(t);
  const service = await openKeys();
  const token = signToken(await service.current(), claimsAt(now()));
  const path = join(directory, 'signing-key.pem');
  const pem = readFileSync(path);
  lines.length = 0;
  for (const [spoil, pattern] of [
    [() => chmodSync(path, 0o640), /chmod 600/],
    [() => writeFileSync(path, 'rubbish'), /no Ed25519 key/],
    [() => writeFileSync(path, ''), /empty/],
  ] as const) {
    spoil();
    await assert.rejects(openKeys(), (error: any) => error.code === 'cannot-start' && pattern.test(error.message));
    for (let n = 0; n < 3; n++) {
      pass(1);
      assert.ok(verifyToken(token, service, { now: now(), issuer }));
    }
    assert.equal(lines.filter((line) => pattern.test(line)).length, 1, lines.join('\n'));
    chmodSync(path, 0o600);
    writeFileSync(path, pem);
    pass(1);
  }
  assert.ok(!lines.join('\n').includes(pem.toString().split('\n')[1]!));
});

test('signing-keys: a key that is removed by hand ends its tokens', async (t) => {
  const { directory, pass, openKeys, now } = open(t);
  const service = await openKeys();
  const token = signToken(await service.current(), claimsAt(now()));
  rmSync(join(directory, 'signing-key.pem'));
  pass(1);
  assert.equal(verifyToken(token, service, { now: now(), issuer }), undefined);
  assert.ok(await service.current());
});

test('signing-keys: kids that somebody invents do not make us read for each', async (t) => {
  const { options } = open(t);
  let reads = 0;
  const texts = new Map<string, string>();
  const secrets: SecretStore = {
    get: (name) => (reads++, texts.get(name)),
    putIfAbsent: async (name, value) => !texts.has(name) && texts.set(name, value) === texts,
    replace: async () => false,
  };
  const keys = await SigningKeys.open({ ...options, secrets });
  await keys.current();
  const before = reads;
  for (let n = 0; n < 1000; n++) keys.find(`invented ${n}`);
  assert.ok(reads - before <= 2, `${reads - before}`);
});

test('signing-keys: they may be in a store that has to be waited for', async (t) => {
  const { options, now, pass } = open(t);
  const texts = new Map<string, string>();
  const secrets: SecretStore = {
    get: async (name) => texts.get(name),
    putIfAbsent: async (name, value) => !texts.has(name) && texts.set(name, value) === texts,
    replace: async (name, expected, value) => texts.get(name) === expected && texts.set(name, value) === texts,
  };
  const [one, other] = [await SigningKeys.open({ ...options, secrets }), await SigningKeys.open({ ...options, secrets })];
  const first = signToken(await one.current(), claimsAt(now()));
  pass(1);
  await one.rotate();
  pass(1);
  await other.current();
  for (const token of [first, signToken(await one.current(), claimsAt(now()))]) assert.ok(verifyToken(token, other, { now: now(), issuer }));
});
