import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLogin, publicUser } from '../lib/user.ts';

const good: [input: string, login: string, why: string][] = [
  ['alice', 'alice', 'plain'],
  ['Alice', 'alice', 'lower case'],
  ['a', 'a', 'one character'],
  ['x'.repeat(64), 'x'.repeat(64), '64 characters'],
  ['a.b_c-d@e+f', 'a.b_c-d@e+f', 'the six marks'],
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
];

const bad: [input: string, pattern: RegExp, why: string][] = [
  ['', /is empty/, 'empty'],
  ['x'.repeat(65), /longer than 64/, '65 characters'],
  ['я'.repeat(65), /longer than 64/, '65 Cyrillic characters'],
  ['x'.repeat(10_000), /longer than 64/, 'very long'],
  ['ﷺ'.repeat(10), /longer than 64|may hold/, 'grows when it is normalised'],
  ['a b', /may hold/, 'a space'],
  ['a:b', /may hold/, 'a colon'],
  ['a/b', /may hold/, 'a slash'],
  ['a\\b', /may hold/, 'a backslash'],
  ['a"b', /may hold/, 'a quote'],
  ['a\u0000b', /may hold/, 'NUL'],
  ['a\nb', /may hold/, 'a newline'],
  ['a\u200db', /may hold/, 'an invisible joiner'],
  ['a\u00adb', /may hold/, 'a soft hyphen'],
  ['\u115f', /may hold/, 'an invisible letter'],
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
  ['admin\u0640', /may hold/, 'a stretching mark'],
  ['a\u30fcb', /several scripts/, 'a Japanese mark that looks like a dash'],
  ['ali\u0307ce', /may hold/, 'an i with a second dot'],
  ['İstanbul', /may hold/, 'a dotted capital, which becomes one'],
];

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
});
