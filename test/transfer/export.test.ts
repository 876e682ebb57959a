import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryUserStore } from '../../lib/store/memory.ts';
import { exportText } from '../../lib/transfer/export.ts';
import { candidate } from '../helper/user-store-contract.ts';

async function whole(store: MemoryUserStore, isDocument: boolean): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of exportText(store, isDocument)) pieces.push(piece);
  return Buffer.concat(pieces).toString('utf8');
}

test('export: a line for each user in the order of ids, all fields in one order; or one document', async () => {
  const store = new MemoryUserStore();
  assert.equal(await whole(store, false), '');
  assert.deepEqual(JSON.parse(await whole(store, true)), { users: [] });
  const arrivals = Array.from({ length: 1_200 }, (_, n) => candidate(`user${n}`, n === 7 ? { key: 'ab'.repeat(32) } : {}));
  await store.createMany(arrivals);
  const lines = (await whole(store, false)).split('\n');
  assert.equal(lines.pop(), '');
  const users = lines.map((line) => JSON.parse(line));
  assert.deepEqual(users.map(({ id }) => id), arrivals.map((_, n) => n + 1));
  assert.deepEqual(Object.keys(users[7]), ['id', 'login', 'registered', 'version', 'kdf', 'password', 'key']);
  assert.deepEqual(JSON.parse(await whole(store, true)), { users });
});
