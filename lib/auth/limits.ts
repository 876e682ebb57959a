/**
 * Rate limits of authenticated mode: for each client, each login, and in all; for registrations, failed sign-ins and
 * requests. Wrong passwords for a login do not lock its owner out: session tokens are not limited by them, and a client
 * that has signed in with the login before has an allowance of its own. Each process counts for itself.
 */

import { RegistrarError } from '../errors.ts';
import { BoundedMap } from './bounded-map.ts';
import type { Client } from './client-address.ts';
import { RateLimiter } from './rate-limiter.ts';
import type { Policy } from './rate-limiter.ts';
import type { RequestContext } from './request-context.ts';
import { SignInQueue } from './sign-in-queue.ts';
import type { Bucket } from './sign-in-queue.ts';

/** What limits read and set of a request. */
export type LimitedRequest = Pick<RequestContext, 'client' | 'rateLimits' | 'overGlobalLimit'>;

/** An office shares an address; a core hashes some 8 passwords a second. */
const policies = {
  registrationsOfClient: { name: 'registrations', quota: 60, windowSeconds: 3600 },
  registrationsInAll: { name: 'registrations-in-all', quota: 600, windowSeconds: 60 },
  failuresOfClient: { name: 'sign-in-failures', quota: 100, windowSeconds: 600 },
  /** 20 at once and 2,880 a day: the list of common passwords alone takes more than a week. */
  failuresOfLogin: { name: 'sign-in-failures-of-login', quota: 20, windowSeconds: 600 },
  failuresInAll: { name: 'sign-in-failures-in-all', quota: 3_000, windowSeconds: 600 },
  /** The rest of the global budget is for clients without a failure. */
  failuresOfRepeaters: { name: 'sign-in-failures-of-repeaters', quota: 2_000, windowSeconds: 600 },
  requestsOfClient: { name: 'requests', quota: 3_000, windowSeconds: 10 },
  requestsOfLogin: { name: 'requests-of-login', quota: 3_000, windowSeconds: 10 },
  requestsInAll: { name: 'requests-in-all', quota: 200_000, windowSeconds: 10 },
} as const satisfies Record<string, Policy>;

type PolicyName = keyof typeof policies;

const keysMax = 20_000;
const all = 'all';

export interface LimitsOptions {
  /** A monotonic clock, in milliseconds. */
  readonly now: () => number;
  /** The longest that a sign-in waits for others of the same client or login. */
  readonly waitMsMax: number;
}

export class Limits {
  readonly #limiters: Readonly<Record<PolicyName, RateLimiter>>;
  readonly #queue: SignInQueue;
  /** Pairs of client and login that have signed in. */
  readonly #knownClients = new BoundedMap<true>(keysMax);

  constructor({ now, waitMsMax }: LimitsOptions) {
    const names = Object.keys(policies) as PolicyName[];
    const limiters = names.map((name) => [name, new RateLimiter({ policy: policies[name], keysMax, now })]);
    this.#limiters = Object.fromEntries(limiters) as Record<PolicyName, RateLimiter>;
    this.#queue = new SignInQueue(waitMsMax);
  }

  /** Counts a request that is not authenticated yet. Throws `rate-limited` for a client over its own limit. */
  request(limited: LimitedRequest): void {
    this.#take(limited, 'requestsOfClient');
    limited.overGlobalLimit = !this.#limiters.requestsInAll.take(all);
  }

  /** The request is not authenticated. Throws `rate-limited` if the global limit is exceeded: many clients together can do that. */
  unauthenticated(limited: LimitedRequest): void {
    if (!limited.overGlobalLimit) return;
    this.#refund(limited.client, 'requestsOfClient');
    this.#reject(limited, 'requestsInAll', all);
  }

