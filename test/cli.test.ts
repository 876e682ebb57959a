import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, lstatSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { certificates, cheap, openService, spawnService } from './helper/service.ts';
import { loader, makeCertificate, root, temporaryDirectory, without } from './helper/temporary.ts';

function registrar(args: readonly string[], env: Record<string, string> = {}): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [...loader, 'bin/registrar.ts', ...args], {
    cwd: root, encoding: 'utf8', env: { ...process.env, ...env }, timeout: 30_000,
  });
}

/** Everything below a directory, with sizes and times: to see that nothing was touched. */
function snapshot(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort().map((name) => {
    const { size, mtimeMs, mode } = lstatSync(join(directory, name));
    return `${name} ${size} ${mtimeMs} ${mode}`;
  });
}

const commands = ['serve', 'user', 'import', 'export', 'check', 'compact', 'repair', 'token', 'proxy', 'openapi', 'systemd'];

test('cli: --help and --version print to stdout and exit 0', () => {
  for (const args of [['--help'], ['-h'], ['serve', '--help'], ['serve', '--port', '1', '-h'], ...commands.map((name) => [name, '--help'])]) {
    const { status, stdout, stderr } = registrar(args);
    assert.deepEqual([status, stderr], [0, '']);
    assert.ok(stdout.startsWith(`Usage: registrar ${args[0]!.startsWith('-') ? 'COMMAND' : args[0]}`), stdout);
  }
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.equal(registrar(['--version']).stdout, `${version}\n`);
});

test('cli: README quotes --help of every command', () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  for (const args of [[], ...commands.map((name) => [name])]) {
    assert.ok(readme.includes(registrar([...args, '--help']).stdout.trimEnd()), `registrar ${args.join(' ')} --help`);
  }
});

test('cli: bad usage is one line on stderr and exit 2', () => {
  for (const args of [[], ['nonsense'], ['serve', '--port', 'x'], ['serve', '--nonsense'], ['serve', 'extra'], ['serve', '--trusted-proxy', 'nginx'], ['check', '--yes'], ['toString']]) {
    const { status, stdout, stderr } = registrar(args);
    assert.equal(status, 2, args.join(' '));
    assert.equal(stdout, '');
    assert.match(stderr, /^registrar: [^\n]+\n$/);
  }
});

