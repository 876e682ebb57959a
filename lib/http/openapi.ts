/**
 * The API's description, OpenAPI 3.1: the document is put together of the operations that the table of routes serves
 * (`openapi-operations.ts`), their values (`openapi-schemas.ts`) and the table of errors (`problem.ts`).
 */

import type { Action } from '../access.ts';
import type { ErrorCode } from '../errors.ts';
import { operations } from './openapi-operations.ts';
import type { AnswerDescription, Operation } from './openapi-operations.ts';
import { everyAnswer, headers, parameters, schemas, securitySchemes } from './openapi-schemas.ts';
import type { HeaderName, Schema } from './openapi-schemas.ts';
import { problemStatus, problemTitle } from './problem.ts';

/** Of the API, which is that of the service: package.json says the same. */
const version = '0.1.0';

const about = `Registers users and checks their passwords. JSON in, JSON out, UTF-8; a slash at the end of a path makes no difference.
Every GET can be asked as HEAD, and OPTIONS of any path answers 204 with \`Allow\`; another method is 405, another path 404, as problems.

Errors are problems (RFC 9457) whose \`type\` is stable. What is said of credentials here holds in *closed mode*, where there is an admin
token; without one, in *open mode*, everything is allowed from the same machine, and anything else is 403.`;

type Security = readonly Readonly<Partial<Record<keyof typeof securitySchemes, readonly string[]>>>[];

/** What `access.ts` takes, one of them; an empty one is nobody in particular. */
const security: Readonly<Record<Action, Security>> = {
  public: [],
  register: [{}, { token: [] }],
  list: [{ token: [] }],
  read: [{ password: [] }, { token: [] }],
  'change-password': [{ password: [] }, { token: [] }],
  remove: [{ password: [] }, { token: [] }],
  'open-session': [],
  'read-session': [{ password: [] }, { token: [] }, { cookie: [] }],
  'end-session': [{ password: [] }, { token: [] }, { cookie: [] }],
  'read-metrics': [{ token: [] }],
};

/** The document as it is served and printed, made at the first call. */
export function openApiJson(): string {
  made ??= `${JSON.stringify(openApiDocument(), undefined, 2)}\n`;
  return made;
}

let made: string | undefined;

function openApiDocument(): Schema {
  const paths: Record<string, Record<string, Schema>> = {};
  const responses: Record<string, Schema> = {};
  for (const [key, operation] of Object.entries<Operation>(operations)) {
    const [method = '', path = ''] = key.split(' ');
    paths[path] ??= {};
    paths[path][method.toLowerCase()] = describe(operation, responses);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Registrar',
      version,
      summary: 'A user-registration service',
      description: about,
      license: { name: 'MIT', identifier: 'MIT' },
      contact: { name: 'Whoever runs this service' },
    },
    servers: [{ url: '/', description: 'Where this document comes from' }],
    tags: [
      { name: 'users', description: 'Registering users and looking after them' },
      { name: 'sessions', description: 'Signing in and out' },
      { name: 'service', description: 'The service itself' },
    ],
    paths,
    components: {
      schemas: { ...schemas, Problem: problemSchema(), ...fieldErrorSchema },
      parameters,
      headers,
      responses,
      securitySchemes,
    },
  };
}

/** @param responses gets those for its errors that are not there yet. */
function describe(operation: Operation, responses: Record<string, Schema>): Schema {
  const { id, tag, action, summary, description, body, parameters: names } = operation;
  const answers: Record<string, Schema> = {};
  for (const [status, answer] of Object.entries(operation.answers)) answers[status] = describeAnswer(answer);
  for (const [status, codes] of byStatus(operation.errors)) {
    const own = operation.answers[status];
    if (own !== undefined) {
      // Both a problem and an answer of the operation's own have this status: the type of its content tells them apart.
      answers[status] = describeProblem(status, codes, own);
      continue;
    }
    const name = `${status}-${codes.join('-')}`;
    responses[name] ??= describeProblem(status, codes);
    answers[status] = { $ref: `#/components/responses/${name}` };
  }
  return {
    operationId: id,
    tags: [tag],
    summary,
    description,
    security: security[action],
    ...(names === undefined ? {} : { parameters: names.map((name) => ({ $ref: `#/components/parameters/${name}` })) }),
    ...(body === undefined ? {} : { requestBody: { required: true, content: { 'application/json': content(body) } } }),
    responses: answers,
  };
}

