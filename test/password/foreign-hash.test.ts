import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { foreignFormats, looksLikeHash, parseForeignHash } from '../../lib/password/foreign-hash.ts';
import type { ForeignFormat } from '../../lib/password/foreign-hash.ts';
import { Hasher } from '../../lib/password/hasher.ts';
import { parseCredential } from '../../lib/password/kdf.ts';
import { Registry } from '../../lib/registry.ts';
import { MemoryUserStore } from '../../lib/store/memory.ts';
import { until, without } from '../helper/temporary.ts';

/** Says in each format how Python hashes the passwords; none of it is our code. */
const script = `
import base64, hashlib, json, sys
rows = []
def b64(b): return base64.b64encode(b).decode()
for password in json.load(sys.stdin):
  for digest, n in (('sha256', 1000), ('sha384', 7), ('sha512', 3)):
    def h(salt): return hashlib.pbkdf2_hmac(digest, password.encode(), salt, n)
    for salt in ('Zx8fQ0aB', 'salt "quoted"', 'back\\\\slash', 's\\u00f6l\\u0442'):
      raw = salt.encode()
      rows.append(['werkzeug', password, 'pbkdf2:%s:%d$%s$%s' % (digest, n, salt, h(raw).hex())])
      rows.append(['django', password, 'pbkdf2_%s$%d$%s$%s' % (digest, n, salt, b64(h(raw)))])
    for raw in (b'plain salt', bytes(range(240, 256)), b'\\xfb\\xff\\xbf\\x00'):
      salt, hash = b64(raw).rstrip('='), b64(h(raw)).rstrip('=')
      rows.append(['phc', password, '$pbkdf2-%s$i=%d,l=%d$%s$%s' % (digest, n, len(h(raw)), salt, hash)])
      rows.append(['phc', password, '$pbkdf2-%s$i=%d$%s$%s' % (digest, n, salt, hash)])
      rows.append(['passlib', password, '$pbkdf2-%s$%d$%s$%s' % (digest, n, salt.replace('+', '.'), hash.replace('+', '.'))])
json.dump(rows, sys.stdout)
`;

const passwords = ['correct horse', 'верная лошадь', 'café \u00a0 密码 😀', 'x'.repeat(300)];

function vectors(): [format: ForeignFormat, password: string, text: string][] {
  return JSON.parse(execFileSync('python3', ['-c', script], { input: JSON.stringify(passwords), encoding: 'utf8' }));
}

