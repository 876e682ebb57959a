/**
 * Finds the records in the bytes of a damaged users file: JSON objects, wherever they are, so line ends, white space and
 * the order of keys do not matter; pure. A record is verified if its checksum holds under the seed of the file, of its
 * bytes or of the same fields in the format's order, since another tool may have rewritten the file.
 */

import { crc32 } from 'node:zlib';
import type { StoredUser } from '../../user-store.ts';
import { parseLogin } from '../../user.ts';
import { keptIdMax } from '../decide.ts';
import { decodeRecord, encodeRecord } from '../user-record.ts';
import { seedOf } from './checksum.ts';
import { checksumHolds, format, lineBytesMax, sealBytes } from './record.ts';

/** Lines from which the seed is found. */
const seedVotesMax = 100;

/** Spaces and line ends that another tool adds make a line longer. */
const objectBytesMax = 2 * lineBytesMax;

export interface FoundHeader {
  readonly nextId: number;
  readonly seed: number | undefined;
}

/** A state of a user; without a record it is the removal. */
export interface FoundState {
  readonly id: number;
  readonly login: string;
  readonly version: number;
  /** The offset of the write that it was part of; -1 if it does not say. */
  readonly batch: number;
  /** JSON, as in a line, without the batch and the checksum. */
  readonly record: string | undefined;
  readonly isVerified: boolean;
}

interface Found {
  readonly start: number;
  readonly end: number;
  readonly header?: FoundHeader;
  readonly state?: FoundState;
}

/** Every header, user and removal, in the order of the file. */
export function* findRecords(bytes: Buffer, seed: number | undefined): Generator<Found> {
  for (let start = bytes.indexOf('{'); start >= 0; ) {
    const newline = bytes.indexOf(0x0a, start);
    const isLine = seed !== undefined && newline >= 0 && newline - start < lineBytesMax && checksumHolds(bytes, start, newline, seed);
    const end = isLine ? newline : objectEnd(bytes, start);
    const found = end < 0 ? undefined : decode(bytes.subarray(start, end), seed);
    if (found !== undefined) yield { start, end, ...found };
    start = bytes.indexOf('{', found === undefined ? start + 1 : end);
  }
}

/** The seed under which most lines hold, or that of the header if too few lines tell; undefined if neither does. */
export function findSeed(bytes: Buffer): number | undefined {
  const votes = new Map<number, number>();
  let header: number | undefined;
  for (let start = bytes.indexOf('{'), n = 0; start >= 0 && n < seedVotesMax; ) {
    const end = objectEnd(bytes, start);
    const object = bytes.subarray(start, Math.max(start, end));
    const value = parse(object);
    if (value?.format === format) header ??= decode(object, undefined)?.header?.seed;
    else if (value !== undefined) {
      // A rewritten line votes by its fields in the format's order; those of another one are the bytes themselves.
      const { text, stored } = checksums(object, value).at(-1) ?? {};
      if (text !== undefined && stored !== undefined) {
        const seed = seedOf(Buffer.from(text), stored);
        votes.set(seed, (votes.get(seed) ?? 0) + 1);
        n++;
      }
    }
    start = bytes.indexOf('{', value === undefined ? start + 1 : end);
  }
  const [best] = [...votes].sort(([, a], [, b]) => b - a);
  // A single line holds under some seed, whatever it is.
  return best === undefined || best[1] < 2 ? header : best[0];
}

function decode(bytes: Buffer, seed: number | undefined): Pick<Found, 'header' | 'state'> | undefined {
  const value = parse(bytes);
  if (value === undefined) return undefined;
  if (value.format === format) {
    const { nextId, seed: own } = value;
    const isSeed = typeof own === 'string' && /^[0-9a-f]{8}$/.test(own);
    return { header: { nextId: isId(nextId) ? nextId : 1, seed: isSeed ? Number.parseInt(own, 16) : undefined } };
  }
  const { id, login, batch: place, deleted } = value;
  if (!isId(id) || typeof login !== 'string') return undefined;
  const batch = typeof place === 'number' ? place : -1;
  const isVerified = seed !== undefined && checksums(bytes, value).some(({ text, stored }) => crc32(text, seed) === stored);
  if (deleted !== undefined) return { state: { id, login, version: Infinity, batch, record: undefined, isVerified } };
  const user = userOf(value);
  if (user === undefined || (!isVerified && !isValid(user))) return undefined;
  return { state: { id, login, version: user.version, batch, record: encodeRecord(user), isVerified } };
}

/** Where the object that begins at `start` ends; -1 if that is no object of the length of a record. */
function objectEnd(bytes: Buffer, start: number): number {
  let depth = 0;
  let isText = false;
  for (let at = start; at < bytes.length && at - start < objectBytesMax; at++) {
    const c = bytes[at]!;
    if (c === 0x5c && isText) at++;
    else if (c === 0x22) isText = !isText;
    else if (isText && c < 0x20) return -1;
    else if (!isText && (c === 0x7b || c === 0x5b)) depth++;
    else if (!isText && (c === 0x7d || c === 0x5d) && --depth === 0) return at + 1;
  }
  return -1;
}

function parse(bytes: Buffer): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return undefined;
  }
}

/** What the checksum may have been made of: the bytes as they are, and the fields in the format's order. */
function checksums(bytes: Buffer, value: Readonly<Record<string, unknown>>): { text: string; stored: number }[] {
  const { id, login, deleted, batch, crc } = value;
  if (typeof crc !== 'string' || !/^[0-9a-f]{8}$/.test(crc)) return [];
  const stored = Number.parseInt(crc, 16);
  const user = deleted === undefined ? userOf(value) : undefined;
  const ordered = user === undefined ? JSON.stringify({ id, login, deleted }) : encodeRecord(user);
  const texts = [bytes.toString('utf8', 0, bytes.length - sealBytes), `${ordered.slice(0, -1)},"batch":${String(batch)}`];
  return texts.map((text) => ({ text, stored }));
}

function userOf(value: Readonly<Record<string, unknown>>): StoredUser | undefined {
  const { id, login, registered, version, changed, disabled, kdf, password, key, batch, crc, ...rest } = value;
  const fields = { id, login, registered, version, changed, disabled, kdf, password, key, ...rest };
  return decodeRecord(Object.fromEntries(Object.entries(fields).filter(([, field]) => field !== undefined)));
}

const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

function isValid({ login, registered, changed = registered, disabled = registered, kdf, password, key = '' }: StoredUser): boolean {
  const parsed = parseLogin(login);
  const isHash = kdf === 'none' ? password === '' : /^[\w:]+$/.test(kdf) && /^[^"\\$]+\$[0-9a-f]{32,128}$/.test(password);
  const areTimes = [registered, changed, disabled].every((text) => time.test(text));
  return 'login' in parsed && parsed.login === login && areTimes && isHash && /^[0-9a-f]*$/.test(key);
}

function isId(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 && value <= 2 * keptIdMax;
}
