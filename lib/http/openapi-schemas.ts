/**
 * What the API's description says of values, headers and parameters, once for all operations: the components of the
 * OpenAPI document. Which operation uses which stands in `openapi-operations.ts`.
 */

export interface Schema {
  readonly [keyword: string]: unknown;
}

const time: Schema = {
  type: 'string',
  format: 'date-time',
  pattern: '^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}\\.\\d{3}Z$',
  description: 'UTC, with milliseconds.',
  examples: ['2026-11-22T15:00:00.000Z'],
};

export const userExample = { id: 17, login: 'alice', registered: '2026-11-22T15:00:00.000Z', version: 1 } as const;

const login: Schema = {
  type: 'string',
  minLength: 1,
  maxLength: 512,
  description:
    'Letters of one script, digits and `. _ - @ +`, 1 to 64 characters after NFKC and lower case, one of them a letter or a digit at ' +
    'least. Any spelling that comes to the same names the same user.',
  examples: ['alice'],
};

const password: Schema = {
  type: 'string',
  format: 'password',
  maxLength: 4096,
  description:
    'When it is set: 8 to 256 characters (the service may ask for more), none of them a control character; neither the login nor a ' +
    'common password.',
  examples: ['correct horse battery staple'],
};

function body(properties: Readonly<Record<string, Schema>>, required: readonly string[], description: string): Schema {
  return { type: 'object', description, properties, required, additionalProperties: false };
}

const reference = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });

/** Everything but the problem, of which `openapi.ts` makes the list of types. */
export const schemas = {
  Login: login,
  Password: password,
  User: {
    type: 'object',
    description: 'What there is to be seen of a user.',
    properties: {
      id: { type: 'integer', minimum: 1, description: 'Never given to a second user.' },
      login: { type: 'string', minLength: 1, maxLength: 64, description: 'In its canonical form.' },
      registered: time,
      version: { type: 'integer', minimum: 1, description: 'One more with each change of the password, and when all sessions are ended.' },
      changed: { ...time, description: 'When the password was changed last; absent if never.' },
    },
    required: ['id', 'login', 'registered', 'version'],
    additionalProperties: false,
    examples: [userExample],
  },
  Registration: body({ login: reference('Login'), password: reference('Password') }, ['login', 'password'], 'A user to be.'),
  NewUser: body({ password: reference('Password') }, ['password'], 'A user to be, whose login is in the path.'),
  PasswordChange: body(
    {
      password: reference('Password'),
      current: { ...password, description: 'The password until now. Needed with a session token; else it is checked if it is given.' },
    },
    ['password'],
    'Another password.',
  ),
  SignIn: body(
    {
      login: reference('Login'),
      password: reference('Password'),
      cookie: { type: 'boolean', default: false, description: 'Whether the token is set as the cookie `__Host-registrar` too.' },
    },
    ['login', 'password'],
    'Who wants a session.',
  ),
  UserPage: {
    type: 'object',
    description: 'A part of all users, in the order of registration.',
    properties: {
      users: { type: 'array', items: reference('User'), maxItems: 1000 },
      next: { type: ['string', 'null'], description: 'The next page; null on the last one.', examples: ['/user/?after=2s&limit=100'] },
    },
    required: ['users', 'next'],
    additionalProperties: false,
  },
  Session: {
    type: 'object',
    description: 'A token, and whose it is.',
    properties: {
      token: {
        type: 'string',
        pattern: '^[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$',
        description: 'A JWT (EdDSA): `sub` is the id, `preferred_username` the login. Others verify it by /.well-known/jwks.json.',
      },
      type: { const: 'Bearer' },
      expires: time,
      user: reference('User'),
    },
    required: ['token', 'type', 'expires', 'user'],
    additionalProperties: false,
  },
  SignedIn: {
    type: 'object',
    description: 'Whose session it is.',
    properties: {
      user: reference('User'),
      expires: { ...time, type: ['string', 'null'], description: 'When the session ends; null where the password itself was shown.' },
    },
    required: ['user', 'expires'],
    additionalProperties: false,
  },
  Health: {
    type: 'object',
    description: 'How the service is.',
    properties: { status: { enum: ['ok', 'unready'] }, reason: { type: 'string', description: 'Why it is not ready.' } },
    required: ['status'],
    additionalProperties: false,
  },
  KeySet: {
    type: 'object',
    description: 'A JWK Set (RFC 7517).',
    properties: {
      keys: {
        type: 'array',
        minItems: 1,
        items: {
          type: 'object',
          description: 'A public key (RFC 8037).',
          properties: {
            kty: { const: 'OKP' },
            crv: { const: 'Ed25519' },
            x: { type: 'string', pattern: '^[A-Za-z0-9_-]{43}$' },
            kid: { type: 'string' },
            use: { const: 'sig' },
            alg: { const: 'EdDSA' },
          },
          required: ['kty', 'crv', 'x', 'kid', 'use', 'alg'],
          additionalProperties: false,
        },
      },
    },
    required: ['keys'],
    additionalProperties: false,
  },
} as const satisfies Readonly<Record<string, Schema>>;

