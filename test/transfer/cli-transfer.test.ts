import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync, writeSync, openSync, closeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Cluster, newPrefix, withoutEtcd } from '../helper/etcd-cluster.ts';
import { cannotMount, mountNew, testIf } from '../helper/possible.ts';
import { readUsersFile, spawnService } from '../helper/service.ts';
import { loader, root, temporaryDirectory, until, without } from '../helper/temporary.ts';

const command = [...loader, 'bin/registrar.ts'];
const kdf = 'pbkdf2:sha256:1';
const hash = `${'9c1f'.repeat(8)}$${'5be0'.repeat(16)}`;

function registrar(args: readonly string[], input: string | Buffer = ''): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [...command, ...args], { cwd: root, encoding: 'utf8', input, timeout: 60_000, maxBuffer: 1 << 28 });
}

function hashed(count: number, from = 0): string {
  return Array.from({ length: count }, (_, n) => `${JSON.stringify({ login: `user${from + n}`, kdf, password: hash })}\n`).join('');
}

test('transfer: beside a service users come in with the hashes of Django, sign in, and go out and in again bit for bit', { skip: without('python3') }, async (t) => {
  const service = await spawnService(t);
  const script = 'import base64,hashlib,json;h=hashlib.pbkdf2_hmac("sha256","верная лошадь".encode(),b"seasalt",9);' +
    'print(json.dumps({"login":"Алиса","password":"pbkdf2_sha256$9$seasalt$"+base64.b64encode(h).decode(),"registered":"2020-01-02T03:04:05.678Z"}))';
  const line = execFileSync('python3', ['-c', script], { encoding: 'utf8' });
  const first = registrar(['import', '--from', 'django', '--data', service.data], line);
  assert.deepEqual([first.status, first.stdout, first.stderr], [0, '1 line: 1 added, 0 there already, 0 refused, 0 invalid\n', '']);
  const session = { method: 'POST', headers: { 'content-type': 'application/json' } };
  assert.equal((await service.ask('/session', { ...session, body: { login: 'алиса', password: 'грустная лошадь' } })).status, 401);
  assert.equal((await service.ask('/session', { ...session, body: { login: 'алиса', password: 'верная лошадь' } })).status, 201);
  await until(() => readUsersFile(service.data).at(-1).kdf === kdf, 'the hash is made anew');
  const again = registrar(['import', '--from', 'django', '--data', service.data, '--json'], line);
  assert.deepEqual([again.status, JSON.parse(again.stdout)], [0, { line: 1, outcome: 'unchanged', login: 'алиса', id: 1 }]);

  const directory = temporaryDirectory(t);
  const [backup, restored] = [join(directory, 'backup.jsonl'), join(directory, 'restored')];
  const written = registrar(['export', '--data', service.data, '--output', backup]);
  assert.deepEqual([written.status, written.stdout, written.stderr], [0, '', '']);
  assert.equal(statSync(backup).mode & 0o777, 0o600);
  assert.equal(registrar(['import', '--data', restored, backup]).status, 0);
  const out = registrar(['export', '--data', restored]);
  assert.deepEqual([out.status, out.stdout, out.stderr], [0, readFileSync(backup, 'utf8'), '']);
  const document = registrar(['export', '--data', restored, '--json']);
  assert.deepEqual(JSON.parse(document.stdout), { users: [JSON.parse(out.stdout)] });
});

test('transfer: each line that is not in is told with its number and the rule, and no password is', (t) => {
  const data = join(temporaryDirectory(t), 'data');
  const lines = [
    '{"login":"alice","password":"correct horse battery"}', '{"login":"bob","password":"hunter2"}', 'hunter2', '{"login":"alice","password":"hunter2hunter2"}',
    `{"login":"carol","password":"${'hunter2'.repeat(4_000)}"}`,
  ];
  const input = Buffer.concat([Buffer.from(`${lines.join('\n')}\n`), Buffer.from([0xff])]);
  const dry = registrar(['import', '--dry-run', '--data', data, '-'], input);
  assert.equal(dry.status, 1);
  assert.match(dry.stdout, /^6 lines: 1 to add, 0 there already, 1 to refuse, 4 invalid; nothing was written\n$/);
  assert.equal(existsSync(data), false);
  const { status, stdout, stderr } = registrar(['import', '--kdf', kdf, '--data', data], input);
  assert.equal(status, 1);
  assert.equal(stdout, '6 lines: 1 added, 0 there already, 1 refused, 4 invalid\n');
  const told = stderr.trimEnd().split('\n');
  assert.match(told[0]!, /WARNING: --kdf/);
  const patterns = [/line 2: The password has 7 characters/, /line 3: It is not JSON/, /line 4: The login "alice" is that of user 1/, /line 5: It is longer than/, /line 6: It is not UTF-8/];
  assert.equal(told.length, 1 + patterns.length);
  for (const [n, pattern] of patterns.entries()) assert.match(told[n + 1]!, pattern);
  assert.ok(!`${stdout}${stderr}`.includes('hunter2'));
  const json = registrar(['import', '--json', '--data', data], input);
  assert.deepEqual(json.stdout.trimEnd().split('\n').map((text) => JSON.parse(text).outcome), ['unchanged', 'invalid', 'invalid', 'refused', 'invalid', 'invalid']);
});

