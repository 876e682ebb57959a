/** The sites that registrar proxy prints, in the real nginx and Apache. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, createPrivateKey, createPublicKey } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { signToken } from '../../lib/auth/token.ts';
import { proxyTrials } from '../helper/proxy-trials.ts';
import { ask, basic, behind } from '../helper/proxy.ts';
import type { Behind } from '../helper/proxy.ts';
import { certificates } from '../helper/service.ts';
import { freePort } from '../helper/temporary.ts';
import { trial } from '../helper/trial.ts';
import { openBrowser } from '../helper/webdriver.ts';

const run = promisify(execFile);
const password = 'correct horse';

proxyTrials('nginx');

interface Guarded extends Behind {
  readonly application: http.Server;
  /** How often it was asked anything. */
  readonly asked: () => number;
}

/** Another application, which knows its users by what nginx says. */
async function guarded(t: TestContext, name: 'nginx' | 'caddy', more: readonly string[] = [], proxyPort?: number): Promise<Guarded> {
  let asked = 0;
  const application = http.createServer((request, response) => {
    asked++;
    const { headers, method, url } = request;
    const chunks: Buffer[] = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const status = Number(/^\/status\/(\d+)/.exec(url ?? '')?.[1] ?? 200);
      response.writeHead(status, { 'Content-Type': 'application/json', ...(url === '/large' ? { 'X-Large': 'x'.repeat(4_000) } : {}) });
      response.end(JSON.stringify({ user: headers['x-user'] ?? null, id: headers['x-user-id'] ?? null, method, url, headers, bytes: Buffer.concat(chunks).length }));
    });
  });
  application.on('upgrade', (request, socket) => {
    const { 'sec-websocket-key': key = '', 'x-user': user } = request.headers;
    const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    const fields = ['Connection: Upgrade', 'Upgrade: websocket', `X-Seen: ${String(user)}`, `Sec-WebSocket-Accept: ${accept}`];
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${fields.join('\r\n')}\r\n\r\n`);
    // A browser gets one frame of text with the user's name, a program what it has sent.
    if (key !== '') socket.write(Buffer.concat([Buffer.from([0x81, String(user).length]), Buffer.from(String(user))]));
    else socket.on('data', (chunk) => socket.write(chunk));
    socket.on('error', () => undefined);
  });
  application.listen(0, '127.0.0.1');
  await once(application, 'listening');
  t.after(() => {
    application.close();
    application.closeAllConnections();
  });
  const { port } = application.address() as AddressInfo;
  const all = await behind(t, name, { flags: more, also: ['--auth-for', `http://127.0.0.1:${port}`], port: proxyPort });
  return { ...all, application, asked: () => asked };
}

async function register({ proxy }: Behind, login: string): Promise<void> {
  assert.equal((await ask(proxy.url, '/user/', { method: 'POST', body: { login, password } })).status, 201);
}

function guardedTrials(name: 'nginx' | 'caddy'): void {
  trial(`${name} forward authentication: the application gets the user by Basic, and neither the password nor a forged user`, { needs: [name, 'curl'] }, async (t) => {
    const all = await guarded(t, name);
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

  trial(`${name} forward authentication: a session goes by Bearer and by cookie, the application gets the other cookies, and its end is the end`, { needs: [name] }, async (t) => {
    const all = await guarded(t, name);
    await register(all, 'alice');
    const { proxy } = all;
    const opened = await ask(proxy.url, '/session', { method: 'POST', body: { login: 'alice', password, cookie: 'session' } });
    assert.equal(opened.status, 201);
    const [cookie = ''] = String(opened.headers['set-cookie']).split(';');
    assert.match(cookie, /^__Host-registrar=\S+$/);
    for (const [sent, left] of [
      [cookie, undefined], [`a=1; ${cookie}; b=2`, 'a=1; b=2'], [`${cookie}; b=2`, 'b=2'], [`a=1; ${cookie}`, 'a=1'],
    ] as const) {
      const { status, json } = await ask(proxy.url, '/', { headers: { Cookie: sent, 'X-User': 'admin' } });
      assert.deepEqual([status, json.user, json.headers.cookie || undefined], [200, 'alice', left]);
    }
    const { json: session } = await ask(proxy.url, '/session', { method: 'POST', body: { login: 'alice', password } });
    const bearer = { Authorization: `Bearer ${session.token}` };
    assert.equal((await ask(proxy.url, '/', { headers: bearer })).json.user, 'alice');
    assert.equal((await ask(proxy.url, '/user/alice/session', { method: 'DELETE', headers: { Cookie: cookie } })).status, 204);
    assert.deepEqual([(await ask(proxy.url, '/', { headers: bearer })).status, (await ask(proxy.url, '/', { headers: { Cookie: cookie } })).status], [401, 401]);
  });

  trial(`${name} forward authentication: 401 with one challenge for programs, the page to sign in at for people, and nothing reaches the application`, { needs: [name] }, async (t) => {
    const all = await guarded(t, name);
    await register(all, 'alice');
    const { proxy, asked, token } = all;
    const forgeries: readonly Record<string, string>[] = [{}, { Authorization: basic('alice', 'wrong horse') }, { Authorization: 'Bearer nonsense' }, { Cookie: '__Host-registrar=x' }];
    for (const headers of forgeries) {
      const refused = await ask(proxy.url, '/secret', { headers: { ...headers, 'X-User': 'alice' } });
      assert.equal(refused.status, 401);
      assert.equal(refused.headers['www-authenticate'], 'Basic realm="registrar", charset="UTF-8", Bearer realm="registrar"');
      assert.equal(refused.json.type, 'urn:registrar:unauthenticated');
    }
    const script = await ask(proxy.url, '/secret', { headers: { 'Sec-Fetch-Dest': 'empty' } });
    assert.deepEqual([script.status, script.headers['www-authenticate']], [401, 'Bearer realm="registrar"']);
    const html = { Accept: 'text/html,application/xhtml+xml;q=0.9' };
    const person = await ask(proxy.url, '/secret', { headers: html });
    assert.deepEqual([person.status, person.headers.location], [303, `/sign-in?to=${name === 'nginx' ? '/secret' : '%2Fsecret'}`]);
    assert.equal((await ask(proxy.url, '/secret', { method: 'POST', body: {}, headers: html })).status, 401);
    // The administrator is no user.
    assert.equal((await ask(proxy.url, '/secret', { headers: { Authorization: `Bearer ${token}` } })).status, 403);
    // The path that nginx asks is not for clients. To Caddy it is the application's.
    const inner = await ask(proxy.url, '/.registrar-auth', { headers: { Authorization: basic('alice', 'wrong horse') } });
    assert.equal(inner.status, name === 'nginx' ? 404 : 401);
    assert.equal(asked(), 0);
    // What is like the service's own paths, and is none, is the application's.
    for (const path of ['/users', '/sessions', '/userx/', '/']) {
      assert.equal((await ask(proxy.url, path, { headers: { Authorization: basic('alice', password) } })).json.url, path);
    }
  });

  trial(`${name} forward authentication: too many wrong passwords are 429 with Retry-After, by the real address`, { needs: [name] }, async (t) => {
    const all = await guarded(t, name);
    await register(all, 'alice');
    const guess = (n: number): Promise<{ status: number; headers: Readonly<Record<string, unknown>>; json: any }> =>
      ask(all.proxy.url, '/', { from: '127.0.0.2', headers: { Authorization: basic('alice', `wrong ${n}`), 'X-Forwarded-For': `192.0.2.${n}` } });
    for (let n = 0; n < 20; n++) assert.equal((await guess(n)).status, 401);
    const refused = await guess(20);
    assert.deepEqual([refused.status, refused.json.type, Number(refused.headers['retry-after']) > 0], [429, 'urn:registrar:rate-limited', true]);
    assert.equal(all.asked(), 0);
  });

  trial(`${name} forward authentication: the service down is 503 with Retry-After; the application down is 503 too, and its own errors are its own`, { needs: [name] }, async (t) => {
    const all = await guarded(t, name);
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
    assert.deepEqual([closed.status, closed.headers['retry-after'], closed.json.title], [503, '2', name === 'nginx' ? 'The application cannot be reached' : 'The service cannot be reached']);
    const before = asked();
    service.child.kill('SIGTERM');
    await service.ended;
    const down = await ask(proxy.url, '/', { headers });
    assert.deepEqual([down.status, down.headers['retry-after'], down.json.type], [503, '2', 'urn:registrar:unreachable']);
    assert.equal(asked(), before);
  });

  trial(`${name} forward authentication: WebSockets, large uploads, cookies and headers of the application pass, preflights without signing in`, { needs: [name] }, async (t) => {
    const all = await guarded(t, name);
    await register(all, 'alice');
    const { proxy } = all;
    const headers = { Authorization: basic('alice', password) };
    const upload = await ask(proxy.url, '/upload', { method: 'POST', body: 'x'.repeat(20_000_000), headers });
    assert.deepEqual([upload.status, upload.json.bytes], [200, 20_000_000]);
    const cookie = `big=${'c'.repeat(9_000)}`;
    const large = await ask(proxy.url, '/large', { headers: { ...headers, Cookie: cookie } });
    assert.deepEqual([large.status, large.json.headers.cookie, String(large.headers['x-large']).length], [200, cookie, 4_000]);
    assert.equal((await ask(proxy.url, '/user/alice', { headers: { ...headers, Cookie: cookie } })).status, 200);
    const preflight = { Origin: 'https://app.example', 'Access-Control-Request-Method': 'PUT', 'X-User': 'admin', 'X-User-Id': '1' };
    const { status, json } = await ask(proxy.url, '/any', { method: 'OPTIONS', headers: preflight });
    assert.deepEqual([status, json.user, json.id, json.method], [200, null, null, 'OPTIONS']);
    const forged = { 'X-User': 'x', 'X-User-Id': '9', 'Remote-User': 'x', 'X-Auth-Request-User': 'x', 'X-Forwarded-Host': 'evil.example', 'X-Real-IP': '192.0.2.9' };
    const seen = (await ask(proxy.url, '/any', { headers: { ...headers, ...forged } })).json;
    assert.deepEqual([seen.user, seen.id], ['alice', '1']);
    for (const name of ['remote-user', 'x-auth-request-user', 'x-real-ip']) assert.equal(seen.headers[name], undefined, name);
    assert.notEqual(seen.headers['x-forwarded-host'], 'evil.example');
    const request = https.request(new URL('/socket', proxy.url), {
      ca: readFileSync(join(certificates(), 'cert.pem')), headers: { ...headers, Connection: 'Upgrade', Upgrade: 'websocket' },
    });
    request.end();
    const [response, socket] = await once(request, 'upgrade');
    assert.equal(response.headers['x-seen'], 'alice');
    socket.write('hello');
    assert.equal(String((await once(socket, 'data'))[0]), 'hello');
    socket.destroy();
  });

  trial(`${name} forward authentication: a renewed cookie reaches the browser, a disabled account is 403`, { needs: [name] }, async (t) => {
    const all = await guarded(t, name);
    await register(all, 'alice');
    const { proxy, token, data } = all;
    const opened = await ask(proxy.url, '/session', { method: 'POST', body: { login: 'alice', password, cookie: 'persistent' } });
    const cookie = halfOver(data, String(opened.headers['set-cookie']).split(';')[0]!);
    const { status, json, headers } = await ask(proxy.url, '/any', { headers: { Cookie: cookie } });
    assert.deepEqual([status, json.user], [200, 'alice']);
    const renewed = String(headers['set-cookie']);
    assert.match(renewed, /^__Host-registrar=[^;]+; Path=\/; Max-Age=\d+; Secure; HttpOnly; SameSite=Lax$/);
    const again = await ask(proxy.url, '/any', { headers: { Cookie: renewed.split(';')[0]! } });
    assert.deepEqual([again.status, again.json.user, again.headers['set-cookie']], [200, 'alice', undefined]);
    const admin = { Authorization: `Bearer ${token}` };
    assert.equal((await ask(proxy.url, '/user/alice', { method: 'PATCH', body: { disabled: true }, headers: admin })).status, 200);
    assert.equal((await ask(proxy.url, '/any', { headers: { Cookie: cookie } })).status, 401);
    assert.equal((await ask(proxy.url, '/any', { headers: { Authorization: basic('alice', password) } })).status, 403);
  });

  trial(`${name} forward authentication: a service below a path`, { needs: [name] }, async (t) => {
    const all = await guarded(t, name, ['--public-url', `https://localhost/accounts`]);
    const { proxy } = all;
    const created = await ask(proxy.url, '/accounts/user/', { method: 'POST', body: { login: 'алиса', password } });
    assert.equal(created.status, 201, created.text);
    const headers = { Authorization: basic('алиса', password) };
    assert.equal((await ask(proxy.url, '/accounts/session', { headers })).json.user.login, 'алиса');
    assert.equal((await ask(proxy.url, '/user/', { headers })).json.url, '/user/', 'the application has this path');
    for (const path of ['/accounts/', '/accounts/sign-in?to=/x', '/accounts/page/page.css']) assert.equal((await ask(proxy.url, path)).status, 200, path);
    const person = await ask(proxy.url, '/secret?a=1&b=2', { headers: { Accept: 'text/html' } });
    assert.equal(person.status, 303);
    assert.ok(['/accounts/sign-in?to=/secret?a=1&b=2', '/accounts/sign-in?to=%2Fsecret%3Fa%3D1%26b%3D2'].includes(String(person.headers.location)), String(person.headers.location));
  });
}

guardedTrials('nginx');
guardedTrials('caddy');

for (const [name, path] of [['nginx', ''], ['caddy', ''], ['nginx', '/accounts'], ['caddy', '/accounts']] as const) {
  const title = `${name} forward authentication: Chromium signs in on the way to an application and returns to it, with the service at "${path}/"`;
  trial(title, { needs: [name, 'chromium', 'chromedriver'], timeout: 120_000 }, async (t) => {
    const port = await freePort();
    const all = await guarded(t, name, path === '' ? [] : ['--public-url', `https://localhost:${port}${path}`], port);
    const { url } = all.proxy;
    assert.equal((await ask(url, `${path}/user/`, { method: 'POST', body: { login: 'alice', password } })).status, 201);
    const browser = await openBrowser(t);
    const readUser = 'return JSON.parse(document.body.textContent).user';
    await browser.open(`${url}/app?a=1&b=2`);
    await browser.wait('location.pathname === arguments[0] && !document.getElementById("sign-in").hidden', `${path}/sign-in`);
    await browser.run('for (const n of [1, 2, 3]) document.cookie = `other${n}=${"x".repeat(3_000)}; path=/; Secure`');
    await browser.fill('#sign-in-login', 'alice');
    await browser.fill('#sign-in-password', password);
    await browser.click('#sign-in-form button');
    await browser.wait('location.pathname + location.search === "/app?a=1&b=2"');
    assert.equal(await browser.run(readUser), 'alice');
    const sent = await browser.run<string>('return JSON.parse(document.body.textContent).headers.cookie');
    assert.ok(sent.length > 9_000 && !sent.includes('__Host-registrar'), 'the application gets its own cookies');
    const upload = 'return fetch("/upload", { method: "POST", body: new Uint8Array(20 << 20) }).then((response) => response.json()).then(({ bytes }) => bytes)';
    assert.equal(await browser.run(upload), 20 << 20);
    const socket = 'return new Promise((resolve, reject) => Object.assign(new WebSocket(`wss://${location.host}/ws`), { onmessage: ({ data }) => resolve(data), onerror: reject }))';
    assert.equal(await browser.run(socket), 'alice');
    await browser.open(`${url}${path}/sign-in`);
    await browser.wait('!document.getElementById("account").hidden');
    await browser.click('#sign-out');
    await browser.wait('!document.getElementById("sign-in").hidden');
    await browser.open(`${url}/app`);
    await browser.wait('location.pathname === arguments[0]', `${path}/sign-in`);
  });
}

/** The same session, with a token that was issued when it is half over now. */
function halfOver(data: string, cookie: string): string {
  const { keys: [record] } = JSON.parse(readFileSync(join(data, 'signing-keys.json'), 'utf8'));
  const [header = '', payload = ''] = cookie.slice(cookie.indexOf('=') + 1).split('.');
  const { kid } = JSON.parse(Buffer.from(header, 'base64url').toString());
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
  const moved = { ...claims, iat: claims.iat - 30_000, exp: claims.exp - 30_000, auth_time: claims.auth_time - 30_000 };
  const privateKey = createPrivateKey({ key: record, format: 'jwk' });
  return `__Host-registrar=${signToken({ kid, privateKey, publicKey: createPublicKey(privateKey) }, moved)}`;
}

proxyTrials('apache');
proxyTrials('caddy');
