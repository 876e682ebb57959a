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
) => Promise<void> | void;

/** Sent with every answer: none of them may be kept, and none is anything but what its type says. */
const everyHeader = ['Cache-Control', 'no-store', 'X-Content-Type-Options', 'nosniff', 'X-Request-Id'] as const;

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
  return `${processPart}-${requests}`;
}

export function createHandler({ routes, admit, report }: HandlerOptions): Handler {
  const router = new Router<Route>();
  for (const { method, pattern, route } of routes) router.add(method, pattern, route);

  // What need not wait is no promise, and nothing here is a function with a name of its own: tsx would define that
  // name anew for every request, at 1 µs each.
  return (request, response, expectation, done) => {
    const exchange = { request, response, id: newRequestId(), done, report };
    let isSound = false;
    let reply: Reply | Promise<Reply> | undefined;
    try {
      checkMessage(request);
      // Whether a body follows is anybody's guess.
      isSound = expectation !== 'unknown';
      admit(approachOf(request));
      if (expectation === 'unknown') throw new RegistrarError('expectation-failed', 'The only expectation that is met is 100-continue');
      reply = answer(router, request, response, expectation === 'continue');
    } catch (thrown) {
      reply = failure(exchange, thrown);
      // Where the next request begins is not to be trusted any more.
      if (!isSound) response.shouldKeepAlive = false;
    }
    if (!(reply instanceof Promise)) return give(exchange, reply);
    return reply.catch((thrown: unknown) => failure(exchange, thrown)).then((settled) => give(exchange, settled));
  };
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly id: string;
  readonly done: (keepAlive: boolean) => void;
  readonly report: (line: string) => void;
}

/** The answer to what was thrown; undefined if nobody is there any more to have one. */
function failure({ request, response, id, report }: Exchange, thrown: unknown): Reply | undefined {
  const error = asRegistrarError(thrown);
  const isGone = response.destroyed || request.socket.destroyed;
  // A client that leaves in the middle of its body is no failure of ours.
  if (isGone && systemCode(thrown) === 'ECONNRESET') return undefined;
  if (error.cause !== undefined || isPrivate(error.code)) report(`request ${id} failed: ${describe(error)}`);
  return isGone ? undefined : problem(error, id);
}

function give(exchange: Exchange, reply: Reply | undefined): Promise<void> | undefined {
  if (reply === undefined) return undefined;
  try {
    return send(exchange, reply)?.catch((thrown: unknown) => cut(exchange, thrown));
  } catch (thrown) {
    cut(exchange, thrown);
    return undefined;
  }
}

/** The status is out, so all that is left is to end the connection before its end is reached. */
function cut({ response, id, report }: Exchange, thrown: unknown): void {
  if (!response.destroyed) report(`request ${id} failed while it was answered: ${describe(asRegistrarError(thrown))}`);
  response.destroy();
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
  let seen = 0;
  for (let n = 0; n < rawHeaders.length; n += 2) {
    const bit = singleHeaderBit(rawHeaders[n]!);
    if ((seen & bit) !== 0) throw malformed(`the header ${rawHeaders[n]!.toLowerCase()} stands there more than once`);
    seen |= bit;
  }
  if (headers.host === undefined && request.httpVersion === '1.1') throw malformed('it has no header host');
}

/** One bit for each header that stands once in a sane request (the parser takes the first and drops the rest); 0 for others. */
function singleHeaderBit(name: string): number {
  switch (name.length) {
    case 4: return name.toLowerCase() === 'host' ? 1 : 0;
    case 12: return name.toLowerCase() === 'content-type' ? 2 : 0;
    case 13: return name.toLowerCase() === 'authorization' ? 4 : 0;
    case 14: return name.toLowerCase() === 'content-length' ? 8 : 0;
    default: return 0;
  }
}

function malformed(reason: string): RegistrarError {
  return new RegistrarError('malformed', `Cannot take the request: ${reason}`);
}

function approachOf({ method = '', socket, httpVersion, headers }: IncomingMessage): Approach {
  return { method, peer: socket.remoteAddress, httpVersion, headers };
}

function send({ request, response, id, done }: Exchange, { status, headers, body }: Reply): Promise<void> | undefined {
  const hasBody = request.headers['transfer-encoding'] !== undefined || (request.headers['content-length'] ?? '0') !== '0';
  const keep = response.shouldKeepAlive && (request.complete || !hasBody);
  // A flat list is what Node takes fastest.
  const all: string[] = [...everyHeader, id];
  for (const name in headers) all.push(name, headers[name]!);
  if (!keep) all.push('Connection', 'close');
  if (body !== undefined && typeof body !== 'string' && !Buffer.isBuffer(body)) {
    response.writeHead(status, all);
    return sendStream(request, response, body).then((isWhole) => {
      if (!isWhole) return;
      done(keep);
      response.end();
    });
  }
  const bytes = body === undefined ? 0 : Buffer.byteLength(body);
  if (status !== 204 && status !== 304) all.push('Content-Length', String(bytes));
  response.writeHead(status, all);
  done(keep);
  if (hasBody && !request.complete) {
    if (body !== undefined) response.write(body);
    else response.flushHeaders();
    return linger(request).then(() => void response.end());
  }
  // Text of as many bytes as characters is ASCII, which Node need not encode: so head and body are one string to it.
  if (typeof body === 'string') response.end(body, bytes === body.length ? 'latin1' : 'utf8');
  else response.end(body);
  return undefined;
}

/** @returns false if the client has left. */
async function sendStream(request: IncomingMessage, response: ServerResponse, body: AsyncIterable<Buffer>): Promise<boolean> {
  if (request.method === 'HEAD') return true;
  for await (const chunk of body) {
    if (response.destroyed) return false;
    if (!response.write(chunk)) await drained(response);
  }
  return true;
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
