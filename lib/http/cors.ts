/** CORS headers (Fetch standard) for the origins that --allow-origin names; pure. */

const methods = 'DELETE, GET, HEAD, PATCH, POST, PUT';
const requestHeaders = 'Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match';
const exposed = 'ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id';
const preflightSeconds = 600;

/** For every response: it depends on the origin as soon as one is allowed. */
export function corsHeaders(origin: string | undefined, allowed: readonly string[]): Readonly<Record<string, string>> {
  if (allowed.length === 0) return {};
  if (origin === undefined || !allowed.includes(origin)) return { Vary: 'Origin' };
  return {
    Vary: 'Origin',
    'Access-Control-Allow-Origin': origin,
    // The session cookie is SameSite=Lax, so only pages of the same site send it.
    'Access-Control-Allow-Credentials': 'true',
    'Access-Control-Expose-Headers': exposed,
  };
}

/** Added to the response to a preflight; they have an effect only where `corsHeaders` allows the origin. */
export function preflightHeaders(): Readonly<Record<string, string>> {
  return {
    'Access-Control-Allow-Methods': methods,
    'Access-Control-Allow-Headers': requestHeaders,
    'Access-Control-Max-Age': String(preflightSeconds),
  };
}
