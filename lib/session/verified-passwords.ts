/**
 * Passwords that were right a moment ago, so that Basic on every request does not cost a hash each. Kept under an
 * HMAC with a key of the process over all that would make them wrong; the password itself is not kept, nor that
 * one was wrong. A change of the user, their hash or the password finds nothing.
 */

import { createHmac, randomBytes } from 'node:crypto';

export interface VerifiedPasswordsOptions {
  readonly secondsMax: number;
  readonly entriesMax: number;
  /** Milliseconds that never go back. */
  readonly now: () => number;
}

interface Verified {
  readonly id: number;
  readonly version: number;
}

export class VerifiedPasswords {
  readonly #options: VerifiedPasswordsOptions;
  readonly #key = randomBytes(32);
  /** From the HMAC to when it ends; the oldest first, since all last as long. */
  readonly #ends = new Map<string, number>();

  constructor(options: VerifiedPasswordsOptions) {
    this.#options = options;
  }

  /** Whether this password was right for this very state of the user. Some microseconds. */
  has(user: Verified, password: string): boolean {
    const name = this.#name(user, password);
    const end = this.#ends.get(name);
    if (end === undefined) return false;
    if (end > this.#options.now()) return true;
    this.#ends.delete(name);
    return false;
  }

  /** The password was checked just now, and was right. */
  remember(user: Verified, password: string): void {
    const name = this.#name(user, password);
    const now = this.#options.now();
    this.#ends.delete(name);
    this.#ends.set(name, now + this.#options.secondsMax * 1000);
    for (const [oldest, end] of this.#ends) {
      if (end > now && this.#ends.size <= this.#options.entriesMax) break;
      this.#ends.delete(oldest);
    }
  }

  get size(): number {
    return this.#ends.size;
  }

  #name({ id, version }: Verified, password: string): string {
    // JSON, so that no two of them read as one.
    return createHmac('sha256', this.#key).update(JSON.stringify([id, version, password])).digest('base64url');
  }
}
