/** Commands, run in this process: users, refusals, help, and what keeps a service from starting. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseEnvironmentFile } from '../bin/command/command-line.ts';
import { exampleEnvironment, flagTable } from '../bin/command/help.ts';
import { flags } from '../lib/config.ts';
import { runCommand, typeCommand } from './helper/command.ts';
import type { Outcome } from './helper/command.ts';
import { certificates, cheap, openService, readUsersFile, spawnService } from './helper/service.ts';
import { makeCertificate, root, temporaryDirectory, until } from './helper/temporary.ts';

function registrar(args: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  return runCommand(args, { env });
}

/** Everything below a directory, with sizes and times: to see that nothing was touched. */
function snapshot(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort().map((name) => {
    const { size, mtimeMs, mode } = lstatSync(join(directory, name));
    return `${name} ${size} ${mtimeMs} ${mode}`;
  });
}

function copyCertificate(directory: string): void {
  cpSync(certificates(), directory, { recursive: true });
}

const commands = ['serve', 'user', 'import', 'export', 'check', 'compact', 'repair', 'token', 'proxy', 'openapi', 'health'];

test('command: help and version go to standard output, and name every flag of a command', async () => {
  for (const args of [['--help'], ['-h'], ['help']]) {
    const { status, stdout, stderr } = await registrar(args);
    assert.deepEqual([status, stderr], [0, '']);
    for (const name of commands) assert.match(stdout, new RegExp(`^  ${name} `, 'm'));
  }
  for (const name of commands) {
    const helped = await registrar(['help', name]);
    assert.deepEqual(helped, await registrar([name, '--port', '1', '-h'].filter((word) => name === 'serve' || !['--port', '1'].includes(word))));
    assert.deepEqual([helped.status, helped.stderr], [0, '']);
    assert.ok(helped.stdout.startsWith(`Usage: registrar ${name} `), helped.stdout);
    assert.ok(helped.stdout.split('\n').every((line) => line.length <= 80), helped.stdout);
    for (const [flag, row] of Object.entries(flags)) {
      const named = new RegExp(`^  --${flag}${row.kind === 'secret' ? '-file' : ''}(?: |$)`, 'm').test(helped.stdout);
      assert.equal(named, row.commands.some((command) => command === name), `${name} --${flag}`);
    }
  }
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.equal((await registrar(['--version'])).stdout, `${version}\n`);
});

test('command: bin/README.md has the table of flags as the table is; "registrar help flags" prints it', async () => {
  assert.ok(readFileSync(join(root, 'bin/README.md'), 'utf8').includes(flagTable()), 'replace the table with that of: registrar help flags');
  assert.equal((await registrar(['help', 'flags'])).stdout, flagTable());
});

test('command: the example environment names every variable of the service, and is read as it is printed', async (t) => {
  const { stdout } = await registrar(['help', 'environment']);
  assert.equal(stdout, exampleEnvironment());
  assert.deepEqual(parseEnvironmentFile(stdout, 'x'), {});
  const lines = stdout.split('\n').filter((line) => line.startsWith('#REGISTRAR_'));
  assert.ok(lines.includes('#REGISTRAR_PORT=8443') && lines.includes('#REGISTRAR_ADMIN_TOKEN_FILE='), stdout);
  const directory = temporaryDirectory(t);
  const file = join(directory, 'registrar.env');
  writeFileSync(file, `${lines.filter((line) => !line.includes('_FILE')).map((line) => line.slice(1)).join('\n')}\nREGISTRAR_DATA="${directory}"\n`);
  const { stderr } = await registrar(['user', 'list', '--env-file', file]);
  assert.equal(stderr, `registrar: There is no users file "${join(directory, 'users.jsonl')}". Name its directory with --data.\n`);
});

test('command: an environment file is read as systemd reads it, and what it cannot be is one line', () => {
  const text = '# comment\n; comment\n\n A=plain text # not a comment \nB="quoted \\"text\\" "\r\nC=\'single $x\'\nD=\n';
  assert.deepEqual(parseEnvironmentFile(text, 'x'), { A: 'plain text # not a comment', B: 'quoted "text" ', C: 'single $x', D: '' });
  assert.throws(() => parseEnvironmentFile('A=1\nexport B=2\n', 'x.env'), { code: 'usage', message: 'Cannot read "x.env": line 2 is not NAME=VALUE.' });
});

