/**
 * The use cases: register, invite, find, list, change a password, disable, end sessions, remove, verify. Store, hasher and
 * clock are passed in.
 *
 * Hashing takes a tenth of a second, and the user may change meanwhile: every write is compare-and-set on id and version,
 * and a write that lost is reported as `conflict`, or tried again where the request does not depend on the state.
 */

import { createHash } from 'node:crypto';
import { RegistrarError } from './errors.ts';
import type { FieldError } from './errors.ts';
import { checkNewPassword, normalizePassword } from './password-policy.ts';
import type { PasswordPolicy } from './password-policy.ts';
import { isReservedLogin } from './reserved-logins.ts';
import { noPassword, parseLogin } from './user.ts';
import type { Credential, LoginResult, User } from './user.ts';
import type { CreateOutcome, NdjsonPage, PublicUser, StoredUser, UserPage, UserStore } from './user-store.ts';

export type { PublicUser, StoredUser };

/** Makes and checks hashes; rejects with `overloaded`, or the signal's reason when the client has gone. */
export interface PasswordHasher {
  hash(password: string, signal?: AbortSignal): Promise<Credential>;
  /** Without a credential it is wrong. Every failure costs the same: what the costliest hash of each digest in `kdfs` does. */
  verify(
    password: string,
    credential: Credential | undefined,
    options: { readonly signal?: AbortSignal; readonly kdfs: readonly string[] },
  ): Promise<boolean>;
  /** Whether the hash was made in another way than a new one. */
  needsRehash(credential: Credential): boolean;
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
  /** Whether the login may be a reserved one: the administrator asks for it. */
  readonly isReservedAllowed?: boolean;
  /** Runs the check of the password of a repeat. */
  readonly limitCheck?: LimitCheck;
  /** Where the login was given, for the error; the body by default. */
  readonly loginPlace?: Omit<FieldError, 'detail'>;
}

export interface PasswordChange {
  readonly password: string;
  /** The password until now, if it has to be right for the change to happen. */
  readonly current?: string;
  /** Runs the check of `current`. */
  readonly limitCheck?: LimitCheck;
}

/** Runs the check of a password of a canonical login, or throws `rate-limited` or `overloaded`. */
export type LimitCheck = (login: string, check: () => Promise<boolean>) => Promise<boolean>;

/** Throws if the user as it is found is not the one that the client means. */
export type Precondition = (user: User) => void;

/** No user can have this login. */
const noLogin = ':';

/** A removal without a precondition is tried again after a change: it means the user as it is now. */
const triesMax = 10;

