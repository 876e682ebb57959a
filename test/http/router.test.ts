/** Routes, CORS, and the words and rules of the page. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { corsHeaders, preflightHeaders } from '../../lib/http/cors.ts';
import { chooseLanguage, russian, russianFields, russianTypes, translated } from '../../lib/page/words.js';
import { route } from '../../lib/http/route.ts';
import { Router } from '../../lib/http/router.ts';
import { root } from '../helper/temporary.ts';

const patterns = [
  'GET /user/', 'POST /user/', 'GET /user/{login}', 'DELETE /user/{login}', 'GET /', 'GET /health/live', 'DELETE /user/{login}/session',
] as const;
const router = new Router(patterns.map((entry) => {
  const [method, pattern = ''] = entry.split(' ');
  return route({ method: method as 'GET', pattern, action: 'public', handle: () => ({ status: 204 }) });
}));

/** As `GET /user/{login}`, with what the parameter has taken behind it. */
function found(method: string, path: string): string {
  const { route: { method: own, pattern }, login } = router.find(method, path);
  return `${own} ${pattern}${login === undefined ? '' : `: ${login}`}`;
}

function allowOf(method: string, path: string): unknown {
  try {
    router.find(method, path);
    return undefined;
  } catch (error: any) {
    return [error.code, error.allow.join(', ')];
  }
}

test('router: a path finds its route, with and without a slash at the end', () => {
  const cases: [method: string, path: string, expected: string][] = [
    ['GET', '/user', 'GET /user/'],
    ['GET', '/user/', 'GET /user/'],
    ['POST', '/user/', 'POST /user/'],
    ['HEAD', '/user', 'GET /user/'],
    ['GET', '/us%65r', 'GET /user/'],
    ['GET', '/user/alice', 'GET /user/{login}: alice'],
    ['HEAD', '/user/alice/', 'GET /user/{login}: alice'],
    ['DELETE', '/user/%D0%B0%D0%BB%D0%B8%D1%81%D0%B0', 'DELETE /user/{login}: алиса'],
    ['DELETE', '/user/alice/session', 'DELETE /user/{login}/session: alice'],
    ['GET', '/user/a%2Fb', 'GET /user/{login}: a/b'],
    ['GET', '/user/..', 'GET /user/{login}: ..'],
    ['GET', '/user/%2525', 'GET /user/{login}: %25'],
    ['GET', '/user/__proto__', 'GET /user/{login}: __proto__'],
    ['GET', '/', 'GET /'],
    ['OPTIONS', '/user/alice', 'OPTIONS /user/{login}: alice'],
    ['OPTIONS', '*', 'OPTIONS *'],
  ];
  for (const [method, path, expected] of cases) assert.equal(found(method, path), expected, `${method} ${path}`);
});

test('router: a method that the path does not have is refused with those that it has', () => {
  assert.deepEqual(allowOf('PUT', '/user'), ['method-not-allowed', 'GET, HEAD, OPTIONS, POST']);
  assert.deepEqual(allowOf('PUT', '/user/alice'), ['method-not-allowed', 'DELETE, GET, HEAD, OPTIONS']);
});

test('router: a path that does not exist is not found', () => {
  for (const path of ['/users', '/user//', '/user//alice', '//user', '/user/alice/x', '/USER', '/health', '', '/user/x/y', '/%2A']) {
    assert.deepEqual(allowOf('GET', path), ['not-found', ''], path);
  }
});

test('router: percent-encoding that is not UTF-8 is malformed', () => {
  for (const path of ['/user/%', '/user/%zz', '/user/%ff', '/user/%c0%af', '/user/%ed%a0%80']) {
    assert.deepEqual(allowOf('GET', path), ['malformed', ''], path);
  }
});

test('CORS: only origins that are named are answered, each by its own name', () => {
  const allowed = ['https://app.example', 'http://localhost:3000'];
  assert.equal(corsHeaders('https://app.example', allowed)['Access-Control-Allow-Origin'], 'https://app.example');
  assert.equal(corsHeaders('http://localhost:3000', allowed)['Access-Control-Allow-Origin'], 'http://localhost:3000');
  for (const origin of [undefined, 'null', '*', 'https://evil.example', 'https://app.example.evil.example', 'HTTPS://APP.EXAMPLE']) {
    assert.deepEqual(corsHeaders(origin, allowed), { Vary: 'Origin' }, origin);
  }
  assert.deepEqual(corsHeaders('https://app.example', []), {});
});

test('CORS: a preflight names every method and header that the API takes', () => {
  const headers = preflightHeaders();
  for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']) assert.match(headers['Access-Control-Allow-Methods']!, new RegExp(`\\b${method}\\b`));
  for (const name of ['Authorization', 'Content-Type', 'If-Match', 'If-None-Match', 'Idempotency-Key']) {
    assert.match(headers['Access-Control-Allow-Headers']!, new RegExp(name));
  }
});

const folder = join(root, 'lib/page');
const read = (name: string): string => readFileSync(join(folder, name), 'utf8');

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

test('page: a problem is translated by its type and field, else by its type, else left as it is', () => {
  chooseLanguage(['ru']);
  assert.equal(translated('The login "алиса" is taken', 'urn:registrar:taken', '#/login'), 'Этот логин занят');
  assert.equal(translated('It is something new', 'urn:registrar:invalid', '#/login'), russianFields['invalid #/login']);
  assert.equal(translated('Something new', 'urn:registrar:busy'), russianTypes.busy);
  assert.equal(translated('Something new', 'urn:registrar:unheard-of'), 'Something new');
  chooseLanguage(['en']);
  assert.equal(translated('Something new', 'urn:registrar:busy'), 'Something new');
});
