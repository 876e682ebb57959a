/**
 * The store of users in one JSON Lines file, shared by any number of processes of one machine. Once a second it checks
 * its files, takes the lock if no process has it, and compacts the file in the background when most of it is obsolete.
 */

import { RegistrarError, hasCode, messageOf } from '../../errors.ts';
import type { CreateOutcome, Expected, ImportedUser, NewUser, Replacement, StoredUser } from '../../user-store.ts';
import type { NdjsonPage, PublicUser, RecordPage, UserPage, UserStore } from '../../user-store.ts';
import { decideCreate, decideImport, decideRemove, decideReplace } from '../decide.ts';
import type { Decision } from '../decide.ts';
import type { Compaction } from './compaction.ts';
import { nodeFileSystem } from './file-system.ts';
import type { FileSystem } from './file-system.ts';
import type { UserLog } from './user-log.ts';
import { SharedLog } from './shared-log.ts';
import { WriteQueue, asStoreError } from './write-queue.ts';
import type { StoreObserver } from './write-queue.ts';

export type { StoreObserver };

/** The file is compacted when more than this, and more than half of it, is obsolete. */
const obsoleteBytesMin = 1 << 20;

/** After compaction has failed, for lack of space say. */
const compactAgainMs = 60_000;

/** At most so much is copied while writers wait: a millisecond's work. */
const behindBytesMax = 1 << 16;
const catchUpsMax = 100;

export interface FileUserStoreOptions {
  /** The file; its directory exists and was checked. */
  readonly path: string;
  /** How long a write waits for the lock. */
  readonly lockWaitMsMax: number;
  readonly now?: () => Date;
  readonly fs?: FileSystem;
  /** One line for the operator's log. */
  readonly report?: (line: string) => void;
  /** The store has failed: every later call is refused, and the process must end. */
  readonly onFailed?: (error: RegistrarError) => void;
  readonly observer?: StoreObserver;
  /** How often the files are checked. */
  readonly checkMs?: number;
}

/** The result of a compaction. */
export interface Compacted {
  readonly users: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

export class FileUserStore implements UserStore {
  readonly #shared: SharedLog;
  readonly #queue: WriteQueue;
  readonly #report: (line: string) => void;
  readonly #checkMs: number;
  #timer: NodeJS.Timeout | undefined;
  #checking: Promise<void> | undefined;
  /** What the last check found. */
  #checkFailure: string | undefined;
  #compaction: Compaction | undefined;
  #compacting: Promise<Compacted> | undefined;
  #compactAt = -Infinity;
  #closing: Promise<void> | undefined;

  private constructor(shared: SharedLog, { report = () => undefined, observer, checkMs = 1_000 }: FileUserStoreOptions) {
    this.#shared = shared;
    this.#report = report;
    this.#queue = new WriteQueue(shared, report, observer);
    this.#checkMs = checkMs;
    this.#scheduleCheck();
  }