test('cli: what keeps it from starting is one line that says what to do, exit 1, and nothing is touched', async (t) => {
  const taken = createServer();
  taken.listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.after(() => taken.close());
  const { port } = taken.address() as AddressInfo;

  const cases: [name: string, prepare: (data: string, certs: string) => string[], pattern: RegExp][] = [
    ['no certificate', (_data, certs) => (mkdirSync(certs), []), /there is no key ".*key\.pem"; make one with: make cert/],
    ['no certificate beside the key', (_data, certs) => {
      makeCertificate(certs);
      spawnSync('rm', [join(certs, 'cert.pem')]);
      return [];
    }, /there is no certificate .*make cert/],
    ['a certificate of another key', (_data, certs) => {
      makeCertificate(certs);
      writeFileSync(join(certs, 'cert.pem'), readFileSync(join(certificates(), 'cert.pem')));
      return [];
    }, /was not made for the key .*make cert FORCE=1/],
    ['no certificate in the file', (_data, certs) => {
      makeCertificate(certs);
      writeFileSync(join(certs, 'cert.pem'), 'nonsense');
      return [];
    }, /holds no certificate in PEM/],
    ['no key in the file', (_data, certs) => {
      makeCertificate(certs);
      writeFileSync(join(certs, 'key.pem'), 'nonsense');
      return [];
    }, /holds no key in PEM/],
    ['a key that is a directory', (_data, certs) => {
      mkdirSync(join(certs, 'key.pem'), { recursive: true });
      return [];
    }, /cannot be read \(EISDIR\)/],
    ['a port that is taken', (_data, certs) => (makeCertificate(certs), ['--port', String(port)]), /another program listens there: choose another with --port/],
    ['every address in open mode', (data, certs) => (makeCertificate(certs), ['--host', '0.0.0.0', '--data', data]), /--host 0\.0\.0\.0: there is no admin token.*registrar token/],
    ['a loopback address that nobody can ask for in open mode', (data, certs) => (makeCertificate(certs), ['--host', '127.0.0.2', '--data', data]), /--host 127\.0\.0\.2: .*registrar token/],
    ['a socket in open mode', (data, certs) => (makeCertificate(certs), ['--socket', join(data, 's'), '--data', data]), /--socket .*: there is no admin token/],
    ['an address of another machine', (_data, certs) => (makeCertificate(certs), ['--host', '127.0.0.1', '--data', '/proc']), /Cannot use the data directory "\/proc": its file system/],
    ['a data directory that is a file', (data, certs) => (makeCertificate(certs), writeFileSync(data, 'x'), []), /it is not a directory/],
    ['a file of another format', (data, certs) => {
      makeCertificate(certs);
      mkdirSync(data);
      writeFileSync(join(data, 'users.jsonl'), '[{"login":"alice"}]\n');
      return [];
    }, /line 1 \(byte 0\) .*"format":"registrar-users".*nothing was changed/],
    ['a key that is too short', (_data, certs) => {
      mkdirSync(certs);
      const [key, cert] = [join(certs, 'key.pem'), join(certs, 'cert.pem')];
      spawnSync('openssl', ['req', '-x509', '-newkey', 'rsa:512', '-nodes', '-keyout', key, '-out', cert, '-subj', '/CN=x']);
      return [];
    }, /holds no certificate in PEM that can be used/],
    ['a file with no line', (data, certs) => (makeCertificate(certs), mkdirSync(data), writeFileSync(join(data, 'users.jsonl'), 'x'.repeat(9000)), []), /the header has no end/],
    ['a pipe', (data, certs) => (makeCertificate(certs), mkdirSync(data), spawnSync('mkfifo', [join(data, 'users.jsonl')]), []), /it is not a file/],
    ['a file that was emptied', (data, certs) => (makeCertificate(certs), mkdirSync(data), writeFileSync(join(data, 'users.jsonl'), ''), []), /it is empty/],
  ];
  for (const [name, prepare, pattern] of cases) {
    const directory = temporaryDirectory(t);
    const [data, certs] = [join(directory, 'data'), join(directory, 'certs')];
    const extra = prepare(data, certs);
    const before = snapshot(directory);
    const { status, stdout, stderr } = registrar(['serve', '--port', '0', '--data', data, '--certs', certs, ...cheap, ...extra]);
    const lines = stderr.split('\n').filter((line) => line !== '' && !line.includes('OWASP'));
    assert.equal(status, 1, `${name}: ${stderr}`);
    assert.equal(stdout, '', name);
    assert.equal(lines.length, 1, `${name}: ${stderr}`);
    assert.match(lines[0]!, pattern, name);
    assert.deepEqual(snapshot(directory), before, name);
  }
});

test('cli: a directory of another user is refused with the command that would do', { skip: process.getuid?.() !== 0 && 'only root can be somebody else' }, (t) => {
  const directory = temporaryDirectory(t);
  const data = join(directory, 'data');
  mkdirSync(data);
  spawnSync('chown', ['1:1', data]);
  const { status, stderr } = registrar(['serve', '--port', '0', '--data', data, '--certs', certificates()]);
  assert.equal(status, 1);
  assert.match(stderr, /belongs to daemon, not to you: start it as its owner, with sudo -u daemon …\n$/);
  assert.deepEqual(readdirSync(data), []);
});

test('cli: a data directory that is not writable is refused', { skip: process.getuid?.() !== 0 && 'only root can be somebody else' }, (t) => {
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o755);
  const data = join(directory, 'data');
  mkdirSync(data, { mode: 0o555 });
  spawnSync('chown', ['65534:65534', data]);
  const certs = join(directory, 'certs');
  makeCertificate(certs);
  spawnSync('chown', ['-R', '65534:65534', certs]);
  // It becomes nobody when Node has started: Node itself may lie where nobody may not look.
  const nobody = 'data:text/javascript,process.setgid(65534);process.setuid(65534)';
  const command = [...loader, '--import', nobody, 'bin/registrar.ts', 'serve', '--port', '0', '--data', data, '--certs', certs];
  // Nobody may not write where coverage is collected either.
  const env = { ...process.env, NODE_V8_COVERAGE: '' };
  const result = spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8', timeout: 30_000, env });
  assert.match(result.stderr, /Cannot use the data directory .*: it is not writable \(EACCES\)\n$/);
  assert.equal(result.status, 1);
});

