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
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import tls from 'node:tls';
import { promisify } from 'node:util';
import { parseTokenConfig } from '../../lib/command-config.ts';
import { makeAdminToken } from '../../lib/maintenance.ts';
import { ask, basic, behind, freePort, inspect, printed, proxyDirectory, proxyUser, siteText, spawnProxy, withoutProxy } from './proxy.ts';
import type { Got, ProxyName } from './proxy.ts';
import { certificates, cheap, readUsersFile, spawnService } from './service.ts';
import { loader, makeCertificate, root, temporaryDirectory, until, without } from './temporary.ts';

const run = promisify(execFile);
const password = 'correct horse';

export function proxyTrials(name: ProxyName): void {
  const skip = withoutProxy(name);

  test(`${name}: the printed site passes the server's own check, in every variant`, { skip }, (t) => {
    const { directory, certs } = proxyDirectory(t);
    const file = join(directory, 'site.conf');
    const common = ['--certs', certs, '--trusted-proxy', '127.0.0.1,::1,unix', '--public-url', 'https://registrar.example'];
    const variants: string[][] = [
      [],
      ['--http', '--socket', join(directory, 'a socket')],
      ['--socket', join(directory, 'socket')],
      ['--http', '--host', '::1'],
      ['--also', `127.0.0.1:9443,[::1]:9443,${join(directory, 'socket')}`],
      ['--proxy-cert', join(certs, 'cert.pem'), '--proxy-key', join(certs, 'key.pem'), '--upstream-ca', join(certs, 'cert.pem')],
      ['--limits', 'off', '--registration', 'admin', '--server-name', 'other.example'],
      ...(name === 'nginx' ? [['--auth-for', 'http://127.0.0.1:3000'], ['--auth-for', 'http://[::1]:3000', '--also', '127.0.0.1:1', '--sign-in', '/in']] : []),
    ];
    for (const variant of variants) {
      for (const listen of [['--listen', '127.0.0.1:18080', '--listen-tls', '127.0.0.1:18443'], ['--listen', '18080', '--listen-tls', '18443']]) {
        writeFileSync(file, siteText(name, [...common, ...listen, ...variant, '--whole', directory]));
        const { status: verdict, said } = inspect(name, file, directory);
        assert.equal(verdict, 0, `${variant.join(' ')}: ${said}`);
        assert.doesNotMatch(said, /warn|deprecat|AH\d{5}: .*(?:overlap|ignor)/i, variant.join(' '));
      }
      // The site for Debian's own server is the same but for what a main configuration adds.
      const site = siteText(name, [...common, ...variant]);
      assert.match(site, /sites-available\/registrar/);
      assert.doesNotMatch(site, /LoadModule|daemon off/);
    }
  });

  for (const [first, second] of [['alice', 'bob'], ['алиса', 'борис']] as const) {
    test(`${name}: the six steps through curl, as ${first}`, { skip: skip || without('curl') }, async (t) => {
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

  test(`${name}: plain HTTP is sent to HTTPS, with path and query`, { skip: skip || without('curl') }, async (t) => {
    const { proxy } = await behind(t, name);
    const { stdout } = await run('curl', ['-s', '-i', '-d', '{}', `${proxy.http}/user/%D0%B0?limit=1&after=x`]);
    assert.match(stdout, /^HTTP\/1\.1 308 /);
    assert.ok(stdout.includes(`\r\nLocation: ${proxy.url}/user/%D0%B0?limit=1&after=x\r\n`) || stdout.includes(`\r\nLocation: ${proxy.url}/user/%d0%b0?limit=1&after=x\r\n`), stdout);
    // The server does not tell its version.
    assert.doesNotMatch(stdout, /Server: \S*\d/);
  });

  test(`${name}: clients are limited by their own address, whatever they claim`, { skip }, async (t) => {
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
    assert.match(String(refused.headers['x-request-id']), /^[0-9a-f]+-\d+$/);
    const list = await ask(proxy.url, '/user/?limit=1000', { headers: { Authorization: `Bearer ${token}` } });
    assert.equal(list.json.users.length, 61);
    const lines = await ask(proxy.url, '/user/', { headers: { Authorization: `Bearer ${token}`, Accept: 'application/x-ndjson' } });
    assert.equal(lines.text.trimEnd().split('\n').length, 61);
  });

  test(`${name}: a page of another site may change nothing, the own one may`, { skip }, async (t) => {
    const data = temporaryDirectory(t);
    await makeAdminToken(parseTokenConfig(['--data', data], {}));
    const port = String(await freePort());
    // The service knows its own name as the proxy says it, be it by Host or by --public-url.
    const proxy = await spawnProxy(t, name, ['--data', data, '--port', port, '--trusted-proxy', '127.0.0.1']);
    await spawnService(t, { data, args: [...cheap, '--port', port, '--trusted-proxy', '127.0.0.1', ...(name === 'apache' ? ['--public-url', proxy.url] : [])] });
    const put = (login: string, origin: string): Promise<Got> =>
      ask(proxy.url, `/user/${login}`, { method: 'PUT', body: { password }, headers: { Origin: origin } });
    assert.equal((await put('alice', 'https://evil.example')).status, 403);
    assert.equal((await put('alice', proxy.url)).status, 201);
  });

  test(`${name}: a body that is too large, a service that is gone: answers as the service's`, { skip }, async (t) => {
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

  test(`${name}: a client that never finishes its request is shown out, and holds nobody up`, { skip }, async (t) => {
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

  test(`${name}: a service with another certificate than the one it should have gets nothing`, { skip }, async (t) => {
    const { proxy, service, data, servicePort } = await behind(t, name);
    assert.equal((await ask(proxy.url, '/user/alice', { method: 'PUT', body: { password } })).status, 201);
    service.child.kill('SIGTERM');
    await service.ended;
    const certs = join(temporaryDirectory(t), 'certs');
    makeCertificate(certs);
    const impostor = await spawnService(t, { data, args: [...cheap, '--port', String(servicePort), '--trusted-proxy', '127.0.0.1', '--certs', certs] });
    const refused = await ask(proxy.url, '/user/bob', { method: 'PUT', body: { password } });
    // Apache calls it 500.
    assert.ok([500, 502].includes(refused.status), `${refused.status} ${refused.text}`);
    assert.equal(refused.json?.type, 'urn:registrar:unreachable');
    assert.equal(readUsersFile(data).length, 2);
    assert.equal((await impostor.ask('/user/bob', { method: 'PUT', body: { password } })).status, 201);
  });

  test(`${name}: over a unix socket of plain HTTP, whose group the proxy is in`, { skip }, async (t) => {
    const place = temporaryDirectory(t);
    chmodSync(place, 0o711);
    const data = temporaryDirectory(t);
    await makeAdminToken(parseTokenConfig(['--data', data], {}));
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

  test(`${name}: read anew under load it fails nobody`, { skip }, async (t) => {
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

  test(`${name}: a service that is started anew under load loses no write that was acknowledged`, { skip }, async (t) => {
    const { proxy, token, data, service, servicePort } = await behind(t, name);
    const load = startLoad(proxy.url, token);
    await until(() => load.results.length >= 40, 'the load has begun');
    service.child.kill('SIGTERM');
    await service.ended;
    const gap = load.results.length;
    await until(() => load.results.length >= gap + 20, 'somebody has asked in the gap');
    await spawnService(t, { data, args: [...cheap, '--port', String(servicePort), '--trusted-proxy', '127.0.0.1'] });
    const after = load.results.length;
    await until(() => load.results.slice(after).filter(({ status }) => status < 400).length >= 40, 'it goes on');
    await load.stop();
    for (const failure of load.failures()) requireUnreachable(failure);
    await load.verify();
  });

  const fate = name === 'nginx' ? 'fail nobody' : 'fail nobody but who was at the door when one closed';
  test(`${name}: two services started anew, one after the other, ${fate}`, { skip }, async (t) => {
    const port = await freePort();
    const { proxy, token, data, service, servicePort } = await behind(t, name, { also: ['--also', `127.0.0.1:${port}`] });
    const args = (at: number): string[] => [...cheap, '--port', String(at), '--trusted-proxy', '127.0.0.1'];
    const other = await spawnService(t, { data, args: args(port) });
    const load = startLoad(proxy.url, token);
    for (const [running, at] of [[service, servicePort], [other, port]] as const) {
      const before = load.results.length;
      await until(() => load.results.length >= before + 40, 'the load goes on');
      running.child.kill('SIGTERM');
      await running.ended;
      const gap = load.results.length;
      await until(() => load.results.length >= gap + 40, 'the other serves');
      await spawnService(t, { data, args: args(at) });
    }
    await load.stop();
    if (name === 'nginx') {
      assert.deepEqual(load.failures().map(({ status, text }) => `${status} ${text}`), []);
    } else {
      // A handshake that was cut off is no reason to Apache to ask the other one.
      for (const failure of load.failures()) requireUnreachable(failure);
      assert.ok(load.failures().length <= 2 * clientsOfLoad, `${load.failures().length} of ${load.results.length} failed`);
    }
    await load.verify();
  });

  test(`${name}: a service that closes a connection under a second request fails nobody`, { skip }, async (t) => {
    const stub = await openStub(t, (nth) => nth === 1);
    const proxy = await spawnProxy(t, name, await stubFlags(t, stub));
    // Each of the server's workers has connections of its own.
    for (const method of ['PATCH', 'GET', 'DELETE', 'POST', 'PUT'].flatMap((each) => Array.from({ length: 6 }, () => each))) {
      assert.equal((await ask(proxy.url, '/user/alice', { method })).status, 200, method);
    }
    assert.equal(stub.seen.length, 30);
  });

  const again = name === 'nginx' ? 'only a registration, with its key' : 'nothing';
  test(`${name}: of what was lost with a service ${again} is sent to another`, { skip }, async (t) => {
    const [lost, whole] = [await openStub(t, () => false), await openStub(t, () => true)];
    const proxy = await spawnProxy(t, name, [...await stubFlags(t, lost), '--also', `127.0.0.1:${whole.port}`]);
    const key = 'the-client-s-own';
    const statuses: number[] = [];
    for (let n = 0; n < 8; n++) {
      const headers = { 'X-Request': String(n), ...(n >= 6 ? { 'Idempotency-Key': key } : {}) };
      const asked = n < 4 ? { method: 'PATCH', path: '/user/alice' } : { method: 'POST', path: '/user/' };
      statuses.push((await ask(proxy.url, asked.path, { method: asked.method, body: {}, headers })).status);
    }
    const seen = (n: number): Seen[] => [...lost.seen, ...whole.seen].filter(({ headers }) => headers['x-request'] === String(n));
    assert.ok(lost.seen.length > 0 && whole.seen.length > 0);
    for (let n = 0; n < 4; n++) assert.equal(seen(n).length, 1);
    assert.ok(statuses.slice(0, 4).includes(502));
    if (name === 'apache') {
      for (let n = 4; n < 8; n++) assert.equal(seen(n).length, 1);
      return;
    }
    assert.deepEqual(statuses.slice(4), [200, 200, 200, 200]);
    assert.ok([4, 5, 6, 7].some((n) => seen(n).length === 2));
    const keys = [4, 5, 6, 7].map((n) => new Set(seen(n).map(({ headers }) => headers['idempotency-key'])));
    assert.deepEqual(keys.map(({ size }) => size), [1, 1, 1, 1]);
    assert.match(String([...keys[4 - 4]!][0]), /^[0-9a-f]{32}$/);
    assert.notDeepEqual(keys[0], keys[1]);
    assert.deepEqual([...keys[2]!, ...keys[3]!], [key, key]);
  });

  runTrial(name, skip);

  test(`${name}: without an admin token the command refuses, and says the way out; with one it prints the site`, async (t) => {
    const data = temporaryDirectory(t);
    const refused = printed([name, '--data', data, '--certs', certificates(), '--trusted-proxy', '127.0.0.1']);
    assert.deepEqual([refused.status, refused.stdout], [1, '']);
    assert.match(refused.stderr, /^registrar: [^\n]*registrar token\n$/);
    await makeAdminToken(parseTokenConfig(['--data', data], {}));
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
  await makeAdminToken(parseTokenConfig(['--data', data], {}));
  return ['--data', data, '--http', '--port', String(port), '--limits', 'off'];
}

/** `make nginx` and `make apache`, on other ports. */
function runTrial(name: ProxyName, skip: string | false): void {
  test(`${name}: --run makes a token, serves by both, and Ctrl-C ends both and leaves nothing`, { skip }, async (t) => {
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
    // Apache's workers are somebody else where it is started by root.
    for (const path of [data, temporary]) chmodSync(path, 0o711);
    const [http, tls] = [await freePort(), await freePort()];
    const flags = ['--data', data, '--certs', certificates(), '--port', '0', '--listen', `127.0.0.1:${http}`, '--listen-tls', `127.0.0.1:${tls}`, ...cheap];
    const refused = spawnSync(process.execPath, [...loader, 'bin/registrar.ts', 'proxy', name, '--run', ...flags], { cwd: root, encoding: 'utf8' });
    assert.deepEqual([refused.status, /--port 0/.test(refused.stderr), readdirSync(data)], [2, true, []]);
    flags[5] = String(await freePort());
    const env = { ...process.env, TMPDIR: temporary };
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
    assert.match(output, new RegExp(`the admin token is new, and in ${data}/admin-token`));
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
      // Once it was asked for, and nobody knows what came of it, it may be there or not.
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
