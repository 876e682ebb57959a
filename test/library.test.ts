/** Registrar as others get it: packed, installed where nothing else is, imported, type-checked, and run. */

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError, createRegistrar } from '../lib/library.ts';
import { readUsersFile, spawnService } from './helper/service.ts';
import { npmEnvironment, root, temporaryDirectory, until, without } from './helper/temporary.ts';

const kdf = 'pbkdf2:sha256:1';
const password = 'correct horse';
const isError = (code: string) => (error: unknown): boolean => error instanceof RegistrarError && error.code === code;

test('library: it does what the service does, on the same directory at the same time', async (t) => {
  const { data, ask } = await spawnService(t);
  const registrar = await createRegistrar({ data, kdf });
  t.after(() => registrar.close());
  assert.equal((await ask('/user/', { method: 'POST', body: { login: 'bob', password } })).status, 201);
  const alice = await registrar.register({ login: 'ALICE', password, key: 'one' });
  assert.deepEqual([alice.id, alice.login, Object.keys(alice)], [2, 'alice', ['id', 'login', 'registered', 'version']]);
  assert.deepEqual(await registrar.register({ login: 'alice', password, key: 'one' }), alice);
  assert.deepEqual((await ask('/user/alice')).json, alice);
  assert.deepEqual(await registrar.find('Alice'), alice);
  assert.equal(await registrar.find('nobody'), undefined);
  assert.deepEqual(await registrar.verify('alice', password), alice);
  assert.equal(await registrar.verify('alice', 'wrong horse'), undefined);
  assert.equal(await registrar.verify('nobody', password), undefined);
  await assert.rejects(registrar.register({ login: 'alice', password }), isError('taken'));
  await assert.rejects(registrar.register({ login: 'a:b', password: 'x' }), (error) => error instanceof RegistrarError && error.fields.length === 2);
  await assert.rejects(registrar.changePassword('alice', { password: 'second horse', current: 'wrong horse' }), isError('wrong-password'));
  const changed = await registrar.changePassword('alice', { password: 'second horse', current: password });
  assert.deepEqual([changed.version, Object.keys(changed).at(-1)], [2, 'changed']);
  const logins: string[] = [];
  for await (const { login } of registrar.list()) logins.push(login);
  assert.deepEqual(logins, ['bob', 'alice']);
  await registrar.remove('alice');
  await assert.rejects(registrar.remove('alice'), isError('not-found'));
  assert.equal((await ask('/user/alice')).status, 404);
  await registrar.close();
  await registrar.close();
  for (const call of [() => registrar.find('bob'), () => registrar.verify('bob', password), () => registrar.list()[Symbol.asyncIterator]().next()]) {
    await assert.rejects(call, isError('unavailable'));
  }
});

test('library: an older hash is made anew, a list is left early, and what is asked for wrongly is told', async (t) => {
  const data = join(temporaryDirectory(t), 'made', 'here');
  const first = await createRegistrar({ data, kdf });
  for (let n = 0; n < 5; n++) await first.register({ login: `user${n}`, password });
  for await (const { login } of first.list()) {
    assert.equal(login, 'user0');
    break;
  }
  await first.close();
  const second = await createRegistrar({ data, kdf: 'pbkdf2:sha512:2', passwordMin: 20 });
  assert.equal((await second.verify('user3', password))?.id, 4);
  await assert.rejects(second.register({ login: 'carol', password }), isError('invalid'));
  // It is written behind the answer.
  await until(() => readUsersFile(data).at(-1).kdf === 'pbkdf2:sha512:2', 'the hash to be made anew');
  await second.close();
  await assert.rejects(createRegistrar({ data, kdf: 'md5' }), isError('usage'));
  await assert.rejects(createRegistrar({ data: '' }), isError('usage'));
  await assert.rejects(createRegistrar({ data: '/proc/nothing' }), isError('cannot-start'));
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

test('library: the package holds what it needs and no more, and README\'s example, its types and its command work', { skip: without('npm') || without('make') }, async (t) => {
  const { project, packed } = install(t);
  const sources = ['lib', 'bin'].flatMap((directory) => readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' }).map((name) => join(directory, name)));
  const scripts = sources.filter((name) => /\.(?:ts|js)$/.test(name) && !name.startsWith('bin/bench'));
  const expected = [
    ...scripts.map((name) => `dist/${name.replace(/\.ts$/, '.js')}`), ...['library', 'errors', 'user'].map((name) => `dist/lib/${name}.d.ts`),
    ...sources.filter((name) => /\.(?!ts$|js$)\w+$/.test(name) && !name.endsWith('tsconfig.json')).map((name) => `dist/${name}`), 'dist/package.json', 'package.json', 'README.md', 'LICENSE',
  ];
  assert.deepEqual([...packed].sort(), expected.sort());
  assert.deepEqual(readdirSync(join(project, 'node_modules')).filter((name) => !name.startsWith('.')), ['registrar']);

  const [, section = ''] = readFileSync(join(root, 'README.md'), 'utf8').split('## As a library\n');
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
