import assert from 'node:assert/strict';
import { pbkdf2Sync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { checkNewPassword, normalizePassword, parseCommonPasswords } from '../lib/password-policy.ts';

const list = readFileSync(new URL('../lib/password/common-passwords.txt', import.meta.url), 'utf8');
const policy = { codePointsMin: 8, codePointsMax: 256, common: parseCommonPasswords(list) };

test('password policy: the shipped list is whole, and holds only what length alone would let through', () => {
  assert.equal(policy.common.size, 11_611);
  for (const password of policy.common) assert.ok([...password].length >= 8, password);
});

test('password policy: what is allowed', () => {
  const good = [
    'correct horse', '12345678a!', 'пароль-верный', '密码密码密码密码', 'a'.repeat(255) + 'b', '😀😁😂😃😄😅😆😇', '        x',
    'é'.repeat(256), 'alicealice',
  ];
  for (const input of good) assert.deepEqual(checkNewPassword(input, 'alice', policy), { password: input.normalize('NFC') }, input);
});

test('password policy: what is not allowed, and which rule it breaks', () => {
  const bad: [string, RegExp][] = [
    ['', /has 0 characters: it needs at least 8/],
    ['short', /has 5 characters/],
    ['😀😁😂😃😄😅😆', /has 7 characters/],
    ['a'.repeat(257), /at most 256/],
    ['a'.repeat(100_000), /longer than 256/],
    ['password', /common/],
    ['PassWord', /common/],
    ['ｐassword', /common/],
    ['iloveyou', /common/],
    ['alice@example', /is the login/],
    ['ALICE@example', /is the login/],
    ['half \ud800 pair', /surrogate/],
    ['with\u0000null', /control character/],
    ['with\u0085next', /control character/],
  ];
  for (const [input, pattern] of bad) {
    const result = checkNewPassword(input, 'alice@example', policy);
    assert.ok('problem' in result, input);
    assert.match(result.problem, pattern);
    if (input.length > 8) assert.ok(!result.problem.includes(input), 'the password is not repeated');
  }
});

test('password policy: the two ways to write a character are one password', () => {
  assert.equal(normalizePassword('cafe\u0301 cafe\u0301'), 'café café');
  assert.equal(normalizePassword('\udc00'), undefined);
});

test('password policy: a NUL makes it no password, since pbkdf2 does not tell one that ends in NULs from one that does not', () => {
  const hash = (word: string): string => pbkdf2Sync(word, 'salt', 1, 32, 'sha256').toString('hex');
  assert.equal(hash('correct horse\0'), hash('correct horse'));
  for (const input of ['correct horse\0', '\0correct horse', 'correct\0horse', '\0']) {
    assert.equal(normalizePassword(input), undefined);
    assert.match((checkNewPassword(input, undefined, policy) as { problem: string }).problem, /control character/);
  }
});
