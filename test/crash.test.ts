import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { FileUserStore } from '../lib/store/file/store.ts';
import { readUsersFile } from './helper/service.ts';
import { spawnStore } from './helper/store-process.ts';
import type { StoreProcess } from './helper/store-process.ts';
import { temporaryDirectory } from './helper/temporary.ts';

/** More of them with `make crash TRIALS=2000`; after so many a new file is begun, lest opening it takes the time. */
const trials = Number(process.env.TRIALS ?? 30);
const trialsOfFile = 30;

/** Kills one of two processes under load, time after time. Resolves with how much was acknowledged, and found. */
async function killAndCount(t: TestContext, kills: number): Promise<{ acknowledged: number; found: number }> {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'users.jsonl');
  const acknowledged = new Map<string, number>();
  let asked = 0;
  let isOver = false;
  /** Registers as fast as it can; ends when its process is killed. */
  const load = async ({ tell }: StoreProcess): Promise<void> => {
    while (!isOver) {
      const logins = Array.from({ length: 5 }, () => `user${asked++}`);
      const answers: { created: boolean; id: number }[] = await tell({ do: 'create', logins });
      for (const [n, { created, id }] of answers.entries()) {
        assert.equal(created, true);
        acknowledged.set(logins[n]!, id);
      }
    }
  };
  const start = async (): Promise<{ store: StoreProcess; running: Promise<unknown> }> => {
    const store = await spawnStore(t, file);
    return { store, running: Promise.all([load(store), load(store)]).catch((error: Error) => error) };
  };
  const pair = [await start(), await start()];
  for (let kill = 0; kill < kills; kill++) {
    const n = kill % 2;
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 40));
    pair[n]!.store.child.kill('SIGKILL');
    assert.match(String(await pair[n]!.running), /the process ended/);
    pair[n] = await start();
  }
  isOver = true;
  for (const { running } of pair) assert.ok(!((await running) instanceof Error));
  for (const { store } of pair) await store.tell({ do: 'close' });

  const lines = readUsersFile(directory).slice(1);
  const ids = new Map(lines.map(({ login, id }) => [login, id]));
  assert.equal(ids.size, lines.length, 'a login twice');
  assert.equal(new Set(ids.values()).size, lines.length, 'an id twice');
  for (const [login, id] of acknowledged) assert.equal(ids.get(login), id, login);
  const store = await FileUserStore.open({ path: file, lockWaitMsMax: 5_000 });
  t.after(() => store.close());
  assert.equal(store.size, lines.length);
  return { acknowledged: acknowledged.size, found: lines.length };
}

test(`crash: ${trials} times kill -9 under load, of one of 2 processes, loses nothing acknowledged and doubles nothing`, async (t) => {
  let [acknowledged, found] = [0, 0];
  for (let left = trials; left > 0; left -= trialsOfFile) {
    const sum = await killAndCount(t, Math.min(left, trialsOfFile));
    acknowledged += sum.acknowledged;
    found += sum.found;
  }
  assert.ok(acknowledged > trials * 3, `${acknowledged} users are too few to say anything`);
  t.diagnostic(`${trials} kills, ${acknowledged} users acknowledged and there, ${found} in the files`);
});
