/**
 * Errors as application/problem+json (RFC 9457), and the one table from a code to its status and title.
 * Whatever is no RegistrarError becomes `internal`, of which nothing but the request's id is told.
 */

import { RegistrarError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import type { Reply } from './message.ts';

const table: Readonly<Record<ErrorCode, readonly [status: number, title: string]>> = {
  malformed: [400, 'The request cannot be read'],
  unauthenticated: [401, 'Credentials are needed'],
  forbidden: [403, 'This is not allowed'],
  'wrong-password': [403, 'The password is wrong'],
  'not-found': [404, 'There is nothing here'],
  'method-not-allowed': [405, 'The method is not allowed here'],
  timeout: [408, 'The request took too long to arrive'],
  taken: [409, 'The login is taken'],
  conflict: [409, 'Another request came first'],
  'precondition-failed': [412, 'The precondition is false'],
  'too-large': [413, 'The body is too large'],
  'unsupported-media-type': [415, 'The body is of an unsupported type'],
  'expectation-failed': [417, 'The expectation cannot be met'],
  invalid: [422, 'A value breaks a rule'],
  'key-reused': [422, 'The Idempotency-Key was used before'],
  'headers-too-large': [431, 'The headers are too large'],
  'rate-limited': [429, 'Too many requests'],
  internal: [500, 'The service failed'],
  corrupt: [500, 'The store is damaged'],
  'cannot-start': [500, 'The service failed'],
  usage: [500, 'The service failed'],
  overloaded: [503, 'The service is busy'],
  busy: [503, 'The store is busy'],
  'outcome-unknown': [503, 'The outcome is unknown'],
  unavailable: [503, 'The service is not available'],
  'storage-full': [507, 'There is no room left'],
};

export function problemStatus(code: ErrorCode): number {
  return table[code][0];
}

export function problemTitle(code: ErrorCode): string {
  return table[code][1];
}

/** What only an operator may read stays in the log. */
const privateCodes: ReadonlySet<ErrorCode> = new Set(['internal', 'corrupt', 'cannot-start', 'usage', 'unavailable']);

/** Whether a client is told no more than where to look. */
export function isPrivate(code: ErrorCode): boolean {
  return privateCodes.has(code);
}

/** Anything that was thrown, as an error of ours. */
export function asRegistrarError(thrown: unknown): RegistrarError {
  if (thrown instanceof RegistrarError) return thrown;
  return new RegistrarError('internal', 'Something went wrong here', { cause: thrown });
}

/** @param request the request's id, under which the log tells more. */
export function problem(error: RegistrarError, request: string): Reply {
  const { code, fields, allow, retryAfterSeconds } = error;
  const [status, title] = table[code];
  const detail = isPrivate(code) ? `The service's log tells more under the id ${request}` : error.detail;
  const body = {
    type: `urn:registrar:${code}`,
    title,
    status,
    detail,
    ...(fields.length === 0 ? {} : { errors: fields }),
    request,
  };
  return {
    status,
    headers: {
      'Content-Type': 'application/problem+json',
      ...(allow.length === 0 ? {} : { Allow: allow.join(', ') }),
      ...(retryAfterSeconds === undefined ? {} : { 'Retry-After': String(retryAfterSeconds) }),
    },
    body: `${JSON.stringify(body)}\n`,
  };
}
