/**
 * What is known of a request once it is answered, for whoever counts and logs them; types only. There is nothing in it
 * that may not be logged: no path, which holds a login, no query, no header, no body.
 */

import type { Principal } from '../access.ts';

export interface RouteName {
  readonly method: string;
  /** As in `/user/{login}`. */
  readonly pattern: string;
  readonly action: string;
}

export interface Served {
  /** As in the answer's X-Request-Id. */
  readonly id: string;
  readonly method: string;
  /** Undefined where there is none, or it was not looked for. */
  readonly route: RouteName | undefined;
  /** 499 where the client had gone before it was answered. */
  readonly status: number;
  /** Of the body. */
  readonly bytes: number;
  /** Of `performance.now()`. */
  readonly startedMs: number;
  /** Of the error that it was answered with. */
  readonly code: string | undefined;
  readonly principal: Principal | undefined;
  readonly visit: {
    readonly isOpen: boolean;
    /** The client's address, or its /64. */
    readonly client: string;
    /** The limits that were counted; of a refusal the one that refused. */
    readonly standings: readonly { readonly policy: { readonly name: string } }[];
  };
}

/** Told of each request twice. It throws nothing, and is as fast as it can be. */
export interface Observer {
  begin(): void;
  ended(served: Served): void;
}
