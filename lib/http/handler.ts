/**
 * What happens to every request: it is checked for what the parser lets through, admitted, routed,
 * answered. The one place that catches errors.
 */

import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { RegistrarError, systemCode } from '../errors.ts';
import type { Approach } from '../access.ts';
import { readFields } from './body.ts';
import type { Call, FieldTable, FieldValues, Reply, Route } from './message.ts';
import { asRegistrarError, isPrivate, problem } from './problem.ts';
import { Router } from './router.ts';
import type { RouteEntry } from './routes.ts';

export interface HandlerOptions {
  readonly routes: readonly RouteEntry[];
  /** Throws unless the request may be served at all. */
  readonly admit: (approach: Approach) => void;
  /** One line for the operator's log. */
  readonly report: (line: string) => void;
}

/** What the client expects before it sends its body. */
export type Expectation = 'none' | 'continue' | 'unknown';

/**
 * @param done is called when the answer is handed over, before the client can have it: with false when the
 *   connection is to be closed behind it.
 */
export type Handler = (
  request: IncomingMessage,
  response: ServerResponse,
  expectation: Expectation,
  done: (keepAlive: boolean) => void,
) => Promise<void>;

/** Sent with every answer: none of them may be kept, and none is anything but what its type says. */
const everyHeader = ['Cache-Control', 'no-store', 'X-Content-Type-Options', 'nosniff', 'X-Request-Id'] as const;

/** These stand once in a sane request; the parser takes the first and drops the rest. */
const singleHeaders = ['host', 'content-type', 'authorization', 'content-length'];

/** The parser would drop those above a count of its own, and with them what they forbid. */
const headersMax = 64;

/** A body that nobody wants is read for so long, lest closing on it takes the answer away from its reader. */
export const lingerMs = 1_000;
const lingerBytesMax = 8 << 20;

/** One for each process, then a number: enough to find a request in the log. */
const processPart = randomBytes(6).toString('hex');
let requests = 0;

export function newRequestId(): string {
  requests++;
  return `${processPart}-${requests.toString(36)}`;
}

export function createHandler({ routes, admit, report }: HandlerOptions): Handler {
  const router = new Router<Route>();
  for (const { method, pattern, route } of routes) router.add(method, pattern, route);

  return async (request, response, expectation, done) => {
    const id = newRequestId();
    let reply: Reply;
    let isSound = false;
    try {
      checkMessage(request);
      // Whether a body follows is anybody's guess.
      isSound = expectation !== 'unknown';
      admit(approachOf(request));
      if (expectation === 'unknown') throw new RegistrarError('expectation-failed', 'The only expectation that is met is 100-continue');
      reply = await answer(router, request, response, expectation === 'continue');
    } catch (thrown) {
      const error = asRegistrarError(thrown);
      const isGone = response.destroyed || request.socket.destroyed;
      // A client that leaves in the middle of its body is no failure of ours.
      if (isGone && systemCode(thrown) === 'ECONNRESET') return;
      if (error.cause !== undefined || isPrivate(error.code)) report(`request ${id} failed: ${describe(error)}`);
      if (isGone) return;
      reply = problem(error, id);
      // Where the next request begins is not to be trusted any more.
      if (!isSound) response.shouldKeepAlive = false;
    }
    try {
      await send(request, response, reply, id, done);
    } catch (thrown) {
      // The status is out, so all that is left is to end the connection before its end is reached.
      if (!response.destroyed) report(`request ${id} failed while it was answered: ${describe(asRegistrarError(thrown))}`);
      response.destroy();
    }
  };
}

function answer(
  router: Router<Route>,
  request: IncomingMessage,
  response: ServerResponse,
  wantsContinue: boolean,
): Promise<Reply> | Reply {
  const { method = '', url = '' } = request;
  if (method === 'OPTIONS' && url === '*') return { status: 204, headers: { Allow: 'DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT' } };
  const [path = '', query = ''] = splitTarget(url);
  const lookup = find(router, method, path);
  if (lookup.found === 'nothing') throw new RegistrarError('not-found', 'There is nothing at this path: users are at /user/');
  if (lookup.found === 'path') {
    if (method === 'OPTIONS') return { status: 204, headers: { Allow: lookup.allow.join(', ') } };
    const { allow } = lookup;
    throw new RegistrarError('method-not-allowed', `The method is not one of ${allow.join(', ')}`, { allow });
  }
  const { handler, params } = lookup.match;
  return handler(new IncomingCall(params, query, request, response, wantsContinue));
}

/** A class and no literal: V8 would define the accessor anew for every request, at 3 µs each. */
class IncomingCall implements Call {
  readonly params: Call['params'];
  readonly query: string;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #wantsContinue: boolean;
  #controller: AbortController | undefined;

  constructor(params: Call['params'], query: string, request: IncomingMessage, response: ServerResponse, wantsContinue: boolean) {
    this.params = params;
    this.query = query;
    this.#request = request;
    this.#response = response;
    this.#wantsContinue = wantsContinue;
  }

  get headers(): Call['headers'] {
    return this.#request.headers;
  }

