/**
 * One member of the cluster: keep-alive connections, an authentication token, and the outcome of each request.
 *
 * A request that was not sent is told from one that etcd may have executed. Only a request with a stale token is sent again.
 */

import http from 'node:http';
import https from 'node:https';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { UnexpectedResponse, authenticationRequest, readErrorMessage } from './gateway.ts';
import type { EtcdRequest } from './gateway.ts';

export type RequestFailure =
  /** An error response. From 500 on etcd may have executed the request. */
  | { readonly kind: 'error'; readonly status: number; readonly message: string }
  | { readonly kind: 'not-sent'; readonly cause: unknown }
  /** The request was sent, and no valid response came. */
  | { readonly kind: 'no-response'; readonly cause: unknown };

export type RequestOutcome<T> = { readonly kind: 'response'; readonly value: T } | RequestFailure;

export interface EtcdCredentials {
  readonly user: string;
  readonly password: string;
}

/** PEM. */
export type EtcdTls = Pick<https.AgentOptions, 'ca' | 'cert' | 'key'>;

const noToken = { kind: 'response', value: '' } as const;

/** Further requests wait for a connection. */
const connectionsMax = 128;

/** With a new token the request succeeds. It was not executed. */
const staleToken = /invalid auth token|user name is empty|revision of auth store is old/;

export class EtcdMember {
  readonly url: string;
  readonly #agent: http.Agent | https.Agent;
  readonly #request: typeof http.request;
  readonly #credentials: EtcdCredentials | undefined;
  /** What is written to these sockets is sent at once. */
  readonly #connected = new WeakSet<Socket>();
  #token: Promise<RequestOutcome<string>> | undefined;

  constructor(url: string, tls: EtcdTls, credentials: EtcdCredentials | undefined) {
    const options = { keepAlive: true, maxSockets: connectionsMax };
    const isTls = url.startsWith('https:');
    this.url = url;
    this.#agent = isTls ? new https.Agent({ ...options, ...tls }) : new http.Agent(options);
    this.#request = isTls ? https.request : http.request;
    this.#credentials = credentials;
  }

  /** @param waitMs counts from when the request has a connection. @param deadline in the time of `performance.now()`. */
  async post<T>(request: EtcdRequest<T>, waitMs: number, deadline: number): Promise<RequestOutcome<T>> {
    for (let isRetry = false; ; isRetry = true) {
      const authentication = (this.#token ??= this.#authenticate(waitMs, deadline));
      const token = await authentication;
      const outcome = token.kind === 'response' ? await this.#send(request, token.value, waitMs, deadline) : token;
      const isTokenStale = outcome.kind === 'error' && staleToken.test(outcome.message);
      // A member that does not know a token yet never responds, and some versions of etcd close the connection of a stale one.
      const mustRenew = isTokenStale || outcome.kind === 'no-response' || token.kind !== 'response';
      if (mustRenew && this.#token === authentication) this.#token = undefined;
      if (!isTokenStale || this.#credentials === undefined || isRetry) return outcome;
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  /** The token, empty without authentication. */
  async #authenticate(waitMs: number, deadline: number): Promise<RequestOutcome<string>> {
    if (this.#credentials === undefined) return noToken;
    const { user, password } = this.#credentials;
    const outcome = await this.#send(authenticationRequest(user, password), '', waitMs, deadline);
    if (outcome.kind === 'error' && /authentication is not enabled/.test(outcome.message)) return noToken;
    return outcome.kind === 'no-response' ? { kind: 'not-sent', cause: outcome.cause } : outcome;
  }

  #send<T>({ path, body, read }: EtcdRequest<T>, token: string, waitMs: number, deadline: number): Promise<RequestOutcome<T>> {
    return new Promise((resolve) => {
      let isSent = false;
      const headers = {
        'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), ...(token === '' ? {} : { Authorization: token }),
      };
      const request = this.#request(this.url + path, { method: 'POST', agent: this.#agent, headers });
      const expire = (): void => void request.destroy(new Error('no response in time'));
      let timer = setTimeout(expire, Math.max(0, deadline - performance.now()));
      const end = (outcome: RequestOutcome<T>): void => {
        clearTimeout(timer);
        resolve(outcome);
      };
      request.on('socket', (socket) => {
        clearTimeout(timer);
        timer = setTimeout(expire, Math.max(0, Math.min(waitMs, deadline - performance.now())));
        if (this.#connected.has(socket)) isSent = true;
        else socket.once(socket instanceof TLSSocket ? 'secureConnect' : 'connect', () => {
          this.#connected.add(socket);
          isSent = true;
        });
      });
      request.on('error', (cause) => end({ kind: isSent ? 'no-response' : 'not-sent', cause }));
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', (cause) => end({ kind: 'no-response', cause }));
        response.on('end', () => end(readOutcome(response.statusCode ?? 0, Buffer.concat(chunks).toString('utf8'), read)));
      });
      request.end(body);
    });
  }
}

function readOutcome<T>(status: number, body: string, read: (json: unknown) => T): RequestOutcome<T> {
  if (status !== 200) return { kind: 'error', status, message: readErrorMessage(body) };
  try {
    return { kind: 'response', value: read(JSON.parse(body)) };
  } catch (cause) {
    if (cause instanceof SyntaxError || cause instanceof UnexpectedResponse) return { kind: 'no-response', cause };
    throw cause;
  }
}
