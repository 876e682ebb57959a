/**
 * One request from its head to its response: the one type that HTTP, authentication, rate limits and telemetry share.
 * Routing sets `path`, `query`, `route` and `login`; authentication sets `client`, `rateLimits` and `principal`; the
 * response sets `status`, `bytes` and `code`. Telemetry sees a `LoggedRequest`: no path, query, header or body.
 */

import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Action, Principal } from '../access.ts';
import { RegistrarError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import type { Client } from './client-address.ts';
import type { RateLimitStatus } from './rate-limiter.ts';

export interface RouteName {
  readonly method: string;
  /** As in `/user/{login}`. */
  readonly pattern: string;
  readonly action: Action;
}

/** What may be logged and counted. */
export type LoggedRequest = Pick<
  RequestContext,
  'id' | 'startedMs' | 'method' | 'route' | 'isUnauthenticatedMode' | 'client' | 'rateLimits' | 'principal' | 'status' | 'bytes' | 'code'
>;

/** The status of a request whose client closed the connection before the response; nginx logs the same. */
const clientClosedStatus = 499;

/** Clients are not told apart in unauthenticated mode. */
const localClient: Client = { name: '', networks: [{ key: '', factor: 1 }] };
const noStatuses: readonly RateLimitStatus[] = [];

export class RequestContext {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** As in the response's X-Request-Id. */
  readonly id: string;
  /** Of `performance.now()`. */
  readonly startedMs: number;
  readonly method: string;
  /** The Host header, or the authority of an absolute-form target (RFC 9112, 3.2.2). */
  host: string | undefined;
  path = '';
  /** Without the `?`. */
  query = '';
  route: RouteName | undefined = undefined;
  /** The canonical login of the path; undefined if the route has none, or no login can be spelled like it. */
  login: string | undefined = undefined;
  /** The rule that the login of the path breaks. */
  loginProblem: string | undefined = undefined;

  /** No admin token is set: requests are not authenticated. */
  isUnauthenticatedMode = false;
  /** Whose rate limits apply. */
  client: Client = localClient;
  /** What the RateLimit fields of the response tell; of a rejection the limit that rejected. */
  rateLimits: readonly RateLimitStatus[] = noStatuses;
  /** The global limit is exceeded: unauthenticated requests are rejected. */
  overGlobalLimit = false;
  principal: Principal | undefined = undefined;

  status = clientClosedStatus;
  /** Of the response's body. */
  bytes = 0;
  /** Of the error that was the response. */
  code: ErrorCode | undefined = undefined;
  #controller: AbortController | undefined = undefined;

  constructor(request: IncomingMessage, response: ServerResponse, id: string) {
    this.request = request;
    this.response = response;
    this.id = id;
    this.startedMs = performance.now();
    this.method = request.method ?? '';
    this.host = request.headers.host;
  }

  get headers(): IncomingHttpHeaders {
    return this.request.headers;
  }

  /** The address at the other end of the connection; undefined on a unix socket. */
  get peer(): string | undefined {
    return this.request.socket.remoteAddress;
  }

  get httpVersion(): string {
    return this.request.httpVersion;
  }

  /** Aborted when the client closes the connection. Made when it is first read: few requests wait for anything. */
  get signal(): AbortSignal {
    if (this.#controller !== undefined) return this.#controller.signal;
    const controller = new AbortController();
    this.#controller = controller;
    const { response } = this;
    const abort = (): void => controller.abort(new RegistrarError('timeout', 'The client has closed the connection'));
    response.once('close', () => {
      if (!response.writableFinished) abort();
    });
    if (response.destroyed) abort();
    return controller.signal;
  }
}
