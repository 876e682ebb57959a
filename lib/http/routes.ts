/** The API: one table of routes, and a small function for each. What they do is the registry's business. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Action } from '../access.ts';
import { RegistrarError } from '../errors.ts';
import type { Registry, UserView } from '../registry.ts';
import { publicUser } from '../user.ts';
import type { User } from '../user.ts';
import { etag, hasMatch, requireMatch } from './conditional.ts';
import type { Call, Reply, Route } from './message.ts';
import { openApiJson } from './openapi.ts';
import type { OperationKey, operations } from './openapi-operations.ts';
import { readNumber, readQuery } from './query.ts';
import { pageRoutes } from './page-routes.ts';
import { endSessions, openSession, readJwks, readSession, requireSame } from './session-routes.ts';
import type { SessionParts } from './session-routes.ts';

export interface RouteEntry {
  readonly method: string;
  readonly pattern: string;
  /** What it is to `access.ts`, which decides who may. */
  readonly action: Action;
  readonly route: Route;
}

/** One that is part of the API: it is described, and what the description says of who may is what is asked. */
type ApiRoute = {
  [Key in OperationKey]: Key extends `${infer Method} ${infer Pattern}`
    ? { readonly method: Method; readonly pattern: Pattern; readonly action: (typeof operations)[Key]['action']; readonly route: Route }
    : never;
}[OperationKey];

const pageUsersMax = 1000;
const pageUsersDefault = 100;

const collection = '/user/';
const ndjson = 'application/x-ndjson';

export function routes(parts: SessionParts): readonly RouteEntry[] {
  const { registry } = parts;
  const user = '/user/{login}';
  const session = '/session';
  const api: readonly ApiRoute[] = [
    { method: 'POST', pattern: '/user', action: 'register', route: (call) => post(parts, call) },
    { method: 'GET', pattern: '/user', action: 'list', route: (call) => list(registry, call) },
    { method: 'PUT', pattern: user, action: 'register', route: (call) => put(parts, call) },
    { method: 'GET', pattern: user, action: 'read', route: (call) => get(registry, call) },
    { method: 'PATCH', pattern: user, action: 'change-password', route: (call) => patch(parts, call) },
    { method: 'DELETE', pattern: user, action: 'remove', route: (call) => remove(registry, call) },
    { method: 'POST', pattern: session, action: 'open-session', route: (call) => openSession(parts, call) },
    { method: 'GET', pattern: session, action: 'read-session', route: (call) => readSession(parts, call) },
    { method: 'DELETE', pattern: session, action: 'end-session', route: (call) => endSessions(parts, call) },
    { method: 'GET', pattern: '/.well-known/jwks.json', action: 'public', route: (call) => readJwks(parts, call) },
    { method: 'GET', pattern: '/openapi.json', action: 'public', route: readOpenApi },
  ];
  return [...api, ...pageRoutes(registry.passwordLength)];
}

function readOpenApi({ query }: Call): Reply {
  readQuery(query, []);
  return { status: 200, headers: { 'Content-Type': 'application/json' }, body: openApiJson() };
}

async function post({ registry, gate }: SessionParts, call: Call): Promise<Reply> {
  readQuery(call.query, []);
  const key = idempotencyKey(call);
  const { login = '', password = '' } = await call.readFields({ login: 'required', password: 'required' });
  gate.registration(call.visit, call.principal);
  const user = await registry.register({ login, password, ...key }, call.signal);
  return reply(201, user, { Location: location(user), ETag: etag(user) });
}

/** Creates and never overwrites. No ETag: what is kept is not what was sent (RFC 9110, 9.3.4). */
async function put({ registry, gate }: SessionParts, call: Call): Promise<Reply> {
  readQuery(call.query, []);
  const key = idempotencyKey(call);
  const { password = '' } = await call.readFields({ password: 'required' });
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = call.headers;
  const login = loginOf(call);
  gate.registration(call.visit, call.principal);
  if (ifMatch !== undefined) return refuseReplacement(registry, login);
  try {
    const registration = { login, password, ...key, loginPlace: { parameter: 'login' } };
    const user = await registry.register(registration, call.signal);
    return reply(201, user, { Location: location(user) });
  } catch (error) {
    const isTaken = error instanceof RegistrarError && error.code === 'taken';
    if (!isTaken || ifNoneMatch === undefined || !hasMatch(ifNoneMatch, await registry.find(login))) throw error;
    throw new RegistrarError('precondition-failed', error.detail);
  }
}

/** If-Match means a user who is there, and those are never overwritten: it creates nobody either. */
async function refuseReplacement(registry: Registry, login: string): Promise<Reply> {
  const present = await registry.find(login).catch((error: unknown) => {
    if (!(error instanceof RegistrarError) || error.code !== 'not-found') throw error;
    throw new RegistrarError('precondition-failed', 'If-Match asks for a user who is there, and there is none');
  });
  throw new RegistrarError('taken', `The login "${present.login}" is taken, and PUT overwrites nobody: PATCH changes a password`);
}

/** No async function: an answer that is there at once is given at once, in the same turn of the event loop. */
function get(registry: Registry, call: Call): Promise<Reply> | Reply {
  readQuery(call.query, []);
  const view = registry.view(loginOf(call));
  return view instanceof Promise ? view.then((user) => getReply(call, user)) : getReply(call, view);
}

