import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { spawnStore } from './helper/store-process.ts';
import { readUsersFile } from './helper/service.ts';
import { temporaryDirectory } from './helper/temporary.ts';

test('race: 4 processes register the same 2,000 logins at once, and each login is given once', async (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'users.jsonl');
  const stores = await Promise.all([1, 2, 3, 4].map(() => spawnStore(t, file)));
  const logins = Array.from({ length: 2_000 }, (_, n) => `user${n}`);
  const rounds = Array.from({ length: 20 }, (_, n) => logins.slice(n * 100, n * 100 + 100));
  const answers: { created: boolean; id: number }[][] = await Promise.all(
    stores.map(async ({ tell }, n) => {
      const own = [];
      // Each begins elsewhere, so that they meet in the middle as well as at the start.
      for (let r = 0; r < rounds.length; r++) own.push(...(await tell({ do: 'create', logins: rounds[(r + n * 5) % 20]! })));
      return own;
    }),
  );
  const all = answers.flat();
  assert.equal(all.length, 8_000);
  assert.equal(all.filter(({ created }) => created).length, 2_000);
  const lines = readUsersFile(directory).slice(1);
  assert.equal(lines.length, 2_000);
  assert.deepEqual(new Set(lines.map(({ login }) => login)), new Set(logins));
  assert.deepEqual(lines.map(({ id }) => id), lines.map((_, n) => n + 1));
  for (const { tell } of stores) assert.equal((await tell({ do: 'find', login: 'user1999' })).login, 'user1999');
});
