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

import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { RegistrarError, messageOf, systemCode } from '../../errors.ts';
import type { FileSystem } from './file-system.ts';
import { bootId } from './identity.ts';
import { FileLock } from './lock.ts';
import { UserLog, corruption } from './log.ts';
import type { Damage } from './log.ts';
import { DurableMark } from './mark.ts';
import type { Mark } from './mark.ts';
import { encodeHeader, formatVersion } from './record.ts';
import { assertTorn, copyTornTail, makeFile, rewrite } from './recover.ts';

/** A file is replaced by compaction only; several times during one look means that something is wrong. */
const reopensMax = 10;

/** These mean that there is no room, whatever the device. */
const noRoom = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

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
  readonly #path: string;
  readonly #lockDirectory: string;
  readonly #fs: FileSystem;
  readonly #now: () => Date;
  readonly #lockWaitMsMax: number;
  readonly #report: (line: string) => void;
  readonly #onFailed: (error: RegistrarError) => void;
  readonly #mark: DurableMark;
  #lock!: FileLock;
  #log!: UserLog;
  /** The lock is held and everything before it was caught up with: nobody else writes. */
  #isCurrent = false;
  /** The end of the chain of those who catch up: one at a time. */
  #catchingUp: Promise<unknown> = Promise.resolve();
  #failed: RegistrarError | undefined;
  /** It failed and could not even say so: the lock stays held, so that nobody trusts the file. */
  #isStuck = false;

  private constructor(options: SharedLogOptions) {
    this.#path = options.path;
    this.#lockDirectory = `${options.path}.lock`;
    this.#fs = options.fs;
    this.#now = options.now;
    this.#lockWaitMsMax = options.lockWaitMsMax;
    this.#report = options.report;
    this.#onFailed = options.onFailed;
    this.#mark = new DurableMark(this.#fs, join(this.#lockDirectory, 'durable'));
  }

  /**
   * Opens the file, or makes it if there has never been one. Rejects with `corrupt` (file, line, byte and
   * what to do), `cannot-start` or `busy`; the file is as it was then.
   */
  static async open(options: SharedLogOptions): Promise<SharedLog> {
    const shared = new SharedLog(options);
    const { fs } = options;
    // A file that is none of ours is refused before anything is made beside it.
    if (fs.stat(options.path) !== undefined) UserLog.open(fs, options.path).close();
    fs.makeDirectory(shared.#lockDirectory, 0o700);
    shared.#lock = await FileLock.join({ fs, directory: shared.#lockDirectory, onWanted: options.onWanted });
    try {
      if (!(await shared.#openAsReader())) await shared.enter();
    } catch (error) {
      // A full disk keeps a torn tail from being set aside, and nobody from reading.
      if (!(error instanceof RegistrarError) || error.code !== 'storage-full' || shared.#log === undefined) {
        await shared.#letGo();
        throw error;
      }
      shared.#report(error.message);
    }
    return shared;
  }

  /** Why every call is refused, if the store has failed or was closed. */
  get failed(): RegistrarError | undefined {
    return this.#failed;
  }

  /** What is known without a look at the file. */
  get log(): UserLog {
    return this.#log;
  }

  get isWanted(): boolean {
    return this.#lock.isWanted;
  }

  async close(): Promise<void> {
    this.#failed ??= new RegistrarError('unavailable', 'The store is closed');
    await this.#letGo();
  }

  /** The log, with every write in it that was acknowledged by any process before this call. */
  async current(): Promise<UserLog> {
    if (this.#failed !== undefined) throw this.#failed;
    if (this.#isCurrent) return this.#log;
    const mark = this.#mark.read();
    if (mark !== undefined && isOf(mark, this.#log) && mark.end <= this.#log.end) return this.#log;
    await this.#oneAtATime(() => this.#catchUp());
    return this.#log;
  }

  async #catchUp(): Promise<void> {
    for (let n = 0; n < reopensMax; n++) {
      const mark = this.#mark.read();
      if (mark === undefined || mark.boot !== bootId) {
        throw new RegistrarError('unavailable', `The durable mark in "${this.#lockDirectory}" was removed or damaged`);
      }
      if (!isOf(mark, this.#log)) {
        // Another process has put a new file in its place, and may be doing so again.
        this.#switchTo(UserLog.open(this.#fs, this.#path));
        if (!isOf(mark, this.#log)) continue;
      }
      const damage = await this.#log.advance(mark.end);
      if (damage !== undefined) throw corruption(this.#path, damage);
      return;
    }
    throw new RegistrarError('unavailable', `"${this.#path}" is not the file that the durable mark is of`);
  }

  #switchTo(log: UserLog): void {
    this.#log?.close();
    this.#log = log;
  }

  #oneAtATime<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#catchingUp.then(work);
    this.#catchingUp = mine.catch(() => undefined);
    return mine;
  }

  /** Opens up to the durable mark, without the lock. False if the mark does not tell. */
  async #openAsReader(): Promise<boolean> {
    const mark = this.#mark.read();
    const status = this.#fs.stat(this.#path);
    if (mark === undefined || mark.boot !== bootId || mark.inode !== status?.inode) return false;
    if (this.#fs.readLink(this.#suspectPath) !== undefined) return false;
    this.#log = UserLog.open(this.#fs, this.#path);
    if (!isOf(mark, this.#log)) return false;
    this.#assertNotCut(mark.end);
    const damage = await this.#log.advance(mark.end);
    if (damage !== undefined) assertTorn(this.#log, damage, mark.end);
    return true;
  }

  /** Takes the lock, if it is not held still, and catches up with whoever had it before. */
  async enter(): Promise<UserLog> {
    if (this.#failed !== undefined) throw this.#failed;
    await this.#lock.acquire(this.#lockWaitMsMax);
    if (this.#isCurrent) return this.#log;
    try {
      await this.#oneAtATime(() => this.#settle());
      this.#isCurrent = true;
      return this.#log;
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** Makes of what is there, under the lock, a file that is durable and ends with a good line. */
  async #settle(): Promise<void> {
    if (this.#fs.stat(this.#path) === undefined) await this.#makeFile();
    const status = this.#fs.stat(this.#path);
    if (this.#log === undefined || status?.inode !== this.#log.inode || status.device !== this.#log.device) {
      this.#switchTo(UserLog.open(this.#fs, this.#path));
    }
    const mark = this.#mark.read();
    const known = mark !== undefined && mark.boot === bootId && isOf(mark, this.#log) ? mark.end : undefined;
    if (known !== undefined) this.#assertNotCut(known);
    const size = this.#log.size;
    const isSuspect = this.#fs.readLink(this.#suspectPath) !== undefined;
    if (size !== known) {
      // Its writer died before the answer, or the machine did: what is read now may be in memory only.
      await this.#sync();
      await this.#fs.syncDirectory(dirname(this.#path));
    }
    const damage = await this.#log.advance(size);
    if (damage !== undefined) assertTorn(this.#log, damage, known);
    if (isSuspect) await this.#rewrite(damage);
    else if (size !== known) this.#writeMark();
    if (damage === undefined || isSuspect) return;
    await this.#copyTornTail();
    await this.#cutBack(undefined);
  }

  /** Adds lines at the log's end; between `enter` and `release`. Durable, and in the index, when it resolves. */
  async append(bytes: Buffer): Promise<void> {
    this.#assertInPlace();
    try {
      await this.#log.write(bytes);
    } catch (cause) {
      await this.#cutBack(cause);
      throw this.#refusal(cause);
    }
    await this.#sync();
    this.#writeMark(this.#log.end + bytes.length);
    this.#log.append(bytes);
  }

  #refusal(cause: unknown): RegistrarError {
    const code = systemCode(cause) ?? messageOf(cause);
    return noRoom.has(code)
      ? new RegistrarError('storage-full', 'There is no room to store this; nothing was changed', { cause })
      : new RegistrarError('busy', `The store cannot write (${code}); nothing was changed`, { cause, retryAfterSeconds: 5 });
  }

  async #cutBack(cause: unknown): Promise<void> {
    try {
      await this.#log.cut();
    } catch (error) {
      throw this.#fail(cause ?? error);
    }
  }

  async #sync(): Promise<void> {
    try {
      await this.#log.sync();
    } catch (cause) {
      throw this.#fail(cause);
    }
  }

  #writeMark(end = this.#log.end): void {
    const { inode, header } = this.#log;
    try {
      this.#mark.write({ boot: bootId, inode, seed: header.seed, end });
    } catch (cause) {
      throw this.#fail(cause);
    }
  }

  /**
   * The disk has failed: nobody may believe the page cache any more. Whoever takes the lock next finds
   * `suspect` and writes the file anew first. If not even that can be left, the lock is kept for good.
   */
  #fail(cause: unknown): RegistrarError {
    const error = new RegistrarError('outcome-unknown', 'The store failed while writing: this may or may not be stored', { cause });
    this.#failed = new RegistrarError('unavailable', `The store failed (${messageOf(cause)}) and the service is ending`, { cause });
    try {
      this.#fs.symlink(this.#lock.identity, this.#suspectPath);
    } catch (unmarked) {
      if (systemCode(unmarked) !== 'EEXIST') {
        this.#isStuck = true;
        this.#report(`Cannot leave a "suspect" mark (${messageOf(unmarked)}): keeping the lock until this process is ended`);
        return error;
      }
    }
    this.#onFailed(this.#failed);
    return error;
  }

  /** Lets the next process write. */
  release(): void {
    if (this.#isStuck) return;
    this.#isCurrent = false;
    try {
      this.#lock.release();
    } catch (error) {
      this.#lost(error);
    }
  }

  #lost(cause: unknown): RegistrarError {
    this.#failed = new RegistrarError('unavailable', messageOf(cause), { cause });
    this.#onFailed(this.#failed);
    return this.#failed;
  }

  /** Before each write: neither the lock nor the file was moved away underneath. */
  #assertInPlace(): void {
    try {
      this.#lock.assertHeld();
    } catch (error) {
      throw this.#lost(error);
    }
    const status = this.#fs.stat(this.#path);
    if (status?.inode === this.#log.inode && status.device === this.#log.device) return;
    throw this.#lost(new Error(`"${this.#path}" was removed or replaced underneath`));
  }

  #assertNotCut(end: number): void {
    const { size } = this.#log;
    if (size >= end) return;
    const reason = `ends at byte ${size}, though ${end} bytes were durable`;
    const way = `restore it; if this is a backup put here on purpose, remove "${this.#lockDirectory}"`;
    throw new RegistrarError('corrupt', `Cannot open "${this.#path}": it ${reason}; nothing was changed; ${way}`);
  }

  async #makeFile(): Promise<void> {
    if (this.#log !== undefined) throw this.#lost(new Error(`"${this.#path}" was removed underneath`));
    const seed = randomBytes(4).readUInt32LE();
    const header = { version: formatVersion, created: this.#now().toISOString(), nextId: 1, seed };
    await makeFile(this.#fs, this.#path, this.#temporary, encodeHeader(header));
  }

  async #copyTornTail(): Promise<void> {
    const bytes = this.#log.size - this.#log.end;
    try {
      const path = await copyTornTail(this.#fs, this.#log, this.#now());
      this.#report(`"${this.#path}" ended in a write that was cut off: its ${bytes} bytes, never acknowledged, are now "${path}"`);
    } catch (cause) {
      if (!noRoom.has(systemCode(cause) ?? '')) throw cause;
      throw new RegistrarError('storage-full', 'There is no room to set a torn tail aside: the store is read-only', { cause });
    }
  }

  async #rewrite(torn: Damage | undefined): Promise<void> {
    if (torn !== undefined) await this.#copyTornTail();
    await rewrite(this.#fs, this.#log, this.#temporary);
    const { end } = this.#log;
    this.#switchTo(UserLog.open(this.#fs, this.#path));
    const damage = await this.#log.advance(end);
    if (damage !== undefined) throw corruption(this.#path, damage);
    this.#writeMark();
    this.#fs.unlink(this.#suspectPath);
    this.#report(`"${this.#path}" was written anew, since an earlier process could not sync it`);
  }

  get #suspectPath(): string {
    return join(this.#lockDirectory, 'suspect');
  }

  get #temporary(): string {
    return join(this.#lockDirectory, `.new-${this.#lock.identity}`);
  }

  async #letGo(): Promise<void> {
    this.#isCurrent = false;
    await this.#lock.leave(this.#isStuck);
    this.#mark.close();
    this.#log?.close();
  }
}

function isOf(mark: Mark, log: UserLog): boolean {
  return mark.inode === log.inode && mark.seed === log.header.seed;
}
