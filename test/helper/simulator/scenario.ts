/**
 * What is done to a store in a trial of crashes and faults, and a ledger of it: which states of each
 * login may be found afterwards, whatever happened, and when.
 */

import { RegistrarError, systemCode } from '../../../lib/errors.ts';
import { FileLock } from '../../../lib/store/file/file-lock.ts';
import { examine, replaceUsersFile } from '../../../lib/store/file/repair.ts';
import { FileUserStore } from '../../../lib/store/file/file-user-store.ts';
import type { StoredUser } from '../../../lib/user-store.ts';
import type { Call, Fault, MemoryFileSystem } from './memory-file-system.ts';
import { newUser } from '../user-store-contract.ts';

/** A state of a login: absent, or a version and the password that is one write's own. */
export type State = string;

export const absent: State = 'nobody';

export function stateOf(user: StoredUser | undefined): State {
  return user === undefined ? absent : `version ${user.version}, ${user.password}`;
}

interface Entry {
  readonly login: string;
  readonly state: State;
  /** Operations of the file system that had happened when it was asked for, and when it was answered. */
  readonly asked: number;
  answered: number;
  answer: 'acknowledged' | 'refused' | 'unknown' | 'seen';
}

/** What may be found. */
export interface Expectation {
  /** Of each login, in the order in which they can come to be. */
  readonly states: ReadonlyMap<string, readonly State[]>;
  /** The ids of states that were acknowledged. */
  readonly ids: ReadonlyMap<State, number>;
  /** The highest id in any response. */
  readonly lastId: number;
}

export const nothing: Expectation = { states: new Map(), ids: new Map(), lastId: 0 };

export class Ledger {
  readonly #base: Expectation;
  readonly #entries: Entry[] = [];
  readonly #ids: { state: State; id: number; at: number }[] = [];

  constructor(base: Expectation) {
    this.#base = base;
  }

  ask(login: string, state: State, step: number): Entry {
    const entry: Entry = { login, state, asked: step, answered: Infinity, answer: 'unknown' };
    this.#entries.push(entry);
    return entry;
  }

  answer(entry: Entry, answer: Entry['answer'], step: number, id?: number): void {
    entry.answer = answer;
    entry.answered = step;
    if (id !== undefined) this.#ids.push({ state: entry.state, id, at: step });
  }

  /** What was read stays: nothing earlier is found again. What a dead process had requested may still appear. */
  observe(login: string, user: StoredUser | undefined, step: number): void {
    this.answer(this.ask(login, stateOf(user), step), 'seen', step, user?.id);
  }

