/** Hashing: the formats of kdfs and of other systems' hashes, the hasher, and equal work for failures. */

import assert from 'node:assert/strict';
import { pbkdf2Sync, randomInt, scryptSync } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { equalizeCost, failureTargets } from '../../lib/password/equalize-cost.ts';
import { looksLikeHash, parseForeignHash } from '../../lib/password/foreign-hash.ts';
import type { ForeignFormat } from '../../lib/password/foreign-hash.ts';
import { Hasher } from '../../lib/password/hasher.ts';
import type { HasherOptions } from '../../lib/password/hasher.ts';
import { costOf, digestBytes, formatKdf, formatPassword, parseCredential, parseKdf, parseStoredKdf, roundsOf, weakness } from '../../lib/password/kdf.ts';
import type { Derivation } from '../../lib/password/kdf.ts';
import type { Credential } from '../../lib/user.ts';
import { until } from '../helper/temporary.ts';

const kdfs = ['pbkdf2:sha256:1000', 'pbkdf2:sha384:3', 'pbkdf2:sha512:1', 'pbkdf2:sha256:600000'];

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

test('kdf: what a hash costs is told in iterations of PBKDF2-SHA256', () => {
  const cost = (text: string) => costOf(parseStoredKdf(text)!);
  assert.equal(cost('pbkdf2:sha256:600000'), 600_000);
  assert.equal(Math.round(cost('pbkdf2:sha512:220000:hex')), 600_000);
  assert.equal(cost('scrypt:32768:8:1'), 524_288);
  for (const text of ['scrypt:1:8:1', 'scrypt:32768:0:1', 'scrypt:32768:8:01', 'scrypt:262144:8:1', 'scrypt:1024:8:1000']) {
    assert.equal(parseStoredKdf(text), undefined, text);
  }
});

