/**
 * Compaction: a new file with the lines that still say something, each in a batch of its own, in the
 * order of ids. It is written beside the old one while that is read and written as ever:
 *
 *   copy      every user as it is when its turn comes; some are changed or removed behind its back
 *   follow    what was written to the old file since the copy began, again and again until little is left
 *   then, under the lock, the rest, fdatasync, rename, the directory, and the mark of the new file
 *
 * Every byte is read back and checked as it is written. At any moment before the rename the old file is
 * whole and the new one nobody's; after it the new one says the same, so a crash between is no loss.
 */

import { randomBytes } from 'node:crypto';
import { RegistrarError } from '../../errors.ts';
import type { FileSystem } from './file-system.ts';
import { UserLog, corruption, writeAll } from './log.ts';
import { encodeHeader, formatVersion, lineBytesMax, relocateLine, scanLine } from './record.ts';
import type { Scanned } from './record.ts';

/** What is copied in one turn of the event loop: a millisecond's work. */
const pieceBytes = 1 << 18;

/** Synced so often, so that nobody else's fdatasync has much to wait for. */
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
  /** Users up to here are copied; of the others there are lines to follow. */
  readonly #ordinals: number;
  readonly #lastId: number;
  /** Up to here the old file is in the new one. */
  #followed: number;
  #unsynced = 0;
  #isStopped = false;

  private constructor({ fs, temporary, source }: CompactionOptions, log: UserLog) {
    this.#fs = fs;
    this.temporary = temporary;
    this.#source = source;
    this.#log = log;
    this.#ordinals = source.index.ordinals;
    this.#lastId = source.index.lastId;
    this.#followed = source.end;
  }

  /** Makes the new file, with nothing but its header. */
  static async begin(options: CompactionOptions): Promise<Compaction> {
    const { fs, temporary, source, now } = options;
    const seed = randomBytes(4).readUInt32LE();
    const header = { version: formatVersion, created: now.toISOString(), nextId: source.nextId, seed };
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

  /** The new file, which says what `source` said when `follow` was called last. */
  get log(): UserLog {
    return this.#log;
  }

  isOf(log: UserLog): boolean {
    return log === this.#source;
  }

  /** Bytes of the old file that are not in the new one yet. */
  get behind(): number {
    return this.#source.end - this.#followed;
  }

  /** Copies every living user, with turns of the event loop between. */
  async copy(): Promise<void> {
    const piece = Buffer.allocUnsafe(pieceBytes);
    for (let ordinal = 0; ordinal < this.#ordinals; ) {
      const { next, length } = this.#source.relocate(ordinal, this.#ordinals, piece, this.#log.end, this.#log.header.seed);
      await this.#add(piece.subarray(0, length));
      ordinal = next;
    }
  }

  /** Copies what the old file has got since, as far as it was read and is durable. */
  async follow(): Promise<void> {
    const piece = Buffer.allocUnsafe(pieceBytes);
    const scanned: Scanned = { id: 0, isRemoval: false, batch: 0, loginStart: 0, loginEnd: 0 };
    for (const to = this.#source.end; this.#followed < to; ) {
      const bytes = this.#source.bytes(this.#followed, Math.min(to, this.#followed + pieceBytes / 2));
      const whole = bytes.lastIndexOf(0x0a) + 1;
      let length = 0;
      for (let start = 0, end = 0; start < whole; start = end + 1) {
        end = bytes.indexOf(0x0a, start);
        const wrong = scanLine(bytes, start, end, this.#source.header.seed, scanned);
        if (wrong !== undefined || length > piece.length - lineBytesMax) throw this.#unfaithful();
        if (!this.#takes(scanned.id)) continue;
        length += relocateLine(bytes, start, end, piece, length, this.#log.end + length, this.#log.header.seed);
      }
      if (whole === 0) throw this.#unfaithful();
      await this.#add(piece.subarray(0, length));
      this.#followed += whole;
    }
  }

  async sync(): Promise<void> {
    this.#assertWanted();
    await this.#log.sync();
    this.#unsynced = 0;
  }

  /** What is under way rejects at its next step, and so does all that is asked for after. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Removes the new file. Nothing may be under way: a descriptor that is closed may become another file's. */
  discard(): void {
    this.stop();
    this.#log.close();
    this.#fs.unlink(this.temporary);
  }

  /**
   * A user who was there at the beginning and is not in the copy was removed before its turn came: nothing
   * about it is to be said any more. Whoever came later is in no copy, and is told of whole.
   */
  #takes(id: number): boolean {
    if (id > this.#lastId) return true;
    const { index } = this.#log;
    const ordinal = index.after(id - 1);
    return ordinal < index.ordinals && index.id(ordinal) === id && index.offset(ordinal) !== 0;
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
