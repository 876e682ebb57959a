/** The components of the OpenAPI document that are written by hand: values, parameters, headers, security schemes. */

export interface Schema {
  readonly [keyword: string]: unknown;
}

const time: Schema = {
  type: 'string', format: 'date-time', pattern: '^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}\\.\\d{3}Z$',
  description: 'UTC, with milliseconds.', examples: ['2026-11-22T15:00:00.000Z'],
};
const count: Schema = { type: 'integer', minimum: 1 };
const text: Schema = { type: 'string' };

export const reference = (name: string, kind = 'schemas'): Schema => ({ $ref: `#/components/${kind}/${name}` });

export function object(description: string, properties: Readonly<Record<string, Schema>>, required = Object.keys(properties)): Schema {
  return { type: 'object', description, properties, required, additionalProperties: false };
}

const user = {
  id: { ...count, description: 'Never given to a second user.' },
  login: { type: 'string', minLength: 1, maxLength: 254, description: 'In its canonical form.' },
  registered: time,
  version: { ...count, description: 'One more with each change of the password, of `disabled`, and when all sessions are ended.' },
  changed: { ...time, description: 'When the password was changed last; absent if never.' },
  disabled: { ...time, description: 'Since when the account is disabled; absent while it is not.' },
  invited: { const: true, type: 'boolean', description: 'The user has no password yet; absent for others.' },
};

const coordinate: Schema = { type: 'string', pattern: '^[A-Za-z0-9_-]{43}$' };
const key = {
  kty: { const: 'EC' }, crv: { const: 'P-256' }, x: coordinate, y: coordinate, kid: text, use: { const: 'sig' }, alg: { const: 'ES256' },
};

export const schemas = {
  Login: {
    type: 'string', minLength: 1, maxLength: 2048, examples: ['alice'],
    description:
      'Letters of one script, digits and `. _ - @ + \'`: 1 to 254 characters after NFKC and lower case, one of them a letter or a digit ' +
      'at least. Spellings with the same canonical form name the same user.',
  },
  Password: {
    type: 'string', format: 'password', maxLength: 4096, examples: ['correct horse battery staple'],
    description: 'A new one has 8 to 256 characters (the service may require more), is not common, and is not like the login.',
  },
  User: {
    ...object('The public fields of a user.', user, ['id', 'login', 'registered', 'version']),
    examples: [{ id: 17, login: 'alice', registered: '2026-11-22T15:00:00.000Z', version: 1 }],
  },
  UserPage: object('A page of users, in the order of registration.', {
    users: { type: 'array', items: reference('User'), maxItems: 1000 },
    next: { type: ['string', 'null'], description: 'The next page; null on the last one.', examples: ['/user/?after=2s&limit=100'] },
  }),
  Session: object('A token, unless it is in the cookie, and its user.', {
    token: {
      type: 'string', pattern: '^[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$',
      description: 'A JWT: `sub` is the id, `preferred_username` the login. Other services verify it with /.well-known/jwks.json.',
    },
    type: { const: 'Bearer' }, expires: time, user: reference('User'),
  }, ['expires', 'user']),
  SignedIn: object('The user of a session.', {
    user: reference('User'),
    expires: { ...time, type: ['string', 'null'], description: 'When the session ends; null for a password.' },
  }),
  PasswordLink: object('A one-time link to choose a password with.', {
    link: { type: 'string', format: 'uri', description: 'Absent without `--public-url`.' },
    token: { type: 'string', description: 'The same without the address of the page.' }, expires: time,
  }, ['token', 'expires']),
  Health: object('Whether the service is ready.', {
    status: { enum: ['ok', 'unready'] }, reason: { type: 'string', description: 'Why it is not ready.' },
  }, ['status']),
  KeySet: object('A JWK Set (RFC 7517).', {
    keys: { type: 'array', minItems: 1, items: object('A public key (RFC 7518).', key) },
  }),
  Problem: object('RFC 9457.', {
    type: { type: 'string', pattern: '^urn:registrar:[a-z-]+$', description: 'What went wrong, for a program.' },
    title: { type: 'string', description: 'The same in words.' },
    status: { type: 'integer', minimum: 400, maximum: 599 },
    detail: { type: 'string', description: 'What was attempted and what is the case, for a person.' },
    errors: { type: 'array', minItems: 1, items: reference('FieldError') },
    request: { type: 'string', description: 'As in X-Request-Id.' },
  }, ['type', 'title', 'status', 'detail', 'request']),
  FieldError: object('One thing that is wrong with one value.', {
    detail: text,
    pointer: { type: 'string', pattern: '^#(/.*)?$', description: 'The value in the body (RFC 6901).' },
    parameter: { type: 'string', description: 'The name of a parameter of path, query or header.' },
  }, ['detail']),
} as const satisfies Readonly<Record<string, Schema>>;

