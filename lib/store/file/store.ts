/**
 * The store of users in one JSON Lines file, shared by any number of processes of one machine.
 *
 * Writing is a group commit: one batch at a time enters the shared log, every change in it is decided in
 * order, all lines go into one append, and all are answered. What is asked for meanwhile is the next batch.
 * When the file is more dead than alive it is compacted, while all this goes on.
 */

import { RegistrarError, messageOf } from '../../errors.ts';
import type { Arrival, Candidate, CreateOutcome, Expected, Replacement, StoredUser } from '../../user-store.ts';
import type { UserLines, UserPage, UserRecords, UserStore, UserView } from '../../user-store.ts';
import { decodeCursor, encodeCursor } from '../cursor.ts';
import { decideArrival, decideCreate, decideRemove, decideReplace } from '../decide.ts';
import type { Decision } from '../decide.ts';
import type { Compaction } from './compact.ts';
import { nodeFileSystem } from './file-system.ts';
import type { FileSystem } from './file-system.ts';
import type { UserLog } from './log.ts';
import { encodeRemoval, encodeUser } from './record.ts';
import { SharedLog } from './shared-log.ts';

/** A batch answers all its requests at once: a longer one would only make the first of them wait. */
const batchChangesMax = 1000;

/** The file is compacted by itself when more than this, and more than what lives, is dead. */
const deadBytesMin = 1 << 20;

/** After compaction has failed, for want of room say. */
const compactAgainMs = 60_000;

/** Whether there is room is known by writing alone: who is sent no writes must be asked again some time. */
const noRoomMs = 10_000;

/** So little may be left to be copied while writers wait: a millisecond's work. */
const behindBytesMax = 1 << 16;
const followsMax = 100;

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
  readonly observer?: StoreObserver;
}

/** Told of what the store does; by whoever counts it. */
export interface StoreObserver {
  /** A batch is durable. */
  committed(changes: number, bytes: number, syncMs: number): void;
  /** The lock was taken, after so long. */
  locked(waitMs: number): void;
  /** The lock was let go, since another process wants it. */
  handedOver(): void;
}