  /**
   * Opens the file, or makes it if there never was one. Rejects with `corrupt` (file, line, byte and remedy),
   * `cannot-start` or `busy`; the file is unchanged then.
   */
  static async open(options: FileUserStoreOptions): Promise<FileUserStore> {
    const { path, lockWaitMsMax, fs = nodeFileSystem, now = () => new Date() } = options;
    const { report = () => undefined, onFailed = () => undefined } = options;
    let store: FileUserStore | undefined;
    const yieldLockIfIdle = (): void => {
      if (store !== undefined && store.#queue.isIdle) store.#queue.yieldLock();
    };
    const opening = SharedLog.open({ path, lockWaitMsMax, fs, now, report, onFailed, onWaiter: () => yieldLockIfIdle() });
    const shared = await opening.catch((error: unknown) => {
      throw asStoreError(error, 'cannot-start');
    });
    store = new FileUserStore(shared, options);
    yieldLockIfIdle();
    return store;
  }

  /** The number of users, as far as this process has read. */
  get size(): number {
    return this.#shared.log.index.size;
  }

  get bytes(): { readonly file: number; readonly obsolete: number } {
    const { end, obsoleteBytes } = this.#shared.log;
    return { file: end, obsolete: obsoleteBytes };
  }

  get isFailed(): boolean {
    return this.#shared.failed !== undefined;
  }

  /** Why reads or writes fail; undefined while both work. */
  get unhealthyReason(): string | undefined {
    return this.#shared.failed?.message ?? this.#checkFailure ?? this.#queue.unhealthyReason;
  }

  create(user: NewUser): Promise<CreateOutcome> {
    return this.#change(user.login, (current, nextId) => decideCreate(user, current, nextId));
  }

  createMany(users: readonly ImportedUser[]): Promise<readonly CreateOutcome[]> {
    return Promise.all(
      users.map((user) => this.#change(user.login, (current, nextId) => decideImport(user, current, nextId), users)),
    );
  }

  replace(expected: Expected, replacement: Replacement): Promise<StoredUser | undefined> {
    return this.#change(expected.login, (current) => decideReplace(expected, replacement, current));
  }

  remove(expected: Expected, at: string): Promise<boolean> {
    return this.#change(expected.login, (current) => decideRemove(expected, at, current));
  }

  findRecord(login: string): Promise<StoredUser | undefined> {
    return this.#read((log) => log.users.findRecord(login));
  }

  findPublic(login: string): PublicUser | undefined | Promise<PublicUser | undefined> {
    return this.#readAtOnce((log) => log.users.findPublic(login));
  }

  page(after: string | undefined, limit: number): Promise<UserPage> {
    return this.#read((log) => log.users.page(after, limit));
  }

  ndjsonPage(after: string | undefined): Promise<NdjsonPage> {
    return this.#read((log) => log.users.ndjsonPage(after));
  }

  recordPage(after: string | undefined): Promise<RecordPage> {
    return this.#read((log) => log.users.recordPage(after));
  }

  lastId(): Promise<number> {
    return this.#read((log) => log.nextId - 1);
  }

  kdfs(): readonly string[] | Promise<readonly string[]> {
    return this.#readAtOnce((log) => log.kdfs);
  }

  /**
   * Removes obsolete lines from the file, while reads and writes go on. Rejects with `busy` if another process is
   * compacting, `storage-full`, or `corrupt` if a line is; the file is unchanged then.
   */
  compact(): Promise<Compacted> {
    this.#compacting ??= this.#compact().finally(() => (this.#compacting = undefined));
    return this.#compacting;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#compaction?.stop();
    await this.#compacting?.catch(() => undefined);
    await this.#checking;
    await this.#queue.drained();
    // A command ends before a compaction would begin.
    if (this.#isWasteful && !this.isFailed) {
      const { file, obsolete } = this.bytes;
      const share = Math.round((obsolete / file) * 100);
      this.#report(`${share} % of the users file is obsolete. Run "registrar compact", or leave it to a running service.`);
    }
    await this.#shared.close();
  }

  async #read<T>(use: (log: UserLog) => T): Promise<T> {
    try {
      return use(this.#shared.ifCurrent() ?? (await this.#shared.current()));
    } catch (error) {
      throw asStoreError(error, 'unavailable');
    }
  }

  /** Without a promise if the log is current: errors are then thrown. */
  #readAtOnce<T>(use: (log: UserLog) => T): T | Promise<T> {
    try {
      const log = this.#shared.ifCurrent();
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
      this.#queue.add({ login, group, decide, resolve: resolve as (outcome: unknown) => void, reject });
    });
  }

  #scheduleCheck(): void {
    this.#timer = setTimeout(() => {
      this.#checking = this.#check().finally(() => {
        if (this.#closing === undefined) this.#scheduleCheck();
      });
    }, this.#checkMs).unref();
  }

  /** Failures that no request would meet, or not yet, make the service not ready, and are reported once. */
  async #check(): Promise<void> {
    if (this.isFailed) return;
    try {
      const isLockFree = await this.#shared.check();
      if (isLockFree && this.#queue.isIdle && this.#closing === undefined) await this.#queue.exclusively(async () => undefined);
      this.#checkFailure = undefined;
      this.#compactIfWasteful();
    } catch (error) {
      const { code, message } = asStoreError(error, 'unavailable');
      const isPassing = code === 'busy';
      if (isPassing || this.isFailed || this.#closing !== undefined) return;
      if (this.#checkFailure !== message && this.#queue.unhealthyReason !== message) this.#report(message);
      this.#checkFailure = message;
    }
  }

  get #isWasteful(): boolean {
    const { end, obsoleteBytes } = this.#shared.log;
    return obsoleteBytes > Math.max(obsoleteBytesMin, end - obsoleteBytes);
  }

  #compactIfWasteful(): void {
    if (!this.#isWasteful || !this.#shared.isAcquired || this.#closing !== undefined || performance.now() < this.#compactAt) return;
    this.compact().then(
      ({ bytesBefore, bytesAfter }) => this.#report(`The users file was compacted from ${bytesBefore} to ${bytesAfter} bytes`),
      (error: unknown) => {
        this.#compactAt = performance.now() + compactAgainMs;
        const isBusy = hasCode(error, 'busy') && error.cause === undefined;
        if (!isBusy && this.#closing === undefined) this.#report(`The users file was not compacted: ${messageOf(error)}`);
      },
    );
  }

  async #compact(): Promise<Compacted> {
    const bytesBefore = this.#shared.log.end;
    const compaction = await this.#queue.exclusively(() => this.#shared.beginCompaction());
    this.#compaction = compaction;
    if (this.#closing !== undefined) compaction.stop();
    try {
      await compaction.copy();
      // Where writing is faster than copying, this ends all the same, and writers wait longer once.
      for (let n = 0; n < catchUpsMax && (n === 0 || compaction.behind > behindBytesMax); n++) {
        if (this.#shared.ifCurrent() === undefined) await this.#shared.current();
        await compaction.catchUp();
        await compaction.sync();
      }
      await this.#queue.exclusively(() => this.#shared.swap(compaction));
      return { users: compaction.log.index.size, bytesBefore, bytesAfter: compaction.log.end };
    } catch (error) {
      if (this.#shared.log !== compaction.log) compaction.discard();
      throw asStoreError(error, 'unavailable');
    } finally {
      this.#compaction = undefined;
    }
  }
}
