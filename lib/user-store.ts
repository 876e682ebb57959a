/**
 * The contract of a store of users; types only. Memory, file and etcd implement it, and one conformance
 * suite, `test/helper/user-store-contract.ts`, runs on all of them.
 *
 * Promises of every implementation: a write that resolves is durable; one login has one user; an id is
 * never used twice; a read sees every write acknowledged before it and nothing that is not durable yet.
 * Every write that follows a look is compare-and-set on (id, version).
 *
 * Any method may reject with `busy`, `unavailable` or `corrupt`; a write also with `storage-full`
 * (nothing was written) and `outcome-unknown` (it may or may not have been).
 */

import type { Credential, User } from './user.ts';

export interface StoredUser extends User, Credential {
  /** SHA-256, in hex, of the Idempotency-Key that this user was registered with. */
  readonly key?: string;
}

/** A user to be: the store gives the id, and version 1. */
export interface Candidate extends Credential {
  readonly login: string;
  readonly registered: string;
  readonly key?: string;
}

/**
 * A user from elsewhere. `id`, `version`, `changed` are kept if they can be: an id that was, or may have been, given
 * already is replaced by a new one.
 */
export interface Arrival extends Candidate {
  readonly id?: number;
  readonly version?: number;
  readonly changed?: string;
}

/** Who was found is the one who has the login: the outcome of losing a race is known by it. */
export type CreateOutcome =
  | { readonly created: true; readonly user: StoredUser }
  | { readonly created: false; readonly user: StoredUser };

/** Which state of which user a write is meant for. */
export interface Expected {
  readonly login: string;
  readonly id: number;
  readonly version: number;
}

/** A new credential. With `changed` or `endsSessions` the version grows by one; without them the hash was only made anew. */
export interface Replacement extends Credential {
  readonly changed?: string;
  /** The password is the same, and what was signed for the version until now counts no more. */
  readonly endsSessions?: true;
}

export interface UserPage {
  /** The public JSON of each user, UTF-8. */
  readonly users: readonly Buffer[];
  /** Where the next page begins; undefined when this one is the last. */
  readonly next: string | undefined;
}

export interface UserLines {
  /** The public JSON of each user, UTF-8, and a newline behind each. */
  readonly bytes: Buffer;
  /** Where the next piece begins; undefined when this one is the last. */
  readonly next: string | undefined;
}

export interface UserRecords {
  /** Whole, hash included. */
  readonly users: readonly StoredUser[];
  /** Where the next piece begins; undefined when this one is the last. */
  readonly next: string | undefined;
}

/** A user as the store can give it fastest: what an answer needs and no more. */
export interface UserView {
  readonly id: number;
  readonly version: number;
  /** The public JSON of the user. */
  readonly json: string;
}

export interface UserStore {
  /** Adds a user if the login is free. */
  create(candidate: Candidate): Promise<CreateOutcome>;

  /**
   * Adds users from elsewhere, in order, each as `create` would: of a login that comes twice the second finds the
   * first. What was added is durable when it resolves. The caller bounds how many come at a time.
   */
  createMany(arrivals: readonly Arrival[]): Promise<readonly CreateOutcome[]>;

  /** The user of a canonical login. */
  find(login: string): Promise<StoredUser | undefined>;

  /**
   * The same user's public side. It is what is asked for most, so it comes at once where nothing has to be waited
   * for, and then what `find` would reject with is thrown.
   */
  view(login: string): UserView | undefined | Promise<UserView | undefined>;

  /** Replaces the credential; undefined if (id, version) is no longer what is expected. */
  replace(expected: Expected, replacement: Replacement): Promise<StoredUser | undefined>;

  /** Removes the user; false if (id, version) is no longer what is expected. `at` is an ISO time. */
  remove(expected: Expected, at: string): Promise<boolean>;

  /**
   * At most `limit` users after the cursor, in a stable order of the store's own, each user once.
   * The cursor is opaque. Rejects with `malformed` if it is none of this store's.
   */
  page(after: string | undefined, limit: number): Promise<UserPage>;

  /**
   * Users after the cursor in the same order, as NDJSON in one piece of some 64 KB: everybody is read so, piece by
   * piece. The piece is the caller's. Rejects as `page` does.
   */
  lines(after: string | undefined): Promise<UserLines>;

  /** Whole users after the cursor in the same order, a bounded piece at a time, to be moved elsewhere. Rejects as `page` does. */
  records(after: string | undefined): Promise<UserRecords>;

  /** Every kdf that some living user may have, and perhaps more. It costs little: it is asked for at each failed sign-in. */
  kdfs(): Promise<readonly string[]> | readonly string[];

  /** Finishes the writes that were asked for, then lets go of everything. */
  close(): Promise<void>;
}
