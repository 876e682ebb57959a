/** The server over TLS: what it refuses to read, hidden requests, spellings, and its handler. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { connect as connectPlain } from 'node:net';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { connect } from 'node:tls';
import type { RequestContext } from '../../lib/auth/request-context.ts';
import { RegistrarError } from '../../lib/errors.ts';
import { createHandler } from '../../lib/http/handler.ts';
import type { Handler } from '../../lib/http/handler.ts';
import { asRegistrarError, problem } from '../../lib/http/problem.ts';
import { route } from '../../lib/http/route.ts';
import type { Reply, RouteParts } from '../../lib/http/route.ts';
import { HttpServer } from '../../lib/http/server.ts';
import { connectRaw, sendRaw } from '../helper/raw.ts';
import { adminToken, cheap, openService } from '../helper/service.ts';
import { ambiguousRequests, hiddenRequest } from '../helper/raw.ts';
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
    ['an absolute target with user information', `GET https://a@localhost/user/ HTTP/1.1\r\n${host}\r\n`],
    ['an absolute target of another scheme', `GET ftp://localhost/user/ HTTP/1.1\r\n${host}\r\n`],
    ['a host that is none', `${get}Host: localhost/user\r\n\r\n`],
    ['a target with a fragment', `GET /user/#x HTTP/1.1\r\n${host}\r\n`],
    ['an authority', `GET localhost:1 HTTP/1.1\r\n${host}\r\n`],
    ['an asterisk', `GET * HTTP/1.1\r\n${host}\r\n`],
    ['a target of raw UTF-8', `GET /user/\xd0\xb0 HTTP/1.1\r\n${host}\r\n`],
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
    ['a body that no route reads', `POST /nothing HTTP/1.1\r\n${host}Content-Length: 3\r\n\r\nabc`, 404],
    ['a wish to close', `GET /user/ HTTP/1.1\r\n${host}Connection: close\r\n\r\n`, 200],
  ];
  for (const [name, request, status] of before) {
    const answer = await sendRaw(url, [request + put]);
    assert.deepEqual(answer.match(/^HTTP\/1\.1 \d+/gm), [`HTTP/1.1 ${status}`], name);
  }
  assert.deepEqual((await ask('/user/')).json.users, []);
});

test('server: no route takes effect before the whole request has arrived and is valid', async (t) => {
  const { url, ask } = await openService(t);
  await ask('/user/', { method: 'POST', body });
  const basic = `Authorization: Basic ${Buffer.from('alice:correct horse').toString('base64')}\r\n`;
  const chunked = 'Transfer-Encoding: chunked\r\n\r\n';
  const broken = ['zz', 'zz\r\nx\r\n0\r\n\r\n', '-1\r\n', '1\r\nab\r\n0\r\n\r\n', '3\nabc\n0\n\n', '1;\x00\r\na\r\n0\r\n\r\n'];
  for (const first of [`DELETE /user/alice HTTP/1.1\r\n${host}`, `DELETE /session HTTP/1.1\r\n${host}${basic}`, `GET /user/alice HTTP/1.1\r\n${host}`, `OPTIONS /user/ HTTP/1.1\r\n${host}`]) {
    for (const rest of broken) assert.match(await sendRaw(url, [first + chunked + rest]), /^HTTP\/1\.1 400 /, first + rest);
    const unfinished = [`${chunked}1\r\n`, 'Content-Length: 50\r\n\r\n', 'Content-Length: 50\r\n\r\nhalf'];
    const responses = await Promise.all(unfinished.map((rest) => sendRaw(url, [first + rest], 100)));
    assert.deepEqual(responses, ['', '', ''], first);
    assert.match(await sendRaw(url, [`${first}Content-Length: 16385\r\n\r\n${' '.repeat(16_385)}`]), /^HTTP\/1\.1 413 /, first);
  }
  const { status, headers } = await ask('/user/alice');
  assert.deepEqual([status, headers.etag], [200, '"1.1"']);
  // A body that is complete is ignored.
  const whole = await sendRaw(url, [`DELETE /user/alice HTTP/1.1\r\n${host}Connection: close\r\n${chunked}2\r\nzz\r\n0\r\n\r\n`]);
  assert.match(whole, /^HTTP\/1\.1 204 /);
});

test('server: optional features of HTTP are accepted or ignored', async (t) => {
  const { url, ask } = await openService(t, [...cheap, '--hsts']);
  const closing = 'Connection: close\r\n';
  const upgrade = `Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n`;
  const requests: [name: string, request: string, status: number][] = [
    ['an absolute target', `GET https://localhost/user/ HTTP/1.1\r\n${host}${closing}\r\n`, 200],
    ['an absolute target whose authority replaces Host', `GET http://localhost:1/user/ HTTP/1.1\r\nHost: evil.example\r\n${closing}\r\n`, 200],
    ['an absolute target of another host', `GET https://evil.example/user/ HTTP/1.1\r\n${host}${closing}\r\n`, 403],
    ['an absolute target without a path', `GET https://localhost HTTP/1.1\r\n${host}${closing}\r\n`, 200],
    ['an absolute target with a query alone', `GET https://localhost?x HTTP/1.1\r\n${host}${closing}\r\n`, 200],
    ['the asterisk as an absolute target', `OPTIONS https://localhost HTTP/1.1\r\n${host}${closing}\r\n`, 204],
    ['an upgrade to h2c', `GET /user/ HTTP/1.1\r\n${host}${upgrade}\r\n`, 200],
    ['an upgrade with a body', `POST /user/ HTTP/1.1\r\n${host}${upgrade}Content-Length: ${body.length}\r\n\r\n${body}`, 201],
    ['a websocket', `GET /user/ HTTP/1.1\r\n${host}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n`, 200],
  ];
  for (const [name, request, status] of requests) {
    const text = await sendRaw(url, [request]);
    assert.ok(text.startsWith(`HTTP/1.1 ${status} `), `${name}: ${text.slice(0, 200)}`);
    assert.match(text, /\r\nConnection: close\r\n/, name);
    assert.match(text, /\r\nStrict-Transport-Security: max-age=63072000\r\n/, name);
  }
  const ids = await Promise.all([1, 2, 3].map(async () => (await ask('/user/')).headers['x-request-id']));
  assert.equal(new Set(ids.map((id) => String(id).slice(0, 8))).size, 3, 'ids that tell nothing of each other');
});

test('server: plain HTTP on the TLS port gets a 400 that says so, and ALPN http/1.0 is spoken', async (t) => {
  const { url } = await openService(t);
  const port = Number(new URL(url).port);
  const plain = connectPlain(port, '127.0.0.1');
  let text = '';
  plain.on('data', (chunk) => (text += chunk));
  plain.write(`POST /user/ HTTP/1.1\r\n${host}Content-Length: ${body.length}\r\n\r\n${body}`);
  await once(plain, 'close');
  assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n[^]*This port expects HTTPS, and the request came in plain HTTP/);
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['http/1.0'] });
  await once(socket, 'secureConnect');
  assert.equal(socket.alpnProtocol, 'http/1.0');
  socket.destroy();
});

test('server: while it drains every response closes its connection, new ones are served, and none is reset', async () => {
  const handler: Handler = (_request, response, _expectation, done) => {
    const { shouldKeepAlive } = response;
    response.writeHead(200, shouldKeepAlive ? {} : { Connection: 'close' });
    done(shouldKeepAlive);
    response.end('ok');
  };
  const server = await HttpServer.listen({ at: { host: '127.0.0.1', port: 0 }, certificate: undefined, connectionsMax: 100, handler, report: () => undefined });
  const { port } = new URL(server.url);
  const agents = Array.from({ length: 40 }, () => new http.Agent({ keepAlive: true, maxSockets: 1 }));
  const ask = (agent: http.Agent): Promise<string> => new Promise((resolve) => {
    const request = http.get({ port, host: '127.0.0.1', agent }, (response) => {
      response.resume().on('end', () => resolve(response.headers.connection ?? '')).on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''));
    });
    request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''));
  });
  for (const answer of await Promise.all(agents.map(ask))) assert.equal(answer, 'keep-alive');
  server.startDraining();
  for (let n = 0; n < 3; n++) for (const answer of await Promise.all(agents.map(ask))) assert.equal(answer, 'close');
  const last = agents.map(ask);
  const drained = server.drain();
  for (const answer of await Promise.all(last)) assert.ok(['close', 'ECONNREFUSED'].includes(answer), answer);
  await drained;
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

test('server: a request that is too large gets its error, however large it is', async (t) => {
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
  const requests = [`${head('/user/', body.length)}${body}`, head('/user/', 100_000), head('/nothing', 10)];
  const [wanted = '', long = '', unknown = ''] = await Promise.all(requests.map((request) => sendRaw(url, [request])));
  assert.match(wanted, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 201 /);
  assert.match(long, /^HTTP\/1\.1 413 /);
  assert.match(unknown, /^HTTP\/1\.1 404 /);
});

test('server: it listens on IPv6 too, and says where', async (t) => {
  const { url, ask } = await openService(t, [...cheap, '--host', '::1']);
  assert.match(url, /^https:\/\/\[::1\]:\d+$/);
  assert.equal((await ask('/user/')).status, 200);
  assert.match(await sendRaw(url, [`OPTIONS * HTTP/1.1\r\n${host}Connection: close\r\n\r\n`]), /^HTTP\/1\.1 204 [^]*\r\nAllow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n/);
});

test('server: an address of another machine and a host that cannot be resolved are named', async () => {
  const options = { certificate: undefined, connectionsMax: 10, handler: async () => undefined, report: () => undefined };
  const cases = [['192.0.2.1', /does not have that address: choose another with --host/], ['nobody.invalid', /the host name cannot be resolved/]] as const;
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

type Handle = (context: RequestContext) => Promise<Reply> | Reply;

async function serve(t: TestContext, table: Readonly<Record<string, Handle>>): Promise<{ url: string; reports: string[] }> {
  const reports: string[] = [];
  const routes = Object.entries(table).map(([pattern, handle]) =>
    route({ method: 'GET', pattern, action: 'public', handle: (_parts, context) => handle(context) }));
  // No route here calls any of them.
  const parts = {} as RouteParts;
  const authenticator = {
    begin: () => undefined,
    admit: () => undefined,
    headers: () => undefined,
    authenticate: () => ({ kind: 'anonymous' }) as const,
  };
  const handler = createHandler({ routes, parts, authenticator, rules: { registration: 'open' }, hsts: false, notFound: { status: 404 }, report: (line) => reports.push(line) });
  const server = http.createServer((request, response) => void handler(request, response, 'none', () => undefined));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, reports };
}

test('handler: of a defect the client gets an id, and the log all of it, cause by cause', async (t) => {
  const { url, reports } = await serve(t, {
    '/bug': () => {
      throw new TypeError('the secret plan', { cause: new Error('deeper', { cause: 'not an error' }) });
    },
    '/damage': () => {
      throw new RegistrarError('corrupt', 'Cannot read "/var/lib/x": line 7', { cause: new RegistrarError('unavailable', 'why') });
    },
  });
  for (const [path, inLog] of [['/bug', /internal: .*TypeError: the secret plan[^]*deeper/], ['/damage', /corrupt: Cannot read .* <- unavailable: why/]] as const) {
    const response = await fetch(url + path);
    assert.equal(response.status, 500);
    const text = await response.text();
    assert.doesNotMatch(text, /secret|plan|TypeError|var|line 7|\.ts/);
    const { request, detail } = JSON.parse(text);
    assert.ok(detail.includes(request));
    const line = reports.pop() ?? '';
    assert.ok(line.includes(request));
    assert.match(line, inLog);
  }
});

test('handler: a stream that fails half-way is cut, so that it does not look complete', async (t) => {
  const { url, reports } = await serve(t, {
    '/half': () => ({
      status: 200,
      body: (async function* () {
        yield Buffer.from('half');
        await new Promise((resolve) => setTimeout(resolve, 20));
        throw new Error('the disk is gone');
      })(),
    }),
  });
  const response = await fetch(`${url}/half`);
  assert.equal(response.status, 200);
  await assert.rejects(response.text(), /terminated|aborted|closed/);
  assert.match(reports.join(), /while its response was sent: internal: .*the disk is gone/);
});

test('handler: a stream goes as fast as its reader, and stops when the reader leaves', async (t) => {
  let given = 0;
  let ended = 0;
  const endless: Handle = () => ({
    status: 200,
    body: (async function* () {
      try {
        for (; ; given++) yield Buffer.alloc(100_000);
      } finally {
        ended++;
      }
    })(),
  });
  const { url } = await serve(t, { '/endless': endless });
  const request = http.get(`${url}/endless`);
  request.on('error', () => undefined);
  const [response] = await once(request, 'response');
  response.on('error', () => undefined);
  await once(response, 'readable');
  let before = -1;
  await until(async () => {
    const same = before === given;
    before = given;
    await new Promise((resolve) => setTimeout(resolve, 50));
    return same;
  }, 'the stream to wait for its reader');
  assert.ok(given < 500, `${given} parts were given to a reader that reads nothing`);
  request.destroy();
  await until(() => ended === 1, 'the stream to end');
});

test('handler: the signal of a call is aborted when its client leaves, and not when it was answered', async (t) => {
  const signals: AbortSignal[] = [];
  const { url } = await serve(t, {
    '/waits': async (call) => {
      const { signal } = call;
      assert.equal(call.signal, signal);
      signals.push(signal);
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      throw signal.reason;
    },
    '/quick': ({ signal }) => {
      signals.push(signal);
      return { status: 204 };
    },
  });
  assert.equal((await fetch(`${url}/quick`)).status, 204);
  const controller = new AbortController();
  const asked = fetch(`${url}/waits`, { signal: controller.signal });
  await until(() => signals.length === 2, 'the call');
  controller.abort();
  await assert.rejects(asked);
  await until(() => signals[1]!.aborted, 'the signal');
  assert.equal(signals[0]!.aborted, false);
});

test('problem: every code has a status of its kind, and what is thrown is one', () => {
  const statuses = { malformed: 400, taken: 409, overloaded: 503, 'storage-full': 507, internal: 500 } as const;
  for (const [code, status] of Object.entries(statuses) as [keyof typeof statuses, number][]) {
    const { headers = {}, body, ...reply } = problem(new RegistrarError(code, 'why', { retryAfterSeconds: 3, allow: ['GET'] }), 'id');
    assert.equal(reply.status, status);
    assert.equal(headers['Retry-After'], '3');
    assert.equal(headers.Allow, 'GET');
    assert.equal(JSON.parse(String(body)).type, `urn:registrar:${code}`);
  }
  assert.equal(asRegistrarError('a string').code, 'internal');
  assert.equal(asRegistrarError('a string').cause, 'a string');
});

const adminOptions = { headers: { authorization: `Bearer ${adminToken}` } };

test('smuggling: whatever can be read in two ways is refused and closed, and what is hidden in it is never carried out', async (t) => {
  const { url, ask } = await openService(t, [...cheap, '--limits', 'off'], { REGISTRAR_ADMIN_TOKEN: adminToken });
  assert.ok(ambiguousRequests.length >= 30);
  const findings = await Promise.all(ambiguousRequests.map(async ({ name, bytes, status = 400 }, n) => {
    const started = performance.now();
    const text = await sendRaw(url, [bytes(hiddenRequest(`hidden${n}`))]);
    const wrong: string[] = [];
    const statuses = (text.match(/^HTTP\/1\.1 \d+/gm) ?? []).map((line) => Number(line.slice(9)));
    if (String(statuses) !== (status === 0 ? '' : String(status))) wrong.push(`was answered ${statuses.join(', ') || 'nothing'}`);
    if (status !== 0 && !/\r\nConnection: close\r\n/i.test(text)) wrong.push('does not say that the connection is closed');
    if (performance.now() - started > 9_000) wrong.push('was left open');
    return wrong.map((line) => `${name}: ${line}`);
  }));
  const { users } = (await ask('/user/?limit=1000', adminOptions)).json;
  for (const { login } of users) findings.push([`${login} was carried out: ${ambiguousRequests[Number(login.slice(6))]?.name}`]);
  assert.deepEqual(findings.flat(), []);
  // The same request is carried out where nothing hides it.
  assert.match(await sendRaw(url, [hiddenRequest('seen').replace('Host:', 'Connection: close\r\nHost:')]), /^HTTP\/1\.1 201 /);
});

test('smuggling: a name that was made to point here is refused, whatever it looks like, by Host and by the page\'s origin', async (t) => {
  const { ask } = await openService(t);
  const hosts = [
    'evil.example', 'evil.example:8443', 'localhost.evil.example', 'localhost.', 'localhost.localdomain', '127.0.0.1.nip.io', '127.0.0.2', '127.1', '0x7f.1',
    '2130706433', '0', '0.0.0.0', '[::]', '[::ffff:127.0.0.1]', '::1', '[::1', '[::1].evil.example', 'localhost@evil.example', 'evil.example#localhost', 'localhost:',
    'localhost:8443:1', 'localhost:999999', 'localhost, evil.example', 'xn--lcalhost-x1b',
  ];
  for (const host of hosts) {
    const { status, json } = await ask('/user/', { headers: { host } });
    // What is not a host at all is malformed.
    assert.deepEqual([status, json.type], /[@# ]/.test(host) ? [400, 'urn:registrar:malformed'] : [403, 'urn:registrar:forbidden'], host);
  }
  const origins = ['null', 'https://evil.example', 'https://localhost', 'https://localhost.evil.example', 'file://', 'http://127.0.0.1:1', ''];
  for (const origin of origins) {
    const { status } = await ask('/user/', { method: 'POST', headers: { host: 'localhost:8443', origin }, body: { login: 'mallory', password: 'correct horse' } });
    assert.equal(status, 403, origin);
  }
  for (const site of ['cross-site', 'same-site']) {
    const { status } = await ask('/user/', { method: 'POST', headers: { 'sec-fetch-site': site }, body: { login: 'mallory', password: 'correct horse' } });
    assert.equal(status, 403, site);
  }
  assert.deepEqual((await ask('/user/')).json.users, []);
});

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
    ['a line break in the login', '{"login":"mal\\nlory","password":"correct horse"}', 422],
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
  // Logins of two scripts that look alike are different users, or invalid.
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
    ['/user/?after=x', 403], ['/user/.%2fbob', 403], ['/session/../user/alice', 404], ['/user/alice/session', 405], ['/.well-known/../user/alice', 404], ['/user/alice/.', 404],
    [`/user/${'a'.repeat(5_000)}`, 403], ['/user/%F0%9F%98%80', 403], ['/user/{login}', 403], ['/user/%7Blogin%7D', 403], ['/user/__proto__', 403], ['/__proto__', 404], ['/..', 404],
  ];
  for (const [path, status] of paths) assert.equal(await asked(path, bob), status, path);
  // They reveal no more than the plain path.
  for (const [path, status] of paths) assert.equal(await asked(path, {}), status === 403 ? 401 : status, path);
  for (const [path] of paths.filter(([path]) => /%0d|%00/.test(path))) assert.ok(await asked(path, admin) < 500, path);
});

test('spellings: headers by the hundred, cookies by the kilobyte, and names that objects have are no failure', async (t) => {
  const { ask, url, reports } = await openService(t, unlimited, closed);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  const { token } = (await ask('/session', { method: 'POST', body: { login: 'alice', password } })).json;
  const opened = await ask('/session', { method: 'POST', body: { login: 'alice', password, cookie: 'session' } });
  const [cookie = ''] = String(opened.headers['set-cookie']).split(';');
  const many = Array.from({ length: 400 }, (_, n) => `c${n}=v`).join('; ');
  const statuses: [name: string, head: string, status: number][] = [
    ['400 cookies', `Cookie: ${many}; ${cookie}`, 200], ['400 cookies in 50 headers', `${`Cookie: ${many.slice(0, 99)}\r\n`.repeat(50)}Cookie: ${cookie}`, 200],
    ['cookies of 9 KB', `Cookie: ${'x'.repeat(9_000)}`, 431], ['the cookie twice', `Cookie: ${cookie}\r\nCookie: ${cookie}`, 401], ['the cookie in quotes', `Cookie: "${cookie}"`, 401],
    ['the cookie in other letters', `Cookie: ${cookie.toLowerCase()}`, 401], ['a cookie in front without an end', `Cookie: a="; ${cookie}`, 200],
    ['a name of an object', `__proto__: x\r\nconstructor: y\r\ntoString: z\r\nhasOwnProperty: w\r\nvalueOf: v\r\nCookie: ${cookie}`, 200],
    ['100 headers', `${'x: y\r\n'.repeat(100)}Cookie: ${cookie}`, 431], ['2,000 headers', 'x: y\r\n'.repeat(2_000).slice(0, -2), 431],
    ['an empty cookie', 'Cookie:', 401], ['a cookie whose name begins with U+00A0', `Cookie: \u00a0${cookie}`, 401], ['the same in front of the good one', `Cookie: \u00a0__Host-registrar=x; ${cookie}`, 200], ['Authorization twice', `Authorization: Bearer ${token}\r\nAuthorization: Bearer x`, 400],
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
