/**
 * The lines of the file; pure.
 *
 *   header   {"format":"registrar-users","version":1,"created":"…","nextId":1,"seed":"5e0c41d7","crc":"…"}
 *   user     {"id":1,"login":"…","registered":"…","version":1[,"changed":"…"][,"disabled":"…"],"kdf":"…","password":"…"
 *             [,"key":"…"][unknown fields],"batch":105,"crc":"…"}
 *   removal  {"id":1,"login":"…","deleted":"…","batch":380,"crc":"…"}
 *
 * The public fields come first, so the public JSON of a user is a prefix of its line. `crc` is the CRC-32 of the bytes
 * before `,"crc"`, started from the header's seed, in eight lower-case hex digits: a line of another file is never taken
 * for one of this. `batch` is the offset at which the line's write began.
 */

import { crc32 } from 'node:zlib';
import type { PublicUser, StoredUser } from '../../user-store.ts';
import { decodeRecord, encodeRecord } from '../user-record.ts';

export const format = 'registrar-users';
export const formatVersion = 1;

/** A login, a kdf, salt and hash, and a key are below 1 KB even where every character takes four bytes. */
export const lineBytesMax = 4096;

const newline = 0x0a;
const quote = 0x22;
const comma = 0x2c;
const k = 0x6b;
const closingBrace = 0x7d;
/** `,"crc":"1a2b3c4d"}` */
export const sealBytes = 18;

export interface Header {
  readonly version: number;
  readonly created: string;
  /** The lowest id that was free when the file was made: removals dropped by then are remembered by it. */
  readonly nextId: number;
  readonly seed: number;
  /** The seed of the file of which this one is the compaction. */
  readonly compactedFrom?: number;
}

export function encodeHeader({ version, created, nextId, compactedFrom, seed }: Header): Buffer {
  const from = compactedFrom === undefined ? {} : { compactedFrom: hex8(compactedFrom) };
  const text = JSON.stringify({ format, version, created, nextId, ...from, seed: hex8(seed) });
  return seal(text.slice(0, -1), seed);
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
  const { version, created, nextId, compactedFrom, seed } = value as Record<string, unknown>;
  if (version !== formatVersion) {
    return `it is of format version ${String(version)}, and this program knows version ${formatVersion} only`;
  }
  if (typeof created !== 'string' || typeof nextId !== 'number' || typeof seed !== 'string' || !/^[0-9a-f]{8}$/.test(seed)) {
    return 'the header lacks a field';
  }
  const from = typeof compactedFrom === 'string' ? { compactedFrom: Number.parseInt(compactedFrom, 16) } : {};
  const header = { version, created, nextId, ...from, seed: Number.parseInt(seed, 16) };
  return checksumHolds(line, 0, line.length, header.seed) ? header : 'the header fails its checksum';
}

/** The line of a user, newline included. `batch` is the offset of the write it is part of. */
export function encodeUser(user: StoredUser, batch: number, seed: number): Buffer {
  const record = encodeRecord(user);
  // A known field with an escaped character could not be found again; no login or hash of this service has one.
  if (record.includes('\\') && encodeRecord({ ...user, unknownFields: {} }).includes('\\')) throw unwritable();
  return sealRecord(record, batch, seed);
}

/** The same for a record that was encoded before. */
export function sealRecord(record: string, batch: number, seed: number): Buffer {
  return seal(`${record.slice(0, -1)},"batch":${batch}`, seed);
}

/** The line of a removal, newline included. */
export function encodeRemoval(id: number, login: string, deleted: string, batch: number, seed: number): Buffer {
  const text = JSON.stringify({ id, login, deleted, batch });
  return seal(text.slice(0, -1), seed);
}

function seal(open: string, seed: number): Buffer {
  const line = Buffer.from(open + sealOf(open, seed), 'utf8');
  if (line.length > lineBytesMax) throw unwritable();
  return line;
}

