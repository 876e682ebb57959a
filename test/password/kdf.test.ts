import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { formatKdf, formatPassword, parseCredential, parseKdf, weakness } from '../../lib/password/kdf.ts';
import { Hasher } from '../../lib/password/hasher.ts';
import { without } from '../helper/temporary.ts';

const passwords = ['correct horse', 'верная лошадь', 'café \u00a0 пароль 密码 😀', 'x'.repeat(256)];
const kdfs = ['pbkdf2:sha256:1000', 'pbkdf2:sha384:3', 'pbkdf2:sha512:1', 'pbkdf2:sha256:600000'];

async function hashAll(check: (kdf: string, salt: string, hash: string, password: string) => void): Promise<void> {
  for (const text of kdfs) {
    const kdf = parseKdf(text);
    assert.ok(kdf !== undefined);
    const hasher = new Hasher({ kdf, workers: 1, waitMsMax: 60_000, queueMax: 100 });
    for (const password of passwords) {
      const credential = await hasher.hash(password);
      assert.equal(credential.kdf, text);
      assert.match(credential.password, /^[0-9a-f]{32}\$[0-9a-f]+$/);
      const [salt = '', hash = ''] = credential.password.split('$');
      check(text, salt, hash, password);
    }
    await hasher.close();
  }
}

test('kdf: Python\'s hashlib makes the same hash, salt in ASCII', { skip: without('python3') }, async () => {
  const script = 'import hashlib,sys; p,d,n,s=sys.argv[1:]; print(hashlib.pbkdf2_hmac(d,p.encode(),s.encode(),int(n)).hex())';
  await hashAll((kdf, salt, hash, password) => {
    const [, digest = '', iterations = ''] = kdf.split(':');
    const printed = execFileSync('python3', ['-c', script, password, digest, iterations, salt], { encoding: 'utf8' });
    assert.equal(printed.trim(), hash);
  });
});

test('kdf: openssl kdf makes the same hash', { skip: without('openssl') }, async () => {
  await hashAll((kdf, salt, hash, password) => {
    const [, digest = '', iterations = ''] = kdf.split(':');
    const options = [`pass:${password}`, `salt:${salt}`, `iter:${iterations}`, `digest:${digest.toUpperCase()}`];
    const args = ['kdf', '-keylen', String(hash.length / 2), ...options.flatMap((option) => ['-kdfopt', option]), 'PBKDF2'];
    const printed = execFileSync('openssl', args, { encoding: 'utf8' });
    assert.equal(printed.trim().replaceAll(':', '').toLowerCase(), hash);
  });
});

test('kdf: what is read is what was written, and nothing else is', () => {
  for (const text of kdfs) assert.equal(formatKdf(parseKdf(text)!), text);
  const bad = [
    '', 'pbkdf2', 'pbkdf2:sha256', 'pbkdf2:sha256:0', 'pbkdf2:sha256:01', 'pbkdf2:sha256:10000001', 'pbkdf2:md5:1000',
    'pbkdf2:sha1:1000', 'scrypt:1:2:3', 'PBKDF2:sha256:1', ' pbkdf2:sha256:1', 'pbkdf2:sha256:1e3', 'pbkdf2:sha256:99999999999999',
    'pbkdf2:sha256:1000:hex',
  ];
  for (const text of bad) assert.equal(parseKdf(text), undefined, text);
});

test('kdf: what OWASP advises is told where less is done', () => {
  const advised = (text: string) => weakness(parseKdf(text)!);
  assert.equal(advised('pbkdf2:sha256:600000'), undefined);
  assert.equal(advised('pbkdf2:sha256:599999'), 600_000);
  assert.equal(advised('pbkdf2:sha512:220000'), undefined);
  assert.equal(advised('pbkdf2:sha512:219999'), 220_000);
});

test('kdf: a credential that this program did not write is corrupt', () => {
  const hash = Buffer.alloc(32, 7);
  const expected = { digest: 'sha256', iterations: 5, salt: new Uint8Array(Buffer.from('salt')), hash: new Uint8Array(hash) };
  assert.deepEqual(parseCredential('pbkdf2:sha256:5', formatPassword('salt', hash)), expected);
  const binary = parseCredential('pbkdf2:sha256:5:hex', formatPassword('00ff', hash));
  assert.deepEqual(binary, { ...expected, salt: new Uint8Array([0, 255]) });
  const bad = [
    ['md5', formatPassword('salt', hash)], ['pbkdf2:sha256:5', 'nodollar'], ['pbkdf2:sha256:5', `$${hash.toString('hex')}`],
    ['pbkdf2:sha512:5', formatPassword('salt', hash)], ['pbkdf2:sha256:5', 'salt$zz'],
    ['pbkdf2:sha256:5:hex', formatPassword('salt', hash)], ['pbkdf2:sha256:5:hex', formatPassword('0ff', hash)],
    ['pbkdf2:sha256:5:hex:hex', formatPassword('00ff', hash)], ['pbkdf2:sha256:10000001:hex', formatPassword('00ff', hash)],
    ['pbkdf2:sha256:5', formatPassword('sa"lt', hash)], ['pbkdf2:sha256:5', formatPassword('s'.repeat(257), hash)],
    ['pbkdf2:sha256:5', `${formatPassword('salt', hash)}zz`], ['pbkdf2:sha256:5', `salt$salt$${'07'.repeat(32)}`],
  ] as const;
  for (const [kdf, password] of bad) {
    assert.throws(() => parseCredential(kdf, password), (error: Error & { code: string }) => {
      assert.equal(error.code, 'corrupt');
      assert.ok(!error.message.includes(password));
      return true;
    });
  }
});
