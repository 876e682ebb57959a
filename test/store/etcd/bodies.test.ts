/**
 * Golden bodies: a field that etcd does not know is ignored, so that a compare that is spelt wrong would hold where it
 * must not. These are only ever added to.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  Keys, alarmsBody, authenticateBody, endOf, get, getBody, holds, isAbsent, isUnchanged, nested, put, range, remove, removePrefixBody, transactionBody,
} from '../../../lib/store/etcd/bodies.ts';

const keys = new Keys('/p/');

test('keys are what they are, and ids sort as numbers do', () => {
  assert.deepEqual(
    [keys.format, keys.counter, keys.user('алиса'), keys.id(17), keys.kdfs, keys.receipts, keys.secret('admin')],
    ['/p/format', '/p/next-id', '/p/user/алиса', '/p/id/0000000000000017', '/p/kdf/', '/p/receipt/', '/p/secret/admin'],
  );
  assert.ok(keys.id(9) < keys.id(10) && keys.id(99_999) < keys.id(Number.MAX_SAFE_INTEGER) && keys.id(Number.MAX_SAFE_INTEGER) < endOf('/p/id/'));
  assert.equal(endOf('/p/'), '/p0');
});

const absent = '{"key":"L3AvdXNlci9hbGljZQ==","target":"CREATE","result":"EQUAL","create_revision":"0"}';
const unchanged = '{"key":"L3AvdXNlci9hbGljZQ==","target":"MOD","result":"EQUAL","mod_revision":"5"}';
const holding = '{"key":"L3Avc2VjcmV0L2s=","target":"VALUE","result":"EQUAL","value":"0LA="}';
const putting = '{"request_put":{"key":"L3AvdXNlci9hbGljZQ==","value":"e30="}}';
const getting = '{"request_range":{"key":"L3AvdXNlci9hbGljZQ=="}}';
const ranging = '{"request_range":{"key":"L3AvaWQvMDAwMDAwMDAwMDAwMDAwMQ==","range_end":"L3AvaWQvMDAwMDAwMDAwMDAwMDAwMw==","limit":2}}';
const removing = '{"request_delete_range":{"key":"L3AvdXNlci9hbGljZQ=="}}';
const within = `{"request_txn":{"compare":[${absent}],"success":[${putting}],"failure":[${getting}]}}`;

test('request bodies are these, byte for byte', () => {
  const user = keys.user('alice');
  const golden: readonly [body: string, expected: string][] = [
    [JSON.stringify(isAbsent(user)), absent],
    [JSON.stringify(isUnchanged(user, '5')), unchanged],
    [JSON.stringify(holds(keys.secret('k'), 'а')), holding],
    [JSON.stringify(put(user, '{}')), putting],
    [JSON.stringify(get(user)), getting],
    [JSON.stringify(range(keys.id(1), keys.id(3), 2)), ranging],
    [JSON.stringify(remove(user)), removing],
    [JSON.stringify(nested({ compare: [isAbsent(user)], success: [put(user, '{}')], failure: [get(user)] })), within],
    [
      transactionBody({ compare: [isUnchanged(user, '5')], success: [remove(user)], failure: [get(user)] }),
      `{"compare":[${unchanged}],"success":[${removing}],"failure":[${getting}]}`,
    ],
    [transactionBody({ success: [get(user)] }), `{"compare":[],"success":[${getting}],"failure":[]}`],
    [getBody(user), '{"key":"L3AvdXNlci9hbGljZQ=="}'],
    [removePrefixBody(keys.receipts), '{"key":"L3AvcmVjZWlwdC8=","range_end":"L3AvcmVjZWlwdDA="}'],
    [authenticateBody('root', 'p"w'), '{"name":"root","password":"p\\"w"}'],
    [alarmsBody, '{"action":"GET"}'],
  ];
  for (const [body, expected] of golden) assert.equal(body, expected);
});
