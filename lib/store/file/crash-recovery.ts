/**
 * What the process that has just taken the lock does first: it makes the file durable and ends it with a good line.
 * After a kill, a power cut or a failed sync the file is longer than its durable offset: those bytes are written once
 * more and synced, since the kernel takes bytes that it failed to write for clean. A torn tail is quarantined, then cut.
 */

import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { writeDurableFile } from '../../durable-file.ts';
import { RegistrarError, noRoom } from '../../errors.ts';
import type { DurableOffset, DurableOffsetFile } from './durable-offset.ts';
import type { FileSystem } from './file-system.ts';
import { bootId } from './identity.ts';
import { UserLog, corruption } from './user-log.ts';
import { assertSingleLink } from './own-file.ts';
import { encodeHeader, formatVersion } from './record.ts';
import { judge } from './verdict.ts';

/** The files of a store. */
export interface StorePaths {
  readonly fs: FileSystem;
  readonly path: string;
  readonly lockDirectory: string;
  readonly durable: DurableOffsetFile;
  /** For a file that is being made: only the holder of the lock makes one. */
  readonly temporary: string;
  readonly now: () => Date;
  readonly report: (line: string) => void;
}

/** A sync failed, or what would undo a write did: only another process may use the file, after `recoverAfterCrash`. */
export class DiskFailure extends Error {}

export function sameFile(offset: DurableOffset, log: UserLog): boolean {
  return offset.inode === log.inode && offset.seed === log.header.seed;
}

/**
 * Under the lock. `current` is the log as this process knew it; `switchTo` takes another in its place, as soon as it may
 * be read from. Rejects with `corrupt`, `cannot-start`, `storage-full`, or a DiskFailure.
 */
export async function recoverAfterCrash(paths: StorePaths, current: UserLog | undefined, switchTo: (log: UserLog) => void): Promise<void> {
  const { fs, path } = paths;
  if (fs.stat(path) === undefined) await makeUsersFile(paths, current);
  const status = fs.stat(path);
  if (status !== undefined) assertSingleLink(fs, path, status, 'cannot-start');
  const offset = paths.durable.read();
  let log = current;
  if (log === undefined || status?.inode !== log.inode || status.device !== log.device) {
    log = UserLog.open(fs, path);
    if (current !== undefined && !isCompactionOf(log, current, offset)) {
      log.close();
      throw new RegistrarError('unavailable', `"${path}" was replaced by another file while it was in use`);
    }
    switchTo(log);
  }
  const isKnown = offset !== undefined && sameFile(offset, log);
  const isThisBoot = isKnown && offset.boot === bootId;
  // What this process has read was durable, even if the durable offset is lost.
  const durableEnd = Math.max(isKnown ? offset.end : 0, log === current ? log.end : 0);
  const { size } = log;
  const isClean = isThisBoot && size === offset.end;
  if (!isClean && size >= durableEnd) {
    if (isThisBoot) await log.writeAgain(durableEnd, size);
    await sync(log);
    await fs.syncDirectory(dirname(path));
  }
  const shownEnd = log.end;
  const verdict = await judge(log, durableEnd);
  if (verdict.state === 'damaged') throw corruption(path, verdict.damage);
  if (!isClean) {
    try {
      writeDurableOffset(paths, log, log.end, log.nextId);
    } catch (cause) {
      // Other processes would not see lines that this one can show by now, so it must not go on. Without them it may.
      const isShown = log.end > shownEnd && (isThisBoot || log === current);
      throw isShown || !noRoom(cause) ? new DiskFailure('Cannot write the durable offset', { cause }) : cause;
    }
  }
  if (verdict.state === 'unterminated') await terminate(paths, log, verdict.line);
  if (verdict.state === 'torn') {
    await quarantineTail(paths, log);
    await cutBack(log);
  }
}

/** Cuts off what is behind the log's end, durably: it must not come back after its write was answered with an error. */
export async function cutBack(log: UserLog): Promise<void> {
  try {
    await log.truncate(log.end);
    await log.sync();
  } catch (cause) {
    // The shorter length may not be on the disk. One byte behind the durable offset makes the next process recover it.
    await log.truncate(log.end + 1).catch(() => undefined);
    throw new DiskFailure('Cannot cut the file back', { cause });
  }
}

