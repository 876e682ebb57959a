/** The command `user`, as an operator runs it: in a pipe, on a terminal, beside a service. */

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { FileUserStore } from '../lib/store/file/store.ts';
import { readUsersFile, spawnService } from './helper/service.ts';
import { loader, root, temporaryDirectory, without } from './helper/temporary.ts';

const words = [...loader, 'bin/registrar.ts', 'user'];
const password = 'correct horse';

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** @param input is what comes on standard input. */
function user(data: string, args: readonly string[], input: string | Buffer = ''): Outcome {
  const env = { ...process.env, REGISTRAR_DATA: data, REGISTRAR_KDF: 'pbkdf2:sha256:1' };
  const { status, stdout, stderr } = spawnSync(process.execPath, [...words, ...args], { cwd: root, encoding: 'utf8', input, env, timeout: 30_000, maxBuffer: 1 << 26 });
  return { status, stdout, stderr };
}

/** Runs a shell's line on a terminal, types each answer when its prompt is there, and resolves with all that was shown. */
async function onTerminal(t: TestContext, line: string, answers: readonly (readonly [prompt: string, typed: string | (() => void)])[]): Promise<[number, string]> {
  const terminal = spawn('script', ['-qec', line, '/dev/null'], { cwd: root, env: { ...process.env, REGISTRAR_KDF: 'pbkdf2:sha256:1' } });
  t.after(() => void terminal.kill('SIGKILL'));
  let output = '';
  let seen = 0;
  terminal.stdout.on('data', (chunk) => (output += chunk));
  const closed = once(terminal, 'close');
  for (const [prompt, typed] of answers) {
    while (!output.slice(seen).includes(prompt)) await Promise.race([once(terminal.stdout, 'data'), closed.then(() => assert.fail(`ended before "${prompt}": ${output}`))]);
    seen = output.indexOf(prompt, seen) + prompt.length;
    if (typeof typed === 'string') terminal.stdin.write(typed);
    else typed();
  }
  const [code] = await closed;
  return [code as number, output];
}

function shell(data: string, ...args: readonly string[]): string {
  return [process.execPath, ...words, ...args, '--data', data].join(' ');
}

test('user: all of it in a pipe, beside a service that sees everything at once', async (t) => {
  const { data, ask } = await spawnService(t);
  await ask('/user/', { method: 'POST', body: { login: 'zoe', password } });
  const added = user(data, ['add', 'Alice'], `${password}\nwhatever follows`);
  assert.deepEqual(added, { status: 0, stdout: 'alice is user 2\n', stderr: '' });
  assert.equal((await ask('/user/alice')).json.id, 2);
  const { token } = (await ask('/session', { method: 'POST', body: { login: 'alice', password } })).json;
  const session = { headers: { authorization: `Bearer ${token}` } };
  assert.equal((await ask('/session', session)).status, 200);

  assert.match(user(data, ['show', 'ALICE']).stdout, /^id {10}2\nlogin {7}alice\nregistered {2}\d{4}-\S+Z\nversion {5}1\n$/);
  assert.equal(user(data, ['show', 'alice', '--json']).stdout, (await ask('/user/alice')).text);
  const listed = user(data, ['list']).stdout.split('\n');
  assert.match(listed[0]!, /^ {6}ID {2}REGISTERED +CHANGED +LOGIN$/);
  assert.match(listed[2]!, /^ {7}2 {2}\d{4}-\S+Z {2}- {23} {2}alice$/);
  assert.equal(user(data, ['list', '--json']).stdout, (await ask('/user/', { headers: { accept: 'application/x-ndjson' } })).text);

  assert.deepEqual(user(data, ['verify', 'alice'], `${password}\r\n`), { status: 0, stdout: 'right\n', stderr: '' });
  assert.deepEqual(user(data, ['verify', 'alice'], 'something else'), { status: 1, stdout: 'wrong\n', stderr: '' });
  assert.deepEqual(user(data, ['verify', 'nobody', '--json'], password), { status: 1, stdout: '{"login":"nobody","right":false}\n', stderr: '' });

  const changed = user(data, ['passwd', 'alice', '--json'], 'battery staple');
  assert.deepEqual([changed.status, changed.stdout], [0, (await ask('/user/alice')).text]);
  assert.equal(JSON.parse(changed.stdout).version, 2);
  assert.equal((await ask('/session', session)).status, 401);
  assert.equal(user(data, ['verify', 'alice'], 'battery staple').status, 0);

  const refused = user(data, ['remove', 'alice']);
  assert.deepEqual([refused.status, refused.stdout], [1, '']);
  assert.match(refused.stderr, /nothing was changed; with --yes nobody is asked\n$/);
  assert.deepEqual(user(data, ['remove', 'alice', '--yes']), { status: 0, stdout: 'alice, user 2, is removed\n', stderr: '' });
  assert.equal((await ask('/user/alice')).status, 404);
  assert.equal((await ask('/user/zoe')).status, 200);
});

