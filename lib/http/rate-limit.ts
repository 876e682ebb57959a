/**
 * Token buckets for clients and logins, in memory that is laid out once and never grows.
 *
 * A bucket is one number, the time at which it is full again (GCRA), under 64 bits of a hash keyed at random for
 * each process, in a row of eight that the hash chooses. Where a row is full the bucket nearest to full is
 * forgotten: a flood of new keys pushes itself out, and a key at its limit goes only behind seven that are
 * further from full. It does not know what a key is, and a bucket that is full again needs no place.
 */

import { hash, randomBytes } from 'node:crypto';
import { RegistrarError } from '../errors.ts';

/** As the IETF's draft-ietf-httpapi-ratelimit-headers-10 has them: `quota` at once, and so many in each window. */
export interface Policy {
  readonly name: string;
  readonly quota: number;
  readonly windowSeconds: number;
}

export interface Standing {
  readonly policy: Policy;
  readonly remaining: number;
  /** Whole seconds until there is one more than `remaining`; 0 for a bucket that is full. */
  readonly resetSeconds: number;
  /** Whole seconds after which another try is let in; 0 unless this one was refused. */
  readonly retryAfterSeconds: number;
}

export interface RateLimiterOptions {
  readonly policy: Policy;
  /** Keys that are remembered, 16 bytes each; rounded up to a power of two. */
  readonly keysMax: number;
  /** Milliseconds that never go back. */
  readonly now: () => number;
}

const rowKeys = 8;
/** Of one token: what the rounding of a time may add up to, and far less than anybody could gain by. */
const roundingMax = 1e-3;

export class RateLimiter {
  readonly #policy: Policy;
  readonly #now: () => number;
  readonly #msPerToken: number;
  readonly #secret = randomBytes(32).toString('latin1');
  readonly #rows: number;
  /** Two words of hash for each place. */
  readonly #hashes: Uint32Array;
  /** When the bucket is full again, in milliseconds of `now`; 0 where there is none. */
  readonly #fullAt: Float64Array;

  constructor({ policy, keysMax, now }: RateLimiterOptions) {
    const { quota, windowSeconds } = policy;
    if (!(Number.isInteger(quota) && quota > 0 && Number.isInteger(windowSeconds) && windowSeconds > 0)) {
      throw new RegistrarError('cannot-start', `The limit "${policy.name}" needs a quota and a window of 1 or more`);
    }
    this.#policy = policy;
    this.#now = now;
    this.#msPerToken = (windowSeconds * 1000) / quota;
    this.#rows = 2 ** Math.ceil(Math.log2(Math.max(1, keysMax / rowKeys)));
    this.#hashes = new Uint32Array(this.#rows * rowKeys * 2);
    this.#fullAt = new Float64Array(this.#rows * rowKeys);
  }

  /** Takes a token if there is one. */
  take(key: string): Standing & { readonly allowed: boolean } {
    const now = this.#now();
    const { place, fullAt } = this.#look(key, now);
    const after = Math.max(fullAt, now) + this.#msPerToken;
    if ((after - now) / this.#msPerToken > this.#policy.quota + roundingMax) return this.#refusal(fullAt, now);
    this.#fullAt[place] = after;
    return { allowed: true, ...this.#standing(after, now) };
  }

  /** Puts back what `take` took, for what was not meant to be limited after all; never above full. */
  giveBack(key: string): void {
    const now = this.#now();
    const { place, fullAt, isKnown } = this.#look(key, now, false);
    if (isKnown) this.#fullAt[place] = Math.max(fullAt - this.#msPerToken, 0);
  }

  /** What `take` would say about being let in, with nothing taken. */
  peek(key: string): Standing & { readonly allowed: boolean } {
    const now = this.#now();
    const { fullAt } = this.#look(key, now, false);
    const standing = this.#standing(Math.max(fullAt, now), now);
    return standing.remaining > 0 ? { allowed: true, ...standing } : this.#refusal(fullAt, now);
  }

  /** Buckets that are not full. Counted when asked, which takes a tenth of a millisecond or two. */
  get size(): number {
    const now = this.#now();
    let count = 0;
    for (let n = 0; n < this.#fullAt.length; n++) if (this.#fullAt[n]! > now) count++;
    return count;
  }

  #standing(fullAt: number, now: number): Standing {
    const missing = (fullAt - now) / this.#msPerToken;
    const remaining = Math.max(0, Math.floor(this.#policy.quota - missing + roundingMax));
    const nextMs = fullAt - now - (this.#policy.quota - remaining - 1) * this.#msPerToken;
    const resetSeconds = fullAt > now ? Math.max(1, Math.ceil(nextMs / 1000)) : 0;
    return { policy: this.#policy, remaining, resetSeconds, retryAfterSeconds: 0 };
  }

  #refusal(fullAt: number, now: number): Standing & { readonly allowed: boolean } {
    const standing = this.#standing(fullAt, now);
    return { allowed: false, ...standing, remaining: 0, retryAfterSeconds: standing.resetSeconds };
  }

  /** The place of a key, or the one that it may have; with `claim` it has it then. */
  #look(key: string, now: number, claim = true): { place: number; fullAt: number; isKnown: boolean } {
    // A prefix for a key is no MAC in general, but nobody is ever shown what comes out of this one.
    const digest = hash('sha256', this.#secret + key, 'hex');
    const high = Number.parseInt(digest.slice(0, 8), 16);
    const low = Number.parseInt(digest.slice(8, 16), 16);
    const first = (Number.parseInt(digest.slice(16, 24), 16) % this.#rows) * rowKeys;
    let place = first;
    let least = Infinity;
    for (let n = first; n < first + rowKeys; n++) {
      const fullAt = this.#fullAt[n] ?? 0;
      if (fullAt > now && this.#hashes[n * 2] === high && this.#hashes[n * 2 + 1] === low) return { place: n, fullAt, isKnown: true };
      if (fullAt < least) [place, least] = [n, fullAt];
    }
    if (claim) {
      this.#hashes[place * 2] = high;
      this.#hashes[place * 2 + 1] = low;
    }
    return { place, fullAt: 0, isKnown: false };
  }
}

/** The headers of the draft: structured fields (RFC 9651), a string with parameters for each policy. */
export function rateLimitHeaders(standings: readonly Standing[]): Record<string, string> {
  if (standings.length === 0) return {};
  const policies = standings.map(({ policy: { name, quota, windowSeconds } }) => `${quoted(name)};q=${quota};w=${windowSeconds}`);
  const limits = standings.map(({ policy, remaining, resetSeconds }) => `${quoted(policy.name)};r=${remaining};t=${resetSeconds}`);
  return { 'RateLimit-Policy': policies.join(', '), RateLimit: limits.join(', ') };
}

function quoted(name: string): string {
  return `"${name.replace(/[^\x20-\x7e]/g, '').replace(/["\\]/g, '\\$&')}"`;
}
