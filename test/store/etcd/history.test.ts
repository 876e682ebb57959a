/** The checker of histories has to find what is wrong, and nothing where nothing is. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryUserStore } from '../../../lib/store/memory.ts';
import type { UserStore } from '../../../lib/user-store.ts';
import { isLinearizable } from '../../helper/linearizable.ts';
import type { Model } from '../../helper/linearizable.ts';
import { findLies, runLoad } from '../../helper/user-history.ts';
import type { History } from '../../helper/user-history.ts';

type Access = { readonly write: number } | { readonly read: number };
const register: Model<number, Access> = {
  initial: 0,
  step: (state, call) => ('write' in call ? call.write : call.read === state ? state : undefined),
  key: String,
};
const write = (value: number, from: number, to = Infinity) => ({ call: { write: value }, from, to });
const read = (value: number, from: number, to: number) => ({ call: { read: value }, from, to });

test('a register is linearizable where one order explains every read', () => {
  const yes = [
    [],
    [read(0, 0, 1)],
    [write(1, 0, 1), read(1, 2, 3)],
    [write(1, 0, 10), read(0, 1, 2), read(1, 3, 4)],
    [write(1, 0, 10), write(2, 0, 10), read(2, 1, 3), read(1, 4, 5)],
    [write(1, 0), read(0, 5, 6), read(1, 7, 8)],
    [write(1, 0), read(0, 5, 6)],
  ];
  const no = [
    [read(1, 0, 1)],
    [write(1, 0, 1), read(0, 2, 3)],
    [write(1, 0, 10), read(1, 1, 2), read(0, 3, 4)],
    [write(1, 0, 10), write(2, 0, 10), read(2, 1, 2), read(1, 3, 4), read(2, 5, 6)],
    [write(1, 3), read(1, 1, 2)],
    [write(1, 0), read(1, 1, 2), read(0, 3, 4)],
  ];
  for (const history of yes) assert.equal(isLinearizable(history, register), true, JSON.stringify(history));
  for (const history of no) assert.equal(isLinearizable(history, register), false, JSON.stringify(history));
});

const logins = ['alice', 'bob', 'carol'];

/** In turns with others, as requests are. */
function slow(store: UserStore, faults: Partial<UserStore> = {}): UserStore {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const own: Partial<UserStore> = {
    find: async (login) => (await turn(), await turn(), faults.find ? faults.find(login) : store.find(login)),
    create: async (candidate) => (await turn(), faults.create ? faults.create(candidate) : store.create(candidate)),
    replace: async (expected, replacement) => (await turn(), faults.replace ? faults.replace(expected, replacement) : store.replace(expected, replacement)),
    remove: async (expected, at) => (await turn(), faults.remove ? faults.remove(expected, at) : store.remove(expected, at)),
  };
  return Object.assign(Object.create(store), own);
}

async function historyOf(faults: (store: UserStore) => Partial<UserStore>): Promise<History> {
  const store = new MemoryUserStore();
  const stores = [slow(store), slow(store), slow(store, faults(store))];
  return (await runLoad(stores, { logins, clients: 6, operations: 300 })).history;
}

test('a store that does what it says has a history without a lie', async () => {
  for (let n = 0; n < 5; n++) assert.deepEqual(findLies(await historyOf(() => ({}))), []);
});

test('planted faults are found: a stale read, a write that is lost, a write that is done twice, an id given twice', async () => {
  const planted: Readonly<Record<string, (store: UserStore) => Partial<UserStore>>> = {
    'a read is a little old': (store) => {
      const old = new Map<string, Awaited<ReturnType<UserStore['find']>>>();
      return {
        find: async (login) => {
          const before = old.get(login);
          old.set(login, await store.find(login));
          return before;
        },
      };
    },
    'a change is answered and not made': (store) => ({ replace: async (expected, { kdf, password }) => {
      const user = await store.find(expected.login);
      return user?.id === expected.id && user.version === expected.version ? { ...user, kdf, password, version: user.version + 1 } : undefined;
    } }),
    'a removal that was done is said not to have been': (store) => ({ remove: async (expected, at) => (await store.remove(expected, at)) && false }),
    'a create is repeated without asking': (store) => ({ create: async (candidate) => {
      await store.create(candidate);
      return store.create(candidate);
    } }),
  };
  for (const [what, faults] of Object.entries(planted)) assert.notDeepEqual(findLies(await historyOf(faults)), [], what);
  const twice = await historyOf(() => ({}));
  const creation = twice.find(({ call }) => call.do === 'create' && call.outcome?.created === true)!;
  assert.ok(findLies([...twice, { ...creation, call: { ...creation.call, login: 'dora' } }]).some((lie) => /given twice/.test(lie)));
});
