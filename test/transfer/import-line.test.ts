import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseImportLine } from '../../lib/transfer/import-line.ts';
import type { LineRules } from '../../lib/transfer/import-line.ts';

const policy = { codePointsMin: 8, codePointsMax: 256, common: new Set(['password1']) };
const kdf = 'pbkdf2:sha256:600000';
const rules: LineRules = { from: undefined, policy, kdf, isCostlyAllowed: false };
const hash = `${'9c1f'.repeat(8)}$${'5be0'.repeat(16)}`;

/** Without the fields that are undefined. */
function present<T extends object>(user: T): T {
  return JSON.parse(JSON.stringify(user)) as T;
}

test('import line: a plaintext one, a hashed one, an exported one and a foreign one say who comes', () => {
  const parse = (value: unknown, from: LineRules['from'] = undefined) => present(parseImportLine(JSON.stringify(value), { ...rules, from }));
  assert.deepEqual(parse({ login: 'Alice', password: 'cafe\u0301 au lait' }), { login: 'alice', plaintext: 'café au lait' });
  assert.deepEqual(parse({ login: 'АЛИСА', kdf, password: hash }), { login: 'алиса', kdf, password: hash });
  const exported = {
    id: 17, login: 'alice', registered: '2026-11-22T15:00:00.000Z', version: 2, changed: '2026-11-23T08:00:00.000Z', kdf, password: hash, key: 'ab'.repeat(32),
  };
  assert.deepEqual(parse(exported), exported);
  for (const registered of ['2024-02-29T00:00:00.000Z', '0001-12-31T23:59:59.999Z', '2026-01-31T12:00:00.000Z']) {
    assert.deepEqual(parse({ ...exported, registered }), { ...exported, registered });
  }
  const foreign = parse({ login: 'alice', password: `pbkdf2:sha256:5$salt$${'5be0'.repeat(16)}`, registered: '2020-02-29T23:59:59.123456+02:00' }, 'werkzeug');
  assert.deepEqual(foreign, { login: 'alice', registered: '2020-02-29T21:59:59.123Z', kdf: 'pbkdf2:sha256:5', password: `salt$${'5be0'.repeat(16)}` });
});

