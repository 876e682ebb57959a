/** The service as it is wired, and the library: the six steps over HTTPS, and from code. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { RegistrarError, createRegistrar } from '../lib/library.ts';
import { openService, readUsersFile } from './helper/service.ts';
import { temporaryDirectory, until } from './helper/temporary.ts';

for (const [first, second] of [['alice', 'bob'], ['алиса', 'борис']] as const) {
  test(`app: register two users, refuse a taken login, read, delete, as ${first}`, async (t) => {
    const { ask, data } = await openService(t);
    const register = (login: string): ReturnType<typeof ask> => ask('/user/', { method: 'POST', body: { login, password: 'correct horse' } });
    const path = `/user/${encodeURIComponent(first)}`;

    const created = await register(first);
    assert.deepEqual([created.status, created.json.login], [201, first]);
    assert.equal((await register(second)).status, 201);
    const [one, two] = readUsersFile(data).slice(1);
    assert.match(one.password, /^[0-9a-f]{32}\$[0-9a-f]{64}$/);
    assert.notEqual(one.password.split('$')[0], two.password.split('$')[0]);
    assert.equal((await register(first)).status, 409);
    const read = await ask(path);
    assert.deepEqual([read.status, read.json], [200, created.json]);
    assert.equal((await ask(path, { method: 'DELETE' })).status, 204);
    assert.equal((await ask(path)).status, 404);
  });
}

const kdf = 'pbkdf2:sha256:1';
const password = 'correct horse';
const isError = (code: string) => (error: unknown): boolean => error instanceof RegistrarError && error.code === code;

test('library: it does what the service does, on the same directory at the same time', async (t) => {
  const { data, ask } = await openService(t);
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