export type SchemaName = keyof typeof schemas;

const etags: Schema = { type: 'string', examples: ['"17.1"'] };

export const parameters = {
  login: {
    name: 'login', in: 'path', required: true, schema: reference('Login'), example: 'alice',
    description: 'Percent-encoded UTF-8, in any spelling.',
  },
  limit: {
    name: 'limit', in: 'query', schema: { type: 'integer', minimum: 1, maximum: 1000, default: 100 },
    description: 'Users on a page. It does not go with NDJSON.',
  },
  after: { name: 'after', in: 'query', schema: { type: 'string' }, description: 'Where to go on: as it stands in `next`.' },
  idempotencyKey: {
    name: 'Idempotency-Key', in: 'header', schema: { type: 'string', pattern: '^("[!#-\\[\\]-~]{1,255}"|[!#-\\[\\]-~]{1,255})$' },
    description: 'A repeat with the same key and password gets the first answer again, also after a crash.',
  },
  ifMatch: { name: 'If-Match', in: 'header', schema: etags, description: 'ETags, of which one has to be the user\'s, or `*`.' },
  ifNoneMatch: { name: 'If-None-Match', in: 'header', schema: etags, description: 'ETags, of which none may be the user\'s, or `*`.' },
} as const;

export type ParameterName = keyof typeof parameters;

const text: Schema = { type: 'string' };

/** Of an answer. */
export const headers = {
  'X-Request-Id': {
    description: 'Names the request in the log of the service; not there where there was no request that could be read (400, 408, 431).',
    schema: { type: 'string', pattern: '^[0-9a-f]{12}-\\d+$' },
  },
  'Cache-Control': { description: 'Nothing may be kept.', schema: { const: 'no-store' }, required: true },
  ETag: { description: '`"<id>.<version>"`, strong.', schema: { type: 'string', pattern: '^"\\d+\\.\\d+"$' }, required: true },
  Location: { description: 'Where the user is.', schema: { type: 'string', pattern: '^/user/[^/]+$' }, required: true },
  Link: { description: 'The next page, if there is one.', schema: { type: 'string', pattern: '^<[^>]+>; rel="next"$' } },
  Vary: { description: 'What the answer depends on.', schema: text },
  'Retry-After': { description: 'Seconds after which another try makes sense.', schema: { type: 'string', pattern: '^\\d+$' } },
  'WWW-Authenticate': { description: 'Basic and Bearer (RFC 7617, RFC 6750).', schema: text, required: true },
  RateLimit: { description: 'What is left of the limits that were counted (draft-ietf-httpapi-ratelimit-headers).', schema: text },
  'RateLimit-Policy': { description: 'The limits that were counted.', schema: text },
  'X-User': { description: 'The login, percent-encoded: for a proxy that asks for others.', schema: text, required: true },
  'Set-Cookie': { description: 'The cookie `__Host-registrar`.', schema: { type: 'string', pattern: '^__Host-registrar=' } },
} as const;

export type HeaderName = keyof typeof headers;

export const everyAnswer = ['X-Request-Id', 'Cache-Control'] as const satisfies readonly HeaderName[];

export const securitySchemes = {
  password: { type: 'http', scheme: 'basic', description: 'Login and password of a user, in UTF-8.' },
  token: { type: 'http', scheme: 'bearer', description: 'The token of a session, or the admin token, which may do everything.' },
  cookie: { type: 'apiKey', in: 'cookie', name: '__Host-registrar', description: 'The token of a session, where the page has set it.' },
} as const;
