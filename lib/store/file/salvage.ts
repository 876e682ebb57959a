/**
 * Reads a damaged file line by line and tells what can be saved: of every user the latest state that a
 * good line says, and of every bad line where it is and whom it seems to have been about. It changes
 * nothing. It keeps a map of all users, some 200 bytes each: it is for a day of need.
 *
 * A bad line may have been a change, so that the user is saved as it was; or a removal, so that the
 * user is back. Both are told. A header that cannot be read costs nobody: two lines tell its seed.
 */

import { RegistrarError, grouped, systemCode } from '../../errors.ts';
import { seedOf } from './checksum.ts';
import type { FileSystem } from './file-system.ts';
import { checksumHolds, decodeHeader, decodeUser, lineBytesMax, sealBytes, storedChecksum } from './record.ts';

const readBytes = 1 << 20;
/** Of a page of memory: what a disk cannot read is at least so much. */
const blockBytes = 4096;

const lineBegin = '{"id":';
const sealBegin = ',"crc":"';

/** A line of the shortest user takes more: so many ids, at most, were given in the bytes that are lost. */
const userBytesMin = 100;

/** Where the header is lost, ids that were given and are in no line any more are jumped over. */
const idsUnknown = 1_000_000;

/** Lines from which a lost seed is told. */
const seedVotesMax = 100;

export interface LostLine {
  readonly offset: number;
  /** Counted from 1, the header's. */
  readonly line: number;
  readonly bytes: number;
  readonly reason: string;
  /** Whom it seems to be about, as far as it can be read. */
  readonly about: { readonly id: number; readonly login: string } | undefined;
}

interface Salvaged {
  readonly offset: number;
  readonly bytes: number;
  readonly login: string;
  readonly version: number;
}

export interface Salvage {
  /** By id, in no order. */
  readonly users: ReadonlyMap<number, Salvaged>;
  readonly lost: readonly LostLine[];
  /** Users with a good line who are left out, since somebody else has the login by a later line. */
  readonly ousted: readonly { readonly id: number; readonly login: string; readonly by: number }[];
  readonly nextId: number;
  readonly seed: number;
}

/** Throws `corrupt` if it is a file of another kind, or of a later format. */
export function salvage(fs: FileSystem, path: string): Salvage {
  const fd = fs.open(path, 'r');
  try {
    return new Reader(fs, fd, path).read();
  } finally {
    fs.close(fd);
  }
}

/** What repairing would leave out, a line for each thing, for a person. */
export function describeLosses({ users, lost, ousted }: Salvage): string[] {
  const lines = lost.map(({ offset, line, bytes, reason, about }) => {
    const where = `line ${grouped(line)} (byte ${grouped(offset)}, ${grouped(bytes)} bytes) ${reason}`;
    if (line === 1) return `${where}: it is made anew`;
    if (about === undefined) return `${where}: it cannot be told whom it was about`;
    const kept = users.get(about.id);
    const state = kept === undefined ? 'who is not saved' : `who is kept as of version ${kept.version}`;
    return `${where}: it seems to be about user ${about.id}, "${about.login}", ${state}`;
  });
  return [...lines, ...ousted.map(({ id, login, by }) => `user ${id}, "${login}", is left out: by a later line user ${by} has that login`)];
}

class Reader {
  readonly #fs: FileSystem;
  readonly #fd: number;
  readonly #path: string;
  readonly #users = new Map<number, Salvaged>();
  readonly #owners = new Map<string, number>();
  readonly #removed = new Set<number>();
  readonly #lost: LostLine[] = [];
  readonly #ousted: { id: number; login: string; by: number }[] = [];
  #seed = 0;
  #lastId = 0;

  constructor(fs: FileSystem, fd: number, path: string) {
    this.#fs = fs;
    this.#fd = fd;
    this.#path = path;
  }

