/** The routes of users: a small function for each. What they do is the registry's business. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { RequestContext } from '../auth/request-context.ts';
import { RegistrarError, hasCode } from '../errors.ts';
import type { LimitCheck, Registry } from '../registry.ts';
import { publicUser } from '../user.ts';
import type { User } from '../user.ts';
import { etag, hasMatch, requireMatch } from './conditional.ts';
import { prefers } from './header-values.ts';
import { idempotencyKey } from './idempotency-key.ts';
import { readNumber } from './query.ts';
import { json, route } from './route.ts';
import type { QueryValues, Reply, Route, RouteParts } from './route.ts';
import { loginOf, requireSame } from './session-routes.ts';

export const pageUsersMax = 1000;
const pageUsersDefault = 100;
const ndjson = 'application/x-ndjson';
const created = 'The user is registered and durable.';
const oneUser = { 'application/json': 'User' } as const;

export const userRoutes: readonly Route[] = [
  route({
    method: 'POST', pattern: '/user/', action: 'register', fields: { login: 'required', password: 'required' },
    describe: {
      id: 'registerUser', tag: 'users', summary: 'Register a user',
      description: 'With `--registration admin` the admin token is needed. A taken login costs no hash.',
      body: 'Registration', headers: ['Idempotency-Key'],
      responses: { 201: { is: created, headers: ['Location', 'ETag'], content: oneUser } }, errors: ['taken', 'key-reused'],
    },
    handle: async ({ registry, authenticator, prefix, audit }, context, { login, password }) => {
      const key = idempotencyKey(context.headers['idempotency-key']);
      authenticator.registration(context);
      const options = { isReservedAllowed: isAdministrator(context), limitCheck: limitCheck(authenticator, context) };
      const user = await registry.register({ login, password, key, ...options }, context.signal);
      audit('registered', context, user.id);
      return json(201, publicUser(user), { Location: location(user, prefix), ETag: etag(user) });
    },
  }),
  route({
    method: 'GET', pattern: '/user/', action: 'list', query: ['limit', 'after'],
    describe: {
      id: 'listUsers', tag: 'users', summary: 'List users',
      description: 'In the order of registration. With `Accept: application/x-ndjson` all users, one line of JSON each, and no `limit`.',
      responses: {
        200: {
          is: 'A page of users, or all of them.', headers: ['Link', 'Vary'], content: { 'application/json': 'UserPage', [ndjson]: 'text' },
        },
      },
    },
    handle: (parts, context, _body, query) => list(parts, context, query),
  }),
  route({
    method: 'PUT', pattern: '/user/{login}', action: 'register', fields: { password: 'required' },
    describe: {
      id: 'putUser', tag: 'users', summary: 'Register a user under a path',
      description: 'It never overwrites. There is no ETag: what is stored is not what was sent (RFC 9110, 9.3.4).',
      body: 'NewUser', headers: ['Idempotency-Key', 'If-Match', 'If-None-Match'],
      responses: { 201: { is: created, headers: ['Location'], content: oneUser } }, errors: ['taken', 'key-reused'],
    },
    handle: put,
  }),
  route({
    method: 'GET', pattern: '/user/{login}', action: 'read',
    describe: {
      id: 'getUser', tag: 'users', summary: 'Get a user',
      description: 'For the user and the admin token; about others the response is 403, whether they exist or not.',
      headers: ['If-Match', 'If-None-Match'],
      responses: {
        200: { is: 'The user.', headers: ['ETag'], content: oneUser },
        304: { is: '`If-None-Match` names the current ETag.', headers: ['ETag'] },
      },
    },
    handle: async ({ registry }, context): Promise<Reply> => {
      const user = await registry.getPublic(loginOf(context));
      const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = context.headers;
      requireMatch(ifMatch, user);
      if (hasMatch(ifNoneMatch, user)) return { status: 304, headers: { ETag: etag(user) } };
      return { status: 200, headers: { 'Content-Type': 'application/json', ETag: etag(user) }, body: `${user.json}\n` };
    },
  }),
  route({
    method: 'PATCH', pattern: '/user/{login}', action: 'change-password',
    fields: { password: 'optional', current: 'optional', disabled: 'boolean' },
    describe: {
      id: 'changeUser', tag: 'users', summary: 'Change a password, or disable or enable an account',
      description: 'Either of them ends every session of the user. With a session token `current` is needed for a password.',
      body: 'UserChange', headers: ['If-Match', 'If-None-Match'],
      responses: { 200: { is: 'The user is changed.', headers: ['ETag'], content: oneUser } },
      errors: ['wrong-password', 'disabled', 'conflict'],
    },
    handle: changeUser,
  }),
  route({
    method: 'DELETE', pattern: '/user/{login}', action: 'remove',
    describe: {
      id: 'removeUser', tag: 'users', summary: 'Remove a user',
      description: "By the user's password, not by a session token, or by the admin token.",
      headers: ['If-Match', 'If-None-Match'], responses: { 204: { is: 'The user is removed.' } }, errors: ['conflict'],
    },
    handle: async ({ registry, audit }, context) => {
      const { id } = await registry.remove(loginOf(context), precondition(context));
      audit('removed', context, id);
      return { status: 204 };
    },
  }),
  route({
    method: 'POST', pattern: '/user/{login}/password-link', action: 'issue-link',
    describe: {
      id: 'issuePasswordLink', tag: 'users', summary: 'Issue a one-time link to choose a password with',
      description: 'A user that does not exist is created without a password. Any change of the user voids the link.',
      responses: { 201: { is: 'The link.', content: { 'application/json': 'PasswordLink' } } }, errors: ['invalid', 'conflict'],
    },
    handle: async ({ registry, links, audit }, context) => {
      const { user, created } = await registry.invite(loginOfNew(context));
      if (created) audit('invited', context, user.id);
      const link = await links.issue(user);
      audit('link-issued', context, user.id);
      return json(201, link);
    },
  }),
  route({
    method: 'POST', pattern: '/password', action: 'use-link', fields: { token: 'required', password: 'required' },
    describe: {
      id: 'choosePassword', tag: 'users', summary: 'Choose a password with a one-time link',
      description: 'It ends every session of the user. A used, void, expired or forged token gets one and the same response.',
      body: 'PasswordChoice', responses: { 200: { is: 'The password is set.', headers: ['ETag'], content: oneUser } },
      errors: ['invalid-link'],
    },
    handle: async ({ links, authenticator, audit }, context, { token, password }) => {
      const user = await links.use(token, password, limitCheck(authenticator, context), context.signal);
      audit('link-used', context, user.id);
      return json(200, publicUser(user), { ETag: etag(user) });
    },
  }),
];

/** Creates and never overwrites: If-Match asks for a user that exists, so it always fails. */
async function put(
  { registry, authenticator, prefix, audit }: RouteParts,
  context: RequestContext,
  { password }: { readonly password: string },
): Promise<Reply> {
  const { headers } = context;
  const key = idempotencyKey(headers['idempotency-key']);
  const login = loginOfNew(context);
  authenticator.registration(context);
  if (headers['if-match'] !== undefined) return refuseReplacement(registry, login);
  try {
    const options = { isReservedAllowed: isAdministrator(context), limitCheck: limitCheck(authenticator, context) };
    const user = await registry.register({ login, password, key, ...options, loginPlace: { parameter: 'login' } }, context.signal);
    audit('registered', context, user.id);
    return json(201, publicUser(user), { Location: location(user, prefix) });
  } catch (error) {
    const ifNoneMatch = headers['if-none-match'];
    const isTaken = hasCode(error, 'taken');
    if (!isTaken || ifNoneMatch === undefined || !hasMatch(ifNoneMatch, await registry.getRecord(login))) throw error;
    throw new RegistrarError('precondition-failed', error.detail);
  }
}

