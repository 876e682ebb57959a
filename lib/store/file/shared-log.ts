/**
 * The file as all processes of the machine share it: the log, the lock and the durable mark, and what
 * they mean to each other.
 *
 *   to read    look at the mark, catch up to it; the lock is not needed
 *   to write   enter: take the lock, settle what a dead writer has left, catch up; then append, as often
 *              as wanted, until another process asks for the lock
 *   append     one write, fdatasync, the mark, and only then the index
 *
 * Nothing that is not durable is ever in the index. Where the disk fails, it fails for good.
 */

import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { RegistrarError, messageOf } from '../../errors.ts';
import { Compaction } from './compact.ts';
import { Failure } from './failure.ts';
import type { FileSystem } from './file-system.ts';
import { bootId } from './identity.ts';
import { FileLock } from './lock.ts';
import { UserLog } from './log.ts';
import { DurableMark } from './mark.ts';
import { assertTorn } from './recover.ts';
import { DiskFailure, assertAlone, assertNotCut, cutBack, isOf, isSuspect, settle, sync, writeMark } from './settle.ts';
import type { Place } from './settle.ts';
import { Successor, compactPrefix } from './successor.ts';

/** Between the new file's name and its mark lies one sync of a directory: readers try again so often. */
const reopensMax = 100;
const reopenMs = 5;

/** How often the holder of the lock, which nobody else can be, looks whether a hand has been at the files. */
const lookMs = 1_000;

/** After a reboot one process reads the whole file under the lock, and the others that start wait for it. */
const openTriesMax = 12;

export interface SharedLogOptions {
  readonly path: string;
  readonly fs: FileSystem;
  readonly now: () => Date;
  readonly lockWaitMsMax: number;
  readonly report: (line: string) => void;
  readonly onFailed: (error: RegistrarError) => void;
  /** Another process wants the lock: release it, or do so after what is being done. */
  readonly onWanted: () => void;
}

export class SharedLog {
  readonly #options: SharedLogOptions;
  readonly #place: Place;
  readonly #lock: FileLock;
  readonly #failure: Failure;
  readonly #successor: Successor;
  #log!: UserLog;
  /** The lock is held and everything before it was caught up with: nobody else writes. */
  #isCurrent = false;
  #lookedAt = -Infinity;
  /** The end of the chain of those who catch up: one at a time. */
  #catchingUp: Promise<unknown> = Promise.resolve();

