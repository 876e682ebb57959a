/** The command as a process: at a terminal, under nohup, installed, packed; make cert; the console blocks of README. */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { FileUserStore } from '../../lib/store/file/file-user-store.ts';
import { runCommand } from '../helper/command.ts';
import type { Outcome } from '../helper/command.ts';
import { certificates, cheap, readUsersFile } from '../helper/service.ts';
import { childEnvironment, freePort, loader, npmEnvironment, root, temporaryDirectory, until } from '../helper/temporary.ts';
import { notLinux, notRoot, trial } from '../helper/trial.ts';
import assert from 'node:assert/strict';

const password = 'correct horse';
const registrarLine = [process.execPath, ...loader, join(root, 'bin/registrar.ts')].join(' ');

/** Runs a line of a shell at a terminal, and types each answer when its prompt is shown. */
async function atTerminal(t: TestContext, line: string, answers: readonly (readonly [prompt: string, typed: string | (() => void)])[]): Promise<[number, string]> {
  const terminal = spawn('script', ['-qec', line, '/dev/null'], { cwd: root, env: childEnvironment({ REGISTRAR_KDF: 'pbkdf2:sha256:1' }) });
  t.after(() => void terminal.kill('SIGKILL'));
  let output = '';
  let seen = 0;
  terminal.stdout.on('data', (chunk) => (output += chunk));
  const closed = once(terminal, 'close');
  for (const [prompt, typed] of answers) {
    await until(() => output.slice(seen).includes(prompt), `"${prompt}" in ${output}`);
    seen = output.indexOf(prompt, seen) + prompt.length;
    if (typeof typed === 'string') terminal.stdin.write(typed);
    else typed();
  }
  const [code] = await closed;
  return [code as number, output];
}

/** Whether the process with the id in that file still runs. */
function isAlive(pidFile: string): boolean {
  try {
    process.kill(Number(readFileSync(pidFile, 'utf8')), 0);
    return true;
  } catch {
    return false;
  }
}

function serveLine(t: TestContext): { line: string; pid: string; data: string } {
  const data = temporaryDirectory(t);
  const pid = join(data, 'pid');
  t.after(() => {
    if (existsSync(pid) && isAlive(pid)) process.kill(Number(readFileSync(pid, 'utf8')), 'SIGKILL');
  });
  const flags = ['--port', '0', '--data', data, '--certs', certificates(), ...cheap].join(' ');
  return { line: `${registrarLine} serve ${flags}`, pid, data };
}

