/** The store in memory, and the record that all stores share. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CostliestKdfs, costOf } from '../../lib/store/costliest-kdfs.ts';
import { MemoryUserStore } from '../../lib/store/memory.ts';
import { decodeRecord, encodeRecord } from '../../lib/store/user-record.ts';
import type { StoredUser } from '../../lib/user-store.ts';
import { publicUser } from '../../lib/user.ts';
import { testUserStore } from '../helper/user-store-contract.ts';

testUserStore('memory', async () => new MemoryUserStore());

const at = '2026-11-22T15:00:00.000Z';
const plain: StoredUser = { id: 17, login: 'алиса', registered: at, version: 2, kdf: 'pbkdf2:sha256:600000', password: `${'0'.repeat(32)}$${'1'.repeat(64)}` };
const full: StoredUser = { ...plain, changed: at, disabled: at, key: 'ab'.repeat(32), unknownFields: { email: 'a@example', tags: ['x', 1, null], '__proto__x': {} } };

test('a record is compact JSON that begins with the public JSON of its user, and is read back', () => {
  const value = encodeRecord(full);
  assert.equal(
    value,
    `{"id":17,"login":"алиса","registered":"${at}","version":2,"changed":"${at}","disabled":"${at}","kdf":"pbkdf2:sha256:600000",` +
      `"password":"${full.password}","key":"${full.key}","email":"a@example","tags":["x",1,null],"__proto__x":{}}`,
  );
  for (const user of [full, plain, { ...plain, disabled: at }, { ...plain, kdf: 'none', password: '' }]) {
    assert.deepEqual(decodeRecord(JSON.parse(encodeRecord(user))), user);
    assert.ok(encodeRecord(user).startsWith(`${JSON.stringify(publicUser({ ...user, kdf: 'k' })).slice(0, -1)},"kdf":`));
  }
});

test('a record with a field missing, of another type or among the public ones is not decoded', () => {
  const value = encodeRecord(full);
  const bad = [
    '{}', value.replace('17', '0'), value.replace('17', '"17"'), value.replace('"version":2', '"version":1.5'), value.replace('"kdf"', '"kd"'),
    value.replace(`"${full.key}"`, '7'), value.replace(`"disabled":"${at}"`, '"disabled":true'), value.replace(',"kdf"', ',"email":"x","kdf"'),
    value.replace(`"id":17,"login":"алиса"`, `"login":"алиса","id":17`), `{"0":1,${value.slice(1)}`,
  ];
  for (const text of bad) assert.equal(decodeRecord(JSON.parse(text)), undefined, text);
});

test('of each algorithm and digest the costliest kdf is listed', () => {
  const kdfs = new CostliestKdfs();
  const added = ['pbkdf2:sha256:10', 'pbkdf2:sha256:9', 'pbkdf2:sha256:29000:hex', 'pbkdf2:sha512:3', 'pbkdf2:sha512:3:hex', 'scrypt:16:8:1', 'scrypt:16:1:8', 'scrypt:16:8:2', 'none', '', 'x', 'pbkdf2:sha256:'];
  assert.deepEqual(added.map((kdf) => kdfs.add(kdf)), [true, false, true, true, false, true, false, true, false, false, false, false]);
  assert.deepEqual(kdfs.list, ['pbkdf2:sha256:29000:hex', 'pbkdf2:sha512:3', 'scrypt:16:8:2']);
  assert.deepEqual(costOf('pbkdf2:sha384:29000:hex'), { algorithm: 'pbkdf2:sha384', cost: 29_000 });
  for (let n = 1; n <= 20_000; n++) kdfs.add(`pbkdf2:sha256:${n}`);
  assert.equal(kdfs.list.length, 3);
});
