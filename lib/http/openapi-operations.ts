/**
 * What the API's description says of each operation, by method and path as the table of routes has them. A route of
 * `routes.ts` that is not here does not compile, and one that is here and is not served fails `test/http/openapi.test.ts`.
 */

import type { Action } from '../access.ts';
import type { ErrorCode } from '../errors.ts';
import type { HeaderName, ParameterName, SchemaName } from './openapi-schemas.ts';
import { userExample } from './openapi-schemas.ts';

interface Content {
  readonly schema: SchemaName | 'text' | 'object';
  readonly example?: unknown;
}

export interface AnswerDescription {
  readonly description: string;
  readonly headers?: readonly HeaderName[];
  /** By media type; none for an empty answer. */
  readonly content?: Readonly<Record<string, Content>>;
}

export interface Operation {
  readonly id: string;
  readonly tag: 'users' | 'sessions' | 'service';
  readonly action: Action;
  readonly summary: string;
  readonly description: string;
  readonly parameters?: readonly ParameterName[];
  readonly body?: { readonly schema: SchemaName; readonly example: unknown };
  /** By status; errors are told by their codes. */
  readonly answers: Readonly<Record<number, AnswerDescription>>;
  readonly errors: readonly ErrorCode[];
}

const json = (schema: SchemaName, example?: unknown): Readonly<Record<string, Content>> => ({
  'application/json': example === undefined ? { schema } : { schema, example },
});

/** What any request may be answered. */
const always = [
  'malformed', 'forbidden', 'timeout', 'expectation-failed', 'headers-too-large', 'rate-limited', 'internal', 'unavailable',
] as const satisfies readonly ErrorCode[];
const proven = [...always, 'unauthenticated', 'overloaded', 'corrupt', 'busy'] as const satisfies readonly ErrorCode[];
const withBody = ['too-large', 'unsupported-media-type', 'invalid'] as const satisfies readonly ErrorCode[];
const writing = ['storage-full', 'outcome-unknown'] as const satisfies readonly ErrorCode[];

/** Balancers are not counted: one that was refused for asking too often would take a sound service out. */
const uncounted = always.filter((code) => code !== 'rate-limited');

const credentials = { login: 'alice', password: 'correct horse battery staple' } as const;
const changedExample = { ...userExample, version: 2, changed: '2026-11-23T08:00:00.000Z' };
const tokenExample = 'eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxNyJ9.c2lnbmF0dXJl';
const expires = '2026-11-22T16:00:00.000Z';

