import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, randomInt, sign } from 'node:crypto';
import { test } from 'node:test';
import { signToken, verifyToken } from '../../lib/session/token.ts';

const now = new Date('2026-11-22T15:00:00Z');
const iat = now.getTime() / 1000;
const claims = { iss: 'https://localhost:8443', sub: '17', preferred_username: 'алиса', version: 3, iat, exp: iat + 3600 };
const key = { kid: 'k1', ...generateKeyPairSync('ed25519') };
const keys = { find: (kid: string) => (kid === 'k1' ? key : undefined) };
const at = { now, issuer: claims.iss };
const good = signToken(key, claims);
const [header = '', payload = '', signature = ''] = good.split('.');

const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** Signed with our own key, whatever it says. */
function forge(head: unknown, body: unknown): string {
  const text = `${encode(head)}.${encode(body)}`;
  return `${text}.${sign(null, Buffer.from(text), key.privateKey).toString('base64url')}`;
}

const ours = { alg: 'EdDSA', typ: 'JWT', kid: 'k1' };

test('token: what was signed is read again, and nothing more is in it', () => {
  assert.deepEqual(verifyToken(good, keys, at), claims);
  assert.deepEqual(verifyToken(forge(ours, { ...claims, admin: true }), keys, at), claims);
  assert.deepEqual(JSON.parse(Buffer.from(header, 'base64url').toString()), ours);
});

test('token: a header that says anything else is refused, also when the signature is right', () => {
  const heads: unknown[] = [
    { ...ours, alg: 'none' }, { ...ours, alg: 'HS256' }, { ...ours, alg: 'eddsa' }, { ...ours, alg: 'Ed25519' }, { ...ours, alg: ['EdDSA'] },
    { ...ours, typ: 'at+jwt' }, { alg: 'EdDSA', kid: 'k1' }, { ...ours, kid: 'k2' }, { ...ours, kid: 1 }, { alg: 'EdDSA', typ: 'JWT' },
    { ...ours, crit: ['exp'] }, { ...ours, b64: false }, { ...ours, jwk: { kty: 'OKP' } }, { ...ours, jku: 'https://evil.example/' },
    [], null, '', 'no JSON', '"EdDSA"', '\ufeff' + JSON.stringify(ours),
  ];
  for (const head of heads) assert.equal(verifyToken(forge(head, claims), keys, at), undefined, JSON.stringify(head));
});

test('token: claims of another kind are refused, also when the signature is right', () => {
  const wrong: Record<string, unknown>[] = [
    { iss: 'https://evil.example' }, { iss: undefined }, { sub: 17 }, { sub: '017' }, { sub: '' }, { sub: '-1' }, { preferred_username: 1 },
    { version: '3' }, { version: 0 }, { version: 1.5 }, { version: undefined }, { iat: undefined }, { iat: iat + 3000 }, { exp: undefined },
    { exp: String(iat + 10) }, { exp: iat }, { exp: iat - 1 }, { exp: 1e300 }, { iat: iat - 100, exp: iat - 1 },
  ];
  for (const part of wrong) assert.equal(verifyToken(forge(ours, { ...claims, ...part }), keys, at), undefined, JSON.stringify(part));
  for (const body of ['[]', 'null', '1', '{', '']) assert.equal(verifyToken(forge(ours, body), keys, at), undefined, body);
});

test('token: it ends with its hour, and clocks may differ by a minute', () => {
  const seconds = (n: number) => ({ ...at, now: new Date(now.getTime() + n * 1000) });
  assert.ok(verifyToken(good, keys, seconds(3599)));
  assert.equal(verifyToken(good, keys, seconds(3600)), undefined);
  assert.ok(verifyToken(good, keys, seconds(-59)));
  assert.equal(verifyToken(good, keys, seconds(-61)), undefined);
  assert.equal(verifyToken(good, keys, { ...at, issuer: 'https://localhost' }), undefined);
});

test('token: another spelling of the same token is another token', () => {
  const last = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  // The last character of 64 bytes has four bits that say nothing.
  const stray = signature.slice(0, -1) + last[last.indexOf(signature.at(-1)!) + 1];
  assert.deepEqual(Buffer.from(stray, 'base64url'), Buffer.from(signature, 'base64url'));
  const spellings = [
    `${header}.${payload}.${stray}`, `${good}=`, `${good}==`, `${good}.`, `.${good}`, `${good}.${signature}`, `${header}..${signature}`, `${header}.${payload}.`,
    ` ${good}`, `${good}\n`, `${header}.${payload}.${signature.replaceAll('-', '+').replaceAll('_', '/')}+`, `${header}.${payload}`, '', '..', '...',
    `${good}${'A'.repeat(4000)}`,
  ];
  for (const spelling of spellings) assert.equal(verifyToken(spelling, keys, at), undefined, spelling);
});

test('token: one of another key is refused, and so is the public key taken for a secret', () => {
  const other = { kid: 'k1', ...generateKeyPairSync('ed25519') };
  assert.equal(verifyToken(signToken(other, claims), keys, at), undefined);
  const text = `${encode({ ...ours, alg: 'HS256' })}.${payload}`;
  const mac = createHmac('sha256', key.publicKey.export({ type: 'spki', format: 'pem' })).update(text).digest('base64url');
  assert.equal(verifyToken(`${text}.${mac}`, keys, at), undefined);
});

test('token: with any one character changed it is refused', () => {
  for (let n = 0; n < 500; n++) {
    const place = randomInt(good.length);
    const put = 'ABCxyz019-_.'[randomInt(12)]!;
    if (good[place] === put) continue;
    assert.equal(verifyToken(good.slice(0, place) + put + good.slice(place + 1), keys, at), undefined, `${place} ${put}`);
  }
});
