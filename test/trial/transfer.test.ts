/** Import and export as commands, hashes of other systems, and logins against Python's Unicode data. */

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { foreignFormats, parseForeignHash } from '../../lib/password/foreign-hash.ts';
import type { ForeignFormat } from '../../lib/password/foreign-hash.ts';
import { Hasher } from '../../lib/password/hasher.ts';
import { parseKdf } from '../../lib/password/kdf.ts';
import { Registry } from '../../lib/registry.ts';
import { MemoryUserStore } from '../../lib/store/memory.ts';
import { parseLogin } from '../../lib/user.ts';
import { Cluster } from '../helper/etcd-cluster.ts';
import { newPrefix } from '../helper/etcd-suites.ts';
import { cannotMount, mountNew } from '../helper/possible.ts';
import { readUsersFile, spawnService } from '../helper/service.ts';
import { childEnvironment, loader, root, temporaryDirectory, until } from '../helper/temporary.ts';
import { trial, trialCount } from '../helper/trial.ts';

const command = [...loader, 'bin/registrar.ts'];
const kdf = 'pbkdf2:sha256:1';
const hash = `${'9c1f'.repeat(8)}$${'5be0'.repeat(16)}`;

function registrar(args: readonly string[], input: string | Buffer = ''): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [...command, ...args], { cwd: root, env: childEnvironment(), encoding: 'utf8', input, timeout: 60_000, maxBuffer: 1 << 28 });
}

function hashed(count: number, from = 0): string {
  return Array.from({ length: count }, (_, n) => `${JSON.stringify({ login: `user${from + n}`, kdf, password: hash })}\n`).join('');
}

