/**
 * Lets sign-ins in as long as those in progress could not exceed a limit if all of them failed; the others wait, first
 * come, first served. So parallel guesses never exceed a limit, and parallel clients with the right password all get in.
 * It does not know what a bucket stands for.
 */

import { RegistrarError } from '../errors.ts';
import type { RateLimiter } from './rate-limiter.ts';

/** A limit that a failed sign-in counts in. */
export interface Bucket {
  readonly id: string;
  readonly limiter: RateLimiter;
  readonly key: string;
  readonly factor: number;
}

/** The sign-ins of one bucket. */
interface Line {
  inProgress: number;
  /** Each tries again to be let in. */
  readonly waiting: Set<() => void>;
}

export class SignInQueue {
  readonly #waitMsMax: number;
  readonly #lines = new Map<string, Line>();

  constructor(waitMsMax: number) {
    this.#waitMsMax = waitMsMax;
  }

  /**
   * Resolves when the sign-in may begin, or with the bucket that has no failure left. Rejects with `overloaded` after the
   * longest wait, and with the signal's reason. After a resolution with undefined, `leave` has to follow.
   */
  enter<B extends Bucket>(buckets: readonly B[], signal: AbortSignal): Promise<B | undefined> {
    return new Promise((resolve, reject) => {
      let line: Line | undefined;
      const end = (settle: () => void): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        line?.waiting.delete(retry);
        settle();
      };
      const onAbort = (): void => end(() => reject(signal.reason));
      const retry = (): void => {
        line?.waiting.delete(retry);
        const exhausted = buckets.find(({ limiter, key, factor }) => !limiter.has(key, 1, factor));
        if (exhausted !== undefined) return end(() => resolve(exhausted));
        const full = buckets.find((bucket) => this.#isFull(bucket));
        line = full && this.#line(full);
        if (line !== undefined) return void line.waiting.add(retry);
        for (const bucket of buckets) this.#line(bucket).inProgress++;
        end(() => resolve(undefined));
      };
      const timer = setTimeout(() => end(() => reject(overloaded())), this.#waitMsMax);
      signal.addEventListener('abort', onAbort);
      retry();
    });
  }

  /** The sign-in has ended: a failure is counted, and waiting sign-ins are let in. */
  leave(buckets: readonly Bucket[], isFailure: boolean): void {
    for (const bucket of buckets) {
      this.#line(bucket).inProgress--;
      if (isFailure) bucket.limiter.take(bucket.key, bucket.factor);
    }
    for (const bucket of buckets) {
      const line = this.#line(bucket);
      for (const retry of line.waiting) {
        if (bucket.limiter.has(bucket.key, 1, bucket.factor) && this.#isFull(bucket)) break;
        retry();
      }
      if (line.inProgress === 0 && line.waiting.size === 0) this.#lines.delete(bucket.id);
    }
  }

  #isFull({ id, limiter, key, factor }: Bucket): boolean {
    return !limiter.has(key, (this.#lines.get(id)?.inProgress ?? 0) + 1, factor);
  }

  #line({ id }: Bucket): Line {
    let line = this.#lines.get(id);
    if (line === undefined) this.#lines.set(id, (line = { inProgress: 0, waiting: new Set() }));
    return line;
  }
}

function overloaded(): RegistrarError {
  const detail = 'Too many sign-ins of this login or client are in progress: try again in 1 s.';
  return new RegistrarError('overloaded', detail, { retryAfterSeconds: 1 });
}