function getReply({ headers }: Call, user: UserView): Reply {
  requireMatch(headers['if-match'], user);
  if (hasMatch(headers['if-none-match'], user)) return { status: 304, headers: { ETag: etag(user) } };
  return { status: 200, headers: { 'Content-Type': 'application/json', ETag: etag(user) }, body: `${user.json}\n` };
}

/** A token alone does not change a password: whoever has found one would keep the account. Basic has shown the password. */
async function patch({ registry, gate }: SessionParts, call: Call): Promise<Reply> {
  readQuery(call.query, []);
  const { principal, visit } = call;
  const needsCurrent = principal.kind === 'user' && principal.by !== 'basic';
  const fields = { password: 'required', current: needsCurrent ? 'required' : 'optional' } as const;
  const { password = '', ...rest } = await call.readFields(fields);
  const attempt = rest.current === undefined || principal.kind === 'admin' ? undefined : gate.attempt(visit, loginOf(call));
  try {
    const user = await registry.changePassword(loginOf(call), { password, ...rest }, precondition(call), call.signal);
    attempt?.succeed();
    return reply(200, user, { ETag: etag(user) });
  } catch (error) {
    if (error instanceof RegistrarError && error.code !== 'wrong-password' && error.code !== 'timeout') attempt?.giveBack();
    throw error;
  }
}

async function remove(registry: Registry, call: Call): Promise<Reply> {
  readQuery(call.query, []);
  await registry.remove(loginOf(call), precondition(call));
  return { status: 204 };
}

async function list(registry: Registry, call: Call): Promise<Reply> {
  const wantsStream = acceptsNdjson(call.headers.accept ?? '');
  const query = readQuery(call.query, wantsStream ? ['after'] : ['limit', 'after']);
  if (wantsStream) {
    const first = await registry.lines(query.after);
    const body = stream(registry, first, call.signal);
    return { status: 200, headers: { 'Content-Type': ndjson, Vary: 'Accept' }, body };
  }
  const limit = readNumber('limit', 'limit' in query ? query.limit : undefined, pageUsersDefault, 1, pageUsersMax);
  const { users, next } = await registry.list(query.after, limit);
  const nextUrl = next === undefined ? undefined : `${collection}?after=${next}&limit=${limit}`;
  const head = Buffer.from(`{"users":[`);
  const parts = users.flatMap((user, n) => (n === 0 ? [user] : [Buffer.from(','), user]));
  const tail = Buffer.from(`],"next":${nextUrl === undefined ? 'null' : JSON.stringify(nextUrl)}}\n`);
  return {
    status: 200,
    headers: { 'Content-Type': 'application/json', Vary: 'Accept', ...(nextUrl === undefined ? {} : { Link: `<${nextUrl}>; rel="next"` }) },
    body: Buffer.concat([head, ...parts, tail]),
  };
}

/** Everybody, one JSON line each, a piece of the store at a time: the next one when the client has read. */
async function* stream(
  registry: Registry,
  first: Awaited<ReturnType<Registry['lines']>>,
  signal: AbortSignal,
): AsyncIterable<Buffer> {
  for (let piece = first; ; piece = await registry.lines(piece.next)) {
    yield piece.bytes;
    if (piece.next === undefined || signal.aborted) return;
    // A fast reader must not keep all others from being served.
    await nextTurn();
  }
}

function reply(status: number, user: User, headers: Record<string, string>): Reply {
  return {
    status,
    headers: { 'Content-Type': 'application/json', ...headers },
    body: `${JSON.stringify(publicUser(user))}\n`,
  };
}

function location({ login }: User): string {
  return `${collection}${encodeURIComponent(login)}`;
}

function loginOf(call: Call): string {
  return call.params.login ?? '';
}

/** In the order of RFC 9110, 13.2.2; before them, that the user is still the one who has proven to be it. */
function precondition({ headers, principal }: Call): ((user: User) => void) | undefined {
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = headers;
  const isSame = principal.kind === 'user' ? requireSame(principal) : undefined;
  if (ifMatch === undefined && ifNoneMatch === undefined) return isSame;
  return (user) => {
    isSame?.(user);
    requireMatch(ifMatch, user);
    if (hasMatch(ifNoneMatch, user)) throw new RegistrarError('precondition-failed', 'If-None-Match names the user as it is');
  };
}

/** Whether the client names NDJSON, and does not refuse it with a q of 0. */
function acceptsNdjson(accept: string): boolean {
  return accept.split(',').some((range) => {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    return type === ndjson && !parameters.some((parameter) => /^q=0(?:\.0*)?$/.test(parameter));
  });
}

/** An RFC 9651 string in quotes, as the draft asks for, or the same without them. */
function idempotencyKey({ headers }: Call): { key?: string } {
  const header = headers['idempotency-key'];
  if (header === undefined) return {};
  const [, quoted, bare] = /^(?:"([\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x5b\x5d-\x7e]{1,255}))$/.exec(String(header)) ?? [];
  const key = quoted ?? bare;
  if (key !== undefined) return { key };
  const fields = [{ detail: 'It has to be 1 to 255 visible ASCII characters, in quotes', parameter: 'Idempotency-Key' }];
  throw new RegistrarError('malformed', 'The Idempotency-Key cannot be read', { fields });
}
