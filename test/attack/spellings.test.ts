/** Bodies, paths and headers that say one thing in two ways, or two things in one: nothing gets past a rule by its spelling. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sendRaw } from '../helper/raw.ts';
import { adminToken, cheap, openService } from '../helper/service.ts';

const password = 'correct horse';
const closed = { REGISTRAR_ADMIN_TOKEN: adminToken };
const unlimited = [...cheap, '--limits', 'off'];
const admin = { authorization: `Bearer ${adminToken}` };
const basic = (login: string, word: string): Record<string, string> => ({ authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` });

test('spellings: bodies that are read in two ways, or are none, change nothing and leave no trace in the process', async (t) => {
  const { ask } = await openService(t, unlimited, closed);
  const bodies: [name: string, body: string | Buffer, status: number][] = [
    ['__proto__', '{"__proto__":{"login":"mallory","password":"correct horse"}}', 422],
    ['__proto__ beside', '{"login":"mallory","password":"correct horse","__proto__":{"isAdmin":true}}', 422],
    ['__proto__ for a login', '{"login":"__proto__","password":"correct horse"}', 201],
    ['constructor', '{"constructor":{"prototype":{"login":"mallory"}},"password":"correct horse"}', 422],
    ['constructor for a login', '{"login":"constructor","password":"correct horse"}', 201],
    ['toString', '{"toString":"x","login":"mallory","password":"correct horse"}', 422],
    ['a login twice', '{"login":"mallory","login":"mallory","password":"correct horse"}', 400],
    ['a password twice', '{"login":"mallory","password":"correct horse","password":"correct horse 2"}', 400],
    ['a login twice, once in escapes', '{"login":"mallory","\\u006cogin":"mallory","password":"correct horse"}', 400],
    ['an array', '[{"login":"mallory","password":"correct horse"}]', 400],
    ['a list for a login', '{"login":["mallory"],"password":"correct horse"}', 422],
    ['an object for a password', '{"login":"mallory","password":{"length":20}}', 422],
    ['a number for a password', '{"login":"mallory","password":1234567890}', 422],
    ['null for a password', '{"login":"mallory","password":null}', 422],
    ['deep', `{"login":"mallory","password":"correct horse","x":${'['.repeat(5_000)}${']'.repeat(5_000)}}`, 422],
    ['deep and open', '['.repeat(16_000), 400],
    ['two objects', '{"login":"mallory","password":"correct horse"}{"login":"eve","password":"correct horse"}', 400],
    ['lines', '{"login":"mallory","password":"correct horse"}\n{"login":"eve","password":"correct horse"}', 400],
    ['a comment', '{"login":"mallory",/**/"password":"correct horse"}', 400],
    ['half a pair in the login', '{"login":"mallory\\ud800","password":"correct horse"}', 422],
    ['half a pair in the password', '{"login":"mallory","password":"correct horse\\udc00"}', 422],
    ['a NUL in the login', '{"login":"mallory\\u0000","password":"correct horse"}', 422],
    ['a NUL in the password', '{"login":"mallory","password":"correct horse\\u0000"}', 422],
    ['a NUL in the text', Buffer.from('{"login":"mallory",\0"password":"correct horse"}'), 400],
    ['overlong UTF-8', Buffer.from('{"login":"mallory\xc0\xaf","password":"correct horse"}', 'latin1'), 400],
    ['half a pair in UTF-8', Buffer.from('{"login":"mallory\xed\xa0\x80","password":"correct horse"}', 'latin1'), 400],
    ['beyond Unicode', Buffer.from('{"login":"mallory\xf4\x90\x80\x80","password":"correct horse"}', 'latin1'), 400],
    ['Latin-1', Buffer.from('{"login":"mallor\xff","password":"correct horse"}', 'latin1'), 400],
    ['UTF-16', Buffer.from('\ufeff{"login":"mallory","password":"correct horse"}', 'utf16le'), 400],
    ['a BOM in the middle', '{"login":"mallory","password":"correct horse"}\ufeff', 400],
    ['a form', 'login=mallory&password=correct+horse', 400],
    ['a slash in the login', '{"login":"../mallory","password":"correct horse"}', 422],
    ['a line break in the login', '{"login":"mallory\\n","password":"correct horse"}', 422],
    ['an ideograph that is not seen', '{"login":"mallory\\u200b","password":"correct horse"}', 422],
    ['right to left', '{"login":"mallory\\u202e","password":"correct horse"}', 422],
    ['a look-alike', '{"login":"mаllory","password":"correct horse"}', 422],
    ['a flag that none asked for', '{"login":"mallory","password":"correct horse","cookie":true}', 422],
    ['an id', '{"login":"mallory","password":"correct horse","id":1}', 422],
  ];
  for (const [name, body, status] of bodies) {
    const answer = await ask('/user/', { method: 'POST', body });
    assert.equal(answer.status, status, `${name}: ${answer.text}`);
    if (status >= 400) assert.match(answer.json.type, /^urn:registrar:/, name);
  }
  assert.equal(({} as any).isAdmin, undefined);
  assert.equal(({} as any).login, undefined);
  const { users } = (await ask('/user/', { headers: admin })).json;
  assert.deepEqual(users.map(({ login }: { login: string }) => login), ['__proto__', 'constructor']);
  for (const login of ['__proto__', 'constructor']) assert.equal((await ask(`/user/${login}`, { headers: basic(login, password) })).status, 200, login);
  assert.equal((await ask('/user/toString', { headers: admin })).status, 404);
  assert.equal((await ask('/user/hasOwnProperty', { headers: admin })).status, 404);
});

