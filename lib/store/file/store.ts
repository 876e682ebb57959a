/**
 * The store of users in one JSON Lines file, shared by any number of processes of one machine.
 *
 * Writing is a group commit: one batch at a time enters the shared log, every change in it is decided in
 * order, all lines go into one append, and all are answered. What is asked for meanwhile is the next batch.
 */

import { RegistrarError } from '../../errors.ts';
import type { Candidate, CreateOutcome, Expected, Replacement, StoredUser, UserPage, UserStore } from '../../user-store.ts';
import { decodeCursor, encodeCursor } from '../cursor.ts';
import { decideCreate, decideRemove, decideReplace } from '../decide.ts';
import type { Decision } from '../decide.ts';
import { nodeFileSystem } from './file-system.ts';
import type { FileSystem } from './file-system.ts';
import type { UserLog } from './log.ts';
import { encodeRemoval, encodeUser } from './record.ts';
import { SharedLog } from './shared-log.ts';

/** A batch answers all its requests at once: a longer one would only make the first of them wait. */
const batchChangesMax = 1000;

export interface FileUserStoreOptions {
  /** The file; its directory exists and was checked. */
  readonly path: string;
  /** How long a write waits for the lock. */
  readonly lockWaitMsMax: number;
  readonly now?: () => Date;
  readonly fs?: FileSystem;
  /** One line for the operator's log. */
  readonly report?: (line: string) => void;
  /** The store has failed: every later call is refused, and the process has to end. */
  readonly onFailed?: (error: RegistrarError) => void;
}

interface Change {
  readonly login: string;
  readonly decide: (current: StoredUser | undefined, nextId: number) => Decision<unknown>;
  readonly resolve: (outcome: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class FileUserStore implements UserStore {
  readonly #shared: SharedLog;
  #queue: Change[] = [];
  #working: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(shared: SharedLog) {
    this.#shared = shared;
  }

  /**
   * Opens the file, or makes it if there has never been one. Rejects with `corrupt` (file, line, byte and
   * what to do), `cannot-start` or `busy`; the file is as it was then.
   */
  static async open(options: FileUserStoreOptions): Promise<FileUserStore> {
    // Nobody is idle before it has opened.
    let releaseIfIdle = (): void => undefined;
    const shared = await SharedLog.open({
      path: options.path,
      lockWaitMsMax: options.lockWaitMsMax,
      fs: options.fs ?? nodeFileSystem,
      now: options.now ?? (() => new Date()),
      report: options.report ?? (() => undefined),
      onFailed: options.onFailed ?? (() => undefined),
      onWanted: () => releaseIfIdle(),
    });
    const store = new FileUserStore(shared);
    releaseIfIdle = () => {
      if (store.#working === undefined && shared.isWanted) shared.release();
    };
    releaseIfIdle();
    return store;
  }

  /** Users that this process knows of now. */
  get size(): number {
    return this.#shared.log.index.size;
  }

  create(candidate: Candidate): Promise<CreateOutcome> {
    return this.#change(candidate.login, (current, nextId) => decideCreate(candidate, current, nextId));
  }

  replace(expected: Expected, replacement: Replacement): Promise<StoredUser | undefined> {
    return this.#change(expected.login, (current) => decideReplace(expected, replacement, current));
  }

  remove(expected: Expected, at: string): Promise<boolean> {
    return this.#change(expected.login, (current) => decideRemove(expected, at, current));
  }

  async find(login: string): Promise<StoredUser | undefined> {
    return (await this.#shared.current()).find(login);
  }

  async page(after: string | undefined, limit: number): Promise<UserPage> {
    const from = after === undefined ? 0 : decodeCursor(after);
    const { users, next } = (await this.#shared.current()).page(from, limit);
    return { users, next: next === undefined ? undefined : encodeCursor(next) };
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#working;
      await this.#shared.close();
    })();
    return this.#closing;
  }

  #change<T>(login: string, decide: (current: StoredUser | undefined, nextId: number) => Decision<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#shared.failed !== undefined) {
        reject(this.#shared.failed);
        return;
      }
      this.#queue.push({ login, decide, resolve: resolve as (outcome: unknown) => void, reject });
      this.#working ??= this.#work();
    });
  }

  async #work(): Promise<void> {
    // Requests that came in one turn of the event loop share a batch.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const batch: Change[] = [];
      try {
        const log = await this.#shared.enter();
        batch.push(...this.#queue.splice(0, batchChangesMax));
        await this.#commit(log, batch);
      } catch (error) {
        // Before the batch was taken, nobody in the queue can be served; after that, the others can.
        for (const { reject } of batch.length > 0 ? batch : this.#queue.splice(0)) reject(error);
      }
      if (this.#shared.isWanted) this.#shared.release();
    }
    this.#working = undefined;
  }

  async #commit(log: UserLog, batch: readonly Change[]): Promise<void> {
    const pending = new Map<string, StoredUser | undefined>();
    const lines: Buffer[] = [];
    const outcomes: unknown[] = [];
    let { nextId } = log;
    for (const { login, decide } of batch) {
      const current = pending.has(login) ? pending.get(login) : log.find(login);
      const { outcome, put, remove } = decide(current, nextId);
      outcomes.push(outcome);
      if (put !== undefined) {
        nextId = Math.max(nextId, put.id + 1);
        pending.set(login, put);
        lines.push(encodeUser(put, log.end, log.header.seed));
      } else if (remove !== undefined) {
        pending.set(login, undefined);
        lines.push(encodeRemoval(remove.id, login, remove.at, log.end, log.header.seed));
      }
    }
    if (lines.length > 0) await this.#shared.append(Buffer.concat(lines));
    for (const [n, { resolve }] of batch.entries()) resolve(outcomes[n]);
  }
}
