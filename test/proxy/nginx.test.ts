import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { ask, basic, behind, withoutProxy } from '../helper/proxy.ts';
import type { Behind } from '../helper/proxy.ts';
import { proxyTrials } from '../helper/proxy-trials.ts';
import { certificates } from '../helper/service.ts';
import { without } from '../helper/temporary.ts';

const run = promisify(execFile);
const skip = withoutProxy('nginx');
const password = 'correct horse';

proxyTrials('nginx');

interface Guarded extends Behind {
  readonly application: http.Server;
  /** How often it was asked anything. */
  readonly asked: () => number;
}

/** Another application, which knows its users by what nginx says. */
async function guarded(t: TestContext): Promise<Guarded> {
  let asked = 0;
  const application = http.createServer((request, response) => {
    asked++;
    const { headers, method, url } = request;
    const chunks: Buffer[] = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const status = Number(/^\/status\/(\d+)/.exec(url ?? '')?.[1] ?? 200);
      response.writeHead(status, { 'Content-Type': 'application/json' });
      response.end(JSON.stringify({ user: headers['x-user'] ?? null, method, url, headers, bytes: Buffer.concat(chunks).length }));
    });
  });
  application.listen(0, '127.0.0.1');
  await once(application, 'listening');
  t.after(() => {
    application.close();
    application.closeAllConnections();
  });
  const { port } = application.address() as AddressInfo;
  const all = await behind(t, 'nginx', { also: ['--auth-for', `http://127.0.0.1:${port}`] });
  return { ...all, application, asked: () => asked };
}

async function register({ proxy }: Behind, login: string): Promise<void> {
  assert.equal((await ask(proxy.url, '/user/', { method: 'POST', body: { login, password } })).status, 201);
}

test('nginx auth_request: the application gets the user by Basic, and neither the password nor a forged user', { skip: skip || without('curl') }, async (t) => {
  const all = await guarded(t);
  await register(all, 'алиса');
  const { proxy } = all;
  const curl = ['--cacert', join(certificates(), 'cert.pem'), '-s', '-u', `алиса:${password}`, '-H', 'X-User: admin', '-H', 'x_user: admin'];
  const { stdout } = await run('curl', [...curl, '-X', 'POST', '-d', 'x'.repeat(50_000), `${proxy.url}/any/%D0%B0?b=c`]);
  const seen = JSON.parse(stdout);
  assert.equal(seen.status, undefined, stdout);
  assert.deepEqual([seen.user, seen.method, seen.url, seen.bytes], ['%D0%B0%D0%BB%D0%B8%D1%81%D0%B0', 'POST', '/any/%D0%B0?b=c', 50_000]);
  assert.equal(decodeURIComponent(seen.user), 'алиса');
  assert.deepEqual([seen.headers.authorization, seen.headers.x_user, seen.headers['x-forwarded-proto']], [undefined, undefined, 'https']);
  assert.deepEqual([seen.headers.host, seen.headers['x-forwarded-for']], [new URL(proxy.url).host, '127.0.0.1']);
});

test('nginx auth_request: a session goes by Bearer and by cookie, the application gets the other cookies, and its end is the end', { skip }, async (t) => {
  const all = await guarded(t);
  await register(all, 'alice');
  const { proxy } = all;
  const opened = await ask(proxy.url, '/session', { method: 'POST', body: { login: 'alice', password, cookie: true } });
  assert.equal(opened.status, 201);
  const [cookie = ''] = String(opened.headers['set-cookie']).split(';');
  assert.match(cookie, /^__Host-registrar=\S+$/);
  for (const [sent, left] of [
    [cookie, undefined], [`a=1; ${cookie}; b=2`, 'a=1; b=2'], [`${cookie}; b=2`, 'b=2'], [`a=1; ${cookie}`, 'a=1'],
  ] as const) {
    const { status, json } = await ask(proxy.url, '/', { headers: { Cookie: sent, 'X-User': 'admin' } });
    assert.deepEqual([status, json.user, json.headers.cookie], [200, 'alice', left]);
  }
  const bearer = { Authorization: `Bearer ${opened.json.token}` };
  assert.equal((await ask(proxy.url, '/', { headers: bearer })).json.user, 'alice');
  assert.equal((await ask(proxy.url, '/session', { method: 'DELETE', headers: { Cookie: cookie } })).status, 204);
  assert.deepEqual([(await ask(proxy.url, '/', { headers: bearer })).status, (await ask(proxy.url, '/', { headers: { Cookie: cookie } })).status], [401, 401]);
});