test('user: what it refuses is one line that never repeats a password, with exit 1, and nothing is changed', (t) => {
  const data = temporaryDirectory(t);
  assert.equal(user(data, ['add', 'alice'], password).status, 0);
  const before = readFileSync(join(data, 'users.jsonl'), 'utf8');
  const cases: [args: string[], input: string | Buffer, pattern: RegExp][] = [
    [['add', 'alice'], password, /The login "alice" is taken/],
    [['add', 'a:b'], password, /The login may hold letters/],
    [['add', 'bob'], '', /No password came/],
    [['add', 'bob'], '\nsecret on the second line', /No password came/],
    [['add', 'bob'], 'short', /The password has 5 characters: it needs at least 8/],
    [['add', 'bob', '--password-min', '15'], password, /it needs at least 15/],
    [['add', 'bob'], 'password1', /on the list of common passwords/],
    [['add', 'bob'], 'x'.repeat(9_000), /longer than 8192 bytes/],
    [['add', 'bob'], Buffer.from([0xff, 0xfe, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67]), /is not UTF-8 text/],
    [['passwd', 'nobody'], password, /There is no user with this login/],
    [['passwd', 'alice'], 'alice', /5 characters/],
    [['show', 'nobody'], '', /There is no user with this login/],
    [['remove', 'nobody', '--yes'], '', /There is no user with this login/],
    [['show', 'alice', '--data', join(data, 'none')], '', /There is no users' file ".*none.users\.jsonl"/],
  ];
  for (const [args, input, pattern] of cases) {
    const { status, stdout, stderr } = user(data, args, input);
    assert.deepEqual([status, stdout], [1, ''], args.join(' '));
    assert.match(stderr, /^registrar: [^\n]+\n$/);
    assert.match(stderr, pattern);
    assert.ok(input.length < 6 || !stderr.includes(String(input).trim()), stderr);
  }
  assert.equal(readFileSync(join(data, 'users.jsonl'), 'utf8'), before);
});

test('user: bad usage is exit 2, and a password is no argument', (t) => {
  const data = temporaryDirectory(t);
  for (const args of [[], ['nonsense'], ['add'], ['list', 'alice'], ['add', 'alice', password], ['add', 'alice', '--password', password], ['show', 'alice', '--yes'], ['add', 'alice', '--kdf', 'md5']]) {
    const { status, stdout, stderr } = user(data, args, password);
    assert.deepEqual([status, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^registrar: [^\n]+\n$/);
    assert.ok(!stderr.includes(password));
  }
  assert.throws(() => readUsersFile(data), { code: 'ENOENT' });
});

test('user: a login may look like a flag or like a word of the command', (t) => {
  const data = temporaryDirectory(t);
  for (const login of ['help', '-h', '--help', 'list']) {
    assert.equal(user(data, ['add', '--json', '--', login], password).status, 0, login);
    assert.equal(JSON.parse(user(data, ['show', '--json', '--', login]).stdout).login, login);
  }
  assert.equal(JSON.parse(user(data, ['show', 'help', '--json']).stdout).login, 'help');
});

test('user: on a terminal the password is asked for twice and is not to be seen', { skip: without('script') }, async (t) => {
  const data = temporaryDirectory(t);
  // The é of two bytes is taken back, an arrow is no character, and Ctrl-U begins anew.
  const typed = 'nonsense\x15correct hé\x7f\x1b[Dorse\r';
  const [code, output] = await onTerminal(t, shell(data, 'add', 'alice'), [['Password of alice: ', typed], ['Once more: ', 'correct horse\r']]);
  assert.deepEqual([code, output], [0, 'Password of alice: \r\nOnce more: \r\nalice is user 1\r\n']);
  assert.equal(user(data, ['verify', 'alice'], password).status, 0);

  const [differs, said] = await onTerminal(t, shell(data, 'passwd', 'alice'), [['New password of alice: ', 'battery staple\r'], ['Once more: ', 'battery stable\r']]);
  assert.equal(differs, 1);
  assert.match(said, /not the same: nothing was done/);
  assert.ok(!said.includes('battery'), said);
  // Pasted in one go.
  const [pasted] = await onTerminal(t, shell(data, 'passwd', 'alice'), [['New password of alice: ', 'battery staple\rbattery staple\r']]);
  assert.deepEqual([pasted, user(data, ['verify', 'alice'], 'battery staple').status], [0, 0]);

  const [wrong, verdict] = await onTerminal(t, shell(data, 'verify', 'alice'), [['Password of alice: ', 'correct horse\r']]);
  assert.deepEqual([wrong, verdict], [1, 'Password of alice: \r\nwrong\r\n']);
  const [kept, question] = await onTerminal(t, shell(data, 'remove', 'alice'), [['[y/N] ', '\n']]);
  assert.equal(kept, 1);
  assert.match(question, /Remove alice, user 1, registered \d{4}-\S+Z\? \[y\/N\]/);
  const [gone] = await onTerminal(t, shell(data, 'remove', 'alice'), [['[y/N] ', 'y\n']]);
  assert.deepEqual([gone, user(data, ['show', 'alice']).status], [0, 1]);
});

test('user: Ctrl-C and SIGTERM at the prompt leave the terminal as it was', { skip: without('script') }, async (t) => {
  const data = temporaryDirectory(t);
  const add = shell(data, 'add', 'alice');
  const pid = join(data, 'pid');
  const state = (output: string): string => output.slice(output.indexOf('speed'));
  const [, before] = await onTerminal(t, 'stty -a', []);
  assert.match(before, / echo /);
  const [, interrupted] = await onTerminal(t, `${add}; echo ended $?; stty -a`, [['alice: ', 'half a pass\x03']]);
  assert.match(interrupted, /interrupted; nothing was done\r\nended 1\r\n/);
  assert.equal(state(interrupted), state(before));
  const end = (): void => void process.kill(Number(readFileSync(pid, 'utf8')), 'SIGTERM');
  const [, terminated] = await onTerminal(t, `sh -c 'echo $$ > ${pid}; exec ${add}'; echo ended $?; stty -a`, [['alice: ', end]]);
  assert.match(terminated, /ended 143\r\n/);
  assert.equal(state(terminated), state(before));
  assert.equal(readUsersFile(data).length, 1);
});

test('user: list ends quietly when its reader has gone, and not when the result cannot be written', async (t) => {
  const data = temporaryDirectory(t);
  const store = await FileUserStore.open({ path: join(data, 'users.jsonl'), lockWaitMsMax: 5_000 });
  const arrivals = Array.from({ length: 20_000 }, (_, n) => ({ login: `user${n}`, registered: '2026-11-22T15:00:00.000Z', kdf: 'pbkdf2:sha256:1', password: `${'0'.repeat(32)}$${'0'.repeat(64)}` }));
  for (let n = 0; n < arrivals.length; n += 1_000) await store.createMany(arrivals.slice(n, n + 1_000));
  await store.close();
  for (const flags of [[], ['--json']]) {
    const line = `${shell(data, 'list', ...flags)} | head -n 2; echo "\${PIPESTATUS[0]}"`;
    const { stdout, stderr } = spawnSync('bash', ['-c', line], { cwd: root, encoding: 'utf8', timeout: 30_000 });
    assert.deepEqual([stderr, stdout.split('\n').length, stdout.split('\n').at(-2)], ['', 4, '0']);
    const full = spawnSync('bash', ['-c', `${shell(data, 'list', ...flags)} > /dev/full`], { cwd: root, encoding: 'utf8', timeout: 30_000 });
    assert.equal(full.status, 1);
    assert.match(full.stderr, /^registrar: Cannot write the result \(ENOSPC\)\n$/);
  }
  assert.equal(user(data, ['list', '--json']).stdout.trimEnd().split('\n').length, 20_000);
  assert.equal(user(data, ['list']).stdout.trimEnd().split('\n').length, 20_001);
});

test('user: a hash is made as the command is told, and a verification does not make it anew', async (t) => {
  const { data, ask } = await spawnService(t, { args: ['--kdf', 'pbkdf2:sha512:2'] });
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  assert.equal(user(data, ['verify', 'alice', '--kdf', 'pbkdf2:sha256:1'], password).status, 0);
  assert.equal(user(data, ['add', 'bob', '--kdf', 'pbkdf2:sha256:3'], password).status, 0);
  const [, ...lines] = readUsersFile(data);
  assert.deepEqual(lines.map(({ login, kdf }) => [login, kdf]), [['alice', 'pbkdf2:sha512:2'], ['bob', 'pbkdf2:sha256:3']]);
});