test('cli: it goes on when whoever reads what it prints has gone', async (t) => {
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

test('cli: weak hashing is warned about, once and loudly', async (t) => {
  const service = await spawnService(t);
  assert.equal((await service.ask('/user/')).status, 200);
  assert.match(service.stderr(), /^registrar: WARNING: --kdf pbkdf2:sha256:1 .*OWASP advises 600000 iterations or more\n$/);
});

test('cli: a certificate that is about to expire is told', async (t) => {
  const certs = join(temporaryDirectory(t), 'certs');
  spawnSync('make', ['cert', `CERTS=${certs}`, 'DAYS=3'], { cwd: root });
  const service = await openService(t, [...cheap, '--certs', certs]);
  assert.ok(service.reports.includes('The certificate expires in 2 days: make cert FORCE=1') || service.reports.includes('The certificate expires in 3 days: make cert FORCE=1'), service.reports.join());
});

test('cli: plain HTTP is spoken with --http, without a certificate', async (t) => {
  const data = temporaryDirectory(t);
  const child = spawn(process.execPath, [...loader, 'bin/registrar.ts', 'serve', '--http', '--port', '0', '--data', data, '--certs', '/nowhere'], { cwd: root });
  t.after(() => void child.kill('SIGKILL'));
  const [chunk] = await once(child.stdout, 'data');
  const [, url = ''] = /(http:\S+)/.exec(String(chunk)) ?? [];
  const response = await fetch(new URL('/user/', url));
  assert.deepEqual(await response.json(), { users: [], next: null });
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

test('cli: on a terminal it prints where it listens and three lines that work when pasted', { skip: without('script') || without('curl') }, async (t) => {
  const data = temporaryDirectory(t);
  // exec: a shell that waits beside it would get the Ctrl-C too, and end by it.
  const command = [process.execPath, ...loader, 'bin/registrar.ts', 'serve', '--port', '0', '--data', data, '--certs', certificates(), ...cheap];
  const child = spawn('script', ['-qec', `exec ${command.join(' ')}`, '/dev/null'], { cwd: root });
  t.after(() => void child.kill('SIGKILL'));
  let text = '';
  child.stdout.on('data', (chunk) => (text += chunk));
  while (!text.includes('DELETE')) await once(child.stdout, 'data');
  while (!text.endsWith('\n\r\n')) await once(child.stdout, 'data');
  assert.match(text, /Registrar listens on https:\/\/127\.0\.0\.1:\d+/);
  const lines = text.split('\r\n').filter((line) => line.startsWith('  curl'));
  assert.equal(lines.length, 3);
  const outputs = lines.map((line) => spawnSync('sh', ['-c', `${line} -s -w '%{http_code}'`], { encoding: 'utf8' }).stdout);
  assert.deepEqual(outputs.map((output) => output.slice(-3)), ['201', '200', '204']);
  // Ctrl-C, as the terminal sends it.
  child.stdin.write('\x03');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

test('cli: check, compact and repair work while the service runs, and say what they did', async (t) => {
  const { data, ask, ended, child, stderr } = await spawnService(t);
  for (let n = 0; n < 20; n++) assert.equal((await ask('/user/', { method: 'POST', body: { login: `user${n}`, password: 'correct horse' } })).status, 201);
  for (let n = 0; n < 5; n++) assert.equal((await ask(`/user/user${n}`, { method: 'DELETE' })).status, 204);
  const file = join(data, 'users.jsonl');
  const checked = registrar(['check', '--data', data]);
  assert.deepEqual([checked.status, checked.stderr], [0, '']);
  assert.match(checked.stdout, /users\.jsonl: 15 users, 26 lines of which 10 are dead, 25 batches, [\d,]+ bytes; every checksum holds\n$/);
  assert.deepEqual([registrar(['repair', '--data', data]).status, registrar(['repair', '--yes'], { REGISTRAR_DATA: data }).stdout], [0, `${file}: nothing is wrong with it\n`]);
  const compacted = registrar(['compact', '--data', data]);
  assert.match(compacted.stdout, /^15 users: [\d,]+ bytes became [\d,]+\n$/);
  assert.deepEqual([(await ask('/user/user0')).status, (await ask('/user/user19')).status], [404, 200]);
  assert.equal((await ask('/user/', { method: 'POST', body: { login: 'user0', password: 'correct horse' } })).json.id, 21);
  assert.match(registrar(['check', '--data', data]).stdout, /16 users, 17 lines of which 0 are dead/);
  // A line rots underneath.
  const bytes = readFileSync(file);
  bytes[bytes.indexOf('user7') + 4]! ^= 1;
  writeFileSync(file, bytes);
  assert.equal((await ask('/user/user7')).status, 500);
  const damaged = registrar(['check', '--data', data]);
  assert.equal(damaged.status, 1);
  assert.match(damaged.stdout, /: damaged\n  line 4 \(byte \d+, \d+ bytes\) fails its checksum: it seems to be about user 8, "user6", who is not saved\n$/);
  assert.match(damaged.stderr, /^registrar: Cannot open "[^"]+": line 4 \(byte \d+\) fails its checksum[^\n]+registrar repair\n$/);
  // Without a terminal nobody can be asked.
  const refused = registrar(['repair', '--data', data]);
  assert.deepEqual([refused.status, readFileSync(file).equals(bytes)], [1, true]);
  assert.match(refused.stderr, /nothing was changed; with --yes nobody is asked\n$/);
  const repaired = registrar(['repair', '--yes', '--data', data]);
  assert.equal(repaired.status, 0);
  assert.match(repaired.stdout, /15 users can be saved\. What is lost:\n  line 4 .*\n.* has 15 users now; the damaged file is .*users\.jsonl\.damaged-\S+\n$/);
  assert.deepEqual([(await ask('/user/user7')).status, (await ask('/user/user8')).status], [404, 200]);
  assert.equal((await ask('/user/', { method: 'POST', body: { login: 'user7', password: 'correct horse' } })).status, 201);
  assert.match(registrar(['check', '--data', data]).stdout, /16 users/);
  child.kill('SIGTERM');
  assert.deepEqual([await ended, stderr().includes('Error')], [0, false]);
});

test('cli: on a terminal repair asks, and takes nothing but yes for yes', { skip: without('script') }, async (t) => {
  const { data, ask, child, ended } = await spawnService(t);
  for (const login of ['alice', 'bob']) await ask('/user/', { method: 'POST', body: { login, password: 'correct horse' } });
  child.kill('SIGTERM');
  await ended;
  const file = join(data, 'users.jsonl');
  const damaged = readFileSync(file, 'utf8').replace('"alice"', '"alicf"');
  writeFileSync(file, damaged);
  const answer = async (text: string): Promise<[code: number, output: string]> => {
    const command = ['exec', process.execPath, ...loader, 'bin/registrar.ts', 'repair', '--data', data];
    const terminal = spawn('script', ['-qec', command.join(' '), '/dev/null'], { cwd: root });
    t.after(() => void terminal.kill('SIGKILL'));
    let output = '';
    terminal.stdout.on('data', (chunk) => (output += chunk));
    while (!output.includes('[y/N]')) await once(terminal.stdout, 'data');
    terminal.stdin.write(text);
    const [code] = await once(terminal, 'close');
    return [code as number, output];
  };
  for (const text of ['n\n', '\n']) {
    const [code, output] = await answer(text);
    assert.deepEqual([code, readFileSync(file, 'utf8') === damaged], [1, true]);
    assert.match(output, /1 users can be saved.*line 2 .*"alicf", who is not saved.*nothing was changed/s);
  }
  const [code, output] = await answer('y\n');
  assert.equal(code, 0, output);
  assert.deepEqual(readFileSync(file, 'utf8').match(/"login":"\w+"/g), ['"login":"bob"']);
});

test('cli: check, compact and repair make nothing where nothing is, and refuse what is none of theirs', (t) => {
  const data = temporaryDirectory(t);
  for (const name of ['check', 'compact', 'repair']) {
    const { status, stderr } = registrar([name, '--data', join(data, 'none')]);
    assert.deepEqual([status, /There is no users' file ".*none.users\.jsonl"; name its directory with --data/.test(stderr)], [1, true]);
  }
  writeFileSync(join(data, 'users.jsonl'), '{"users":[]}\n');
  const before = snapshot(data);
  for (const name of ['check', 'compact', 'repair']) assert.equal(registrar([name, '--data', data]).status, 1, name);
  assert.deepEqual(snapshot(data), before);
});

test('make cert: a P-256 key of mode 0600, the names asked for, and nothing is overwritten unless told to', { skip: without('openssl') }, (t) => {
  const certs = join(temporaryDirectory(t), 'certs');
  const make = (...args: string[]) => spawnSync('make', ['cert', `CERTS=${certs}`, ...args], { cwd: root, encoding: 'utf8' });
  const key = join(certs, 'key.pem');
  assert.equal(make('HOSTS=registrar.example 192.0.2.7 2001:db8::7').status, 0);
  assert.equal(statSync(key).mode & 0o777, 0o600);
  const text = spawnSync('openssl', ['x509', '-in', join(certs, 'cert.pem'), '-noout', '-text'], { encoding: 'utf8' }).stdout;
  assert.match(text, /prime256v1/);
  for (const name of ['DNS:localhost', 'IP Address:127.0.0.1', 'IP Address:0:0:0:0:0:0:0:1', 'DNS:registrar.example', 'IP Address:192.0.2.7', 'IP Address:2001:DB8:0:0:0:0:0:7']) {
    assert.ok(text.includes(name), name);
  }
  const before = readFileSync(key);
  const again = make();
  assert.equal(again.status, 0);
  assert.match(again.stderr, /were kept; FORCE=1 makes both anew/);
  assert.equal(make('FORCE=0').status, 0);
  // More names are for a certificate: the key stays.
  assert.equal(make('HOSTS=other.example').status, 0);
  assert.match(spawnSync('openssl', ['x509', '-in', join(certs, 'cert.pem'), '-noout', '-text'], { encoding: 'utf8' }).stdout, /DNS:other\.example/);
  assert.ok(readFileSync(key).equals(before));
  for (const hosts of ['bad_name!', "x';touch pwned;'", '$(touch pwned)']) {
    const result = make(`HOSTS=${hosts.replaceAll('$', '$$$$')}`);
    assert.notEqual(result.status, 0, hosts);
    assert.match(result.stderr, /is no host name and no address/);
  }
  // A certificate that somebody else has issued is not replaced by one of our own.
  const authority = join(certs, '..', 'authority');
  spawnSync('make', ['cert', `CERTS=${authority}`, 'HOSTS=authority.example'], { cwd: root });
  spawnSync('openssl', ['req', '-new', '-key', key, '-subj', '/CN=issued', '-out', join(authority, 'request.pem')]);
  const signed = spawnSync('openssl', ['x509', '-req', '-in', join(authority, 'request.pem'), '-CA', join(authority, 'cert.pem'), '-CAkey', join(authority, 'key.pem'), '-set_serial', '5'], { encoding: 'utf8' });
  const issued = signed.stdout;
  assert.match(issued, /BEGIN CERTIFICATE/);
  writeFileSync(join(certs, 'cert.pem'), issued);
  assert.match(make('HOSTS=third.example').stderr, /was issued by somebody else and was kept/);
  assert.equal(readFileSync(join(certs, 'cert.pem'), 'utf8'), issued);
  assert.equal(make('FORCE=1').status, 0);
  assert.ok(!readFileSync(key).equals(before));
  assert.deepEqual(readdirSync(certs).sort(), ['cert.pem', 'key.pem']);
});

test('make cert: without openssl it says what to install', (t) => {
  const bin = temporaryDirectory(t);
  for (const tool of ['sh', 'make', 'node', 'echo']) spawnSync('sh', ['-c', `ln -s "$(command -v ${tool})" ${join(bin, tool)}`]);
  const result = spawnSync('make', ['cert', `CERTS=${join(bin, 'certs')}`], { cwd: root, encoding: 'utf8', env: { PATH: bin } });
  assert.notEqual(result.status, 0);
  assert.match(result.stderr, /there is no openssl here: install it/);
});