  /** What may be found after so many operations of the file system. */
  at(step: number): Expectation {
    const states = new Map(this.#base.states);
    for (const { login, state, asked, answered, answer } of this.#entries) {
      if (asked > step || (answer === 'refused' && answered <= step)) continue;
      const before = states.get(login) ?? [absent];
      if (answer === 'seen') states.set(login, since(before, state));
      else if (answer === 'acknowledged' && answered <= step) states.set(login, [state]);
      else states.set(login, [...before, state]);
    }
    const known = this.#ids.filter(({ at }) => at <= step);
    return {
      states,
      ids: new Map([...this.#base.ids, ...known.map(({ state, id }) => [state, id] as const)]),
      lastId: Math.max(this.#base.lastId, ...known.map(({ id }) => id)),
    };
  }
}

/** What may be found after a state was seen. */
export function since(states: readonly State[], seen: State): readonly State[] {
  return states.slice(states.indexOf(seen));
}

/** Each write has a password of its own, so that what is found tells which write it is of. */
let writes = 0;

function ownPassword(): string {
  return `${String(++writes).padStart(32, '0')}$${'1'.repeat(64)}`;
}

/** A clock that never says the same twice, so that no two files are quarantined under one name. */
let milliseconds = Date.parse('2026-11-22T15:00:00.000Z');

export function now(): Date {
  return new Date(milliseconds++);
}

/** What is done with a store, by one process or two, on a file system that may fail. */
export class Run {
  readonly fs: MemoryFileSystem;
  readonly ledger: Ledger;
  store: FileUserStore;
  #other: FileUserStore | undefined;
  readonly #lockWaitMsMax: number;
  /** What callers were told, in the order of answers: acknowledged, or an error's code. */
  readonly answers: string[] = [];

  private constructor(fs: MemoryFileSystem, ledger: Ledger, store: FileUserStore, lockWaitMsMax: number) {
    this.fs = fs;
    this.ledger = ledger;
    this.store = store;
    this.#lockWaitMsMax = lockWaitMsMax;
  }

  /** Opens a store, and takes everything that it shows for promised. */
  static async open(fs: MemoryFileSystem, ledger: Ledger, logins: Iterable<string>, lockWaitMsMax = 2_000): Promise<Run> {
    const store = await FileUserStore.open({ path: fs.path, lockWaitMsMax, fs, now });
    try {
      const run = new Run(fs, ledger, store, lockWaitMsMax);
      for (const login of logins) ledger.observe(login, await store.findRecord(login), fs.stepCount);
      return run;
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  /** The process ends, in good order, and another begins. */
  async reopen(): Promise<void> {
    await this.close();
    this.store = await this.#open();
  }

  /** What follows is done by another process, which has the file open at the same time. */
  async alternate(): Promise<void> {
    const store = this.#other ?? (await this.#open());
    this.#other = this.store;
    this.store = store;
  }

  async close(): Promise<void> {
    const other = this.#other;
    this.#other = undefined;
    await this.store.close();
    await other?.close();
  }

  async create(login: string): Promise<void> {
    const wanted = newUser(login, { password: ownPassword() });
    const entry = this.ledger.ask(login, stateOf({ id: 0, version: 1, ...wanted }), this.fs.stepCount);
    await this.#settle(entry, async () => {
      const { created, user } = await this.store.create(wanted);
      return created ? user.id : undefined;
    });
  }

  /** A new password; without `isNew` the same one hashed anew. */
  async change(login: string, isNew = true): Promise<void> {
    const user = await this.#find(login);
    if (user === undefined) return;
    const password = ownPassword();
    const entry = this.ledger.ask(login, stateOf({ ...user, password, version: user.version + (isNew ? 1 : 0) }), this.fs.stepCount);
    const replacement = { kdf: user.kdf, password, ...(isNew ? { changed: '2026-11-23T08:00:00.000Z' } : {}) };
    await this.#settle(entry, async () => (await this.store.replace(user, replacement))?.id);
  }

  async remove(login: string): Promise<void> {
    const user = await this.#find(login);
    if (user === undefined) return;
    const entry = this.ledger.ask(login, absent, this.fs.stepCount);
    await this.#settle(entry, async () => ((await this.store.remove(user, '2026-11-23T08:00:00.000Z')) ? user.id : undefined));
  }

  /** What is wrong with what can be read now. Reading may be refused. */
  async misread(): Promise<string | undefined> {
    for (const login of this.ledger.at(this.fs.stepCount).states.keys()) {
      try {
        const found = await this.store.findRecord(login);
        // What is under way when it is read may be there or not; what was answered is settled.
        const expected = this.ledger.at(this.fs.stepCount).states.get(login)!;
        if (!expected.includes(stateOf(found))) return `${login} is read as ${stateOf(found)}, not ${expected.join(' or ')}`;
      } catch (error) {
        if (!(error instanceof RegistrarError)) throw error;
      }
    }
    return undefined;
  }

  #open(): Promise<FileUserStore> {
    return FileUserStore.open({ path: this.fs.path, lockWaitMsMax: this.#lockWaitMsMax, fs: this.fs, now });
  }

  async #find(login: string): Promise<StoredUser | undefined> {
    try {
      return await this.store.findRecord(login);
    } catch (error) {
      if (error instanceof RegistrarError) return undefined;
      throw error;
    }
  }

  async #settle(entry: Entry, work: () => Promise<number | undefined>): Promise<void> {
    try {
      const id = await work();
      this.ledger.answer(entry, id === undefined ? 'refused' : 'acknowledged', this.fs.stepCount, id);
      this.answers.push(id === undefined ? 'lost' : 'acknowledged');
    } catch (error) {
      if (!(error instanceof RegistrarError)) throw error;
      this.answers.push(error.code);
      this.ledger.answer(entry, error.code === 'outcome-unknown' ? 'unknown' : 'refused', this.fs.stepCount);
    }
  }
}

/** A request without a promise of its own, which must not harm other users. */
async function unlessRefused(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof RegistrarError) && systemCode(error) === undefined) throw error;
  }
}

/** A thing that is done, or several at once. */
export type Operation = (run: Run) => Promise<unknown>;

