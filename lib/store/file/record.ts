/**
 * The lines of the file; pure.
 *
 *   header   {"format":"registrar-users","version":1,"created":"…","nextId":1,"seed":"5e0c41d7","crc":"…"}
 *   user     {"id":1,"login":"…","registered":"…","version":1[,"changed":"…"],"kdf":"…","password":"…"
 *             [,"key":"…"],"batch":105,"crc":"…"}
 *   removal  {"id":1,"login":"…","deleted":"…","batch":380,"crc":"…"}
 *
 * The public fields come first, so the public JSON of a user is a prefix of its line. `crc` is the CRC-32
 * of the bytes before `,"crc"`, started from the header's seed, in eight lower-case hex digits: a line of
 * another file is never taken for one of this. `batch` is the offset at which the line's write began.
 */

import { crc32 } from 'node:zlib';
import type { StoredUser, UserView } from '../../user-store.ts';

export const format = 'registrar-users';
export const formatVersion = 1;

/** A login, a kdf, salt and hash, and a key are below 1 KB even where every character takes four bytes. */
export const lineBytesMax = 4096;

const newline = 0x0a;
const quote = 0x22;
/** `,"crc":"1a2b3c4d"}` */
export const sealBytes = 18;

export interface Header {
  readonly version: number;
  readonly created: string;
  /** The lowest id that was free when the file was made: removals dropped by then are remembered by it. */
  readonly nextId: number;
  readonly seed: number;
}

export function encodeHeader(header: Header): Buffer {
  const seed = hex8(header.seed);
  const text = JSON.stringify({ format, version: header.version, created: header.created, nextId: header.nextId, seed });
  return seal(text.slice(0, -1), header.seed);
}

/** Reads the first line, without its newline; a string says what is wrong with it. */
export function decodeHeader(line: Buffer): Header | string {
  let value: unknown;
  try {
    value = JSON.parse(line.toString('utf8'));
  } catch {
    return 'the header is not JSON';
  }
  if (typeof value !== 'object' || value === null || !('format' in value) || value.format !== format) {
    return `the header does not say "format":"${format}"`;
  }
  const { version, created, nextId, seed } = value as Record<string, unknown>;
  if (version !== formatVersion) {
    return `it is of format version ${String(version)}, and this program knows version ${formatVersion} only`;
  }
  if (typeof created !== 'string' || typeof nextId !== 'number' || typeof seed !== 'string' || !/^[0-9a-f]{8}$/.test(seed)) {
    return 'the header lacks a field';
  }
  const header = { version, created, nextId, seed: Number.parseInt(seed, 16) };
  return checksumHolds(line, 0, line.length, header.seed) ? header : 'the header fails its checksum';
}

/** The line of a user, newline included. `batch` is the offset of the write it is part of. */
export function encodeUser(user: StoredUser, batch: number, seed: number): Buffer {
  const { id, login, registered, version, changed, kdf, password, key } = user;
  const text = JSON.stringify({ id, login, registered, version, changed, kdf, password, key, batch });
  return seal(text.slice(0, -1), seed);
}

/** The line of a removal, newline included. */
export function encodeRemoval(id: number, login: string, deleted: string, batch: number, seed: number): Buffer {
  const text = JSON.stringify({ id, login, deleted, batch });
  return seal(text.slice(0, -1), seed);
}

function seal(open: string, seed: number): Buffer {
  const line = Buffer.from(open + sealOf(open, seed), 'utf8');
  // What could not be read again is never written: no login or hash that this service takes comes near.
  if (line.length > lineBytesMax || open.includes('\\')) throw new RangeError('a record is too long, or holds what has to be escaped');
  return line;
}

/** What closes a line: its checksum, the brace, the newline. All of it is ASCII. */
function sealOf(open: Buffer | string, seed: number): string {
  return `,"crc":"${hex8(crc32(open, seed))}"}\n`;
}

/**
 * Writes the good line in `bytes[start, end)`, newline not included, as the line of another file, in which
 * it stands at `offset` in a batch of its own, to `into[at…]`. Returns how many bytes that took, newline
 * included; `into` has room for `lineBytesMax`.
 */
export function relocateLine(bytes: Buffer, start: number, end: number, into: Buffer, at: number, offset: number, seed: number): number {
  let digits = end - sealBytes - 1;
  while (bytes[digits]! >= 0x30 && bytes[digits]! <= 0x39) digits--;
  bytes.copy(into, at, start, digits + 1);
  let length = digits + 1 - start;
  length += into.write(String(offset), at + length, 'latin1');
  return length + into.write(sealOf(into.subarray(at, at + length), seed), at + length, 'latin1');
}

function hex8(value: number): string {
  return value.toString(16).padStart(8, '0');
}

/** Where the line that begins at `start` ends: the index of its newline, or -1. */
export function lineEnd(bytes: Buffer, start: number, end: number): number {
  const at = bytes.indexOf(newline, start);
  return at < end ? at : -1;
}

/** What opening the file needs of a line. One value is used again and again: a million of them are read. */
export interface Scanned {
  id: number;
  isRemoval: boolean;
  batch: number;
  loginStart: number;
  loginEnd: number;
}

/**
 * Reads the line in `bytes[start, end)`, newline not included, without making an object of it.
 * Returns what is wrong with it, or undefined.
 */
export function scanLine(bytes: Buffer, start: number, end: number, seed: number, into: Scanned): string | undefined {
  return checksumHolds(bytes, start, end, seed) ? scanProven(bytes, start, end, into) : 'fails its checksum';
}

