/**
 * The users file as all processes of the machine share it: the log, the lock and the durable offset.
 *
 *   to read    read the durable offset and catch up to it; the lock is not needed
 *   to write   acquire the lock, recover what a dead writer has left, catch up; append until another process waits
 *   append     one write, fdatasync, the durable offset, and only then the index
 *
 * Nothing that is not durable is in the index. The holder of the lock is the only process that writes: its reads make no
 * system call to find out whether they are current. A disk that fails makes the store fail for good.
 */

import { dirname, join } from 'node:path';
import { RegistrarError, hasCode, messageOf } from '../../errors.ts';
import { Compaction, compactPrefix } from './compaction.ts';
import { cutBack, orDiskFailure, recoverAfterCrash, sync, writeDurableOffset } from './crash-recovery.ts';
import type { StorePaths } from './crash-recovery.ts';
import { DurableOffsetFile } from './durable-offset.ts';
import { Failure } from './failure.ts';
import { FileLock } from './file-lock.ts';
import type { FileSystem } from './file-system.ts';
import { lockDirectoryOf } from './lock-directory.ts';
import { LogReader } from './log-reader.ts';
import type { UserLog } from './user-log.ts';
import { assertOwnFile, assertSingleLink, replacement } from './own-file.ts';

/** After a reboot one process reads the whole file under the lock, and the others that start wait for it. */
const openTriesMax = 12;
export interface SharedLogOptions {
  readonly path: string;
  readonly fs: FileSystem;
  readonly now: () => Date;
  readonly lockWaitMsMax: number;
  readonly report: (line: string) => void;
  readonly onFailed: (error: RegistrarError) => void;
  /** Another process waits for the lock: release it, at once or after the current batch. */
  readonly onWaiter: () => void;
}

export class SharedLog {
  readonly #options: SharedLogOptions;
  readonly #paths: StorePaths;
  readonly #directoryFd: number;
  readonly #lock: FileLock;
  readonly #failure: Failure;
  readonly #reader: LogReader;
  /** The lock is held, and this process has caught up: no other one writes. */
  #isCurrent = false;
  #isWriting = false;