trial('terminal: serve prints where it listens, the page, the mode and the users, and three lines that work when pasted', { needs: ['script', 'curl'] }, async (t) => {
  const { line, data } = serveLine(t);
  // exec: a shell that waits would get the Ctrl-C too, and end by it.
  const child = spawn('script', ['-qec', `exec ${line}`, '/dev/null'], { cwd: root, env: childEnvironment() });
  t.after(() => void child.kill('SIGKILL'));
  let text = '';
  child.stdout.on('data', (chunk) => (text += chunk));
  await until(() => /DELETE[^\n]*\n\r\n/.test(text), 'the three lines');
  assert.match(text, /Registrar listens on (https:\/\/127\.0\.0\.1:\d+)\r\n {2}Page: {2}\1\/; the certificate is self-signed, so browsers warn\r\n {2}Mode: {2}unauthenticated/);
  assert.ok(text.includes(`  Users: ${join(data, 'users.jsonl')}\r\n`), text);
  const lines = text.split('\r\n').filter((shown) => shown.startsWith('  curl'));
  const outputs = lines.map((shown) => spawnSync('sh', ['-c', `${shown} -s -w '%{http_code}'`], { encoding: 'utf8' }).stdout);
  assert.deepEqual(outputs.map((output) => output.slice(-3)), ['201', '200', '204']);
  child.stdin.write('\x03');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

trial('terminal: one that is closed leaves no service behind, in the foreground, in the background and with its output elsewhere', { needs: ['script', 'bash'], cannot: notLinux }, async (t) => {
  const cases: [name: string, line: (serve: string, pid: string) => string][] = [
    ['foreground', (serve, pid) => `echo $$ > ${pid}; exec ${serve}`],
    ['foreground of a shell', (serve, pid) => `sh -c 'echo $$ > ${pid}; exec ${serve}'; true`],
    ['background of an interactive shell', (serve, pid) => `bash -ic '${serve} & echo $! > ${pid}; wait'`],
    ['background of a shell that has ended', (serve, pid) => `sh -c '${serve} & echo $! > ${pid}'; sleep 3; true`],
    ['output in a file', (serve, pid) => `echo $$ > ${pid}; exec ${serve} > ${pid}.log 2>&1`],
  ];
  for (const [name, line] of cases) {
    const { line: serve, pid, data } = serveLine(t);
    const terminal = spawn('script', ['-qec', line(serve, pid), '/dev/null'], { cwd: root, env: childEnvironment(), stdio: ['pipe', 'ignore', 'ignore'] });
    await until(() => existsSync(join(data, 'users.jsonl')), `${name}: it serves`);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    assert.ok(isAlive(pid), name);
    terminal.kill('SIGKILL');
    await until(() => !isAlive(pid), `${name}: it ends`, 15_000);
  }
});

trial('terminal: under nohup it stays, and SIGHUP to a service at a live terminal reads the certificate again', { needs: ['script', 'nohup'], cannot: notLinux }, async (t) => {
  const { line, pid, data } = serveLine(t);
  const log = join(data, 'log');
  const terminal = spawn('script', ['-qec', `sh -c 'nohup ${line} > ${log} 2>&1 & echo $! > ${pid}'; sleep 100`, '/dev/null'], { cwd: root, env: childEnvironment(), stdio: ['pipe', 'ignore', 'ignore'] });
  await until(() => existsSync(log) && readFileSync(log, 'utf8').includes('listens on'), 'it serves');
  terminal.kill('SIGKILL');
  await new Promise((resolve) => setTimeout(resolve, 7_000));
  assert.ok(isAlive(pid), readFileSync(log, 'utf8'));
  process.kill(Number(readFileSync(pid, 'utf8')), 'SIGHUP');
  await until(() => /certificate/i.test(readFileSync(log, 'utf8')), 'it reads the certificate');
  process.kill(Number(readFileSync(pid, 'utf8')), 'SIGTERM');
  await until(() => !isAlive(pid), 'it ends');

  const live = serveLine(t);
  const shown = spawn('script', ['-qec', `echo $$ > ${live.pid}; exec ${live.line}`, '/dev/null'], { cwd: root, env: childEnvironment() });
  t.after(() => void shown.kill('SIGKILL'));
  let text = '';
  shown.stdout.on('data', (chunk) => (text += chunk));
  await until(() => text.includes('listens on'), 'it serves');
  await new Promise((resolve) => setTimeout(resolve, 500));
  process.kill(Number(readFileSync(live.pid, 'utf8')), 'SIGHUP');
  await until(() => /certificate was|certificate is/i.test(text), `it reads the certificate: ${text}`);
  assert.ok(isAlive(live.pid));
});

trial('terminal: a password is not shown, and Ctrl-C and SIGTERM at the prompt leave the terminal as it was', { needs: ['script', 'stty'] }, async (t) => {
  const data = temporaryDirectory(t);
  const pid = join(data, 'pid');
  const add = `${registrarLine} user add alice --data ${data}`;
  const [code, output] = await atTerminal(t, add, [['Password of alice: ', `${password}\r`], ['Once more: ', `${password}\r`]]);
  assert.deepEqual([code, output.slice(output.indexOf('Password'))], [0, 'Password of alice: \r\nOnce more: \r\nalice is user 1\r\n']);
  const passwd = `${registrarLine} user passwd alice --data ${data}`;
  const state = (shown: string): string => shown.slice(shown.indexOf('speed'));
  const [, before] = await atTerminal(t, 'stty -a', []);
  const [, interrupted] = await atTerminal(t, `${passwd}; echo ended $?; stty -a`, [['alice: ', 'half a pass\x03']]);
  assert.match(interrupted, /Interrupted\. Nothing was changed\.\r\nended 1\r\n/);
  const end = (): void => void process.kill(Number(readFileSync(pid, 'utf8')), 'SIGTERM');
  const [, terminated] = await atTerminal(t, `sh -c 'echo $$ > ${pid}; exec ${passwd}'; echo ended $?; stty -a`, [['alice: ', end]]);
  assert.match(terminated, /ended 143\r\n/);
  assert.deepEqual([state(interrupted), state(terminated), / echo /.test(before)], [state(before), state(before), true]);
  for (const [answer, status] of [['n\r', 1], ['\r', 1], ['y\r', 0]] as const) {
    const [ended] = await atTerminal(t, `${registrarLine} user remove alice --data ${data}`, [['[y/N] ', answer]]);
    assert.equal(ended, status, answer);
  }
  assert.equal(readUsersFile(data).length, 3);
});

trial('terminal: list ends quietly when its reader has gone, and not when the result cannot be written', { needs: ['bash', 'head'], cannot: notLinux }, async (t) => {
  const data = temporaryDirectory(t);
  const store = await FileUserStore.open({ path: join(data, 'users.jsonl'), lockWaitMsMax: 5_000 });
  const users = Array.from({ length: 20_000 }, (_, n) => ({ login: `user${n}`, registered: '2026-11-22T15:00:00.000Z', kdf: 'pbkdf2:sha256:1', password: `${'0'.repeat(32)}$${'0'.repeat(64)}` }));
  for (let n = 0; n < users.length; n += 1_000) await store.createMany(users.slice(n, n + 1_000));
  await store.close();
  for (const flags of ['', '--json']) {
    const list = `${registrarLine} user list --data ${data} ${flags}`;
    const { stdout, stderr } = spawnSync('bash', ['-c', `${list} | head -n 2; echo "\${PIPESTATUS[0]}"`], { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 30_000 });
    assert.deepEqual([stderr, stdout.split('\n').length, stdout.split('\n').at(-2)], ['', 4, '0']);
    const full = spawnSync('bash', ['-c', `${list} > /dev/full`], { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 30_000 });
    assert.deepEqual([full.status, /^registrar: Cannot write the result: ENOSPC/.test(full.stderr)], [1, true], full.stderr);
  }
  assert.equal((await runCommand(['user', 'list', '--json', '--data', data])).stdout.trimEnd().split('\n').length, 20_000);
});

trial('install: plain JavaScript and a link on the PATH, which works from anywhere; uninstall leaves nothing', { needs: ['make'] }, async (t) => {
  const prefix = temporaryDirectory(t);
  const make = (...args: string[]) => spawnSync('make', [...args, `DESTDIR=${prefix}`, 'PREFIX=/usr'], { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 120_000 });
  for (let n = 0; n < 2; n++) assert.equal(make('install').status, 0);
  const program = join(prefix, 'usr/bin/registrar');
  const run = (...args: string[]) => spawnSync(program, args, { cwd: prefix, encoding: 'utf8' });
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.equal(run('--version').stdout, `${version}\n`);
  const files = readdirSync(join(prefix, 'usr/lib/registrar'), { recursive: true, encoding: 'utf8' });
  assert.deepEqual(files.filter((name) => /\.ts$|node_modules|^test/.test(name)), []);
  assert.deepEqual(readdirSync(join(prefix, 'usr/lib')), ['registrar']);
  assert.equal(statSync(join(prefix, 'usr/lib/registrar/lib/app.js')).mode & 0o777, 0o644);
  const child = spawn(program, ['serve', '--http', '--port', '0'], { cwd: prefix, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => void child.kill('SIGKILL'));
  const [chunk] = await once(child.stdout, 'data');
  const [, url = ''] = /listens on (\S+)\n/.exec(String(chunk)) ?? [];
  const body = JSON.stringify({ login: 'alice', password: 'correct horse battery' });
  assert.equal((await fetch(new URL('/user/', url), { method: 'POST', body, headers: { 'content-type': 'application/json' } })).status, 201);
  assert.equal((await fetch(url)).status, 200, 'the page is there');
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
  assert.match(run('user', 'show', 'alice').stdout, /^id {10}1\n/);
  assert.equal(make('uninstall').status, 0);
  assert.deepEqual([readdirSync(join(prefix, 'usr/lib')), readdirSync(join(prefix, 'usr/bin'))], [[], []]);
});

trial('make: flags behind -- are one line, and a Node that does not read TypeScript says what to run', { needs: ['make'] }, () => {
  const run = spawnSync('make', ['run', '--', '--port', '1'], { cwd: root, env: childEnvironment(), encoding: 'utf8' });
  assert.deepEqual([run.status, run.stderr.trimEnd().split('\n').length], [2, 1]);
  assert.match(run.stderr, /make run ARGS="--port 9443"/);
  // The flag's name depends on the version; Node 20 reads no TypeScript and needs none.
  const candidates = [['--no-strip-types'], ['--no-experimental-strip-types'], []];
  const flags = candidates.find((some) => spawnSync(process.execPath, [...some, '-p', '!process.features.typescript'], { encoding: 'utf8' }).stdout === 'true\n');
  assert.ok(flags !== undefined);
  const old = spawnSync(process.execPath, [...flags, 'bin/registrar.ts', 'serve'], { cwd: root, env: childEnvironment(), encoding: 'utf8' });
  assert.deepEqual([old.status, old.stdout], [1, '']);
  assert.match(old.stderr, /^registrar: Node \S+ does not run TypeScript\. Run "make run", or [^\n]+\n$/);
});

trial('make cert: a P-256 key of mode 0600 that is kept; renewed names, and a copy of a key that is replaced', { needs: ['make', 'openssl'] }, (t) => {
  const certs = join(temporaryDirectory(t), 'certs');
  const make = (...args: string[]) => spawnSync('make', ['cert', `CERTS=${certs}`, ...args], { cwd: root, env: childEnvironment(), encoding: 'utf8' });
  const [key, cert] = [join(certs, 'key.pem'), join(certs, 'cert.pem')];
  const describe = (): string => spawnSync('openssl', ['x509', '-in', cert, '-noout', '-text'], { encoding: 'utf8' }).stdout;
  assert.match(make('HOSTS=registrar.example 192.0.2.7 2001:db8::7').stderr, new RegExp(`Created the directory "${certs}"`));
  assert.equal(statSync(key).mode & 0o777, 0o600);
  assert.match(describe(), /prime256v1/);
  for (const name of ['DNS:localhost', 'IP Address:127.0.0.1', 'DNS:registrar.example', 'IP Address:192.0.2.7', 'IP Address:2001:DB8:0:0:0:0:0:7']) assert.ok(describe().includes(name), name);
  const before = readFileSync(key);
  for (const args of [[], ['FORCE=0']]) assert.match(make(...args).stderr, /is valid for 30 days or more, and was kept/);
  // A certificate that is about to expire is renewed with its names, for the same key.
  assert.equal(make('HOSTS=other.example', 'DAYS=3').status, 0);
  assert.equal(make().status, 0);
  assert.match(describe(), /DNS:other\.example/);
  assert.equal(spawnSync('openssl', ['x509', '-in', cert, '-noout', '-checkend', '2592000']).status, 0);
  assert.ok(readFileSync(key).equals(before));
  for (const hosts of ['bad_name!', "x';touch pwned;'", '$(touch pwned)']) {
    const refused = make(`HOSTS=${hosts.replaceAll('$', '$$$$')}`);
    assert.notEqual(refused.status, 0, hosts);
    assert.match(refused.stderr, /is not a host name or an address/);
  }
  const forced = make('FORCE=1');
  const kept = readdirSync(certs).find((name) => name.startsWith('key.pem.'));
  assert.ok(kept !== undefined && forced.stderr.includes(kept), forced.stderr);
  assert.deepEqual([readFileSync(join(certs, kept)).equals(before), readFileSync(key).equals(before)], [true, false]);
  // What make cert did not make is named, and kept.
  const authority = join(certs, '..', 'authority');
  spawnSync('make', ['cert', `CERTS=${authority}`, 'HOSTS=authority.example'], { cwd: root, env: childEnvironment() });
  spawnSync('openssl', ['req', '-new', '-key', key, '-subj', '/CN=issued', '-out', join(authority, 'request.pem')]);
  const issue = ['x509', '-req', '-in', join(authority, 'request.pem'), '-CA', join(authority, 'cert.pem'), '-CAkey', join(authority, 'key.pem'), '-set_serial', '5'];
  const issued = spawnSync('openssl', issue, { encoding: 'utf8' }).stdout;
  writeFileSync(cert, issued);
  assert.match(make('HOSTS=third.example').stderr, /was issued by an authority: renew it there/);
  assert.equal(readFileSync(cert, 'utf8'), issued);
  spawnSync('openssl', ['pkey', '-in', key, '-aes128', '-passout', 'pass:x', '-out', `${key}.encrypted`]);
  writeFileSync(key, readFileSync(`${key}.encrypted`));
  const encrypted = readFileSync(key);
  assert.match(make('HOSTS=third.example').stderr, /is not a key in PEM without a passphrase\. It was kept/);
  assert.ok(readFileSync(key).equals(encrypted));
});

function run(program: string, args: readonly string[], cwd: string): string {
  const env = { ...npmEnvironment(), npm_config_cache: join(cwd, '.npm') };
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, encoding: 'utf8', timeout: 120_000, env });
  assert.equal(status, 0, `${program} ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

/** An empty project with the package in it, which was made from a copy of what is here. */
function install(t: TestContext): { project: string; packed: string[] } {
  const copy = temporaryDirectory(t);
  for (const name of ['lib', 'bin', 'test', 'Makefile', 'package.json', 'package-lock.json', 'tsconfig.json', 'README.md', 'LICENSE']) {
    cpSync(join(root, name), join(copy, name), { recursive: true, preserveTimestamps: true });
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  const [{ filename, files }] = JSON.parse(run('npm', ['pack', '--json', '--silent'], copy).replace(/^[^]*?^(?=\[$)/m, ''));
  const project = temporaryDirectory(t);
  writeFileSync(join(project, 'package.json'), '{"name":"somebody","version":"1.0.0","type":"module"}\n');
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', join(copy, filename)], project);
  return { project, packed: files.map(({ path }: { path: string }) => path) };
}

/** Documents stay behind, but that of the list of common passwords, which names its licences. */
function isDocument(name: string): boolean {
  return name.endsWith('README.md') && name !== 'lib/password/README.md';
}

trial('library: the package has what it needs and no more, and the documented example, its types and its command work', { needs: ['npm', 'make'] }, async (t) => {
  const { project, packed } = install(t);
  const sources = ['lib', 'bin'].flatMap((directory) => readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' }).map((name) => join(directory, name)));
  const scripts = sources.filter((name) => /\.(?:ts|js)$/.test(name));
  const expected = [
    ...scripts.map((name) => `dist/${name.replace(/\.ts$/, '.js')}`), ...['library', 'errors', 'user'].map((name) => `dist/lib/${name}.d.ts`),
    ...sources.filter((name) => /\.(?!ts$|js$)\w+$|(?:Caddy|Docker)file$/.test(name) && !/tsconfig\.json$|\.png$/.test(name) && !isDocument(name)).map((name) => `dist/${name}`), 'dist/package.json', 'package.json', 'README.md', 'LICENSE',
  ];
  assert.deepEqual([...packed].sort(), expected.sort());
  assert.deepEqual(readdirSync(join(project, 'node_modules')).filter((name) => !name.startsWith('.')), ['registrar']);

  const [, section = ''] = readFileSync(join(root, 'lib/README.md'), 'utf8').split('## As a library\n');
  const [, example = ''] = /```js\n(.*?)```/s.exec(section) ?? [];
  const [, output = ''] = /```console\n\$ node example\.mjs\n(.*?)```/s.exec(section) ?? [];
  writeFileSync(join(project, 'example.mjs'), example);
  assert.equal(run(process.execPath, ['example.mjs'], project), output);
  assert.ok(output !== '');

  // Nothing of Node's types is wanted, and what is wrong is seen.
  const flags = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2022', '--types', ''];
  writeFileSync(join(project, 'good.ts'), `${example.replace(/^console.*$/m, '').replace('console.log(id, login)', 'void (id satisfies number, login satisfies string)')}
import type { ErrorCode, FieldError, Registrar, User } from 'registrar';
export const code: ErrorCode = 'taken';
export async function first(given: Registrar): Promise<User | FieldError | undefined> { return (await given.find('alice')) ?? undefined; }\n`);
  run(join(root, 'node_modules', '.bin', 'tsc'), [...flags, 'good.ts'], project);
  writeFileSync(join(project, 'bad.ts'), "import { createRegistrar } from 'registrar';\nvoid (await createRegistrar({ directory: 'data' })).login;\n");
  const bad = spawnSync(join(root, 'node_modules', '.bin', 'tsc'), [...flags, 'bad.ts'], { cwd: project, encoding: 'utf8' });
  assert.deepEqual([...bad.stdout.matchAll(/error (TS\d+)/g)].map(([, number]) => number), ['TS2353', 'TS2339']);

  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.equal(run('npx', ['--offline', 'registrar', '--version'], project), `${version}\n`);
  const service = spawn(process.execPath, [join(project, 'node_modules', '.bin', 'registrar'), 'serve', '--http', '--port', '0'], { cwd: project });
  t.after(() => void service.kill('SIGKILL'));
  const [line] = await once(service.stdout, 'data');
  const [, url = ''] = /(http:\S+)/.exec(String(line)) ?? [];
  const { login } = (await (await fetch(new URL('/user/alice', url))).json()) as { login: string };
  assert.equal(login, 'alice');
  for (const path of ['/', '/page/page.js']) assert.equal((await fetch(new URL(path, url))).status, 200, path);
  service.kill('SIGTERM');
  assert.deepEqual(await once(service, 'exit'), [0, null]);
});

function registrar(args: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  return runCommand(args, { env });
}

function copyCertificate(directory: string): void {
  cpSync(certificates(), directory, { recursive: true });
}

trial('command: secrets in files of others are accepted or refused as Docker and Kubernetes mount them', { cannot: notRoot }, async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'secret');
  writeFileSync(path, 'a-token-of-some-length\n', { mode: 0o644 });
  const run = (): Promise<Outcome> => registrar(['proxy', 'nginx', '--certs', certificates(), '--trusted-proxy', '127.0.0.1'], { REGISTRAR_ADMIN_TOKEN_FILE: path });
  const open = await run();
  assert.equal(open.status, 0, open.stderr);
  assert.equal(open.stderr, `registrar: WARNING: Others can read the secret "${path}": chmod o-rwx '${path}'.\n`);
  chmodSync(path, 0o600);
  assert.equal((await run()).stderr, '');
  for (const text of ['', '\n', 'short\n']) {
    writeFileSync(path, text);
    const { status, stderr } = await run();
    assert.equal(status, 2);
    assert.match(stderr, /^registrar: Invalid value for REGISTRAR_ADMIN_TOKEN_FILE \(".*secret"\): it must be 16 or more visible/);
  }
  rmSync(path);
  const missing = await run();
  assert.deepEqual([missing.status, missing.stderr], [1, `registrar: Cannot read "${path}": it does not exist.\n`]);
});

trial('command: a directory of another user is refused with the command that would do', { cannot: notRoot }, async (t) => {
  const directory = temporaryDirectory(t);
  const data = join(directory, 'data');
  mkdirSync(data);
  chownSync(data, 1, 1);
  const { status, stderr } = await registrar(['serve', '--port', '0', '--data', data, '--certs', certificates()]);
  assert.equal(status, 1);
  assert.match(stderr, /belongs to daemon, not to you: .*sudo -u daemon registrar serve --port 0 --data \S+ --certs \S+\n$/);
  assert.deepEqual(readdirSync(data), []);
});

trial('command: an environment file that is closed to others names the user to run as', { cannot: notRoot }, async (t) => {
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o755);
  const file = join(directory, 'registrar.env');
  writeFileSync(file, `REGISTRAR_DATA=${directory}\n`, { mode: 0o640 });
  chownSync(file, 0, 1);
  process.seteuid?.(65_534);
  const { status, stderr } = await registrar(['user', 'show', 'o\'neil', '--env-file', file]).finally(() => process.seteuid?.(0));
  const remedy = `run it as daemon, with sudo -u daemon registrar user show 'o'\\''neil' --env-file ${file}.`;
  assert.deepEqual([status, stderr], [1, `registrar: Cannot read "${file}": permission is denied: ${remedy}\n`]);
});

trial('command: a data directory that is not writable is refused', { cannot: notRoot }, (t) => {
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o755);
  const data = join(directory, 'data');
  mkdirSync(data, { mode: 0o555 });
  spawnSync('chown', ['65534:65534', data]);
  const certs = join(directory, 'certs');
  copyCertificate(certs);
  spawnSync('chown', ['-R', '65534:65534', certs]);
  // It becomes another user when Node has started: Node itself may lie where that user cannot read.
  const nobody = 'data:text/javascript,process.setgid(65534);process.setuid(65534)';
  const command = [...loader, '--import', nobody, 'bin/registrar.ts', 'serve', '--port', '0', '--data', data, '--certs', certs];
  // That user cannot write where coverage is collected either.
  const env = childEnvironment({ NODE_V8_COVERAGE: '' });
  const result = spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8', timeout: 30_000, env });
  assert.match(result.stderr, /Cannot use the data directory .*: it is not writable \(EACCES\)\n$/);
  assert.equal(result.status, 1);
});

