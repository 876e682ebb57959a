/**
 * The store of users in an etcd cluster, for any number of services on as many machines. See README.md beside this file.
 *
 * A user is two keys, the record under the login and the login under the id, written in one transaction. etcd decides every
 * write: a create is done if login and id are absent, a change if the record is as it was read. Writes of one store on one
 * login are sent one after the other, in the order of the calls.
 */

import { RegistrarError, messageOf } from '../../errors.ts';
import type {
  CreateOutcome, Expected, ImportedUser, NdjsonPage, NewUser, PublicUser, RecordPage, Replacement, StoredUser, UserPage, UserStore,
} from '../../user-store.ts';
import { CostliestKdfs, costOf } from '../costliest-kdfs.ts';
import { decodeCursor, encodeCursor } from '../cursor.ts';
import { decideCreate, decideImport, decideRemove, decideReplace } from '../decide.ts';
import type { Decision } from '../decide.ts';
import { encodeRecord, publicJson } from '../user-record.ts';
import { EtcdClient } from './client.ts';
import type { EtcdClientOptions } from './client.ts';
import { hasValue, isAbsent, isUnchanged, keysOf, operationsMax, put, rangeOf, remove } from './gateway.ts';
import type { Keys } from './gateway.ts';
import { IdAllocator, counterBehind, parseCounter } from './id-allocator.ts';
import { UserReader, readUser } from './user-reader.ts';
import { WriteTokens } from './write-tokens.ts';

export interface EtcdUserStoreOptions extends EtcdClientOptions {
  /** Of all keys. Stores with different prefixes are independent. */
  readonly prefix?: string;
  readonly now?: () => Date;
}

const format = '{"format":"registrar-users","version":1}';
/** In place of a login, which is never empty, for the order of imports. */
const imports = '';
/** Two keys for each user, and the operations of the write token. */
const usersPerTransaction = (operationsMax - 4) / 2;
/** Some 64 KB. */
const pageUsers = 500;
const kdfsRefreshMs = 10_000;
const kdfsMax = 1_000;
const healthRefreshMs = 1_000;
const healthWaitMs = 1_500;

