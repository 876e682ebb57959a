/**
 * How a store fails, once and for good: the disk could not sync, or a hand took the lock or the file away.
 * Every later call is refused, the process is told to end, and those who come after are warned.
 */

import { RegistrarError, messageOf, noRoom, systemCode } from '../../errors.ts';
import { DiskFailure, suspectPath } from './settle.ts';
import type { Place } from './settle.ts';

export class Failure {
  readonly #place: Place;
  readonly #onFailed: (error: RegistrarError) => void;
  #error: RegistrarError | undefined;
  #isStuck = false;

  constructor(place: Place, onFailed: (error: RegistrarError) => void) {
    this.#place = place;
    this.#onFailed = onFailed;
  }

  /** Why every call is refused; undefined while all is well. */
  get error(): RegistrarError | undefined {
    return this.#error;
  }

  /** It failed and could not even say so: the lock stays held, so that nobody trusts the file. */
  get isStuck(): boolean {
    return this.#isStuck;
  }

  /** The store was closed: nothing has failed, and every later call is refused all the same. */
  close(): void {
    this.#error ??= new RegistrarError('unavailable', 'The store is closed');
  }

  /** What a caller is told of whatever went wrong in a write. After a DiskFailure the store has failed. */
  refusal(error: unknown): RegistrarError {
    if (error instanceof DiskFailure) return this.#fail(error);
    if (error instanceof RegistrarError) return error;
    if (noRoom(error)) {
      return new RegistrarError('storage-full', 'There is no room to store this; nothing was changed', { cause: error });
    }
    const code = systemCode(error) ?? messageOf(error);
    const options = { cause: error, retryAfterSeconds: 5 };
    return new RegistrarError('busy', `The store cannot be written to (${code}); nothing was changed`, options);
  }

  /** The lock or the file is not this process's any more: the store has failed. */
  lost(reason: string, cause?: unknown): RegistrarError {
    if (this.#error !== undefined) return this.#error;
    this.#error = new RegistrarError('unavailable', reason, { cause });
    this.#announce(this.#error);
    return this.#error;
  }

  /**
   * The disk has failed: nobody may believe the page cache any more. Whoever takes the lock next finds
   * `suspect` and writes the file anew first. If not even that can be left, the lock is kept for good.
   */
  #fail(cause: DiskFailure): RegistrarError {
    const { fs, report } = this.#place;
    const reason = `${cause.message} (${messageOf(cause.cause)})`;
    this.#error = new RegistrarError('unavailable', `The store has failed and the service is ending: ${reason}`, { cause });
    try {
      fs.symlink('durable', suspectPath(this.#place));
    } catch (unmarked) {
      this.#isStuck = systemCode(unmarked) !== 'EEXIST';
      const why = `Cannot leave a "suspect" mark (${messageOf(unmarked)})`;
      if (this.#isStuck) report(`${reason}. ${why}: keeping the lock until this process is ended`);
    }
    if (!this.#isStuck) this.#announce(this.#error);
    return new RegistrarError('outcome-unknown', 'The store failed while writing: this may or may not be stored', { cause });
  }

  /** After those who wait have been answered: the process ends then. */
  #announce(error: RegistrarError): void {
    setImmediate(() => this.#onFailed(error));
  }
}
