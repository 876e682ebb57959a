/**
 * The routes of sessions: a token for a password, the user of a token, forward authentication, and the end of all sessions of
 * a user. The token is a JWT that other services verify with the JWKS; the cookie is sent by the browser and read by no script.
 */

import type { UserPrincipal } from '../access.ts';
import { clearCookie, setCookie } from '../auth/credentials.ts';
import type { RequestContext } from '../auth/request-context.ts';
import { RegistrarError } from '../errors.ts';
import { publicUser } from '../user.ts';
import type { User } from '../user.ts';
import type { IssuedToken, Sessions } from '../auth/sessions.ts';
import { isNavigation } from './header-values.ts';
import { json, route } from './route.ts';
import type { Reply, Route } from './route.ts';

/** Who the user is, for an application behind the proxy. It keys data by the id: a login may be given again. */
const identity = ['X-User', 'X-User-Id'] as const;

export const sessionRoutes: readonly Route[] = [
  route({
    method: 'POST', pattern: '/session', action: 'open-session', fields: { login: 'required', password: 'required', cookie: 'optional' },
    describe: {
      id: 'openSession', tag: 'sessions', summary: 'Sign in',
      description: 'Unknown login and wrong password get the same response, after the same work.',
      body: 'SignIn',
      responses: { 201: { is: 'The session.', headers: ['Set-Cookie'], content: { 'application/json': 'Session' } } }, errors: ['disabled'],
    },
    handle: async ({ sessions, authenticator, audit }, context, { login, password, cookie }) => {
      if (cookie !== undefined && cookie !== 'session' && cookie !== 'persistent') throw invalidCookie();
      const user = await authenticator.signIn(context, login, password);
      audit('signed-in', context, user.id);
      const issued = await sessions.issue(user, cookie === undefined ? 'bearer' : 'cookie', cookie === 'persistent');
      const body = { expires: issued.expires, user: publicUser(user) };
      if (cookie === undefined) return json(201, { token: issued.token, type: 'Bearer', ...body });
      return json(201, body, { 'Set-Cookie': cookieOf(issued, cookie === 'persistent') });
    },
  }),
  route({
    method: 'GET', pattern: '/session', action: 'read-session',
    describe: {
      id: 'readSession', tag: 'sessions', summary: 'Get the user of the session',
      description: 'A cookie is renewed when half of its lifetime is over.',
      responses: { 200: { is: 'The user.', headers: [...identity, 'Set-Cookie'], content: { 'application/json': 'SignedIn' } } },
      errors: ['disabled'],
    },
    handle: ({ sessions }, context) => {
      const principal = userOf(context);
      return identify(sessions, principal, (headers, renewed) => {
        const expires = renewed?.expires ?? principal.session?.expiresAt;
        const body = `{"user":${principal.json},"expires":${expires === undefined ? 'null' : `"${expires}"`}}\n`;
        return { status: 200, headers: { 'Content-Type': 'application/json', ...headers }, body };
      });
    },
  }),
  route({
    method: 'DELETE', pattern: '/session', action: 'close-session',
    describe: {
      id: 'closeSession', tag: 'sessions', summary: 'Sign out in this browser',
      description: 'Clears the cookie. `DELETE /user/{login}/session` ends every session of a user.',
      responses: { 204: { is: 'The cookie is cleared.', headers: ['Set-Cookie'] } },
    },
    handle: (_parts, { headers }) => {
      if (headers.authorization === undefined) return { status: 204, headers: { 'Set-Cookie': clearCookie() } };
      const remedy = 'A token is good until it expires. DELETE /user/{login}/session ends every session of the user.';
      throw new RegistrarError('malformed', `Signing out clears a cookie, and this request has Authorization. ${remedy}`);
    },
  }),
  route({
    method: 'DELETE', pattern: '/user/{login}/session', action: 'end-sessions',
    describe: {
      id: 'endSessions', tag: 'sessions', summary: 'End every session of a user',
      description: 'Every token and password link that was issued for the user until now becomes invalid.',
      responses: { 204: { is: 'They are ended.', headers: ['Set-Cookie'] } }, errors: ['conflict'],
    },
    handle: async ({ registry, audit }, context) => {
      const { principal } = context;
      const { id } = await registry.endSessions(loginOf(context), principal?.kind === 'user' ? requireSame(principal) : undefined);
      audit('sessions-ended', context, id);
      const headers = principal?.kind === 'user' && principal.by === 'cookie' ? { 'Set-Cookie': clearCookie() } : undefined;
      return { status: 204, headers };
    },
  }),
  route({
    method: 'GET', pattern: '/auth', action: 'forward-auth', query: 'any',
    describe: {
      id: 'authenticate', tag: 'sessions', summary: 'Authenticate a request that a proxy forwards',
      description: 'For `auth_request` of nginx and forward authentication of Caddy and Traefik. A browser that navigates is redirected.',
      responses: {
        200: { is: 'The request is authenticated.', headers: [...identity, 'Set-Cookie'] },
        303: { is: 'The page to sign in at.', headers: ['Location'] },
      },
      errors: ['disabled'],
    },
    handle: ({ sessions }, context) => identify(sessions, userOf(context), (headers) => ({ status: 200, headers })),
  }),
  route({
    method: 'GET', pattern: '/.well-known/jwks.json', action: 'public',
    describe: {
      id: 'readKeys', tag: 'service', summary: 'The keys that verify session tokens',
      description: 'The current key, and those whose tokens have not all expired.',
      responses: { 200: { is: 'The keys.', content: { 'application/jwk-set+json': 'KeySet' } } },
    },
    handle: async ({ sessions }) => ({
      status: 200, headers: { 'Content-Type': 'application/jwk-set+json' }, body: `${await sessions.jwks()}\n`,
    }),
  }),
];

