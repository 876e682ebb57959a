/** Every secret of a run is one of a kind, and is looked for afterwards: in all that was answered, printed and kept. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPrivateKey, randomBytes } from 'node:crypto';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { sendRaw } from '../helper/raw.ts';
import { readUsersFile, spawnService } from '../helper/service.ts';
import type { Answer } from '../helper/service.ts';
import { loader, root, temporaryDirectory, until } from '../helper/temporary.ts';

interface Secret {
  readonly what: string;
  readonly text: string;
  /** Answers that may hold it, by their number: a token is told to whom it is for. */
  readonly told?: number;
}

test('secrets: none is in a log line, in an answer but a token in its own, or in a file but where it is kept', async (t) => {
  const data = temporaryDirectory(t);
  const command = (...args: string[]) => spawnSync(process.execPath, [...loader, 'bin/registrar.ts', ...args, '--data', data], { cwd: root, encoding: 'utf8', timeout: 30_000 });
  const printed: string[] = [];
  const adminToken = command('token').stdout.trim();
  const secrets: Secret[] = [{ what: 'the admin token', text: adminToken }];
  const fresh = (what: string): string => {
    const text = `S3cret-${randomBytes(15).toString('base64url')}`;
    secrets.push({ what, text });
    return text;
  };
  // A kdf that is made anew, so that old and new hashes are there.
  const service = await spawnService(t, { data, args: ['--kdf', 'pbkdf2:sha256:1000', '--limits', 'off'] });
  service.child.stdout?.on('data', (chunk) => printed.push(String(chunk)));
  const answers: { what: string; text: string }[] = [];
  const ask: typeof service.ask = async (path, options) => {
    const answer: Answer = await service.ask(path, options);
    answers.push({ what: `${options?.method ?? 'GET'} ${path}: ${answer.status}`, text: `${JSON.stringify(answer.headers)}\n${answer.text}` });
    return answer;
  };
  const basic = (login: string, word: string): Record<string, string> => {
    const authorization = `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}`;
    secrets.push({ what: `Basic of ${login}`, text: authorization.slice(6) });
    return { authorization };
  };
  const signIn = async (login: string, word: string): Promise<string> => {
    const { status, json } = await ask('/session', { method: 'POST', body: { login, password: word, cookie: true } });
    assert.equal(status, 201);
    const told = answers.length - 1;
    secrets.push({ what: `token of ${login}`, text: json.token, told }, { what: `signature of ${login}`, text: json.token.split('.')[2], told });
    return json.token;
  };
  const admin = { authorization: `Bearer ${adminToken}` };
  for (const login of ['alice', 'bob', 'carol']) {
    const [first, second, third] = [fresh(`${login}'s`), fresh(`${login}'s second`), fresh(`${login}'s third`)];
    const key = fresh(`idempotency key of ${login}`);
    const idempotent = { 'idempotency-key': `"${key}"` };
    assert.equal((await ask('/user/', { method: 'POST', body: { login, password: first }, headers: idempotent })).status, 201);
    assert.equal((await ask('/user/', { method: 'POST', body: { login, password: first }, headers: idempotent })).status, 201);
    assert.equal((await ask('/user/', { method: 'POST', body: { login, password: fresh('another password') }, headers: idempotent })).status, 422);
    const token = await signIn(login, first);
    assert.equal((await ask('/session', { headers: { cookie: `__Host-registrar=${token}` } })).status, 200);
    const bearer = { authorization: `Bearer ${token}` };
    assert.equal((await ask(`/user/${login}`, { method: 'PATCH', body: { password: second, current: fresh('a wrong current one') }, headers: bearer })).status, 403);
    assert.equal((await ask(`/user/${login}`, { method: 'PATCH', body: { password: second, current: first }, headers: bearer })).status, 200);
    assert.equal((await ask(`/user/${login}`, { method: 'PATCH', body: { password: third }, headers: basic(login, second) })).status, 200);
    assert.equal((await ask(`/user/${login}`, { headers: basic(login, third) })).status, 200);
    await signIn(login, third);
  }
  // Secrets where they do not belong, in what is wrong in every other way.
  const lost = fresh('one in the wrong place');
  const wrong: Parameters<typeof ask>[] = [
    ['/session', { method: 'POST', body: { login: 'alice', password: fresh('a wrong one') } }], ['/session', { method: 'POST', body: { login: lost, password: lost } }],
    ['/session', { method: 'POST', body: `{"login":"alice","password":"${lost}` }], ['/session', { method: 'POST', body: lost }], ['/session', { method: 'POST', body: { [lost]: lost } }],
    ['/session', { method: 'POST', body: `login=alice&password=${lost}`, headers: { 'content-type': 'application/x-www-form-urlencoded' } }],
    ['/user/alice', { headers: basic('alice', fresh('a wrong one by Basic')) }], ['/user/alice', { headers: { authorization: `Bearer ${lost}` } }], ['/user/alice', { headers: { authorization: lost } }],
    ['/user/alice', { headers: { cookie: `__Host-registrar=${lost}` } }], ['/session', { headers: { cookie: `__Host-registrar=${lost}` } }], [`/session?access_token=${lost}`],
    [`/user/?after=${lost}`, { headers: admin }], [`/user/?limit=${lost}`, { headers: admin }], [`/user/${lost}`, { headers: admin }], [`/${lost}`], ['/user/alice', { method: 'GET', headers: { ...admin, 'if-match': lost } }],
    ['/user/', { method: 'POST', body: { login: 'x', password: lost }, headers: { 'content-type': lost } }], ['/user/', { method: 'POST', body: { login: 'x', password: 'short' } }],
    ['/user/', { method: 'POST', body: { login: 'x', password: `${lost}\t` } }], ['/user/', { method: 'POST', body: { login: `${lost}:`, password: lost } }], ['/user/alice', { method: 'DELETE', headers: basic('bob', lost) }],
    ['/user/', { method: 'POST', body: { login: 'x', password: lost }, headers: { 'idempotency-key': `${lost} ${lost}` } }], ['/user/', { headers: { ...admin, accept: 'application/x-ndjson' } }],
    ['/user/', { headers: admin }], ['/.well-known/jwks.json'], ['/user/alice', { method: 'PATCH', body: { password: lost, current: lost, [lost]: 1 }, headers: admin }],
  ];
  for (const [path, options] of wrong) assert.ok((await ask(path, options)).status < 500);
  for (const text of [`GET /user/${lost} HTTP/9.9\r\n\r\n`, `${lost}\r\n\r\n`, `GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${lost}\r\nHost: b\r\n\r\n`, `POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n${lost}`]) {
    answers.push({ what: text.slice(0, 20), text: await sendRaw(service.url, [text], 500) });
  }
  assert.equal((await ask('/user/carol', { method: 'DELETE', headers: admin })).status, 204);
  const formerKey = readFileSync(join(data, 'signing-key.pem'), 'utf8');
  assert.equal(command('token', '--signing-key').status, 0);
  await until(async () => (await service.ask('/.well-known/jwks.json')).json.keys.length === 2, 'the second key');
  await signIn('alice', secrets.find(({ what }) => what === 'alice\'s third')!.text);
  const checked = command('check');
  service.terminate();
  assert.equal(await service.ended, 0);

  const stored = readUsersFile(data).flatMap(({ password = '' }) => (password as string).split('$')).filter((part) => part !== '');
  assert.ok(stored.length >= 18);
  secrets.push(...stored.map((text) => ({ what: 'a salt or a hash', text })));
  for (const pem of [formerKey, readFileSync(join(data, 'signing-key.pem'), 'utf8')]) {
    const d = createPrivateKey(pem).export({ format: 'jwk' }).d ?? '';
    secrets.push({ what: 'a private key', text: d }, { what: 'a private key', text: pem.split('\n')[1] ?? '' });
  }
  assert.ok(secrets.every(({ text }) => text.length >= 16) && secrets.length > 60, String(secrets.length));

  const findings: string[] = [];
  const look = (where: string, text: string, number?: number): void => {
    for (const secret of secrets) {
      const isTold = secret.told !== undefined && secret.told === number;
      const spellings = [secret.text, encodeURIComponent(secret.text), Buffer.from(secret.text).toString('base64').slice(0, -4), Buffer.from(secret.text).toString('hex')];
      if (!isTold && spellings.some((spelling) => text.includes(spelling))) findings.push(`${secret.what} in ${where}`);
    }
  };
  for (const [n, { what, text }] of answers.entries()) look(`the answer to ${what}`, text, n);
  look('standard error', service.stderr());
  look('standard output', printed.join(''));
  look('what check says', checked.stdout + checked.stderr);
  const home: Readonly<Record<string, RegExp>> = { 'users.jsonl': /^a salt or a hash$/, 'admin-token': /^the admin token$/, 'signing-key.pem': /^a private key$/ };
  for (const name of readdirSync(data, { recursive: true, encoding: 'utf8' })) {
    const path = join(data, name);
    const found = statSync(path);
    if (!found.isFile()) continue;
    const before = findings.length;
    look(name, readFileSync(path, 'utf8'));
    const here = findings.splice(before);
    findings.push(...here.filter((finding) => !(home[name]?.test(finding.slice(0, finding.lastIndexOf(` in ${name}`))) ?? false)));
    if (home[name] !== undefined || name === 'signing-keys-retired.json') assert.equal(found.mode & 0o777, 0o600, name);
    // What is meant to be found is found: the search can fail.
    if (home[name] !== undefined) assert.ok(here.length > 0, `nothing in ${name}`);
  }
  assert.deepEqual(findings, []);
});
