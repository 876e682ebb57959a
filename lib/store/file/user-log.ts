/**
 * One open users file, and what was derived from it: the index, and the offset up to which every line was read and
 * verified. It reads lines, appends at that offset and cuts back to it. It takes no lock: the caller decides who may.
 */

import { randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { writeAll } from '../../durable-file.ts';
import { RegistrarError, grouped } from '../../errors.ts';
import { BulkChecksum } from './checksum.ts';
import type { FileSystem } from './file-system.ts';
import { LoginIndex } from './login-index.ts';
import { KdfReader } from './kdf-reader.ts';
import { LineReader } from './line-reader.ts';
import { decodeHeader, lineBytesMax, lineEnd, linesEnd, newScanned, scanLine, scanVerified } from './record.ts';
import type { Header } from './record.ts';
import { UserReader } from './user-reader.ts';

/** Between two reads of this size the event loop gets a turn. */
const chunkBytes = 1 << 20;

/** The checksums of fewer bytes are verified one by one: the tables would cost more. */
const bulkBytesMin = 1 << 14;

/** The bytes of a line, rather more: a table that is too large costs memory, one that is too small grows while the file is read. */
const lineBytesUsual = 300;

export interface Damage {
  readonly offset: number;
  /** Counted from 1, the header's. */
  readonly line: number;
  readonly reason: string;
}

interface OpenOptions {
  readonly at?: string;
  readonly users?: number;
  readonly access?: 'r' | 'r+';
}

export class UserLog {
  readonly path: string;
  readonly header: Header;
  readonly inode: number;
  readonly device: number;
  readonly index: LoginIndex;
  /** Users that are in the index. */
  readonly users: UserReader;
  readonly #fs: FileSystem;
  readonly #fd: number;
  readonly #reader: LineReader;
  readonly #scanned = newScanned();
  #end: number;
  #lines = 1;
  #batch = -1;
  #batches = 0;

  #currentBytes = 0;
  readonly #kdfs = new KdfReader();
  readonly #checksums = new BulkChecksum();

  private constructor(fs: FileSystem, path: string, fd: number, header: Header, headerEnd: number, users: number) {
    const { inode, device } = fs.statFd(fd);
    const key = randomBytes(8);
    this.#fs = fs;
    this.path = path;
    this.#fd = fd;
    this.header = header;
    this.inode = inode;
    this.device = device;
    this.index = new LoginIndex([key.readUInt32LE(0), key.readUInt32LE(4)], users);
    this.#reader = new LineReader(fs, fd, path, header.seed);
    this.users = new UserReader(this.index, this.#reader, () => this.#end);
    this.#end = headerEnd;
  }

  /**
   * Opens a file and reads its header, and no line yet. Throws `corrupt` if it is not a users file.
   * @param at where it is, if it will be moved to `path`. @param users the number that is expected, if it is known.
   */
  static open(fs: FileSystem, path: string, { at = path, users, access = 'r+' }: OpenOptions = {}): UserLog {
    const fd = fs.open(at, access);
    try {
      const { isFile, bytes } = fs.statFd(fd);
      if (!isFile) throw new RegistrarError('cannot-start', `Cannot open "${path}": it is not a file`);
      if (bytes === 0) {
        const way = 'Restore a backup with "registrar restore BACKUP", or remove it and its .lock directory to begin anew';
        throw new RegistrarError('corrupt', `Cannot open "${path}": it is empty, and a users file never is. ${way}.`);
      }
      const start = Buffer.alloc(lineBytesMax);
      const length = fs.read(fd, start, 0, lineBytesMax, 0);
      const end = lineEnd(start, 0, length);
      const header = end < 0 ? 'the header has no end' : decodeHeader(start.subarray(0, end));
      if (typeof header === 'string') throw corruption(path, { offset: 0, line: 1, reason: header });
      return new UserLog(fs, path, fd, header, end + 1, users ?? Math.floor(bytes / lineBytesUsual));
    } catch (error) {
      fs.close(fd);
      throw error;
    }
  }

  /** Up to here every line is verified and in the index. */
  get end(): number {
    return this.#end;
  }

  get nextId(): number {
    return Math.max(this.header.nextId, this.index.lastId + 1);
  }

  /** Lines that were read, the header included. */
  get lineCount(): number {
    return this.#lines;
  }

  get batches(): number {
    return this.#batches;
  }

  /** The offset at which the write of the last line began; -1 if there is no line. */
  get lastBatch(): number {
    return this.#batch;
  }

  /**
   * Bytes of obsolete lines: earlier states, and removals. An estimate: it assumes that a new line of a user is as long
   * as the one before, and that the line of a removed user had the mean length.
   */
  get obsoleteBytes(): number {
    return this.#end - this.#currentBytes;
  }

  /** The costliest kdf of each family. */
  get kdfs(): readonly string[] {
    return this.#kdfs.costliest;
  }

  /** The mount that the file was opened on, as far as it is known. */
  get mountId(): string | undefined {
    return this.#fs.mountId(this.#fd);
  }

  /** Bytes that the file has now. */
  get size(): number {
    return this.#fs.statFd(this.#fd).bytes;
  }

  /** Reads on up to the offset `to`. Returns the first bad line, with which it stops, if there is one. */
  async advance(to: number): Promise<Damage | undefined> {
    const chunk = Buffer.allocUnsafe(Math.max(0, Math.min(chunkBytes, to - this.#end)));
    while (this.#end < to) {
      const from = this.#end;
      const wanted = Math.min(chunk.length, to - from);
      const length = this.#reader.read(chunk, wanted, from);
      const damage = this.#apply(chunk, length, from);
      if (damage !== undefined) return damage;
      const isWhole = this.#end > from;
      if (!isWhole && (length < wanted || length >= lineBytesMax || from + length >= to)) return this.#damage('has no end');
      if (this.#end < to && length === chunk.length) await nextTurn();
    }
    return undefined;
  }

  /** Adds lines to the index that were written at `end` and are durable. */
  append(bytes: Buffer): void {
    const damage = this.#apply(bytes, bytes.length, this.#end);
    if (damage !== undefined) throw corruption(this.path, damage);
  }

  /** Writes at `end`, in a thread, in as many calls as it takes. Nothing is added to the index. */
  async write(bytes: Buffer): Promise<void> {
    await writeAll(this.#fs, this.#fd, bytes, this.#end);
  }

  /** The same at once, for a batch. */
  writeBatch(bytes: Buffer): void {
    for (let done = 0; done < bytes.length; ) {
      const written = this.#fs.append(this.#fd, bytes.subarray(done), this.#end + done);
      if (written === 0) throw Object.assign(new Error('write(2) returned 0'), { code: 'EIO' });
      done += written;
    }
  }

  /** Writes these bytes of the file once more: the kernel takes bytes that it failed to sync for written. */
  async writeAgain(from: number, to: number): Promise<void> {
    await writeAll(this.#fs, this.#fd, this.bytes(from, to), from);
  }

  sync(): Promise<void> {
    return this.#fs.datasync(this.#fd);
  }

  /** Sets the length of the file, which is not durable before `sync`. */
  async truncate(bytes: number): Promise<void> {
    await this.#fs.truncate(this.#fd, bytes);
  }

  /** Bytes of the file, also behind `end`. */
  bytes(from: number, to: number): Buffer {
    const bytes = Buffer.alloc(to - from);
    return bytes.subarray(0, this.#reader.read(bytes, bytes.length, from));
  }

  close(): void {
    this.#reader.close();
    this.#fs.close(this.#fd);
  }

  /** Adds the complete lines of `chunk`, which begins at the offset `from`. */
  #apply(chunk: Buffer, length: number, from: number): Damage | undefined {
    const scanned = this.#scanned;
    const { seed } = this.header;
    const first = this.#end - from;
    // Nothing was read if another process has cut the file meanwhile.
    const whole = linesEnd(chunk, length);
    const isVerified = whole - first >= bulkBytesMin && this.#checksums.holds(chunk, first, whole, seed);
    for (let start = first; start < whole; ) {
      const end = lineEnd(chunk, start, whole);
      const wrong = isVerified ? scanVerified(chunk, start, end, scanned) : scanLine(chunk, start, end, seed, scanned);
      const reason = wrong ?? this.#place(chunk, from + start, end + 1 - start);
      if (reason !== undefined) return this.#damage(reason);
      if (!scanned.isRemoval) this.#kdfs.read(chunk, scanned.loginEnd, end);
      start = end + 1;
      this.#end = from + start;
      if (scanned.batch !== this.#batch) this.#batches++;
      this.#batch = scanned.batch;
      this.#lines++;
    }
    return undefined;
  }

  /** Adds the scanned line at `offset` to the index, or returns why it cannot be there. */
  #place(chunk: Buffer, offset: number, bytes: number): string | undefined {
    const { id, isRemoval, batch, loginStart, loginEnd } = this.#scanned;
    if (batch !== offset && batch !== this.#batch) return 'is not where it was written';
    const { index } = this;
    const hash = index.hash(chunk, loginStart, loginEnd);
    // The id distinguishes users with the same hash, so that no other line must be read.
    const rank = id > index.lastId ? -1 : index.find(hash, (candidate) => index.id(candidate) === id);
    if (rank >= 0) {
      if (isRemoval) {
        this.#currentBytes -= this.#currentBytes / index.size;
        index.remove(rank);
      } else {
        index.move(rank, offset);
      }
      return undefined;
    }
    if (isRemoval) return `removes user ${id}, who does not exist`;
    if (id <= index.lastId) return `gives id ${id} a second time`;
    index.add(hash, id, offset);
    this.#currentBytes += bytes;
    return undefined;
  }

  #damage(reason: string): Damage {
    return { offset: this.#end, line: this.#lines + 1, reason };
  }
}

/** The error for a damaged file, wherever the damage is found. Nothing was changed. */
export function corruption(path: string, damage: Damage): RegistrarError {
  const where = `line ${grouped(damage.line)} (byte ${grouped(damage.offset)})`;
  const way = 'Nothing was changed. Restore a backup with "registrar restore BACKUP", or run "registrar repair".';
  return new RegistrarError('corrupt', `Cannot open "${path}": ${where} ${damage.reason}. ${way}`);
}
