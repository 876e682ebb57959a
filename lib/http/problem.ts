/**
 * Errors as application/problem+json (RFC 9457), and the one table from a code to its status and title. Anything that is not a
 * RegistrarError becomes `internal`, and the response has only the request's id.
 */

import { RegistrarError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import type { Reply } from './route.ts';

const table: Readonly<Record<ErrorCode, readonly [status: number, title: string]>> = {
  malformed: [400, 'The request cannot be read'],
  unauthenticated: [401, 'The request is not authenticated'],
  forbidden: [403, 'This is not allowed'],
  'wrong-password': [403, 'The password is wrong'],
  disabled: [403, 'The account is disabled'],
  'invalid-link': [403, 'The link is not valid'],
  'not-found': [404, 'Not found'],
  'method-not-allowed': [405, 'The method is not allowed here'],
  timeout: [408, 'The request took too long to arrive'],
  taken: [409, 'The login is taken'],
  conflict: [409, 'The user was changed by another request'],
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
  'storage-full': [507, 'The disk is full'],
};

export function problemStatus(code: ErrorCode): number {
  return table[code][0];
}

export function problemTitle(code: ErrorCode): string {
  return table[code][1];
}

/** Their details are for the operator, and stay in the log. */
const privateCodes: ReadonlySet<ErrorCode> = new Set(['internal', 'corrupt', 'cannot-start', 'usage', 'unavailable']);

/** Whether the response has the request's id instead of the details. */
export function isPrivate(code: ErrorCode): boolean {
  return privateCodes.has(code);
}

/** Anything that was thrown, as a RegistrarError. */
export function asRegistrarError(thrown: unknown): RegistrarError {
  if (thrown instanceof RegistrarError) return thrown;
  return new RegistrarError('internal', 'An unexpected error occurred', { cause: thrown });
}

/** @param request the request's id, as in the log. */
export function problem(error: RegistrarError, request: string): Reply {
  const { code, fields, allow, retryAfterSeconds } = error;
  const [status, title] = table[code];
  const detail = isPrivate(code) ? `The log of the service has the details under the id ${request}` : error.detail;
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