async function refuseReplacement(registry: Registry, login: string): Promise<Reply> {
  await registry.getRecord(login).catch((error: unknown) => {
    if (!(error instanceof RegistrarError) || error.code !== 'not-found') throw error;
    throw new RegistrarError('precondition-failed', 'If-Match asks for a user that exists, and there is none');
  });
  throw new RegistrarError('taken', `The login "${login}" is taken, and PUT never overwrites: PATCH changes a password`);
}

interface UserChange {
  readonly password: string | undefined;
  readonly current: string | undefined;
  readonly disabled: boolean | undefined;
}

async function changeUser(parts: RouteParts, context: RequestContext, { password, current, disabled }: UserChange): Promise<Reply> {
  const user = disabled === undefined
    ? await changePassword(parts, context, password ?? missing('password'), current)
    : await setDisabled(parts, context, disabled, password !== undefined || current !== undefined);
  parts.audit(disabled === undefined ? 'password-changed' : disabled ? 'disabled' : 'enabled', context, user.id);
  return json(200, publicUser(user), { ETag: etag(user) });
}

function setDisabled({ registry }: RouteParts, context: RequestContext, disabled: boolean, hasPassword: boolean): Promise<User> {
  if (!isAdministrator(context)) throw new RegistrarError('forbidden', 'Disabling and enabling an account needs the admin token.');
  if (hasPassword) throw invalid('Change either "disabled" or the password', '#/disabled');
  return registry.setDisabled(loginOf(context), disabled, precondition(context));
}

