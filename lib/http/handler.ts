/**
 * The path of every request: its head is checked, it is routed, authenticated and authorized, its body is read, the route
 * answers. A route is called only when the whole request has arrived and is valid. The one place that catches errors.
 */

import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { authorize } from '../access.ts';
import type { Rules } from '../access.ts';
import type { Authenticator } from '../auth/authenticator.ts';
import { RequestContext } from '../auth/request-context.ts';
import type { LoggedRequest } from '../auth/request-context.ts';
import { RegistrarError, systemCode } from '../errors.ts';
import { parseLogin } from '../user.ts';
import { hasBody, readBody } from './body.ts';
import { isNavigation } from './header-values.ts';
import { asRegistrarError, isPrivate, problem } from './problem.ts';
import { readQuery } from './query.ts';
import { checkRequest } from './request-check.ts';
import type { Reply, Route, RouteParts } from './route.ts';
import { Router } from './router.ts';
import { signInRedirect } from './session-routes.ts';
import { send } from './send.ts';
import type { Done } from './send.ts';

export interface HandlerOptions {
  readonly routes: readonly Route[];
  readonly parts: RouteParts;
  readonly authenticator: Pick<Authenticator, 'begin' | 'admit' | 'headers' | 'authenticate'>;
  readonly rules: Rules;
  /** Whether responses carry Strict-Transport-Security. */
  readonly hsts: boolean;
  /** One line for the operator's log, and the request's id. */
  readonly report: (line: string, id: string) => void;
  /** For a browser that navigates to an address that does not exist. */
  readonly notFound: Reply;
  /** Called after each response. It throws nothing. */
  readonly onEnd?: (request: LoggedRequest) => void;
}

/** What the client expects before it sends its body. */
export type Expectation = 'none' | 'continue' | 'unknown';

/**
 * @param done is called when the response is handed over, before the client can have it: with false when the connection is
 *   to be closed after it.
 */
export type Handler = (request: IncomingMessage, response: ServerResponse, expectation: Expectation, done: Done) => Promise<void> | void;

const idBytes = 8;
let ids = '';

/** 64 random bits, so that it tells nothing of other requests. Taken from a pool: a call to the generator for each would cost 1 µs. */
export function newRequestId(): string {
  if (ids.length === 0) ids = randomBytes(512 * idBytes).toString('hex');
  const id = ids.slice(0, 2 * idBytes);
  ids = ids.slice(2 * idBytes);
  return id;
}

export function createHandler(options: HandlerOptions): Handler {
  const router = new Router(options.routes);
  const { authenticator, onEnd, hsts } = options;

  // Nothing here is a function with a name of its own: tsx would define that name again for every request, at 1 µs each.
  return async (request, response, expectation, done) => {
    const context = new RequestContext(request, response, newRequestId());
    authenticator.begin(context);
    let reply: Reply | undefined;
    try {
      reply = await respond(options, router, context, expectation);
    } catch (thrown) {
      reply = failure(options, context, thrown);
    }
    if (reply !== undefined) {
      context.status = reply.status;
      try {
        await send(context, reply, authenticator.headers(context), hsts, done);
      } catch (thrown) {
        abort(options, context, thrown);
      }
    }
    onEnd?.(context);
  };
}

async function respond(
  { authenticator, rules, parts }: HandlerOptions,
  router: Router,
  context: RequestContext,
  expectation: Expectation,
): Promise<Reply> {
  const { request, response } = context;
  const { shouldKeepAlive } = response;
  // After a head that is refused, where the next request begins cannot be trusted.
  response.shouldKeepAlive = false;
  checkRequest(context);
  if (expectation === 'unknown') throw new RegistrarError('expectation-failed', 'The only expectation that is met is 100-continue');
  response.shouldKeepAlive = shouldKeepAlive;
  authenticator.admit(context);
  const { route, login } = router.find(context.method, context.path);
  context.route = route;
  if (login !== undefined) {
    const parsed = parseLogin(login);
    if ('login' in parsed) context.login = parsed.login;
    else context.loginProblem = parsed.problem;
  }
  const principal = await authenticator.authenticate(context, route.action);
  context.principal = principal;
  authorize(principal, route.action, rules, context.login);
  const query = route.query === 'any' ? none : readQuery(context.query, route.query ?? []);
  const body = route.fields === undefined && !hasBody(request) ? none : await readBody(context, route.fields, expectation === 'continue');
  return route.handle(parts, context, body as never, query);
}

const none = {};

/** The response to what was thrown; undefined if the client has closed the connection. */
function failure({ report, parts, notFound }: HandlerOptions, context: RequestContext, thrown: unknown): Reply | undefined {
  const { request, response, id } = context;
  const error = asRegistrarError(thrown);
  const isGone = response.destroyed || request.socket.destroyed;
  // A client that leaves in the middle of its body is no failure of the service.
  if (isGone && systemCode(thrown) === 'ECONNRESET') return undefined;
  if (error.cause !== undefined || isPrivate(error.code)) report(`request ${id} failed: ${describe(error)}`, id);
  context.code = error.code;
  if (isGone) return undefined;
  const redirect = error.code === 'unauthenticated' ? signInRedirect(context, parts.prefix) : undefined;
  if (redirect !== undefined) return redirect;
  if (error.code === 'not-found' && context.route === undefined && isNavigation(request.headers)) return notFound;
  const reply = problem(error, id);
  return error.code === 'unauthenticated' ? { ...reply, headers: { ...reply.headers, 'WWW-Authenticate': challenge(request) } } : reply;
}

/** Both ways (RFC 9110, 11.6.1); a script of the page must not make the browser ask for a password in a window of its own. */
function challenge({ headers }: IncomingMessage): string {
  const bearer = 'Bearer realm="registrar"';
  return headers['sec-fetch-dest'] === 'empty' ? bearer : `Basic realm="registrar", charset="UTF-8", ${bearer}`;
}

/** The status is sent, so all that is left is to end the connection before the end of the body. */
function abort({ report }: HandlerOptions, context: RequestContext, thrown: unknown): void {
  const { response, id } = context;
  context.code = asRegistrarError(thrown).code;
  if (!response.destroyed) report(`request ${id} failed while its response was sent: ${describe(asRegistrarError(thrown))}`, id);
  response.destroy();
}

function describe(error: RegistrarError): string {
  const causes: string[] = [];
  for (let at: unknown = error; at instanceof Error && causes.length < 5; at = at.cause) {
    causes.push(at instanceof RegistrarError ? `${at.code}: ${at.message}` : (at.stack ?? at.message));
  }
  return causes.join(' <- ');
}
