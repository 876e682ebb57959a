/**
 * Reads a damaged users file, or a copy or an export of one, and says which users can be recovered and what is lost; it
 * changes nothing. Unreadable bytes may have been a newer state of a user, or its removal, so each loss says which users
 * it may concern. A user that no checksum vouches for is taken only if the operator agrees.
 *
 * It keeps the file and a record of every user in memory, some 1 KB each.
 */

import { RegistrarError, grouped, systemCode } from '../../errors.ts';
import type { DurableOffset } from './durable-offset.ts';
import type { FileSystem } from './file-system.ts';
import { findRecords, findSeed } from './find-records.ts';
import type { FoundHeader, FoundState } from './find-records.ts';
import { checksumHolds, decodeHeader } from './record.ts';

/** Of a page of memory: the least that a disk fails to read. */
const blockBytes = 4096;

/** A line of the shortest user takes more, so lost bytes held at most so many ids. */
const userBytesMin = 100;

/** Where the end of the file or its header is lost without a durable offset, imported ids may have been far above the last one. */
export const idsUnknown = 1_000_000;

export interface Recovery {
  /** By id, in no order. */
  readonly users: ReadonlyMap<number, FoundState>;
  /** One line for an operator for each thing that is lost, or may be. */
  readonly losses: readonly string[];
  /** Lines of valid users and removals that no checksum vouches for. They are in `users` only if that was requested. */
  readonly unverified: number;
  /** Above every id that was seen. */
  readonly nextIdSeen: number;
  /** The same and above what the lost bytes may have held: no id from here on was given. */
  readonly nextId: number;
  /** False for an export, and for a file whose header is lost. */
  readonly hasHeader: boolean;
}

interface RecoverOptions {
  readonly durable?: DurableOffset | undefined;
  readonly takesUnverified?: boolean;
}

/** Throws `corrupt` for a file with a valid header of a later format, and for one in which nothing can be read. */
export function recover(fs: FileSystem, path: string, { durable, takesUnverified = false }: RecoverOptions = {}): Recovery {
  const bytes = readAll(fs, path);
  const first = bytes.subarray(0, Math.max(0, bytes.indexOf(0x0a)));
  const [, ownSeed = ''] = /"seed":"([0-9a-f]{8})"/.exec(first.toString('latin1')) ?? [];
  const header = decodeHeader(first);
  if (typeof header === 'string' && ownSeed !== '' && checksumHolds(first, 0, first.length, Number.parseInt(ownSeed, 16))) {
    throw new RegistrarError('corrupt', `Cannot read "${path}": ${header}. Nothing was changed.`);
  }
  const recovery = new Recoverer(bytes, durable, takesUnverified).run();
  if (recovery !== undefined) return recovery;
  throw new RegistrarError('corrupt', `Cannot read "${path}": it contains no header, no user and no removal. Nothing was changed.`);
}

class Recoverer {
  readonly #bytes: Buffer;
  readonly #durable: DurableOffset | undefined;
  readonly #takesUnverified: boolean;
  readonly #users = new Map<number, FoundState>();
  readonly #removed = new Set<number>();
  readonly #losses: string[] = [];
  readonly #unverified: FoundState[] = [];
  readonly #seed: number | undefined;
  #headerNextId: number | undefined;
  #lastId = 0;
  #lostBytes = 0;
  #isEndLost = false;
  /** For line numbers: newlines before this offset. */
  #counted = { offset: 0, line: 1 };
  /** Of the last line in its place: its batch, and how many bytes are missing before it. */
  #lastBatch = -1;
  #missing = 0;

  constructor(bytes: Buffer, durable: DurableOffset | undefined, takesUnverified: boolean) {
    this.#bytes = bytes;
    this.#seed = findSeed(bytes);
    this.#durable = durable;
    this.#takesUnverified = takesUnverified;
  }

