/**
 * What happens to every request: it is checked for what the parser lets through, admitted, routed,
 * answered. The one place that catches errors.
 */

import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { RegistrarError } from '../errors.ts';
import type { Approach } from '../access.ts';
import { readFields } from './body.ts';
import type { Call, Reply, Route } from './message.ts';
import { asRegistrarError, problem } from './problem.ts';
import { Router } from './router.ts';
import type { RouteEntry } from './routes.ts';

export interface HandlerOptions {
  readonly routes: readonly RouteEntry[];
  /** Throws unless the request may be served at all. */
  readonly admit: (approach: Approach) => void;
  /** One line for the operator's log. */
  readonly report: (line: string) => void;
}

/** @param wantsContinue if the client waits for a 100 before it sends the body. */
export type Handler = (request: IncomingMessage, response: ServerResponse, wantsContinue: boolean) => Promise<void>;

/** Sent with every answer: none of them may be kept, and none is anything but what its type says. */
const everyHeader = { 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff' };

/** These stand once in a sane request; the parser takes the first and drops the rest. */
const singleHeaders = ['host', 'content-type', 'authorization', 'content-length'];

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
  /** Requests on a connection that are not answered yet. */
  const open = new WeakMap<object, number>();

  return async (request, response, wantsContinue) => {
    const id = newRequestId();
    const { socket } = request;
    const before = open.get(socket) ?? 0;
    open.set(socket, before + 1);
    let reply: Reply;
    let isSound = false;
    try {
      if (before > 0) throw malformed('the next request came before the answer to the last one (pipelining)');
      checkMessage(request);
      isSound = true;
      admit(approachOf(request));
      reply = await answer(router, request, response, wantsContinue);
    } catch (thrown) {
      const error = asRegistrarError(thrown);
      if (response.destroyed) return;
      if (error.cause !== undefined) report(`request ${id} failed: ${describe(error)}`);
      reply = problem(error, id);
      // Where the next request begins is not to be trusted any more.
      if (!isSound) response.shouldKeepAlive = false;
    }
    try {
      await send(request, response, reply, id, () => open.set(socket, (open.get(socket) ?? 1) - 1));
    } catch (thrown) {
      // The status is out, so all that is left is to end the connection before its end is reached.
      if (!response.destroyed) report(`request ${id} failed while it was answered: ${describe(asRegistrarError(thrown))}`);
      response.destroy();
    }
  };
}

async function answer(
  router: Router<Route>,
  request: IncomingMessage,
  response: ServerResponse,
  wantsContinue: boolean,
): Promise<Reply> {
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
  let controller: AbortController | undefined;
  const call: Call = {
    method,
    params,
    query,
    headers: request.headers,
    get signal() {
      // Only what takes long asks for it.
      if (controller === undefined) {
        const made = new AbortController();
        controller = made;
        response.once('close', () => {
          if (!response.writableFinished) made.abort(new RegistrarError('timeout', 'The client is gone'));
        });
      }
      return controller.signal;
    },
    readFields: (fields) => readFields(request, fields, () => (wantsContinue ? response.writeContinue() : undefined)),
  };
  return handler(call);
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
  if (headers.upgrade !== undefined) throw malformed('there is nothing to upgrade to');
  for (const name of singleHeaders) {
    let times = 0;
    for (let n = 0; n < rawHeaders.length; n += 2) if (rawHeaders[n]?.toLowerCase() === name) times++;
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

/** @param done is called when the whole answer has been handed over, and before the client can have it. */
async function send(
  request: IncomingMessage,
  response: ServerResponse,
  { status, headers, body }: Reply,
  id: string,
  done: () => void,
): Promise<void> {
  // What is left of a body that nobody wants is dropped with its connection.
  const hasBody = request.headers['transfer-encoding'] !== undefined || (request.headers['content-length'] ?? '0') !== '0';
  const keep = response.shouldKeepAlive && (request.complete || !hasBody);
  const all: Record<string, string | number> = { ...everyHeader, 'X-Request-Id': id, ...headers };
  if (!keep) all.Connection = 'close';
  if (body === undefined || typeof body === 'string' || Buffer.isBuffer(body)) {
    if (status !== 204 && status !== 304) all['Content-Length'] = body === undefined ? 0 : Buffer.byteLength(body);
    response.writeHead(status, all);
    done();
    response.end(body);
  } else {
    response.writeHead(status, all);
    if (request.method !== 'HEAD') {
      for await (const chunk of body) {
        if (response.destroyed) return;
        if (!response.write(chunk)) await drained(response);
      }
    }
    done();
    response.end();
  }
  if (!request.complete) request.resume();
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