/** Fails if the user is no longer the one that was authenticated: the login may be another user's, or the password changed. */
export function requireSame({ id, version }: UserPrincipal): (user: User) => void {
  return (user) => {
    if (user.id !== id || user.version !== version) {
      throw new RegistrarError('unauthenticated', 'The user was changed meanwhile, and the credentials are no longer valid');
    }
  };
}

/** Names the user in headers, and renews a cookie when it is due; otherwise without a promise, since proxies ask for every request. */
function identify(
  sessions: Sessions,
  { by, session, login, id }: UserPrincipal,
  reply: (headers: Record<string, string>, renewed?: IssuedToken) => Reply,
): Reply | Promise<Reply> {
  const headers = { 'X-User': encodeURIComponent(login), 'X-User-Id': String(id) };
  const renewing = by === 'cookie' && session !== undefined ? sessions.renew(session) : undefined;
  if (renewing === undefined) return reply(headers);
  return renewing.then((renewed) => reply({ ...headers, 'Set-Cookie': cookieOf(renewed, session?.isPersistent === true) }, renewed));
}

function cookieOf({ token, seconds }: IssuedToken, isPersistent: boolean): string {
  return setCookie(token, isPersistent ? seconds : undefined);
}

function invalidCookie(): RegistrarError {
  const detail = '"cookie" has to be "session" or "persistent"';
  return new RegistrarError('invalid', detail, { fields: [{ detail, pointer: '#/cookie' }] });
}

/**
 * Where a browser that navigates is sent to sign in; undefined for a program, which gets 401. A proxy states the request in
 * X-Forwarded-Method and X-Forwarded-Uri. The page takes the user back there: it accepts a path of its own origin only.
 */
export function signInRedirect({ headers, route }: RequestContext, prefix: string): Reply | undefined {
  const { 'x-forwarded-method': method = 'GET', 'x-forwarded-uri': uri } = headers;
  if (route?.action !== 'forward-auth' || !isNavigation(headers) || !/^(?:GET|HEAD)$/.test(String(method))) return undefined;
  const to = typeof uri === 'string' && /^\/(?![/\\])[\x21-\x7e]*$/.test(uri) ? `?to=${encodeURIComponent(uri)}` : '';
  return { status: 303, headers: { Location: `${prefix}/sign-in${to}` } };
}

/** Throws `not-found` where no user can have the login of the path. */
export function loginOf({ login }: RequestContext): string {
  if (login === undefined) throw new RegistrarError('not-found', 'There is no user with this login');
  return login;
}

function userOf({ principal }: RequestContext): UserPrincipal {
  if (principal?.kind === 'user') return principal;
  throw new RegistrarError('unauthenticated', 'This is about the user of the session, and there is none');
}
