import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StrangeAnswer, readAlarms, readError, readOne, readTransaction } from '../../../lib/store/etcd/answers.ts';

/** As etcd 3.4.23 gave them. */
const lost = `{"header":{"cluster_id":"1","member_id":"2","revision":"3","raft_term":"2"},"responses":[
  {"response_range":{"header":{"revision":"2"},"kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"1","value":"eA=="}],"count":"1"}},
  {"response_range":{"header":{"revision":"2"}}},{"response_put":{"header":{"revision":"3"}}}]}`;
const won = `{"header":{"revision":"2"},"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}},
  {"response_txn":{"header":{},"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}}]}},
  {"response_txn":{"header":{},"responses":[{"response_range":{"kvs":[{"key":"YQ==","create_revision":"1","mod_revision":"1","version":"1"}]}}]}}]}`;

test('an answer leaves out what has its default value, and is read all the same', () => {
  const { succeeded, revision, responses } = readTransaction(JSON.parse(lost));
  assert.deepEqual([succeeded, revision, responses.length], [false, '3', 3]);
  assert.deepEqual(responses.map(({ found }) => found), [[{ key: 'a', value: 'x', revision: '3', created: '2' }], [], []]);
  const { responses: nested } = readTransaction(JSON.parse(won));
  assert.deepEqual(nested.map((response) => response.succeeded), [false, true, false]);
  assert.deepEqual(nested[2]?.responses[0]?.found, [{ key: 'a', value: '', revision: '1', created: '1' }]);
  assert.equal(readOne({ header: {} }), undefined);
  assert.deepEqual([readAlarms({}), readAlarms({ alarms: [{ memberID: '1', alarm: 'NOSPACE' }] })], [[], ['NOSPACE']]);
});

test('what is no answer of etcd is thrown as that', () => {
  for (const strange of [null, [], 'x', 7, {}, { header: {} }, { header: { revision: 3 } }, { header: { revision: '3' }, responses: {} }]) {
    assert.throws(() => readTransaction(strange), StrangeAnswer, JSON.stringify(strange));
  }
  for (const strange of [{ kvs: {} }, { kvs: [{}] }, { kvs: [{ key: 'YQ==' }] }]) assert.throws(() => readOne(strange), StrangeAnswer);
});

test('an error is read as JSON and as text', () => {
  assert.deepEqual(readError('{"error":"etcdserver: request timed out","message":"…","code":14}'), { text: 'etcdserver: request timed out', code: 14 });
  assert.deepEqual(readError('404 page not found\n'), { text: '404 page not found', code: undefined });
  assert.deepEqual(readError('null'), { text: 'null', code: undefined });
});