export class Registry {
  readonly #store: UserStore;
  readonly #hasher: PasswordHasher;
  readonly #policy: PasswordPolicy;
  readonly #now: () => Date;
  /** The last login that was found. It is looked up as a dummy after an unknown login, as `noLogin` is after a known one. */
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
    const owner = await this.#store.findRecord(login);
    if (owner !== undefined) return this.#repeat(owner, registration, password, signal);
    const credential = await this.#hasher.hash(password, signal);
    const registered = this.#now().toISOString();
    const outcome = await this.#store.create({ login, registered, ...credential, key });
    return outcome.created ? outcome.user : this.#repeat(outcome.user, registration, password, signal);
  }

  /** Throws `not-found`. Any spelling of the login finds it. */
  async getRecord(login: string): Promise<StoredUser> {
    const parsed = parseLogin(login);
    return present('login' in parsed ? await this.#store.findRecord(parsed.login) : undefined);
  }

  /** The public side of the same user. Synchronous where the store need not wait. */
  getPublic(login: string): PublicUser | Promise<PublicUser> {
    const user = this.findPublic(login);
    return user instanceof Promise ? user.then(present) : present(user);
  }

  /** The same; undefined if there is none. Any spelling of the login finds it. */
  findPublic(login: string): PublicUser | undefined | Promise<PublicUser | undefined> {
    const parsed = parseLogin(login);
    return 'login' in parsed ? this.#store.findPublic(parsed.login) : undefined;
  }

  page(after: string | undefined, limit: number): Promise<UserPage> {
    return this.#store.page(after, limit);
  }

  ndjsonPage(after: string | undefined): Promise<NdjsonPage> {
    return this.#store.ndjsonPage(after);
  }

  /** The user of this canonical login, who is created without a password if there is none. */
  invite(login: string): Promise<CreateOutcome> {
    return this.#store.create({ login, registered: this.#now().toISOString(), ...noPassword });
  }

  /** Sets the password of a record as it was read; undefined if the user has changed since. Throws `invalid`. */
  async choosePassword(user: StoredUser, password: string, signal?: AbortSignal): Promise<User | undefined> {
    const credential = await this.#hasher.hash(this.#checkPassword(password, user.login), signal);
    return this.#store.replace(user, { ...credential, changed: this.#now().toISOString() });
  }

  /** Throws `invalid`, `not-found`, what `precondition` throws, `wrong-password`, `conflict`. */
  async changePassword(
    login: string,
    change: PasswordChange,
    precondition?: Precondition,
    signal?: AbortSignal,
  ): Promise<User> {
    const user = await this.getRecord(login);
    this.#checkPassword(change.password, user.login);
    precondition?.(user);
    const { password, current, limitCheck = run } = change;
    if (current !== undefined && !(await limitCheck(user.login, () => this.#isPassword(current, user, signal)))) {
      const fields = [{ detail: 'It is not the password of this user', pointer: '#/current' }];
      throw new RegistrarError('wrong-password', 'The current password is wrong', { fields });
    }
    const updated = await this.choosePassword(user, password, signal);
    if (updated !== undefined) return updated;
    precondition?.(await this.getRecord(login));
    throw new RegistrarError('conflict', 'The user was changed by another request meanwhile: read it and try again');
  }

  /** Throws `not-found`, or what `precondition` throws. */
  async remove(login: string, precondition?: Precondition): Promise<User> {
    return this.#untilDone(login, precondition, async (user) => {
      return (await this.#store.remove(user, this.#now().toISOString())) ? user : undefined;
    });
  }

  /** Ends every session of the user: the version grows. Throws `not-found`, what `precondition` throws, `conflict`. */
  endSessions(login: string, precondition?: Precondition): Promise<User> {
    return this.#untilDone(login, precondition, (user) => this.#store.replace(user, { ...credentialOf(user), endsSessions: true }));
  }

  /** Disables or enables an account, which ends its sessions and voids its links. One that is so already stays as it is. */
  setDisabled(login: string, isDisabled: boolean, precondition?: Precondition): Promise<User> {
    const disabled = isDisabled ? this.#now().toISOString() : false;
    return this.#untilDone(login, precondition, async (user) => {
      if ((user.disabled !== undefined) === isDisabled) return user;
      return this.#store.replace(user, { ...credentialOf(user), disabled });
    });
  }

  /** Runs a write on the user as it is now, and again if another request was faster. */
  async #untilDone(
    login: string, precondition: Precondition | undefined, write: (user: StoredUser) => Promise<User | undefined>,
  ): Promise<User> {
    for (let n = 0; n < triesMax; n++) {
      const user = await this.getRecord(login);
      precondition?.(user);
      const written = await write(user);
      if (written !== undefined) return written;
    }
    throw new RegistrarError('conflict', 'The user is being changed by other requests: try again');
  }

  /**
   * The user if this is the password. An unknown login and a wrong password cost the same: a look-up that finds a user, one
   * that finds none, and the work of every failure. A hash that needs a rehash gets it, unless the user has changed meanwhile.
   * Throws `disabled` if the password is right and the account is disabled.
   */
  async verify(login: string, password: string, signal?: AbortSignal): Promise<User | undefined> {
    const parsed = parseLogin(login);
    const user = 'login' in parsed ? await this.#store.findRecord(parsed.login) : undefined;
    if (user !== undefined) this.#lastKnown = user.login;
    await this.#store.findRecord(user === undefined ? (this.#lastKnown ?? noLogin) : noLogin);
    if (!(await this.#isPassword(password, user, signal)) || user === undefined) return undefined;
    if (user.disabled !== undefined) throw new RegistrarError('disabled', `The account "${user.login}" is disabled.`);
    if (this.#hasher.needsRehash(user)) void this.#rehash(user, normalizePassword(password) ?? '');
    return user;
  }

  /** Runs in the background. Where the store or the queue is full, the next sign-in does it. */
  async #rehash(user: StoredUser, password: string): Promise<void> {
    try {
      await this.#store.replace(user, await this.#hasher.hash(password));
    } catch (error) {
      if (!(error instanceof RegistrarError)) throw error;
    }
  }

  /** What cannot be a password is wrong, and costs as much as another wrong one. */
  async #isPassword(password: string, user: StoredUser | undefined, signal: AbortSignal | undefined): Promise<boolean> {
    const kdfs = await this.#store.kdfs();
    const normalized = normalizePassword(password);
    return this.#hasher.verify(normalized ?? '', normalized === undefined ? undefined : user, { signal, kdfs });
  }

  /** The login is taken: by an earlier request of the same client, which repeats it since it missed the response? */
  async #repeat(owner: StoredUser, registration: Registration, password: string, signal: AbortSignal | undefined): Promise<User> {
    const { key, limitCheck = run } = registration;
    if (key === undefined || owner.key !== sha256(key) || owner.disabled !== undefined) {
      throw new RegistrarError('taken', `The login "${owner.login}" is taken`);
    }
    if (await limitCheck(owner.login, () => this.#isPassword(password, owner, signal))) return owner;
    throw new RegistrarError('key-reused', 'This Idempotency-Key came before, with another password for this login');
  }

  #checkNew(registration: Registration): { login: string; password: string } {
    const { login, password, isReservedAllowed = false, loginPlace = { pointer: '#/login' } } = registration;
    const parsed = isReservedAllowed ? parseLogin(login) : refuseReserved(parseLogin(login));
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

function refuseReserved(parsed: LoginResult): LoginResult {
  if ('problem' in parsed || !isReservedLogin(parsed.login)) return parsed;
  return { problem: `The login "${parsed.login}" is reserved: only the administrator can register it` };
}

/** Outside of HTTP checks of passwords are not limited. */
const run: LimitCheck = (_login, check) => check();

function credentialOf({ kdf, password }: Credential): Credential {
  return { kdf, password };
}

function present<T>(user: T | undefined): T {
  if (user === undefined) throw new RegistrarError('not-found', 'There is no user with this login');
  return user;
}

function sha256(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex');
}
