/**
 * What the process that has just taken the lock does first: it makes of what is there a file that is
 * durable, is ours, and ends with a good line. What its predecessor has left decides how much that is:
 * mostly nothing, after a kill one fdatasync, after a failed disk a new file.
 */

import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { RegistrarError, noRoom } from '../../errors.ts';
import type { FileStatus, FileSystem } from './file-system.ts';
import { bootId } from './identity.ts';
import { UserLog } from './log.ts';
import type { DurableMark, Mark } from './mark.ts';
import { encodeHeader, formatVersion } from './record.ts';
import { assertTorn, copyTornTail, makeFile, rewrite } from './recover.ts';

/** Where a store is, and what belongs to it. */
export interface Place {
  readonly fs: FileSystem;
  readonly path: string;
  readonly lockDirectory: string;
  readonly mark: DurableMark;
  /** For a file that is being made: only the holder of the lock makes one. */
  readonly temporary: string;
  readonly now: () => Date;
  readonly report: (line: string) => void;
}

/** An fdatasync failed, or what would undo a write did: the page cache is not to be believed any more. */
export class DiskFailure extends Error {}

export function suspectPath({ lockDirectory }: Place): string {
  return join(lockDirectory, 'suspect');
}

export function isSuspect(place: Place): boolean {
  return place.fs.readLink(suspectPath(place)) !== undefined;
}

export function isOf(mark: Mark, log: UserLog): boolean {
  return mark.inode === log.inode && mark.seed === log.header.seed;
}

/**
 * Under the lock. `current` is the log as this process knew it; `switchTo` takes another in its place, as
 * soon as it may be read from. Throws `corrupt`, `cannot-start`, `storage-full`, or a DiskFailure.
 */
export async function settle(place: Place, current: UserLog | undefined, switchTo: (log: UserLog) => void): Promise<void> {
  const { fs, path, mark: durable } = place;
  if (fs.stat(path) === undefined) await makeUsersFile(place, current);
  const status = fs.stat(path);
  assertAlone(fs, path, status);
  let log = current;
  if (log === undefined || status?.inode !== log.inode || status.device !== log.device) {
    log = UserLog.open(fs, path);
    switchTo(log);
  }
  const mark = durable.read();
  const known = mark !== undefined && mark.boot === bootId && isOf(mark, log) ? mark.end : undefined;
  if (known !== undefined) assertNotCut(place, log, known);
  if (isSuspect(place)) {
    await writeAnew(place, known, switchTo);
    return;
  }
  const { size } = log;
  if (size !== known) {
    // Its writer died before the answer, or the machine did: what is read now may be in memory only. A sync
    // may have failed, too, and its process ended before it could say so: then the kernel takes these bytes
    // for written, and syncs them only if they are written again.
    if (known !== undefined) await log.writeAgain(known, size);
    await sync(log);
    await fs.syncDirectory(dirname(path));
  }
  const damage = await log.advance(size);
  if (damage !== undefined) assertTorn(log, damage, known);
  if (size !== known) writeMark(place, log, log.end);
  if (damage === undefined) return;
  await setAside(place, log);
  await cutBack(log);
}

/** Cuts off what is behind the log's end. */
export async function cutBack(log: UserLog): Promise<void> {
  try {
    await log.cut();
  } catch (cause) {
    throw new DiskFailure('Cannot cut the file back', { cause });
  }
}

export async function sync(log: UserLog): Promise<void> {
  try {
    await log.sync();
  } catch (cause) {
    throw new DiskFailure('Cannot sync the file', { cause });
  }
}

export function assertNotCut({ path, lockDirectory }: Place, { size }: UserLog, end: number): void {
  if (size >= end) return;
  const reason = `ends at byte ${size}, though ${end} bytes were durable`;
  const way = `restore it; if this is a backup put here on purpose, stop every process and remove "${lockDirectory}"`;
  throw new RegistrarError('corrupt', `Cannot open "${path}": it ${reason}; nothing was changed; ${way}`);
}

/** Another name of the file may lie in a directory with another lock; one that a repair gave it, and was killed then, does not. */
export function assertAlone(fs: FileSystem, path: string, status: FileStatus | undefined): void {
  if (status === undefined || status.links === 1) return;
  const isAside = (name: string): boolean =>
    name.startsWith(`${basename(path)}.damaged-`) && fs.stat(join(dirname(path), name))?.inode === status.inode;
  if (status.links === 1 + fs.list(dirname(path)).filter(isAside).length) return;
  const reason = `it has ${status.links} names (hard links), and each may be written to under a lock of its own`;
  throw new RegistrarError('cannot-start', `Cannot open "${path}": ${reason}; keep one`);
}

async function makeUsersFile({ fs, path, temporary, now }: Place, current: UserLog | undefined): Promise<void> {
  if (current !== undefined) throw new RegistrarError('unavailable', `"${path}" was removed underneath`);
  const seed = randomBytes(4).readUInt32LE();
  const header = { version: formatVersion, created: now().toISOString(), nextId: 1, seed };
  await makeFile(fs, path, temporary, encodeHeader(header));
}

/** Says that the file is durable up to `end`, for all who read it. */
export function writeMark({ mark }: Place, { inode, header }: UserLog, end: number): void {
  mark.write({ boot: bootId, inode, seed: header.seed, end });
}

async function setAside({ fs, path, now, report }: Place, log: UserLog): Promise<void> {
  const bytes = log.size - log.end;
  try {
    const copy = await copyTornTail(fs, log, now());
    const why = 'by a crash, or by a copy made while it was going on';
    report(`"${path}" ended in a write that was cut off, ${why}: its ${bytes} bytes are now "${copy}"`);
  } catch (cause) {
    if (!noRoom(cause)) throw cause;
    throw new RegistrarError('storage-full', 'There is no room to set a torn tail aside: the store is read-only', { cause });
  }
}

/**
 * An earlier process could not sync the file. It is not synced again, for that would report the old
 * failure or hide it, but copied; and none of its lines is shown before the copy is durable.
 */
async function writeAnew(place: Place, known: number | undefined, switchTo: (log: UserLog) => void): Promise<void> {
  const { fs, path, temporary, report } = place;
  const old = UserLog.open(fs, path);
  try {
    const damage = await old.advance(old.size);
    if (damage !== undefined) {
      assertTorn(old, damage, known);
      await setAside(place, old);
    }
    await rewrite(fs, old, temporary);
    const log = UserLog.open(fs, path);
    const wrong = await log.advance(old.end);
    if (wrong !== undefined || log.end !== old.end) throw new DiskFailure('The new file does not say what the old one did');
    writeMark(place, log, log.end);
    switchTo(log);
  } catch (cause) {
    if (!noRoom(cause)) throw cause;
    throw new RegistrarError('storage-full', 'There is no room to write the file anew after a failed disk: it is read-only', { cause });
  } finally {
    old.close();
  }
  fs.unlink(suspectPath(place));
  report(`"${path}" was written anew, since an earlier process could not sync it`);
}