test('kdf: a credential that this program did not write is corrupt', () => {
  const hash = Buffer.alloc(32, 7);
  const expected = { derivation: { digest: 'sha256', iterations: 5 }, salt: new Uint8Array(Buffer.from('salt')), hash: new Uint8Array(hash) };
  assert.deepEqual(parseCredential('pbkdf2:sha256:5', formatPassword('salt', hash)), expected);
  const binary = parseCredential('pbkdf2:sha256:5:hex', formatPassword('00ff', hash));
  assert.deepEqual(binary, { ...expected, salt: new Uint8Array([0, 255]) });
  const bad = [
    ['md5', formatPassword('salt', hash)], ['pbkdf2:sha256:5', 'nodollar'], ['pbkdf2:sha256:5', `$${hash.toString('hex')}`],
    ['pbkdf2:sha256:5', formatPassword('salt', hash.subarray(0, 15))], ['pbkdf2:sha256:5', 'salt$zz'], ['none', ''],
    ['pbkdf2:sha256:5', formatPassword('salt', Buffer.alloc(65))], ['scrypt:15:8:1', formatPassword('salt', hash)],
    ['pbkdf2:sha256:5:hex', formatPassword('salt', hash)], ['pbkdf2:sha256:5:hex', formatPassword('0ff', hash)],
    ['pbkdf2:sha256:5:hex:hex', formatPassword('00ff', hash)], ['pbkdf2:sha256:10000001:hex', formatPassword('00ff', hash)],
    ['pbkdf2:sha256:5', formatPassword('sa"lt', hash)], ['pbkdf2:sha256:5', formatPassword('s'.repeat(257), hash)],
    ['scrypt:32768:8', formatPassword('salt', hash)], ['scrypt:262144:8:1', formatPassword('salt', hash)],
    ['pbkdf2:sha256:5', `${formatPassword('salt', hash)}zz`], ['pbkdf2:sha256:5', `salt$salt$${'07'.repeat(32)}`],
  ] as const;
  for (const [kdf, password] of bad) {
    assert.throws(() => parseCredential(kdf, password), (error: Error & { code: string }) => {
      assert.equal(error.code, 'corrupt');
      assert.ok(password === '' || !error.message.includes(password));
      return true;
    });
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

test('foreign hash: published vectors are verified, and another password is not', async (t) => {
  const hasher = new Hasher({ kdf: { digest: 'sha256', iterations: 1 }, workers: 1, waitMsMax: 60_000, queueMax: 100 });
  t.after(() => hasher.close());
  const vectors: [source: string, format: ForeignFormat, password: string, text: string][] = [
    ['RFC 7914, section 11: a key of 64 bytes', 'werkzeug', 'passwd',
      'pbkdf2:sha256:1$salt$55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783'],
    ['RFC 7914, section 11: a key of 64 bytes', 'werkzeug', 'Password',
      'pbkdf2:sha256:80000$NaCl$4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d'],
    ['RFC 7914, section 12', 'werkzeug', 'password',
      'scrypt:1024:8:16$NaCl$fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640'],
    ['the tests of Django', 'django', 'lètmein',
      'scrypt$16384$seasalt$8$1$Qj3+9PPyRjSJIebHnG81TMjsqtaIGxNQG/aEB/NYafTJ7tibgfYz71m0ldQESkXFRkdVCBhhY8mx7rQwite/Pw=='],
    ['the documentation of passlib', 'passlib', 'password', '$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E'],
  ];
  for (const [source, format, password, text] of vectors) {
    const credential = parseForeignHash(format, text);
    if ('problem' in credential) throw new Error(`${source}: ${credential.problem}`);
    assert.equal(await hasher.verify(password, credential, {}), true, source);
    assert.equal(await hasher.verify(`${password}.`, credential, {}), false, source);
    assert.equal(hasher.needsRehash(credential), true);
  }
});

test('foreign hash: 16 to 64 bytes of a derived key are kept', () => {
  const hex = '07'.repeat(100);
  for (const bytes of [16, 20, 32, 48, 63, 64]) {
    const kept = parseForeignHash('werkzeug', `pbkdf2:sha256:1000$salt$${hex.slice(0, bytes * 2)}`);
    assert.deepEqual(kept, { kdf: 'pbkdf2:sha256:1000', password: `salt$${hex.slice(0, bytes * 2)}` });
    // One block of PBKDF2 is compared: more blocks would cost as much again.
    assert.equal(parseCredential('pbkdf2:sha256:1000', `salt$${hex.slice(0, bytes * 2)}`).hash.length, Math.min(bytes, 32));
  }
});

test('foreign hash: what cannot be kept is refused with the reason, and nothing of it is repeated', () => {
  const [hash, hex] = [Buffer.alloc(32, 7).toString('base64').replace('=', ''), '07'.repeat(32)];
  const cases: [ForeignFormat, string, RegExp][] = [
    ['werkzeug', 'scrypt:32767:8:1$salt$abcd', /parameters of scrypt are not valid/],
    ['werkzeug', `scrypt:1048576:8:1$salt$${hex}`, /more than 128 MB/],
    ['werkzeug', `pbkdf2:sha256$salt$${hex}`, /not as werkzeug writes it: scrypt:32768/],
    ['werkzeug', `pbkdf2:sha1:1000$salt$${'07'.repeat(20)}`, /made by pbkdf2 with SHA-1/],
    ['werkzeug', `pbkdf2:sha224:1000$salt$${'07'.repeat(28)}`, /another digest/],
    ['werkzeug', `pbkdf2:sha256:10000001$salt$${hex}`, /1 to 10000000 iterations/],
    ['werkzeug', `pbkdf2:sha256:99999999999999999999$salt$${hex}`, /iterations/],
    ['werkzeug', `pbkdf2:sha256:0$salt$${hex}`, /iterations/],
    ['werkzeug', `pbkdf2:sha256:1000$$${hex}`, /salt is empty/],
    ['werkzeug', `pbkdf2:sha256:1000$salt$${hex.slice(0, 30)}`, /15 bytes: it needs 16 to 64/],
    ['werkzeug', `pbkdf2:sha256:1000$salt$${hex}${hex}07`, /65 bytes: it needs 16 to 64/],
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
    ['phc', `$scrypt$ln=99,r=8,p=1$c2FsdA$${hash}`, /parameters of scrypt/],
    ['passlib', `$pbkdf2-sha256$1000$c2FsdB$${hash}`, /not encoded as passlib/],
    ['passlib', `$pbkdf2$1000$c2FsdA$${hash}`, /SHA-1/],
    ['passlib', '$2b$12$abcdefgh', /bcrypt/],
  ];
  for (const [format, text, pattern] of cases) {
    const result = parseForeignHash(format, text);
    assert.ok('problem' in result, text);
    assert.match(result.problem, pattern, text);
    for (const part of text.split('$')) if (part.length > 16 && !part.startsWith('pbkdf2')) assert.ok(!result.problem.includes(part), result.problem);
  }
});

const slow = { digest: 'sha256', iterations: 400_000 } as const;
/** Cheap, and still costlier than the message to a worker. */
const quick = { digest: 'sha256', iterations: 300 } as const;

function hashOf(password: string, kdf: string): Credential {
  const derivation = parseStoredKdf(kdf)!;
  const salt = '0123456789abcdef'.repeat(2);
  const hash = derivation.digest === 'scrypt'
    ? scryptSync(password, salt, 64, { N: derivation.n, r: derivation.r, p: derivation.p })
    : pbkdf2Sync(password, salt, derivation.iterations, digestBytes[derivation.digest], derivation.digest);
  return { kdf, password: formatPassword(salt, hash) };
}

function open(t: { after: (f: () => Promise<void>) => void }, options: Partial<HasherOptions> = {}): Hasher {
  const hasher = new Hasher({ kdf: quick, workers: 2, waitMsMax: 60_000, queueMax: 1000, ...options });
  t.after(() => hasher.close());
  return hasher;
}

test('hasher: a password is verified, another is not', async (t) => {
  const hasher = open(t);
  const credential = await hasher.hash('correct horse');
  assert.equal(await hasher.verify('correct horse', credential, { kdfs: [] }), true);
  assert.equal(await hasher.verify('correct horsf', credential, { kdfs: [] }), false);
  assert.equal(await hasher.verify('', credential, { kdfs: [] }), false);
});

test('hasher: the same password gives another salt and hash each time', async (t) => {
  const hasher = open(t);
  const passwords = new Set<string>();
  for (let n = 0; n < 50; n++) passwords.add((await hasher.hash('correct horse')).password);
  assert.equal(passwords.size, 50);
  assert.equal(new Set([...passwords].map((text) => text.split('$')[0])).size, 50);
});

test('hasher: hashes of another kdf are verified by it, and need a rehash', async (t) => {
  const older = open(t, { kdf: { digest: 'sha512', iterations: 7 } });
  const hasher = open(t);
  const credential = await older.hash('correct horse');
  assert.equal(await hasher.verify('correct horse', credential, { kdfs: [] }), true);
  assert.equal(hasher.needsRehash(credential), true);
  assert.equal(older.needsRehash(credential), false);
});

test('hasher: when the wait would pass the deadline it refuses at once, and says when to come back', async (t) => {
  const hasher = open(t, { kdf: slow, workers: 1, waitMsMax: 300 });
  await hasher.hash('to measure');
  const results = await Promise.allSettled(Array.from({ length: 60 }, () => hasher.hash('correct horse')));
  const refused = results.filter(({ status }) => status === 'rejected').map((result) => (result as PromiseRejectedResult).reason);
  assert.ok(refused.length > 0 && refused.length < 60, `${refused.length} of 60 refused`);
  for (const error of refused) {
    assert.equal(error.code, 'overloaded');
    assert.ok(Number.isInteger(error.retryAfterSeconds) && error.retryAfterSeconds >= 1);
  }
  // It is not for good.
  assert.match((await hasher.hash('correct horse')).password, /\$/);
});

test('hasher: those who are refused are not all told to come back in the same second', async (t) => {
  const hasher = open(t, { kdf: slow, workers: 1, waitMsMax: 100 });
  const waits: number[] = [];
  const asked = Array.from({ length: 100 }, (_, n) => hasher.hash(`correct horse ${n}`).catch((error) => {
    if (error.code === 'overloaded') waits.push(error.retryAfterSeconds);
  }));
  await Promise.any(asked);
  assert.ok(waits.length > 80, `${waits.length} were refused`);
  assert.deepEqual(waits, waits.toSorted((a, b) => a - b));
  // A hundred hashes of some tens of milliseconds each.
  assert.equal(waits[0], 1);
  assert.ok(waits.at(-1)! >= 3, String(waits));
  assert.ok(waits.at(-1)! <= 60);
});

test('hasher: the queue is bounded, whatever its hashes cost', async (t) => {
  const hasher = open(t, { workers: 1, queueMax: 10 });
  const results = await Promise.allSettled(Array.from({ length: 50 }, () => hasher.hash('correct horse')));
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 11);
});

test('hasher: a client that goes leaves the queue, and what runs goes on', async (t) => {
  const hasher = open(t, { kdf: slow, workers: 1 });
  const first = hasher.hash('runs');
  const gone = new AbortController();
  const second = hasher.hash('waits', gone.signal);
  const third = hasher.hash('waits too');
  assert.equal(hasher.queued, 2);
  gone.abort(new Error('gone'));
  await assert.rejects(second, /gone/);
  assert.equal(hasher.queued, 1);
  await Promise.all([first, third]);
  const before = AbortSignal.abort(new Error('gone before'));
  await assert.rejects(hasher.hash('never', before), /gone before/);
});

test('hasher: of the workers all but one are nice, so that one is never starved', { skip: process.platform !== 'linux' }, async (t) => {
  // The 19th field of a thread's stat is its nice value.
  const niceOnes = (): number =>
    readdirSync('/proc/self/task').filter((task) => {
      const stat = readFileSync(`/proc/self/task/${task}/stat`, 'latin1');
      return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16] === '19';
    }).length;
  const before = niceOnes();
  const hasher = open(t, { workers: 3 });
  await Promise.all([1, 2, 3, 4, 5, 6].map(() => hasher.hash('correct horse')));
  await until(() => niceOnes() === before + 2, 'two nice threads');
});

test('hasher: a worker that dies takes its task with it, and another one starts', async (t) => {
  const broken = open(t, { kdf: { digest: 'sha256', iterations: 2 ** 32 }, workers: 1 });
  await assert.rejects(broken.hash('correct horse'), { code: 'internal' });
  const hasher = open(t);
  const credential = await hasher.hash('correct horse');
  assert.equal(await broken.verify('correct horse', credential, { kdfs: [] }), true);
});

/** Calls and rounds of each digest. */
function work(calls: readonly Derivation[]): string[] {
  return ['sha256', 'sha384', 'sha512', 'scrypt'].map((digest) => {
    const own = calls.filter((call) => call.digest === digest);
    return `${digest} ${digest === 'scrypt' ? '' : own.length} ${own.reduce((sum, call) => sum + roundsOf(call), 0)}`;
  });
}

test('hasher: a failure is the same work for every login, whatever kdf its hash has', async (t) => {
  const done: (readonly Derivation[])[] = [];
  const hasher = open(t, { kdf: { digest: 'sha256', iterations: 500 }, onHash: (_, calls) => done.push(calls) });
  const made = ['pbkdf2:sha256:500', 'pbkdf2:sha256:20', 'pbkdf2:sha256:900', 'pbkdf2:sha512:70', 'pbkdf2:sha512:7', 'scrypt:32:8:1', 'scrypt:16:8:1'];
  const kdfs = [...made, 'not a kdf'];
  const failure = ['sha256 2 901', 'sha384 0 0', 'sha512 2 71', 'scrypt  256'];
  assert.equal(await hasher.verify('correct horse', undefined, { kdfs }), false);
  assert.deepEqual(work(done.at(-1)!), failure);
  assert.equal(await hasher.verify('', { kdf: 'none', password: '' }, { kdfs }), false);
  assert.deepEqual(work(done.at(-1)!), failure, 'an invited user');
  for (const kdf of made) {
    const credential = hashOf('correct horse', kdf);
    assert.equal(await hasher.verify('wrong horse', credential, { kdfs }), false);
    assert.deepEqual(work(done.at(-1)!), failure, kdf);
    assert.ok(done.at(-1)!.every((call) => roundsOf(call) >= 1));
    // What is right costs its own hash and no more.
    assert.equal(await hasher.verify('correct horse', credential, { kdfs }), true);
    assert.deepEqual(done.at(-1)!.map(formatKdf), [kdf]);
    assert.equal(hasher.needsRehash(credential), kdf !== 'pbkdf2:sha256:500');
  }
  assert.equal(hasher.queued, 0);
});

test('hasher: no stored hash makes the failure of another login cost more than four hashes of the service', () => {
  const own = { digest: 'sha256', iterations: 600_000 } as const;
  const stored = ['pbkdf2:sha256:10000000', 'pbkdf2:sha384:3000000', 'pbkdf2:sha512:3000000', 'scrypt:131072:8:1'].map((kdf) => parseStoredKdf(kdf)!);
  for (let n = 1; n < 16; n++) {
    const targets = failureTargets(own, stored.filter((_, bit) => (n >> bit) & 1));
    for (const first of [own, { digest: 'sha256', iterations: 1 } as const, { digest: 'sha512', iterations: 1000 } as const]) {
      const cost = [first, ...equalizeCost(first, targets)].reduce((sum, derivation) => sum + costOf(derivation), 0);
      assert.ok(cost >= costOf(own) && cost <= 4.05 * costOf(own), `${n}: ${cost}`);
    }
  }
  // Below the bound each is matched in full: a hash of scrypt at Werkzeug's default beside pbkdf2.
  const targets = failureTargets(own, [parseStoredKdf('scrypt:32768:8:1')!, parseStoredKdf('pbkdf2:sha256:1000000')!]);
  assert.deepEqual(targets.map(formatKdf), ['scrypt:32768:8:1', 'pbkdf2:sha256:1000000']);
});

test('hasher: whatever mix of hashes is stored, every failure comes to the same', () => {
  const digests = ['sha256', 'sha384', 'sha512'] as const;
  for (let n = 0; n < 500; n++) {
    const kdfs = Array.from({ length: 1 + (n % 6) }, () => ({ digest: digests[randomInt(3)]!, iterations: 1 + randomInt(1000) }));
    const targets = failureTargets({ digest: 'sha256', iterations: 5000 }, kdfs);
    const totals = kdfs.map((first) => work([first, ...equalizeCost(first, targets)]));
    for (const total of totals) assert.deepEqual(total, totals[0]);
  }
});

test('hasher: a check waits in the queue for what a failure takes', async (t) => {
  const kdfs = ['pbkdf2:sha256:800000'];
  const hasher = open(t, { workers: 1, waitMsMax: 1000, kdf: { digest: 'sha256', iterations: 200_000 } });
  const credential = await hasher.hash('correct horse');
  const results = await Promise.allSettled(Array.from({ length: 12 }, () => hasher.verify('correct horse', credential, { kdfs })));
  const refused = results.filter(({ status }) => status === 'rejected');
  // Twelve hashes of 200,000 are little; twelve failures of 800,000 are more than a second.
  assert.ok(refused.length >= 5, `${refused.length} refused`);
});

test('hasher: when it closes, those who wait are told', async () => {
  const hasher = new Hasher({ kdf: slow, workers: 1, waitMsMax: 60_000, queueMax: 100 });
  const waiting = Promise.allSettled([hasher.hash('one'), hasher.hash('two')]);
  await hasher.close();
  for (const result of await waiting) assert.equal(result.status === 'rejected' && result.reason.code, 'unavailable');
  await assert.rejects(hasher.hash('three'), { code: 'unavailable' });
});
