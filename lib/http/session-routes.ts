/**
 * Sessions: a token for a password, who a token belongs to, and the end of all of a user's tokens. The token is a JWT
 * that other services verify by the JWKS; in the page's cookie it is sent by the browser and read by no script.
 */

import { RegistrarError } from '../errors.ts';
import { publicUser } from '../user.ts';
import type { User } from '../user.ts';
import type { UserPrincipal } from '../access.ts';
import type { Registry } from '../registry.ts';
import { clearCookie, setCookie } from './credentials.ts';
import type { Gate, Sessions } from './gate.ts';
import type { Call, Reply } from './message.ts';
import { readQuery } from './query.ts';

export interface SessionParts {
  readonly registry: Registry;
  readonly sessions: Sessions;
  readonly gate: Gate;
}

export async function openSession({ sessions, gate }: SessionParts, call: Call): Promise<Reply> {
  readQuery(call.query, []);
  const { login = '', password = '', cookie } = await call.readFields({ login: 'required', password: 'required', cookie: 'flag' });
  const user = await gate.signIn(call.visit, login, password, call.signal);
  const { token, expires, seconds } = await sessions.issue(user);
  const body = { token, type: 'Bearer', expires, user: publicUser(user) };
  return json(201, body, cookie === undefined ? {} : { 'Set-Cookie': setCookie(token, seconds) });
}

/** The header is for a proxy that asks here for others (nginx `auth_request`). */
export function readSession({ registry }: SessionParts, call: Call): Reply | Promise<Reply> {
  readQuery(call.query, []);
  const { login, expires = null } = userOf(call);
  const view = registry.view(login);
  const answer = ({ json: user }: { json: string }): Reply => ({
    status: 200,
    headers: { 'Content-Type': 'application/json', 'X-User': encodeURIComponent(login) },
    body: `{"user":${user},"expires":${JSON.stringify(expires)}}\n`,
  });
  return view instanceof Promise ? view.then(answer) : answer(view);
}

export async function endSessions({ registry }: SessionParts, call: Call): Promise<Reply> {
  readQuery(call.query, []);
  const principal = userOf(call);
  await registry.endSessions(principal.login, requireSame(principal));
  return { status: 204, headers: { 'Set-Cookie': clearCookie() } };
}

export async function readJwks({ sessions }: SessionParts, call: Call): Promise<Reply> {
  readQuery(call.query, []);
  return { status: 200, headers: { 'Content-Type': 'application/jwk-set+json' }, body: `${await sessions.jwks()}\n` };
}

/** What was proven was proven of this state of the user: meanwhile another may have the login, or the password be another. */
export function requireSame({ id, version }: UserPrincipal): (user: User) => void {
  return (user) => {
    if (user.id !== id || user.version !== version) {
      throw new RegistrarError('unauthenticated', 'The user was changed meanwhile, and with it what the credentials were good for');
    }
  };
}

function userOf({ principal }: Call): UserPrincipal {
  if (principal.kind === 'user') return principal;
  throw new RegistrarError('unauthenticated', 'This is about the user who is signed in, and nobody is');
}

function json(status: number, value: unknown, headers: Readonly<Record<string, string>>): Reply {
  return { status, headers: { 'Content-Type': 'application/json', ...headers }, body: `${JSON.stringify(value)}\n` };
}
