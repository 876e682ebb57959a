/** Clients that create, change, remove and look for the same few users, what they were answered, and whether it can be true. */

import { RegistrarError } from '../../lib/errors.ts';
import type { StoredUser, UserStore } from '../../lib/user-store.ts';
import { isLinearizable } from './linearizable.ts';
import type { Model, Operation } from './linearizable.ts';

/** What a user is known by: the id, the version, and the password, which every write of a history has its own of. */
interface Seen {
  readonly id: number;
  readonly version: number;
  readonly password: string;
}

export type Call = { readonly login: string } & (
  | { readonly do: 'find'; readonly found?: Seen | undefined }
  | { readonly do: 'create'; readonly password: string; readonly outcome?: { readonly created: boolean; readonly user: Seen } }
  | { readonly do: 'replace'; readonly expected: Seen; readonly password: string; readonly outcome?: { readonly user: Seen | undefined } }
  | { readonly do: 'remove'; readonly expected: Seen; readonly outcome?: { readonly removed: boolean } }
);

export type History = Operation<Call>[];

export interface Load {
  readonly history: History;
  /** How often each error came. */
  readonly errors: ReadonlyMap<string, number>;
}

const at = '2026-11-22T15:00:00.000Z';
let passwords = 0;

function see({ id, version, password }: StoredUser): Seen {
  return { id, version, password };
}

export interface LoadOptions {
  readonly logins: readonly string[];
  readonly clients: number;
  /** How many operations; it also ends when `until` says so. */
  readonly operations?: number;
  readonly until?: () => boolean;
  /** Here it is put down when writes were answered. */
  readonly successes?: number[];
}

/** Every client uses one of the stores and does one thing after the other. Throws what is no RegistrarError. */
export async function runLoad(stores: readonly UserStore[], { logins, clients, operations = Infinity, until = () => false, successes = [] }: LoadOptions): Promise<Load> {
  const history: History = [];
  const errors = new Map<string, number>();
  let begun = 0;
  const client = async (store: UserStore): Promise<void> => {
    const known = new Map<string, Seen>();
    while (begun < operations && !until()) {
      begun++;
      const login = logins[Math.floor(Math.random() * logins.length)]!;
      const from = performance.now();
      const [call, finish] = start(store, login, known.get(login));
      try {
        const [answered, seen] = await finish();
        history.push({ call: answered, from, to: performance.now() });
        if (call.do !== 'find') successes.push(performance.now());
        if (seen === undefined) known.delete(login);
        else known.set(login, seen);
      } catch (error) {
        if (!(error instanceof RegistrarError)) throw error;
        const name = `${error.code} to ${call.do === 'find' ? 'a read' : 'a write'}`;
        errors.set(name, (errors.get(name) ?? 0) + 1);
        // Anything but this says that nothing was done, and is no part of what has to be explained.
        if (error.code === 'outcome-unknown') history.push({ call, from, to: Infinity });
      }
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, n) => client(stores[n % stores.length]!)));
  // Whatever was answered has to agree with what is there in the end.
  for (const login of logins) {
    const from = performance.now();
    const found = await stores[0]!.find(login);
    history.push({ call: { login, do: 'find', found: found && see(found) }, from, to: performance.now() });
  }
  return { history, errors };
}

/** Something to do, and how it is done: with the answer in it, and what its client knows then. */
function start(store: UserStore, login: string, known: Seen | undefined): [Call, () => Promise<[Call, Seen | undefined]>] {
  const dice = Math.random();
  const password = `password-${++passwords}`;
  const credential = { kdf: 'pbkdf2:sha256:1', password };
  if (dice < 0.3) {
    const call = { login, do: 'find' } as const;
    return [call, async () => {
      const found = await store.find(login);
      return [{ ...call, found: found && see(found) }, found && see(found)];
    }];
  }
  if (known === undefined || dice < 0.5) {
    const call = { login, do: 'create', password } as const;
    return [call, async () => {
      const { created, user } = await store.create({ login, registered: at, ...credential });
      return [{ ...call, outcome: { created, user: see(user) } }, see(user)];
    }];
  }
  if (dice < 0.75) {
    const call = { login, do: 'replace', expected: known, password } as const;
    return [call, async () => {
      const user = await store.replace({ login, ...known }, { ...credential, changed: at });
      return [{ ...call, outcome: { user: user && see(user) } }, user && see(user)];
    }];
  }
  const call = { login, do: 'remove', expected: known } as const;
  return [call, async () => [{ ...call, outcome: { removed: await store.remove({ login, ...known }, at) } }, undefined]];
}

/** One user's life: the state is what is kept, undefined for nobody. An id that nobody was told is found by its password. */
function modelOf(ids: ReadonlyMap<string, number>): Model<{ readonly user: Seen | undefined }, Call> {
  const isSame = (a: Seen | undefined, b: Seen | undefined): boolean =>
    a?.id === b?.id && a?.version === b?.version && a?.password === b?.password;
  return {
    initial: { user: undefined },
    key: ({ user }) => (user === undefined ? '' : `${user.id}.${user.version}.${user.password}`),
    step({ user }, call) {
      if (call.do === 'find') return isSame(user, call.found) ? { user } : undefined;
      if (call.do === 'create') {
        const { password, outcome } = call;
        if (outcome === undefined) return user === undefined ? { user: { id: ids.get(password) ?? -passwordNumber(password), version: 1, password } } : { user };
        if (!outcome.created) return isSame(user, outcome.user) ? { user } : undefined;
        return user === undefined ? { user: outcome.user } : undefined;
      }
      const isMeant = user !== undefined && user.id === call.expected.id && user.version === call.expected.version;
      if (call.do === 'replace') {
        const next = isMeant ? { id: user.id, version: user.version + 1, password: call.password } : undefined;
        if (call.outcome === undefined) return { user: next ?? user };
        return isSame(next, call.outcome.user) ? { user: next ?? user } : undefined;
      }
      if (call.outcome !== undefined && call.outcome.removed !== isMeant) return undefined;
      return { user: isMeant ? undefined : user };
    },
  };
}

function passwordNumber(password: string): number {
  return Number(password.slice(password.lastIndexOf('-') + 1));
}

/** Every user that anybody was told of. */
function told(history: History): Seen[] {
  return history.flatMap(({ call }) => {
    if (call.do === 'find') return call.found ?? [];
    if (call.do === 'create') return call.outcome?.user ?? [];
    return call.do === 'replace' ? (call.outcome?.user ?? []) : [];
  });
}

/** What cannot be true: the logins of which no order explains what was answered, and the ids that two users have. */
export function findLies(history: History): string[] {
  const ids = new Map(told(history).filter(({ version }) => version === 1).map(({ id, password }) => [password, id]));
  const model = modelOf(ids);
  const lies: string[] = [];
  for (const [login, operations] of group(history)) {
    if (!isLinearizable(operations, model)) lies.push(`${login}: no order explains its ${operations.length} operations`);
  }
  const creations = new Map<number, string>();
  for (const { call } of history) {
    if (call.do !== 'create' || call.outcome?.created !== true) continue;
    const { user: { id } } = call.outcome;
    if (creations.has(id)) lies.push(`the id ${id} was given twice`);
    creations.set(id, call.password);
  }
  return lies;
}

function group(history: History): Map<string, History> {
  const groups = new Map<string, History>();
  for (const operation of history) groups.set(operation.call.login, [...(groups.get(operation.call.login) ?? []), operation]);
  return groups;
}
