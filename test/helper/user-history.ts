/** Histories of operations on users, and whether one order of them explains every answer. */

import { RegistrarError } from '../../lib/errors.ts';
import type { StoredUser, UserStore } from '../../lib/user-store.ts';

export interface Operation<Call> {
  readonly call: Call;
  /** The times of the call and of the response; Infinity without a response. */
  readonly from: number;
  readonly to: number;
}

export interface Model<State, Call> {
  readonly initial: State;
  /** The state afterwards; undefined if this state cannot lead to the response. */
  step(state: State, call: Call): State | undefined;
  /** Equal for equal states. */
  key(state: State): string;
}

export function isLinearizable<State, Call>(history: readonly Operation<Call>[], model: Model<State, Call>): boolean {
  const operations = history.toSorted((a, b) => a.from - b.from);
  const tried = new Set<string>();
  const visit = (done: bigint, state: State): boolean => {
    const key = `${done.toString(36)} ${model.key(state)}`;
    if (tried.has(key)) return false;
    tried.add(key);
    const left = operations.map((operation, n) => ({ operation, bit: 1n << BigInt(n) })).filter(({ bit }) => (done & bit) === 0n);
    const firstResponse = left.reduce((min, { operation }) => Math.min(min, operation.to), Infinity);
    // No operation with a response is left.
    if (firstResponse === Infinity) return true;
    for (const { operation, bit } of left) {
      if (operation.from > firstResponse) break;
      const next = model.step(state, operation.call);
      if (next !== undefined && visit(done | bit, next)) return true;
    }
    return false;
  };
  return visit(0n, model.initial);
}

/** What identifies a state of a user: every write of a history has a password of its own. */
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
  /** How often each error occurred. */
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
  /** The load ends after so many operations, or when `until` is true. */
  readonly operations?: number;
  readonly until?: () => boolean;
  /** Receives the times at which writes succeeded. */
  readonly successes?: number[];
}

/** Every client uses one of the stores and has one operation at a time. Rejects with any error that is not a RegistrarError. */
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
      const operation = Math.random() < 0.1 ? startMany(store, logins) : startOne(store, login, known.get(login));
      try {
        for (const [call, seen] of await operation.run()) {
          history.push({ call, from, to: performance.now() });
          if (seen === undefined) known.delete(call.login);
          else known.set(call.login, seen);
        }
        if (operation.isWrite) successes.push(performance.now());
      } catch (error) {
        if (!(error instanceof RegistrarError)) throw error;
        const name = `${error.code} to ${operation.isWrite ? 'a write' : 'a read'}`;
        errors.set(name, (errors.get(name) ?? 0) + 1);
        // Any other error says that nothing was done.
        if (error.code === 'outcome-unknown') history.push(...operation.calls.map((call) => ({ call, from, to: Infinity })));
      }
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, n) => client(stores[n % stores.length]!)));
  // The final state is part of the history.
  for (const login of logins) {
    const from = performance.now();
    const found = await stores[0]!.findRecord(login);
    history.push({ call: { login, do: 'find', found: found && see(found) }, from, to: performance.now() });
  }
  return { history, errors };
}

interface Started {
  readonly isWrite: boolean;
  /** Without outcomes, for a write of unknown outcome. */
  readonly calls: readonly Call[];
  /** The calls with their outcomes, and what the client knows of each user then. */
  readonly run: () => Promise<(readonly [Call, Seen | undefined])[]>;
}

const newCredential = (): { kdf: string; password: string } => ({ kdf: 'pbkdf2:sha256:1', password: `password-${++passwords}` });

/** Three users in one transaction. */
function startMany(store: UserStore, logins: readonly string[]): Started {
  const first = Math.floor(Math.random() * logins.length);
  const some = new Set([0, 1, 2].map((n) => logins[(first + n) % logins.length]!));
  const users = [...some].map((login) => ({ login, registered: at, ...newCredential() }));
  const calls = users.map(({ login, password }) => ({ login, do: 'create', password }) as const);
  const run = async (): ReturnType<Started['run']> => (await store.createMany(users)).map(({ created, user }, n) => [
    { ...calls[n]!, outcome: { created, user: see(user) } }, see(user),
  ]);
  return { isWrite: true, calls, run };
}

function startOne(store: UserStore, login: string, known: Seen | undefined): Started {
  const dice = Math.random();
  const credential = newCredential();
  const { password } = credential;
  if (dice < 0.3) {
    const call = { login, do: 'find' } as const;
    return { isWrite: false, calls: [call], run: async () => {
      const found = await store.findRecord(login);
      return [[{ ...call, found: found && see(found) }, found && see(found)]];
    } };
  }
  if (known === undefined || dice < 0.5) {
    const call = { login, do: 'create', password } as const;
    return { isWrite: true, calls: [call], run: async () => {
      const { created, user } = await store.create({ login, registered: at, ...credential });
      return [[{ ...call, outcome: { created, user: see(user) } }, see(user)]];
    } };
  }
  if (dice < 0.75) {
    const call = { login, do: 'replace', expected: known, password } as const;
    return { isWrite: true, calls: [call], run: async () => {
      const user = await store.replace({ login, ...known }, { ...credential, changed: at });
      return [[{ ...call, outcome: { user: user && see(user) } }, user && see(user)]];
    } };
  }
  const call = { login, do: 'remove', expected: known } as const;
  return { isWrite: true, calls: [call], run: async () => [[{ ...call, outcome: { removed: await store.remove({ login, ...known }, at) } }, undefined]] };
}

/** The states of one login. The id that a create of unknown outcome assigned is taken from later reads, by its password. */
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

/** Every user in any response. */
function told(history: History): Seen[] {
  return history.flatMap(({ call }) => {
    if (call.do === 'find') return call.found ?? [];
    if (call.do === 'create') return call.outcome?.user ?? [];
    return call.do === 'replace' ? (call.outcome?.user ?? []) : [];
  });
}

/** The logins whose operations have no linearization, and the ids that were assigned twice. */
export function findViolations(history: History): string[] {
  const ids = new Map(told(history).filter(({ version }) => version === 1).map(({ id, password }) => [password, id]));
  const model = modelOf(ids);
  const violations: string[] = [];
  for (const [login, operations] of group(history)) {
    if (!isLinearizable(operations, model)) violations.push(`${login}: its ${operations.length} operations are not linearizable`);
  }
  const creations = new Map<number, string>();
  for (const { call } of history) {
    if (call.do !== 'create' || call.outcome?.created !== true) continue;
    const { user: { id } } = call.outcome;
    if (creations.has(id)) violations.push(`the id ${id} was assigned twice`);
    creations.set(id, call.password);
  }
  return violations;
}

function group(history: History): Map<string, History> {
  const groups = new Map<string, History>();
  for (const operation of history) groups.set(operation.call.login, [...(groups.get(operation.call.login) ?? []), operation]);
  return groups;
}
