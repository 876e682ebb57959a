/**
 * The registry of a data directory without the service: for the command `user` and for the library. It may be open
 * beside any number of services on the same directory. Nothing is hashed, and no worker is started, before it has to be.
 */

import { availableParallelism } from 'node:os';
import type { StoreConfig } from './config.ts';
import { RegistrarError } from './errors.ts';
import { openPolicy } from './open-policy.ts';
import { openStore, requireUsers } from './open-store.ts';
import { Hasher } from './password/hasher.ts';
import type { HasherOptions } from './password/hasher.ts';
import { formatKdf } from './password/kdf.ts';
import type { Kdf } from './password/kdf.ts';
import { Registry } from './registry.ts';
import type { PasswordHasher } from './registry.ts';

export interface OpenRegistryOptions extends StoreConfig {
  readonly kdf: Kdf;
  readonly passwordCodePointsMin: number;
  readonly passwordCodePointsMax: number;
  readonly hashWaitMsMax: number;
  readonly hashQueueMax: number;
  /** Whether directory and file are made where there are none. */
  readonly mayMake: boolean;
  /** Whether a right password that was hashed with another kdf is hashed anew and saved. */
  readonly isRehashing: boolean;
  /** One line for the operator. */
  readonly report?: (line: string) => void;
  /** The file has failed: everything is refused from now on. */
  readonly onFailed?: (error: RegistrarError) => void;
}

export interface OpenRegistry {
  readonly registry: Registry;
  /** Finishes what was asked for, and lets go of the file. */
  close(): Promise<void>;
}

/** Rejects with `cannot-start`, `corrupt` or `busy`; with `cannot-start` too where there is no file and none may be made. */
export async function openRegistry(options: OpenRegistryOptions): Promise<OpenRegistry> {
  const { kdf, report = () => undefined, onFailed } = options;
  if (!options.mayMake) requireUsers(options);
  const { store } = await openStore(options, { report, ...(onFailed === undefined ? {} : { onFailed }) });
  const { hashWaitMsMax: waitMsMax, hashQueueMax: queueMax, isRehashing } = options;
  const hasher = new LateHasher({ kdf, workers: availableParallelism(), waitMsMax, queueMax }, isRehashing);
  return {
    registry: new Registry({ store, hasher, policy: openPolicy(options), now }),
    close: async () => {
      await hasher.close();
      await store.close();
    },
  };
}

/** A hasher that is made at the first password. */
class LateHasher implements PasswordHasher {
  readonly #options: HasherOptions;
  readonly #isRehashing: boolean;
  #made: Hasher | undefined;
  #isClosed = false;

  constructor(options: HasherOptions, isRehashing: boolean) {
    this.#options = options;
    this.#isRehashing = isRehashing;
  }

  async hash(...args: Parameters<PasswordHasher['hash']>): ReturnType<PasswordHasher['hash']> {
    return this.#hasher().hash(...args);
  }

  async verify(...args: Parameters<PasswordHasher['verify']>): ReturnType<PasswordHasher['verify']> {
    return this.#hasher().verify(...args);
  }

  isStale({ kdf }: Parameters<PasswordHasher['isStale']>[0]): boolean {
    return this.#isRehashing && kdf !== formatKdf(this.#options.kdf);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#made?.close();
  }

  #hasher(): Hasher {
    if (this.#isClosed) throw new RegistrarError('unavailable', 'Cannot hash: it is closed');
    this.#made ??= new Hasher(this.#options);
    return this.#made;
  }
}

function now(): Date {
  return new Date();
}
