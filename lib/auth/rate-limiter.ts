/**
 * Token buckets (GCRA) for one policy. A bucket is one number: the time at which it is full again. The number of buckets
 * is bounded; a full bucket needs no entry. It does not know what a key is.
 */

import { BoundedMap } from './bounded-map.ts';

/** As in draft-ietf-httpapi-ratelimit-headers-10: `quota` at once, and as many in each window. */
export interface Policy {
  readonly name: string;
  readonly quota: number;
  readonly windowSeconds: number;
}

export interface RateLimitStatus {
  readonly policy: Policy;
  readonly remaining: number;
  /** Whole seconds until there is one more than `remaining`; 0 for a full bucket. */
  readonly resetSeconds: number;
}

export interface RateLimiterOptions {
  readonly policy: Policy;
  /** Keys in memory, some 120 bytes each. */
  readonly keysMax: number;
  /** A monotonic clock, in milliseconds. */
  readonly now: () => number;
}

/** The largest sum of rounding errors, in tokens. */
const roundingMax = 1e-3;

export class RateLimiter {
  readonly #policy: Policy;
  readonly #now: () => number;
  readonly #msPerToken: number;
  readonly #fullAt: BoundedMap<number>;

  constructor({ policy, keysMax, now }: RateLimiterOptions) {
    this.#policy = policy;
    this.#now = now;
    this.#msPerToken = (policy.windowSeconds * 1000) / policy.quota;
    this.#fullAt = new BoundedMap(keysMax);
  }

  /** Whether `more` tokens are left. @param factor multiplies the quota, for a key that stands for many. */
  has(key: string, more = 1, factor = 1): boolean {
    return this.#used(key, factor) + more <= this.#policy.quota * factor + roundingMax;
  }

  /** Takes a token if there is one. */
  take(key: string, factor = 1): boolean {
    if (!this.has(key, 1, factor)) return false;
    this.#set(key, this.#used(key, factor) + 1, factor);
    return true;
  }

  /** Puts a token back. */
  refund(key: string, factor = 1): void {
    this.#set(key, this.#used(key, factor) - 1, factor);
  }

  status(key: string, factor = 1): RateLimitStatus {
    const quota = this.#policy.quota * factor;
    const used = this.#used(key, factor);
    const remaining = Math.max(0, Math.floor(quota - used + roundingMax));
    const missing = used - (quota - remaining - 1) - roundingMax;
    const resetSeconds = used > 0 ? Math.max(1, Math.ceil((missing * this.#msPerToken) / factor / 1000)) : 0;
    return { policy: factor === 1 ? this.#policy : { ...this.#policy, quota }, remaining, resetSeconds };
  }

  /** Tokens that are missing from a bucket. */
  #used(key: string, factor: number): number {
    const fullAt = this.#fullAt.get(key);
    return fullAt === undefined ? 0 : Math.max(0, ((fullAt - this.#now()) * factor) / this.#msPerToken);
  }

  #set(key: string, used: number, factor: number): void {
    if (used <= 0) this.#fullAt.delete(key);
    else this.#fullAt.set(key, this.#now() + (used * this.#msPerToken) / factor);
  }
}

/** The header fields of the draft: structured fields (RFC 9651), a string with parameters for each policy. */
export function rateLimitHeaders(statuses: readonly RateLimitStatus[]): Record<string, string> {
  const policies = statuses.map(({ policy: { name, quota, windowSeconds } }) => `"${name}";q=${quota};w=${windowSeconds}`);
  const limits = statuses.map(({ policy: { name }, remaining, resetSeconds }) => `"${name}";r=${remaining};t=${resetSeconds}`);
  return { 'RateLimit-Policy': policies.join(', '), RateLimit: limits.join(', ') };
}