test('transfer: bad usage is 2, what cannot be read or written is 1, and each is one line', (t) => {
  const directory = temporaryDirectory(t);
  const data = join(directory, 'data');
  assert.equal(registrar(['import', '--data', data], hashed(3)).status, 0);
  const cases: [args: string[], status: number, pattern: RegExp][] = [
    [['import', '--from', 'md5'], 2, /--from: it has to be one of werkzeug, django, phc, passlib/],
    [['import', 'a', 'b'], 2, /one file/],
    [['import', '--kdf', 'pbkdf2:sha256:9:hex'], 2, /--kdf/],
    [['import', '--password-min', '7'], 2, /--password-min/],
    [['import', '--nonsense'], 2, /--help/],
    [['export', 'file'], 2, /--output/],
    [['export', '--output', ''], 2, /--output/],
    [['export', '--data', data, '--output', join(data, 'users.jsonl')], 2, /users' file itself/],
    [['import', '--data', data, join(directory, 'missing')], 1, /Cannot read the input: ENOENT/],
    [['import', '--data', data, directory], 1, /Cannot read the input: EISDIR/],
    [['export', '--data', join(directory, 'missing')], 1, /There is no users' file/],
    [['export', '--data', data, '--output', join(directory, 'missing', 'x')], 1, /Cannot write/],
    [['export', '--data', data, '--output', '/dev/null'], 1, /is no file/],
  ];
  const before = readFileSync(join(data, 'users.jsonl'), 'utf8');
  for (const [args, status, pattern] of cases) {
    const ended = registrar(args);
    assert.deepEqual([ended.status, ended.stdout], [status, ''], args.join(' '));
    assert.match(ended.stderr, /^registrar: [^\n]+\n$/);
    assert.match(ended.stderr, pattern);
  }
  assert.equal(readFileSync(join(data, 'users.jsonl'), 'utf8'), before);
  assert.deepEqual(readdirSync(directory), ['data']);
});

test('transfer: interrupted, import says how far it came; killed, nothing is half; run again it goes on', async (t) => {
  const data = join(temporaryDirectory(t), 'data');
  const input = hashed(9_000);
  for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGKILL', null]] as const) {
    const child = spawn(process.execPath, [...command, 'import', '--json', '--data', data], { cwd: root });
    t.after(() => child.kill('SIGKILL'));
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk) => (stdout += chunk));
    child.stderr.on('data', (chunk) => (stderr += chunk));
    const ended = once(child, 'close');
    // The input has no end yet: what is told is what is durable.
    child.stdin.write(input);
    await until(() => stdout.split('\n').length > 8_000, 'two batches are told');
    child.kill(signal);
    assert.equal((await ended)[0], code);
    const results = stdout.trimEnd().split('\n').map((line) => JSON.parse(line));
    assert.equal(results.length, 8_000);
    const added = results.filter(({ outcome }) => outcome === 'added').length;
    assert.equal(added, signal === 'SIGINT' ? 8_000 : 0);
    if (code !== null) assert.match(stderr, new RegExp(`interrupted\\. It came to line 8,000; ${signal === 'SIGINT' ? '8,000' : '0'} users were added and stay\\. Run it again`));
  }
  const last = registrar(['import', '--data', data], input);
  assert.deepEqual([last.status, last.stdout], [0, '9,000 lines: 1,000 added, 8,000 there already, 0 refused, 0 invalid\n']);
  assert.equal(registrar(['export', '--data', data]).stdout.trimEnd().split('\n').length, 9_000);
});

test('transfer: whoever reads an export may leave; where there is no room it is said', { skip: without('bash') }, (t) => {
  const data = join(temporaryDirectory(t), 'data');
  assert.equal(registrar(['import', '--data', data], hashed(20_000)).status, 0);
  const quoted = [process.execPath, ...command, 'export', '--data', data].map((word) => `'${word}'`).join(' ');
  const piped = spawnSync('bash', ['-c', `${quoted} | head -n 1; exit "\${PIPESTATUS[0]}"`], { cwd: root, encoding: 'utf8', timeout: 60_000 });
  assert.deepEqual([piped.status, piped.stderr, piped.stdout.split('\n').length], [141, '', 2]);
  if (!existsSync('/dev/full')) return;
  const full = spawnSync('bash', ['-c', `${quoted} > /dev/full`], { cwd: root, encoding: 'utf8', timeout: 60_000 });
  assert.deepEqual([full.status, full.stderr], [1, 'registrar: Cannot write to standard output: there is no room for it; what is there is not all\n']);
});