function unwritable(): RangeError {
  return new RangeError('a record is too long, or a field of it contains a character that has to be escaped');
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
export function copyLine(bytes: Buffer, start: number, end: number, into: Buffer, at: number, offset: number, seed: number): number {
  let digits = end - sealBytes - 1;
  while (bytes[digits]! >= 0x30 && bytes[digits]! <= 0x39) digits--;
  bytes.copy(into, at, start, digits + 1);
  let length = digits + 1 - start;
  length += into.write(String(offset), at + length, 'latin1');
  return length + into.write(sealOf(into.subarray(at, at + length), seed), at + length, 'latin1');
}

/** Eight lower-case hex digits. */
export function hex8(value: number): string {
  return value.toString(16).padStart(8, '0');
}

/** Where the line that begins at `start` ends: the index of its newline, or -1. */
export function lineEnd(bytes: Buffer, start: number, end: number): number {
  const at = bytes.indexOf(newline, start);
  return at < end ? at : -1;
}

/** The end of the last complete line in `bytes[0, end)`; 0 if there is none. What is behind `end` may be of an earlier read. */
export function linesEnd(bytes: Buffer, end = bytes.length): number {
  // To lastIndexOf, an offset of -1 is the last byte of the buffer.
  return end === 0 ? 0 : bytes.lastIndexOf(newline, end - 1) + 1;
}

/** What a line says, without an object made of it. One value is used again and again: a million lines are read. */
export interface Scanned {
  id: number;
  isRemoval: boolean;
  version: number;
  batch: number;
  loginStart: number;
  loginEnd: number;
  /** Of a user: where `,"kdf":"` begins, and the public JSON ends. */
  publicEnd: number;
}

export function newScanned(): Scanned {
  return { id: 0, isRemoval: false, version: 0, batch: 0, loginStart: 0, loginEnd: 0, publicEnd: 0 };
}

/** Reads the line in `bytes[start, end)`, newline not included. Returns what is wrong with it, or undefined. */
export function scanLine(bytes: Buffer, start: number, end: number, seed: number, into: Scanned): string | undefined {
  return checksumHolds(bytes, start, end, seed) ? scanVerified(bytes, start, end, into) : 'fails its checksum';
}

/** The same for a line whose checksum is known to hold. */
export function scanVerified(bytes: Buffer, start: number, end: number, into: Scanned): string | undefined {
  return scanFields(bytes, start, end, into) && scanBatch(bytes, end, into) ? undefined : 'is no record of a user';
}

const names = {
  id: Buffer.from('{"id":'),
  login: Buffer.from(',"login":"'),
  registered: Buffer.from('","registered":"'),
  version: Buffer.from('","version":'),
  changed: Buffer.from(',"changed":"'),
  disabled: Buffer.from(',"disabled":"'),
  kdf: Buffer.from(',"kdf":"'),
  deleted: Buffer.from('","deleted":"'),
};

/** In bytes, as 2026-11-22T15:00:00.000Z. */
const timeBytes = 24;

/**
 * Reads the fields up to the kdf, or up to `deleted`. False unless they are exactly those of the format, in their order:
 * what stands before the kdf is public. No text before it has an escaped character.
 */
function scanFields(bytes: Buffer, start: number, end: number, into: Scanned): boolean {
  if (!matches(bytes, start, names.id)) return false;
  let at = scanDigits(bytes, start + names.id.length);
  into.id = digits;
  if (!matches(bytes, at, names.login)) return false;
  into.loginStart = at + names.login.length;
  into.loginEnd = at = quoteAfter(bytes, into.loginStart, end);
  into.isRemoval = matches(bytes, at, names.deleted);
  if (into.isRemoval) return true;
  if (!matches(bytes, at, names.registered)) return false;
  at = timeEnd(bytes, at + names.registered.length, end);
  if (!matches(bytes, at, names.version)) return false;
  at = scanDigits(bytes, at + names.version.length);
  into.version = digits;
  if (matches(bytes, at, names.changed)) at = timeEnd(bytes, at + names.changed.length, end) + 1;
  if (matches(bytes, at, names.disabled)) at = timeEnd(bytes, at + names.disabled.length, end) + 1;
  into.publicEnd = at;
  return matches(bytes, at, names.kdf);
}

function matches(bytes: Buffer, at: number, name: Buffer): boolean {
  for (let n = 0; n < name.length; n++) if (bytes[at + n] !== name[n]) return false;
  return true;
}

function quoteAfter(bytes: Buffer, at: number, end: number): number {
  while (at < end && bytes[at] !== quote) at++;
  return at;
}

function timeEnd(bytes: Buffer, at: number, end: number): number {
  return bytes[at + timeBytes] === quote ? at + timeBytes : quoteAfter(bytes, at, end);
}

/** The number that `scanDigits` read last: returning two values would make an object. */
let digits = 0;

function scanDigits(bytes: Buffer, at: number): number {
  digits = 0;
  for (let c = bytes[at]!; c >= 0x30 && c <= 0x39; c = bytes[++at]!) digits = digits * 10 + (c - 0x30);
  return at;
}

/** Reads the number before the checksum. */
function scanBatch(bytes: Buffer, end: number, into: Scanned): boolean {
  let at = end - sealBytes - 1;
  into.batch = 0;
  let scale = 1;
  for (let c = bytes[at]!; c >= 0x30 && c <= 0x39; c = bytes[--at]!) {
    into.batch += (c - 0x30) * scale;
    scale *= 10;
  }
  return scale > 1 && at > into.loginEnd;
}

const sealPrefix = Buffer.from(',"crc":"', 'latin1');

/** Whether the last bytes of the line in `bytes[start, end)` are the checksum of those before. */
export function checksumHolds(bytes: Buffer, start: number, end: number, seed: number): boolean {
  const stored = storedChecksum(bytes, start, end);
  return stored !== -1 && crc32(bytes.subarray(start, end - sealBytes), seed) === stored;
}

/** What the line in `bytes[start, end)` says that its checksum is; -1 if it says nothing. */
function storedChecksum(bytes: Buffer, start: number, end: number): number {
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
  const { batch, crc, ...fields } = JSON.parse(bytes.toString('utf8', start, end)) as Record<string, unknown>;
  return decodeRecord(fields);
}

const noKdf = Buffer.from(',"kdf":"none"', 'latin1');
/** Of the public JSON of a user without a password. The line has more behind it, so there is room. */
const invitedTail = ',"invited":true}';

function isInvited(bytes: Buffer, publicEnd: number): boolean {
  return matches(bytes, publicEnd, noKdf);
}

const scanned = newScanned();

/** The public side of the user of a line whose checksum holds; undefined if the line is not of this login. */
export function decodePublic(bytes: Buffer, start: number, end: number, login: Buffer): PublicUser | undefined {
  if (!scanFields(bytes, start, end, scanned) || scanned.isRemoval) return undefined;
  const { id, version, loginStart, loginEnd, publicEnd } = scanned;
  if (loginEnd - loginStart !== login.length || !matches(bytes, loginStart, login)) return undefined;
  return { id, version, json: `${bytes.toString('utf8', start, publicEnd)}${isInvited(bytes, publicEnd) ? invitedTail : '}'}` };
}

/**
 * Copies the public JSON of a user from a line that `scanLine` has accepted to `at`; returns where it ends. Of the fields up
 * to the kdf, the kdf alone has a name that begins with a k. Byte by byte: a list copies the line of every user.
 */
export function copyPublic(bytes: Buffer, start: number, end: number, into: Buffer, at: number): number {
  for (let from = start; from < end; from++, at++) {
    const byte = bytes[from]!;
    if (byte === comma && bytes[from + 1] === quote && bytes[from + 2] === k) {
      if (isInvited(bytes, from)) return at + into.write(invitedTail, at, 'latin1');
      into[at] = closingBrace;
      return at + 1;
    }
    into[at] = byte;
  }
  throw new RangeError('not the line of a user');
}