test('command: bad usage is one line on stderr and exit 2', async () => {
  for (const args of [[], ['nonsense'], ['serve', '--port', 'x'], ['serve', '--nonsense'], ['serve', 'extra'], ['serve', '--trusted-proxy', 'nginx'], ['check', '--yes'], ['toString'], ['usr'], ['proxy'], ['proxy', 'foo'], ['proxy', 'caddy', '--app-body-max', 'x']]) {
    const { status, stdout, stderr } = await registrar(args);
    assert.equal(status, 2, args.join(' '));
    assert.equal(stdout, '');
    assert.match(stderr, /^registrar: [^\n]+\n$/);
  }
});

test('command: what keeps it from starting is one line that says what to do, exit 1, and nothing is touched', async (t) => {
  const taken = createServer();
  taken.listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.after(() => taken.close());
  const { port } = taken.address() as AddressInfo;

  const cases: [name: string, prepare: (data: string, certs: string) => string[], pattern: RegExp][] = [
    ['no certificate', (_data, certs) => (mkdirSync(certs), []), /There is no key ".*key\.pem"\. Make a self-signed pair: make cert/],
    ['no certificate beside the key', (_data, certs) => {
      copyCertificate(certs);
      spawnSync('rm', [join(certs, 'cert.pem')]);
      return [];
    }, /There is no certificate .*make cert/],
    ['a certificate of another key', (_data, certs) => {
      mkdirSync(certs);
      makeCertificate(certs);
      writeFileSync(join(certs, 'cert.pem'), readFileSync(join(certificates(), 'cert.pem')));
      return [];
    }, /does not belong to the certificate .*requested with/],
    ['no certificate in the file', (_data, certs) => {
      copyCertificate(certs);
      writeFileSync(join(certs, 'cert.pem'), 'nonsense');
      return [];
    }, /holds no certificate in PEM/],
    ['no key in the file', (_data, certs) => {
      copyCertificate(certs);
      writeFileSync(join(certs, 'key.pem'), 'nonsense');
      return [];
    }, /is damaged: it is no private key in PEM/],
    ['a key that is a directory', (_data, certs) => {
      mkdirSync(join(certs, 'key.pem'), { recursive: true });
      return [];
    }, /cannot be read \(EISDIR\)/],
    ['a port that is taken', (_data, certs) => (copyCertificate(certs), ['--port', String(port)]), /another program listens there: choose another with --port/],
    ['every address in unauthenticated mode', (data, certs) => (copyCertificate(certs), ['--host', '0.0.0.0', '--data', data]), /--host 0\.0\.0\.0 needs an admin token.*registrar token/],
    ['an unusual loopback address in unauthenticated mode', (data, certs) => (copyCertificate(certs), ['--host', '127.0.0.2', '--data', data]), /--host 127\.0\.0\.2 .*registrar token/],
    ['a socket in unauthenticated mode', (data, certs) => (copyCertificate(certs), ['--socket', join(data, 's'), '--data', data]), /--socket .* needs an admin token/],
    ['a directory of authenticated mode whose token is lost', (data, certs) => (copyCertificate(certs), mkdirSync(data), writeFileSync(join(data, 'authenticated-mode'), ''), []), /was in authenticated mode.*registrar token --data .* or start with --open/],
    ['a weak token in the file', (data, certs) => (copyCertificate(certs), mkdirSync(data), writeFileSync(join(data, 'admin-token'), 'secret\n', { mode: 0o600 }), []), /admin-token" has to have 16 visible ASCII/],
    ['a cluster without a token', (data, certs) => (copyCertificate(certs), ['--etcd', 'http://127.0.0.1:1', '--data', data]), /--etcd needs an admin token.*--open/],
    ['an address of another machine', (_data, certs) => (copyCertificate(certs), ['--host', '127.0.0.1', '--data', '/proc']), process.getuid?.() === 0 ? /Cannot use the data directory "\/proc": its file system/ : /Cannot use the data directory "\/proc": it belongs to root/],
    ['a data directory that is a file', (data, certs) => (copyCertificate(certs), writeFileSync(data, 'x'), []), /it is not a directory/],
    ['a file of another format', (data, certs) => {
      copyCertificate(certs);
      mkdirSync(data);
      writeFileSync(join(data, 'users.jsonl'), '[{"login":"alice"}]\n', { mode: 0o600 });
      return [];
    }, /line 1 \(byte 0\) .*"format":"registrar-users".*[Nn]othing was changed/],
    ['a key that is too short', (_data, certs) => {
      mkdirSync(certs);
      const [key, cert] = [join(certs, 'key.pem'), join(certs, 'cert.pem')];
      spawnSync('openssl', ['req', '-x509', '-newkey', 'rsa:512', '-nodes', '-keyout', key, '-out', cert, '-subj', '/CN=x']);
      return [];
    }, /TLS does not accept .*stronger key or signature/],
    ['a file with no line', (data, certs) => (copyCertificate(certs), mkdirSync(data), writeFileSync(join(data, 'users.jsonl'), 'x'.repeat(9000), { mode: 0o600 }), []), /the header has no end/],
    ['a pipe', (data, certs) => (copyCertificate(certs), mkdirSync(data), spawnSync('mkfifo', ['-m', '600', join(data, 'users.jsonl')]), []), /it is not a file/],
    ['a file that was emptied', (data, certs) => (copyCertificate(certs), mkdirSync(data), writeFileSync(join(data, 'users.jsonl'), '', { mode: 0o600 }), []), /it is empty/],
  ];
  for (const [name, prepare, pattern] of cases) {
    const directory = temporaryDirectory(t);
    const [data, certs] = [join(directory, 'data'), join(directory, 'certs')];
    const extra = prepare(data, certs);
    const before = snapshot(directory);
    const { status, stdout, stderr } = await registrar(['serve', '--port', '0', '--data', data, '--certs', certs, ...cheap, ...extra]);
    const lines = stderr.split('\n').filter((line) => line !== '' && !line.includes('OWASP'));
    assert.equal(status, 1, `${name}: ${stderr}`);
    assert.equal(stdout, '', name);
    assert.equal(lines.length, 1, `${name}: ${stderr}`);
    assert.match(lines[0]!, pattern, name);
    assert.deepEqual(snapshot(directory), before, name);
  }
});

test('command: it goes on when the reader of its output has closed', async (t) => {
  const { ask, child, data } = await spawnService(t);
  await ask('/user/alice', { method: 'PUT', body: { password: 'correct horse' } });
  const path = join(data, 'users.jsonl');
  const bytes = readFileSync(path);
  bytes[bytes.length - 30]! ^= 1;
  writeFileSync(path, bytes);
  child.stderr?.destroy();
  child.stdout?.destroy();
  for (let n = 0; n < 5; n++) assert.equal((await ask('/user/alice')).status, 500);
  assert.equal((await ask('/user/bob')).status, 404);
});

test('command: the log of a service names its mode, its page and its users', async (t) => {
  const lines: string[] = [];
  const write = async (text: string): Promise<void> => void lines.push(...text.split('\n').filter((line) => line !== ''));
  const { app, data } = await openService(t, [...cheap, '--public-url', 'https://registrar.example'], {}, { isTerminal: false, write });
  const users = join(data, 'users.jsonl');
  assert.deepEqual([app.page, app.where, app.mode()], ['https://registrar.example/', users, 'unauthenticated']);
  const find = (): string | undefined => lines.find((line) => line.includes('"listening"'));
  await until(() => find() !== undefined, 'the event is logged');
  const { time: _time, level: _level, ...event } = JSON.parse(find() ?? '{}');
  assert.deepEqual(event, { event: 'listening', url: app.url, page: app.page, mode: 'unauthenticated', users, version: '' });
});

test('command: weak hashing is warned about, once and loudly', async (t) => {
  const { reports } = await openService(t);
  assert.deepEqual(reports.filter((line) => line.includes('OWASP')), [
    'WARNING: --kdf pbkdf2:sha256:1 makes passwords cheap to guess: OWASP advises 600000 iterations or more.',
  ]);
});

test('command: a certificate that is about to expire is told', async (t) => {
  const certs = join(temporaryDirectory(t), 'certs');
  makeCertificate(certs, 3);
  const service = await openService(t, [...cheap, '--certs', certs]);
  assert.match(service.reports.join('\n'), /The certificate expires in [23] days\. Renew it and keep its key: make cert CERTS=/);
});

test('command: check, compact and repair work while the service runs, and say what they did', async (t) => {
  const { data, ask, ended, child, stderr } = await spawnService(t);
  for (let n = 0; n < 20; n++) assert.equal((await ask('/user/', { method: 'POST', body: { login: `user${n}`, password: 'correct horse' } })).status, 201);
  for (let n = 0; n < 5; n++) assert.equal((await ask(`/user/user${n}`, { method: 'DELETE' })).status, 204);
  const file = join(data, 'users.jsonl');
  const checked = await registrar(['check', '--data', data]);
  assert.deepEqual([checked.status, checked.stderr], [0, '']);
  assert.match(checked.stdout, /users\.jsonl: 15 users, 26 lines \(10 obsolete\), 25 batches, [\d,]+ bytes; every checksum holds\n$/);
  assert.deepEqual([(await registrar(['repair', '--data', data])).status, (await registrar(['repair', '--yes'], { REGISTRAR_DATA: data })).stdout], [0, `${file}: nothing is wrong with it\n`]);
  const compacted = await registrar(['compact', '--data', data]);
  assert.match(compacted.stdout, /^15 users: [\d,]+ bytes became [\d,]+\n$/);
  assert.deepEqual([(await ask('/user/user0')).status, (await ask('/user/user19')).status], [404, 200]);
  assert.equal((await ask('/user/', { method: 'POST', body: { login: 'user0', password: 'correct horse' } })).json.id, 21);
  assert.match((await registrar(['check', '--data', data])).stdout, /16 users, 17 lines \(0 obsolete\)/);
  // A line rots underneath.
  const bytes = readFileSync(file);
  bytes[bytes.indexOf('user7') + 4]! ^= 1;
  writeFileSync(file, bytes);
  assert.equal((await ask('/user/user7')).status, 500);
  const damaged = await registrar(['check', '--data', data]);
  assert.equal(damaged.status, 1);
  assert.match(damaged.stdout, /: damaged\n  line 4 \(byte \d+, \d+ bytes\) fails its checksum\. It reads as user 8, "user6"\..*\n$/);
  assert.match(damaged.stderr, /^registrar: Cannot open "[^"]+": line 4 \(byte \d+\) fails its checksum[^\n]+run "registrar repair"\.\n$/);
  // Without a terminal there is no question.
  const refused = await registrar(['repair', '--data', data]);
  assert.deepEqual([refused.status, readFileSync(file).equals(bytes)], [1, true]);
  assert.match(refused.stderr, /Nothing was changed\. With --yes there is no question\.\n$/);
  const repaired = await registrar(['repair', '--yes', '--data', data]);
  assert.equal(repaired.status, 0);
  assert.match(repaired.stdout, /15 users can be recovered\. What is lost:\n  line 4 .*\n.* has 15 users now; the damaged file is .*users\.jsonl\.damaged-\S+\n$/);
  assert.deepEqual([(await ask('/user/user7')).status, (await ask('/user/user8')).status], [404, 200]);
  assert.equal((await ask('/user/', { method: 'POST', body: { login: 'user7', password: 'correct horse' } })).status, 201);
  assert.match((await registrar(['check', '--data', data])).stdout, /16 users/);
  child.kill('SIGTERM');
  assert.deepEqual([await ended, stderr().includes('Error')], [0, false]);
});

test('command: check, compact and repair make nothing where nothing is, and refuse what is none of theirs', async (t) => {
  const data = temporaryDirectory(t);
  for (const name of ['check', 'compact', 'repair']) {
    const { status, stderr } = await registrar([name, '--data', join(data, 'none')]);
    assert.deepEqual([status, /There is no users file ".*none.users\.jsonl"\. Name its directory with --data\./.test(stderr)], [1, true]);
  }
  writeFileSync(join(data, 'users.jsonl'), '{"users":[]}\n', { mode: 0o600 });
  const before = snapshot(data);
  for (const name of ['check', 'compact', 'repair']) assert.equal((await registrar([name, '--data', data])).status, 1, name);
  assert.deepEqual(snapshot(data), before);
});

const password = 'correct horse';

/** @param input is what comes on standard input. */
function user(data: string, args: readonly string[], input: string | Buffer = ''): Promise<Outcome> {
  return runCommand(['user', ...args], { env: { REGISTRAR_DATA: data, REGISTRAR_KDF: 'pbkdf2:sha256:1' }, input });
}

test('user: all of it in a pipe, beside a service that sees everything at once', async (t) => {
  const { data, ask } = await spawnService(t);
  await ask('/user/', { method: 'POST', body: { login: 'zoe', password } });
  const added = await user(data, ['add', 'Alice'], `${password}\nwhatever follows`);
  assert.deepEqual(added, { status: 0, stdout: 'alice is user 2\n', stderr: '' });
  assert.equal((await ask('/user/alice')).json.id, 2);
  const { token } = (await ask('/session', { method: 'POST', body: { login: 'alice', password } })).json;
  const session = { headers: { authorization: `Bearer ${token}` } };
  assert.equal((await ask('/session', session)).status, 200);

  assert.match((await user(data, ['show', 'ALICE'])).stdout, /^id {10}2\nlogin {7}alice\nregistered {2}\d{4}-\S+Z\nversion {5}1\n$/);
  assert.equal((await user(data, ['show', 'alice', '--json'])).stdout, (await ask('/user/alice')).text);
  const listed = (await user(data, ['list'])).stdout.split('\n');
  assert.match(listed[0]!, /^ {6}ID {2}REGISTERED +CHANGED +STATE +LOGIN$/);
  assert.match(listed[2]!, /^ {7}2 {2}\d{4}-\S+Z {2}- {23} {2}active {4}alice$/);
  assert.equal((await user(data, ['list', '--json'])).stdout, (await ask('/user/', { headers: { accept: 'application/x-ndjson' } })).text);

  assert.deepEqual(await user(data, ['verify', 'alice'], `${password}\r\n`), { status: 0, stdout: 'right\n', stderr: '' });
  assert.deepEqual(await user(data, ['verify', 'alice'], 'something else'), { status: 1, stdout: 'wrong\n', stderr: '' });
  assert.deepEqual(await user(data, ['verify', 'nobody', '--json'], password), { status: 1, stdout: '{"login":"nobody","right":false}\n', stderr: '' });

  const changed = await user(data, ['passwd', 'alice', '--json'], 'battery staple');
  assert.deepEqual([changed.status, changed.stdout], [0, (await ask('/user/alice')).text]);
  assert.equal(JSON.parse(changed.stdout).version, 2);
  assert.equal((await ask('/session', session)).status, 401);
  assert.equal((await user(data, ['verify', 'alice'], 'battery staple')).status, 0);

  const refused = await user(data, ['remove', 'alice']);
  assert.deepEqual([refused.status, refused.stdout], [1, '']);
  assert.match(refused.stderr, /Nothing was changed\. With --yes there is no question\.\n$/);
  assert.deepEqual(await user(data, ['remove', 'alice', '--yes']), { status: 0, stdout: 'alice, user 2, is removed\n', stderr: '' });
  assert.equal((await ask('/user/alice')).status, 404);
  assert.equal((await ask('/user/zoe')).status, 200);
});

test('user: what it refuses is one line that never repeats a password, with exit 1, and nothing is changed', async (t) => {
  const data = temporaryDirectory(t);
  assert.equal((await user(data, ['add', 'alice'], password)).status, 0);
  const before = readFileSync(join(data, 'users.jsonl'), 'utf8');
  const cases: [args: string[], input: string | Buffer, pattern: RegExp][] = [
    [['add', 'alice'], password, /The login "alice" is taken/],
    [['add', 'a:b'], password, /The login may hold letters/],
    [['add', 'bob'], '', /There is no password/],
    [['add', 'bob'], '\nsecret on the second line', /There is no password/],
    [['add', 'bob'], 'short', /The password has 5 characters: it needs at least 8/],
    [['add', 'bob', '--password-min', '15'], password, /it needs at least 15/],
    [['add', 'bob'], 'password1', /on the list of common passwords/],
    [['add', 'bob'], 'x'.repeat(9_000), /longer than 8192 bytes/],
    [['add', 'bob'], Buffer.from([0xff, 0xfe, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67]), /is not UTF-8 text/],
    [['passwd', 'nobody'], password, /There is no user with this login/],
    [['passwd', 'alice'], 'alice', /5 characters/],
    [['show', 'nobody'], '', /There is no user with this login/],
    [['remove', 'nobody', '--yes'], '', /There is no user with this login/],
    [['show', 'alice', '--data', join(data, 'none')], '', /There is no users file ".*none.users\.jsonl"/],
  ];
  for (const [args, input, pattern] of cases) {
    const { status, stdout, stderr } = await user(data, args, input);
    assert.deepEqual([status, stdout], [1, ''], args.join(' '));
    assert.match(stderr, /^registrar: [^\n]+\n$/);
    assert.match(stderr, pattern);
    assert.ok(input.length < 6 || !stderr.includes(String(input).trim()), stderr);
  }
  assert.equal(readFileSync(join(data, 'users.jsonl'), 'utf8'), before);
});

test('user: bad usage is exit 2, and a password is no argument', async (t) => {
  const data = temporaryDirectory(t);
  for (const args of [[], ['nonsense'], ['add'], ['list', 'alice'], ['add', 'alice', password], ['add', 'alice', '--password', password], ['show', 'alice', '--yes'], ['add', 'alice', '--kdf', 'md5']]) {
    const { status, stdout, stderr } = await user(data, args, password);
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^registrar: [^\n]+\n$/);
    assert.ok(!stderr.includes(password));
  }
  assert.throws(() => readUsersFile(data), { code: 'ENOENT' });
});

