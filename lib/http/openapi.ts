/** Makes the OpenAPI 3.1 document of a route table: what a route takes, requires and answers is written there once; pure. */

import type { Action } from '../access.ts';
import type { ErrorCode } from '../errors.ts';
import { fieldSchemas, headers, object, parameters, reference, schemas, securitySchemes } from './openapi-schemas.ts';
import type { HeaderName, Schema } from './openapi-schemas.ts';
import { problemStatus, problemTitle } from './problem.ts';
import type { ResponseDescription, Route, RouteDescription } from './route.ts';

/** Of the API, which is that of the service: package.json says the same. */
const version = '0.1.0';

const about = `Registers users and checks their passwords. JSON in, JSON out, UTF-8; a slash at the end of a path makes no difference.
Another method than those described is 405, another path 404, as problems.

Errors are problems (RFC 9457) whose \`type\` is stable. Credentials are required in *authenticated mode*, where an admin token is set;
without one, in *unauthenticated mode*, everything is permitted from the same machine, and anything else is 403.`;

type Security = readonly Readonly<Partial<Record<keyof typeof securitySchemes, readonly string[]>>>[];

/** What `access.ts` accepts, one of them; an empty one is no credentials. */
const security: Readonly<Record<Action, Security>> = {
  public: [],
  register: [{}, { token: [] }],
  list: [{ token: [] }],
  read: [{ password: [] }, { token: [] }],
  'change-password': [{ password: [] }, { token: [] }],
  remove: [{ password: [] }, { token: [] }],
  'open-session': [],
  'read-session': [{ password: [] }, { token: [] }, { cookie: [] }],
  'forward-auth': [{ password: [] }, { token: [] }, { cookie: [] }],
  'end-sessions': [{ password: [] }, { token: [] }, { cookie: [] }],
  'close-session': [],
  'issue-link': [{ token: [] }],
  'use-link': [],
  'read-metrics': [{ token: [] }],
};

type Described = Route & { readonly describe: RouteDescription };

/** @param prefix the path of the public URL; empty at the root. */
export function openApiDocument(routes: readonly Route[], prefix: string): Schema {
  const paths: Record<string, Record<string, Schema>> = {};
  const responses: Record<string, Schema> = {};
  const bodies: Record<string, Schema> = {};
  for (const route of routes.filter((entry): entry is Described => entry.describe !== undefined)) {
    const { describe: { id, tag, body, summary }, fields, pattern } = route;
    if (body !== undefined && fields !== undefined) bodies[body] = bodyOf(summary, fields);
    const path = (paths[pattern] ??= { options: optionsOf(id, tag, pattern, responses) });
    path[route.method.toLowerCase()] = operationOf(route, responses);
    if (route.method === 'GET') path.head = headOf(route);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Registrar', version, summary: 'A user-registration service', description: about,
      license: { name: 'MIT', identifier: 'MIT' }, contact: { name: 'The operator of this service' },
    },
    servers: [{ url: `${prefix}/`, description: 'The origin of this document' }],
    tags: [
      { name: 'users', description: 'Registered users' },
      { name: 'sessions', description: 'Signing in and out' },
      { name: 'service', description: 'The service itself' },
    ],
    paths,
    components: { schemas: { ...schemas, ...bodies }, parameters, headers, responses, securitySchemes },
  };
}

function bodyOf(summary: string, fields: NonNullable<Route['fields']>): Schema {
  const names = Object.keys(fields);
  const properties = Object.fromEntries(names.map((name) => [name, fieldSchemas[name] ?? {}]));
  return object(`${summary}.`, properties, names.filter((name) => fields[name] === 'required'));
}

function operationOf(route: Described, responses: Record<string, Schema>): Schema {
  const { describe: { id, tag, summary, description, body, responses: own }, action } = route;
  const all: Record<string, Schema> = {};
  for (const [status, response] of Object.entries(own)) all[status] = responseOf(response);
  for (const [status, codes] of byStatus(codesOf(route))) {
    const same = own[status];
    // Both a problem and a response of the operation's own may have a status: the media type tells them apart.
    all[status] = same === undefined ? shared(status, codes, responses) : problemOf(status, codes, same);
  }
  return {
    operationId: id, tags: [tag], summary, description, security: security[action], parameters: parametersOf(route),
    requestBody: body === undefined ? undefined : { required: true, content: { 'application/json': { schema: reference(body) } } },
    responses: all,
  };
}

/** The same as GET, with no content. */
function headOf(route: Described): Schema {
  const { describe: { id, tag, summary, responses: own }, action } = route;
  const all: Record<string, Schema> = {};
  for (const [status, { is, headers: more }] of Object.entries(own)) all[status] = responseOf({ is, headers: more });
  for (const [status, codes] of byStatus(codesOf(route))) all[status] ??= { description: titles(codes) };
  return {
    operationId: `${id}Head`, tags: [tag], summary: `${summary}: the headers`, description: 'As GET, without a body.',
    security: security[action], parameters: parametersOf(route), responses: all,
  };
}