  read(): Salvage {
    const start = Buffer.alloc(readBytes);
    const known = start.subarray(0, this.#read(start, 0));
    const firstEnd = Math.min(...[known.indexOf(0x0a), lineBytesMax, known.length].filter((end) => end >= 0));
    const header = decodeHeader(known.subarray(0, firstEnd));
    let headerNextId: number | undefined;
    if (typeof header === 'string') {
      // A later format says so in a good header; a damaged one says anything.
      if (sealed(known.subarray(0, firstEnd))) throw this.#refusal(header);
      this.#seed = this.#findSeed(known);
      this.#lost.push({ offset: 0, line: 1, bytes: firstEnd, reason: header, about: undefined });
    } else {
      this.#seed = header.seed;
      headerNextId = header.nextId;
    }
    this.#readLines(known.indexOf(0x0a) === firstEnd ? firstEnd + 1 : 0);
    const lostBytes = this.#lost.reduce((sum, { bytes }) => sum + bytes, 0);
    const margin = Math.ceil(lostBytes / userBytesMin) + (headerNextId === undefined ? idsUnknown : 0);
    const nextId = Math.max(headerNextId ?? 1, this.#lastId + 1) + margin;
    return { users: this.#users, lost: this.#lost, ousted: this.#ousted, nextId, seed: this.#seed };
  }

  #readLines(from: number): void {
    let line = from === 0 ? 0 : 1;
    let rest = Buffer.alloc(0);
    for (let position = from; ; ) {
      const bytes = Buffer.alloc(readBytes);
      const length = this.#read(bytes, position);
      const all = Buffer.concat([rest, bytes.subarray(0, length)]);
      const offset = position - rest.length;
      let start = 0;
      for (let end = all.indexOf(0x0a); end >= 0; end = all.indexOf(0x0a, start)) {
        this.#take(all, start, end, offset, ++line);
        start = end + 1;
      }
      rest = all.subarray(start);
      position += length;
      if (length > 0) continue;
      if (rest.length > 0) this.#take(rest, 0, rest.length, offset, ++line);
      return;
    }
  }

  /** What the disk cannot read becomes zeros, a block at a time. */
  #read(into: Buffer, position: number): number {
    try {
      return this.#fs.read(this.#fd, into, 0, into.length, position);
    } catch (error) {
      if (systemCode(error) !== 'EIO') throw error;
    }
    const end = Math.min(into.length, this.#fs.statFd(this.#fd).bytes - position);
    for (let at = 0, length = 0; at < end; at += length) {
      length = Math.min(end - at, blockBytes - ((position + at) % blockBytes));
      try {
        this.#fs.read(this.#fd, into, at, length, position + at);
      } catch (error) {
        if (systemCode(error) !== 'EIO') throw error;
        into.fill(0, at, at + length);
      }
    }
    return end;
  }

  /** The line in `all[start, end)`. What is bad as a whole may be a good line glued to the rest of another. */
  #take(all: Buffer, start: number, end: number, offset: number, line: number): void {
    let from = start;
    for (let seal = all.indexOf(sealBegin, start); seal >= 0 && seal + sealBytes <= end; seal = all.indexOf(sealBegin, seal + 1)) {
      const to = seal + sealBytes;
      const at = this.#beginning(all, from, to);
      if (at < 0) continue;
      if (at > from) this.#lose(all, from, at, offset, line, 'has no end');
      this.#keep(all, at, to, offset);
      from = to;
    }
    const isHeader = offset + start === 0 && from === start;
    if (from < end && !isHeader) this.#lose(all, from, end, offset, line, from === start ? 'fails its checksum' : 'has no beginning');
  }

  /** Where, from `from` on, the line begins that ends at `to` and whose checksum holds; -1 if there is none. */
  #beginning(all: Buffer, from: number, to: number): number {
    for (let at = all.indexOf(lineBegin, from); at >= 0 && at < to; at = all.indexOf(lineBegin, at + 1)) {
      if (checksumHolds(all, at, to, this.#seed)) return at;
    }
    return -1;
  }

  #keep(all: Buffer, start: number, end: number, offset: number): void {
    const user = decodeUser(all, start, end);
    const { id, login } = user ?? (JSON.parse(all.toString('utf8', start, end)) as { readonly id: number; readonly login: string });
    this.#lastId = Math.max(this.#lastId, id);
    if (user === undefined) {
      this.#removed.add(id);
      this.#users.delete(id);
      if (this.#owners.get(login) === id) this.#owners.delete(login);
      return;
    }
    const present = this.#users.get(id);
    if (this.#removed.has(id) || (present !== undefined && present.version > user.version)) return;
    const owner = this.#owners.get(login);
    if (owner !== undefined && owner !== id) {
      this.#users.delete(owner);
      this.#removed.add(owner);
      this.#ousted.push({ id: owner, login, by: id });
    }
    this.#owners.set(login, id);
    this.#users.set(id, { offset: offset + start, bytes: end - start, login, version: user.version });
  }

  #lose(all: Buffer, start: number, end: number, offset: number, line: number, reason: string): void {
    const [, id, login] = /"id":(\d{1,15}),"login":"([^"]{1,64})"/.exec(all.toString('utf8', start, end)) ?? [];
    const about = id === undefined || login === undefined ? undefined : { id: Number(id), login };
    this.#lost.push({ offset: offset + start, line, bytes: end - start, reason, about });
  }

  /** The seed under which most of the first lines hold. */
  #findSeed(known: Buffer): number {
    const votes = new Map<number, number>();
    for (let start = 0, end = 0, n = 0; n < seedVotesMax; start = end + 1, n++) {
      end = known.indexOf(0x0a, start);
      if (end < 0) break;
      const stored = storedChecksum(known, start, end);
      if (stored === -1) continue;
      const seed = seedOf(known.subarray(start, end - sealBytes), stored);
      votes.set(seed, (votes.get(seed) ?? 0) + 1);
    }
    const [best] = [...votes].sort(([, a], [, b]) => b - a);
    if (best === undefined || best[1] < 2) throw this.#refusal('the header cannot be read, and too few lines tell what it said');
    return best[0];
  }

  #refusal(reason: string): RegistrarError {
    return new RegistrarError('corrupt', `Cannot read "${this.#path}": ${reason}; nothing was changed`);
  }
}

/** Whether a first line is a good one of some format, by the seed that it names itself. */
function sealed(line: Buffer): boolean {
  const [, seed] = /"seed":"([0-9a-f]{8})"/.exec(line.toString('latin1')) ?? [];
  return seed !== undefined && checksumHolds(line, 0, line.length, Number.parseInt(seed, 16));
}