/** The same for a line whose checksum is known to hold: this program wrote it, and this only finds its way. */
export function scanProven(bytes: Buffer, start: number, end: number, into: Scanned): string | undefined {
  let at = start + idPrefix.length;
  into.id = 0;
  for (let c = bytes[at]!; c >= 0x30 && c <= 0x39; c = bytes[++at]!) into.id = into.id * 10 + (c - 0x30);
  at += loginPrefix.length;
  into.loginStart = at;
  // No character of a login is ever escaped.
  while (at < end && bytes[at] !== quote) at++;
  into.loginEnd = at;
  into.isRemoval = bytes[at + 3] === 0x64;
  let batch = 0;
  let scale = 1;
  at = end - sealBytes - 1;
  for (let c = bytes[at]!; c >= 0x30 && c <= 0x39; c = bytes[--at]!) {
    batch += (c - 0x30) * scale;
    scale *= 10;
  }
  into.batch = batch;
  const shaped = bytes[start + 2] === 0x69 && bytes[start + 3] === 0x64 && at > into.loginEnd && scale > 1;
  return shaped ? undefined : 'is no record of a user';
}

const idPrefix = '{"id":';
const loginPrefix = ',"login":"';

const sealPrefix = Buffer.from(',"crc":"', 'latin1');

/** Whether the last bytes of the line in `bytes[start, end)` are the checksum of those before. */
export function checksumHolds(bytes: Buffer, start: number, end: number, seed: number): boolean {
  const stored = storedChecksum(bytes, start, end);
  return stored !== -1 && crc32(bytes.subarray(start, end - sealBytes), seed) === stored;
}

/** What the line in `bytes[start, end)` says that its checksum is; -1 if it says nothing. */
export function storedChecksum(bytes: Buffer, start: number, end: number): number {
  const sealAt = end - sealBytes;
  if (sealAt <= start) return -1;
  for (let n = 0; n < sealPrefix.length; n++) if (bytes[sealAt + n] !== sealPrefix[n]) return -1;
  if (bytes[end - 2] !== quote || bytes[end - 1] !== 0x7d) return -1;
  let stored = 0;
  for (let at = sealAt + 8; at < end - 2; at++) {
    const c = bytes[at]!;
    const digit = c >= 0x30 && c <= 0x39 ? c - 0x30 : c >= 0x61 && c <= 0x66 ? c - 0x57 : -1;
    if (digit < 0) return -1;
    stored = (stored << 4) | digit;
  }
  return stored >>> 0;
}

/** The user of a line whose checksum holds; undefined if the line is a removal. */
export function decodeUser(bytes: Buffer, start: number, end: number): StoredUser | undefined {
  const { id, login, registered, version, changed, kdf, password, key } = JSON.parse(bytes.toString('utf8', start, end)) as
    Partial<StoredUser>;
  if (id === undefined || login === undefined || registered === undefined) return undefined;
  if (version === undefined || kdf === undefined || password === undefined) return undefined;
  return {
    id,
    login,
    registered,
    version,
    ...(changed === undefined ? {} : { changed }),
    kdf,
    password,
    ...(key === undefined ? {} : { key }),
  };
}

/** The public side of the user of a line whose checksum holds; undefined if the line is not of this login. */
export function decodeView(bytes: Buffer, start: number, end: number, login: string): UserView | undefined {
  const line = bytes.toString('utf8', start, end);
  // No character of a login is ever escaped, and a comma stands behind an id.
  const comma = line.indexOf(',', idPrefix.length);
  const loginAt = comma + loginPrefix.length;
  if (!line.startsWith(login, loginAt) || line[loginAt + login.length] !== '"') return undefined;
  const cut = line.indexOf(',"kdf":"', loginAt + login.length);
  const versionAt = line.indexOf(versionPrefix, loginAt + login.length) + versionPrefix.length;
  if (cut < 0 || versionAt < versionPrefix.length) return undefined;
  // The digits end at a comma, with which parseInt stops.
  const version = Number.parseInt(line.slice(versionAt, cut), 10);
  return { id: Number(line.slice(idPrefix.length, comma)), version, json: `${line.slice(0, cut)}}` };
}

const versionPrefix = ',"version":';
/** Copies the public JSON of a user, and a newline, to `at`; returns where it ends. No Buffer is made: it is done for everybody. */
export function copyPublicLine(bytes: Buffer, start: number, end: number, into: Buffer, at: number): number {
  for (let from = start; from < end; from++) {
    const c = bytes[from]!;
    // `,"k` is the beginning of `,"kdf":"`, as no other field's name and no login is.
    if (c === 0x2c && bytes[from + 1] === quote && bytes[from + 2] === 0x6b) {
      into[at] = 0x7d;
      into[at + 1] = newline;
      return at + 2;
    }
    into[at++] = c;
  }
  throw new RangeError('not the line of a user');
}

const publicEnd = Buffer.from(',"kdf":"');
const closing = Buffer.from('}');

/** The public JSON of a user, cut from its line. */
export function publicJson(bytes: Buffer, start: number, end: number): Buffer {
  const cut = bytes.indexOf(publicEnd, start);
  // `,"kdf":"` cannot stand in a login, whose quotes are none; the line of a user always has it.
  if (cut < 0 || cut >= end) throw new RangeError('not the line of a user');
  return Buffer.concat([bytes.subarray(start, cut), closing]);
}
