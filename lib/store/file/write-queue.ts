/**
 * The group commit: one batch at a time acquires the lock, each change in it is decided in order, all lines go into one
 * append, and all changes are answered. Changes that arrive meanwhile are the next batch.
 */

import { RegistrarError, messageOf } from '../../errors.ts';
import type { StoredUser } from '../../user-store.ts';
import type { Decision } from '../decide.ts';
import type { UserLog } from './user-log.ts';
import { encodeRemoval, encodeUser } from './record.ts';
import type { SharedLog } from './shared-log.ts';

/** All changes of a batch are answered at once: a longer batch would delay the first of them. */
const batchChangesMax = 1000;

/** Only a write shows whether the disk works again: a process that gets none must be ready for one some time. */
const failureMs = 10_000;

/** Receives what happens in the store, for metrics. */
export interface StoreObserver {
  /** A batch is durable. @param ms the time of fdatasync. */
  onSync(ms: number): void;
  /** The lock was acquired. */
  onLock(waitMs: number): void;
}

export interface Change {
  readonly login: string;
  /** Changes of one group go into one batch. */
  readonly group: readonly unknown[] | undefined;
  readonly decide: (current: StoredUser | undefined, nextId: number) => Decision<unknown>;
  readonly resolve: (outcome: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** Runs between two batches, under the lock. */
interface Job {
  readonly run: () => Promise<void>;
  readonly reject: (error: unknown) => void;
}

export class WriteQueue {
  readonly #shared: SharedLog;
  readonly #report: (line: string) => void;
  readonly #observer: StoreObserver | undefined;
  readonly #changes: Change[] = [];
  readonly #jobs: Job[] = [];
  #working: Promise<void> | undefined;
  #failure: { readonly reason: string; readonly at: number } | undefined;

  constructor(shared: SharedLog, report: (line: string) => void, observer: StoreObserver | undefined) {
    this.#shared = shared;
    this.#report = report;
    this.#observer = observer;
  }

  get isIdle(): boolean {
    return this.#working === undefined;
  }

  /** Why writes fail, if a write has failed a moment ago. */
  get unhealthyReason(): string | undefined {
    const failure = this.#failure;
    return failure !== undefined && performance.now() - failure.at < failureMs ? failure.reason : undefined;
  }

  add(change: Change): void {
    if (this.#shared.failed !== undefined) {
      change.reject(this.#shared.failed);
      return;
    }
    this.#changes.push(change);
    this.#working ??= this.#work();
  }

  /** Runs something under the lock. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#jobs.push({ run: async () => resolve(await work()), reject });
      this.#working ??= this.#work();
    });
  }

  async drained(): Promise<void> {
    await this.#working;
  }

  /** Releases the lock if another process waits for it. */
  yieldLock(): void {
    if (this.#shared.hasWaiters) this.#shared.release();
  }

  async #work(): Promise<void> {
    // Requests of one turn of the event loop share a batch.
    await Promise.resolve();
    while (this.#changes.length > 0 || this.#jobs.length > 0) {
      const job = this.#jobs.shift();
      let batch: readonly Change[] = [];
      try {
        const log = await this.#acquire();
        if (job !== undefined) await job.run();
        else {
          batch = this.#nextBatch();
          await this.#commit(log, batch);
        }
      } catch (error) {
        const refusal = asStoreError(error, 'unavailable');
        this.#note(refusal);
        if (job !== undefined) job.reject(refusal);
        // Without the lock, no change in the queue can be decided. A change of the batch that was answered stays so.
        else for (const { reject } of batch.length > 0 ? batch : this.#changes.splice(0)) reject(refusal);
      }
      this.yieldLock();
    }
    this.#working = undefined;
  }

  async #acquire(): Promise<UserLog> {
    if (this.#shared.isAcquired) return this.#shared.acquire();
    const from = performance.now();
    const log = await this.#shared.acquire();
    this.#observer?.onLock(performance.now() - from);
    return log;
  }

  #nextBatch(): readonly Change[] {
    let length = Math.min(batchChangesMax, this.#changes.length);
    const group = this.#changes[length - 1]?.group;
    while (group !== undefined && this.#changes[length]?.group === group) length++;
    return this.#changes.splice(0, length);
  }

  async #commit(log: UserLog, batch: readonly Change[]): Promise<void> {
    const pending = new Map<string, StoredUser | undefined>();
    const lines: Buffer[] = [];
    /** The answers that wait until the lines are durable. */
    const answers: (() => void)[] = [];
    let { nextId } = log;
    for (const { login, decide, resolve, reject } of batch) {
      try {
        const isPending = pending.has(login);
        const { outcome, put, remove } = decide(isPending ? pending.get(login) : log.users.findRecord(login), nextId);
        if (put !== undefined) {
          lines.push(encodeUser(put, log.end, log.header.seed));
          nextId = Math.max(nextId, put.id + 1);
          pending.set(login, put);
        } else if (remove !== undefined) {
          lines.push(encodeRemoval(remove.id, login, remove.at, log.end, log.header.seed));
          pending.set(login, undefined);
        } else if (!isPending) {
          resolve(outcome);
          continue;
        }
        answers.push(() => resolve(outcome));
      } catch (error) {
        // A damaged line concerns one user, not all changes of the batch.
        reject(asStoreError(error, 'unavailable'));
      }
    }
    if (lines.length > 0) {
      const bytes = lines.length === 1 ? lines[0]! : Buffer.concat(lines);
      const syncMs = await this.#shared.append(bytes, nextId);
      this.#failure = undefined;
      this.#observer?.onSync(syncMs);
    }
    for (const answer of answers) answer();
  }

  /** What does not pass by itself is reported once, and makes the service not ready. */
  #note({ code, message, cause }: RegistrarError): void {
    const isHolderHanging = code === 'busy' && cause === undefined;
    if (isHolderHanging) this.#report(message);
    if (code !== 'storage-full' && code !== 'unavailable' && code !== 'corrupt') return;
    if (this.unhealthyReason !== message) this.#report(message);
    this.#failure = { reason: message, at: performance.now() };
  }
}

/** An error of the system becomes one of the contract, with the cause for the log. */
export function asStoreError(error: unknown, code: 'unavailable' | 'cannot-start'): RegistrarError {
  if (error instanceof RegistrarError) return error;
  return new RegistrarError(code, `Cannot use the users file: ${messageOf(error)}`, { cause: error });
}
