/** What browsers are told about pages of other sites (the Fetch standard, CORS); pure. Only origins that are named are answered. */

const methods = 'DELETE, GET, HEAD, PATCH, POST, PUT';
const requestHeaders = 'Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match';
const exposed = 'ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id';
const preflightSeconds = 600;

/** For every answer: it depends on the origin as soon as one is allowed. */
export function corsHeaders(origin: string | undefined, allowed: readonly string[]): Readonly<Record<string, string>> {
  if (allowed.length === 0) return {};
  if (origin === undefined || !allowed.includes(origin)) return { Vary: 'Origin' };
  return {
    Vary: 'Origin',
    'Access-Control-Allow-Origin': origin,
    // The session's cookie is SameSite=Lax: it comes from pages of the same site alone.
    'Access-Control-Allow-Credentials': 'true',
    'Access-Control-Expose-Headers': exposed,
  };
}

/** What is added to the answer to OPTIONS where `corsHeaders` allows the origin. */
export function preflightHeaders(): Readonly<Record<string, string>> {
  return {
    'Access-Control-Allow-Methods': methods,
    'Access-Control-Allow-Headers': requestHeaders,
    'Access-Control-Max-Age': String(preflightSeconds),
  };
}
