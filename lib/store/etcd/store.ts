/**
 * The store of users in an etcd cluster, over its HTTP/JSON gateway, for any number of services on as many machines.
 *
 * A user is two keys, the record under the login and the login under the id, written in one transaction. Nothing is
 * decided here but by etcd: a create asks that the login be free, a change that the record be as it was read. Writes on
 * one login that one store is asked for go one after the other; those of several stores are settled by etcd.
 */

import { RegistrarError, messageOf } from '../../errors.ts';
import type { Arrival, Candidate, CreateOutcome, Expected, Replacement, StoredUser } from '../../user-store.ts';
import type { UserLines, UserPage, UserRecords, UserStore, UserView } from '../../user-store.ts';
import { decodeCursor, encodeCursor } from '../cursor.ts';
import { decideArrival, decideCreate, decideRemove, decideReplace } from '../decide.ts';
import { readTransaction } from './answers.ts';
import type { Found } from './answers.ts';
import { Keys, get, isAbsent, isUnchanged, put, remove } from './bodies.ts';
import { EtcdClient } from './client.ts';
import type { ClientOptions } from './client.ts';
import { Creates } from './creates.ts';
import { Ids } from './ids.ts';
import { Kdfs } from './kdfs.ts';
import { listUsers } from './list.ts';
import type { Listed } from './list.ts';
import { Reads } from './reads.ts';
import { Receipts } from './receipts.ts';
import { decodeRecord, encodeRecord, publicJson, viewRecord } from './record.ts';
import { EtcdSecrets } from './secrets.ts';

export interface EtcdUserStoreOptions extends ClientOptions {
  /** Of all keys: stores with different prefixes have nothing to do with each other. */
  readonly prefix?: string;
  readonly now?: () => Date;
}

export interface Health {
  readonly ready: boolean;
  /** Why not, for an operator. */
  readonly reason?: string;
}

const format = '{"format":"registrar-users","version":1}';
/** A piece of `lines` and of `records`: some 64 KB. */
const pieceUsers = 500;
/** Enough to fill the batches that are under way, and the next ones. */
const arrivalsAtOnce = 480;
const healthMs = 1_000;
const healthWaitMs = 1_500;

interface Current {
  readonly user: StoredUser | undefined;
  /** '0' while there is nobody. */
  readonly revision: string;
}

export class EtcdUserStore implements UserStore {
  readonly secrets: EtcdSecrets;
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #ids: Ids;
  readonly #kdfs: Kdfs;
  readonly #reads: Reads;
  readonly #receipts: Receipts;
  readonly #creates: Creates;
  readonly #report: (line: string) => void;
  /** The last write that was asked for on each login. */
  readonly #queues = new Map<string, Promise<unknown>>();
  #health: { readonly at: number; readonly asked: Promise<Health> } | undefined;

  private constructor(client: EtcdClient, keys: Keys, options: EtcdUserStoreOptions) {
    this.#client = client;
    this.#keys = keys;
    this.#report = options.report ?? (() => undefined);
    this.#ids = new Ids(client, keys);
    this.#kdfs = new Kdfs(client, keys);
    this.#reads = new Reads(client);
    this.#receipts = new Receipts(client, keys, options.now ?? (() => new Date()));
    this.#creates = new Creates(this.#receipts, keys);
    this.secrets = new EtcdSecrets(client, keys);
  }

  /** Rejects with `usage` if the options cannot be right, `cannot-start` if etcd cannot be asked or holds something else. */
  static async open(options: EtcdUserStoreOptions): Promise<EtcdUserStore> {
    const { prefix = '/registrar/' } = options;
    if (!/^[!-~]*\/$/.test(prefix)) {
      throw new RegistrarError('usage', `"${prefix}" is no prefix of keys: it ends in a slash, and is ASCII without blanks`);
    }
    const keys = new Keys(prefix);
    const client = new EtcdClient(options, keys.format);
    try {
      await checkFormat(client, keys);
    } catch (error) {
      client.close();
      const cause = error instanceof RegistrarError && error.cause !== undefined ? ` (${messageOf(error.cause)})` : '';
      const why = `${messageOf(error)}${cause}`;
      throw new RegistrarError('cannot-start', `Cannot use etcd at ${options.endpoints.join(', ')}: ${why}`, { cause: error });
    }
    const store = new EtcdUserStore(client, keys, options);
    store.#receipts.sweep().catch((error: unknown) => store.#report(`etcd: old receipts stay where they are: ${messageOf(error)}`));
    return store;
  }

