/**
 * Makes and checks password hashes. New ones are made by the kdf of the service; stored ones are checked as they were made,
 * by the service or elsewhere. A failed check costs the same for every login, as `equalize-cost.ts` says.
 */

import { randomBytes } from 'node:crypto';
import { RegistrarError } from '../errors.ts';
import type { Credential } from '../user.ts';
import { equalizeCost, failureTargets } from './equalize-cost.ts';
import { digestBytes, formatKdf, formatPassword, parseCredential, parseStoredKdf, saltCharacters } from './kdf.ts';
import type { Derivation, Kdf } from './kdf.ts';
import { WorkerPool } from './worker-pool.ts';
import type { PoolOptions } from './worker-pool.ts';

export interface HasherOptions extends Omit<PoolOptions, 'usual'> {
  /** How new hashes are made. */
  readonly kdf: Kdf;
  /** Whether a hash that was made by another kdf needs a rehash; true by default. */
  readonly isRehashing?: boolean;
}

export interface VerifyOptions {
  readonly signal?: AbortSignal;
  /** How the stored hashes are made. Absent where nothing can be learnt from the time of a failure. */
  readonly kdfs?: readonly string[];
}

/** Salts are cut from a pool: a system call for each would cost more than the rest of a cheap hash. */
const saltPoolBytes = 4096;

export class Hasher {
  readonly #options: HasherOptions;
  readonly #pool: WorkerPool;
  /** The hash of no password, parsed like a stored one: to make one for each check took 2 µs longer, which could be measured. */
  readonly #dummy: Credential;
  #targets: { readonly kdfs: readonly string[]; readonly derivations: readonly Derivation[] } = { kdfs: [], derivations: [] };
  #salts = Buffer.alloc(0);

  constructor(options: HasherOptions) {
    this.#options = options;
    this.#pool = new WorkerPool({ ...options, usual: options.kdf });
    this.#dummy = { kdf: this.kdf, password: formatPassword(this.#newSalt(), randomBytes(digestBytes[options.kdf.digest])) };
    this.#targets = { kdfs: [], derivations: failureTargets(options.kdf, []) };
  }

  /** The kdf of new hashes, as it is stored. */
  get kdf(): string {
    return formatKdf(this.#options.kdf);
  }

  /** Hashes that wait for a worker. */
  get queued(): number {
    return this.#pool.queued;
  }

  /** Hashes and checks that would have had to wait too long. */
  get rejected(): number {
    return this.#pool.rejected;
  }

  /** Whether one more would have to wait too long. */
  get isFull(): boolean {
    return this.#pool.isFull;
  }

  /** Hashes a normalized password under a new random salt. Rejects with `overloaded`, or the signal's reason. */
  async hash(password: string, signal?: AbortSignal): Promise<Credential> {
    const { kdf } = this.#options;
    const salt = this.#newSalt();
    const { hash } = await this.#pool.run({ password, salt, first: kdf, bytes: digestBytes[kdf.digest], rest: [] }, signal);
    if (hash === undefined) throw new RegistrarError('internal', 'The hash worker returned an unexpected message');
    return { kdf: this.kdf, password: formatPassword(salt, hash) };
  }

  /**
   * Whether a normalized password is the one behind a stored credential. Without a credential, and for an invited user, it
   * never is, and costs what every failure costs. Rejects as `hash` does.
   */
  async verify(password: string, credential: Credential | undefined, { signal, kdfs }: VerifyOptions): Promise<boolean> {
    const isChecked = credential !== undefined && credential.kdf !== 'none';
    const stored = isChecked ? credential : this.#dummy;
    const { derivation, salt, hash } = parseCredential(stored.kdf, stored.password);
    const rest = kdfs === undefined ? [] : equalizeCost(derivation, this.#targetsOf(kdfs));
    const { isRight } = await this.#pool.run({ password, salt, first: derivation, bytes: hash.length, expected: hash, rest }, signal);
    return isChecked && isRight === true;
  }

  /** Whether a stored hash should be replaced after a good sign-in: it has another kdf, salt or length than a new one. */
  needsRehash(credential: Credential): boolean {
    const { isRehashing = true } = this.#options;
    return isRehashing && (credential.kdf !== this.#dummy.kdf || credential.password.length !== this.#dummy.password.length);
  }

  /** Ends the workers. What has not finished is rejected. */
  close(): Promise<void> {
    return this.#pool.close();
  }

  /** A store gives the same list until it changes. */
  #targetsOf(kdfs: readonly string[]): readonly Derivation[] {
    if (kdfs !== this.#targets.kdfs) {
      const stored = kdfs.map(parseStoredKdf).filter((kdf) => kdf !== undefined);
      this.#targets = { kdfs, derivations: failureTargets(this.#options.kdf, stored) };
    }
    return this.#targets.derivations;
  }

  #newSalt(): string {
    const bytes = saltCharacters / 2;
    if (this.#salts.length < bytes) this.#salts = randomBytes(saltPoolBytes);
    const salt = this.#salts.toString('hex', 0, bytes);
    this.#salts = this.#salts.subarray(bytes);
    return salt;
  }
}
