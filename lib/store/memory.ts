/** The reference implementation of the contract, for tests: a Map, and an array for the order of ids. */

import type { CreateOutcome, Expected, ImportedUser, NewUser, Replacement, StoredUser } from '../user-store.ts';
import type { NdjsonPage, PublicUser, RecordPage, UserPage, UserStore } from '../user-store.ts';
import { publicUser } from '../user.ts';
import { CostliestKdfs } from './costliest-kdfs.ts';
import { decodeCursor, encodeCursor } from './cursor.ts';
import { decideImport, decideCreate, decideRemove, decideReplace } from './decide.ts';
import type { Decision } from './decide.ts';

const linesUsers = 500;

export class MemoryUserStore implements UserStore {
  /** Insertion order is the order of ids: a replacement keeps its place, a login registered anew goes last. */
  readonly #users = new Map<string, StoredUser>();
  readonly #kdfs = new CostliestKdfs();
  #nextId = 1;

  async create(candidate: NewUser): Promise<CreateOutcome> {
    return this.#apply(candidate.login, decideCreate(candidate, this.#users.get(candidate.login), this.#nextId));
  }

  async createMany(arrivals: readonly ImportedUser[]): Promise<readonly CreateOutcome[]> {
    return arrivals.map((arrival) => this.#apply(arrival.login, decideImport(arrival, this.#users.get(arrival.login), this.#nextId)));
  }

  async findRecord(login: string): Promise<StoredUser | undefined> {
    return this.#users.get(login);
  }

  findPublic(login: string): PublicUser | undefined {
    const user = this.#users.get(login);
    return user && { id: user.id, version: user.version, json: JSON.stringify(publicUser(user)) };
  }

  async replace(expected: Expected, replacement: Replacement): Promise<StoredUser | undefined> {
    return this.#apply(expected.login, decideReplace(expected, replacement, this.#users.get(expected.login)));
  }

  async remove(expected: Expected, at: string): Promise<boolean> {
    return this.#apply(expected.login, decideRemove(expected, at, this.#users.get(expected.login)));
  }

  async page(after: string | undefined, limit: number): Promise<UserPage> {
    const { users, next } = this.#following(after, limit);
    return { users: users.map((user) => Buffer.from(JSON.stringify(publicUser(user)))), next };
  }

  async ndjsonPage(after: string | undefined): Promise<NdjsonPage> {
    const { users, next } = await this.page(after, linesUsers);
    return { bytes: Buffer.concat(users.flatMap((user) => [user, Buffer.from('\n')])), next };
  }

  async recordPage(after: string | undefined): Promise<RecordPage> {
    return this.#following(after, linesUsers);
  }

  async lastId(): Promise<number> {
    return this.#nextId - 1;
  }

  kdfs(): readonly string[] {
    return this.#kdfs.list;
  }

  async close(): Promise<void> {
    this.#users.clear();
  }

  #following(after: string | undefined, limit: number): RecordPage {
    const from = after === undefined ? 0 : decodeCursor(after);
    const following = [...this.#users.values()].filter(({ id }) => id > from);
    const users = following.slice(0, limit);
    const last = users.at(-1);
    return { users, next: last !== undefined && following.length > limit ? encodeCursor(last.id) : undefined };
  }

  #apply<T>(login: string, { outcome, put, remove }: Decision<T>): T {
    if (put !== undefined) {
      this.#users.set(login, put);
      this.#kdfs.add(put.kdf);
      this.#nextId = Math.max(this.#nextId, put.id + 1);
    }
    if (remove !== undefined) this.#users.delete(login);
    return outcome;
  }
}
