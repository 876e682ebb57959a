/**
 * What happens to every request: it is checked for what the parser lets through, admitted, routed,
 * answered. The one place that catches errors.
 */

import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { authorize } from '../access.ts';
import type { Action, Principal, Rules } from '../access.ts';
import { RegistrarError, systemCode } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import type { Observer, Served } from '../ops/served.ts';
import { parseLogin } from '../user.ts';
import { readFields } from './body.ts';
import { preflightHeaders } from './cors.ts';
import type { Gate, Visit } from './gate.ts';
import type { Call, FieldTable, FieldValues, Reply } from './message.ts';
import { asRegistrarError, isPrivate, problem } from './problem.ts';
import { checkMessage } from './request-check.ts';
import { Router } from './router.ts';
import type { RouteEntry } from './routes.ts';
import { send } from './send.ts';
import type { Sending } from './send.ts';

export interface HandlerOptions {
  readonly routes: readonly RouteEntry[];
  readonly gate: GateView;
  readonly rules: Rules;
  /** One line for the operator's log, and the request's id. */
  readonly report: (line: string, id: string) => void;
  readonly observer?: Observer;
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

/** One for each process, then a number: enough to find a request in the log. */
const processPart = randomBytes(6).toString('hex');
let requests = 0;

export function newRequestId(): string {
  requests++;
  return `${processPart}-${requests}`;
}

export function createHandler({ routes, gate, rules, report, observer }: HandlerOptions): Handler {
  const router = new Router<RouteEntry>();
  for (const entry of routes) router.add(entry.method, entry.pattern, entry);
  const door: Door = { router, gate, rules };

  // What need not wait is no promise, and nothing here is a function with a name of its own: tsx would define that
  // name anew for every request, at 1 µs each.
  return (request, response, expectation, done) => {
    const visit = gate.visit(request);
    const startedMs = observer === undefined ? 0 : performance.now();
    observer?.begin();
    const exchange: Exchange = {
      request, response, id: newRequestId(), done, report, gate, visit, observer, startedMs,
      method: request.method ?? '', route: undefined, principal: undefined, status: goneStatus, bytes: 0, code: undefined,
    };
    let isSound = false;
    let reply: Reply | Promise<Reply> | undefined;
    try {
      checkMessage(request);
      // Whether a body follows is anybody's guess.
      isSound = expectation !== 'unknown';
      gate.admit(visit, request);
      if (expectation === 'unknown') throw new RegistrarError('expectation-failed', 'The only expectation that is met is 100-continue');
      reply = answer(door, exchange, expectation === 'continue');
    } catch (thrown) {
      reply = failure(exchange, thrown);
      // Where the next request begins is not to be trusted any more.
      if (!isSound) response.shouldKeepAlive = false;
    }
    if (!(reply instanceof Promise)) return give(exchange, reply);
    return reply.catch((thrown: unknown) => failure(exchange, thrown)).then((settled) => give(exchange, settled));
  };
}

type GateView = Pick<Gate, 'visit' | 'admit' | 'headers' | 'principal'>;

interface Door {
  readonly router: Router<RouteEntry>;
  readonly gate: GateView;
  readonly rules: Rules;
}

/** What is logged where nobody is there to have an answer: nginx's number for it. */
const goneStatus = 499;

interface Exchange extends Sending, Served {
  route: RouteEntry | undefined;
  principal: Principal | undefined;
  status: number;
  code: ErrorCode | undefined;
  bytes: number;
  readonly observer: Observer | undefined;
  readonly report: HandlerOptions['report'];
  readonly gate: GateView;
  readonly visit: Visit;
}

/** The answer to what was thrown; undefined if nobody is there any more to have one. */
function failure(exchange: Exchange, thrown: unknown): Reply | undefined {
  const { request, response, id, report } = exchange;
  const error = asRegistrarError(thrown);
  const isGone = response.destroyed || request.socket.destroyed;
  // A client that leaves in the middle of its body is no failure of ours.
  if (isGone && systemCode(thrown) === 'ECONNRESET') return undefined;
  if (error.cause !== undefined || isPrivate(error.code)) report(`request ${id} failed: ${describe(error)}`, id);
  exchange.code = error.code;
  if (isGone) return undefined;
  const reply = problem(error, id);
  return error.code === 'unauthenticated' ? { ...reply, headers: { ...reply.headers, 'WWW-Authenticate': challenge(request) } } : reply;
}

/** Both ways (RFC 9110, 11.6.1); a script of the page is not to have the browser ask for a password by a window of its own. */
function challenge({ headers }: IncomingMessage): string {
  const bearer = 'Bearer realm="registrar"';
  return headers['sec-fetch-dest'] === 'empty' ? bearer : `Basic realm="registrar", charset="UTF-8", ${bearer}`;
}

function give(exchange: Exchange, reply: Reply | undefined): Promise<void> | undefined {
  if (reply === undefined) return end(exchange);
  exchange.status = reply.status;
  try {
    const sent = send(exchange, reply, exchange.gate.headers(exchange.visit));
    if (sent !== undefined) return sent.catch((thrown: unknown) => cut(exchange, thrown)).then(() => end(exchange));
  } catch (thrown) {
    cut(exchange, thrown);
  }
  return end(exchange);
}

function end(exchange: Exchange): undefined {
  exchange.observer?.ended(exchange);
}

/** The status is out, so all that is left is to end the connection before its end is reached. */
function cut(exchange: Exchange, thrown: unknown): void {
  const { response, id, report } = exchange;
  exchange.code = asRegistrarError(thrown).code;
  if (!response.destroyed) report(`request ${id} failed while it was answered: ${describe(asRegistrarError(thrown))}`, id);
  response.destroy();
}

function answer(
  { router, gate, rules }: Door,
  exchange: Exchange,
  wantsContinue: boolean,
): Promise<Reply> | Reply {
  const { request, response, visit } = exchange;
  const { method = '', url = '' } = request;
  if (method === 'OPTIONS' && url === '*') return { status: 204, headers: { Allow: 'DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT' } };
  const [path = '', query = ''] = splitTarget(url);
  const lookup = find(router, method, path);
  if (lookup.found === 'nothing') throw new RegistrarError('not-found', 'There is nothing at this path: users are at /user/');
  if (lookup.found === 'path') {
    if (method === 'OPTIONS') {
      const preflight = request.headers['access-control-request-method'] === undefined ? undefined : preflightHeaders();
      return { status: 204, headers: { Allow: lookup.allow.join(', '), ...preflight } };
    }
    const { allow } = lookup;
    throw new RegistrarError('method-not-allowed', `The method is not one of ${allow.join(', ')}`, { allow });
  }
  const { handler: entry, params } = lookup.match;
  exchange.route = entry;
  const call = new IncomingCall(params, query, request, response, visit, wantsContinue);
  const principal = gate.principal(visit, request.headers, entry.action, () => call.signal);
  if (principal instanceof Promise) return principal.then((settled) => carryOut(exchange, entry, call, settled, rules));
  return carryOut(exchange, entry, call, principal, rules);
}

function carryOut(
  exchange: Exchange,
  { action, route }: RouteEntry,
  call: IncomingCall,
  principal: Principal,
  rules: Rules,
): Promise<Reply> | Reply {
  exchange.principal = principal;
  authorize(principal, action, rules, ownerLogin(call, principal, action));
  call.principal = principal;
  return route(call);
}

/** The login that the path names, canonical; only a user's rights depend on it. */
function ownerLogin({ params }: Call, principal: Principal, action: Action): string | undefined {
  if (principal.kind !== 'user' || params.login === undefined || action === 'register') return undefined;
  const parsed = parseLogin(params.login);
  return 'login' in parsed ? parsed.login : undefined;
}

/** A class and no literal: V8 would define the accessor anew for every request, at 3 µs each. */
class IncomingCall implements Call {
  readonly params: Call['params'];
  readonly query: string;
  readonly visit: Visit;
  principal: Principal = { kind: 'anyone' };
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #wantsContinue: boolean;
  #controller: AbortController | undefined;

  constructor(
    params: Call['params'],
    query: string,
    request: IncomingMessage,
    response: ServerResponse,
    visit: Visit,
    wantsContinue: boolean,
  ) {
    this.params = params;
    this.visit = visit;
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

function find(router: Router<RouteEntry>, method: string, path: string): ReturnType<Router<RouteEntry>['find']> {
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

function describe(error: RegistrarError): string {
  const causes: string[] = [];
  for (let at: unknown = error; at instanceof Error && causes.length < 5; at = at.cause) {
    causes.push(at instanceof RegistrarError ? `${at.code}: ${at.message}` : (at.stack ?? at.message));
  }
  return causes.join(' <- ');
}
