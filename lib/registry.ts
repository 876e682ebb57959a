/**
 * The use cases: register, find, list, change a password, remove, verify. It gets its store, hasher and
 * clock passed in and knows them by what it needs of them.
 *
 * Hashing takes a tenth of a second, so whatever was looked at before may be gone after: every write is
 * compare-and-set on the user's id and version, and says so when it loses.
 */

import { createHash } from 'node:crypto';
import { RegistrarError } from './errors.ts';
import type { FieldError } from './errors.ts';
import { checkNewPassword, normalizePassword } from './password-policy.ts';
import type { PasswordPolicy } from './password-policy.ts';
import { parseLogin } from './user.ts';
import type { Credential, User } from './user.ts';
import type { StoredUser, UserLines, UserPage, UserStore, UserView } from './user-store.ts';

export type { UserView };

/** Makes and checks hashes; rejects with `overloaded`, or the signal's reason when the client has gone. */
export interface PasswordHasher {
  hash(password: string, signal?: AbortSignal): Promise<Credential>;
  /** Without a credential it is wrong. A failure costs the same always: what the dearest of each digest in `kdfs` does. */
  verify(
    password: string,
    credential: Credential | undefined,
    options: { readonly signal?: AbortSignal | undefined; readonly kdfs: readonly string[] },
  ): Promise<boolean>;
  /** Whether the hash was made in another way than it would be today. */
  isStale(credential: Credential): boolean;
}

export interface RegistryParts {
  readonly store: UserStore;
  readonly hasher: PasswordHasher;
  readonly policy: PasswordPolicy;
  readonly now: () => Date;
}

export interface Registration {
  readonly login: string;
  readonly password: string;
  /** The client's Idempotency-Key: a repeat with the same password is answered like the first. */
  readonly key?: string;
  /** Where the login was given, for the error; the body by default. */
  readonly loginPlace?: Omit<FieldError, 'detail'>;
}

export interface PasswordChange {
  readonly password: string;
  /** The password until now, if it has to be right for the change to happen. */
  readonly current?: string;
}

/** Throws if the user as it is found is not the one that the client means. */
export type Precondition = (user: User) => void;

/** A login that none can be. */
const nobody = ':';

/** A removal without a precondition that meets a change looks again: it means the user as it is. */
const triesMax = 10;

export class Registry {
  readonly #store: UserStore;
  readonly #hasher: PasswordHasher;
  readonly #policy: PasswordPolicy;
  readonly #now: () => Date;
  /** Somebody who could be found: looked for after an unknown login, as `nobody` is after a known one. */
  #lastKnown: string | undefined;

  constructor({ store, hasher, policy, now }: RegistryParts) {
    this.#store = store;
    this.#hasher = hasher;
    this.#policy = policy;
    this.#now = now;
  }

  /** In code points, what a new password may have. */
  get passwordLength(): Pick<PasswordPolicy, 'codePointsMin' | 'codePointsMax'> {
    return this.#policy;
  }

  /** Throws `invalid` with every rule that is broken, `taken`, `key-reused`, or what store and hasher do. */
  async register(registration: Registration, signal?: AbortSignal): Promise<User> {
    const { login, password } = this.#checkNew(registration);
    const key = registration.key === undefined ? undefined : sha256(registration.key);
    // A taken login costs no hash; whether it is still free is decided when it is written.
    const owner = await this.#store.find(login);
    if (owner !== undefined) return this.#repeat(owner, password, key, signal);
    const credential = await this.#hasher.hash(password, signal);
    const registered = this.#now().toISOString();
    const outcome = await this.#store.create({ login, registered, ...credential, ...(key === undefined ? {} : { key }) });
    return outcome.created ? outcome.user : this.#repeat(outcome.user, password, key, signal);
  }

