import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clearCookie, readAuthorization, readCookie, setCookie } from '../../lib/http/credentials.ts';

const basic = (text: string | Buffer): string => `Basic ${Buffer.from(text).toString('base64')}`;

test('credentials: Basic is UTF-8, and the first colon parts login and password', () => {
  const cases: [string, string, string][] = [
    ['alice:correct horse', 'alice', 'correct horse'], ['алиса:пароль:с:двоеточием', 'алиса', 'пароль:с:двоеточием'], [':', '', ''],
    ['a:', 'a', ''], ['a:\ufeffb', 'a', '\ufeffb'],
  ];
  for (const [text, login, password] of cases) assert.deepEqual(readAuthorization(basic(text)), { kind: 'basic', login, password });
  assert.deepEqual(readAuthorization('bAsIc   YTpi'), { kind: 'basic', login: 'a', password: 'b' });
  assert.deepEqual(readAuthorization(`Basic ${Buffer.from('a:bc').toString('base64').replace(/=+$/, '')}`), { kind: 'basic', login: 'a', password: 'bc' });
});

test('credentials: Bearer is taken as it is, no header is none, and anything else is unreadable', () => {
  assert.deepEqual(readAuthorization('Bearer abc.def'), { kind: 'bearer', token: 'abc.def' });
  assert.deepEqual(readAuthorization(undefined), { kind: 'none' });
  const unreadable = [
    '', 'Basic', 'Basic ', 'Basic !!!!', 'Basic YQ', basic('no colon'), basic(Buffer.from([0x61, 0x3a, 0xff])), basic(Buffer.from([0xc0, 0xaf, 0x3a])),
    'Bearer', 'Bearer ', 'Digest username="a"', 'YTpi', 'Basic YTpi YTpi', 'Basic YTp\u00eb',
  ];
  for (const header of unreadable) assert.deepEqual(readAuthorization(header), { kind: 'unreadable' }, header);
});

test('credentials: the cookie is found among others, and not if it is there twice', () => {
  assert.equal(readCookie('a=b; __Host-registrar=t.o.k; c=d'), 't.o.k');
  assert.equal(readCookie('__Host-registrar='), '');
  for (const header of [undefined, '', 'registrar=x', 'x__Host-registrar=x', '__Host-registrarx=x', '__Host-registrar=a; __Host-registrar=b']) {
    assert.equal(readCookie(header), undefined, header);
  }
  const [pair = '', ...attributes] = setCookie('t.o.k', 3600).split('; ');
  assert.equal(readCookie(pair), 't.o.k');
  assert.deepEqual(attributes, ['Path=/', 'Max-Age=3600', 'Secure', 'HttpOnly', 'SameSite=Lax']);
  assert.match(clearCookie(), /^__Host-registrar=; .*Max-Age=0/);
});
