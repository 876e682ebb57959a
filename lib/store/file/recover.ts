/**
 * What to do with bytes behind the last good line. At most one batch is ever not durable, so they are
 * either the torn rest of a last write, which nobody was promised, or corruption, which is refused.
 *
 * With the first bad line at b it is corruption if b is below the durable mark, or a good line behind it
 * belongs to a batch that begins after b (so the bad one's write had been finished), or the bad line is
 * whole to the eye: it ends in a newline and has no NUL, as an unwritten block has. What this cannot
 * tell is rot that looks like tearing, in the last batch, after a reboot.
 */

import { basename, dirname, join } from 'node:path';
import { RegistrarError } from '../../errors.ts';
import { checksumHolds, scanLine } from './record.ts';
import type { Scanned } from './record.ts';
import type { FileSystem } from './file-system.ts';
import { corruption, writeAll } from './log.ts';
import type { Damage, UserLog } from './log.ts';

/** A batch is at most this long, by the store's limits, with room: nothing torn can be longer. */
const tornBytesMax = 64 << 20;

/** What is copied at a time: a file may be larger than a buffer can be. */
const copyBytes = 1 << 20;

/** Throws `corrupt` unless what is behind the log's end is a torn tail. */
export function assertTorn(log: UserLog, damage: Damage, durableEnd: number | undefined): void {
  if (durableEnd !== undefined && damage.offset < durableEnd) {
    throw corruption(log.path, { ...damage, reason: `${damage.reason}, though it was durable` });
  }
  if (log.size - damage.offset > tornBytesMax) throw corruption(log.path, damage);
  const tail = log.bytes(damage.offset, log.size);
  const end = tail.indexOf(0x0a);
  if (end >= 0 && tail.subarray(0, end).indexOf(0) < 0) throw corruption(log.path, damage);
  // Only its newline is another character: tearing leaves a NUL there, or nothing.
  if (end < 0 && tail.at(-1) !== 0 && checksumHolds(tail, 0, tail.length - 1, log.header.seed)) throw corruption(log.path, damage);
  if (hasLaterBatch(tail, damage.offset, log.header.seed)) {
    throw corruption(log.path, { ...damage, reason: `${damage.reason}, and later writes follow it` });
  }
}

/** Whether a good line in `tail` belongs to a batch that begins after `offset`, where the tail begins. */
function hasLaterBatch(tail: Buffer, offset: number, seed: number): boolean {
  const scanned: Scanned = { id: 0, isRemoval: false, batch: 0, loginStart: 0, loginEnd: 0 };
  // A good line may stand glued to a bad one whose newline is gone, so every beginning is tried.
  for (let start = tail.indexOf('{"id":'); start >= 0; start = tail.indexOf('{"id":', start + 1)) {
    const end = tail.indexOf(0x0a, start);
    if (end < 0) return false;
    if (scanLine(tail, start, end, seed, scanned) === undefined && scanned.batch > offset) return true;
  }
  return false;
}

/** Copies what is behind the log's end to `<file>.torn-<time>`, durably. Returns the copy's path. */
export async function copyTornTail(fs: FileSystem, log: UserLog, now: Date): Promise<string> {
  const path = `${log.path}.torn-${now.toISOString().replaceAll(/[-:]/g, '')}`;
  await writeDurably(fs, path, [log.bytes(log.end, log.size)]);
  await fs.syncDirectory(dirname(path));
  return path;
}

/** Copies the file as far as it is good, durably, into its own place. The caller holds the lock. */
export async function rewrite(fs: FileSystem, log: UserLog, temporary: string): Promise<void> {
  fs.unlink(temporary);
  const pieces = (function* () {
    for (let from = 0; from < log.end; from += copyBytes) yield log.bytes(from, Math.min(log.end, from + copyBytes));
  })();
  await writeDurably(fs, temporary, pieces);
  fs.rename(temporary, log.path);
  await fs.syncDirectory(dirname(log.path));
}

/** Makes a file that must not exist, whole and synced, or leaves none. The directory is the caller's. */
async function writeDurably(fs: FileSystem, path: string, pieces: Iterable<Buffer>): Promise<void> {
  const fd = fs.open(path, 'wx+');
  let position = 0;
  try {
    for (const bytes of pieces) {
      await writeAll(fs, fd, bytes, position);
      position += bytes.length;
    }
    await fs.datasync(fd);
  } catch (error) {
    fs.unlink(path);
    throw error;
  } finally {
    fs.close(fd);
  }
}

/**
 * Makes the file of a store that has never been: under a temporary name, synced, then linked into place,
 * so that nobody ever sees half of it. A store that is gone is not made anew. The caller holds the lock.
 */
export async function makeFile(fs: FileSystem, path: string, temporary: string, header: Buffer): Promise<void> {
  const directory = dirname(path);
  const lock = `${basename(path)}.lock`;
  const traces = fs.list(directory).filter((other) => other.startsWith(`${basename(path)}.`) && other !== lock);
  if (fs.stat(join(directory, lock, 'durable')) !== undefined) traces.push(lock);
  if (traces.length > 0) {
    const way = `restore it from a backup, or remove ${traces.join(', ')} to begin anew`;
    throw new RegistrarError('cannot-start', `Cannot open "${path}": it is gone, and it was here before: ${way}`);
  }
  await writeDurably(fs, temporary, [header]);
  fs.link(temporary, path);
  await fs.syncDirectory(directory);
  fs.unlink(temporary);
}