function describeAnswer({ description, headers: own = [], content: media }: AnswerDescription): Schema {
  return {
    description,
    headers: headerReferences([...everyAnswer, ...own, 'RateLimit', 'RateLimit-Policy']),
    ...(media === undefined ? {} : { content: contents(media) }),
  };
}

function contents(media: NonNullable<AnswerDescription['content']>): Schema {
  return Object.fromEntries(Object.entries(media).map(([type, value]) => [type, content(value)]));
}

function content({ schema, example }: { readonly schema: string; readonly example?: unknown }): Schema {
  const isPlain = schema === 'text' || schema === 'object';
  return {
    schema: isPlain ? { type: schema === 'text' ? 'string' : 'object' } : { $ref: `#/components/schemas/${schema}` },
    ...(example === undefined ? {} : { example }),
  };
}

function headerReferences(names: readonly HeaderName[]): Schema {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));
}

function byStatus(codes: readonly ErrorCode[]): ReadonlyMap<number, readonly ErrorCode[]> {
  const groups = new Map<number, ErrorCode[]>();
  for (const code of [...new Set(codes)].sort()) groups.set(problemStatus(code), [...(groups.get(problemStatus(code)) ?? []), code]);
  return new Map([...groups].sort(([a], [b]) => a - b));
}

/** Headers that an error may have, by its status. */
const errorHeaders: Readonly<Record<number, readonly HeaderName[]>> = {
  401: ['WWW-Authenticate'],
  429: ['Retry-After'],
  503: ['Retry-After'],
};

function describeProblem(status: number, codes: readonly ErrorCode[], own?: AnswerDescription): Schema {
  const types = codes.map((code) => `urn:registrar:${code}`);
  const titles = codes.map(problemTitle);
  const [type] = types;
  const [title] = titles;
  const example = { type, title, status, detail: 'What was attempted, and what is the case.', request: '2e8516d8dfc5-8' };
  return {
    description: own?.description ?? `${[...new Set(titles)].join('; ')}.`,
    headers: headerReferences(['X-Request-Id', ...(errorHeaders[status] ?? []), 'RateLimit', 'RateLimit-Policy']),
    content: {
      ...contents(own?.content ?? {}),
      'application/problem+json': {
        schema: {
          allOf: [{ $ref: '#/components/schemas/Problem' }],
          type: 'object',
          properties: { type: { enum: types }, status: { const: status } },
        },
        example,
      },
    },
  };
}

function problemSchema(): Schema {
  return {
    type: 'object',
    description: 'RFC 9457.',
    properties: {
      type: { type: 'string', pattern: '^urn:registrar:[a-z-]+$', description: 'What went wrong, for a program.' },
      title: { type: 'string', description: 'The same in words.' },
      status: { type: 'integer', minimum: 400, maximum: 599 },
      detail: { type: 'string', description: 'What was attempted and what is the case, for a person.' },
      errors: { type: 'array', minItems: 1, items: { $ref: '#/components/schemas/FieldError' } },
      request: { type: 'string', description: 'As in X-Request-Id.' },
    },
    required: ['type', 'title', 'status', 'detail', 'request'],
    additionalProperties: false,
  };
}

const fieldErrorSchema = {
  FieldError: {
    type: 'object',
    description: 'One thing that is wrong with one value.',
    properties: {
      detail: { type: 'string' },
      pointer: { type: 'string', pattern: '^#(/.*)?$', description: 'The value in the body (RFC 6901).' },
      parameter: { type: 'string', description: 'The name of a parameter of path, query or header.' },
    },
    required: ['detail'],
    additionalProperties: false,
  },
};
