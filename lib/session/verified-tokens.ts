/**
 * Session tokens whose signature was checked, so that a client's every request does not cost it again. Kept by
 * their SHA-256, until they expire. Whether the user's version is still the token's is for the caller to ask.
 */

import { createHash } from 'node:crypto';
import type { Claims } from './token.ts';

export interface VerifiedTokensOptions {
  readonly entriesMax: number;
  readonly now: () => Date;
}

export class VerifiedTokens {
  readonly #options: VerifiedTokensOptions;
  readonly #claims = new Map<string, Claims>();

  constructor(options: VerifiedTokensOptions) {
    this.#options = options;
  }

  get(token: string): Claims | undefined {
    const name = sha256(token);
    const claims = this.#claims.get(name);
    if (claims === undefined) return undefined;
    this.#claims.delete(name);
    if (claims.exp * 1000 <= this.#options.now().getTime()) return undefined;
    // Behind the others: what is used least goes first.
    this.#claims.set(name, claims);
    return claims;
  }

  remember(token: string, claims: Claims): void {
    this.#claims.set(sha256(token), claims);
    for (const [oldest] of this.#claims) {
      if (this.#claims.size <= this.#options.entriesMax) break;
      this.#claims.delete(oldest);
    }
  }

  get size(): number {
    return this.#claims.size;
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('base64url');
}
