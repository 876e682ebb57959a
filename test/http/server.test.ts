import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectPlain } from 'node:net';
import { test } from 'node:test';
import { connect } from 'node:tls';
import type { Handler } from '../../lib/http/handler.ts';
import { HttpServer, limits } from '../../lib/http/server.ts';
import { cheap, openService, spawnService } from '../helper/service.ts';
import { connectRaw, sendRaw } from '../helper/raw.ts';
import { until } from '../helper/temporary.ts';

const host = 'Host: localhost\r\n';
const body = '{"login":"alice","password":"correct horse"}';

test('server: what two servers may read in two ways is refused, and the connection is closed', async (t) => {
  const { url } = await openService(t);
  const get = 'GET /user/ HTTP/1.1\r\n';
  const post = 'POST /user/ HTTP/1.1\r\n';
  const requests: [name: string, request: string, status?: number][] = [
    ['two hosts', `${get}${host}Host: evil.example\r\n\r\n`],
    ['two equal hosts', `${get}${host}${host}\r\n`],
    ['no host', `${get}\r\n`],
    ['an absolute target', `GET https://evil.example/user/ HTTP/1.1\r\n${host}\r\n`],
    ['a target with a fragment', `GET /user/#x HTTP/1.1\r\n${host}\r\n`],
    ['an authority', `GET localhost:1 HTTP/1.1\r\n${host}\r\n`],
    ['an asterisk', `GET * HTTP/1.1\r\n${host}\r\n`],
    ['a target of raw UTF-8', `GET /user/\xd0\xb0 HTTP/1.1\r\n${host}\r\n`],
    ['an upgrade', `${get}${host}Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n`],
    ['a websocket', `${get}${host}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n`],
    ['length and chunks', `${post}${host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    ['two lengths', `${post}${host}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello`],
    ['two equal lengths', `${post}${host}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`],
    ['a list of lengths', `${post}${host}Content-Length: 5, 5\r\n\r\nhello`],
    ['a negative length', `${post}${host}Content-Length: -1\r\n\r\n`],
    ['a length with a sign', `${post}${host}Content-Length: +5\r\n\r\nhello`],
    ['an unknown coding', `${post}${host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
    ['chunked twice', `${post}${host}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`],
    ['a bad chunk', `${post}${host}Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n`],
    ['a space before the colon', `${post}${host}Content-Length : 5\r\n\r\nhello`],
    ['a bare line feed', `GET /user/ HTTP/1.1\n${host}\n\n`],
    ['a folded header', `${get}${host}X-A: b\r\n c\r\n\r\n`],
    ['a NUL in a header', `${get}${host}X-A: b\0c\r\n\r\n`],
    ['two content types', `${post}${host}Content-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n`],
    ['HTTP/2 in clear', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['HTTP/0.9', 'GET /user/\r\n\r\n'],
    ['HTTP/2.0 as text', `GET /user/ HTTP/2.0\r\n${host}\r\n`],
    ['HTTP/1.0', `GET /user/ HTTP/1.0\r\n${host}\r\n`, 403],
    ['a large header', `${get}${host}X-A: ${'x'.repeat(9_000)}\r\n\r\n`, 431],
    ['a large target', `GET /${'x'.repeat(9_000)} HTTP/1.1\r\n${host}\r\n`, 431],
    ['no HTTP', '\x16\x03\x01\x00\xa5\x01\x00\x00'],
    ['a tunnel', 'CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n', 0],
  ];
  for (const [name, request, status = 400] of requests) {
    const answer = await sendRaw(url, [Buffer.from(request, 'latin1')]);
    if (status === 0) {
      assert.equal(answer, '', name);
      continue;
    }
    assert.ok(answer.startsWith(`HTTP/1.1 ${status} `), `${name}: ${answer.slice(0, 300)}`);
    assert.match(answer, /\r\nConnection: close\r\n/i, name);
    assert.match(answer, /\r\nContent-Type: application\/problem\+json\r\n/, name);
    assert.equal(answer.match(/^HTTP\/1\.1 \d/gm)?.length, 1, `${name}: one answer`);
  }
});

test('server: what is pipelined is not carried out, and requests one after the other are', async (t) => {
  const { url, ask } = await openService(t);
  const get = `GET /user/ HTTP/1.1\r\n${host}\r\n`;
  const put = (login: string): string => {
    const text = '{"password":"correct horse"}';
    return `PUT /user/${login} HTTP/1.1\r\n${host}Content-Length: ${text.length}\r\n\r\n${text}`;
  };
  const answer = await sendRaw(url, [`${put('alice')}${put('bob')}${put('carol')}${get.repeat(200)}`]);
  assert.deepEqual(answer.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 201']);
  assert.match(answer, /\r\nConnection: close\r\n/);
  const { users } = (await ask('/user/')).json;
  assert.deepEqual(users.map(({ login }: { login: string }) => login), ['alice']);
  // Nor behind an answer that is there at once, be it a refusal.
  for (const [path, status] of [['/user/alice', 200], ['/user/nobody', 404], ['/nothing', 404], ['/user/', 200]] as const) {
    const both = await sendRaw(url, [`GET ${path} HTTP/1.1\r\n${host}\r\n${put('mallory')}`]);
    assert.deepEqual(both.match(/HTTP\/1\.1 \d+/g), [`HTTP/1.1 ${status}`], path);
    assert.equal((await ask('/user/mallory')).status, 404, path);
  }
  const socket = await connectRaw(url);
  let text = '';
  socket.on('data', (chunk) => (text += chunk.toString('latin1')));
  for (let n = 1; n <= 50; n++) {
    socket.write(get);
    await until(() => text.split('"next":null}\n').length === n + 1, `answer ${n}`);
  }
  socket.destroy();
  assert.equal(text.match(/HTTP\/1\.1 200/g)?.length, 50);
});

test('server: nothing is carried out behind an answer after which the connection is closed', async (t) => {
  const { url, ask } = await openService(t);
  const text = '{"password":"correct horse"}';
  const put = `PUT /user/mallory HTTP/1.1\r\n${host}Content-Length: ${text.length}\r\n\r\n${text}`;
  const before: [name: string, request: string, status: number][] = [
    ['two hosts', `GET /user/ HTTP/1.1\r\n${host}${host}\r\n`, 400],
    ['an unknown expectation', `GET /user/ HTTP/1.1\r\n${host}Expect: foo\r\n\r\n`, 417],
    ['HTTP/1.0 that wants to stay', `GET /user/ HTTP/1.0\r\n${host}Connection: keep-alive\r\n\r\n`, 403],
    ['a body that nobody reads', `POST /nothing HTTP/1.1\r\n${host}Content-Length: 3\r\n\r\nabc`, 404],
    ['a wish to close', `GET /user/ HTTP/1.1\r\n${host}Connection: close\r\n\r\n`, 200],
  ];
  for (const [name, request, status] of before) {
    const answer = await sendRaw(url, [request + put]);
    assert.deepEqual(answer.match(/^HTTP\/1\.1 \d+/gm), [`HTTP/1.1 ${status}`], name);
  }
  assert.deepEqual((await ask('/user/')).json.users, []);
});

test('server: headers above a count are refused, not dropped with what they forbid', async (t) => {
  const { url } = await openService(t);
  const fillers = (n: number): string => Array.from({ length: n }, (_, k) => `a${k}: b\r\n`).join('');
  const ask = (last: string, n: number): Promise<string> => sendRaw(url, [`GET /user/ HTTP/1.1\r\n${host}${fillers(n)}${last}Connection: close\r\n\r\n`]);
  assert.match(await ask('', 60), /^HTTP\/1\.1 200 /);
  assert.match(await ask('X-Forwarded-For: 192.0.2.1\r\n', 60), /^HTTP\/1\.1 403 /);
  for (const n of [63, 64, 100, 500]) assert.match(await ask('X-Forwarded-For: 192.0.2.1\r\n', n), /^HTTP\/1\.1 431 /);
});

test('server: garbage behind a request that is being answered does not end up in the answer', async (t) => {
  const { url, ask } = await openService(t, ['--kdf', 'pbkdf2:sha256:300000']);
  const text = '{"password":"correct horse"}';
  const answer = await sendRaw(url, [`PUT /user/alice HTTP/1.1\r\n${host}Content-Length: ${text.length}\r\n\r\n${text}`, '\x01garbage\r\n\r\n']);
  assert.match(answer, /^HTTP\/1\.1 201 /);
  assert.doesNotMatch(answer, / 400 /);
  assert.equal((await ask('/user/')).status, 200);
});

test('server: whoever sends too much is told so, however much it is', async (t) => {
  const { url } = await openService(t);
  for (const length of [20_000, 2_000_000]) {
    const head = `POST /user/ HTTP/1.1\r\n${host}Content-Length: ${length}\r\n\r\n`;
    for (let n = 0; n < 5; n++) assert.match(await sendRaw(url, [Buffer.concat([Buffer.from(head), Buffer.alloc(length, 0x20)])]), /^HTTP\/1\.1 413 /);
  }
});

test('server: 100 Continue is sent for a body that is wanted, and only for one', async (t) => {
  const { url } = await openService(t);
  const head = (path: string, length: number): string =>
    `POST ${path} HTTP/1.1\r\n${host}Expect: 100-continue\r\nConnection: close\r\nContent-Length: ${length}\r\n\r\n`;
  const wanted = await sendRaw(url, [`${head('/user/', body.length)}${body}`]);
  assert.match(wanted, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 201 /);
  assert.match(await sendRaw(url, [head('/user/', 100_000)]), /^HTTP\/1\.1 413 /);
  assert.match(await sendRaw(url, [head('/nothing', 10)]), /^HTTP\/1\.1 404 /);
});

test('server: stalled connections are all closed within 15 s, and others are served meanwhile', async (t) => {
  const { url, ask } = await openService(t);
  await ask('/user/', { method: 'POST', body });
  const { port } = new URL(url);
  const plain = connectPlain(Number(port), '127.0.0.1');
  plain.on('error', () => undefined);
  const sockets = [plain];
  for (const text of [
    '',
    'GET /user/ HTTP/1.1\r\nHost: local',
    `POST /user/ HTTP/1.1\r\n${host}Content-Length: 1000\r\n\r\n{"login":`,
  ]) {
    const socket = await connectRaw(url);
    socket.on('error', () => undefined);
    if (text !== '') socket.write(text);
    sockets.push(socket);
  }
  const dripping = await connectRaw(url);
  dripping.on('error', () => undefined);
  dripping.write(`POST /user/ HTTP/1.1\r\n${host}Content-Length: 1000\r\n\r\n`);
  const drip = setInterval(() => dripping.write(' '), 200);
  sockets.push(dripping);
  const began = Date.now();
  let answered = 0;
  const closing = Promise.all(
    sockets.map(async (socket, n) => {
      let text = '';
      socket.on('data', (chunk) => (text += chunk.toString('latin1')));
      await once(socket, 'close');
      return [n, text.slice(0, 12)];
    }),
  );
  let isOver = false;
  void closing.then(() => (isOver = true));
  await until(async () => {
    assert.equal((await ask('/user/alice')).status, 200);
    answered++;
    // A connection that has sent nothing at all may stay as long as an idle one.
    return isOver || sockets.filter((socket) => !socket.destroyed).length === 1;
  }, 'the stalled connections to be closed', 15_000);
  clearInterval(drip);
  sockets[1]?.destroy();
  const texts = new Map((await closing) as [number, string][]);
  assert.equal(texts.get(0), '');
  for (const n of [2, 3, 4]) assert.equal(texts.get(n), 'HTTP/1.1 408', `connection ${n}`);
  assert.ok(answered > 20 && Date.now() - began < 15_000);
});

test('server: it listens on IPv6 too, and says where', async (t) => {
  const { url, ask } = await openService(t, [...cheap, '--host', '::1']);
  assert.match(url, /^https:\/\/\[::1\]:\d+$/);
  assert.equal((await ask('/user/')).status, 200);
  assert.match(await sendRaw(url, [`OPTIONS * HTTP/1.1\r\n${host}Connection: close\r\n\r\n`]), /^HTTP\/1\.1 204 [^]*\r\nAllow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n/);
});

test('server: an address that is not ours, and a host that nobody knows, are told', async () => {
  const options = { certificate: undefined, connectionsMax: 10, handler: async () => undefined, report: () => undefined };
  const cases = [['192.0.2.1', /does not have that address: choose another with --host/], ['nobody.invalid', /the host is not known/]] as const;
  for (const [address, pattern] of cases) {
    await assert.rejects(HttpServer.listen({ ...options, at: { host: address, port: 0 } }), { code: 'cannot-start', message: pattern });
  }
});

test('server: TLS 1.1 is refused, 1.2 and 1.3 are spoken', async (t) => {
  const { url } = await openService(t);
  const options = { host: '127.0.0.1', port: Number(new URL(url).port), rejectUnauthorized: false };
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const socket = connect({ ...options, minVersion: version, maxVersion: version });
    await once(socket, 'secureConnect');
    assert.equal(socket.getProtocol(), version);
    socket.destroy();
  }
  const old = connect({ ...options, minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'ALL@SECLEVEL=0' });
  const [error] = await once(old, 'error');
  assert.match(String(error.code), /ERR_SSL|ECONNRESET/);
});

test('server: a client that goes while its password waits to be hashed leaves nothing behind', async (t) => {
  const { ask, reports } = await openService(t, ['--kdf', 'pbkdf2:sha256:400000']);
  const gone = new AbortController();
  const users = Array.from({ length: 12 }, (_, n) => `user${n}`);
  const asked = users.map((login, n) => {
    const options = { method: 'PUT', body: { password: 'correct horse' }, ...(n > 5 ? { signal: gone.signal } : {}) };
    return ask(`/user/${login}`, options).then(({ status }) => status, () => 'gone');
  });
  await until(async () => (await ask('/user/')).json.users.length > 0, 'the first user');
  gone.abort();
  const outcomes = await Promise.all(asked);
  assert.deepEqual(outcomes, [...Array(6).fill(201), ...Array(6).fill('gone')]);
  const { users: registered } = (await ask('/user/')).json;
  assert.ok(registered.length < 12, `${registered.length} of 12`);
  assert.deepEqual(reports.filter((line) => !line.includes('OWASP')), []);
});

test('server: past the deadline of the hash queue it answers 503 with Retry-After, and reads go on', async (t) => {
  const { ask } = await openService(t, ['--kdf', 'pbkdf2:sha256:3000000']);
  const registrations = Array.from({ length: 80 }, (_, n) => ask(`/user/user${n}`, { method: 'PUT', body: { password: 'correct horse' } }));
  const first = await Promise.any(registrations.map(async (answer) => {
    assert.equal((await answer).status, 503);
    return answer;
  }));
  assert.equal(first.json.type, 'urn:registrar:overloaded');
  assert.match(String(first.headers['retry-after']), /^[1-9]\d*$/);
  assert.equal((await ask('/user/')).status, 200);
  const statuses = new Set((await Promise.all(registrations)).map(({ status }) => status));
  assert.deepEqual([...statuses].sort(), [201, 503]);
});

test('server: the first signal lets what runs finish, waits for nobody else, and exits 0', async (t) => {
  const service = await spawnService(t, { args: ['--kdf', 'pbkdf2:sha256:2000000'] });
  const { port } = new URL(service.url);
  const others = [
    await connectRaw(service.url), // says nothing
    await connectRaw(service.url), // will have said half of a request
    connectPlain(Number(port), '127.0.0.1'), // does not even shake hands
  ];
  for (const socket of others) socket.on('error', () => undefined);
  others[1]?.write('GET /user/ HTTP/1.1\r\nHo');
  t.after(() => others.forEach((socket) => socket.destroy()));
  const running = service.ask('/user/alice', { method: 'PUT', body: { password: 'correct horse' } });
  await until(async () => (await service.ask('/user/')).status === 200, 'an answer');
  service.child.kill('SIGTERM');
  const { status, headers } = await running;
  assert.equal(status, 201);
  assert.equal(headers.connection, 'close');
  // Otherwise it would be the end of its patience that ends it.
  const impatient = new Promise((resolve) => setTimeout(resolve, limits.drainMs * 0.7, 'waited').unref());
  assert.equal(await Promise.race([service.ended, impatient]), 0);
  assert.match(service.stderr(), /^registrar: WARNING.*OWASP|^$/);
});

test('server: the second signal ends it at once', async (t) => {
  const service = await spawnService(t, { args: ['--kdf', 'pbkdf2:sha256:9000000'] });
  const running = service.ask('/user/alice', { method: 'PUT', body: { password: 'correct horse' } }).catch(() => 'cut');
  await until(async () => (await service.ask('/user/')).status === 200, 'an answer');
  service.child.kill('SIGINT');
  await until(() => service.ask('/user/').then(() => false, () => true), 'it to stop listening');
  service.child.kill('SIGINT');
  assert.equal(await service.ended, 1);
  assert.equal(await running, 'cut');
});

test('server: whoever waits for an answer is not cut off, and whoever does not take theirs is', async (t) => {
  let settle: (() => void) | undefined;
  const cut = new Promise<void>((resolve) => (settle = resolve));
  const handler: Handler = async (request, response, _expectation, done) => {
    if (request.url === '/large') request.socket.once('close', () => settle?.());
    if (request.url === '/slow') await new Promise((resolve) => setTimeout(resolve, 1_000));
    response.writeHead(200);
    response.end(request.url === '/slow' ? 'late' : Buffer.alloc(50_000_000));
    done(true);
  };
  const at = { host: '127.0.0.1', port: 0 };
  const server = await HttpServer.listen({ at, certificate: undefined, connectionsMax: 10, handler, report: () => undefined, socketTimeoutMs: 200 });
  t.after(() => server.abort());
  assert.equal(await (await fetch(`${server.url}/slow`)).text(), 'late');
  const { port } = new URL(server.url);
  const idle = connectPlain(Number(port), '127.0.0.1').pause();
  idle.on('error', () => undefined);
  t.after(() => idle.destroy());
  idle.write('GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n');
  // The client reads nothing and closes nothing, so it is the server that does.
  await cut;
  assert.equal(idle.destroyed, false);
});