testIf(cannotMount('tmpfs', '4M'), 'transfer: on a disk that is full an export leaves nothing, and an import what it says', async (t) => {
  const data = join(temporaryDirectory(t), 'data');
  assert.equal(registrar(['import', '--data', data], hashed(20_000)).status, 0);
  const mounted = mountNew('tmpfs', '4M');
  t.after(() => mounted.remove());
  const backup = join(mounted.directory, 'backup.jsonl');
  writeFileSync(backup, 'the one of yesterday');
  const out = registrar(['export', '--data', data, '--output', backup]);
  assert.equal(out.status, 1);
  assert.match(out.stderr, /^registrar: Cannot write ".*backup\.jsonl": there is no room for it; nothing is left of it\n$/);
  assert.equal(readFileSync(backup, 'utf8'), 'the one of yesterday');
  assert.equal(readdirSync(mounted.directory).filter((name) => name.includes('part')).length, 0);

  const small = join(mounted.directory, 'data');
  mkdirSync(small, { mode: 0o700 });
  const into = registrar(['import', '--data', small], hashed(20_000));
  assert.equal(into.status, 1);
  const [, line = '', added = ''] = /no room|full/i.test(into.stderr) ? (/It came to line ([\d,]+); ([\d,]+) users were added and stay/.exec(into.stderr) ?? []) : [];
  assert.ok(Number(added.replaceAll(',', '')) > 0, into.stderr);
  assert.equal(line, added);
  const users = registrar(['export', '--data', small]).stdout.trimEnd().split('\n');
  assert.equal(users.length, Number(added.replaceAll(',', '')));
  assert.equal(JSON.parse(users.at(-1)!).login, `user${users.length - 1}`);
});

test('transfer: from a file to a cluster and back everybody is who they were', { skip: withoutEtcd }, async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.stop());
  const etcd = ['--etcd', cluster.endpoints.join(','), '--etcd-prefix', newPrefix()];
  const directory = temporaryDirectory(t);
  const [first, back] = [join(directory, 'first'), join(directory, 'back')];
  const odd = { id: 5_000, login: 'алиса', registered: '2020-01-02T03:04:05.678Z', version: 3, changed: '2021-01-02T03:04:05.678Z', kdf: `${kdf}:hex`, password: `00ff$${'5be0'.repeat(16)}` };
  assert.equal(registrar(['import', '--data', first], `${hashed(1_500)}${JSON.stringify(odd)}\n`).status, 0);
  const before = registrar(['export', '--data', first]).stdout;
  const into = registrar(['import', ...etcd, '--data', join(directory, 'none')], before);
  assert.deepEqual([into.status, into.stdout], [0, '1,501 lines: 1,501 added, 0 there already, 0 refused, 0 invalid\n'], into.stderr);
  const out = registrar(['export', ...etcd, '--data', join(directory, 'none')]);
  assert.deepEqual([out.status, out.stderr], [0, '']);
  const byId = (text: string): unknown[] => text.trimEnd().split('\n').map((line) => JSON.parse(line)).sort((a, b) => a.id - b.id);
  assert.deepEqual(byId(out.stdout).map((user) => ({ ...user as object, id: 0 })), byId(before).map((user) => ({ ...user as object, id: 0 })));
  assert.equal(registrar(['import', ...etcd, '--dry-run', '--data', join(directory, 'none')], before).stdout, '1,501 lines: 0 to add, 1,501 there already, 0 to refuse, 0 invalid; nothing was written\n');
  assert.equal(registrar(['import', '--data', back], out.stdout).status, 0);
  assert.equal(existsSync(join(directory, 'none', 'users.jsonl')), false);
});

test('transfer: a line of a hundred megabytes does not have to fit into memory', (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'long.jsonl');
  const fd = openSync(path, 'w');
  for (let n = 0; n < 100; n++) writeSync(fd, Buffer.alloc(1 << 20, 'x'));
  writeSync(fd, `\n${hashed(1)}`);
  closeSync(fd);
  const { status, stderr } = spawnSync(process.execPath, ['--max-old-space-size=64', ...command, 'import', '--data', join(directory, 'data'), path], {
    cwd: root, encoding: 'utf8', timeout: 60_000,
  });
  assert.deepEqual([status, stderr], [1, 'registrar: line 1: It is longer than 16384 bytes\n']);
});
