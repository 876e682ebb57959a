/**
 * One open file of users and what was derived from it: the index, and the offset up to which every line
 * has been read and checked. It only reads lines, appends at that offset and cuts back to it; who may
 * do so, and when, is the store's business.
 */

import { randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { RegistrarError, grouped } from '../../errors.ts';
import type { StoredUser, UserView } from '../../user-store.ts';
import type { FileSystem } from './file-system.ts';
import { LoginIndex } from './index.ts';
import { KdfSet } from './kdf-set.ts';
import { LineReader } from './line-reader.ts';
import { copyPublicLine, decodeHeader, decodeUser, decodeView, lineBytesMax, lineEnd, publicJson } from './record.ts';
import { relocateLine, scanLine, scanProven } from './record.ts';
import type { Header, Scanned } from './record.ts';

/** What is read at a time to catch up: between two such reads the event loop gets its turn. */
const chunkBytes = 1 << 20;

/** What is given of everybody at a time. */
const pieceBytes = 1 << 16;

const noEnd = 'has no end';

export interface Damage {
  readonly offset: number;
  /** Counted from 1, the header's. */
  readonly line: number;
  readonly reason: string;
}

export interface LogPage {
  readonly users: Buffer[];
  /** The id of the last user, if more follow. */
  readonly next: number | undefined;
}

export class UserLog {
  readonly path: string;
  readonly header: Header;
  readonly inode: number;
  readonly device: number;
  readonly index: LoginIndex;
  readonly #fs: FileSystem;
  readonly #fd: number;
  readonly #reader: LineReader;
  readonly #scanned: Scanned = { id: 0, isRemoval: false, batch: 0, loginStart: 0, loginEnd: 0 };
  #end: number;
  #lines = 1;
  #batch = -1;
  #batches = 0;

  #liveBytes = 0;
  readonly #kdfs = new KdfSet();

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
    this.#end = headerEnd;
  }

  /**
   * Opens a file and reads its header, no line yet. Throws `corrupt` if it is none of ours.
   * @param at where it is, if that is not where it will be. @param users that it is expected to have.
   */
  static open(fs: FileSystem, path: string, { at = path, users = 0 } = {}): UserLog {
    const fd = fs.open(at, 'r+');
    try {
      const { isFile, bytes } = fs.statFd(fd);
      if (!isFile) throw new RegistrarError('cannot-start', `Cannot open "${path}": it is not a file`);
      if (bytes === 0) {
        const way = 'restore it from a backup, or remove it and its .lock directory to begin anew';
        throw new RegistrarError('corrupt', `Cannot open "${path}": it is empty, and it never is when all is well: ${way}`);
      }
      const start = Buffer.alloc(lineBytesMax);
      const length = fs.read(fd, start, 0, lineBytesMax, 0);
      const end = lineEnd(start, 0, length);
      const header = end < 0 ? 'the header has no end' : decodeHeader(start.subarray(0, end));
      if (typeof header === 'string') throw corruption(path, { offset: 0, line: 1, reason: header });
      return new UserLog(fs, path, fd, header, end + 1, users);
    } catch (error) {
      fs.close(fd);
      throw error;
    }
  }

  /** Up to here every line is checked and in the index. */
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

  /**
   * Bytes of lines that say nothing any more. An estimate: a new line of a user is taken to be as long as
   * the one before, and a removed user's to have been of mean length.
   */
  get deadBytes(): number {
    return this.#end - this.#liveBytes;
  }

  get liveBytes(): number {
    return this.#liveBytes;
  }

  /** Every kdf that some line has. */
  get kdfs(): readonly string[] {
    return this.#kdfs.list;
  }

  /** Whether the file has no name any more. */
  get isRemoved(): boolean {
    return this.#fs.statFd(this.#fd).links === 0;
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
      if (!isWhole && (length < wanted || length >= lineBytesMax || from + length >= to)) return this.#damage(noEnd);
      if (this.#end < to && length === chunk.length) await nextTurn();
    }
    return undefined;
  }

  /** The same, in a file that another process is still writing: where the last line ends may not be there yet. */
  async advanceWhole(to: number): Promise<Damage | undefined> {
    const damage = await this.advance(to);
    return damage?.reason === noEnd && to - this.#end < lineBytesMax ? undefined : damage;
  }

  /** Takes lines in that have just been written, and are durable, at `end`. */
  append(bytes: Buffer): void {
    const damage = this.#apply(bytes, bytes.length, this.#end);
    if (damage !== undefined) throw corruption(this.path, damage);
  }

  /** Writes at `end`, all of it, however short the single writes turn out. Nothing is taken in yet. */
  async write(bytes: Buffer): Promise<void> {
    await writeAll(this.#fs, this.#fd, bytes, this.#end);
  }

  /** Writes what stands there once more: what the kernel failed to sync it takes for written, until it is. */
  async writeAgain(from: number, to: number): Promise<void> {
    await writeAll(this.#fs, this.#fd, this.bytes(from, to), from);
  }

  sync(): Promise<void> {
    return this.#fs.datasync(this.#fd);
  }

  /** Cuts what is behind `end`, durably: it must not come back after it was said to have failed. */
  async cut(): Promise<void> {
    await this.#fs.truncate(this.#fd, this.#end);
    await this.sync();
  }

  /** Bytes of the file, for those who look at what is behind `end`. */
  bytes(from: number, to: number): Buffer {
    const bytes = Buffer.alloc(to - from);
    return bytes.subarray(0, this.#reader.read(bytes, bytes.length, from));
  }

  find(login: string): StoredUser | undefined {
    return this.#find(login, (bytes, start, end) => {
      const user = decodeUser(bytes, start, end);
      return user?.login === login ? user : undefined;
    });
  }

  /** The public side of a user, without making an object of the line. */
  view(login: string): UserView | undefined {
    return this.#find(login, (bytes, start, end) => decodeView(bytes, start, end, login));
  }

  /** What `decode` makes of the line of the login; undefined if it is another's, whose hash is the same. */
  #find<T>(login: string, decode: (bytes: Buffer, start: number, end: number) => T | undefined): T | undefined {
    const name = Buffer.from(login, 'utf8');
    let found: T | undefined;
    this.index.find(this.index.hash(name, 0, name.length), (ordinal) => {
      const { start, end } = this.#reader.line(this.index.offset(ordinal), this.#end);
      found = decode(this.#reader.bytes, start, end);
      return found !== undefined;
    });
    return found;
  }

  /** Users with a higher id than `after`, in the order of ids. */
  page(after: number, limit: number): LogPage {
    const users: Buffer[] = [];
    const next = this.#since(after, (start, end) => {
      if (users.length === limit) return false;
      users.push(publicJson(this.#reader.bytes, start, end));
      return true;
    });
    return { users, next };
  }

  /** The same as bytes, each user with a newline, and as many as fit into one piece. */
  lines(after: number): { readonly bytes: Buffer; readonly next: number | undefined } {
    const piece = Buffer.allocUnsafe(pieceBytes);
    let length = 0;
    const next = this.#since(after, (start, end) => {
      // What is public is less than the line.
      if (end - start >= pieceBytes - length) return false;
      length = copyPublicLine(this.#reader.bytes, start, end, piece, length);
      return true;
    });
    return { bytes: piece.subarray(0, length), next };
  }

  /** Whole users, as many as have their lines in one piece. */
  records(after: number): { readonly users: StoredUser[]; readonly next: number | undefined } {
    const users: StoredUser[] = [];
    let length = 0;
    const next = this.#since(after, (start, end) => {
      length += end - start;
      if (length > pieceBytes) return false;
      const user = decodeUser(this.#reader.bytes, start, end);
      if (user !== undefined) users.push(user);
      return true;
    });
    return { users, next };
  }

  /**
   * Copies the lines of living users from `ordinal` on, up to the ordinal `to`, into `into`, as lines of
   * another file that stand there from `offset` on. It stops when `into` is full.
   */
  relocate(ordinal: number, to: number, into: Buffer, offset: number, seed: number): { next: number; length: number } {
    let length = 0;
    const next = this.#each(ordinal, to, (start, end) => {
      if (length > into.length - lineBytesMax) return false;
      length += relocateLine(this.#reader.bytes, start, end, into, length, offset + length, seed);
      return true;
    });
    return { next, length };
  }

  /** Takes the lines of users after the id `after` until `take` has no room. The id of the last one, if more follow. */
  #since(after: number, take: (start: number, end: number) => boolean): number | undefined {
    const { index } = this;
    let last = after;
    const stopped = this.#each(index.after(after), index.ordinals, (start, end, ordinal) => {
      if (!take(start, end)) return false;
      last = index.id(ordinal);
      return true;
    });
    return stopped < index.ordinals ? last : undefined;
  }

  /** The lines of living users from one ordinal up to another, until `take` takes no more. Where it stopped. */
  #each(from: number, to: number, take: (start: number, end: number, ordinal: number) => boolean): number {
    let previous = -Infinity;
    for (let ordinal = from; ordinal < to; ordinal++) {
      const offset = this.index.offset(ordinal);
      if (offset === 0) continue;
      // Most stand side by side; one that was changed since lies elsewhere.
      const isNear = offset > previous && offset - previous < lineBytesMax;
      const { start, end } = this.#reader.line(offset, this.#end, isNear);
      if (!take(start, end, ordinal)) return ordinal;
      previous = offset;
    }
    return to;
  }

  close(): void {
    this.#reader.close();
    this.#fs.close(this.#fd);
  }

  /** Reads whole lines from `chunk`, which begins at the offset `from`; what is left of it is the caller's. */
  #apply(chunk: Buffer, length: number, from: number): Damage | undefined {
    const scanned = this.#scanned;
    const { seed } = this.header;
    const first = this.#end - from;
    const whole = chunk.lastIndexOf(0x0a, length - 1) + 1;
    const areProven = this.#reader.proven(chunk, first, length) > 0;
    for (let start = first; start < whole; ) {
      const end = lineEnd(chunk, start, whole);
      const wrong = areProven ? scanProven(chunk, start, end, scanned) : scanLine(chunk, start, end, seed, scanned);
      const reason = wrong ?? this.#place(chunk, from + start, end + 1 - start);
      if (reason !== undefined) return this.#damage(reason);
      if (!scanned.isRemoval) this.#kdfs.see(chunk, scanned.loginEnd, end);
      start = end + 1;
      this.#end = from + start;
      if (scanned.batch !== this.#batch) this.#batches++;
      this.#batch = scanned.batch;
      this.#lines++;
    }
    return undefined;
  }

  /** Puts the scanned line at `offset` into the index, or says why it cannot stand there. */
  #place(chunk: Buffer, offset: number, bytes: number): string | undefined {
    const { id, isRemoval, batch, loginStart, loginEnd } = this.#scanned;
    if (batch !== offset && batch !== this.#batch) return 'is not where it was written';
    const { index } = this;
    const hash = index.hash(chunk, loginStart, loginEnd);
    // The id tells users with the same hash apart, so that no other line has to be read.
    const ordinal = id > index.lastId ? -1 : index.find(hash, (candidate) => index.id(candidate) === id);
    if (ordinal >= 0) {
      if (isRemoval) {
        this.#liveBytes -= this.#liveBytes / index.size;
        index.remove(ordinal);
      } else {
        index.move(ordinal, offset);
      }
      return undefined;
    }
    if (isRemoval) return `removes user ${id}, who is not there`;
    if (id <= index.lastId) return `gives id ${id} a second time`;
    index.add(hash, id, offset);
    this.#liveBytes += bytes;
    return undefined;
  }

  #damage(reason: string): Damage {
    return { offset: this.#end, line: this.#lines + 1, reason };
  }
}

/** Writes all of it, however short the single writes turn out. */
export async function writeAll(fs: FileSystem, fd: number, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const written = await fs.write(fd, bytes, done, bytes.length - done, position + done);
    if (written === 0) throw Object.assign(new Error('a write wrote nothing'), { code: 'EIO' });
    done += written;
  }
}

/** What a damaged file is answered with, everywhere: where it is, and what to do. Nothing is touched. */
export function corruption(path: string, damage: Damage): RegistrarError {
  const where = `line ${grouped(damage.line)} (byte ${grouped(damage.offset)})`;
  const way = 'nothing was changed; restore the file from a backup, or see what can be saved: registrar repair';
  return new RegistrarError('corrupt', `Cannot open "${path}": ${where} ${damage.reason}: ${way}`);
}