interface Step {
  readonly command: string;
  /** As printed, with an ellipsis for what differs. */
  readonly lines: readonly string[];
}

/** The steps of blocks that need no root, in order. */
function steps(text: string): Step[] {
  const blocks = [...text.matchAll(/```console\n(.*?)```/gs)].map(([, block = '']) => block.trimEnd().split('\n'));
  const found: { command: string; lines: string[] }[] = [];
  for (const line of blocks.flat()) {
    if (line.startsWith('$ ')) found.push({ command: line.slice(2), lines: [] });
    else found.at(-1)?.lines.push(line);
  }
  return found;
}

/** Times, tokens and what an ellipsis stands for may differ. */
function pattern(line: string): RegExp {
  const escaped = line.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\\\.\d{3}Z/g, '\\S{24}').replaceAll('…', '.*')}$`);
}

/** On a terminal curl shows no progress. */
const quiet = 'curl() { command curl -s "$@"; };';

const cannot = (): string | false => (loader.length === 0 ? false : 'README uses node bin/registrar.ts, which needs Node 22.18');

trial('readme: its console blocks can be pasted from top to bottom, and print what stands there', { cannot, needs: ['make', 'curl', 'git'] }, async (t) => {
  const directory = temporaryDirectory(t);
  const files = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' }).split('\0').filter((name) => name !== '');
  for (const name of files) cpSync(join(root, name), join(directory, name));
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'));
  const port = String(await freePort());
  const text = readFileSync(join(root, 'README.md'), 'utf8').replaceAll('8443', port).replaceAll('/home/you/registrar', directory);
  const env = childEnvironment({ REGISTRAR_PORT: port });
  const all = steps(text);
  assert.ok(all.length >= 9, String(all.length));
  for (const { command, lines } of all) {
    const child = spawn('bash', ['-c', `exec 2>&1; ${quiet} ${command}`], { cwd: directory, env, detached: true });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    const ended = once(child, 'exit');
    const isService = command === 'make run';
    t.after(async () => {
      if (child.exitCode === null) process.kill(-child.pid!, 'SIGINT');
      await ended;
    });
    const printed = (): string[] => output.trimEnd().split('\n');
    if (isService) await until(() => child.exitCode !== null || printed().length > lines.length, 'the service listens', 60_000);
    else assert.equal((await ended)[0], 0, `${command}: ${output}`);
    const found = isService ? printed().slice(0, lines.length) : printed();
    assert.equal(found.length, lines.length, `${command}: ${output}`);
    for (const [n, line] of lines.entries()) assert.match(found[n]!, pattern(line), command);
    // The service notices the admin token within a second.
    if (command === 'make token') await new Promise((resolve) => setTimeout(resolve, 1_100));
  }
});