test('user: a login may look like a flag or like a word of the command', async (t) => {
  const data = temporaryDirectory(t);
  for (const login of ['help', '-h', '--help', 'list']) {
    assert.equal((await user(data, ['add', '--json', '--', login], password)).status, 0, login);
    assert.equal(JSON.parse((await user(data, ['show', '--json', '--', login])).stdout).login, login);
  }
  assert.equal(JSON.parse((await user(data, ['show', 'help', '--json'])).stdout).login, 'help');
});

test('user: a hash is made as the command is told, and a verification does not renew it', async (t) => {
  const data = temporaryDirectory(t);
  assert.equal((await user(data, ['add', 'alice', '--kdf', 'pbkdf2:sha512:2'], password)).status, 0);
  assert.equal((await user(data, ['verify', 'alice', '--kdf', 'pbkdf2:sha256:1'], password)).status, 0);
  assert.equal((await user(data, ['add', 'bob', '--kdf', 'pbkdf2:sha256:3'], password)).status, 0);
  const [, ...lines] = readUsersFile(data);
  assert.deepEqual(lines.map(({ login, kdf }) => [login, kdf]), [['alice', 'pbkdf2:sha512:2'], ['bob', 'pbkdf2:sha256:3']]);
});

test('user: at a terminal the password is asked for twice, not shown, and edited as a terminal does', async (t) => {
  const data = temporaryDirectory(t);
  const env = { REGISTRAR_DATA: data, REGISTRAR_KDF: 'pbkdf2:sha256:1' };
  // Backspace removes the two bytes of é, an arrow is no character, and Ctrl-U begins again.
  const typed = 'nonsense\x15correct hé\x7f\x1b[Dorse\r';
  const added = await typeCommand(['user', 'add', 'alice'], [['Password of alice: ', typed], ['Once more: ', `${password}\r`]], env);
  assert.deepEqual([added.status, added.stdout, added.modes], [0, 'alice is user 1\n', [true, false]]);
  assert.ok(added.stderr.endsWith('Password of alice: \nOnce more: \n'), added.stderr);
  assert.equal((await user(data, ['verify', 'alice'], password)).status, 0);
  const differs = await typeCommand(['user', 'passwd', 'alice'], [['New password of alice: ', 'battery staple\r'], ['Once more: ', 'battery stable\r']], env);
  assert.equal(differs.status, 1);
  assert.match(differs.stderr, /The two passwords differ\. Nothing was changed\.\n$/);
  const pasted = await typeCommand(['user', 'passwd', 'alice'], [['New password of alice: ', 'battery staple\rbattery staple\r']], env);
  assert.deepEqual([pasted.status, (await user(data, ['verify', 'alice'], 'battery staple')).status], [0, 0]);
  const interrupted = await typeCommand(['user', 'passwd', 'alice'], [['New password of alice: ', 'half a pass\x03']], env);
  assert.deepEqual([interrupted.status, interrupted.modes], [1, [true, false]]);
  assert.match(interrupted.stderr, /Interrupted\. Nothing was changed\.\n$/);
});

test('user: a login that cannot be is refused before a password is asked for, and directories that are created are named', async (t) => {
  const data = join(temporaryDirectory(t), 'some', 'data');
  const env = { REGISTRAR_DATA: data, REGISTRAR_KDF: 'pbkdf2:sha256:1' };
  const refused = await typeCommand(['user', 'add', 'a b'], [], env);
  assert.deepEqual([refused.status, refused.stderr.split('\n').length, existsSync(data)], [1, 2, false]);
  assert.match(refused.stderr, /^registrar: The login may hold letters/);
  const { stderr } = await user(data, ['add', 'alice'], password);
  const lines = [`Created the directory "${join(data, '..')}".`, `Created the directory "${data}".`, `There were no users yet: created "${join(data, 'users.jsonl')}".`];
  assert.equal(stderr, lines.map((line) => `registrar: ${line}\n`).join(''));
  assert.equal((await user(data, ['add', 'bob'], password)).stderr, '');
});