const create = (...logins: readonly string[]): Operation => (run) => Promise.all(logins.map((login) => run.create(login)));
const change = (...logins: readonly string[]): Operation => (run) => Promise.all(logins.map((login) => run.change(login)));
const rehash = (...logins: readonly string[]): Operation => (run) => Promise.all(logins.map((login) => run.change(login, false)));
const remove = (...logins: readonly string[]): Operation => (run) => Promise.all(logins.map((login) => run.remove(login)));
const reopen: Operation = (run) => run.reopen();
const alternate: Operation = (run) => run.alternate();
const fail = (call: Call, code: string, more: Partial<Fault> = {}): Operation => async ({ fs }) => {
  fs.failNext.push({ call, fault: { code, ...more } });
};
const compact: Operation = ({ store }) => unlessRefused(store.compact());
const mend: Operation = async ({ fs }) => {
  const directory = `${fs.path}.lock`;
  const lock = await FileLock.join({ fs, directory, onWaiter: () => undefined });
  const replace = async (): Promise<void> => {
    await lock.acquire(2_000);
    const { recovery } = await examine(fs, fs.path);
    await replaceUsersFile({ fs, path: fs.path, now: now() }, recovery, { temporary: `${directory}/.new-${lock.identity}`, suffix: 'damaged' });
  };
  await unlessRefused(replace()).finally(() => lock.leave());
};
/** More than a page of memory, and more than one of many disks. */
const crowd = (prefix: string, count: number): Operation => create(...Array.from({ length: count }, (_, n) => `${prefix}${n}`));

export const scenarios: Readonly<Record<string, readonly Operation[]>> = {
  'one after the other': [create('alice'), create('bob'), change('alice'), rehash('bob'), remove('alice'), create('alice')],
  batches: [create('alice', 'bob', 'carol'), change('alice', 'carol'), crowd('u', 20), remove('bob', 'u3', 'u4'), create('bob', 'u3')],
  'all at once': [
    create('alice', 'bob'),
    (run) => Promise.all([create('carol')(run), change('alice')(run), remove('bob')(run), create('dave')(run)]),
    (run) => Promise.all([rehash('carol')(run), remove('dave')(run), create('erin')(run)]),
  ],
  'two processes in turn': [create('alice'), alternate, create('bob'), change('alice'), alternate, remove('bob'), alternate, create('bob')],
  'a failed sync': [create('alice', 'bob'), fail('datasync', 'EIO'), create('carol', 'dave'), reopen, change('alice'), create('erin')],
  'a failed sync, after which the kernel drops what it could not write': [
    create('alice', 'bob'), fail('datasync', 'EIO', { isDropped: true }), remove('bob'), reopen, change('alice'), create('erin'),
  ],
  'a full disk': [create('alice'), fail('write', 'ENOSPC', { part: 0.5 }), create('bob', 'carol'), create('bob'), remove('alice')],
  'a full disk, and a file that cannot be cut back': [
    create('alice'), fail('write', 'ENOSPC', { part: 1 }), fail('datasync', 'EIO', { reached: 1 }), create('bob', 'carol'), reopen,
    create('erin'), change('alice'),
  ],
  'a write in parts': [fail('write', '', { part: 0.3 }), create('alice', 'bob'), fail('write', '', { part: 0.9 }), remove('bob'), create('carol')],
  compaction: [create('alice', 'bob', 'carol'), change('alice'), remove('bob'), compact, create('bob'), change('carol'), compact, reopen, remove('alice')],
  'compaction while others write': [
    crowd('u', 12), remove('u1', 'u2'),
    (run) => Promise.all([compact(run), change('u3', 'u4')(run), remove('u5')(run), create('bob', 'u1')(run)]),
    (run) => Promise.all([create('carol')(run), compact(run), remove('u3')(run)]), change('u4'),
  ],
  'compaction by one process and another': [crowd('u', 5), alternate, remove('u1', 'u4'), alternate, compact, create('u1'), alternate, compact, change('u2')],
  'compaction on a disk that fails': [
    create('alice', 'bob'), remove('bob'), fail('syncDirectory', 'EIO'), compact, reopen, change('alice'), fail('rename', 'EIO'), compact, create('carol'),
  ],
  'repair of what is sound': [create('alice', 'bob', 'carol'), change('alice'), remove('bob'), mend, create('bob'), mend, reopen, change('carol')],
};