test('import line: what is wrong is said, and a password never', () => {
  const secret = 'verysecretindeed';
  const cases: [text: string, pattern: RegExp, from?: LineRules['from']][] = [
    [`{"login":"alice","password":"${secret}"`, /not JSON/],
    [`["${secret}"]`, /no object/],
    [`"${secret}"`, /no object/],
    ['null', /no object/],
    [`{"login":"alice","password":"${secret}","password":"x"}`, /field twice/],
    [`{"login":"alice","password":"${secret}","p\\u0061ssword":"x"}`, /field twice/],
    [`{"login":"alice","registered":1,"password":"${secret}","registered":"2026-11-22T15:00:00.000Z"}`, /field twice/],
    [`{"login":"alice","password":"a\\"b${secret}","password":"x"}`, /field twice/],
    [`{"login":"alice","password":"${secret}","${secret}":1}`, /unknown field: it may have "login", "password", "registered", "disabled"/],
    [`{"login":"alice","password":"${secret}","id":1}`, /unknown field/],
    [`{"login":"alice","password":["${secret}"]}`, /"password" has to be text/],
    [`{"login":1,"password":"${secret}"}`, /"login" has to be text/],
    [`{"password":"${secret}"}`, /"login" is missing/],
    ['{"login":"alice"}', /"password" is missing/],
    [`{"login":"al/ice","password":"${secret}"}`, /letters, digits/],
    [`{"login":"${secret}","password":"${secret}"}`, /little more than the login/],
    ['{"login":"alice","password":"password1"}', /common/],
    ['{"login":"alice","password":"short"}', /5 characters/],
    ['{"login":"alice","password":"\\ud800aaaaaaaa"}', /surrogate/],
    [`{"login":"alice","password":"${secret}","registered":"yesterday"}`, /"registered" is no time/],
    [`{"login":"alice","password":"${secret}","registered":"2026-13-01T00:00:00Z"}`, /"registered" is no time/],
    [`{"login":"alice","password":"${secret}","registered":"2026-11-22T24:00:00.001Z"}`, /"registered" is no time/],
    [`{"login":"alice","password":"${secret}","registered":"2026-11-32T00:00:00.000Z"}`, /"registered" is no time/],
    [`{"login":"alice","password":"${secret}","registered":"2026-11-22T15:00:00"}`, /"registered" is no time/],
    [`{"login":"alice","password":"${secret}","registered":"1"}`, /"registered" is no time/],
    [`{"login":"alice","password":"pbkdf2_sha256$1$${secret}$x"}`, /looks like a hash: name its format with --from/],
    [`{"login":"alice","password":"${secret}"}`, /not as django writes it/, 'django'],
    [`{"login":"alice","password":"x","kdf":"${kdf}"}`, /unknown field/, 'django'],
    [`{"login":"alice","password":"${hash}","kdf":"${secret}"}`, /kdf is not as in/],
    [`{"login":"alice","password":"${hash}","kdf":"pbkdf2:sha256:10000001"}`, /1 to 10000000 iterations/],
    [`{"login":"alice","password":"salt$${'5b'.repeat(15)}","kdf":"pbkdf2:sha512:1"}`, /15 bytes: it needs 16 to 64/],
    [`{"login":"alice","password":"${secret}","kdf":"${kdf}"}`, /no "\$"/],
    [`{"login":"alice","password":"${hash}","kdf":"pbkdf2:sha256:2400001"}`, /costs 4\.0 times one of the service \(pbkdf2:sha256:600000\): above 4 times it needs --allow-costly/],
    [`{"login":"alice","password":"pbkdf2:sha512:5000000$salt$${'5b'.repeat(64)}"}`, /costs 22\.7 times/, 'werkzeug'],
    [`{"login":"alice","password":"${hash}","kdf":"none"}`, /An invited user has "kdf":"none" and "password":""/],
    [`{"login":"alice","password":"","kdf":"${kdf}"}`, /no "\$"/],
    [`{"login":"alice","password":"${hash}","kdf":"${kdf}","version":9007199254740991}`, /"version" has to be a whole number from 1 to 140737488355328/],
    [`{"login":"alice","password":"${secret}","disabled":"yes"}`, /"disabled" is no time/],
    [`{"login":"alice","password":"${hash}","kdf":"${kdf}","id":0}`, /"id" has to be a whole number/],
    [`{"login":"alice","password":"${hash}","kdf":"${kdf}","version":1.5}`, /"version" has to be a whole number/],
    [`{"login":"alice","password":"${hash}","kdf":"${kdf}","id":1e300}`, /"id" has to be a whole number/],
    [`{"login":"alice","password":"${hash}","kdf":"${kdf}","key":"${secret}"}`, /"key" has to be/],
    [`{"login":"alice","password":"${hash}","kdf":"${kdf}","changed":"no"}`, /"changed" is no time/],
    ['{"format":"registrar-users","version":1}', /from a users file/],
    ['{"__proto__":{"login":"x","password":"y"}}', /missing/],
  ];
  for (const [text, pattern, from] of cases) {
    const result = parseImportLine(text, { ...rules, from });
    assert.ok('problem' in result, text);
    assert.match(result.problem, pattern, text);
    assert.ok(!result.problem.includes(secret) && !result.problem.includes(hash), result.problem);
  }
});

test('import line: invited and disabled users, costly hashes where they are allowed, 16 to 64 bytes', () => {
  const parse = (value: unknown, more: Partial<LineRules> = {}) => present(parseImportLine(JSON.stringify(value), { ...rules, ...more }));
  const invited = { id: 3, login: 'alice', registered: '2026-11-22T15:00:00.000Z', version: 1, kdf: 'none', password: '' };
  assert.deepEqual(parse(invited), invited);
  const disabled = { ...invited, kdf, password: hash, disabled: '2026-11-23T08:00:00.000Z' };
  assert.deepEqual(parse(disabled), disabled);
  assert.deepEqual(parse({ login: 'bob', password: 'correct horse', disabled: '2026-11-23T08:00:00Z' }), {
    login: 'bob', disabled: '2026-11-23T08:00:00.000Z', plaintext: 'correct horse',
  });
  for (const bytes of [16, 33, 64]) assert.ok('kdf' in parse({ login: 'bob', kdf, password: `salt$${'5b'.repeat(bytes)}` }));
  assert.ok('kdf' in parse({ login: 'bob', kdf: 'pbkdf2:sha256:2400000', password: hash }), 'four times is the most');
  assert.ok('kdf' in parse({ login: 'bob', kdf: 'scrypt:32768:8:1', password: hash }));
  const costly = { login: 'bob', kdf: 'pbkdf2:sha256:10000000', password: hash };
  assert.ok('problem' in parse(costly));
  assert.deepEqual(parse(costly, { isCostlyAllowed: true }), costly);
  // What the service itself makes is never too costly.
  assert.ok('kdf' in parse(costly, { kdf: costly.kdf }));
});
