/**
 * Reads the users file up to the durable offset, without the lock, and follows it when another process has compacted
 * it. What lies behind the durable offset belongs to a write that was not acknowledged.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { RegistrarError } from '../../errors.ts';
import { sameFile } from './crash-recovery.ts';
import type { StorePaths } from './crash-recovery.ts';
import { bootId } from './identity.ts';
import { inspect } from './inspect.ts';
import { UserLog, corruption } from './user-log.ts';
import { assertSingleLink } from './own-file.ts';
import { judge } from './verdict.ts';

/** Between the rename of a compacted file and its durable offset, the directory is synced: readers retry. */
const reopensMax = 100;
const reopenMs = 5;

export class LogReader {
  readonly #paths: StorePaths;
  /** Whether this process holds the lock, so that no other one writes. */
  readonly #isHolder: () => boolean;
  #log: UserLog | undefined;
  /** The tail of the queue of those who change the log, one at a time. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(paths: StorePaths, isHolder: () => boolean) {
    this.#paths = paths;
    this.#isHolder = isHolder;
  }

  /** As far as it was read; it may not be current. Undefined until it is opened. */
  get log(): UserLog | undefined {
    return this.#log;
  }

  /** Reads from the old log end within the turn of the event loop in which they began. */
  switchTo(log: UserLog): void {
    const old = this.#log;
    if (old !== undefined) setImmediate(() => old.close());
    this.#log = log;
  }

  /** Opens the file and reads to the durable offset. False if there is no offset of this file in this boot. */
  async open(): Promise<boolean> {
    const { fs, path, durable } = this.#paths;
    const offset = durable.read();
    const status = fs.stat(path);
    if (offset === undefined || offset.boot !== bootId || offset.inode !== status?.inode) return false;
    assertSingleLink(fs, path, status, 'cannot-start');
    const log = UserLog.open(fs, path);
    this.#log = log;
    if (!sameFile(offset, log)) return false;
    await this.#advance(log, offset.end);
    // Bytes behind it are of a write in progress or of a dead process; if they are neither, the file is damaged.
    const { damage } = log.size > offset.end ? await inspect(fs, path) : { damage: undefined };
    if (damage !== undefined) throw corruption(path, damage);
    return true;
  }

  /** Whether the durable offset is of this file and this boot. */
  get isMarked(): boolean {
    const offset = this.#paths.durable.read();
    return offset !== undefined && offset.boot === bootId && this.#log !== undefined && sameFile(offset, this.#log);
  }

  /** Whether every write that a process has acknowledged is in the log. */
  isCurrent(log: UserLog): boolean {
    const offset = this.#paths.durable.read();
    return offset !== undefined && sameFile(offset, log) && offset.end <= log.end;
  }

  /** Whether the durable offset is of another file than the log, and that file is in place: it was compacted. */
  get isElsewhere(): boolean {
    const { fs, path, durable } = this.#paths;
    const offset = durable.read();
    if (this.#log === undefined || offset === undefined || sameFile(offset, this.#log)) return false;
    return fs.stat(path)?.inode === offset.inode;
  }

  /** Reads to the durable offset. False if there is none. */
  catchUp(): Promise<boolean> {
    return this.inTurn(() => this.#catchUp());
  }

  /** Runs what changes the log when nothing else does. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  close(): void {
    this.#log?.close();
  }

  async #catchUp(): Promise<boolean> {
    const { fs, path, durable } = this.#paths;
    for (let n = 0; n < reopensMax; n++) {
      // The holder's own appends are just being added.
      if (this.#isHolder()) return true;
      const offset = durable.read();
      if (offset === undefined || this.#log === undefined) return false;
      if (sameFile(offset, this.#log)) {
        await this.#advance(this.#log, offset.end);
        return true;
      }
      // Another process has compacted the file, and may do so again.
      const log = UserLog.open(fs, path, { users: this.#log.index.size });
      try {
        if (sameFile(offset, log)) {
          await this.#advance(log, offset.end);
          this.switchTo(log);
          continue;
        }
      } finally {
        if (log !== this.#log) log.close();
      }
      await sleep(reopenMs);
    }
    throw new RegistrarError('unavailable', `"${path}" is not the file that the durable offset is of`);
  }

  async #advance(log: UserLog, durableEnd: number): Promise<void> {
    const verdict = await judge(log, durableEnd, durableEnd);
    if (verdict.state === 'damaged') throw corruption(this.#paths.path, verdict.damage);
  }
}
