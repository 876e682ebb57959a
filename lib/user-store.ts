/**
 * The interface of a store of users; types only. Memory, file and etcd implement it, and one conformance suite,
 * `test/helper/user-store-contract.ts`, runs on all three.
 *
 * Every implementation promises: a write that resolves is durable; one login has one user; an id is never used twice;
 * a read sees every write acknowledged before it, and nothing that is not durable yet. A write that changes a user is
 * compare-and-set on (id, version).
 *
 * Any method may reject with `busy`, `unavailable` or `corrupt`; a write also with `storage-full` (nothing was written)
 * and `outcome-unknown` (it may or may not have been written).
 */

import type { Credential, User } from './user.ts';

export interface StoredUser extends User, Credential {
  /** SHA-256, in hex, of the Idempotency-Key of the registration. */
  readonly key?: string;
  /** Fields that a later version wrote. Every write keeps them; they are never public. Absent if there are none. */
  readonly unknownFields?: Readonly<Record<string, unknown>>;
}

/** A user to be created: the store assigns the id, and version 1. */
export interface NewUser extends Credential {
  readonly login: string;
  readonly registered: string;
  readonly key?: string;
}

/**
 * A user from another store. `version`, `changed` and `disabled` are kept. The `id` is kept if it is above every id assigned
 * so far; otherwise the store assigns a new one.
 */
export interface ImportedUser extends NewUser {
  readonly id?: number;
  readonly version?: number;
  readonly changed?: string;
  readonly disabled?: string;
}

/** `user` is the user who has the login now: the new one, or the one who had it before. */
export type CreateOutcome =
  | { readonly created: true; readonly user: StoredUser }
  | { readonly created: false; readonly user: StoredUser };

/** The state of a user that a write is meant for. */
export interface Expected {
  readonly login: string;
  readonly id: number;
  readonly version: number;
}

/** The credential from now on. Each of the optional fields raises the version; without them it is a rehash. */
export interface Replacement extends Credential {
  /** The time of a change of password. The Idempotency-Key of the registration is dropped with it. */
  readonly changed?: string;
  /** Tokens issued for the version until now become invalid. */
  readonly endsSessions?: true;
  /** The time since when the account is disabled; false enables it. */
  readonly disabled?: string | false;
}

/** What a response needs of a user: cheaper to get than the whole record. */
export interface PublicUser {
  readonly id: number;
  readonly version: number;
  /** The public JSON of the user. */
  readonly json: string;
}

export interface UserPage {
  /** The public JSON of each user, UTF-8. */
  readonly users: readonly Buffer[];
  /** The cursor of the next page; undefined on the last one. */
  readonly next: string | undefined;
}

export interface NdjsonPage {
  /** The public JSON of each user and a newline, UTF-8. */
  readonly bytes: Buffer;
  /** The cursor of the next page; undefined on the last one. */
  readonly next: string | undefined;
}

export interface RecordPage {
  /** Whole records, hashes included. */
  readonly users: readonly StoredUser[];
  /** The cursor of the next page; undefined on the last one. */
  readonly next: string | undefined;
}

export interface UserStore {
  /** Adds a user if the login is free. */
  create(user: NewUser): Promise<CreateOutcome>;

  /**
   * Adds imported users, many in one transaction. Outcomes are in the order of `users`, each as `create` gives it: of two
   * with one login the first is created. All are durable when it resolves. When it rejects some may be stored: calling it
   * again is safe. The caller bounds the number of users in a call.
   */
  createMany(users: readonly ImportedUser[]): Promise<readonly CreateOutcome[]>;

  /** The record of a canonical login. */
  findRecord(login: string): Promise<StoredUser | undefined>;

  /** The public side of the same user. Synchronous where the store need not wait; then it throws what `findRecord` rejects with. */
  findPublic(login: string): PublicUser | undefined | Promise<PublicUser | undefined>;

  /** Replaces the credential; undefined if (id, version) is no longer what is expected. */
  replace(expected: Expected, replacement: Replacement): Promise<StoredUser | undefined>;

  /** Removes the user; false if (id, version) is no longer what is expected. `at` is an ISO time. */
  remove(expected: Expected, at: string): Promise<boolean>;

  /**
   * At most `limit` users after the cursor, in the order of ids, each user once. The cursor is opaque. Rejects with
   * `malformed` if it is not a cursor of this store.
   */
  page(after: string | undefined, limit: number): Promise<UserPage>;

  /** Users after the cursor in the same order, some 64 KB. The caller may keep the buffer. Rejects as `page` does. */
  ndjsonPage(after: string | undefined): Promise<NdjsonPage>;

  /** Whole records after the cursor in the same order, some hundreds. Rejects as `page` does. */
  recordPage(after: string | undefined): Promise<RecordPage>;

  /** The highest id that may have been assigned. With one file every later user gets a higher one. */
  lastId(): Promise<number>;

  /**
   * Of every algorithm and digest that stored hashes were made with, the costliest kdf (`store/costliest-kdfs.ts`). It may
   * still name the kdf of a removed user. It is read at each failed sign-in, and so is cheap.
   */
  kdfs(): Promise<readonly string[]> | readonly string[];

  /** Finishes the writes that were requested, then releases everything. */
  close(): Promise<void>;
}