  /** Throws `not-found`. Any spelling of the login finds it. */
  async find(login: string): Promise<StoredUser> {
    const parsed = parseLogin(login);
    return present('login' in parsed ? await this.#store.find(parsed.login) : undefined);
  }

  /** The same user's public side; at once, and thrown at once, where the store has not to be waited for. */
  view(login: string): UserView | Promise<UserView> {
    const view = this.look(login);
    return view instanceof Promise ? view.then(present) : present(view);
  }

  /** The same, where nobody may be there: undefined then. Any spelling of the login finds it. */
  look(login: string): UserView | undefined | Promise<UserView | undefined> {
    const parsed = parseLogin(login);
    return 'login' in parsed ? this.#store.view(parsed.login) : undefined;
  }

  list(after: string | undefined, limit: number): Promise<UserPage> {
    return this.#store.page(after, limit);
  }

  lines(after: string | undefined): Promise<UserLines> {
    return this.#store.lines(after);
  }

  /** Throws `invalid`, `not-found`, what `precondition` throws, `wrong-password`, `conflict`. */
  async changePassword(
    login: string,
    change: PasswordChange,
    precondition?: Precondition,
    signal?: AbortSignal,
  ): Promise<User> {
    const user = await this.find(login);
    const password = this.#checkPassword(change.password, user.login);
    precondition?.(user);
    if (change.current !== undefined && !(await this.#isPassword(change.current, user, signal))) {
      const fields = [{ detail: 'It is not the password of this user', pointer: '#/current' }];
      throw new RegistrarError('wrong-password', 'The current password is wrong', { fields });
    }
    const credential = await this.#hasher.hash(password, signal);
    const updated = await this.#store.replace(user, { ...credential, changed: this.#now().toISOString() });
    if (updated !== undefined) return updated;
    precondition?.(await this.find(login));
    throw new RegistrarError('conflict', 'The user was changed by another request meanwhile: look at it and try again');
  }

  /** Throws `not-found`, or what `precondition` throws. */
  async remove(login: string, precondition?: Precondition): Promise<void> {
    for (let n = 0; n < triesMax; n++) {
      const user = await this.find(login);
      precondition?.(user);
      if (await this.#store.remove(user, this.#now().toISOString())) return;
    }
    throw new RegistrarError('conflict', 'The user is being changed by other requests: try again');
  }

  /** Ends every session of the user, which must be the one that is expected: the version grows. Throws `not-found`, `conflict`. */
  async endSessions(login: string, precondition: Precondition): Promise<void> {
    for (let n = 0; n < triesMax; n++) {
      const user = await this.find(login);
      precondition(user);
      const { kdf, password } = user;
      if ((await this.#store.replace(user, { kdf, password, endsSessions: true })) !== undefined) return;
    }
    throw new RegistrarError('conflict', 'The user is being changed by other requests: try again');
  }

  /**
   * The user if this is their password. An unknown login and a wrong password cost the same: a look that finds and
   * one that does not, and the work of every failure. A hash that is not made as it would be today is made anew and saved, unless the
   * user has changed meanwhile.
   */
  async verify(login: string, password: string, signal?: AbortSignal): Promise<User | undefined> {
    const parsed = parseLogin(login);
    const user = 'login' in parsed ? await this.#store.find(parsed.login) : undefined;
    if (user !== undefined) this.#lastKnown = user.login;
    await this.#store.find(user === undefined ? (this.#lastKnown ?? nobody) : nobody);
    if (!(await this.#isPassword(password, user, signal)) || user === undefined) return undefined;
    if (this.#hasher.isStale(user)) void this.#rehash(user, normalizePassword(password) ?? '');
    return user;
  }

  /** Nobody waits for it, and where the store or the queue is full it can be done another time. */
  async #rehash(user: StoredUser, password: string): Promise<void> {
    try {
      await this.#store.replace(user, await this.#hasher.hash(password));
    } catch (error) {
      if (!(error instanceof RegistrarError)) throw error;
    }
  }

  /** What cannot be a password is nobody's, and costs as much as one that is wrong. */
  async #isPassword(password: string, user: StoredUser | undefined, signal: AbortSignal | undefined): Promise<boolean> {
    const kdfs = await this.#store.kdfs();
    const normalized = normalizePassword(password);
    return this.#hasher.verify(normalized ?? '', normalized === undefined ? undefined : user, { signal, kdfs });
  }

  /** The login is somebody's: the same client's, asking again since it missed the answer? */
  async #repeat(
    owner: StoredUser,
    password: string,
    key: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<User> {
    if (key === undefined || owner.key !== key) {
      throw new RegistrarError('taken', `The login "${owner.login}" is taken`);
    }
    if (await this.#isPassword(password, owner, signal)) return owner;
    throw new RegistrarError('key-reused', 'This Idempotency-Key came before, with another password for this login');
  }

  #checkNew({ login, password, loginPlace = { pointer: '#/login' } }: Registration): { login: string; password: string } {
    const parsed = parseLogin(login);
    const checked = checkNewPassword(password, 'login' in parsed ? parsed.login : undefined, this.#policy);
    if ('login' in parsed && 'password' in checked) return { login: parsed.login, password: checked.password };
    const fields: FieldError[] = [];
    if ('problem' in parsed) fields.push({ detail: parsed.problem, ...loginPlace });
    if ('problem' in checked) fields.push({ detail: checked.problem, pointer: '#/password' });
    throw new RegistrarError('invalid', fields.map(({ detail }) => detail).join('. '), { fields });
  }

  #checkPassword(input: string, login: string): string {
    const checked = checkNewPassword(input, login, this.#policy);
    if ('password' in checked) return checked.password;
    const fields = [{ detail: checked.problem, pointer: '#/password' }];
    throw new RegistrarError('invalid', checked.problem, { fields });
  }
}

function present<T>(user: T | undefined): T {
  if (user === undefined) throw new RegistrarError('not-found', 'There is no user with this login');
  return user;
}

function sha256(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex');
}
