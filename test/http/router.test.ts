import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Router } from '../../lib/http/router.ts';

const router = new Router<string>();
router.add('GET', '/user', 'list');
router.add('POST', '/user', 'post');
router.add('GET', '/user/{login}', 'get');
router.add('DELETE', '/user/{login}', 'remove');
router.add('GET', '/', 'page');
router.add('GET', '/health/live', 'live');

test('router: a path finds its route, with and without a slash at the end', () => {
  const cases: [string, string, string, Record<string, string>][] = [
    ['GET', '/user', 'list', {}],
    ['GET', '/user/', 'list', {}],
    ['POST', '/user/', 'post', {}],
    ['HEAD', '/user', 'list', {}],
    ['GET', '/user/alice', 'get', { login: 'alice' }],
    ['HEAD', '/user/alice/', 'get', { login: 'alice' }],
    ['DELETE', '/user/%D0%B0%D0%BB%D0%B8%D1%81%D0%B0', 'remove', { login: 'алиса' }],
    ['GET', '/user/a%2Fb', 'get', { login: 'a/b' }],
    ['GET', '/user/..', 'get', { login: '..' }],
    ['GET', '/user/%2525', 'get', { login: '%25' }],
    ['GET', '/user/__proto__', 'get', { login: '__proto__' }],
    ['GET', '/', 'page', {}],
  ];
  for (const [method, path, handler, params] of cases) {
    assert.deepEqual(router.find(method, path), { found: 'route', match: { handler, params } }, `${method} ${path}`);
  }
});

test('router: a method that the path has not gets those that it has', () => {
  assert.deepEqual(router.find('PUT', '/user'), { found: 'path', allow: ['GET', 'HEAD', 'OPTIONS', 'POST'] });
  assert.deepEqual(router.find('OPTIONS', '/user/alice'), { found: 'path', allow: ['DELETE', 'GET', 'HEAD', 'OPTIONS'] });
  assert.deepEqual(router.find('HEAD', '/user/x/y'), { found: 'nothing' });
});

test('router: a path that is not there is nothing', () => {
  for (const path of ['/users', '/user//', '/user//alice', '//user', '/user/alice/x', '/USER', '/health', '']) {
    assert.deepEqual(router.find('GET', path), { found: 'nothing' }, path);
  }
});

test('router: percent-encoding that is no UTF-8 is a URIError', () => {
  for (const path of ['/user/%', '/user/%zz', '/user/%ff', '/user/%c0%af', '/user/%ed%a0%80']) {
    assert.throws(() => router.find('GET', path), URIError, path);
  }
});