/** Makes what was written durable. Rejects with a DiskFailure. */
export function sync(log: UserLog): Promise<void> {
  return orDiskFailure('Cannot sync the file', () => log.sync());
}

/** Runs a call whose failure makes the store fail. */
export async function orDiskFailure(reason: string, call: () => void | Promise<void>): Promise<void> {
  try {
    await call();
  } catch (cause) {
    throw new DiskFailure(reason, { cause });
  }
}

/** A process that was killed after it had put a compacted file in place may not have written its durable offset. */
function isCompactionOf({ header, inode }: UserLog, current: UserLog, offset: DurableOffset | undefined): boolean {
  const { compactedFrom } = header;
  if (offset?.inode === inode && offset.seed === header.seed) return true;
  return compactedFrom !== undefined && (compactedFrom === offset?.seed || compactedFrom === current.header.seed);
}

/** States the durable offset to every process that reads the file. */
export function writeDurableOffset({ durable }: StorePaths, { inode, header }: UserLog, end: number, nextId: number): void {
  durable.write({ boot: bootId, inode, seed: header.seed, end, nextId });
}

/** The file of a store that never existed. A file that is lost is not made anew. */
async function makeUsersFile({ fs, path, temporary, now }: StorePaths, current: UserLog | undefined): Promise<void> {
  if (current !== undefined) throw new RegistrarError('unavailable', `"${path}" was removed underneath`);
  const lock = `${basename(path)}.lock`;
  const traces = fs.list(dirname(path)).filter((other) => other.startsWith(`${basename(path)}.`) && other !== lock);
  if (fs.stat(join(dirname(path), lock, 'durable')) !== undefined) traces.push(lock);
  if (traces.length > 0) {
    const way = `restore it with "registrar restore BACKUP", or remove ${traces.join(', ')} to begin anew`;
    throw new RegistrarError('cannot-start', `Cannot open "${path}": it is gone, and it was here before: ${way}`);
  }
  const header = { version: formatVersion, created: now().toISOString(), nextId: 1, seed: randomBytes(4).readUInt32LE() };
  await writeDurableFile(path, [encodeHeader(header)], { isNew: true, temporary, calls: fs });
}

async function terminate(paths: StorePaths, log: UserLog, line: Buffer): Promise<void> {
  const whole = Buffer.concat([line, Buffer.from('\n')]);
  await log.write(whole);
  await sync(log);
  const { id } = JSON.parse(line.toString('utf8')) as { readonly id: number };
  writeDurableOffset(paths, log, log.end + whole.length, Math.max(log.nextId, id + 1));
  log.append(whole);
  paths.report(`"${paths.path}" ended without a newline: it was added`);
}

/** Copies what is behind the log's end to `<file>.torn-<time>`, durably. */
async function quarantineTail({ fs, path, now, report }: StorePaths, log: UserLog): Promise<void> {
  const bytes = log.bytes(log.end, log.size);
  try {
    const copy = await writeQuarantine(fs, `${path}.torn-${timeForName(now())}`, bytes);
    const why = 'by a crash, or by a copy made while it was going on';
    report(`"${path}" ended in a write that was cut off, ${why}: its ${bytes.length} bytes are now "${copy}"`);
  } catch (cause) {
    if (!noRoom(cause)) throw cause;
    throw new RegistrarError('storage-full', 'There is no room to quarantine a torn tail: the store is read-only', { cause });
  }
}

/** Writes the bytes under the first free name: two tails may be quarantined in one millisecond, or by a clock that stands still. */
async function writeQuarantine(fs: FileSystem, path: string, bytes: Buffer): Promise<string> {
  for (let n = 1; ; n++) {
    const name = n === 1 ? path : `${path}-${n}`;
    if (await writeDurableFile(name, [bytes], { isNew: true, calls: fs })) return name;
  }
}

/** As in 20261123T090000.000Z. */
export function timeForName(time: Date): string {
  return time.toISOString().replaceAll(/[-:]/g, '');
}