interface Change {
  readonly login: string;
  /** Changes that were asked for together go into one batch. */
  readonly group: readonly unknown[] | undefined;
  readonly decide: (current: StoredUser | undefined, nextId: number) => Decision<unknown>;
  readonly resolve: (outcome: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** What is done between two batches, under the lock. */
interface Job {
  readonly run: () => Promise<void>;
  readonly reject: (error: unknown) => void;
}

/** What compaction came to. */
export interface Compacted {
  readonly users: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

export class FileUserStore implements UserStore {
  readonly #shared: SharedLog;
  readonly #report: (line: string) => void;
  readonly #observer: StoreObserver | undefined;
  #noRoomAt = -Infinity;
  #queue: Change[] = [];
  #jobs: Job[] = [];
  #compaction: Compaction | undefined;
  #compacting: Promise<Compacted> | undefined;
  #compactAt = -Infinity;
  #working: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(shared: SharedLog, { report = () => undefined, observer }: FileUserStoreOptions) {
    this.#shared = shared;
    this.#report = report;
    this.#observer = observer;
  }

  /**
   * Opens the file, or makes it if there has never been one. Rejects with `corrupt` (file, line, byte and
   * what to do), `cannot-start` or `busy`; the file is as it was then.
   */
  static async open(options: FileUserStoreOptions): Promise<FileUserStore> {
    // Nobody is idle before it has opened.
    let releaseIfIdle = (): void => undefined;
    const report = options.report ?? (() => undefined);
    const opening = SharedLog.open({
      path: options.path,
      lockWaitMsMax: options.lockWaitMsMax,
      fs: options.fs ?? nodeFileSystem,
      now: options.now ?? (() => new Date()),
      report,
      onFailed: options.onFailed ?? (() => undefined),
      onWanted: () => releaseIfIdle(),
    });
    const shared = await opening.catch((error: unknown) => {
      throw asStoreError(error, 'cannot-start');
    });
    const store = new FileUserStore(shared, options);
    releaseIfIdle = () => {
      if (store.#working === undefined) store.#handOver();
    };
    releaseIfIdle();
    return store;
  }

  /** Users that this process knows of now. */
  get size(): number {
    return this.#shared.log.index.size;
  }

  /** What of the file is in use, and what is not. */
  get bytes(): { readonly file: number; readonly dead: number } {
    const { end, deadBytes } = this.#shared.log;
    return { file: end, dead: deadBytes };
  }

  get isFailed(): boolean {
    return this.#shared.failed !== undefined;
  }

  /** Why it should not be asked, for a person: it has failed, or had no room a moment ago. Undefined if it may. */
  get trouble(): string | undefined {
    if (this.isFailed) return 'the store has failed';
    return performance.now() - this.#noRoomAt < noRoomMs ? 'there is no room to store anything' : undefined;
  }

  create(candidate: Candidate): Promise<CreateOutcome> {
    return this.#change(candidate.login, (current, nextId) => decideCreate(candidate, current, nextId));
  }

  createMany(arrivals: readonly Arrival[]): Promise<readonly CreateOutcome[]> {
    return Promise.all(
      arrivals.map((arrival) =>
        this.#change(arrival.login, (current, nextId) => decideArrival(arrival, current, nextId), arrivals),
      ),
    );
  }

  replace(expected: Expected, replacement: Replacement): Promise<StoredUser | undefined> {
    return this.#change(expected.login, (current) => decideReplace(expected, replacement, current));
  }

  remove(expected: Expected, at: string): Promise<boolean> {
    return this.#change(expected.login, (current) => decideRemove(expected, at, current));
  }

  find(login: string): Promise<StoredUser | undefined> {
    return this.#read((log) => log.find(login));
  }

  view(login: string): UserView | undefined | Promise<UserView | undefined> {
    return this.#readAtOnce((log) => log.view(login));
  }

  page(after: string | undefined, limit: number): Promise<UserPage> {
    return this.#read((log) => {
      const { users, next } = log.page(after === undefined ? 0 : decodeCursor(after), limit);
      return { users, next: next === undefined ? undefined : encodeCursor(next) };
    });
  }

  lines(after: string | undefined): Promise<UserLines> {
    return this.#read((log) => {
      const { bytes, next } = log.lines(after === undefined ? 0 : decodeCursor(after));
      return { bytes, next: next === undefined ? undefined : encodeCursor(next) };
    });
  }

  records(after: string | undefined): Promise<UserRecords> {
    return this.#read((log) => {
      const { users, next } = log.records(after === undefined ? 0 : decodeCursor(after));
      return { users, next: next === undefined ? undefined : encodeCursor(next) };
    });
  }

  kdfs(): readonly string[] | Promise<readonly string[]> {
    return this.#readAtOnce((log) => log.kdfs);
  }

  /**
   * Writes the file anew without what is dead, while reads and writes go on. Rejects with `busy` if another
   * process is at it, `storage-full`, or `corrupt` if a line is; nothing is changed then.
   */
  compact(): Promise<Compacted> {
    this.#compacting ??= this.#compact().finally(() => (this.#compacting = undefined));
    return this.#compacting;
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#compaction?.stop();
      await this.#compacting?.catch(() => undefined);
      await this.#working;
      await this.#shared.close();
    })();
    return this.#closing;
  }

  async #read<T>(use: (log: UserLog) => T): Promise<T> {
    try {
      return use(this.#shared.ready() ?? (await this.#shared.current()));
    } catch (error) {
      throw asStoreError(error, 'unavailable');
    }
  }

  /** The same without a promise where there is nothing to catch up with; then it throws what would be rejected with. */
  #readAtOnce<T>(use: (log: UserLog) => T): T | Promise<T> {
    try {
      const log = this.#shared.ready();
      if (log !== undefined) return use(log);
    } catch (error) {
      throw asStoreError(error, 'unavailable');
    }
    return this.#read(use);
  }

  #change<T>(
    login: string,
    decide: (current: StoredUser | undefined, nextId: number) => Decision<T>,
    group?: readonly unknown[],
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#shared.failed !== undefined) {
        reject(this.#shared.failed);
        return;
      }
      this.#queue.push({ login, group, decide, resolve: resolve as (outcome: unknown) => void, reject });
      this.#working ??= this.#work();
    });
  }

  async #work(): Promise<void> {
    // Requests that came in one turn of the event loop share a batch.
    await Promise.resolve();
    while (this.#queue.length > 0 || this.#jobs.length > 0) {
      const batch: Change[] = [];
      const job = this.#jobs.shift();
      try {
        const log = await this.#enter();
        await job?.run();
        if (job === undefined) {
          batch.push(...this.#nextBatch());
          await this.#commit(log, batch);
          this.#compactIfWasteful();
        }
      } catch (error) {
        // Before the batch was taken, nobody in the queue can be served; after that, the others can. Whoever
        // of the batch has been answered already stays so.
        const told = asStoreError(error, 'unavailable');
        if (told.code === 'storage-full') this.#noRoomAt = performance.now();
        // Once for all who have waited in vain: an operator must know which process hangs.
        if (job === undefined && told.code === 'busy' && told.cause === undefined) this.#report(told.message);
        if (job !== undefined) job.reject(told);
        else for (const { reject } of batch.length > 0 ? batch : this.#queue.splice(0)) reject(told);
      }
      this.#handOver();
    }
    this.#working = undefined;
  }

  async #enter(): Promise<UserLog> {
    if (this.#shared.isEntered) return this.#shared.enter();
    const from = performance.now();
    const log = await this.#shared.enter();
    this.#observer?.locked(performance.now() - from);
    return log;
  }

  #handOver(): void {
    if (!this.#shared.isWanted) return;
    this.#shared.release();
    this.#observer?.handedOver();
  }

  #nextBatch(): Change[] {
    let length = Math.min(batchChangesMax, this.#queue.length);
    const group = this.#queue[length - 1]?.group;
    while (group !== undefined && this.#queue[length]?.group === group) length++;
    return this.#queue.splice(0, length);
  }

  /** Does something between two batches, under the lock. */
  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#jobs.push({ run: async () => resolve(await work()), reject });
      this.#working ??= this.#work();
    });
  }

  async #compact(): Promise<Compacted> {
    const bytesBefore = this.#shared.log.end;
    const compaction = await this.#exclusively(() => this.#shared.beginCompaction());
    this.#compaction = compaction;
    if (this.#closing !== undefined) compaction.stop();
    try {
      await compaction.copy();
      // Where writing is faster than copying it ends all the same, and writers wait longer once.
      for (let n = 0; n < followsMax && (n === 0 || compaction.behind > behindBytesMax); n++) {
        if (this.#shared.ready() === undefined) await this.#shared.current();
        await compaction.follow();
        await compaction.sync();
      }
      await this.#exclusively(() => this.#shared.exchange(compaction));
      return { users: compaction.log.index.size, bytesBefore, bytesAfter: compaction.log.end };
    } catch (error) {
      if (this.#shared.log !== compaction.log) compaction.discard();
      throw asStoreError(error, 'unavailable');
    } finally {
      this.#compaction = undefined;
    }
  }

  #compactIfWasteful(): void {
    const { deadBytes, liveBytes } = this.#shared.log;
    if (deadBytes < Math.max(deadBytesMin, liveBytes) || this.#closing !== undefined || this.#compacting !== undefined) return;
    if (performance.now() < this.#compactAt) return;
    this.compact().then(
      ({ bytesBefore, bytesAfter }) => this.#report(`the users' file was compacted from ${bytesBefore} to ${bytesAfter} bytes`),
      (error: unknown) => {
        this.#compactAt = performance.now() + compactAgainMs;
        const isBusy = error instanceof RegistrarError && error.code === 'busy';
        if (!isBusy) this.#report(`the users' file was not compacted: ${messageOf(error)}`);
      },
    );
  }

  async #commit(log: UserLog, batch: readonly Change[]): Promise<void> {
    const pending = new Map<string, StoredUser | undefined>();
    const lines: Buffer[] = [];
    /** What may be answered only when the lines are durable. */
    const waiting: (() => void)[] = [];
    let { nextId } = log;
    for (const { login, decide, resolve, reject } of batch) {
      try {
        const isPending = pending.has(login);
        const { outcome, put, remove } = decide(isPending ? pending.get(login) : log.find(login), nextId);
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
        waiting.push(() => resolve(outcome));
      } catch (error) {
        // A line that has rotted is the trouble of one user, not of all who write at the same time.
        reject(asStoreError(error, 'unavailable'));
      }
    }
    if (lines.length > 0) {
      const bytes = Buffer.concat(lines);
      const syncMs = await this.#shared.append(bytes);
      this.#noRoomAt = -Infinity;
      this.#observer?.committed(lines.length, bytes.length, syncMs);
    }
    for (const answer of waiting) answer();
  }
}

/** Whatever the system says becomes an error of the contract, with the cause for the log. */
function asStoreError(error: unknown, code: 'unavailable' | 'cannot-start'): RegistrarError {
  if (error instanceof RegistrarError) return error;
  return new RegistrarError(code, `Cannot use the users' file: ${messageOf(error)}`, { cause: error });
}
