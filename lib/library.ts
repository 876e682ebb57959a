/**
 * Registrar as a library: opens the users of a data directory in a program, beside services on the same directory or without any.
 * These exports are the whole public API of the package. It serves no HTTP.
 */

import { flags, parseCommandLine } from './config.ts';
import { RegistrarError } from './errors.ts';
import type { ErrorCode, FieldError } from './errors.ts';
import { readValue } from './flags.ts';
import type { Flag } from './flags.ts';
import { openUsers } from './open.ts';
import type { OpenedUsers } from './open.ts';
import { publicUser } from './user.ts';
import type { User } from './user.ts';

export { RegistrarError };
export type { ErrorCode, FieldError, Registrar, User };

export interface RegistrarOptions {
  /** The directory of the users file. Both are created if they do not exist. */
  readonly data: string;
  /** How new passwords are hashed: `pbkdf2:sha256:600000` by default. Other hashes are renewed when their password is verified. */
  readonly kdf?: string;
  /** Characters that a new password needs: 8 by default, at most 64. */
  readonly passwordMin?: number;
  /** One line for the operator's log. */
  readonly report?: (line: string) => void;
  /** A write to the disk has failed: every later call is rejected, and the process should end. */
  readonly onFailed?: (error: RegistrarError) => void;
}

export interface NewUser {
  readonly login: string;
  readonly password: string;
  /** Whether the login may be a reserved one, such as `admin` or `postmaster`: an administrator asks for it. */
  readonly isReservedAllowed?: boolean;
  /** Makes a repeat safe: with the same key and password it resolves with the same user. */
  readonly key?: string;
}

export interface NewPassword {
  readonly password: string;
  /** The old password. If it is given and wrong, nothing is changed. */
  readonly current?: string;
}

/** Rejects with `usage`, `cannot-start`, `corrupt` or `busy`. */
export const createRegistrar = (options: RegistrarOptions): Promise<Registrar> => Registrar.open(options);

/**
 * A call that fails rejects with a RegistrarError, whose `code` names the reason. Besides the codes below, any call may reject
 * with `busy`, `corrupt` or `unavailable`, one that hashes with `overloaded`, and one that writes with `storage-full` (nothing
 * was changed) or `outcome-unknown`. A write that has resolved is on the disk.
 */
class Registrar {
  readonly #open: OpenedUsers;
  #closing: Promise<void> | undefined;

  /** Private, so that the types of the package refer to no other file. */
  private constructor(open: OpenedUsers) {
    this.#open = open;
  }

  static async open(options: RegistrarOptions): Promise<Registrar> {
    const { data, kdf, passwordMin, report = () => undefined, onFailed } = options;
    const { config } = parseCommandLine('serve', [], {});
    const read = <Value>(flag: Flag<Value>, option: string, value: unknown): Value =>
      readValue(flag, { text: String(value), source: `the option ${option}` });
    const own = {
      data: read(flags.data, 'data', data),
      kdf: read(flags.kdf, 'kdf', kdf ?? flags.kdf.default),
      passwordMin: read(flags['password-min'], 'passwordMin', passwordMin ?? config.passwordMin),
    };
    return new Registrar(await openUsers({ ...config, ...own }, { report, onFailed, ifMissing: 'create', isRehashing: true }));
  }

  /** Rejects with `invalid`, whose `fields` name each broken rule, with `taken`, or with `key-reused`. */
  async register({ login, password, isReservedAllowed, key }: NewUser): Promise<User> {
    return publicUser(await this.#registry().register({ login, password, isReservedAllowed, key }));
  }

  /** Undefined if there is no such user. The login is normalised: `Alice` finds `alice`. */
  async find(login: string): Promise<User | undefined> {
    const view = await this.#registry().findPublic(login);
    return view === undefined ? undefined : parse(view.json);
  }

  /** The user if the password is right. An unknown login and a wrong password both resolve with undefined, after the same work. */
  async verify(login: string, password: string): Promise<User | undefined> {
    const user = await this.#registry().verify(login, password);
    return user === undefined ? undefined : publicUser(user);
  }

  /** Ends every session of the user. Rejects with `invalid`, `not-found`, `wrong-password` or `conflict`. */
  async changePassword(login: string, { password, current }: NewPassword): Promise<User> {
    return publicUser(await this.#registry().changePassword(login, { password, current }));
  }

  /** Rejects with `not-found` or `conflict`. */
  async remove(login: string): Promise<void> {
    await this.#registry().remove(login);
  }

  /** All users in the order of registration, with a bounded part of the file in memory. */
  async *list(): AsyncGenerator<User, void, undefined> {
    for (let after: string | undefined; ; ) {
      const { bytes, next } = await this.#registry().ndjsonPage(after);
      if (bytes.length > 0) yield* bytes.toString('utf8').trimEnd().split('\n').map(parse);
      if (next === undefined) return;
      after = next;
    }
  }

  /** Finishes pending calls and releases the file. Every later call is rejected. */
  close(): Promise<void> {
    this.#closing ??= this.#open.close();
    return this.#closing;
  }

  #registry(): OpenedUsers['registry'] {
    if (this.#closing !== undefined) throw new RegistrarError('unavailable', 'The registrar is closed.');
    return this.#open.registry;
  }
}

const parse = (json: string): User => JSON.parse(json) as User;