test('nginx auth_request: 401 with one challenge for programs, the page to sign in at for people, and nothing reaches the application', { skip }, async (t) => {
  const all = await guarded(t);
  await register(all, 'alice');
  const { proxy, asked, token } = all;
  for (const headers of [{}, { Authorization: basic('alice', 'wrong horse') }, { Authorization: 'Bearer nonsense' }, { Cookie: '__Host-registrar=x' }]) {
    const refused = await ask(proxy.url, '/secret', { headers: { ...headers, 'X-User': 'alice' } });
    assert.equal(refused.status, 401);
    assert.equal(refused.headers['www-authenticate'], 'Basic realm="registrar", charset="UTF-8", Bearer realm="registrar"');
    assert.equal(refused.json.type, 'urn:registrar:unauthenticated');
  }
  const script = await ask(proxy.url, '/secret', { headers: { 'Sec-Fetch-Dest': 'empty' } });
  assert.deepEqual([script.status, script.headers['www-authenticate']], [401, 'Bearer realm="registrar"']);
  const html = { Accept: 'text/html,application/xhtml+xml;q=0.9' };
  const person = await ask(proxy.url, '/secret', { headers: html });
  assert.deepEqual([person.status, person.headers.location], [303, '/sign-in']);
  assert.equal((await ask(proxy.url, '/secret', { method: 'POST', body: {}, headers: html })).status, 401);
  // The administrator is nobody's user.
  assert.equal((await ask(proxy.url, '/secret', { headers: { Authorization: `Bearer ${token}` } })).status, 403);
  // The place that is asked is for nginx alone.
  assert.equal((await ask(proxy.url, '/.registrar-session', { headers: { Authorization: basic('alice', password) } })).status, 404);
  assert.equal(asked(), 0);
  // What is like the service's own paths, and is none, is the application's.
  for (const path of ['/users', '/sessions', '/userx/', '/']) {
    assert.equal((await ask(proxy.url, path, { headers: { Authorization: basic('alice', password) } })).json.url, path);
  }
});

test('nginx auth_request: too many wrong passwords are 429 with Retry-After, by the real address', { skip }, async (t) => {
  const all = await guarded(t);
  await register(all, 'alice');
  const guess = (n: number): Promise<{ status: number; headers: Readonly<Record<string, unknown>>; json: any }> =>
    ask(all.proxy.url, '/', { from: '127.0.0.2', headers: { Authorization: basic('alice', `wrong ${n}`), 'X-Forwarded-For': `192.0.2.${n}` } });
  for (let n = 0; n < 20; n++) assert.equal((await guess(n)).status, 401);
  const refused = await guess(20);
  assert.deepEqual([refused.status, refused.json.type, Number(refused.headers['retry-after']) > 0], [429, 'urn:registrar:rate-limited', true]);
  assert.equal(all.asked(), 0);
});

test('nginx auth_request: the service down is 503 with Retry-After; the application down is 503 too, and its own errors are its own', { skip }, async (t) => {
  const all = await guarded(t);
  await register(all, 'alice');
  const { proxy, service, application, asked } = all;
  const headers = { Authorization: basic('alice', password) };
  for (const status of [401, 404, 500, 502, 503]) {
    const own = await ask(proxy.url, `/status/${status}`, { headers });
    assert.deepEqual([own.status, own.json.user], [status, 'alice']);
  }
  application.close();
  application.closeAllConnections();
  const closed = await ask(proxy.url, '/', { headers });
  assert.deepEqual([closed.status, closed.headers['retry-after'], closed.json.title], [503, '2', 'The application cannot be reached']);
  const before = asked();
  service.child.kill('SIGTERM');
  await service.ended;
  const down = await ask(proxy.url, '/', { headers });
  assert.deepEqual([down.status, down.headers['retry-after'], down.json.type], [503, '2', 'urn:registrar:unreachable']);
  assert.equal(asked(), before);
});
