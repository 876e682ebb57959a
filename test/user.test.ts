/** The domain's pure rules: logins, passwords, errors, JSON objects. */

import assert from 'node:assert/strict';
import { pbkdf2Sync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { RegistrarError, messageOf, noRoom, systemCode } from '../lib/errors.ts';
import { repeatedField } from '../lib/json.ts';
import { checkNewPassword, normalizePassword, parseCommonPasswords } from '../lib/password-policy.ts';
import { isReservedLogin } from '../lib/reserved-logins.ts';
import { parseLogin, publicUser } from '../lib/user.ts';

const good: [input: string, login: string, why: string][] = [
  ['alice', 'alice', 'plain'],
  ['Alice', 'alice', 'lower case'],
  ['a', 'a', 'one character'],
  ['x'.repeat(254), 'x'.repeat(254), '254 characters'],
  ['\u{1e7e0}'.repeat(254), '\u{1e7e0}'.repeat(254), '254 characters of four bytes'],
  ["a.b_c-d@e+f'g", "a.b_c-d@e+f'g", 'the seven punctuation marks'],
  [`${'o'.repeat(64)}@${'d'.repeat(185)}.com`, `${'o'.repeat(64)}@${'d'.repeat(185)}.com`, 'an e-mail address of 254 characters'],
  ["Sinéad.O'Connor+news@example.com", "sinéad.o'connor+news@example.com", 'an e-mail address with an apostrophe'],
  [' alice ', 'alice', 'spaces around'],
  ['\u00a0\u3000\u2028alice\u0085\t\r\n', 'alice', 'every kind of white space around'],
  ['007', '007', 'digits alone'],
  ['Алиса', 'алиса', 'Cyrillic'],
  ['ёлка', 'ёлка', 'a composed letter'],
  ['е\u0308лка', 'ёлка', 'the same letter, decomposed'],
  ['ＡＬＩＣＥ', 'alice', 'full width'],
  ['ﬁona', 'fiona', 'a ligature'],
  ['Straße', 'straße', 'sharp s'],
  ['ΑΛΙΚΗ', 'αλικη', 'Greek'],
  ['שלום', 'שלום', 'Hebrew'],
  ['ゆかり', 'ゆかり', 'Hiragana'],
  ['サーバー', 'サーバー', 'Katakana with its own mark'],
  ['nguyễn', 'nguyễn', 'Latin with two marks'],
  ['山田カナ', '山田カナ', 'Japanese mixes its scripts'],
  ['김철수', '김철수', 'Hangul'],
  ['नीता', 'नीता', 'Devanagari, with marks'],
  ['алиса-2', 'алиса-2', 'digits and marks go with every script'],
  ['𝒶𝓁𝒾𝒸ℯ', 'alice', 'mathematical letters'],
  ['דן1', 'דן1', 'Hebrew, and a European digit at the end'],
  ['سارة٢', 'سارة٢', 'Arabic, and an Arabic-Indic digit at the end'],
  ['مُحَمَّد', 'مُحَمَّد', 'Arabic, with vowel marks'],
  ['۱۲۳', '۱۲۳', 'extended Arabic-Indic digits alone are not written from right to left'],
  ['नीता१२', 'नीता१२', 'Devanagari digits'],
  ['a\u0323\u0331\u0302\u0301', 'ậ\u0331\u0301', 'several marks on a letter'],
  ['ґалаґан', 'ґалаґан', 'a Ukrainian letter'],
  ['ışık', 'ışık', 'a dotless i'],
];

const bad: [input: string, pattern: RegExp, why: string][] = [
  ['', /is empty/, 'empty'],
  [' \t ', /is empty/, 'white space alone'],
  ['x'.repeat(255), /longer than 254/, '255 characters'],
  ['я'.repeat(255), /longer than 254/, '255 Cyrillic characters'],
  ['x'.repeat(10_000), /longer than 254/, 'very long'],
  ['ﷺ'.repeat(20), /longer than 254/, 'grows when it is normalised'],
  ['a b', /may hold/, 'a space'],
  ['a:b', /may hold/, 'a colon'],
  ['a/b', /may hold/, 'a slash'],
  ['a\\b', /may hold/, 'a backslash'],
  ['a"b', /may hold/, 'a quote'],
  ['a\u0000b', /may hold/, 'NUL'],
  ['a\nb', /may hold/, 'a newline'],
  ['a\u200db', /may hold/, 'an invisible joiner'],
  ['a\u00adb', /may hold/, 'a soft hyphen'],
  ['\u115f', /U\+115F/, 'an invisible letter'],
  ['\u0301a', /may hold/, 'a mark that belongs to no letter'],
  ['1\u0301', /may hold/, 'a mark on a digit'],
  ['.', /at least one letter or digit/, 'a dot, which a path would swallow'],
  ['..', /at least one letter or digit/, 'two dots'],
  ['@+', /at least one letter or digit/, 'marks alone'],
  ['pаypal', /several scripts/, 'a Cyrillic а in a Latin word'],
  ['alicе', /several scripts/, 'a Cyrillic е at the end'],
  ['αlice', /several scripts/, 'Greek and Latin'],
  ['алиceса', /several scripts/, 'Latin in Cyrillic'],
  ['\ud800', /surrogate/, 'half a surrogate pair'],
  ['a\udc00b', /surrogate/, 'the other half'],
  ['😀', /may hold/, 'an emoji'],
  ['\ufeffalice', /may hold/, 'a byte order mark, which is no white space'],
  ['1דן', /right to left/, 'Bidi rule 1: a digit before Hebrew, which looks like the same login with the digit behind'],
  ['٢سارة', /right to left/, 'Bidi rule 1: an Arabic-Indic digit at the start'],
  ['٢', /right to left/, 'Bidi rule 1: an Arabic-Indic digit alone'],
  ['דן-', /right to left/, 'Bidi rule 3: punctuation at the end'],
  ['.דן', /right to left/, 'Bidi rule 1: punctuation at the start'],
  ['דן\u02bc', /several scripts/, 'Bidi rule 2: a letter that is written from left to right'],
  ['سارة1٢', /digits of several scripts/, 'Bidi rule 4: European and Arabic-Indic digits'],
  ['سارة٢۲', /digits of several scripts/, 'two kinds of Arabic digits'],
  ['a٢', /several scripts/, 'an Arabic-Indic digit in a Latin word'],
  ['नीता1१', /digits of several scripts/, 'European and Devanagari digits'],
  [`a${'\u0301'.repeat(63)}`, /more than 4 marks/, '63 marks on a letter'],
  ['я\u0301\u0302\u0323\u0331\u030c', /more than 4 marks/, 'five marks on a letter'],
  ['pɑypal', /U\+0251, which Unicode does not recommend/, 'a technical letter that looks like another one'],
  ['googǀe', /U\+01C0, which Unicode does not recommend/, 'a click letter that looks like another one'],
  ['scope\u0337', /U\+0337/, 'a stroke over a letter'],
  ['ⲁⲗⲓⲥ', /U\+2C81, which belongs to a script that logins cannot use/, 'Coptic, refused as such'],
  ['ߊߟߌ', /U\+07CA, which belongs to a script that logins cannot use/, 'N\'Ko, refused as such'],
  ['ㄅㄆ', /U\+3105/, 'Bopomofo'],
  ['admin\u0640', /U\+0640/, 'a stretching mark'],
  ['a\u30fcb', /several scripts/, 'a Japanese mark that looks like a dash'],
  ['ali\u0307ce', /a dot on a letter/, 'an i with a second dot'],
  ['İstanbul', /a dot on a letter/, 'a dotted capital, which becomes one'],
];

test('login: names of RFC 2142 and of operators are reserved, with any punctuation', () => {
  const reserved = ['admin', 'root', 'postmaster', 'abuse', 'security', 'registrar', 'no-reply', 'no.reply', '_admin', "web'master", 'null'];
  for (const login of reserved) assert.equal(isReservedLogin(login), true, login);
  for (const login of ['alice', 'admin2', 'roots', 'postmaster@example.com', 'админ', '']) assert.equal(isReservedLogin(login), false, login);
});

test('login: what is allowed, and its one form', () => {
  for (const [input, login, why] of good) {
    assert.deepEqual(parseLogin(input), { login: login.normalize('NFC') }, why);
    assert.deepEqual(parseLogin(login), { login: login.normalize('NFC') }, `${why}: its form is stable`);
  }
});

test('login: what is not allowed, and why', () => {
  for (const [input, pattern, why] of bad) {
    const result = parseLogin(input);
    assert.ok('problem' in result, `${why}: ${JSON.stringify(result)}`);
    assert.match(result.problem, pattern, why);
    assert.ok(!input.trim() || input.length < 3 || !result.problem.includes(input), 'the input is not repeated');
  }
});

test('user: the public fields are named, whatever else there is', () => {
  const stored = { id: 1, login: 'alice', registered: 'r', version: 1, kdf: 'k', password: 'p', key: 'x' };
  assert.deepEqual(Object.keys(publicUser(stored)), ['id', 'login', 'registered', 'version']);
  assert.deepEqual(Object.keys(publicUser({ ...stored, changed: 'c' })), ['id', 'login', 'registered', 'version', 'changed']);
  assert.deepEqual(Object.keys(publicUser({ ...stored, disabled: 'd', changed: 'c' })), ['id', 'login', 'registered', 'version', 'changed', 'disabled']);
});

const list = readFileSync(new URL('../lib/password/common-passwords.txt', import.meta.url), 'utf8');
const policy = { codePointsMin: 8, codePointsMax: 256, common: parseCommonPasswords(list), serviceNames: ['registrar', 'accounts.acme.example', 'acme'] };
const words = 'correct horse battery staple '.repeat(10);

test('password policy: the shipped list is complete, folded, and holds only what length alone would let through', () => {
  const lines = list.trimEnd().split('\n');
  assert.equal(lines.length, 24_510);
  assert.equal(new Set(lines).size, lines.length);
  for (const line of lines) assert.ok([...line].length >= 8 && line === line.normalize('NFKC').toLowerCase().trim(), line);
  for (const password of ['password', lines.at(-1)!]) assert.equal(policy.common.has(password), true);
  for (const password of ['', 'passwor', 'assword\n123456', 'correct horse']) assert.equal(policy.common.has(password), false);
});

test('password policy: what is allowed', () => {
  const good = [
    'correct horse', '12345678a!', 'пароль-верный', '密码很长很好记住吧', words.slice(0, 256), '😀🙃😂🤖😄🎉😆🐎', 'alice-12345', '12345alice', 'abcd-1234',
    'registrar-12345', 'malice aforethought', `${'é1'.repeat(7)}é2`, 'x9'.repeat(3) + 'y7', 'battery staple battery staple',
  ];
  for (const input of good) assert.deepEqual(checkNewPassword(input, 'alice', policy), { password: input.normalize('NFC') }, input);
});

test('password policy: what is not allowed, and which rule it breaks', () => {
  const bad: [string, RegExp][] = [
    ['', /has 0 characters: it needs at least 8/],
    ['short', /has 5 characters/],
    ['😀😁😂😃😄😅😆', /has 7 characters/],
    [words.slice(0, 257), /at most 256/],
    ['a'.repeat(100_000), /longer than 256/],
    ['password', /common/],
    ['PassWord', /common/],
    ['ｐassword', /common/],
    ['iloveyou', /common/],
    [' iloveyou ', /common/],
    ['\u3000trustno1\u00a0', /common/],
    ['        ', /run of characters/],
    ['        x', /run of characters/],
    ['87654321', /run of characters|common/],
    ['90123456', /run of characters|common/],
    ['4567890123', /run of characters/],
    ['hgfedcba9', /run of characters/],
    ['uvwxyzab', /run of characters/],
    ['жзийклмн', /run of characters/],
    ['fffffffff', /run of characters/],
    ['yyyyyyyyyyz', /run of characters/],
    ['efgh4567', /run of characters/],
    ['abcabcabc', /repeats a few characters|common/],
    ['xk7xk7xk7', /repeats a few characters/],
    ['xk7pxk7px', /repeats a few characters/],
    ['hello hello hello', /repeats a few characters/],
    ['alice@example.com', /little more than the login/],
    ['ALICE@example.com', /little more than the login/],
    ['1alice@example.com!!!', /little more than the login/],
    ['alice2026', /little more than the login/],
    ['__Alice__', /little more than the login/],
    ['registrar', /little more than the name of this service/],
    ['Registrar2026', /little more than the name of this service/],
    ['accounts.acme.example', /little more than the name of this service/],
    ['acme2026', /little more than the name of this service/],
    ['half \ud800 pair', /surrogate/],
    ['with\u0000null', /control character/],
    ['with\u0085next', /control character/],
  ];
  for (const [input, pattern] of bad) {
    const result = checkNewPassword(input, 'alice@example.com', policy);
    assert.ok('problem' in result, input);
    assert.match(result.problem, pattern);
    if (input.length > 9) assert.ok(!result.problem.includes(input), `the password is not repeated: ${result.problem}`);
  }
  const long = { ...policy, codePointsMin: 16 };
  assert.match((checkNewPassword('battery staple.battery staple.', 'bob', long) as { problem: string }).problem, /repeats/);
});

test('password policy: OpaqueString, with the examples of RFC 8265, section 4.3', () => {
  const same = ['correct horse battery staple', 'Correct Horse Battery Staple', 'πßå', 'Jack of ♦s'];
  for (const password of same) assert.equal(normalizePassword(password), password);
  assert.equal(normalizePassword('foo\u1680bar'), 'foo bar');
  assert.equal(normalizePassword(''), undefined);
  assert.match((checkNewPassword('my cat is a \tby', undefined, policy) as { problem: string }).problem, /control character/);
  for (const space of ['\u00a0', '\u2000', '\u2007', '\u202f', '\u205f', '\u3000']) assert.equal(normalizePassword(`two${space}words`), 'two words');
  assert.equal(normalizePassword(' ends '), ' ends ', 'spaces at the ends are part of a password');
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

test('errors: what is thrown is read for what it is', () => {
  const full = Object.assign(new Error('no space'), { code: 'ENOSPC' });
  assert.equal(systemCode(full), 'ENOSPC');
  for (const other of [new Error('plain'), Object.assign(new Error('odd'), { code: 5 }), 'text', undefined]) assert.equal(systemCode(other), undefined);
  assert.deepEqual([noRoom(full), noRoom(new Error('plain')), noRoom(undefined)], [true, false, false]);
  assert.deepEqual([messageOf(full), messageOf('text')], ['no space', 'text']);
});

test('errors: one of ours has a code, a detail, and a cause if there is one', () => {
  const cause = new Error('why');
  const error = new RegistrarError('taken', 'The login is taken', { cause });
  assert.deepEqual([error.code, error.detail, error.cause, error.fields, error.allow], ['taken', 'The login is taken', cause, [], []]);
  assert.equal('cause' in new RegistrarError('taken', 'x'), false);
});

test('errors: a refusal carries no stack, what is to be mended does, and so does any other error after it', () => {
  assert.doesNotMatch(new RegistrarError('not-found', 'nobody').stack ?? '', /\n\s+at /);
  assert.match(new RegistrarError('corrupt', 'damage').stack ?? '', /\n\s+at .*user\.test/);
  assert.match(new TypeError('defect').stack ?? '', /\n\s+at .*user\.test/);
});

test('json: a field that stands twice is found, however it is spelled', () => {
  const cases: [string, string | undefined][] = [
    ['{}', undefined],
    ['{"a":1,"b":2}', undefined],
    ['{"a":1,"a":2}', 'a'],
    ['{"a":1, "b":{"a":2}, "c":["a","a"]}', undefined],
    ['{"a":1,"\\u0061":2}', 'a'],
    ['{"a"  \n :1,"b":"a","c":"\\"a\\":","a":2}', 'a'],
    ['{"a":"a","b":"a"}', undefined],
    ['{"__proto__":1,"__proto__":2}', '__proto__'],
    ['{"a\\\\":1,"a":2}', undefined],
    ['{"x":{"y":1,"y":2}}', undefined],
  ];
  for (const [text, expected] of cases) assert.equal(repeatedField(text), expected, text);
});
