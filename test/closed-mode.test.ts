/** The service with an admin token, as processes that an operator runs. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync, statSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { cheap, client, spawnService } from './helper/service.ts';
import { loader, makeCertificate, root, temporaryDirectory, until } from './helper/temporary.ts';

function token(data: string, ...flags: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [...loader, 'bin/registrar.ts', 'token', '--data', data, ...flags], { cwd: root, encoding: 'utf8', timeout: 30_000 });
}

const bearer = (word: string): { headers: Record<string, string> } => ({ headers: { authorization: `Bearer ${word}` } });

test('closed mode: registrar token closes a service that runs, and another token another time', async (t) => {
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

test('closed mode: a new signing key signs from now on, and the tokens of the old one are good until they expire', async (t) => {
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
  // What is asked of the file, nobody else may read.
  for (const name of ['signing-key.pem', 'signing-keys-retired.json']) assert.equal(statSync(join(data, name)).mode & 0o777, 0o600, name);
});

test('closed mode: on a unix socket, over what a killed process has left there, and it is removed at the end', async (t) => {
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

test('closed mode: a certificate is replaced while it serves, by itself or on SIGHUP, and a broken one is not taken', async (t) => {
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