  private constructor(options: SharedLogOptions, directoryFd: number, lock: FileLock) {
    const { fs, path, now, report } = options;
    this.#options = options;
    this.#directoryFd = directoryFd;
    this.#lock = lock;
    this.#paths = {
      fs, path, lockDirectory: lockDirectoryOf(path), now, report,
      durable: new DurableOffsetFile(fs, path),
      temporary: join(lockDirectoryOf(path), `.new-${lock.identity}`),
    };
    this.#failure = new Failure(options.onFailed);
    this.#reader = new LogReader(this.#paths, () => this.#isCurrent);
  }

  /**
   * Opens the file, or makes it if there has never been one, and takes the lock if no process has it. Rejects with
   * `corrupt` (file, line, byte and remedy), `cannot-start` or `busy`; the file is unchanged then.
   */
  static async open(options: SharedLogOptions): Promise<SharedLog> {
    const { fs, path, onWaiter, report } = options;
    // The descriptor stays open: a sync of the directory must not fail for want of one.
    const directoryFd = fs.open(dirname(path), 'r');
    let shared: SharedLog | undefined;
    try {
      // A file that is refused gets no lock directory.
      assertOwnFile(fs, path, directoryFd);
      fs.makeDirectory(lockDirectoryOf(path), 0o700);
      const lock = await FileLock.join({ fs, directory: lockDirectoryOf(path), onWaiter });
      shared = new SharedLog(options, directoryFd, lock);
      if (await shared.#reader.open()) await shared.#acquireIfFree();
      else await shared.#acquirePatiently();
      return shared;
    } catch (error) {
      // Without room for the quarantine of a torn tail, what is durable can still be read.
      if (shared !== undefined && shared.#reader.isMarked && hasCode(error, 'storage-full')) {
        report(error.message);
        return shared;
      }
      if (shared !== undefined) await shared.close();
      else fs.close(directoryFd);
      throw error;
    }
  }

  /** Why every call is refused, if the store has failed or was closed. */
  get failed(): RegistrarError | undefined {
    return this.#failure.error;
  }

  /** As far as it was read. */
  get log(): UserLog {
    const { log } = this.#reader;
    if (log === undefined) throw new Error('the log is not open');
    return log;
  }

  /** The lock is held and the log is current. */
  get isAcquired(): boolean {
    return this.#isCurrent && this.#lock.isHeld;
  }

  get hasWaiters(): boolean {
    return this.#lock.hasWaiters;
  }

  async close(): Promise<void> {
    this.#failure.close();
    this.#isCurrent = false;
    await this.#lock.leave();
    this.#paths.durable.close();
    this.#reader.close();
    this.#options.fs.close(this.#directoryFd);
  }

  /** The log, if every write is in it that any process acknowledged before this call; undefined if it must catch up first. */
  ifCurrent(): UserLog | undefined {
    if (this.#failure.error !== undefined) throw this.#failure.error;
    const { log } = this;
    return this.#isCurrent || this.#reader.isCurrent(log) ? log : undefined;
  }

  /** The same, caught up. The caller reads in the same turn of the event loop: later the log may be closed. */
  async current(): Promise<UserLog> {
    // Without a valid durable offset only the holder of the lock can find out what is durable.
    if (!(await this.#reader.catchUp())) await this.acquire();
    return this.log;
  }

  /** Acquires the lock, unless it is still held, and catches up. */
  async acquire(): Promise<UserLog> {
    if (this.#failure.error !== undefined) throw this.#failure.error;
    if (this.isAcquired) return this.log;
    try {
      await this.#lock.acquire(this.#options.lockWaitMsMax);
      if (this.#reader.isElsewhere) {
        // The file was compacted: it is read without the lock, so that no process waits. A fault in it is reported below.
        this.#lock.release();
        await this.current().catch(() => undefined);
        await this.#lock.acquire(this.#options.lockWaitMsMax);
      }
      await this.#reader.inTurn(() => recoverAfterCrash(this.#paths, this.#reader.log, (log) => this.#reader.switchTo(log)));
      // An append that could not open it would make the store fail.
      this.#paths.durable.openForWriting();
      // Two callers may acquire at once, a read without a durable offset and a write, and one may have released it again.
      this.#isCurrent = this.#lock.isHeld;
      return this.#isCurrent ? this.log : await this.acquire();
    } catch (error) {
      // The lock or the file was removed or replaced: waiting does not help.
      if (hasCode(error, 'unavailable')) this.#failure.lost(error.message, error);
      this.release();
      throw this.#failure.refusal(error);
    }
  }

  /**
   * Appends lines; between `acquire` and `release`. They are durable and in the index when it resolves.
   * @param nextId the lowest id that is free after them.
   * @returns how many milliseconds the disk took to sync it.
   */
  async append(bytes: Buffer, nextId: number): Promise<number> {
    return this.#write(async () => {
      const { log } = this;
      try {
        log.writeBatch(bytes);
      } catch (cause) {
        await cutBack(log);
        throw cause;
      }
      const from = performance.now();
      await sync(log);
      const syncMs = performance.now() - from;
      await this.#writeDurableOffset(log, log.end + bytes.length, nextId);
      log.append(bytes);
      return syncMs;
    });
  }

  /**
   * Begins a file without obsolete lines; between `acquire` and `release`. Throws `busy` if another process is
   * compacting. The caller copies, acquires again and swaps it in, or discards it.
   */
  async beginCompaction(): Promise<Compaction> {
    const { fs, path, lockDirectory, now } = this.#paths;
    if (await this.#lock.isTaken(compactPrefix)) throw new RegistrarError('busy', `Another process is compacting "${path}" already`);
    try {
      const temporary = join(lockDirectory, `${compactPrefix}${this.#lock.identity}`);
      return await Compaction.begin({ fs, temporary, source: this.log, now: now() });
    } catch (error) {
      throw this.#failure.refusal(error);
    }
  }

  /** Puts the compacted file in the place of the old one; between `acquire` and `release`. */
  async swap(compaction: Compaction): Promise<void> {
    const { fs, path } = this.#paths;
    const { log, temporary } = compaction;
    await this.#write(async () => {
      if (!compaction.copies(this.log)) throw new RegistrarError('busy', `"${path}" was replaced while it was being compacted`);
      await compaction.catchUp();
      await compaction.sync();
      fs.rename(temporary, path);
      await orDiskFailure('Cannot sync the directory', () => fs.syncOpenDirectory(this.#directoryFd));
      await this.#writeDurableOffset(log, log.end, log.nextId);
      this.#reader.switchTo(log);
    });
  }

  /** Lets the next process write. */
  release(): void {
    this.#isCurrent = false;
    try {
      this.#lock.release();
    } catch (error) {
      this.#failure.lost(messageOf(error), error);
    }
  }

  /**
   * Called once a second: notices what was done to the files from outside, and catches up. Rejects with what keeps reads or
   * writes from working. True if the lock should be acquired, since no living process has it.
   */
  async check(): Promise<boolean> {
    if (this.#isCurrent) {
      // During an append the file is longer than the log, during a swap it is another one.
      if (!this.#isWriting) this.#assertInPlace();
      return false;
    }
    this.#assertLock();
    await this.current();
    return !this.#isCurrent && this.#lock.isTakeable();
  }

  /** Runs a write of the holder. What it throws becomes the error that the caller gets. */
  async #write<T>(work: () => Promise<T>): Promise<T> {
    this.#assertInPlace();
    this.#isWriting = true;
    try {
      return await work();
    } catch (error) {
      throw this.#failure.refusal(error);
    } finally {
      this.#isWriting = false;
    }
  }

  /** The lock and the file are where they were, and the file has one name and the length that it was left with. */
  #assertInPlace(): void {
    const { fs, path } = this.#paths;
    this.#assertLock();
    const status = fs.stat(path);
    const reason = replacement(path, status, this.log);
    if (reason !== undefined) throw this.#failure.lost(reason);
    if (status !== undefined) assertSingleLink(fs, path, status, 'unavailable');
  }

  #assertLock(): void {
    try {
      if (this.#isCurrent) this.#lock.assertHeld();
      else this.#lock.assertInPlace();
    } catch (error) {
      throw this.#failure.lost(messageOf(error), error);
    }
  }

  /** Reading needs no lock: where the lock cannot be taken, on a full disk say, the store is opened without it. */
  async #acquireIfFree(): Promise<void> {
    try {
      if (await this.#lock.isTakeable()) await this.acquire();
    } catch (error) {
      if (this.#failure.error !== undefined || hasCode(error, 'corrupt')) throw error;
    }
  }

  async #acquirePatiently(): Promise<void> {
    for (let n = 1; ; n++) {
      try {
        await this.acquire();
        return;
      } catch (error) {
        const isLocked = hasCode(error, 'busy') && error.cause === undefined;
        if (!isLocked || n === openTriesMax) throw error;
        this.#options.report(`${error.message}. Waiting.`);
      }
    }
  }

  #writeDurableOffset(log: UserLog, end: number, nextId: number): Promise<void> {
    return orDiskFailure('Cannot write the durable offset', () => writeDurableOffset(this.#paths, log, end, nextId));
  }
}
