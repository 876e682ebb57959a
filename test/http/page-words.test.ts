/** The page's words and rules, against the service's own. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { canonicalLogin, loginProblem, passwordProblem } from '../../lib/http/page/rules.js';
import { chooseLanguage, russian, russianFields, russianTypes, t, translated } from '../../lib/http/page/words.js';
import { checkNewPassword } from '../../lib/password-policy.ts';
import { parseLogin } from '../../lib/user.ts';
import { root } from '../helper/temporary.ts';

const folder = join(root, 'lib/http/page');
const read = (name: string): string => readFileSync(join(folder, name), 'utf8');

test('page: what is foreseen of a login is what the service says of it', () => {
  const logins = ['alice', 'Alice', 'ＡＬＩＣＥ', 'Алиса', 'pаypal', '...', 'a b', 'a/b', 'a:b', 'x'.repeat(64), 'x'.repeat(65), 'a@b.example', '東京タワー', 'Ω', 'ёж-7', 'é'];
  for (const login of logins) {
    const parsed = parseLogin(login);
    const problem = loginProblem(login);
    assert.equal(problem?.text, 'problem' in parsed ? parsed.problem : undefined, login);
    if ('login' in parsed) assert.equal(canonicalLogin(login), parsed.login);
  }
});

test('page: what is foreseen of a password is what the service says of it, in code points', () => {
  const policy = { codePointsMin: 8, codePointsMax: 256, common: new Set<string>() };
  for (const password of ['short', '1234567😀', '123456😀', 'x'.repeat(256), 'x'.repeat(257), 'with\ta tab in', 'Alice-in-W', 'e\u0301'.repeat(7), 'correct horse']) {
    const checked = checkNewPassword(password, 'alice-in-w', policy);
    const problem = passwordProblem(password, 'Alice-in-W', { min: 8, max: 256 });
    assert.equal(problem === undefined ? undefined : t(problem.text, problem.values), 'problem' in checked ? checked.problem : undefined, password);
  }
});

test('page: the reader\'s first language that there is, is taken', () => {
  for (const [languages, expected] of [[['ru-RU', 'en'], 'ru'], [['de', 'ru'], 'ru'], [['en-GB', 'ru'], 'en'], [['de'], 'en'], [[], 'en']] as const) {
    assert.equal(chooseLanguage(languages), expected);
  }
});

test('page: every word that is shown has its Russian, with the same values', () => {
  const html = read('index.html');
  const keys = [...html.matchAll(/data-t(?:="(\w*)")?>([^<]+)</g)].map(([, use, text = '']) => (use === undefined ? text : `${text} (${use})`));
  assert.ok(keys.length > 40);
  for (const name of ['account.js', 'admin.js', 'form.js', 'page.js']) {
    for (const [, text = ''] of read(name).matchAll(/\bt\('((?:[^'\\]|\\.)*)'/g)) keys.push(text);
  }
  for (const [, text = ''] of read('api.js').matchAll(/new Problem\('page:\w+', '([^']+)'/g)) keys.push(text);
  assert.deepEqual(keys.filter((key) => russian[key] === undefined), []);
  const names = (text: string): string[] => [...text.matchAll(/\{\w+\}/g)].map(([name]) => name).sort();
  for (const [english, text] of Object.entries(russian)) assert.deepEqual(names(text), names(english), english);
});

test('page: what the service says is Russian by its words, else by its type, else as it is', () => {
  chooseLanguage(['ru']);
  assert.equal(translated('The password has 5 characters: it needs at least 15', 'urn:registrar:invalid', '#/password'), 'Символов в пароле: 5, а нужно не меньше 15');
  assert.equal(translated('The login "алиса" is taken', 'urn:registrar:taken'), 'Логин «алиса» занят');
  assert.equal(translated('It is something new', 'urn:registrar:invalid', '#/login'), russianFields['invalid #/login']);
  assert.equal(translated('Something new', 'urn:registrar:busy'), russianTypes.busy);
  assert.equal(translated('Something new', 'urn:registrar:unheard-of'), 'Something new');
  chooseLanguage(['en']);
  assert.equal(translated('Something new', 'urn:registrar:busy'), 'Something new');
});
