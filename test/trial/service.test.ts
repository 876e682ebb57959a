/** The service as a process: the six steps with curl, slow readers, signals, stalled connections, and authenticated mode. */

import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync, statSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { connect as connectPlain } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { promisify } from 'node:util';
import type { Handler } from '../../lib/http/handler.ts';
import { limits } from '../../lib/http/server-options.ts';
import { HttpServer } from '../../lib/http/server.ts';
import { encodeHeader, encodeUser } from '../../lib/store/file/record.ts';
import { connectRaw } from '../helper/raw.ts';
import { cheap, client, openService, readUsersFile, spawnService } from '../helper/service.ts';
import { childEnvironment, loader, makeCertificate, root, temporaryDirectory, until } from '../helper/temporary.ts';
import { notLinux, trial } from '../helper/trial.ts';
import { newUser } from '../helper/user-store-contract.ts';

const run = promisify(execFile);

for (const [first, second] of [['alice', 'bob'], ['алиса', 'борис']] as const) {
  trial(`six steps: the exercise through curl -k, as ${first}`, { needs: ['curl'] }, async (t) => {
    const { url, data } = await spawnService(t, { args: [] });
    const curl = async (...args: string[]): Promise<{ status: string; text: string }> => {
      const { stdout } = await run('curl', ['-k', '-s', '-w', '\n%{http_code}', ...args]);
      const cut = stdout.lastIndexOf('\n');
      return { status: stdout.slice(cut + 1), text: stdout.slice(0, cut) };
    };
    const json = ['-H', 'Content-Type: application/json'];
    const register = (login: string): Promise<{ status: string; text: string }> =>
      curl('-X', 'POST', ...json, '-d', JSON.stringify({ login, password: 'correct horse' }), `${url}/user/`);
    const path = `${url}/user/${encodeURIComponent(first)}`;

    const created = await register(first);
    assert.equal(created.status, '201');
    assert.equal(JSON.parse(created.text).login, first);

    assert.equal((await register(second)).status, '201');
    const [one, two] = readUsersFile(data).slice(1);
    assert.match(one.password, /^[0-9a-f]{32}\$[0-9a-f]{64}$/);
    assert.equal(one.kdf, 'pbkdf2:sha256:600000');
    assert.notEqual(one.password, two.password);
    assert.notEqual(one.password.split('$')[0], two.password.split('$')[0]);

    assert.equal((await register(first)).status, '409');

    const read = await curl(path);
    assert.equal(read.status, '200');
    assert.deepEqual(JSON.parse(read.text), JSON.parse(created.text));
    assert.ok(Math.abs(Date.parse(JSON.parse(read.text).registered) - Date.now()) < 60_000);

    assert.deepEqual(await curl('-X', 'DELETE', path), { status: '204', text: '' });
    assert.equal((await curl(path)).status, '404');
  });
}

const users = 60_000;

/** A file as compaction would leave it: each line a batch of its own. */
function fill(directory: string, users: number): void {
  const seed = 7;
  const lines = [encodeHeader({ version: 1, created: 'x', nextId: 1, seed })];
  let offset = lines[0]!.length;
  for (let id = 1; id <= users; id++) {
    const line = encodeUser({ id, version: 1, ...newUser(`user${id}`) }, offset, seed);
    lines.push(line);
    offset += line.length;
  }
  writeFileSync(join(directory, 'users.jsonl'), Buffer.concat(lines), { mode: 0o600 });
}

trial('stream: a slow reader of all users delays no request, takes no memory, and gets every user', { cannot: notLinux }, async (t) => {
  const data = temporaryDirectory(t);
  fill(data, users);
  const { ask, url, child } = await spawnService(t, { data });
  assert.equal((await ask(`/user/user${users}`)).json.id, users);
  const request = https.request(new URL('/user/', url), { headers: { Accept: 'application/x-ndjson' }, rejectUnauthorized: false });
  request.end();
  const [response] = await once(request, 'response');
  response.pause();
  // While it reads nothing, the service must wait for it: what it has sent fits into buffers of the kernel.
  for (let n = 0; n < 200; n++) assert.equal((await ask('/user/user1')).status, 200);
  const { socket } = response;
  assert.ok(socket.bytesRead < 6_000_000, `${socket.bytesRead} bytes came unasked`);
  let count = 0;
  for await (const chunk of response) for (const byte of chunk) if (byte === 0x0a) count++;
  assert.equal(count, users);

  // One that goes in the middle leaves nothing running.
  const leaving = https.request(new URL('/user/', url), { headers: { Accept: 'application/x-ndjson' }, rejectUnauthorized: false });
  leaving.on('error', () => undefined);
  leaving.end();
  const [first] = await once(leaving, 'response');
  first.on('error', () => undefined);
  await once(first, 'data');
  leaving.destroy();
  await until(async () => (await ask('/user/user2')).status === 200, 'an answer');
  child.kill('SIGTERM');
});