export class EtcdUserStore implements UserStore {
  /** A `SecretStore` for what all services share, such as the signing keys of sessions. */
  readonly secrets = {
    get: async (name: string) => (await this.#client.get(this.#keys.secret(name), this.#client.deadline()))?.value,
    replace: async (name: string, expected: string | undefined, value: string): Promise<boolean> => {
      const key = this.#keys.secret(name);
      const condition = expected === undefined ? isAbsent(key) : hasValue(key, expected);
      return (await this.#client.putIf(condition, key, value, this.#client.deadline())) === value;
    },
  };
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #ids: IdAllocator;
  readonly #reader: UserReader;
  readonly #writes: WriteTokens;
  readonly #log: (line: string) => void;
  /** The last write on each login. */
  readonly #lastWrites = new Map<string, Promise<unknown>>();
  readonly #kdfs = new CostliestKdfs();
  #kdfsReadAt = -Infinity;
  #unhealthyReason: string | undefined;
  #healthReadAt = -Infinity;

  private constructor(client: EtcdClient, keys: Keys, { log = () => undefined, now = () => new Date() }: EtcdUserStoreOptions) {
    this.#client = client;
    this.#keys = keys;
    this.#log = log;
    this.#ids = new IdAllocator(client, keys.nextId);
    this.#reader = new UserReader(client, keys);
    this.#writes = new WriteTokens(client, keys, now);
  }

  /** Rejects with `usage` for invalid options, and with `cannot-start` if etcd does not respond or holds another format. */
  static async open(options: EtcdUserStoreOptions): Promise<EtcdUserStore> {
    const { prefix = '/registrar/', endpoints } = options;
    if (!/^[!-~]*\/$/.test(prefix)) {
      throw new RegistrarError('usage', `"${prefix}" is not a key prefix: it must be ASCII without blanks and end in a slash.`);
    }
    const keys = keysOf(prefix);
    const client = new EtcdClient(options, keys.format);
    try {
      const found = await client.putIf(isAbsent(keys.format), keys.format, format, client.deadline());
      if (found !== format) throw new RegistrarError('cannot-start', `the value of "${keys.format}" is ${found}, and must be ${format}`);
    } catch (error) {
      client.close();
      const cause = error instanceof RegistrarError && error.cause !== undefined ? ` (${messageOf(error.cause)})` : '';
      throw new RegistrarError('cannot-start', `Cannot use etcd at ${endpoints.join(', ')}: ${messageOf(error)}${cause}`, { cause: error });
    }
    const store = new EtcdUserStore(client, keys, options);
    store.#writes.sweep().catch((error: unknown) => store.#log(`etcd: abandoned write tokens were not removed: ${messageOf(error)}`));
    return store;
  }

  create(user: NewUser): Promise<CreateOutcome> {
    const deadline = this.#client.deadline();
    return this.#inOrder(user.login, async () => {
      const stored = decideCreate(user, undefined, await this.#ids.take(deadline)).outcome.user;
      return (await this.#createAll([stored], deadline)).get(stored.login)!;
    });
  }

  async createMany(users: readonly ImportedUser[]): Promise<readonly CreateOutcome[]> {
    return users.length === 0 ? [] : this.#inOrder(imports, () => this.#import(users));
  }

  async findRecord(login: string): Promise<StoredUser | undefined> {
    const found = await this.#reader.find(login, this.#client.deadline());
    return found && readUser(found, login);
  }

  async findPublic(login: string): Promise<PublicUser | undefined> {
    const user = await this.findRecord(login);
    return user && { id: user.id, version: user.version, json: publicJson(user) };
  }

  replace(expected: Expected, replacement: Replacement): Promise<StoredUser | undefined> {
    return this.#change(expected.login, (current) => decideReplace(expected, replacement, current));
  }

  remove(expected: Expected, at: string): Promise<boolean> {
    return this.#change(expected.login, (current) => decideRemove(expected, at, current));
  }

  async page(after: string | undefined, limit: number): Promise<UserPage> {
    const { users, next } = await this.#list(after, limit);
    return { users: users.map((user) => Buffer.from(publicJson(user))), next };
  }

  async ndjsonPage(after: string | undefined): Promise<NdjsonPage> {
    const { users, next } = await this.#list(after, pageUsers);
    return { bytes: Buffer.from(users.map((user) => `${publicJson(user)}\n`).join('')), next };
  }

  recordPage(after: string | undefined): Promise<RecordPage> {
    return this.#list(after, pageUsers);
  }

  async lastId(): Promise<number> {
    const counter = await this.#client.get(this.#keys.nextId, this.#client.deadline());
    return counter === undefined ? 0 : parseCounter(counter.key, counter.value) - 1;
  }

  async kdfs(): Promise<readonly string[]> {
    if (performance.now() - this.#kdfsReadAt > kdfsRefreshMs) {
      const { found } = await this.#client.transact({ success: [rangeOf(this.#keys.kdfs, kdfsMax)] }, this.#client.deadline());
      for (const { value } of found[0] ?? []) this.#kdfs.add(value);
      this.#kdfsReadAt = performance.now();
    }
    return this.#kdfs.list;
  }

  /** Why requests fail, as of the last check. Each read starts the next check, at most one a second. */
  get unhealthyReason(): string | undefined {
    if (performance.now() - this.#healthReadAt > healthRefreshMs) {
      this.#healthReadAt = performance.now();
      void this.#client.unhealthyReason(healthWaitMs).then((reason) => (this.#unhealthyReason = reason));
    }
    return this.#unhealthyReason;
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#lastWrites.values());
    await this.#writes.clear().catch((error: unknown) => this.#log(`etcd: write tokens were not removed: ${messageOf(error)}`));
    this.#client.close();
  }

  async #import(users: readonly ImportedUser[]): Promise<readonly CreateOutcome[]> {
    const ids = await this.#ids.takeMany(users.map(({ id }) => id), this.#client.deadline());
    const stored = users.map((user, n) => decideImport({ ...user, id: ids[n] }, undefined, ids[n]!).outcome.user);
    // Of several users with one login the first is created.
    const unique = [...new Map(stored.toReversed().map((user) => [user.login, user])).values()].toReversed();
    const outcomes = new Map<string, CreateOutcome>();
    for (let n = 0; n < unique.length; n += usersPerTransaction) {
      const created = await this.#createAll(unique.slice(n, n + usersPerTransaction), this.#client.deadline());
      for (const [login, outcome] of created) outcomes.set(login, outcome);
    }
    return users.flatMap(({ login }) => {
      const outcome = outcomes.get(login);
      if (outcome?.created === true) outcomes.set(login, { created: false, user: outcome.user });
      return outcome ?? [];
    });
  }

  /** Creates users with different logins in one transaction, or, of those whose login is taken, returns the owner. */
  async #createAll(users: readonly StoredUser[], deadline: number): Promise<ReadonlyMap<string, CreateOutcome>> {
    for (const { kdf } of users) await this.#addKdf(kdf, deadline);
    const outcomes = new Map<string, CreateOutcome>();
    for (let rest = users; rest.length > 0; ) {
      const keys = rest.flatMap(({ login, id }) => [this.#keys.user(login), this.#keys.id(id)]);
      const operations = rest.flatMap((user) => [
        put(this.#keys.user(user.login), encodeRecord(user)),
        put(this.#keys.id(user.id), user.login),
      ]);
      const result = await this.#writes.write({ conditions: keys.map(isAbsent), operations, readIfRefused: keys }, deadline);
      if (result.isDone) {
        for (const user of rest) outcomes.set(user.login, { created: true, user });
        break;
      }
      rest = rest.filter(({ login, id }, n) => {
        const [owner, entry] = result.found.slice(n * 2, n * 2 + 2);
        if (owner !== undefined) outcomes.set(login, { created: false, user: readUser(owner, login) });
        else if (entry !== undefined) throw counterBehind(this.#keys.nextId, id, entry.value);
        return owner === undefined;
      });
    }
    return outcomes;
  }

  #change<T>(login: string, decide: (current: StoredUser | undefined) => Decision<T>): Promise<T> {
    const deadline = this.#client.deadline();
    return this.#inOrder(login, async () => {
      const key = this.#keys.user(login);
      for (let found = await this.#reader.find(login, deadline); ; ) {
        const { outcome, put: user, remove: removed } = decide(found && readUser(found, login));
        if (user !== undefined) await this.#addKdf(user.kdf, deadline);
        const operations = [
          ...(user === undefined ? [] : [put(key, encodeRecord(user))]),
          ...(removed === undefined ? [] : [remove(key), remove(this.#keys.id(removed.id))]),
        ];
        if (operations.length === 0) return outcome;
        const conditions = [isUnchanged(key, found?.revision ?? '0')];
        const result = await this.#writes.write({ conditions, operations, readIfRefused: [key] }, deadline);
        if (result.isDone) return outcome;
        found = result.found[0];
      }
    });
  }

  /** Before a record with the kdf is written. */
  async #addKdf(kdf: string, deadline: number): Promise<void> {
    const key = `${this.#keys.kdfs}${costOf(kdf).algorithm}`;
    while (this.#kdfs.isCostlier(kdf)) {
      const current = await this.#client.get(key, deadline);
      if (current !== undefined) this.#kdfs.add(current.value);
      if (!this.#kdfs.isCostlier(kdf)) return;
      const written = await this.#client.putIf(isUnchanged(key, current?.revision ?? '0'), key, kdf, deadline);
      if (written !== undefined) this.#kdfs.add(written);
    }
  }

  async #list(after: string | undefined, limit: number): Promise<RecordPage> {
    const from = after === undefined ? 0 : decodeCursor(after);
    const { users, next } = await this.#reader.list(from, limit, this.#client.deadline());
    return { users, next: next === undefined ? undefined : encodeCursor(next) };
  }

  /** Runs the write after the earlier ones on this login. */
  #inOrder<T>(login: string, write: () => Promise<T>): Promise<T> {
    const before = this.#lastWrites.get(login);
    const running = before === undefined ? write() : before.then(write, write);
    this.#lastWrites.set(login, running);
    const end = (): void => {
      if (this.#lastWrites.get(login) === running) this.#lastWrites.delete(login);
    };
    running.then(end, end);
    return running;
  }
}
