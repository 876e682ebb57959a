/**
 * How often a client may ask, in closed mode: for each client, each login, and in all; for registrations, failed
 * sign-ins, and everything else. Guesses at a login are slowed, and its owner is not locked out by them: session tokens
 * are never counted, a client from which the login was signed in before has an allowance of its own, and a good password
 * gives back what it took. Each instance counts for itself.
 */

import { RegistrarError } from '../errors.ts';
import { RateLimiter } from './rate-limit.ts';
import type { Policy, Standing } from './rate-limit.ts';

/** Who asks, and where what was counted is put for the answer's RateLimit fields. */
export interface Counted {
  readonly client: string;
  readonly standings: Standing[];
  /** Everybody together asks too much: whoever proves nothing is refused, once it is known that they do not. */
  excess?: Standing | undefined;
}

/** What an attempt to sign in has taken is given back when the password is right. */
export interface Attempt {
  readonly succeed: () => void;
  readonly giveBack: () => void;
}

/** An office or a class shares an address; a core hashes some 8 passwords a second. */
const policies = {
  registrationsOfClient: { name: 'registrations', quota: 60, windowSeconds: 3600 },
  registrationsInAll: { name: 'registrations-in-all', quota: 600, windowSeconds: 60 },
  failuresOfClient: { name: 'sign-in-failures', quota: 100, windowSeconds: 600 },
  /** 20 at once and 2,880 a day: the list of common passwords alone takes four days. */
  failuresOfLogin: { name: 'sign-in-failures-of-login', quota: 20, windowSeconds: 600 },
  failuresInAll: { name: 'sign-in-failures-in-all', quota: 3_000, windowSeconds: 600 },
  requestsOfClient: { name: 'requests', quota: 3_000, windowSeconds: 10 },
  requestsOfLogin: { name: 'requests-of-login', quota: 3_000, windowSeconds: 10 },
  requestsInAll: { name: 'requests-in-all', quota: 200_000, windowSeconds: 10 },
} as const satisfies Record<string, Policy>;

type PolicyName = keyof typeof policies;

/** Clients or logins that one limit remembers; some 100 bytes each. */
const keysMax = 32_768;
const everybody = 'all';

export class Limits {
  readonly #limiters: Readonly<Record<PolicyName, RateLimiter>>;
  /** Pairs of login and client that have signed in, the oldest first. */
  readonly #familiar = new Set<string>();

  /** @param now a monotonic clock, in milliseconds. */
  constructor(now: () => number) {
    const limiter = (name: PolicyName): RateLimiter => new RateLimiter({ policy: policies[name], keysMax, now });
    this.#limiters = {
      registrationsOfClient: limiter('registrationsOfClient'),
      registrationsInAll: limiter('registrationsInAll'),
      failuresOfClient: limiter('failuresOfClient'),
      failuresOfLogin: limiter('failuresOfLogin'),
      failuresInAll: limiter('failuresInAll'),
      requestsOfClient: limiter('requestsOfClient'),
      requestsOfLogin: limiter('requestsOfLogin'),
      requestsInAll: limiter('requestsInAll'),
    };
  }

  /** Any request, before it is known whose it is. Throws `rate-limited` for a client of its own too many. */
  request(counted: Counted): void {
    this.#take(counted, [['requestsOfClient', counted.client]], false);
    const standing = this.#limiters.requestsInAll.take(everybody);
    if (!standing.allowed) counted.excess = standing;
  }

  /**
   * The same request, once it is known to prove nothing, or to need a hash before it does. Throws `rate-limited` if all
   * together ask too much: a hundred addresses can do that, and are not to shut out whoever has a token.
   */
  unproven(counted: Counted): void {
    if (counted.excess === undefined) return;
    this.#limiters.requestsOfClient.giveBack(counted.client);
    refuse(counted, 'requestsInAll', counted.excess);
  }

  /** The same request, once it is known to be a user's or the administrator's: it is not counted for the client any more. */
  prove(counted: Counted, login: string | undefined): void {
    this.#limiters.requestsOfClient.giveBack(counted.client);
    if (login !== undefined) this.#take(counted, [['requestsOfLogin', login]], false);
  }

  /** One more user to be, whatever comes of it: a taken login is counted like a free one. Throws `rate-limited`. */
  registration(counted: Counted): void {
    this.#take(counted, [['registrationsOfClient', counted.client], ['registrationsInAll', everybody]], true);
  }

  /** One more password to be checked, before it is: many at once must not all be let in. Throws `rate-limited`. */
  attempt(counted: Counted, login: string): Attempt {
    const pair = `${counted.client} ${login}`;
    const takes: [PolicyName, string][] = this.#familiar.has(pair)
      ? [['failuresOfClient', counted.client], ['failuresOfLogin', pair]]
      : [['failuresOfClient', counted.client], ['failuresOfLogin', login], ['failuresInAll', everybody]];
    this.#take(counted, takes, true);
    const giveBack = (): void => {
      for (const [name, key] of takes) this.#limiters[name].giveBack(key);
    };
    return {
      giveBack,
      succeed: () => {
        giveBack();
        this.#remember(pair);
      },
    };
  }

  #remember(pair: string): void {
    this.#familiar.delete(pair);
    this.#familiar.add(pair);
    const [oldest = ''] = this.#familiar;
    if (this.#familiar.size > keysMax) this.#familiar.delete(oldest);
  }

  /** All of them, or none and an error. */
  #take(counted: Counted, takes: readonly (readonly [PolicyName, string])[], isShown: boolean): void {
    for (const [n, [name, key]] of takes.entries()) {
      const standing = this.#limiters[name].take(key);
      if (standing.allowed) {
        // How much everybody together has left is nobody's business.
        if (isShown && key !== everybody) counted.standings.push(standing);
        continue;
      }
      for (const [other, otherKey] of takes.slice(0, n)) this.#limiters[other].giveBack(otherKey);
      refuse(counted, name, standing);
    }
  }
}

function refuse({ standings }: Counted, name: PolicyName, standing: Standing): never {
  standings.splice(0, Infinity, standing);
  const { retryAfterSeconds } = standing;
  throw new RegistrarError('rate-limited', `Too many ${what(name)}: try again in ${retryAfterSeconds} s`, { retryAfterSeconds });
}

function what(name: PolicyName): string {
  const kind = name.startsWith('registrations') ? 'registrations' : name.startsWith('failures') ? 'wrong passwords' : 'requests';
  const whose = name.endsWith('InAll') ? '' : name.endsWith('OfClient') ? ' from this address' : ' for this login';
  return `${kind}${whose}`;
}
