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
const trials = Number(process.env.TRIALS ?? 20);
const trialsOfFile = 30;

/** What was acknowledged last about a user. */
interface Fact {
  readonly id: number;
  readonly version: number;
  readonly isRemoved: boolean;
}

interface Sum {
  acknowledged: number;
  changed: number;
  removed: number;
  contested: number;
  compacted: number;
  found: number;
}

/** Kills processes under load, one of three or more at once, time after time. Resolves with how much was acknowledged, and found. */
async function killAndCount(t: TestContext, kills: number): Promise<Sum> {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'users.jsonl');
  const facts = new Map<string, Fact>();
  /** What was asked for and is not answered: killed meanwhile, it may have happened or not. */
  const open = new Map<string, 'create' | 'change' | 'remove'>();
  /** Logins that all of them want at once, and who got them. */
  const contested = new Map<string, { id: number; wins: number }>();
  let asked = 0;
  let latest: { login: string; by: StoreProcess | undefined } = { login: '', by: undefined };
  let isOver = false;
  let compacted = 0;

  const create = async ({ tell }: StoreProcess, logins: readonly string[]): Promise<void> => {
    for (const login of logins) open.set(login, 'create');
    const answers: { created: boolean; id: number }[] = await tell({ do: 'create', logins });
    for (const [n, { created, id }] of answers.entries()) {
      assert.equal(created, true, logins[n]);
      facts.set(logins[n]!, { id, version: 1, isRemoved: false });
      open.delete(logins[n]!);
    }
  };
  const change = async (store: StoreProcess, login: string): Promise<void> => {
    const { id, version } = facts.get(login)!;
    open.set(login, 'change');
    assert.equal(await store.tell({ do: 'change', login }), version + 1, login);
    facts.set(login, { id, version: version + 1, isRemoved: false });
    open.delete(login);
    latest = { login, by: store };
  };
  const remove = async ({ tell }: StoreProcess, login: string): Promise<void> => {
    open.set(login, 'remove');
    assert.equal(await tell({ do: 'remove', login }), true, login);
    facts.set(login, { ...facts.get(login)!, isRemoved: true });
    open.delete(login);
  };
  const contest = async ({ tell }: StoreProcess, login: string): Promise<void> => {
    const [{ created, id }] = await tell({ do: 'create', logins: [login] });
    const known = contested.get(login) ?? { id, wins: 0 };
    assert.equal(id, known.id, `two users have ${login}`);
    contested.set(login, { id, wins: known.wins + (created ? 1 : 0) });
  };
  /** A read by any process sees what was acknowledged by any process. */
  const look = async ({ tell }: StoreProcess, login: string): Promise<void> => {
    const fact = facts.get(login);
    if (fact === undefined || open.has(login)) return;
    const user: { id: number; version: number } | undefined = await tell({ do: 'find', login });
    // Somebody may have begun to change it since.
    if (open.has(login) || facts.get(login) !== fact) return;
    assert.deepEqual(user && { id: user.id, version: user.version }, fact.isRemoved ? undefined : { id: fact.id, version: fact.version }, login);
  };

  /** Writes as fast as it can; ends when its process is killed. */
  const load = async (store: StoreProcess): Promise<void> => {
    while (!isOver) {
      const logins = Array.from({ length: 5 }, () => `user${asked++}`);
      await create(store, logins);
      await Promise.all([change(store, logins[0]!), remove(store, logins[1]!), contest(store, `all${Math.floor(asked / 40)}`)]);
      await change(store, logins[0]!);
      // Whoever compacts is killed like everybody else.
      if (Math.random() < 0.1 && (await store.tell({ do: 'compact' }))) compacted++;
      await look(store, `user${Math.floor(Math.random() * asked)}`);
      // It writes nothing for a while, and still sees what the others do.
      for (let n = 0; n < 5; n++) if (latest.by !== store) await look(store, latest.login);
    }
  };
  const start = async (): Promise<{ store: StoreProcess; running: Promise<unknown> }> => {
    const store = await spawnStore(t, file);
    return { store, running: Promise.all([load(store), load(store)]).catch((error: Error) => error) };
  };
  const three = await Promise.all([start(), start(), start()]);
  for (let kill = 0; kill < kills; ) {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 40));
    const first = Math.floor(Math.random() * 3);
    // Mostly one; now and then the next one at the same moment, or all.
    const victims = Math.random() < 0.8 ? [first] : Math.random() < 0.5 ? [first, (first + 1) % 3] : [0, 1, 2];
    for (const n of victims) three[n]!.store.child.kill('SIGKILL');
    for (const n of victims) {
      const ended = await three[n]!.running;
      // What an assertion found is more than that its process has ended.
      if (!(ended instanceof Error && ended.message === 'the process ended')) throw ended;
    }
    await Promise.all(victims.map(async (n) => void (three[n] = await start())));
    kill += victims.length;
  }
  isOver = true;
  for (const { running } of three) {
    const ended = await running;
    if (ended instanceof Error) throw ended;
  }
  for (const { store } of three) await store.tell({ do: 'close' });

  const living = new Map<string, number>();
  const loginOf = new Map<number, string>();
  const lines = readUsersFile(directory).slice(1);
  for (const { id, login, deleted } of lines) {
    assert.equal(loginOf.get(id) ?? login, login, `two users have the id ${id}`);
    assert.equal(living.get(login) ?? id, id, `two users have the login ${login}`);
    loginOf.set(id, login);
    if (deleted === undefined) living.set(login, id);
    else living.delete(login);
  }
  const store = await FileUserStore.open({ path: file, lockWaitMsMax: 5_000 });
  t.after(() => store.close());
  assert.equal(store.size, living.size);
  const sum = { acknowledged: facts.size, changed: 0, removed: 0, contested: contested.size, compacted, found: living.size };
  for (const [login, { id, version, isRemoved }] of facts) {
    const user = await store.find(login);
    const doubt = open.get(login);
    if (isRemoved) {
      assert.equal(user, undefined, `${login} is back`);
      sum.removed++;
    } else if (user === undefined) {
      assert.equal(doubt, 'remove', `${login} is lost`);
    } else {
      assert.equal(user.id, id, login);
      const isChanged = user.version === version || (doubt === 'change' && user.version === version + 1);
      assert.ok(isChanged, `${login} has version ${user.version}, and ${version} was acknowledged`);
      if (version > 1) sum.changed++;
    }
  }
  for (const [login, { id, wins }] of contested) {
    assert.equal((await store.find(login))?.id, id, login);
    assert.ok(wins <= 1, `${login} was given ${wins} times`);
  }
  return sum;
}

test(`crash: ${trials} times kill -9 under load, of 3 processes, loses nothing acknowledged, doubles nothing, brings nobody back`, async (t) => {
  const sum: Sum = { acknowledged: 0, changed: 0, removed: 0, contested: 0, compacted: 0, found: 0 };
  for (let left = trials; left > 0; left -= trialsOfFile) {
    const more = await killAndCount(t, Math.min(left, trialsOfFile));
    for (const key of Object.keys(sum) as (keyof Sum)[]) sum[key] += more[key];
  }
  assert.ok(sum.acknowledged > trials * 3, `${sum.acknowledged} users are too few to say anything`);
  t.diagnostic(
    `${trials} kills: ${sum.acknowledged} users acknowledged, ${sum.changed} of them changed and ${sum.removed} removed, ` +
      `${sum.contested} logins that all wanted, ${sum.compacted} compactions; 0 lost, 0 doubled, 0 back, 0 refused starts; ${sum.found} in the files`,
  );
});