  create(candidate: Candidate): Promise<CreateOutcome> {
    const deadline = this.#client.deadline();
    const toUser = (id: number): StoredUser => decideCreate(candidate, undefined, id).outcome.user;
    return this.#alone(candidate.login, () => this.#create(candidate.kdf, toUser, undefined, deadline));
  }

  async find(login: string): Promise<StoredUser | undefined> {
    return (await this.#read(login, this.#client.deadline())).user;
  }

  async view(login: string): Promise<UserView | undefined> {
    const found = await this.#get(login, this.#client.deadline());
    return found && viewRecord(found, login);
  }

  replace(expected: Expected, replacement: Replacement): Promise<StoredUser | undefined> {
    const deadline = this.#client.deadline();
    return this.#alone(expected.login, async () => {
      for (let current = await this.#read(expected.login, deadline); ; ) {
        const { outcome, put: user } = decideReplace(expected, replacement, current.user);
        if (user === undefined) return outcome;
        await this.#kdfs.add(user.kdf, deadline);
        const key = this.#keys.user(user.login);
        const success = [put(key, encodeRecord(user))];
        const done = await this.#receipts.write({ compare: [isUnchanged(key, current.revision)], success, look: [key] }, deadline);
        if (done.isDone) return outcome;
        current = readCurrent(done.found[0], expected.login);
      }
    });
  }

  remove(expected: Expected, at: string): Promise<boolean> {
    const deadline = this.#client.deadline();
    return this.#alone(expected.login, async () => {
      for (let current = await this.#read(expected.login, deadline); ; ) {
        const { outcome, remove: removal } = decideRemove(expected, at, current.user);
        if (removal === undefined) return outcome;
        const key = this.#keys.user(expected.login);
        const success = [remove(key), remove(this.#keys.id(removal.id))];
        const done = await this.#receipts.write({ compare: [isUnchanged(key, current.revision)], success, look: [key] }, deadline);
        if (done.isDone) return outcome;
        current = readCurrent(done.found[0], expected.login);
      }
    });
  }

  async page(after: string | undefined, limit: number): Promise<UserPage> {
    const { listed, next } = await this.#list(after, limit);
    return { users: listed.map(({ found }) => Buffer.from(publicJson(found), 'utf8')), next };
  }

  async lines(after: string | undefined): Promise<UserLines> {
    const { listed, next } = await this.#list(after, pieceUsers);
    return { bytes: Buffer.from(listed.map(({ found }) => `${publicJson(found)}\n`).join(''), 'utf8'), next };
  }

  async records(after: string | undefined): Promise<UserRecords> {
    const { listed, next } = await this.#list(after, pieceUsers);
    return { users: listed.map(({ user }) => user), next };
  }

  kdfs(): Promise<readonly string[]> {
    return this.#kdfs.all();
  }

  /** In order, each as `create` does; an id is kept if it is above all that were ever given. */
  async createMany(arrivals: readonly Arrival[]): Promise<readonly CreateOutcome[]> {
    const wanted = new Set(arrivals.flatMap(({ id }) => id ?? []));
    const kept = new Set(await this.#ids.reserve([...wanted], this.#client.deadline()));
    const ids = arrivals.map(({ id }) => (id !== undefined && kept.delete(id) ? id : undefined));
    const outcomes: CreateOutcome[] = [];
    let next = 0;
    let failure: { readonly error: unknown } | undefined;
    const work = async (): Promise<void> => {
      for (let n = next++; n < arrivals.length && failure === undefined; n = next++) {
        const arrival = arrivals[n]!;
        const deadline = this.#client.deadline();
        try {
          const toUser = (id: number): StoredUser => decideArrival({ ...arrival, id }, undefined, id).outcome.user;
          outcomes[n] = await this.#alone(arrival.login, () => this.#create(arrival.kdf, toUser, ids[n], deadline));
        } catch (error) {
          failure ??= { error };
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(arrivalsAtOnce, arrivals.length) }, work));
    if (failure !== undefined) throw failure.error;
    return outcomes;
  }

  /** Whether writes and reads can be done now; asked of etcd once a second at most. */
  health(): Promise<Health> {
    const now = performance.now();
    if (this.#health === undefined || now - this.#health.at > healthMs) {
      const asked = this.#client
        .trouble(healthWaitMs)
        .then((reason) => (reason === undefined ? { ready: true } : { ready: false, reason }));
      this.#health = { at: now, asked };
    }
    return this.#health.asked;
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#queues.values());
    await this.#receipts.clear().catch((error: unknown) => this.#report(`etcd: receipts stay where they are: ${messageOf(error)}`));
    this.#client.close();
  }

  /** @param kept the id that an arrival brings along, if it can be kept. */
  async #create(kdf: string, toUser: (id: number) => StoredUser, kept: number | undefined, deadline: number): Promise<CreateOutcome> {
    await this.#kdfs.add(kdf, deadline);
    for (;;) {
      const id = kept ?? (await this.#ids.take(deadline));
      const user = toUser(id);
      const created = await this.#creates.add(user, deadline);
      if (created.isDone) return { created: true, user };
      if (created.hasId) {
        this.#report(`etcd: the id ${id} was given before: the counter was put back, and goes ahead again`);
        this.#ids.skipBlock();
        kept = undefined;
      } else if (kept === undefined) this.#ids.giveBack(id);
      if (created.owner !== undefined) return { created: false, user: decodeRecord(created.owner, user.login) };
    }
  }

  async #list(after: string | undefined, limit: number): Promise<{ listed: readonly Listed[]; next: string | undefined }> {
    const from = after === undefined ? 0 : decodeCursor(after);
    const { listed, last } = await listUsers(this.#client, this.#keys, from, limit, this.#client.deadline());
    return { listed, next: last === undefined ? undefined : encodeCursor(last) };
  }

  #get(login: string, deadline: number): Promise<Found | undefined> {
    return this.#reads.get(this.#keys.user(login), deadline);
  }

  async #read(login: string, deadline: number): Promise<Current> {
    return readCurrent(await this.#get(login, deadline), login);
  }

  /** Runs it when the writes on this login that were asked for before have ended. */
  #alone<T>(login: string, run: () => Promise<T>): Promise<T> {
    const before = this.#queues.get(login);
    const running = before === undefined ? run() : before.then(run, run);
    this.#queues.set(login, running);
    const clear = (): void => {
      if (this.#queues.get(login) === running) this.#queues.delete(login);
    };
    running.then(clear, clear);
    return running;
  }
}

function readCurrent(found: Found | undefined, login: string): Current {
  return found === undefined ? { user: undefined, revision: '0' } : { user: decodeRecord(found, login), revision: found.revision };
}

/** Asks that the prefix be a store's of this format, or nobody's, and makes it one. */
async function checkFormat(client: EtcdClient, keys: Keys): Promise<void> {
  const transaction = { compare: [isAbsent(keys.format)], success: [put(keys.format, format)], failure: [get(keys.format)] };
  const { succeeded, responses } = readTransaction(await client.transact(transaction, client.deadline()));
  const there = responses[0]?.found[0]?.value;
  if (succeeded || there === format) return;
  throw new RegistrarError('cannot-start', `"${keys.format}" is ${there ?? 'gone'}, where ${format} should be`);
}
