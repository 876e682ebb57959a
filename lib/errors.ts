/**
 * The one error class of the service and the list of all its codes. Whatever is thrown that is not a
 * RegistrarError is a defect: it is logged with its cause, and nothing of it reaches a client.
 * This file does not know HTTP: `http/problem.ts` has the table from a code to a status.
 */

export type ErrorCode =
  // What a caller can mend.
  | 'malformed' //              the request cannot be read: JSON, UTF-8, query, header, target
  | 'invalid' //                it can be read and breaks a rule; `fields` names each one
  | 'unauthenticated' //        no credentials, or none that are good
  | 'forbidden' //              not from this client, not this way
  | 'rate-limited' //           too often from this client, for this login, or in all
  | 'wrong-password' //         the current password given with a change is not the user's
  | 'disabled' //               the password is right, and the account is disabled
  | 'invalid-link' //           the token of a password link is forged, used, void or expired
  | 'not-found'
  | 'method-not-allowed'
  | 'taken' //                  the login belongs to another user
  | 'conflict' //               the user changed between the look and the write
  | 'precondition-failed' //    If-Match or If-None-Match is false
  | 'key-reused' //             this Idempotency-Key came before with another password
  | 'too-large'
  | 'unsupported-media-type'
  | 'expectation-failed'
  | 'headers-too-large'
  | 'timeout'
  // What passes with time.
  | 'overloaded' //             the queue of hashes is longer than its deadline
  | 'busy' //                   another process keeps the lock of the store
  | 'outcome-unknown' //        the write may or may not have happened
  | 'storage-full'
  // What an operator must mend.
  | 'unavailable' //            the store has failed, and with a file the process is ending; or no cluster answers
  | 'corrupt' //                the file does not say what was written to it
  | 'cannot-start'
  | 'usage' //                  flags, variables, arguments
  | 'internal';

/**
 * One thing wrong with one value. A value of the body has an RFC 6901 `pointer` in fragment form
 * ("#/login"); one of the path, the query or a header has its name as `parameter`.
 */
export interface FieldError {
  readonly detail: string;
  readonly pointer?: string;
  readonly parameter?: string;
}

export interface RegistrarErrorOptions {
  readonly cause?: unknown;
  readonly fields?: readonly FieldError[];
  /** Whole seconds after which another try makes sense. */
  readonly retryAfterSeconds?: number;
  /** The methods that the resource has, for `method-not-allowed`. */
  readonly allow?: readonly string[];
}

/** What clients are answered with every day. */
const refusals: ReadonlySet<ErrorCode> = new Set([
  'malformed', 'invalid', 'unauthenticated', 'forbidden', 'rate-limited', 'wrong-password', 'not-found', 'method-not-allowed',
  'taken', 'conflict', 'precondition-failed', 'key-reused', 'too-large', 'unsupported-media-type', 'expectation-failed',
  'headers-too-large', 'timeout', 'overloaded',
]);

export class RegistrarError extends Error {
  override readonly name = 'RegistrarError';
  readonly code: ErrorCode;
  readonly fields: readonly FieldError[];
  readonly retryAfterSeconds: number | undefined;
  readonly allow: readonly string[];

  /** @param detail says for a person what was attempted and what is the case; it holds no secret. */
  constructor(code: ErrorCode, detail: string, options: RegistrarErrorOptions = {}) {
    const { stackTraceLimit } = Error;
    // The stack of a refusal is never printed, and costs as much as a read.
    if (refusals.has(code)) Error.stackTraceLimit = 0;
    super(detail, options.cause === undefined ? undefined : { cause: options.cause });
    Error.stackTraceLimit = stackTraceLimit;
    this.code = code;
    this.fields = options.fields ?? [];
    this.retryAfterSeconds = options.retryAfterSeconds;
    this.allow = options.allow ?? [];
  }

  get detail(): string {
    return this.message;
  }
}

/** Whether it is an error of this product with that code. */
export function hasCode(error: unknown, code: ErrorCode): error is RegistrarError {
  return error instanceof RegistrarError && error.code === code;
}

/** The `code` of a Node system error ("ENOENT"), or undefined for anything else. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** Whether a system call failed since there is no room, be it the disk's, a quota's or a limit's. */
export function noRoom(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(systemCode(error) ?? '');
}

/** What a thrown value says, for a log line or another error's detail. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A count for a person to read: 204,312. */
export function grouped(value: number): string {
  return value.toLocaleString('en-US');
}

/** As in "1 user" and "204,312 users". */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${grouped(value)} ${value === 1 ? one : many}`;
}