/** A session token alone does not change a password: otherwise a stolen one would take the account. Basic has shown the password. */
function changePassword(
  { registry, authenticator }: RouteParts, context: RequestContext, password: string, current: string | undefined,
): Promise<User> {
  const { principal } = context;
  if (current === undefined && principal?.kind === 'user' && principal.by !== 'basic') missing('current');
  const check = principal?.kind === 'admin' ? undefined : limitCheck(authenticator, context);
  return registry.changePassword(loginOf(context), { password, current, limitCheck: check }, precondition(context), context.signal);
}

function missing(field: string): never {
  throw invalid(`"${field}" is missing`, `#/${field}`);
}

function invalid(detail: string, pointer: string): RegistrarError {
  return new RegistrarError('invalid', detail, { fields: [{ detail, pointer }] });
}

function limitCheck(authenticator: RouteParts['authenticator'], context: RequestContext): LimitCheck {
  return (login, check) => authenticator.attempt(context, login, check);
}

async function list({ registry, prefix }: RouteParts, context: RequestContext, query: QueryValues): Promise<Reply> {
  if (prefers(context.headers.accept, 'application/json', ndjson)) {
    if (query.limit !== undefined) {
      const detail = 'NDJSON is all users: it has no limit';
      throw new RegistrarError('malformed', detail, { fields: [{ detail, parameter: 'limit' }] });
    }
    const first = await registry.ndjsonPage(query.after);
    return { status: 200, headers: { 'Content-Type': ndjson, Vary: 'Accept' }, body: stream(registry, first, context.signal) };
  }
  const limit = readNumber('limit', query.limit, pageUsersDefault, 1, pageUsersMax);
  const { users, next } = await registry.page(query.after, limit);
  const nextUrl = next === undefined ? undefined : `${prefix}/user/?after=${next}&limit=${limit}`;
  const headers: Record<string, string> = { 'Content-Type': 'application/json', Vary: 'Accept' };
  if (nextUrl !== undefined) headers.Link = `<${nextUrl}>; rel="next"`;
  const parts = users.flatMap((user, n) => (n === 0 ? [user] : [comma, user]));
  const tail = Buffer.from(`],"next":${JSON.stringify(nextUrl ?? null)}}\n`);
  return { status: 200, headers, body: Buffer.concat([head, ...parts, tail]) };
}

const head = Buffer.from('{"users":[');
const comma = Buffer.from(',');

/** All users, one JSON line each, a page of the store at a time: the next one when the client has read. */
async function* stream(
  registry: Registry,
  first: Awaited<ReturnType<Registry['ndjsonPage']>>,
  signal: AbortSignal,
): AsyncIterable<Buffer> {
  for (let page = first; ; page = await registry.ndjsonPage(page.next)) {
    yield page.bytes;
    if (page.next === undefined || signal.aborted) return;
    // A fast reader must not keep all others from being served.
    await nextTurn();
  }
}

/** In unauthenticated mode every client is. */
function isAdministrator({ isUnauthenticatedMode, principal }: RequestContext): boolean {
  return isUnauthenticatedMode || principal?.kind === 'admin';
}

function location({ login }: User, prefix: string): string {
  return `${prefix}/user/${encodeURIComponent(login)}`;
}

/** The login of the path for a new user. Throws `invalid` with the rule that it breaks. */
function loginOfNew({ login, loginProblem = '' }: RequestContext): string {
  if (login !== undefined) return login;
  throw new RegistrarError('invalid', loginProblem, { fields: [{ detail: loginProblem, parameter: 'login' }] });
}

/** In the order of RFC 9110, 13.2.2; before them, that the user is still the one that was authenticated. */
function precondition({ headers, principal }: RequestContext): ((user: User) => void) | undefined {
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = headers;
  const isSame = principal?.kind === 'user' ? requireSame(principal) : undefined;
  if (ifMatch === undefined && ifNoneMatch === undefined) return isSame;
  return (user) => {
    isSame?.(user);
    requireMatch(ifMatch, user);
    if (hasMatch(ifNoneMatch, user)) throw new RegistrarError('precondition-failed', "If-None-Match names the user's current ETag");
  };
}