export type SchemaName = keyof typeof schemas;

/** The fields that bodies of requests have. */
export const fieldSchemas: Readonly<Record<string, Schema>> = {
  login: reference('Login'),
  password: reference('Password'),
  current: { ...schemas.Password, description: 'The current password. Required with a session token; otherwise checked if it is there.' },
  cookie: {
    enum: ['session', 'persistent'], type: 'string',
    description: 'Puts the token into the cookie `__Host-registrar` only, which ends with the browser or outlives it.',
  },
  disabled: { type: 'boolean', description: 'Disables or enables the account, by the admin token.' },
  token: { type: 'string', maxLength: 2048, description: 'The token of a password link.' },
};

const etags: Schema = { type: 'string', examples: ['"17.1"'] };

export const parameters = {
  login: {
    name: 'login', in: 'path', required: true, schema: reference('Login'), example: 'alice',
    description: 'Percent-encoded UTF-8, in any spelling.',
  },
  limit: {
    name: 'limit', in: 'query', schema: { ...count, maximum: 1000 },
    description: 'Users on a page; 100 without. It does not go with NDJSON.',
  },
  after: { name: 'after', in: 'query', schema: text, description: 'Where to go on: as in `next`.' },
  'Idempotency-Key': {
    name: 'Idempotency-Key', in: 'header', schema: { type: 'string', minLength: 1 }, example: '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    description: 'A string in quotes (RFC 9651). A repeat with the same key and password gets the first response, also after a crash.',
  },
  'If-Match': { name: 'If-Match', in: 'header', schema: etags, description: "ETags, one of which has to be the user's, or `*`." },
  'If-None-Match': { name: 'If-None-Match', in: 'header', schema: etags, description: "ETags, none of which may be the user's, or `*`." },
} as const;

/** Of a response. */
export const headers = {
  'X-Request-Id': { description: 'Names the request in the log of the service.', schema: { type: 'string', pattern: '^[0-9a-f]{16}$' } },
  'Cache-Control': { description: 'No response may be stored.', schema: { const: 'no-store' }, required: true },
  ETag: { description: '`"<id>.<version>"`, strong.', schema: { type: 'string', pattern: '^"\\d+\\.\\d+"$' }, required: true },
  Location: { description: 'The path of the user, or of the page.', schema: { type: 'string', pattern: '^/' }, required: true },
  Link: { description: 'The next page, if there is one.', schema: { type: 'string', pattern: '^<[^>]+>; rel="next"$' } },
  Vary: { description: 'What the response depends on.', schema: text },
  Allow: { description: 'The methods of the path.', schema: text, required: true },
  'Retry-After': { description: 'Seconds after which another try makes sense.', schema: { type: 'string', pattern: '^\\d+$' } },
  'WWW-Authenticate': { description: 'Basic and Bearer (RFC 7617, RFC 6750).', schema: text, required: true },
  RateLimit: { description: 'What is left of the limits that were counted (draft-ietf-httpapi-ratelimit-headers).', schema: text },
  'RateLimit-Policy': { description: 'The limits that were counted.', schema: text },
  'X-User': { description: 'The login, percent-encoded.', schema: text, required: true },
  'X-User-Id': { description: 'The id.', schema: { type: 'string', pattern: '^[1-9]\\d*$' }, required: true },
  'Set-Cookie': { description: 'The cookie `__Host-registrar`.', schema: { type: 'string', pattern: '^__Host-registrar=' } },
} as const;

export type HeaderName = keyof typeof headers;

export const securitySchemes = {
  password: { type: 'http', scheme: 'basic', description: 'Login and password of a user, in UTF-8.' },
  token: { type: 'http', scheme: 'bearer', description: 'The token of a session, or the admin token, which permits everything.' },
  cookie: { type: 'apiKey', in: 'cookie', name: '__Host-registrar', description: 'The token of a session, as the page sets it.' },
} as const;
