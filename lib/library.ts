/**
 * Registrar as a library: the users of a data directory in a process of one's own, beside services on the same directory
 * or without any. What is exported here is all that a program can count on; HTTP is the service's.
 */

import { configOfLibrary } from './command-config.ts';
import { RegistrarError } from './errors.ts';
import type { ErrorCode, FieldError } from './errors.ts';
import { openRegistry } from './open-registry.ts';
import type { OpenRegistry } from './open-registry.ts';
import { publicUser } from './user.ts';
import type { User } from './user.ts';

export { RegistrarError };
export type { ErrorCode, FieldError, User };

export interface RegistrarOptions {
  /** The directory of the users' file; both are made if they are not there. */
  readonly data: string;
  /** How new passwords are hashed: `pbkdf2:sha256:600000` by default. A user who shows an older one's password gets this. */
  readonly kdf?: string;
  /** Characters that a new password needs: 8 by default, at most 64. */
  readonly passwordMin?: number;
  /** One line for the operator's log. */
  readonly report?: (line: string) => void;
  /** The disk has failed while it was written to: every call is refused from now on, and the process should end. */
  readonly onFailed?: (error: RegistrarError) => void;
}

export interface NewUser {
  readonly login: string;
  readonly password: string;
  /** Of a request that may be repeated: with the same key and password it resolves with the same user. */
  readonly key?: string;
}

export interface NewPassword {
  readonly password: string;
  /** The password until now, if it has to be right for the change to happen. */
  readonly current?: string;
}

/**
 * Whatever it cannot do is a RegistrarError whose `code` says why. Besides what is said below, any call may reject with
 * `busy`, `corrupt`, `unavailable`, those that hash with `overloaded`, and those that write with `storage-full` (nothing
 * was changed) and `outcome-unknown`. What has resolved is on the disk.
 */
export interface Registrar {
  /** Rejects with `invalid`, whose `fields` name every rule that is broken, `taken`, or `key-reused`. */
  register(user: NewUser): Promise<User>;
  /** Undefined if there is none. Any spelling of the login finds the user. */
  find(login: string): Promise<User | undefined>;
  /** The user if this is their password, else undefined: which of the two was wrong is not to be told, by time neither. */
  verify(login: string, password: string): Promise<User | undefined>;
  /** Ends every session of the user. Rejects with `invalid`, `not-found`, `wrong-password` or `conflict`. */
  changePassword(login: string, change: NewPassword): Promise<User>;
  /** Rejects with `not-found` or `conflict`. */
  remove(login: string): Promise<void>;
  /** Everybody, in the order of registration, a bounded piece of the file in memory at a time. */
  list(): AsyncIterable<User>;
  /** Finishes what was asked for, and lets go of the file. Nothing may be asked for afterwards. */
  close(): Promise<void>;
}

/** Rejects with `usage`, `cannot-start`, `corrupt` or `busy`. */
export async function createRegistrar(options: RegistrarOptions): Promise<Registrar> {
  const { report = () => undefined, onFailed } = options;
  const config = { ...configOfLibrary(options), mayMake: true, isRehashing: true, report };
  return new LocalRegistrar(await openRegistry(onFailed === undefined ? config : { ...config, onFailed }));
}

class LocalRegistrar implements Registrar {
  readonly #open: OpenRegistry;
  #closing: Promise<void> | undefined;

  constructor(open: OpenRegistry) {
    this.#open = open;
  }

  async register({ login, password, key }: NewUser): Promise<User> {
    return publicUser(await this.#registry().register({ login, password, ...(key === undefined ? {} : { key }) }));
  }

  async find(login: string): Promise<User | undefined> {
    const view = await this.#registry().look(login);
    return view === undefined ? undefined : parse(view.json);
  }

  async verify(login: string, password: string): Promise<User | undefined> {
    const user = await this.#registry().verify(login, password);
    return user === undefined ? undefined : publicUser(user);
  }

  async changePassword(login: string, { password, current }: NewPassword): Promise<User> {
    return publicUser(await this.#registry().changePassword(login, { password, ...(current === undefined ? {} : { current }) }));
  }

  async remove(login: string): Promise<void> {
    await this.#registry().remove(login);
  }

  async *list(): AsyncGenerator<User, void, undefined> {
    for (let after: string | undefined; ; ) {
      const { bytes, next } = await this.#registry().lines(after);
      if (bytes.length > 0) yield* bytes.toString('utf8').trimEnd().split('\n').map(parse);
      if (next === undefined) return;
      after = next;
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#open.close();
    return this.#closing;
  }

  #registry(): OpenRegistry['registry'] {
    if (this.#closing !== undefined) throw new RegistrarError('unavailable', 'The registrar was closed: nothing can be asked of it');
    return this.#open.registry;
  }
}

function parse(json: string): User {
  return JSON.parse(json) as User;
}
