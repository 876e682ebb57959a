/**
 * How a store fails for good: the disk could not sync, or the lock or the file was removed from outside. Every later
 * call is refused, and the process is told to end. After a failed sync the file is longer than its durable offset, as
 * after a kill, so the next process recovers it in the same way.
 */

import { RegistrarError, messageOf, noRoom, systemCode } from '../../errors.ts';
import { DiskFailure } from './crash-recovery.ts';

/** Errors that pass by themselves: descriptors or memory are missing, a call was interrupted. */
const passing: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EAGAIN', 'EINTR']);

export class Failure {
  readonly #onFailed: (error: RegistrarError) => void;
  #error: RegistrarError | undefined;

  constructor(onFailed: (error: RegistrarError) => void) {
    this.#onFailed = onFailed;
  }

  /** Why every call is refused; undefined while the store works. */
  get error(): RegistrarError | undefined {
    return this.#error;
  }

  /** The store was closed: nothing has failed, and every later call is refused. */
  close(): void {
    this.#error ??= new RegistrarError('unavailable', 'The store is closed');
  }

  /** The error that a caller gets for a write that failed. A DiskFailure makes the store fail. */
  refusal(error: unknown): RegistrarError {
    if (error instanceof DiskFailure) {
      const reason = `${error.message} (${messageOf(error.cause)})`;
      this.lost(`The store has failed and the service is ending: ${reason}`, error);
      return new RegistrarError('outcome-unknown', 'The store failed while writing: this may or may not be stored', { cause: error });
    }
    if (error instanceof RegistrarError) return error;
    if (noRoom(error)) {
      return new RegistrarError('storage-full', 'There is no room to store this; nothing was changed', { cause: error });
    }
    const code = systemCode(error) ?? messageOf(error);
    const options = { cause: error, retryAfterSeconds: 5 };
    const kind = passing.has(code) ? 'busy' : 'unavailable';
    return new RegistrarError(kind, `The store cannot be written to (${code}); nothing was changed`, options);
  }

  /** The store fails, for this reason unless it has failed before. */
  lost(reason: string, cause?: unknown): RegistrarError {
    if (this.#error !== undefined) return this.#error;
    const error = new RegistrarError('unavailable', reason, { cause });
    this.#error = error;
    // Waiting requests are answered first: the process ends then.
    setImmediate(() => this.#onFailed(error));
    return error;
  }
}