  /** The request is authenticated: it counts for its login, if it has one, and no longer for its client. Throws `rate-limited`. */
  authenticated(limited: LimitedRequest, login?: string): void {
    this.#refund(limited.client, 'requestsOfClient');
    if (login !== undefined && !this.#limiters.requestsOfLogin.take(login)) this.#reject(limited, 'requestsOfLogin', login);
  }

  /** Counts a registration; one of a taken login counts as well. Throws `rate-limited`. */
  registration(limited: LimitedRequest): void {
    this.#take(limited, 'registrationsOfClient');
    if (!this.#limiters.registrationsInAll.take(all)) {
      this.#refund(limited.client, 'registrationsOfClient');
      this.#reject(limited, 'registrationsInAll', all);
    }
    limited.rateLimits = [this.#limiters.registrationsOfClient.status(limited.client.networks[0].key)];
  }

  /**
   * Checks a password within the limits. A wrong one counts, and so does a check whose client leaves. Checks in progress
   * do not count: while they could use up a limit, others wait for them. Rejects with `rate-limited`, `overloaded`, or
   * as `check` does. The RateLimit fields tell of the client alone: those of a login would tell that it exists.
   */
  async attempt(limited: LimitedRequest, login: string, signal: AbortSignal, check: () => Promise<boolean>): Promise<boolean> {
    const { client } = limited;
    const buckets = this.#attemptBuckets(client, login);
    const rejected = await this.#queue.enter(buckets, signal);
    if (rejected !== undefined) this.#reject(limited, rejected.policy, rejected.key, rejected.factor);
    let isFailure = false;
    try {
      const isRight = await check();
      isFailure = !isRight;
      if (isRight) this.#knownClients.set(pair(client, login), true);
      return isRight;
    } catch (error) {
      isFailure = signal.aborted;
      throw error;
    } finally {
      this.#queue.leave(buckets, isFailure);
      limited.rateLimits = [this.#limiters.failuresOfClient.status(client.networks[0].key)];
    }
  }

  #attemptBuckets(client: Client, login: string): readonly AttemptBucket[] {
    const bucket = (policy: PolicyName, key: string, factor = 1): AttemptBucket =>
      ({ id: `${policy} ${key}`, policy, limiter: this.#limiters[policy], key, factor });
    const own = client.networks.map(({ key, factor }) => bucket('failuresOfClient', key, factor));
    const name = pair(client, login);
    if (this.#knownClients.get(name) !== undefined) return [...own, bucket('failuresOfLogin', name)];
    // A client is its widest network here: otherwise each of its addresses would be one without a failure.
    const { key } = client.networks.at(-1) ?? client.networks[0];
    const isRepeater = this.#limiters.failuresOfClient.status(key).resetSeconds > 0;
    const shared = isRepeater ? [bucket('failuresOfRepeaters', all)] : [];
    return [...own, bucket('failuresOfLogin', login), ...shared, bucket('failuresInAll', all)];
  }

  /** Takes from every network of the client, or from none. */
  #take(limited: LimitedRequest, name: 'requestsOfClient' | 'registrationsOfClient'): void {
    const { networks } = limited.client;
    for (const { key, factor } of networks) {
      if (this.#limiters[name].take(key, factor)) continue;
      for (const taken of networks) {
        if (taken.key === key) break;
        this.#limiters[name].refund(taken.key, taken.factor);
      }
      this.#reject(limited, name, key, factor);
    }
  }

  #refund({ networks }: Client, name: PolicyName): void {
    for (const { key, factor } of networks) this.#limiters[name].refund(key, factor);
  }

  #reject(limited: LimitedRequest, name: PolicyName, key: string, factor = 1): never {
    const status = this.#limiters[name].status(key, factor);
    limited.rateLimits = [status];
    const retryAfterSeconds = Math.max(1, status.resetSeconds);
    throw new RegistrarError('rate-limited', `Too many ${describe(name)}: try again in ${retryAfterSeconds} s.`, { retryAfterSeconds });
  }
}

interface AttemptBucket extends Bucket {
  readonly policy: PolicyName;
}

function pair(client: Client, login: string): string {
  return `${client.networks[0].key} ${login}`;
}

function describe(name: PolicyName): string {
  const what = name.startsWith('registrations') ? 'registrations' : name.startsWith('failures') ? 'wrong passwords' : 'requests';
  const whose = name.endsWith('OfClient') ? ' from this address' : name.endsWith('OfLogin') ? ' for this login' : '';
  return `${what}${whose}`;
}
