/**
 * Writes a new file without obsolete lines, in the order of ids, each line in a batch of its own, while the old file is
 * read and written:
 *
 *   copy       every user, in the state that it has when its turn comes
 *   catch up   the lines that were appended to the old file since the copy began; repeated until few are left
 *   swap       under the lock: the last of these lines, fdatasync, rename, sync of the directory, the durable offset
 *
 * Every line is read back and verified after it was written. Until the rename the old file is complete and the new one is
 * unused; after it both have the same users, so a crash at any moment loses nothing.
 */

import { randomBytes } from 'node:crypto';
import { writeAll } from '../../durable-file.ts';
import { RegistrarError } from '../../errors.ts';
import type { FileSystem } from './file-system.ts';
import { UserLog, corruption } from './user-log.ts';
import { encodeHeader, formatVersion, lineBytesMax, linesEnd, newScanned, copyLine, scanLine } from './record.ts';

/** The files of compactions are in the lock directory; the identity of the process follows. */
export const compactPrefix = '.compact-';

/** The bytes that are copied in one turn of the event loop: it takes a millisecond. */
const pageBytes = 1 << 18;

/** Synced this often, so that no fdatasync of a write waits long for these bytes. */
const unsyncedBytesMax = 4 << 20;

export interface CompactionOptions {
  readonly fs: FileSystem;
  /** Where the new file is written. */
  readonly temporary: string;
  /** The file as it is now; the caller has the lock. */
  readonly source: UserLog;
  readonly now: Date;
}

export class Compaction {
  readonly temporary: string;
  readonly #fs: FileSystem;
  readonly #source: UserLog;
  readonly #log: UserLog;
  /** Users up to this rank are copied; later ones come with the lines of `catchUp`. */
  readonly #ranks: number;
  readonly #lastId: number;
  /** The old file up to this offset is in the new one. */
  #copiedTo: number;
  #unsynced = 0;
  #isStopped = false;

  private constructor({ fs, temporary, source }: CompactionOptions, log: UserLog) {
    this.#fs = fs;
    this.temporary = temporary;
    this.#source = source;
    this.#log = log;
    this.#ranks = source.index.ranks;
    this.#lastId = source.index.lastId;
    this.#copiedTo = source.end;
  }

  /** Makes the new file, with its header alone. */
  static async begin(options: CompactionOptions): Promise<Compaction> {
    const { fs, temporary, source, now } = options;
    const seed = randomBytes(4).readUInt32LE();
    const header = { version: formatVersion, created: now.toISOString(), nextId: source.nextId, compactedFrom: source.header.seed, seed };
    fs.unlink(temporary);
    const fd = fs.open(temporary, 'wx+');
    try {
      await writeAll(fs, fd, encodeHeader(header), 0);
      return new Compaction(options, UserLog.open(fs, source.path, { at: temporary, users: source.index.size }));
    } catch (error) {
      fs.unlink(temporary);
      throw error;
    } finally {
      fs.close(fd);
    }
  }

  /** The new file, which has the users that `source` had when `catchUp` was called last. */
  get log(): UserLog {
    return this.#log;
  }

  copies(log: UserLog): boolean {
    return log === this.#source;
  }

  /** Bytes of the old file that are not in the new one yet. */
  get behind(): number {
    return this.#source.end - this.#copiedTo;
  }

  /** Copies every user that exists, with turns of the event loop between. */
  async copy(): Promise<void> {
    const page = Buffer.allocUnsafe(pageBytes);
    for (let rank = 0; rank < this.#ranks; ) {
      const { next, length } = this.#source.users.copyLines(rank, this.#ranks, page, this.#log.end, this.#log.header.seed);
      await this.#add(page.subarray(0, length));
      rank = next;
    }
  }

  /** Copies the durable lines that were appended to the old file since. */
  async catchUp(): Promise<void> {
    const page = Buffer.allocUnsafe(pageBytes);
    const scanned = newScanned();
    for (const to = this.#source.end; this.#copiedTo < to; ) {
      const bytes = this.#source.bytes(this.#copiedTo, Math.min(to, this.#copiedTo + pageBytes / 2));
      const whole = linesEnd(bytes);
      let length = 0;
      for (let start = 0, end = 0; start < whole; start = end + 1) {
        end = bytes.indexOf(0x0a, start);
        const wrong = scanLine(bytes, start, end, this.#source.header.seed, scanned);
        if (wrong !== undefined || length > page.length - lineBytesMax) throw this.#unfaithful();
        if (!this.#takes(scanned.id)) continue;
        length += copyLine(bytes, start, end, page, length, this.#log.end + length, this.#log.header.seed);
      }
      if (whole === 0) throw this.#unfaithful();
      await this.#add(page.subarray(0, length));
      this.#copiedTo += whole;
    }
  }

  async sync(): Promise<void> {
    this.#assertWanted();
    await this.#log.sync();
    this.#unsynced = 0;
  }

  /** Every step from now on rejects. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Removes the new file. No step may be in progress: a closed descriptor may become that of another file. */
  discard(): void {
    this.stop();
    this.#log.close();
    this.#fs.unlink(this.temporary);
  }

  /**
   * Whether the new file gets a line about this user: if it came after the copy began, or is in the copy. An earlier user
   * that is not in the copy was removed before its turn.
   */
  #takes(id: number): boolean {
    if (id > this.#lastId) return true;
    const { index } = this.#log;
    const rank = index.rankAfter(id - 1);
    return rank < index.ranks && index.id(rank) === id && index.offset(rank) !== 0;
  }

  async #add(bytes: Buffer): Promise<void> {
    this.#assertWanted();
    if (bytes.length === 0) return;
    const to = this.#log.end + bytes.length;
    await this.#log.write(bytes);
    const damage = await this.#log.advance(to);
    if (damage !== undefined) throw corruption(this.#log.path, damage);
    if (this.#log.end !== to) throw this.#unfaithful();
    this.#unsynced += bytes.length;
    if (this.#unsynced > unsyncedBytesMax) await this.sync();
  }

  #assertWanted(): void {
    if (this.#isStopped) throw new RegistrarError('unavailable', 'Compaction was given up, since the store is closing');
  }

  #unfaithful(): RegistrarError {
    const reason = 'what is read is not what was written; nothing was changed';
    return new RegistrarError('corrupt', `Cannot compact "${this.#source.path}": ${reason}`);
  }
}