trial('stream: more users than a page of the store, each once and in order', async (t) => {
  const data = temporaryDirectory(t);
  fill(data, 2_500);
  const { ask } = await openService(t, [...cheap, '--data', data]);
  const { text } = await ask('/user/', { headers: { Accept: 'application/x-ndjson' } });
  const ids = text.trimEnd().split('\n').map((line) => JSON.parse(line).id);
  assert.deepEqual(ids, Array.from({ length: 2_500 }, (_, n) => n + 1));
});

const host = 'Host: localhost\r\n';
const body = '{"login":"alice","password":"correct horse"}';

trial('server: stalled connections are all closed within 15 s, and others are served meanwhile', async (t) => {
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

trial('server: a client that goes while its password waits to be hashed leaves nothing behind', async (t) => {
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

trial('server: past the deadline of the hash queue it answers 503 with Retry-After, and reads go on', async (t) => {
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

trial('server: after the first signal requests in progress are answered, idle connections are closed, and it exits 0', async (t) => {
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

trial('server: the second signal ends it at once', async (t) => {
  const service = await spawnService(t, { args: ['--kdf', 'pbkdf2:sha256:9000000'] });
  const running = service.ask('/user/alice', { method: 'PUT', body: { password: 'correct horse' } }).catch(() => 'cut');
  await until(async () => (await service.ask('/user/')).status === 200, 'an answer');
  service.child.kill('SIGINT');
  await until(() => service.ask('/user/').then(() => false, () => true), 'it to stop listening');
  service.child.kill('SIGINT');
  assert.equal(await service.ended, 1);
  assert.equal(await running, 'cut');
});

trial('server: a client that waits for its response is not cut off, one that does not read it is', async (t) => {
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

function token(data: string, ...flags: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [...loader, 'bin/registrar.ts', 'token', '--data', data, ...flags], { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 30_000 });
}

const bearer = (word: string): { headers: Record<string, string> } => ({ headers: { authorization: `Bearer ${word}` } });

trial('authenticated mode: registrar token closes a service that runs, and another token another time', async (t) => {
  const service = await spawnService(t);
  const { ask, data } = service;
  assert.equal((await ask('/user/')).status, 200);
  const made = token(data);
  assert.equal(made.status, 0);
  assert.match(made.stdout, /^[A-Za-z0-9_-]{43}\n$/);
  assert.match(made.stderr, /is new, and is kept in .*admin-token/);
  assert.equal(statSync(join(data, 'admin-token')).mode & 0o777, 0o600);
  await until(async () => (await ask('/user/')).status === 401, 'the service to notice the token');
  const first = made.stdout.trim();
  assert.equal((await ask('/user/', bearer(first))).status, 200);
  const again = token(data);
  assert.deepEqual([again.status, again.stdout, again.stderr], [0, made.stdout, '']);

  const second = token(data, '--new').stdout.trim();
  assert.notEqual(second, first);
  await until(async () => (await ask('/user/', bearer(second))).status === 200, 'the service to notice the second token');
  assert.equal((await ask('/user/', bearer(first))).status, 401);

  // It does not open again, whatever becomes of the file.
  rmSync(join(data, 'admin-token'));
  await until(async () => (await ask('/user/', bearer(second))).status === 401, 'the service to notice that it is gone');
  writeFileSync(join(data, 'admin-token'), '', { mode: 0o600 });
  await until(async () => {
    assert.equal((await ask('/user/')).status, 401);
    return service.stderr().includes('is empty');
  }, 'the empty file to be reported');
  assert.equal(service.stderr().includes(first) || service.stderr().includes(second), false);
});

trial('authenticated mode: a new signing key signs from now on, and the tokens of the old one are good until they expire', async (t) => {
  const service = await spawnService(t);
  const { ask, data } = service;
  const password = 'correct horse';
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  token(data);
  const signIn = async (): Promise<string> => (await ask('/session', { method: 'POST', body: { login: 'alice', password } })).json.token;
  const kidOf = (text: string): string => JSON.parse(Buffer.from(text.split('.')[0]!, 'base64url').toString()).kid;
  const before = await signIn();
  const { stdout, status } = token(data, '--signing-key');
  assert.equal(status, 0);
  const kid = stdout.trim();
  assert.notEqual(kid, kidOf(before));
  await until(async () => kidOf(await signIn()) === kid, 'the service to sign with the new key');
  assert.equal((await ask('/session', bearer(before))).status, 200);
  const { json } = await ask('/.well-known/jwks.json');
  assert.deepEqual(json.keys.map((key: { kid: string }) => key.kid), [kid, kidOf(before)]);
  const revoked = token(data, '--revoke-keys');
  assert.equal(revoked.status, 0);
  for (const text of [before, await signIn().then(() => before)]) assert.equal((await ask('/session', bearer(text))).status, 401, 'at once');
  assert.deepEqual((await ask('/.well-known/jwks.json')).json.keys.map((key: { kid: string }) => key.kid), [revoked.stdout.trim()]);
  for (const name of ['signing-keys.json']) assert.equal(statSync(join(data, name)).mode & 0o777, 0o600, name);
});

trial('authenticated mode: on a unix socket, over what a killed process has left there, and it is removed at the end', async (t) => {
  const data = temporaryDirectory(t);
  const admin = token(data).stdout.trim();
  const path = join(temporaryDirectory(t), 'registrar.sock');
  const args = [...cheap, '--socket', path];
  const first = await spawnService(t, { data, args });
  assert.equal(first.url, `https+unix:${path}`);
  assert.equal(statSync(path).mode & 0o777, 0o660);
  const agent = new https.Agent({ keepAlive: false, socketPath: path } as https.AgentOptions);
  t.after(() => agent.destroy());
  const ask = client('https://localhost', agent);
  assert.equal((await ask('/user/', bearer(admin))).status, 200);
  assert.equal((await ask('/user/')).status, 401);
  await assert.rejects(spawnService(t, { data, args }), /another program listens there/);
  first.terminate('SIGKILL');
  await first.ended;
  assert.ok(existsSync(path));
  const second = await spawnService(t, { data, args });
  assert.equal((await ask('/user/', bearer(admin))).status, 200);
  second.terminate();
  assert.equal(await second.ended, 0);
  assert.equal(existsSync(path), false);
});

trial('authenticated mode: a certificate is replaced while it serves, by itself or on SIGHUP, and a broken one is not taken', async (t) => {
  const certs = temporaryDirectory(t);
  makeCertificate(certs);
  const service = await spawnService(t, { args: [...cheap, '--certs', certs] });
  const { port } = new URL(service.url);
  const fingerprint = async (): Promise<string> => {
    const socket = connect({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false });
    await once(socket, 'secureConnect');
    const { fingerprint256 } = socket.getPeerX509Certificate() ?? assert.fail();
    socket.destroy();
    return fingerprint256;
  };
  const first = await fingerprint();
  const kept = connect({ host: '127.0.0.1', port: Number(port), rejectUnauthorized: false });
  await once(kept, 'secureConnect');
  t.after(() => kept.destroy());
  writeFileSync(join(certs, 'cert.pem'), 'nonsense');
  service.child.kill('SIGHUP');
  await until(() => service.stderr().includes('The certificate in use stays'), 'the broken certificate to be reported');
  assert.equal(await fingerprint(), first);
  for (const name of ['cert.pem', 'key.pem']) rmSync(join(certs, name));
  makeCertificate(certs);
  await until(async () => (await fingerprint()) !== first, 'the new certificate to be noticed');
  // Who was there before goes on as before.
  kept.write('OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
  const [answer] = await once(kept, 'data');
  assert.match(String(answer), /^HTTP\/1\.1 204 /);
  assert.equal((await service.ask('/user/')).status, 200);
});

trial('serve: SIGUSR1, which opens the debugger of other Node programs, does nothing', async (t) => {
  const { child, ask, stderr } = await spawnService(t);
  child.kill('SIGUSR1');
  for (let n = 0; n < 3; n++) assert.equal((await ask('/user/')).status, 200);
  assert.doesNotMatch(stderr(), /Debugger/);
  assert.equal(child.exitCode, null);
});