test('spellings: a login is one user in a body, a path, and by Basic, however it is written', async (t) => {
  const { ask } = await openService(t, unlimited, closed);
  const families: readonly (readonly string[])[] = [
    ['alice', 'ALICE', 'ａｌｉｃｅ', 'ⓐlice', '𝐚lice'], ['josé', 'jose\u0301', 'JOSÉ', 'JOSE\u0301'], ['ﬁn', 'fin', 'FIN', 'ﬁＮ'], ['алиса', 'АЛИСА', 'Алиса'],
    ['ångström', 'A\u030angstro\u0308m', '\u212bngstr\u00f6m'], ['kelvin', '\u212aelvin'], ['x２', 'x2', 'x²'],
  ];
  for (const [n, [first = '', ...others]] of families.entries()) {
    const made = await ask('/user/', { method: 'POST', body: { login: first, password } });
    assert.equal(made.status, 201, first);
    const { id } = made.json;
    for (const other of [first, ...others]) {
      const path = `/user/${encodeURIComponent(other)}`;
      assert.equal((await ask('/user/', { method: 'POST', body: { login: other, password: `another ${n}` } })).status, 409, other);
      assert.equal((await ask(path, { method: 'PUT', body: { password: `another ${n}` } })).status, 409, other);
      assert.equal((await ask(path, { headers: admin })).json.id, id, other);
      for (const name of [first, ...others]) {
        const asked = await ask(path, { headers: basic(name, password) });
        assert.deepEqual([asked.status, asked.json.id], [200, id], `${other} by ${name}`);
      }
      assert.equal((await ask('/session', { method: 'POST', body: { login: other, password } })).json.user.id, id, other);
    }
  }
  assert.equal((await ask('/user/', { headers: admin })).json.users.length, families.length);
  // And those of two scripts that only look alike are somebody else, or nobody.
  for (const twin of ['аlice', 'alıce', 'fіn']) {
    const made = await ask('/user/', { method: 'POST', body: { login: twin, password: 'another horse' } });
    assert.notEqual(made.status, 409, twin);
    assert.equal((await ask('/user/alice', { headers: basic(twin, 'another horse') })).status, made.status === 201 ? 403 : 401, twin);
  }
});

test('spellings: a password is what was chosen, by its normal form and in all its length', async (t) => {
  const { ask } = await openService(t, unlimited, closed);
  const long = `${'x'.repeat(250)}é😀`;
  for (const [login, word] of [['long', long], ['short', 'pässwörter']] as const) assert.equal((await ask('/user/', { method: 'POST', body: { login, password: word } })).status, 201);
  const right = [['long', long.normalize('NFD')], ['short', 'pa\u0308sswo\u0308rter']] as const;
  const wrong = [
    ['long', long.slice(0, -2)], ['long', long.slice(0, 72)], ['long', `${long}x`], ['short', 'passworter'], ['short', 'PÄSSWÖRTER'], ['short', 'pässwörter '], ['short', 'pässwörter\0'],
    ['short', 'ｐässwörter'], ['short', 'p\ufffdsswörter'], ['short', 'p?sswörter'],
  ] as const;
  for (const [login, word] of right) assert.equal((await ask('/session', { method: 'POST', body: { login, password: word } })).status, 201, word);
  for (const [login, word] of wrong) {
    assert.equal((await ask('/session', { method: 'POST', body: { login, password: word } })).status, 401, word);
    assert.equal((await ask('/session', { headers: basic(login, word) })).status, 401, word);
  }
  const latin1 = { authorization: `Basic ${Buffer.from('short:pässwörter', 'latin1').toString('base64')}` };
  assert.equal((await ask('/session', { headers: latin1 })).status, 401);
});