test('foreign hash: what Python made of a password is verified, and a wrong password is not', { skip: without('python3') }, async (t) => {
  const hasher = new Hasher({ kdf: { digest: 'sha256', iterations: 1 }, workers: 2, waitMsMax: 60_000, queueMax: 1000 });
  t.after(() => hasher.close());
  const seen = new Set<string>();
  for (const [format, password, text] of vectors()) {
    const credential = parseForeignHash(format, text);
    if ('problem' in credential) throw new Error(`${format} ${text}: ${credential.problem}`);
    // It can stand in a line without an escape.
    assert.match(credential.password, /^[^"\\\p{Cc}]+$/u);
    assert.equal(await hasher.verify(password, credential, { kdfs: [] }), true, `${format} ${text}`);
    assert.equal(await hasher.verify(`${password}!`, credential, { kdfs: [] }), false);
    seen.add(`${format} ${credential.kdf.split(':').slice(1).join(':')}`);
    // In its own format alone: phc and passlib differ in the parameters.
    for (const other of foreignFormats) if (other !== format) assert.ok('problem' in parseForeignHash(other, text));
  }
  assert.equal(seen.size, 4 * 3 * 2);
});

test('foreign hash: who comes with one signs in, and it is made anew', { skip: without('python3') }, async (t) => {
  const hasher = new Hasher({ kdf: { digest: 'sha256', iterations: 5 }, workers: 2, waitMsMax: 60_000, queueMax: 1000 });
  t.after(() => hasher.close());
  const store = new MemoryUserStore();
  const policy = { codePointsMin: 8, codePointsMax: 256, common: new Set<string>() };
  const registry = new Registry({ store, hasher, policy, now: () => new Date() });
  const firsts = new Map(vectors().reverse().map(([format, password, text]) => [format, { password, text }]));
  assert.equal(firsts.size, 4);
  for (const [format, { password, text }] of firsts) {
    const credential = parseForeignHash(format, text);
    if ('problem' in credential) throw new Error(credential.problem);
    await store.createMany([{ login: format, registered: '2024-01-02T03:04:05.000Z', ...credential }]);
    assert.equal(await registry.verify(format, `${password}.`), undefined);
    assert.equal((await store.find(format))?.kdf, credential.kdf);
    assert.equal((await registry.verify(format, password))?.login, format);
    await until(async () => (await store.find(format))?.kdf === 'pbkdf2:sha256:5', 'the hash is made anew');
    assert.equal((await registry.verify(format, password))?.version, 1);
  }
});

test('foreign hash: what cannot be kept is refused with the reason, and nothing of it is repeated', () => {
  const [hash, hex] = [Buffer.alloc(32, 7).toString('base64').replace('=', ''), '07'.repeat(32)];
  const cases: [ForeignFormat, string, RegExp][] = [
    ['werkzeug', 'scrypt:32768:8:1$salt$abcd', /made by scrypt/],
    ['werkzeug', `pbkdf2:sha256$salt$${hex}`, /not as werkzeug writes it: pbkdf2:sha256:600000/],
    ['werkzeug', `pbkdf2:sha1:1000$salt$${'07'.repeat(20)}`, /made by pbkdf2 with SHA-1/],
    ['werkzeug', `pbkdf2:sha224:1000$salt$${'07'.repeat(28)}`, /another digest/],
    ['werkzeug', `pbkdf2:sha256:10000001$salt$${hex}`, /1 to 10000000 iterations/],
    ['werkzeug', `pbkdf2:sha256:99999999999999999999$salt$${hex}`, /iterations/],
    ['werkzeug', `pbkdf2:sha256:0$salt$${hex}`, /iterations/],
    ['werkzeug', `pbkdf2:sha256:1000$$${hex}`, /salt is empty/],
    ['werkzeug', `pbkdf2:sha256:1000$salt$${hex}07`, /33 bytes: one by sha256 has 32/],
    ['werkzeug', `pbkdf2:sha256:1000$salt$${hex}0`, /not encoded/],
    ['werkzeug', `pbkdf2:sha256:1000$${'s'.repeat(257)}$${hex}`, /longer than 256 bytes/],
    ['werkzeug', 'correct horse battery', /not as werkzeug writes it/],
    ['django', `pbkdf2_sha256$1000$salt$${hash}`, /not encoded as django/],
    ['django', 'pbkdf2_sha1$1000$salt$abcd', /SHA-1/],
    ['django', 'bcrypt_sha256$$2b$12$abcdefgh', /made by bcrypt/],
    ['django', 'argon2$argon2id$v=19$m=102400', /made by argon2/],
    ['django', '!Xyzzy', /not as django writes it/],
    ['phc', `$pbkdf2-sha256$i=1000,l=31$c2FsdA$${hash}`, /32 bytes, and says that it has another length/],
    ['phc', `$pbkdf2-sha256$i=1000,l=32$c2FsdA==$${hash}`, /not encoded as phc/],
    ['phc', `$pbkdf2-sha256$i=1000,l=32,v=1$c2FsdA$${hash}`, /not as phc writes it/],
    ['phc', `$pbkdf2-sha256$i=1000,l=16$c2FsdA$${hash.slice(0, 22)}`, /not encoded|16 bytes/],
    ['passlib', `$pbkdf2-sha256$1000$c2FsdB$${hash}`, /not encoded as passlib/],
    ['passlib', `$pbkdf2$1000$c2FsdA$${hash}`, /SHA-1/],
    ['passlib', '$2b$12$abcdefgh', /bcrypt/],
  ];
  for (const [format, text, pattern] of cases) {
    const result = parseForeignHash(format, text);
    assert.ok('problem' in result, text);
    assert.match(result.problem, pattern, text);
    for (const part of text.split('$')) if (part.length > 8 && !part.startsWith('pbkdf2')) assert.ok(!result.problem.includes(part), result.problem);
  }
});

test('foreign hash: a hash is told from a password by its look, and what is kept can be read', () => {
  for (const text of ['pbkdf2:sha256:1$a$b', '$pbkdf2-sha256$1$a$b', 'pbkdf2_sha256$1$a$b', 'scrypt:1', '$2b$12$x', '$argon2id$v=19', 'argon2$x']) {
    assert.equal(looksLikeHash(text), true, text);
  }
  for (const text of ['correct horse battery', 'pbkdf', '$2 a day', 'scryptic', 'argon']) assert.equal(looksLikeHash(text), false, text);
  const kept = parseForeignHash('passlib', `$pbkdf2-sha256$9$AP8$${Buffer.alloc(32, 0xfb).toString('base64').replace('=', '').replaceAll('+', '.')}`);
  assert.ok('kdf' in kept);
  assert.equal(kept.kdf, 'pbkdf2:sha256:9:hex');
  assert.equal(kept.password, `00ff$${'fb'.repeat(32)}`);
  assert.deepEqual(parseCredential(kept.kdf, kept.password).salt, new Uint8Array([0, 255]));
});