  private constructor(options: SharedLogOptions, lockDirectory: string, lock: FileLock) {
    const { fs, path, now, report } = options;
    this.#options = options;
    this.#lock = lock;
    this.#place = {
      fs, path, lockDirectory, now, report,
      mark: new DurableMark(fs, join(lockDirectory, 'durable')),
      temporary: join(lockDirectory, `.new-${lock.identity}`),
    };
    this.#failure = new Failure(this.#place, options.onFailed);
    this.#successor = new Successor({ fs, path, lockDirectory, identity: lock.identity, current: () => this.#log });
  }

  /**
   * Opens the file, or makes it if there has never been one. Rejects with `corrupt` (file, line, byte and
   * what to do), `cannot-start` or `busy`; the file is as it was then.
   */
  static async open(options: SharedLogOptions): Promise<SharedLog> {
    const { fs, path, onWanted, report } = options;
    // What is none of ours is refused before anything is made beside it.
    if (fs.readLink(path) !== undefined) {
      const way = 'name the directory in which the file itself is, with --data';
      throw new RegistrarError('cannot-start', `Cannot open "${path}": it is a symbolic link, and its lock lies beside it; ${way}`);
    }
    if (fs.stat(path) !== undefined) UserLog.open(fs, path).close();
    const directory = `${path}.lock`;
    fs.makeDirectory(directory, 0o700);
    const lock = await FileLock.join({ fs, directory, onWanted });
    const shared = new SharedLog(options, directory, lock);
    try {
      const isReadable = await shared.#openAsReader();
      if (!isReadable || isSuspect(shared.#place)) await shared.#enterPatiently();
    } catch (error) {
      // A full disk keeps a torn tail from being set aside, and nobody from reading what a mark says is durable.
      if (!(error instanceof RegistrarError) || error.code !== 'storage-full' || !shared.#isMarked()) {
        await shared.#letGo();
        throw error;
      }
      report(error.message);
    }
    return shared;
  }

  /** Why every call is refused, if the store has failed or was closed. */
  get failed(): RegistrarError | undefined {
    return this.#failure.error;
  }

  /** What is known without a look at the file. */
  get log(): UserLog {
    return this.#log;
  }

  /** The lock is held, and nothing has to be caught up with. */
  get isEntered(): boolean {
    return this.#isCurrent && this.#lock.isHeld;
  }

  get isWanted(): boolean {
    return this.#lock.isWanted;
  }

  async close(): Promise<void> {
    this.#failure.close();
    await this.#letGo();
  }

  /**
   * The log, with every write in it that was acknowledged by any process before this call; undefined if
   * there is something to catch up with first, which is rare.
   */
  ready(): UserLog | undefined {
    if (this.#failure.error !== undefined) throw this.#failure.error;
    this.#look();
    if (this.#isCurrent) return this.#log;
    const mark = this.#place.mark.read();
    return mark !== undefined && isOf(mark, this.#log) && mark.end <= this.#log.end ? this.#log : undefined;
  }

  /** The same, caught up. It is to be read from at once: after a turn of the event loop it may be closed. */
  async current(): Promise<UserLog> {
    await this.#oneAtATime(() => this.#catchUp());
    return this.#log;
  }

  /** Takes the lock, if it is not held still, and catches up with whoever had it before. */
  async enter(): Promise<UserLog> {
    if (this.#failure.error !== undefined) throw this.#failure.error;
    if (this.isEntered) return this.#log;
    try {
      await this.#lock.acquire(this.#options.lockWaitMsMax);
      if (this.#isElsewhere()) {
        // Another process has compacted the file: it is read without the lock, lest all others wait for that.
        // If something is wrong with it, that is for whoever has the lock to say.
        this.#lock.release();
        await this.current().catch(() => undefined);
        await this.#lock.acquire(this.#options.lockWaitMsMax);
      }
      await this.#oneAtATime(() => settle(this.#place, this.#log, (log) => this.#switchTo(log)));
      this.#isCurrent = true;
      return this.#log;
    } catch (error) {
      const told = this.#failure.refusal(error);
      // Nothing that belongs to it is where it was: it cannot come right by waiting.
      if (told.code === 'unavailable') this.#failure.lost(told.message, told);
      this.release();
      throw told;
    }
  }

  /**
   * Adds lines at the log's end; between `enter` and `release`. Durable, and in the index, when it resolves.
   * @returns how many milliseconds the disk took to sync it.
   */
  async append(bytes: Buffer): Promise<number> {
    let syncMs = 0;
    this.#assertInPlace();
    const log = this.#log;
    try {
      try {
        await log.write(bytes);
      } catch (cause) {
        await cutBack(log);
        throw cause;
      }
      const from = performance.now();
      await sync(log);
      syncMs = performance.now() - from;
      this.#writeMark(log, log.end + bytes.length);
    } catch (error) {
      throw this.#failure.refusal(error);
    }
    log.append(bytes);
    return syncMs;
  }

  /**
   * Begins a file without what is dead; between `enter` and `release`. Throws `busy` if another process is
   * at it. `copy` it and `follow`, then enter again and `exchange` it for the old one, or discard it.
   */
  async beginCompaction(): Promise<Compaction> {
    const { fs, path, lockDirectory, now } = this.#place;
    if (await this.#lock.isTaken(compactPrefix)) throw new RegistrarError('busy', `Another process is compacting "${path}" already`);
    const temporary = join(lockDirectory, `${compactPrefix}${this.#lock.identity}`);
    fs.unlink(temporary);
    try {
      return await Compaction.begin({ fs, temporary, source: this.#log, now: now() });
    } catch (error) {
      throw this.#failure.refusal(error);
    }
  }

  /** Puts the compacted file in the place of the old one; between `enter` and `release`. */
  async exchange(compaction: Compaction): Promise<void> {
    const { fs, path } = this.#place;
    this.#assertInPlace();
    if (!compaction.isOf(this.#log)) throw new RegistrarError('busy', `"${path}" was replaced while it was being compacted`);
    try {
      await compaction.follow();
      await compaction.sync();
      fs.rename(compaction.temporary, path);
      try {
        await fs.syncDirectory(dirname(path));
      } catch (cause) {
        throw new DiskFailure('Cannot sync the directory', { cause });
      }
      this.#writeMark(compaction.log, compaction.log.end);
    } catch (error) {
      throw this.#failure.refusal(error);
    }
    this.#switchTo(compaction.log);
  }

  /** Lets the next process write. */
  release(): void {
    if (this.#failure.isStuck) return;
    this.#isCurrent = false;
    try {
      this.#lock.release();
    } catch (error) {
      this.#failure.lost(messageOf(error), error);
    }
  }

  /** Opens up to the durable mark, without the lock. False if the mark does not tell. */
  async #openAsReader(): Promise<boolean> {
    const { fs, path, mark: durable } = this.#place;
    const mark = durable.read();
    const status = fs.stat(path);
    if (mark === undefined || mark.boot !== bootId || mark.inode !== status?.inode) return false;
    assertAlone(fs, path, status);
    this.#log = UserLog.open(fs, path);
    if (!isOf(mark, this.#log)) return false;
    await this.#advance(this.#log, mark.end);
    return true;
  }

  #isMarked(): boolean {
    const mark = this.#place.mark.read();
    return mark !== undefined && mark.boot === bootId && this.#log !== undefined && isOf(mark, this.#log);
  }

  async #enterPatiently(): Promise<void> {
    for (let n = 1; ; n++) {
      try {
        await this.enter();
        return;
      } catch (error) {
        const isLocked = error instanceof RegistrarError && error.code === 'busy' && error.cause === undefined;
        if (!isLocked || n === openTriesMax) throw error;
        this.#options.report(`${error.message}: waiting`);
      }
    }
  }

  async #catchUp(): Promise<void> {
    const { fs, path, lockDirectory, mark: durable } = this.#place;
    for (let n = 0; n < reopensMax; n++) {
      // Nobody else writes; and what this process has marked as durable it is just taking in itself.
      if (this.#isCurrent) return;
      const mark = durable.read();
      if (mark === undefined || mark.boot !== bootId) {
        this.#assertHeld();
        throw new RegistrarError('unavailable', `The durable mark in "${lockDirectory}" was removed or damaged`);
      }
      if (isOf(mark, this.#log)) return this.#advance(this.#log, mark.end);
      // Another process has put a new file in its place, and may be doing so again.
      const log = (await this.#successor.take(mark)) ?? UserLog.open(fs, path, { users: this.#log.index.size });
      if (isOf(mark, log)) {
        await this.#advance(log, mark.end);
        this.#switchTo(log);
      } else {
        log.close();
        await sleep(reopenMs);
      }
    }
    throw new RegistrarError('unavailable', `"${path}" is not the file that the durable mark is of`);
  }

  async #advance(log: UserLog, durableEnd: number): Promise<void> {
    assertNotCut(this.#place, log, durableEnd);
    const damage = await log.advance(durableEnd);
    if (damage !== undefined) assertTorn(log, damage, durableEnd);
  }

  /** Whether another file is in the place of the one that this process has open, and is marked as durable. */
  #isElsewhere(): boolean {
    const { fs, path, mark: durable } = this.#place;
    const log = this.#log as UserLog | undefined;
    const mark = durable.read();
    if (log === undefined || mark === undefined || mark.boot !== bootId || isOf(mark, log)) return false;
    return fs.stat(path)?.inode === mark.inode;
  }

  /** Whoever reads from the old one has done so when the event loop comes round. */
  #switchTo(log: UserLog): void {
    const old = this.#log as UserLog | undefined;
    if (old !== undefined) setImmediate(() => old.close());
    this.#log = log;
  }

  #oneAtATime<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#catchingUp.then(work);
    this.#catchingUp = mine.catch(() => undefined);
    return mine;
  }

  #writeMark(log: UserLog, end: number): void {
    try {
      writeMark(this.#place, log, end);
    } catch (cause) {
      throw new DiskFailure('Cannot write the durable mark', { cause });
    }
  }

  /** Before each write: neither the lock nor the file was moved away, and the file is as long as it was left. */
  #assertInPlace(): void {
    const { fs, path } = this.#place;
    this.#assertHeld();
    const status = fs.stat(path);
    if (status?.inode !== this.#log.inode || status.device !== this.#log.device) {
      throw this.#failure.lost(`"${path}" was removed or replaced underneath`);
    }
    if (status.bytes !== this.#log.end) throw this.#failure.lost(`"${path}" was changed underneath: it has another length`);
  }

  /**
   * Reading, the holder does not look at the mark: now and then it makes sure that it still holds. The others see
   * the marks of a directory that was moved away, with everything in it, as before: they look where it is.
   */
  #look(): void {
    const now = performance.now();
    if (now - this.#lookedAt < lookMs) return;
    this.#lookedAt = now;
    this.#assertHeld();
  }

  #assertHeld(): void {
    try {
      if (this.#isCurrent) this.#lock.assertHeld();
      else this.#lock.assertInPlace();
    } catch (error) {
      throw this.#failure.lost(messageOf(error), error);
    }
  }

  async #letGo(): Promise<void> {
    this.#isCurrent = false;
    await this.#lock.leave(this.#failure.isStuck);
    await this.#successor.close();
    this.#place.mark.close();
    this.#log?.close();
  }
}