test('spellings: no path leads around who it is about', async (t) => {
  const { ask, url } = await openService(t, unlimited, closed);
  for (const login of ['alice', 'bob']) await ask('/user/', { method: 'POST', body: { login, password } });
  const bob = basic('bob', password);
  const asked = async (path: string, headers: Record<string, string>): Promise<number> => {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('');
    const text = await sendRaw(url, [`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${lines}\r\n`]);
    assert.doesNotMatch(text, /"login":"alice"/, path);
    return Number(text.slice(9, 12));
  };
  const paths: [path: string, status: number][] = [
    ['/user/alice', 403], ['/user/alice/', 403], ['/user/ALICE', 403], ['/user/%61lice', 403], ['/user/%61%6c%69%63%65', 403], ['/%75ser/alice', 403], ['/user/alice?x', 403],
    ['/user/bob/../alice', 404], ['/user/bob/%2e%2e/alice', 404], ['/user/bob%2f..%2falice', 403], ['/user/bob%2falice', 403], ['/user//alice', 404], ['//user/alice', 404],
    ['/user/alice//', 404], ['/user/./alice', 404], ['/user/alice;bob', 403], ['/user/alice;x=y', 403], ['/user/bob\\..\\alice', 403], ['/user/alice%00', 403], ['/user/alice%00bob', 403],
    ['/user/%2561lice', 403], ['/user/%252e%252e', 403], ['/user/%', 400], ['/user/%6', 400], ['/user/%zz', 400], ['/user/%c0%ae', 400], ['/user/%ff', 400], ['/user/%ed%a0%80', 400],
    ['/user/%0d%0aX-Injected:1', 403], ['/user/alice%20', 403], ['/user/alice%09', 403], ['/user/*', 403], ['/user/%2a', 403], ['/user/.', 403], ['/user/..', 403], ['/user', 403],
    ['/user/?after=x', 403], ['/user/.%2fbob', 403], ['/session/../user/alice', 404], ['/user/alice/session', 404], ['/.well-known/../user/alice', 404], ['/user/alice/.', 404],
    [`/user/${'a'.repeat(5_000)}`, 403], ['/user/%F0%9F%98%80', 403], ['/user/{login}', 403], ['/user/%7Blogin%7D', 403], ['/user/__proto__', 403], ['/__proto__', 404], ['/..', 404],
  ];
  for (const [path, status] of paths) assert.equal(await asked(path, bob), status, path);
  // Nobody learns more by them than by the plain path.
  for (const [path, status] of paths) assert.equal(await asked(path, {}), status === 403 ? 401 : status, path);
  for (const [path] of paths.filter(([path]) => /%0d|%00/.test(path))) assert.ok(await asked(path, admin) < 500, path);
});

test('spellings: headers by the hundred, cookies by the kilobyte, and names that objects have are no failure', async (t) => {
  const { ask, url, reports } = await openService(t, unlimited, closed);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  const { token } = (await ask('/session', { method: 'POST', body: { login: 'alice', password } })).json;
  const cookie = `__Host-registrar=${token}`;
  const many = Array.from({ length: 400 }, (_, n) => `c${n}=v`).join('; ');
  const statuses: [name: string, head: string, status: number][] = [
    ['400 cookies', `Cookie: ${many}; ${cookie}`, 200], ['400 cookies in 50 headers', `${`Cookie: ${many.slice(0, 99)}\r\n`.repeat(50)}Cookie: ${cookie}`, 200],
    ['cookies of 9 KB', `Cookie: ${'x'.repeat(9_000)}`, 431], ['the cookie twice', `Cookie: ${cookie}\r\nCookie: ${cookie}`, 401], ['the cookie in quotes', `Cookie: "${cookie}"`, 401],
    ['the cookie in other letters', `Cookie: ${cookie.toLowerCase()}`, 401], ['a cookie in front without an end', `Cookie: a="; ${cookie}`, 200],
    ['a name of an object', `__proto__: x\r\nconstructor: y\r\ntoString: z\r\nhasOwnProperty: w\r\nvalueOf: v\r\nCookie: ${cookie}`, 200],
    ['100 headers', `${'x: y\r\n'.repeat(100)}Cookie: ${cookie}`, 431], ['2,000 headers', 'x: y\r\n'.repeat(2_000).slice(0, -2), 431],
    ['an empty cookie', 'Cookie:', 401], ['Authorization twice', `Authorization: Bearer ${token}\r\nAuthorization: Bearer x`, 400],
    ['the token in the query of a referer', `Referer: https://localhost/?token=${token}`, 401],
  ];
  for (const [name, head, status] of statuses) {
    const text = await sendRaw(url, [`GET /session HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${head}\r\n\r\n`]);
    assert.equal(Number(text.slice(9, 12)), status, `${name}: ${text}`);
  }
  // In the address they would stand in every log on the way.
  for (const path of [`/session?token=${token}`, `/session?access_token=${token}`]) {
    const { status, text } = await ask(path, { headers: { cookie } });
    assert.equal(status, 400);
    assert.ok(!text.includes(token));
  }
  assert.deepEqual(reports.filter((line) => line.includes('failed')), []);
});