export const operations = {
  'POST /user': {
    id: 'registerUser', tag: 'users', action: 'register',
    summary: 'Register a user',
    description: 'With `--registration admin` the admin token is needed. A taken login costs no hash.',
    parameters: ['idempotencyKey'],
    body: { schema: 'Registration', example: credentials },
    answers: {
      201: { description: 'The user is registered, and on the disk.', headers: ['Location', 'ETag'], content: json('User', userExample) },
    },
    errors: [...proven, ...withBody, ...writing, 'taken', 'key-reused'],
  },
  'GET /user': {
    id: 'listUsers', tag: 'users', action: 'list',
    summary: 'List users',
    description: 'In the order of registration. With `Accept: application/x-ndjson` everybody, one line of JSON each, and no `limit`.',
    parameters: ['limit', 'after'],
    answers: {
      200: {
        description: 'A page of users, or all of them.',
        headers: ['Link', 'Vary'],
        content: {
          ...json('UserPage', { users: [userExample], next: null }),
          'application/x-ndjson': { schema: 'text', example: `${JSON.stringify(userExample)}\n` },
        },
      },
    },
    errors: proven,
  },
  'PUT /user/{login}': {
    id: 'putUser', tag: 'users', action: 'register',
    summary: 'Register a user under a path',
    description: 'It never overwrites. There is no ETag: what is kept is not what was sent (RFC 9110, 9.3.4).',
    parameters: ['login', 'idempotencyKey', 'ifMatch', 'ifNoneMatch'],
    body: { schema: 'NewUser', example: { password: credentials.password } },
    answers: {
      201: { description: 'The user is registered, and on the disk.', headers: ['Location'], content: json('User', userExample) },
    },
    errors: [...proven, ...withBody, ...writing, 'taken', 'key-reused', 'precondition-failed'],
  },
  'GET /user/{login}': {
    id: 'getUser', tag: 'users', action: 'read',
    summary: 'Look at a user',
    description: 'For the user and the admin token; about others the answer is 403, whether they exist or not.',
    parameters: ['login', 'ifMatch', 'ifNoneMatch'],
    answers: {
      200: { description: 'The user.', headers: ['ETag'], content: json('User', userExample) },
      304: { description: 'The user is as `If-None-Match` names it.', headers: ['ETag'] },
    },
    errors: [...proven, 'not-found', 'precondition-failed'],
  },
  'PATCH /user/{login}': {
    id: 'changePassword', tag: 'users', action: 'change-password',
    summary: 'Change a password',
    description: 'It ends every session of the user. With a session token `current` is needed.',
    parameters: ['login', 'ifMatch', 'ifNoneMatch'],
    body: { schema: 'PasswordChange', example: { password: 'four new horses run', current: credentials.password } },
    answers: { 200: { description: 'The password is another.', headers: ['ETag'], content: json('User', changedExample) } },
    errors: [...proven, ...withBody, ...writing, 'wrong-password', 'not-found', 'conflict', 'precondition-failed'],
  },
  'DELETE /user/{login}': {
    id: 'removeUser', tag: 'users', action: 'remove',
    summary: 'Remove a user',
    description: 'By the user\'s password, not by a session token, or by the admin token.',
    parameters: ['login', 'ifMatch', 'ifNoneMatch'],
    answers: { 204: { description: 'The user is removed.' } },
    errors: [...proven, ...writing, 'not-found', 'conflict', 'precondition-failed'],
  },
  'POST /session': {
    id: 'openSession', tag: 'sessions', action: 'open-session',
    summary: 'Sign in',
    description: 'Unknown login and wrong password are answered alike, and cost the same.',
    body: { schema: 'SignIn', example: credentials },
    answers: {
      201: {
        description: 'The session.',
        headers: ['Set-Cookie'],
        content: json('Session', { token: tokenExample, type: 'Bearer', expires, user: userExample }),
      },
    },
    errors: [...proven, ...withBody],
  },
  'GET /session': {
    id: 'readSession', tag: 'sessions', action: 'read-session',
    summary: 'Who is signed in',
    description:
      'For a proxy that asks for others (nginx `auth_request`), which takes the login from `X-User`. The admin token is nobody\'s session.',
    answers: { 200: { description: 'The user.', headers: ['X-User'], content: json('SignedIn', { user: userExample, expires }) } },
    errors: [...proven, 'not-found'],
  },
  'DELETE /session': {
    id: 'endSessions', tag: 'sessions', action: 'end-session',
    summary: 'End every session of the user',
    description: 'All tokens that were issued for the user until now are good no more; the cookie is cleared.',
    answers: { 204: { description: 'They are ended.', headers: ['Set-Cookie'] } },
    errors: [...proven, ...writing, 'not-found', 'conflict'],
  },
  'GET /.well-known/jwks.json': {
    id: 'readKeys', tag: 'service', action: 'public',
    summary: 'The keys that session tokens are verified with',
    description: 'Those that sign now, and those whose tokens have not all expired.',
    answers: { 200: { description: 'The keys.', content: { 'application/jwk-set+json': { schema: 'KeySet' } } } },
    errors: always,
  },
  'GET /health/live': {
    id: 'readLiveness', tag: 'service', action: 'public',
    summary: 'Whether the service runs',
    description: 'It does if it answers.',
    answers: { 200: { description: 'It runs.', content: json('Health', { status: 'ok' }) } },
    errors: uncounted,
  },
  'GET /health/ready': {
    id: 'readReadiness', tag: 'service', action: 'public',
    summary: 'Whether requests should come here',
    description: 'For a balancer, which looks at the status; the reason is for people.',
    answers: {
      200: { description: 'They should.', content: json('Health', { status: 'ok' }) },
      503: { description: 'They should go elsewhere.', content: json('Health', { status: 'unready', reason: 'the service is ending' }) },
    },
    errors: uncounted,
  },
  'GET /metrics': {
    id: 'readMetrics', tag: 'service', action: 'read-metrics',
    summary: 'Figures for Prometheus',
    description: 'In the text format 0.0.4. Nothing in them is about one user.',
    answers: { 200: { description: 'The figures.', content: { 'text/plain': { schema: 'text' } } } },
    errors: proven,
  },
  'GET /openapi.json': {
    id: 'readDescription', tag: 'service', action: 'public',
    summary: 'This description',
    description: 'OpenAPI 3.1; `registrar openapi` prints the same.',
    answers: { 200: { description: 'The description.', content: { 'application/json': { schema: 'object' } } } },
    errors: always,
  },
} as const satisfies Readonly<Record<string, Operation>>;

export type OperationKey = keyof typeof operations;
