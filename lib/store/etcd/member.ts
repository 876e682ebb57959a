/**
 * One member of the cluster as it is spoken to: keep-alive connections, its token, and what became of a request. It
 * tells what was never sent from what may have been carried out. It repeats nothing but what a stale token refused.
 */

import http from 'node:http';
import https from 'node:https';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { StrangeAnswer, readError, readToken } from './answers.ts';
import { authenticateBody } from './bodies.ts';

/** What became of one request to one member. */
export type Attempt =
  | { readonly kind: 'answered'; readonly json: unknown }
  /** etcd says no; whether it was carried out nevertheless is for the reader of `code` and `text`. */
  | { readonly kind: 'refused'; readonly status: number; readonly code: number | undefined; readonly text: string }
  | { readonly kind: 'unsent'; readonly cause: unknown }
  /** It was sent, and nothing came back. */
  | { readonly kind: 'unanswered'; readonly cause: unknown };

export interface Credentials {
  readonly user: string;
  readonly password: string;
}

export interface Tls {
  /** PEM. */
  readonly ca?: string | Buffer;
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
}

/** A member is given so many connections; what is above that waits for one. */
const connectionsMax = 128;

const noToken = Promise.resolve('');

/** The texts of gRPC that mean: with another token it would do. Nothing was carried out. */
const staleToken = /invalid auth token|user name is empty|revision of auth store is old/;

export class Member {
  readonly url: string;
  readonly #agent: http.Agent | https.Agent;
  readonly #request: typeof http.request;
  readonly #credentials: Credentials | undefined;
  /** Those over which something can have been sent. */
  readonly #connected = new WeakSet<Socket>();
  #token: Promise<string | Attempt> | undefined;

  constructor(url: string, tls: Tls, credentials: Credentials | undefined) {
    const options = { keepAlive: true, maxSockets: connectionsMax };
    const isTls = url.startsWith('https:');
    this.url = url;
    this.#agent = isTls ? new https.Agent({ ...options, ...tls }) : new http.Agent(options);
    this.#request = isTls ? https.request : http.request;
    this.#credentials = credentials;
  }

  /** @param waitMs from when it has a connection to use, new or kept. @param deadline in the time of `performance.now()`. */
  async post(path: string, body: string, waitMs: number, deadline: number): Promise<Attempt> {
    for (let tries = 0; ; tries++) {
      const asked = this.#authenticate(waitMs, deadline);
      const token = await asked;
      const forget = (): void => {
        if (this.#token === asked) this.#token = undefined;
      };
      if (typeof token !== 'string') {
        forget();
        return token;
      }
      const attempt = await this.#send(path, body, token, waitMs, deadline);
      if (attempt.kind === 'answered') return attempt;
      const isStale = attempt.kind === 'refused' && staleToken.test(attempt.text);
      // A token that this member has not heard of yet keeps a request waiting for ever, and some versions of etcd
      // close the connection instead of refusing a token.
      if (isStale || attempt.kind === 'unanswered') forget();
      if (!isStale || this.#credentials === undefined || tries > 0) return attempt;
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  /** The token, empty where none is needed; or why there is none, in which case nothing else was sent. */
  #authenticate(waitMs: number, deadline: number): Promise<string | Attempt> {
    if (this.#credentials === undefined) return noToken;
    return (this.#token ??= this.#askForToken(this.#credentials, waitMs, deadline));
  }

  async #askForToken({ user, password }: Credentials, waitMs: number, deadline: number): Promise<string | Attempt> {
    const attempt = await this.#send('/v3/auth/authenticate', authenticateBody(user, password), '', waitMs, deadline);
    if (attempt.kind === 'answered') return readToken(attempt.json);
    if (attempt.kind === 'refused') return /authentication is not enabled/.test(attempt.text) ? '' : attempt;
    return { kind: 'unsent', cause: attempt.cause };
  }

  #send(path: string, body: string, token: string, waitMs: number, deadline: number): Promise<Attempt> {
    return new Promise((resolve) => {
      let isSent = false;
      const headers = {
        'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), ...(token === '' ? {} : { Authorization: token }),
      };
      const request = this.#request(this.url + path, { method: 'POST', agent: this.#agent, headers });
      const giveUp = (): void => void request.destroy(new Error('no answer in time'));
      let timer = setTimeout(giveUp, Math.max(0, deadline - performance.now()));
      const end = (attempt: Attempt): void => {
        clearTimeout(timer);
        resolve(attempt);
      };
      request.on('socket', (socket) => {
        clearTimeout(timer);
        timer = setTimeout(giveUp, Math.max(0, Math.min(waitMs, deadline - performance.now())));
        const connected = (): void => {
          this.#connected.add(socket);
          isSent = true;
        };
        if (this.#connected.has(socket)) isSent = true;
        else socket.once(socket instanceof TLSSocket ? 'secureConnect' : 'connect', connected);
      });
      request.on('error', (cause) => end({ kind: isSent ? 'unanswered' : 'unsent', cause }));
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', (cause) => end({ kind: 'unanswered', cause }));
        response.on('end', () => end(readAttempt(response.statusCode ?? 0, Buffer.concat(chunks).toString('utf8'))));
      });
      request.end(body);
    });
  }
}

function readAttempt(status: number, body: string): Attempt {
  if (status !== 200) return { kind: 'refused', status, ...readError(body) };
  try {
    return { kind: 'answered', json: JSON.parse(body) };
  } catch (error) {
    if (error instanceof SyntaxError) return { kind: 'unanswered', cause: new StrangeAnswer('the answer is not JSON') };
    throw error;
  }
}