trial('transfer: beside a service users come in with the hashes of Django, sign in, and go out and in again bit for bit', { needs: ['python3'] }, async (t) => {
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
  // The sign-in has renewed the hash: without an id it cannot be known that this is the same user.
  assert.deepEqual([again.status, JSON.parse(again.stdout).outcome], [1, 'refused']);

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

trial('transfer: each line that is not in is told with its number and the rule, and no password is', (t) => {
  const data = join(temporaryDirectory(t), 'data');
  const lines = [
    '{"login":"alice","password":"correct horse battery"}', '{"login":"bob","password":"hunter2"}', 'hunter2', '{"login":"alice","password":"hunter2hunter3"}',
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
  assert.match(told[1]!, /Created the directory ".*data"\.$/);
  const patterns = [/line 2: The password has 7 characters/, /line 3: It is not JSON/, /line 4: The login "alice" belongs to (?:user 1|an earlier line)/, /line 5: It is longer than/, /line 6: It is not UTF-8/];
  assert.equal(told.length, 2 + patterns.length);
  for (const [n, pattern] of patterns.entries()) assert.match(told[n + 2]!, pattern);
  assert.ok(!`${stdout}${stderr}`.includes('hunter2'));
  const json = registrar(['import', '--json', '--data', data], input);
  assert.deepEqual(json.stdout.trimEnd().split('\n').map((text) => JSON.parse(text).outcome), ['unchanged', 'invalid', 'invalid', 'refused', 'invalid', 'invalid']);
});

trial('transfer: bad usage is 2, what cannot be read or written is 1, and each is one line', (t) => {
  const directory = temporaryDirectory(t);
  const data = join(directory, 'data');
  assert.equal(registrar(['import', '--data', data], hashed(3)).status, 0);
  const cases: [args: string[], status: number, pattern: RegExp][] = [
    [['import', '--from', 'md5'], 2, /for --from: it must be werkzeug or django or phc or passlib/],
    [['import', 'a', 'b'], 2, /takes \[FILE\]/],
    [['import', '--kdf', 'pbkdf2:sha256:9:hex'], 2, /--kdf/],
    [['import', '--password-min', '7'], 2, /--password-min/],
    [['import', '--nonsense'], 2, /registrar help import/],
    [['export', 'file'], 2, /takes flags only/],
    [['export', '--output', ''], 2, /--output/],
    [['export', '--data', data, '--output', join(data, 'users.jsonl')], 2, /users file itself/],
    [['import', '--data', data, join(directory, 'missing')], 1, /Cannot read ".*missing": it does not exist\./],
    [['import', '--data', data, directory], 1, /Cannot read the input: EISDIR/],
    [['export', '--data', join(directory, 'missing')], 1, /There is no users file/],
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

trial('transfer: interrupted, import says how far it came; killed, nothing is half; run again it goes on', async (t) => {
  const data = join(temporaryDirectory(t), 'data');
  const input = hashed(9_000);
  for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGKILL', null]] as const) {
    const child = spawn(process.execPath, [...command, 'import', '--json', '--data', data], { cwd: root, env: childEnvironment() });
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
    if (code !== null) assert.match(stderr, new RegExp(`Interrupted\\. It reached line 8,000\\. Added, and kept: ${signal === 'SIGINT' ? '8,000' : '0'} users\\. Run it again`));
  }
  const last = registrar(['import', '--data', data], input);
  assert.deepEqual([last.status, last.stdout], [0, '9,000 lines: 1,000 added, 8,000 there already, 0 refused, 0 invalid\n']);
  assert.equal(registrar(['export', '--data', data]).stdout.trimEnd().split('\n').length, 9_000);
});

trial('transfer: the reader of an export may leave; a full disk is reported', { needs: ['bash'] }, (t) => {
  const data = join(temporaryDirectory(t), 'data');
  assert.equal(registrar(['import', '--data', data], hashed(20_000)).status, 0);
  const quoted = [process.execPath, ...command, 'export', '--data', data].map((word) => `'${word}'`).join(' ');
  const piped = spawnSync('bash', ['-c', `${quoted} | head -n 1; exit "\${PIPESTATUS[0]}"`], { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 60_000 });
  assert.deepEqual([piped.status, piped.stderr, piped.stdout.split('\n').length], [141, '', 2]);
  if (!existsSync('/dev/full')) return;
  const full = spawnSync('bash', ['-c', `${quoted} > /dev/full`], { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 60_000 });
  assert.equal(full.status, 1);
  assert.match(full.stderr, /^registrar: Cannot write the result: [^\n]*no space[^\n]*\n$/);
});

trial('transfer: on a disk that is full an export leaves nothing, and an import what it says', { cannot: () => cannotMount('tmpfs', '4M') }, async (t) => {
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
  const [, line = '', added = ''] = /no room|full/i.test(into.stderr) ? (/It reached line ([\d,]+)\. Added, and kept: ([\d,]+) users/.exec(into.stderr) ?? []) : [];
  assert.ok(Number(added.replaceAll(',', '')) > 0, into.stderr);
  assert.equal(line, added);
  const users = registrar(['export', '--data', small]).stdout.trimEnd().split('\n');
  assert.equal(users.length, Number(added.replaceAll(',', '')));
  assert.equal(JSON.parse(users.at(-1)!).login, `user${users.length - 1}`);
});

trial('transfer: from a file to a cluster and back every user stays the same', { needs: ['etcd'] }, async (t) => {
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
  const out = registrar(['export', ...etcd, '--data', join(directory, 'none'), '--audit', 'off']);
  assert.deepEqual([out.status, out.stderr], [0, '']);
  const byId = (text: string): unknown[] => text.trimEnd().split('\n').map((line) => JSON.parse(line)).sort((a, b) => a.id - b.id);
  assert.deepEqual(byId(out.stdout).map((user) => ({ ...user as object, id: 0 })), byId(before).map((user) => ({ ...user as object, id: 0 })));
  assert.equal(registrar(['import', ...etcd, '--dry-run', '--data', join(directory, 'none')], before).stdout, '1,501 lines: 0 to add, 1,501 there already, 0 to refuse, 0 invalid; nothing was written\n');
  assert.equal(registrar(['import', '--data', back], out.stdout).status, 0);
  assert.equal(existsSync(join(directory, 'none', 'users.jsonl')), false);
});

trial('transfer: a line of a hundred megabytes does not have to fit into memory', (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'long.jsonl');
  const fd = openSync(path, 'w');
  for (let n = 0; n < 100; n++) writeSync(fd, Buffer.alloc(1 << 20, 'x'));
  writeSync(fd, `\n${hashed(1)}`);
  closeSync(fd);
  const { status, stderr } = spawnSync(process.execPath, ['--max-old-space-size=64', ...command, 'import', '--data', directory, path], {
    cwd: root, encoding: 'utf8', timeout: 60_000,
  });
  assert.deepEqual([status, stderr], [1, 'registrar: line 1: It is longer than 16384 bytes\n']);
});

const passwords = ['correct horse', 'верная лошадь', 'café \u00a0 пароль 密码 😀', 'x'.repeat(256)];
const kdfs = ['pbkdf2:sha256:1000', 'pbkdf2:sha384:3', 'pbkdf2:sha512:1', 'pbkdf2:sha256:600000'];

async function hashAll(check: (kdf: string, salt: string, hash: string, password: string) => void): Promise<void> {
  for (const text of kdfs) {
    const kdf = parseKdf(text);
    assert.ok(kdf !== undefined);
    const hasher = new Hasher({ kdf, workers: 1, waitMsMax: 60_000, queueMax: 100 });
    for (const password of passwords) {
      const credential = await hasher.hash(password);
      assert.equal(credential.kdf, text);
      assert.match(credential.password, /^[0-9a-f]{32}\$[0-9a-f]+$/);
      const [salt = '', hash = ''] = credential.password.split('$');
      check(text, salt, hash, password);
    }
    await hasher.close();
  }
}

trial('kdf: Python\'s hashlib makes the same hash, salt in ASCII', { needs: ['python3'] }, async () => {
  const script = 'import hashlib,sys; p,d,n,s=sys.argv[1:]; print(hashlib.pbkdf2_hmac(d,p.encode(),s.encode(),int(n)).hex())';
  await hashAll((kdf, salt, hash, password) => {
    const [, digest = '', iterations = ''] = kdf.split(':');
    const printed = execFileSync('python3', ['-c', script, password, digest, iterations, salt], { encoding: 'utf8' });
    assert.equal(printed.trim(), hash);
  });
});

trial('kdf: openssl kdf makes the same hash', { needs: ['openssl'] }, async () => {
  await hashAll((kdf, salt, hash, password) => {
    const [, digest = '', iterations = ''] = kdf.split(':');
    const options = [`pass:${password}`, `salt:${salt}`, `iter:${iterations}`, `digest:${digest.toUpperCase()}`];
    const args = ['kdf', '-keylen', String(hash.length / 2), ...options.flatMap((option) => ['-kdfopt', option]), 'PBKDF2'];
    const printed = execFileSync('openssl', args, { encoding: 'utf8' });
    assert.equal(printed.trim().replaceAll(':', '').toLowerCase(), hash);
  });
});

/** Says in each format how Python hashes the passwords; none of it is our code. */
const script = `
import base64, hashlib, json, sys
rows = []
def b64(b): return base64.b64encode(b).decode()
for password in json.load(sys.stdin):
  for digest, n in (('sha256', 1000), ('sha384', 7), ('sha512', 3)):
    def h(salt): return hashlib.pbkdf2_hmac(digest, password.encode(), salt, n)
    for salt in ('Zx8fQ0aB', 'salt "quoted"', 'back\\\\slash', 's\\u00f6l\\u0442'):
      raw = salt.encode()
      rows.append(['werkzeug', password, 'pbkdf2:%s:%d$%s$%s' % (digest, n, salt, h(raw).hex())])
      rows.append(['django', password, 'pbkdf2_%s$%d$%s$%s' % (digest, n, salt, b64(h(raw)))])
    for raw in (b'plain salt', bytes(range(240, 256)), b'\\xfb\\xff\\xbf\\x00'):
      salt, hash = b64(raw).rstrip('='), b64(h(raw)).rstrip('=')
      rows.append(['phc', password, '$pbkdf2-%s$i=%d,l=%d$%s$%s' % (digest, n, len(h(raw)), salt, hash)])
      rows.append(['phc', password, '$pbkdf2-%s$i=%d$%s$%s' % (digest, n, salt, hash)])
      rows.append(['passlib', password, '$pbkdf2-%s$%d$%s$%s' % (digest, n, salt.replace('+', '.'), hash.replace('+', '.'))])
  for n, r, p in ((16, 1, 1), (1024, 8, 2)):
    def s(salt, length=64): return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, dklen=length)
    for salt in ('Zx8fQ0aB', 's\\u00f6l\\u0442'):
      raw = salt.encode()
      rows.append(['werkzeug', password, 'scrypt:%d:%d:%d$%s$%s' % (n, r, p, salt, s(raw).hex())])
      rows.append(['django', password, 'scrypt$%d$%s$%d$%d$%s' % (n, salt, r, p, b64(s(raw)))])
      text = '$scrypt$ln=%d,r=%d,p=%d$%s$%s' % (n.bit_length() - 1, r, p, b64(raw).rstrip('='), b64(s(raw, 32)).rstrip('='))
      rows.append(['phc', password, text])
      rows.append(['passlib', password, text])
json.dump(rows, sys.stdout)
`;

const foreignPasswords = ['correct horse', 'верная лошадь', 'café \u00a0 密码 😀', 'x'.repeat(300)];

function vectors(): [format: ForeignFormat, password: string, text: string][] {
  return JSON.parse(execFileSync('python3', ['-c', script], { input: JSON.stringify(foreignPasswords), encoding: 'utf8' }));
}

trial('foreign hash: what Python made of a password is verified, and a wrong password is not', { needs: ['python3'] }, async (t) => {
  const hasher = new Hasher({ kdf: { digest: 'sha256', iterations: 1 }, workers: 2, waitMsMax: 60_000, queueMax: 1000 });
  t.after(() => hasher.close());
  const seen = new Set<string>();
  for (const [format, password, text] of vectors()) {
    const credential = parseForeignHash(format, text);
    if ('problem' in credential) throw new Error(`${format} ${text}: ${credential.problem}`);
    // It can stand in a line without an escape.
    assert.match(credential.password, /^[^"\\\p{Cc}]+$/u);
    assert.equal(await hasher.verify(password, credential, { kdfs: [] }), true, `${format} ${text}`);
    assert.equal(await hasher.verify(`${password}!`, credential, { kdfs: [] }), false);
    seen.add(`${format} ${credential.kdf.split(':').slice(1).join(':')}`);
    // In its own format alone: of pbkdf2 phc and passlib differ in the parameters, of scrypt in nothing.
    const others = foreignFormats.filter((other) => other !== format && !text.startsWith('$scrypt$'));
    for (const other of others) assert.ok('problem' in parseForeignHash(other, text));
  }
  assert.equal(seen.size, 4 * 3 * 2 + 2 * 2 * 2 + 2 * 2 * 2);
});

trial('foreign hash: who comes with one signs in, and it is made anew', { needs: ['python3'] }, async (t) => {
  const hasher = new Hasher({ kdf: { digest: 'sha256', iterations: 5 }, workers: 2, waitMsMax: 60_000, queueMax: 1000 });
  t.after(() => hasher.close());
  const store = new MemoryUserStore();
  const policy = { codePointsMin: 8, codePointsMax: 256, common: new Set<string>() };
  const registry = new Registry({ store, hasher, policy, now: () => new Date() });
  const firsts = new Map(vectors().reverse().map(([format, password, text]) => [format, { password, text }]));
  assert.equal(firsts.size, 4);
  for (const [format, { password, text }] of firsts) {
    const credential = parseForeignHash(format, text);
    if ('problem' in credential) throw new Error(credential.problem);
    await store.createMany([{ login: format, registered: '2024-01-02T03:04:05.000Z', ...credential }]);
    assert.equal(await registry.verify(format, `${password}.`), undefined);
    assert.equal((await store.findRecord(format))?.kdf, credential.kdf);
    assert.equal((await registry.verify(format, password))?.login, format);
    await until(async () => (await store.findRecord(format))?.kdf === 'pbkdf2:sha256:5', 'the hash is made anew');
    assert.equal((await registry.verify(format, password))?.version, 1);
  }
});

/** RFC 5893, section 2, by the Bidi classes of Python; true where no rule applies. */
const unicodeScript = `
import json, sys, unicodedata
def keeps(login):
  classes = [unicodedata.bidirectional(c) for c in login]
  if not {'R', 'AL', 'AN'} & set(classes): return True
  if classes[0] not in ('R', 'AL'): return False
  if set(classes) - {'R', 'AL', 'AN', 'EN', 'ES', 'CS', 'ET', 'ON', 'BN', 'NSM'}: return False
  while classes[-1] == 'NSM': classes.pop()
  return classes[-1] in ('R', 'AL', 'EN', 'AN') and not {'EN', 'AN'} <= set(classes)
json.dump([keeps(login) for login in json.load(sys.stdin)], sys.stdout)
`;

trial('login: the Bidi rule is that of RFC 5893 by the classes of Python', { needs: ['python3'] }, () => {
  const pieces = [..."דןשةسرގ٠٩۱۹09a.-@+'_", '\u064b', '\u0651', '\u05d0', 'ـ', '१'];
  let seed = 20260101;
  const random = (below: number): number => ((seed = (seed * 48271) % 0x7fffffff) % below);
  const logins = Array.from({ length: trialCount('TRIALS', 20_000) }, () => {
    const length = 1 + random(6);
    return Array.from({ length }, () => pieces[random(pieces.length)]!).join('').normalize('NFKC');
  });
  const keeps = JSON.parse(execFileSync('python3', ['-c', unicodeScript], { input: JSON.stringify(logins), encoding: 'utf8', maxBuffer: 1 << 28 })) as boolean[];
  const found = { accepted: 0, refused: 0 };
  for (const [n, login] of logins.entries()) {
    const parsed = parseLogin(login);
    if ('login' in parsed) {
      assert.equal(keeps[n], true, `${JSON.stringify(login)} is accepted`);
      if (/[\u0590-\u07bf]/.test(login)) found.accepted++;
    } else if (parsed.problem.includes('right to left')) {
      assert.equal(keeps[n], false, `${JSON.stringify(login)} is refused`);
      found.refused++;
    }
  }
  assert.ok(found.accepted > logins.length / 100 && found.refused > logins.length / 100, JSON.stringify(found));
});

trial('login: what is a letter or a digit is so in Python', { needs: ['python3'] }, () => {
  const categories = 'import json,sys,unicodedata;json.dump([unicodedata.category(c) for c in json.load(sys.stdin)],sys.stdout)';
  const characters: string[] = [];
  for (let code = 0x21; code < 0x30000; code++) {
    if (code >= 0xd800 && code < 0xe000) continue;
    const character = String.fromCodePoint(code);
    const parsed = parseLogin(character);
    if ('login' in parsed && parsed.login === character) characters.push(character);
  }
  const found = JSON.parse(execFileSync('python3', ['-c', categories], { input: JSON.stringify(characters), encoding: 'utf8', maxBuffer: 1 << 28 })) as string[];
  // Python 3.11 has Unicode 14: what is younger is unassigned there.
  const others = characters.filter((_, n) => !/^(?:L.|Nd|Cn)$/.test(found[n]!));
  assert.deepEqual(others, []);
  assert.ok(characters.length > 30_000, `${characters.length}`);
});
