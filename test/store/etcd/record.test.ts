import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import { decodeRecord, encodeRecord, publicJson, viewRecord } from '../../../lib/store/etcd/record.ts';
import { publicUser } from '../../../lib/user.ts';

const user = {
  id: 17, login: 'алиса', registered: '2026-11-22T15:00:00.000Z', version: 2, changed: '2026-11-23T15:00:00.000Z', kdf: 'pbkdf2:sha256:600000',
  password: `${'0'.repeat(32)}$${'1'.repeat(64)}`, key: 'ab'.repeat(32),
};
const found = (value: string) => ({ key: '/p/user/алиса', value, revision: '5', created: '3' });

test('a record is compact JSON with the public fields first, and is read back', () => {
  const value = encodeRecord(user);
  assert.equal(value, `{"id":17,"login":"алиса","registered":"2026-11-22T15:00:00.000Z","version":2,"changed":"2026-11-23T15:00:00.000Z","kdf":"pbkdf2:sha256:600000","password":"${user.password}","key":"${user.key}"}`);
  assert.deepEqual(decodeRecord(found(value), 'алиса'), user);
  const { changed, key, ...rest } = user;
  assert.deepEqual([changed, key, decodeRecord(found(encodeRecord(rest)), 'алиса')], [user.changed, user.key, rest]);
  for (const one of [user, rest]) {
    assert.deepEqual(viewRecord(found(encodeRecord(one)), 'алиса'), { id: 17, version: 2, json: JSON.stringify(publicUser(one)) });
  }
});

test('what is no record of the user is corrupt, and its key is named', () => {
  const value = encodeRecord(user);
  const damaged = ['', 'null', '[]', value.slice(0, -1), '{}', value.replace('17', '0'), value.replace('17', '"17"'), value.replace('алиса', 'боб'), value.replace('"kdf"', '"kd"'), value.replace(`"${user.key}"`, '7')];
  for (const one of damaged) {
    const isNamed = (error: unknown) => error instanceof RegistrarError && error.code === 'corrupt' && error.message.includes('"/p/user/алиса"');
    assert.throws(() => decodeRecord(found(one), 'алиса'), isNamed, one);
  }
  assert.throws(() => publicJson(found('{}')), RegistrarError);
});