  /** Only what takes long asks for it. */
  get signal(): AbortSignal {
    if (this.#controller !== undefined) return this.#controller.signal;
    const controller = new AbortController();
    this.#controller = controller;
    const response = this.#response;
    response.once('close', () => {
      if (!response.writableFinished) controller.abort(gone());
    });
    if (response.destroyed) controller.abort(gone());
    return controller.signal;
  }

  readFields<Name extends string>(fields: FieldTable<Name>): Promise<FieldValues<Name>> {
    return readFields(this.#request, fields, () => {
      if (this.#wantsContinue) this.#response.writeContinue();
    });
  }
}

function gone(): RegistrarError {
  return new RegistrarError('timeout', 'The client is gone');
}

function find(router: Router<Route>, method: string, path: string): ReturnType<Router<Route>['find']> {
  try {
    return router.find(method, path);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    throw new RegistrarError('malformed', 'The path is not percent-encoded UTF-8');
  }
}

function splitTarget(url: string): [string, string] {
  const cut = url.indexOf('?');
  return cut < 0 ? [url, ''] : [url.slice(0, cut), url.slice(cut + 1)];
}

/** What the parser accepts and two servers may read in two ways, or that nobody sends in good faith. */
function checkMessage(request: IncomingMessage): void {
  const { url = '', method, rawHeaders, headers } = request;
  const isTarget = /^\/[\x21\x22\x24-\x7e]*$/.test(url) || (method === 'OPTIONS' && url === '*');
  if (!isTarget) throw malformed('the target has to be a path, as in /user/');
  if (rawHeaders.length > 2 * headersMax) throw new RegistrarError('headers-too-large', `There are more than ${headersMax} headers`);
  if (headers.upgrade !== undefined) throw malformed('there is nothing to upgrade to');
  const coding = headers['transfer-encoding'];
  if (coding !== undefined && coding.toLowerCase() !== 'chunked') throw malformed('the only transfer coding is chunked');
  for (const name of singleHeaders) {
    let times = 0;
    for (let n = 0; n < rawHeaders.length; n += 2) {
      const raw = rawHeaders[n];
      if (raw?.length === name.length && raw.toLowerCase() === name) times++;
    }
    if (times > 1) throw malformed(`the header ${name} stands there ${times} times`);
    if (times === 0 && name === 'host' && request.httpVersion === '1.1') throw malformed('it has no header host');
  }
}

function malformed(reason: string): RegistrarError {
  return new RegistrarError('malformed', `Cannot take the request: ${reason}`);
}

function approachOf({ method = '', socket, httpVersion, headers }: IncomingMessage): Approach {
  return { method, peer: socket.remoteAddress, httpVersion, headers };
}

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  { status, headers, body }: Reply,
  id: string,
  done: (keepAlive: boolean) => void,
): Promise<void> {
  const hasBody = request.headers['transfer-encoding'] !== undefined || (request.headers['content-length'] ?? '0') !== '0';
  const keep = response.shouldKeepAlive && (request.complete || !hasBody);
  // A flat list is what Node takes fastest.
  const all: string[] = [...everyHeader, id];
  for (const name in headers) all.push(name, headers[name] ?? '');
  if (!keep) all.push('Connection', 'close');
  if (body === undefined || typeof body === 'string' || Buffer.isBuffer(body)) {
    if (status !== 204 && status !== 304) all.push('Content-Length', String(body === undefined ? 0 : Buffer.byteLength(body)));
    response.writeHead(status, all);
    done(keep);
    if (hasBody && !request.complete) {
      if (body !== undefined) response.write(body);
      else response.flushHeaders();
      await linger(request);
      response.end();
    } else {
      response.end(body);
    }
  } else {
    response.writeHead(status, all);
    if (request.method !== 'HEAD') {
      for await (const chunk of body) {
        if (response.destroyed) return;
        if (!response.write(chunk)) await drained(response);
      }
    }
    done(keep);
    response.end();
  }
}

/** Reads and drops what comes, until it ends or it is enough. */
function linger(request: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    let bytes = 0;
    const timer = setTimeout(settle, lingerMs);
    function settle(): void {
      clearTimeout(timer);
      request.off('data', count);
      request.resume();
      resolve();
    }
    function count(chunk: Buffer): void {
      bytes += chunk.length;
      if (bytes > lingerBytesMax) settle();
    }
    for (const event of ['end', 'close', 'error']) request.once(event, settle);
    request.on('data', count);
  });
}

/** Resolves when the client has read on, or is gone. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      response.off('drain', settle);
      response.off('close', settle);
      resolve();
    };
    response.on('drain', settle);
    response.on('close', settle);
    if (response.destroyed) settle();
  });
}

function describe(error: RegistrarError): string {
  const causes: string[] = [];
  for (let at: unknown = error; at instanceof Error && causes.length < 5; at = at.cause) {
    causes.push(at instanceof RegistrarError ? `${at.code}: ${at.message}` : (at.stack ?? at.message));
  }
  return causes.join(' <- ');
}