function optionsOf(id: string, tag: string, pattern: string, responses: Record<string, Schema>): Schema {
  const all: Record<string, Schema> = { 204: responseOf({ is: 'The methods.', headers: ['Allow'] }) };
  for (const [status, codes] of byStatus(always)) all[status] = shared(status, codes, responses);
  return {
    operationId: `${id}Options`, tags: [tag], summary: 'List the methods of this path',
    description: 'Also answers a CORS preflight.', security: [],
    parameters: pattern.includes('{login}') ? [reference('login', 'parameters')] : undefined, responses: all,
  };
}

function parametersOf({ pattern, query, describe }: Described): readonly Schema[] | undefined {
  const inQuery = query === undefined || query === 'any' ? [] : query;
  const names = [...(pattern.includes('{login}') ? ['login'] : []), ...inQuery, ...(describe.headers ?? [])];
  return names.length === 0 ? undefined : names.map((name) => reference(name, 'parameters'));
}

/** The codes that any request may be answered with. */
const always = [
  'malformed', 'forbidden', 'timeout', 'expectation-failed', 'too-large', 'headers-too-large', 'rate-limited', 'internal', 'unavailable',
] as const satisfies readonly ErrorCode[];

function codesOf({ method, pattern, action, fields, describe }: Described): readonly ErrorCode[] {
  // Health checks are not counted: a load balancer that is rejected for its rate would take a healthy service out.
  const codes: ErrorCode[] = always.filter((code) => code !== 'rate-limited' || !pattern.startsWith('/health/'));
  if (action !== 'public' && action !== 'close-session') codes.push('overloaded', 'corrupt', 'busy');
  if (!['public', 'close-session', 'use-link'].includes(action)) codes.push('unauthenticated');
  if (fields !== undefined) codes.push('unsupported-media-type', 'invalid');
  if (method !== 'GET' && action !== 'open-session' && action !== 'close-session') codes.push('storage-full', 'outcome-unknown');
  if (pattern.includes('{login}') && action !== 'register' && action !== 'issue-link') codes.push('not-found');
  if (describe.headers?.includes('If-Match') === true) codes.push('precondition-failed');
  return [...codes, ...(describe.errors ?? [])];
}

function byStatus(codes: readonly ErrorCode[]): ReadonlyMap<number, readonly ErrorCode[]> {
  const groups = new Map<number, ErrorCode[]>();
  for (const code of [...new Set(codes)].sort()) groups.set(problemStatus(code), [...(groups.get(problemStatus(code)) ?? []), code]);
  return new Map([...groups].sort(([a], [b]) => a - b));
}

function responseOf({ is, headers: own = [], content }: ResponseDescription): Schema {
  const names = headerReferences(['X-Request-Id', 'Cache-Control', ...own, 'RateLimit', 'RateLimit-Policy']);
  return { description: is, headers: names, content: content && contentOf(content) };
}

function contentOf(content: NonNullable<ResponseDescription['content']>): Schema {
  const plain: Readonly<Record<string, Schema>> = { text: { type: 'string' }, object: { type: 'object' } };
  return Object.fromEntries(Object.entries(content).map(([type, name]) => [type, { schema: plain[name] ?? reference(name) }]));
}

function headerReferences(names: readonly HeaderName[]): Schema {
  return Object.fromEntries(names.map((name) => [name, reference(name, 'headers')]));
}

/** A component named after its codes, as in `BusyOrOverloaded`: some generators take no name that begins with a digit. */
function shared(status: number, codes: readonly ErrorCode[], responses: Record<string, Schema>): Schema {
  const name = codes.map((code) => code.replace(/(?:^|-)([a-z])/g, (_, letter: string) => letter.toUpperCase())).join('Or');
  responses[name] ??= problemOf(status, codes);
  return reference(name, 'responses');
}

const errorHeaders: Readonly<Record<number, readonly HeaderName[]>> = {
  401: ['WWW-Authenticate'], 429: ['Retry-After'], 503: ['Retry-After'],
};

function problemOf(status: number, codes: readonly ErrorCode[], own?: ResponseDescription): Schema {
  const types = codes.map((code) => `urn:registrar:${code}`);
  const [title = ''] = codes.map(problemTitle);
  const example = { type: types[0], title, status, detail: 'What was attempted, and what is the case.', request: '2e8516d8dfc51b08' };
  const schema = { allOf: [reference('Problem')], type: 'object', properties: { type: { enum: types } } };
  return {
    description: own?.is ?? titles(codes),
    headers: headerReferences(['X-Request-Id', ...(errorHeaders[status] ?? []), 'RateLimit', 'RateLimit-Policy']),
    content: { ...contentOf(own?.content ?? {}), 'application/problem+json': { schema, example } },
  };
}

function titles(codes: readonly ErrorCode[]): string {
  return `${[...new Set(codes.map(problemTitle))].join('; ')}.`;
}
