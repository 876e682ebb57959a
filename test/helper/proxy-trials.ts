/** What has to hold behind either proxy; each server's own test runs it with the real one. */

import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { chmodSync, chownSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';
import { makeToken } from '../../lib/auth/static-token.ts';
import { ask, basic, behind, inspect, printed, proxyDirectory, proxyUser, siteText, spawnProxy } from './proxy.ts';
import type { Got, ProxyName } from './proxy.ts';
import { certificates, cheap, readUsersFile, spawnService } from './service.ts';
import { childEnvironment, freePort, loader, makeCertificate, root, temporaryDirectory, until } from './temporary.ts';
import { trial } from './trial.ts';

const run = promisify(execFile);
const password = 'correct horse';

export function proxyTrials(name: ProxyName): void {
  const needs = [name === 'apache' ? 'apache2' : name];

  trial(`${name}: the printed site passes the server's own check, in every variant`, { needs }, (t) => {
    const { directory, certs } = proxyDirectory(t);
    const file = join(directory, 'site.conf');
    const common = ['--certs', certs, '--trusted-proxy', '127.0.0.1,::1,unix', '--public-url', 'https://registrar.example'];
    const variants: string[][] = [
      [],
      ['--http', '--socket', join(directory, 'a socket')],
      ['--socket', join(directory, 'socket')],
      ['--http', '--host', '::1'],
      ['--public-url', 'https://registrar.example/accounts'],
      ['--proxy-cert', join(certs, 'cert.pem'), '--proxy-key', join(certs, 'key.pem'), '--upstream-ca', join(certs, 'cert.pem')],
      ['--limits', 'off', '--registration', 'admin', '--server-name', 'other.example'],
      ...(name === 'apache' ? [] : [
        ['--auth-for', 'http://127.0.0.1:3000'], ['--auth-for', 'http://[::1]:3000', '--app-body-max', '20m', '--public-url', 'https://a.example/b'],
      ]),
    ];
    for (const variant of variants) {
      for (const listen of [['--listen', '127.0.0.1:18080', '--listen-tls', '127.0.0.1:18443'], ['--listen', '18080', '--listen-tls', '18443']]) {
        writeFileSync(file, siteText(name, [...common, ...listen, ...variant], directory));
        const { status: verdict, said } = inspect(name, file, directory);
        assert.equal(verdict, 0, `${variant.join(' ')}: ${said}`);
        assert.doesNotMatch(said, name === 'caddy' ? /"logger":"caddyfile"/ : /warn|deprecat|AH\d{5}: .*(?:overlap|ignor)/i, variant.join(' '));
      }
      // The site for Debian's own server is the same but for what a main configuration adds.
      const site = siteText(name, [...common, ...variant]);
      assert.match(site, /On Debian: write this file to/);
      assert.doesNotMatch(site, /LoadModule|daemon off/);
    }
  });

  for (const [first, second] of [['alice', 'bob'], ['алиса', 'борис']] as const) {
    trial(`${name}: the six steps through curl, as ${first}`, { needs: [...needs, 'curl'] }, async (t) => {
      const { proxy, data } = await behind(t, name);
      const curl = async (...args: string[]): Promise<{ status: string; text: string }> => {
        const { stdout } = await run('curl', ['--cacert', join(certificates(), 'cert.pem'), '-s', '-w', '\n%{http_code}', ...args]);
        const cut = stdout.lastIndexOf('\n');
        return { status: stdout.slice(cut + 1), text: stdout.slice(0, cut) };
      };
      const register = (login: string): Promise<{ status: string; text: string }> =>
        curl('-H', 'Content-Type: application/json', '-d', JSON.stringify({ login, password }), `${proxy.url}/user/`);
      const path = `${proxy.url}/user/${encodeURIComponent(first)}`;

      const created = await register(first);
      assert.equal(created.status, '201', created.text);
      assert.equal((await register(second)).status, '201');
      const [one, two] = readUsersFile(data).slice(1);
      assert.match(one.password, /^[0-9a-f]{32}\$[0-9a-f]{64}$/);
      assert.notEqual(one.password, two.password);
      assert.equal((await register(first)).status, '409');
      assert.equal((await curl(path)).status, '401');
      assert.equal((await curl('-u', `${first}:wrong horse`, path)).status, '401');
      const read = await curl('-u', `${first}:${password}`, path);
      assert.deepEqual([read.status, JSON.parse(read.text)], ['200', JSON.parse(created.text)]);
      assert.equal((await curl('-u', `${second}:${password}`, '-X', 'DELETE', path)).status, '403');
      assert.deepEqual(await curl('-u', `${first}:${password}`, '-X', 'DELETE', path), { status: '204', text: '' });
      assert.equal((await curl('-u', `${first}:${password}`, path)).status, '401');
    });
  }

  trial(`${name}: plain HTTP is sent to HTTPS, with path and query; what a program sends is refused`, { needs: [...needs, 'curl'] }, async (t) => {
    const { proxy } = await behind(t, name);
    const { stdout } = await run('curl', ['-s', '-i', `${proxy.http}/user/%D0%B0?limit=1&after=x`]);
    assert.match(stdout, /^HTTP\/1\.1 308 /);
    assert.ok(stdout.includes(`\r\nLocation: ${proxy.url}/user/%D0%B0?limit=1&after=x\r\n`) || stdout.includes(`\r\nLocation: ${proxy.url}/user/%d0%b0?limit=1&after=x\r\n`), stdout);
    for (const program of [['-d', '{}'], ['-X', 'DELETE'], ['-u', 'alice:secret']]) {
      const refused = await run('curl', ['-s', '-i', ...program, `${proxy.http}/user/alice`]);
      assert.match(refused.stdout, /^HTTP\/1\.1 403 [^]*application\/problem\+json[^]*"urn:registrar:forbidden"/, program[0]);
    }
    // The server does not tell its version.
    assert.doesNotMatch(stdout, /Server: \S*\d/);
  });

  trial(`${name}: clients are limited by their own address, whatever they claim`, { needs }, async (t) => {
    const { proxy, token } = await behind(t, name);
    const register = (n: number, from: string): Promise<Got> => ask(proxy.url, '/user/', {
      method: 'POST', body: { login: `user${n}`, password }, from,
      headers: { 'X-Forwarded-For': `192.0.2.${n}`, Forwarded: `for=192.0.2.${n}`, 'X-Real-IP': `192.0.2.${n}` },
    });
    for (let n = 0; n < 60; n++) assert.equal((await register(n, '127.0.0.2')).status, 201);
    const refused = await register(60, '127.0.0.2');
    assert.equal(refused.status, 429, refused.text);
    assert.ok(Number(refused.headers['retry-after']) > 0);
    assert.equal(refused.json.type, 'urn:registrar:rate-limited');
    assert.equal((await register(61, '127.0.0.3')).status, 201);
    // The service's id of the request came through, once.
    assert.match(String(refused.headers['x-request-id']), /^[0-9a-f]{16}$/);
    const list = await ask(proxy.url, '/user/?limit=1000', { headers: { Authorization: `Bearer ${token}` } });
    assert.equal(list.json.users.length, 61);
    const lines = await ask(proxy.url, '/user/', { headers: { Authorization: `Bearer ${token}`, Accept: 'application/x-ndjson' } });
    assert.equal(lines.text.trimEnd().split('\n').length, 61);
  });

  trial(`${name}: a page of another site may change nothing, the own one may`, { needs }, async (t) => {
    const data = temporaryDirectory(t);
    await makeToken(data, 'admin');
    const port = String(await freePort());
    // The service knows its own name as the proxy says it, be it by Host or by --public-url.
    const proxy = await spawnProxy(t, name, ['--data', data, '--port', port, '--trusted-proxy', '127.0.0.1']);
    await spawnService(t, { data, args: [...cheap, '--port', port, '--trusted-proxy', '127.0.0.1', ...(name === 'apache' ? ['--public-url', proxy.url] : [])] });
    const put = (login: string, origin: string): Promise<Got> =>
      ask(proxy.url, `/user/${login}`, { method: 'PUT', body: { password }, headers: { Origin: origin } });
    assert.equal((await put('alice', 'https://evil.example')).status, 403);
    assert.equal((await put('alice', proxy.url)).status, 201);
  });

  trial(`${name}: a body that is too large, a service that is gone: answers as the service's`, { needs }, async (t) => {
    const { proxy, service } = await behind(t, name);
    const large = await ask(proxy.url, '/user/', { method: 'POST', body: { login: 'alice', password: 'x'.repeat(20_000) } });
    assert.deepEqual([large.status, large.json?.type], [413, 'urn:registrar:too-large']);
    assert.match(String(large.headers['content-type']), /^application\/problem\+json/);
    service.child.kill('SIGTERM');
    await service.ended;
    const gone = await ask(proxy.url, '/user/alice');
    assert.ok([502, 503].includes(gone.status), String(gone.status));
    assert.deepEqual([gone.json?.status, gone.json?.type, gone.headers['retry-after']], [gone.status, 'urn:registrar:unreachable', '2']);
    assert.match(String(gone.headers['content-type']), /^application\/problem\+json/);
  });

  trial(`${name}: a request line that cannot be read is 400 as the service's, and a dripping body is ended`, { needs }, async (t) => {
    const { proxy } = await behind(t, name);
    const exchange = async (first: string, drip?: string): Promise<string> => {
      const socket = tls.connect({ port: Number(new URL(proxy.url).port), host: '127.0.0.1', servername: 'localhost', rejectUnauthorized: false });
      let text = '';
      socket.on('data', (chunk) => (text += chunk));
      socket.on('error', () => undefined);
      const dripping = drip === undefined ? undefined : setInterval(() => socket.write(drip), 500);
      socket.write(first);
      await once(socket, 'close');
      clearInterval(dripping);
      return text;
    };
    const host = `Host: localhost:${new URL(proxy.url).port}\r\n`;
    for (const line of ['GET /%00', 'GET /user/%00/../..', 'GET /..', 'GET /../x', 'GET /%', 'G\0T /', 'GET']) {
      const text = await exchange(`${line} HTTP/1.1\r\n${host}Connection: close\r\n\r\n`);
      const [, status] = /^HTTP\/1\.1 (\d+)/.exec(text) ?? [];
      // Apache answers an encoded NUL with 404, before any of its directives is asked.
      const isProblem = /\r\ncontent-type: application\/problem\+json/i.test(text) && /"urn:registrar:[a-z-]+"/.test(text);
      if (name === 'caddy' && status === '400' && !isProblem) continue;
      assert.ok(status === '400' || (name !== 'nginx' && /^(?:401|403|404)$/.test(String(status))), `${line}: ${text}`);
      assert.ok(isProblem, `${line}: ${text}`);
    }
    const from = performance.now();
    await exchange(`POST /user/ HTTP/1.1\r\n${host}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n`, '{');
    assert.ok(performance.now() - from < 30_000);
  });

  trial(`${name}: a client that never finishes its request is disconnected, and delays no other`, { needs }, async (t) => {
    const { proxy, token } = await behind(t, name);
    const socket = tls.connect({ port: Number(new URL(proxy.url).port), host: '127.0.0.1', rejectUnauthorized: false });
    t.after(() => socket.destroy());
    socket.on('error', () => undefined);
    socket.resume();
    await once(socket, 'secureConnect');
    socket.write('POST /user/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{');
    const closed = once(socket, 'close');
    const list = await ask(proxy.url, '/user/', { headers: { Authorization: `Bearer ${token}` } });
    assert.equal(list.status, 200);
    await closed;
  });

  trial(`${name}: a service with another certificate than the one it should have gets nothing`, { needs }, async (t) => {
    const { proxy, service, data, servicePort } = await behind(t, name);
    assert.equal((await ask(proxy.url, '/user/alice', { method: 'PUT', body: { password } })).status, 201);
    service.child.kill('SIGTERM');
    await service.ended;
    const certs = join(temporaryDirectory(t), 'certs');
    makeCertificate(certs);
    const impostor = await spawnService(t, { data, args: [...cheap, '--port', String(servicePort), '--trusted-proxy', '127.0.0.1', '--certs', certs] });
    const refused = await ask(proxy.url, '/user/bob', { method: 'PUT', body: { password } });
    // Apache calls it 500.
    assert.ok([500, 502, 503].includes(refused.status), `${refused.status} ${refused.text}`);
    assert.equal(refused.json?.type, 'urn:registrar:unreachable');
    assert.equal(readUsersFile(data).length, 2);
    assert.equal((await impostor.ask('/user/bob', { method: 'PUT', body: { password } })).status, 201);
  });

  trial(`${name}: over a unix socket of plain HTTP, whose group the proxy is in`, { needs }, async (t) => {
    const place = temporaryDirectory(t);
    chmodSync(place, 0o711);
    const data = temporaryDirectory(t);
    await makeToken(data, 'admin');
    const socket = join(place, 'http');
    const own = ['--http', '--socket', socket, '--trusted-proxy', 'unix'];
    await spawnService(t, { data, args: [...cheap, ...own] });
    if (proxyUser !== undefined) chownSync(socket, 0, proxyUser.gid);
    const proxy = await spawnProxy(t, name, ['--data', data, ...own]);
    const created = await ask(proxy.url, '/user/%D0%B0%D0%BB%D0%B8%D1%81%D0%B0', { method: 'PUT', body: { password }, headers: { Origin: proxy.url } });
    assert.deepEqual([created.status, created.json?.login], [201, 'алиса']);
    const read = await ask(proxy.url, '/user/%D0%B0%D0%BB%D0%B8%D1%81%D0%B0', { headers: { Authorization: basic('алиса', password) } });
    assert.equal(read.status, 200);
  });

  trial(`${name}: a reload under load fails no request`, { needs }, async (t) => {
    const { proxy, token } = await behind(t, name);
    const load = startLoad(proxy.url, token);
    await until(() => load.results.length >= 20, 'the load has begun');
    for (let n = 0; n < 3; n++) {
      const before = load.results.length;
      proxy.reload();
      await until(() => load.results.length >= before + 60, 'the load goes on');
    }
    await load.stop();
    assert.deepEqual(load.failures(), []);
    await load.verify();
  });

  trial(`${name}: a service that is started anew under load loses no write that was acknowledged`, { needs }, async (t) => {
    const { proxy, token, data, service, servicePort } = await behind(t, name);
    const load = startLoad(proxy.url, token);
    await until(() => load.results.length >= 40, 'the load has begun');
    service.child.kill('SIGTERM');
    await service.ended;
    const gap = load.results.length;
    await until(() => load.results.length >= gap + 20, 'requests in the gap');
    await spawnService(t, { data, args: [...cheap, '--port', String(servicePort), '--trusted-proxy', '127.0.0.1'] });
    const after = load.results.length;
    await until(() => load.results.slice(after).filter(({ status }) => status < 400).length >= 40, 'it goes on');
    await load.stop();
    for (const failure of load.failures()) requireUnreachable(failure);
    await load.verify();
  });

  trial(`${name}: a service that closes a connection under a second request fails no request`, { needs }, async (t) => {
    const stub = await openStub(t, (nth) => nth === 1);
    const proxy = await spawnProxy(t, name, await stubFlags(t, stub));
    // Each of the server's workers has connections of its own.
    for (const method of ['PATCH', 'GET', 'DELETE', 'POST', 'PUT'].flatMap((each) => Array.from({ length: 6 }, () => each))) {
      assert.equal((await ask(proxy.url, '/user/alice', { method })).status, 200, method);
    }
    assert.equal(stub.seen.length, 30);
  });

  trial(`${name}: a write that was lost with a service is not sent again`, { needs }, async (t) => {
    const lost = await openStub(t, () => false);
    const proxy = await spawnProxy(t, name, await stubFlags(t, lost));
    for (const [method, path] of [['PATCH', '/user/alice'], ['POST', '/user/'], ['DELETE', '/user/alice'], ['PUT', '/user/alice']] as const) {
      const before = lost.seen.length;
      assert.ok([500, 502, 503].includes((await ask(proxy.url, path, { method, body: {} })).status), method);
      assert.equal(lost.seen.length, before + 1, method);
    }
  });

  runTrial(name, needs);

  trial(`${name}: without an admin token the command refuses, and says the way out; with one it prints the site`, async (t) => {
    const data = temporaryDirectory(t);
    const refused = printed([name, '--data', data, '--certs', certificates(), '--trusted-proxy', '127.0.0.1']);
    assert.deepEqual([refused.status, refused.stdout], [1, '']);
    assert.match(refused.stderr, /^registrar: [^\n]*registrar token\n$/);
    await makeToken(data, 'admin');
    const flags = ['--data', data, '--certs', certificates(), '--trusted-proxy', '127.0.0.1', '--public-url', 'https://registrar.example'];
    assert.deepEqual(printed([name, ...flags]), { ...refused, status: 0, stderr: '', stdout: siteText(name, flags) });
  });
}

function requireUnreachable({ status, text, json, headers }: Got): void {
  assert.ok([500, 502, 503].includes(status), `${status} ${text}`);
  assert.deepEqual([json?.type, Number(headers['retry-after']) >= 1], ['urn:registrar:unreachable', true], text);
}

const clientsOfLoad = 4;

interface Seen {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
}

interface Stub {
  readonly port: number;
  readonly seen: Seen[];
}

/** Stands for a service that dies: it takes a request, and closes the connection instead of an answer. */
async function openStub(t: TestContext, answers: (nthOfConnection: number) => boolean): Promise<Stub> {
  const seen: Seen[] = [];
  const counts = new WeakMap<object, number>();
  const server = createServer((request, response) => {
    const { method = '', headers, socket } = request;
    const nth = (counts.get(socket) ?? 0) + 1;
    counts.set(socket, nth);
    request.resume();
    request.on('end', () => {
      const isAnswered = answers(nth);
      if (isAnswered || nth === 1) seen.push({ method, headers });
      if (isAnswered) response.end('{}');
      else socket.destroy();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { port: (server.address() as AddressInfo).port, seen };
}

async function stubFlags(t: TestContext, { port }: Stub): Promise<string[]> {
  const data = temporaryDirectory(t);
  await makeToken(data, 'admin');
  return ['--data', data, '--http', '--port', String(port), '--limits', 'off'];
}

/** `make nginx` and `make apache`, on other ports. */
function runTrial(name: ProxyName, needs: readonly string[]): void {
  trial(`${name}: --run makes a token, serves by both, and Ctrl-C ends both and leaves nothing`, { needs }, async (t) => {
    let child: ChildProcessWithoutNullStreams | undefined;
    // Before the directories, which are gone when their own hooks have run.
    t.after(() => {
      child?.kill('SIGKILL');
      // The server is a process by itself, and ends with the command only if that is asked.
      for (const file of readdirSync(temporary, { recursive: true, encoding: 'utf8' }).filter((entry) => entry.endsWith('.pid'))) {
        process.kill(Number(readFileSync(join(temporary, file), 'utf8')), 'SIGTERM');
      }
    });
    const [data, temporary] = [temporaryDirectory(t), temporaryDirectory(t)];
    // Apache's workers are another user if root starts it.
    for (const path of [data, temporary]) chmodSync(path, 0o711);
    const [http, tls] = [await freePort(), await freePort()];
    const flags = ['--data', data, '--certs', certificates(), '--port', '0', '--listen', `127.0.0.1:${http}`, '--listen-tls', `127.0.0.1:${tls}`, ...cheap];
    const refused = spawnSync(process.execPath, [...loader, 'bin/registrar.ts', 'proxy', name, '--run', ...flags], { cwd: root, env: childEnvironment(), encoding: 'utf8' });
    assert.deepEqual([refused.status, /--port 0/.test(refused.stderr), readdirSync(data)], [2, true, []]);
    flags[5] = String(await freePort());
    const env = childEnvironment({ TMPDIR: temporary });
    child = spawn(process.execPath, [...loader, 'bin/registrar.ts', 'proxy', name, '--run', ...flags], { cwd: root, env });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
    const ended = once(child, 'exit');
    const url = `https://localhost:${tls}`;
    await until(async () => {
      assert.equal(child?.exitCode, null, output);
      return (await ask(url, '/user/alice').catch(() => undefined))?.status === 401;
    }, `${name} serves`);
    assert.equal((await ask(url, '/user/alice', { method: 'PUT', body: { password } })).status, 201);
    assert.match(output, new RegExp(`The admin token is new, and in "${data}/admin-token"`));
    assert.ok(!output.includes(readFileSync(join(data, 'admin-token'), 'utf8').trim()));
    child.kill('SIGINT');
    assert.deepEqual(await ended, [0, null], output);
    assert.deepEqual(readdirSync(temporary).filter((entry) => entry.startsWith('registrar-')), []);
    await assert.rejects(ask(url, '/'), /ECONNREFUSED/);
  });
}

interface Load {
  readonly results: Got[];
  readonly failures: () => Got[];
  readonly stop: () => Promise<void>;
  /** Every user whose creation was acknowledged is there. */
  readonly verify: () => Promise<void>;
}

/** Clients who register, read and remove without a pause, each request on a connection of its own. */
function startLoad(url: string, token: string): Load {
  const results: Got[] = [];
  const there = new Set<string>();
  let isOver = false;
  const headers = { Authorization: `Bearer ${token}` };
  const one = async (client: number): Promise<void> => {
    for (let n = 0; !isOver; n++) {
      const login = `user${client}.${n}`;
      const created = n % 3 === 0
        ? await ask(url, `/user/${login}`, { method: 'PUT', body: { password }, headers })
        : await ask(url, '/user/', { method: 'POST', body: { login, password }, headers });
      results.push(created);
      if (created.status !== 201) continue;
      there.add(login);
      const read = await ask(url, `/user/${login}`, { headers });
      results.push(read);
      assert.notEqual(read.status, 404, `${login} is not there`);
      if (n % 2 === 1) continue;
      // Its outcome is unknown: it may exist or not.
      there.delete(login);
      results.push(await ask(url, `/user/${login}`, { method: 'DELETE', headers }));
    }
  };
  const all = Array.from({ length: clientsOfLoad }, (_, client) => one(client));
  return {
    results,
    failures: () => results.filter(({ status }) => status >= 400),
    stop: async () => {
      isOver = true;
      await Promise.all(all);
    },
    verify: async () => {
      const { text } = await ask(url, '/user/', { headers: { ...headers, Accept: 'application/x-ndjson' } });
      const logins = new Set(text.trimEnd().split('\n').map((line) => JSON.parse(line).login));
      assert.deepEqual([...there].filter((login) => !logins.has(login)), []);
      assert.ok(there.size > 10, `${there.size} users`);
    },
  };
}