  /** Undefined if nothing can be read. */
  run(): Recovery | undefined {
    let gap = 0;
    for (const { start, end, header, state } of findRecords(this.#bytes, this.#seed)) {
      this.#lose(gap, start);
      if (header !== undefined) this.#takeHeader(header, start);
      if (state !== undefined) this.#take(state, start, end);
      gap = end;
    }
    this.#isEndLost = this.#lose(gap, this.#bytes.length);
    if (this.#headerNextId === undefined && this.#lastId === 0 && this.#unverified.length === 0) return undefined;
    const hasHeader = this.#headerNextId !== undefined;
    if (!hasHeader) this.#losses.unshift('line 1 (byte 0): the header is missing or unreadable. It is made anew');
    this.#noteMissingEnd();
    this.#applyUnverified();
    this.#dropConflicting();
    const nextIdSeen = Math.max(this.#headerNextId ?? 1, this.#lastId + 1);
    const { length: unverified } = this.#unverified;
    return { users: this.#users, losses: this.#losses, unverified, nextIdSeen, nextId: this.#nextId(nextIdSeen), hasHeader };
  }

  #takeHeader({ nextId, seed }: FoundHeader, start: number): void {
    const isOwn = seed === this.#seed;
    const why = isOwn ? 'the header is not at the beginning' : 'the header is that of another file';
    if (!isOwn || start > 0) this.#losses.push(`${this.#at(start)}: ${why}. It is left out`);
    this.#headerNextId = Math.max(this.#headerNextId ?? 1, nextId);
  }

  #take(found: FoundState, start: number, end: number): void {
    if (!found.isVerified) {
      this.#unverified.push(found);
      if (!this.#takesUnverified) this.#lose(start, end, 'fails its checksum');
      return;
    }
    this.#notePlace(found.batch, start);
    this.#lastId = Math.max(this.#lastId, found.id);
    this.#apply(found);
  }

  /** An id is never given again, so a removal counts wherever it is. Of two states the later one counts. */
  #apply(found: FoundState): void {
    if (found.record === undefined) {
      this.#removed.add(found.id);
      this.#users.delete(found.id);
      return;
    }
    const present = this.#users.get(found.id);
    const isOlder = present !== undefined && (present.version - found.version || present.batch - found.batch) > 0;
    if (!this.#removed.has(found.id) && !isOlder) this.#users.set(found.id, found);
  }

  /** A line says at which byte its write began: if that is further from the beginning than before, bytes are missing. */
  #notePlace(batch: number, start: number): void {
    if (batch <= this.#lastBatch) return;
    this.#lastBatch = batch;
    const missing = batch - start;
    if (missing > this.#missing) {
      this.#losses.push(`${this.#at(start)}: ${grouped(missing - this.#missing)} bytes are missing before it. ${this.#concerns()}`);
      this.#lostBytes += missing - this.#missing;
    }
    this.#missing = missing;
  }

  #noteMissingEnd(): void {
    const { seed, end } = this.#durable ?? {};
    if (end === undefined || seed !== this.#seed) return;
    const missing = end - this.#bytes.length - this.#missing;
    if (missing <= 0) return;
    const what = `${this.#at(this.#bytes.length)}: the file ends there, and ${grouped(missing)} bytes that were durable are missing`;
    this.#losses.push(`${what}. ${this.#concerns()}`);
    this.#lostBytes += missing;
    this.#isEndLost = true;
  }

  /** False if the bytes say nothing: white space, or what an array of records has around them. */
  #lose(from: number, to: number, reason = 'is unreadable'): boolean {
    let [start, end] = [from, to];
    while (start < end && this.#bytes[start]! <= 0x20 && this.#bytes[start] !== 0) start++;
    while (end > start && this.#bytes[end - 1]! <= 0x20 && this.#bytes[end - 1] !== 0) end--;
    const text = this.#bytes.toString('utf8', start, end);
    if (/^(?:[\s,[\]}\ufeff]|\{"users":)*$/.test(text)) return false;
    this.#lostBytes += end - start;
    const where = `${this.#at(start, `, ${grouped(end - start)} bytes`)} ${reason}`;
    const [, number, login] = /"id":\s?(\d{1,15}),\s?"login":\s?"([^"]{1,254})"/.exec(text) ?? [];
    const about = number === undefined ? '' : ` It reads as user ${number}, "${login}".`;
    // One that is damaged may name an id that was never given.
    if (number !== undefined && Number(number) < this.#lastId + idsUnknown) this.#lastId = Math.max(this.#lastId, Number(number));
    this.#losses.push(`${where}.${about} ${this.#concerns()}`);
    return true;
  }

  #concerns(): string {
    return `It may have been a new user, or a newer state or the removal of any user up to id ${this.#lastId}`;
  }

  /** Those that contradict no verified line. */
  #applyUnverified(): void {
    if (!this.#takesUnverified) return;
    for (const found of this.#unverified) {
      const present = this.#users.get(found.id);
      if (present !== undefined && present.login !== found.login) {
        const why = `that id belongs to "${present.login}"`;
        this.#losses.push(`user ${found.id}, "${found.login}", of a line without a valid checksum is left out: ${why}`);
      } else {
        this.#apply(found);
      }
      this.#lastId = Math.max(this.#lastId, found.id);
    }
  }

  /** A login is given again only after the removal of its user, so the higher id is the later user. */
  #dropConflicting(): void {
    const owners = new Map<string, number>();
    for (const id of Float64Array.from(this.#users.keys()).sort()) {
      const { login } = this.#users.get(id)!;
      const before = owners.get(login);
      if (before !== undefined) {
        this.#users.delete(before);
        this.#losses.push(`user ${before}, "${login}", is left out: user ${id} has that login, so the removal of user ${before} was lost`);
      }
      owners.set(login, id);
    }
  }

  #nextId(seen: number): number {
    const known = Math.max(seen, this.#durable?.nextId ?? 1);
    if (this.#durable !== undefined && this.#durable.seed === this.#seed) return known;
    const isOpen = this.#isEndLost || this.#headerNextId === undefined || this.#seed === undefined || this.#unverified.length > 0;
    return known + Math.ceil(this.#lostBytes / userBytesMin) + (isOpen ? idsUnknown : 0);
  }

  #at(offset: number, more = ''): string {
    for (let at = this.#bytes.indexOf(0x0a, this.#counted.offset); at >= 0 && at < offset; at = this.#bytes.indexOf(0x0a, at + 1)) {
      this.#counted = { offset: at + 1, line: this.#counted.line + 1 };
    }
    return `line ${grouped(this.#counted.line)} (byte ${grouped(offset)}${more})`;
  }
}

/** What the disk fails to read becomes zeros, a block at a time. */
function readAll(fs: FileSystem, path: string): Buffer {
  const fd = fs.open(path, 'r');
  try {
    const bytes = Buffer.alloc(fs.statFd(fd).bytes);
    for (let at = 0, length = 0; at < bytes.length; at += length) {
      length = Math.min(bytes.length - at, 1 << 20);
      try {
        length = fs.read(fd, bytes, at, length, at);
      } catch (error) {
        if (systemCode(error) !== 'EIO') throw error;
        length = Math.min(length, blockBytes - (at % blockBytes));
        try {
          fs.read(fd, bytes, at, length, at);
        } catch (inner) {
          if (systemCode(inner) !== 'EIO') throw inner;
        }
      }
      if (length === 0) return bytes.subarray(0, at);
    }
    return bytes;
  } finally {
    fs.close(fd);
  }
}
