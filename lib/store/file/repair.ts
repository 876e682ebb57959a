/**
 * Looking after a file by hand: `check` reads every line and changes nothing; `repair` writes a new file
 * with all that can be saved and keeps the old one beside it. Both work while others have the file open.
 */

import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { RegistrarError, messageOf, systemCode } from '../../errors.ts';
import type { FileSystem } from './file-system.ts';
import { bootId } from './identity.ts';
import { FileLock } from './lock.ts';
import { UserLog, corruption, writeAll } from './log.ts';
import type { Damage } from './log.ts';
import { DurableMark } from './mark.ts';
import { encodeHeader, formatVersion, lineBytesMax, relocateLine } from './record.ts';
import { assertTorn } from './recover.ts';
import { salvage } from './salvage.ts';
import type { Salvage } from './salvage.ts';
import { isOf } from './settle.ts';

export interface CheckResult {
  readonly bytes: number;
  /** The header included. */
  readonly lines: number;
  readonly users: number;
  /** Lines that say nothing any more: earlier states, and removals. */
  readonly deadLines: number;
  readonly batches: number;
  /** Bytes behind the last good line, of a write that is going on or was cut off. */
  readonly unfinishedBytes: number;
  /** Why the file would not be opened. */
  readonly damage: Damage | undefined;
}

/** Why the file would not be opened, and what could be saved; the first is undefined where all is well. */
export interface Survey {
  readonly reason: string | undefined;
  readonly salvage: Salvage;
}

export interface RepairOptions {
  readonly fs: FileSystem;
  readonly path: string;
  readonly lockWaitMsMax: number;
  readonly now: Date;
}

const pieceBytes = 1 << 18;

/** Reads every line. Throws `corrupt` if it is no users' file of this format at all. */
export async function check(fs: FileSystem, path: string): Promise<CheckResult> {
  const mark = new DurableMark(fs, join(`${path}.lock`, 'durable'));
  const log = UserLog.open(fs, path);
  try {
    const { size } = log;
    const last = mark.read();
    const durable = last !== undefined && last.boot === bootId && isOf(last, log) ? last.end : undefined;
    const damage = durable !== undefined && durable > size
      ? { offset: size, line: log.lineCount, reason: `is the last one, though ${durable} bytes were durable` }
      : judged(log, await log.advance(durable ?? size), durable);
    const { lineCount: lines, index, batches, end } = log;
    const facts = { bytes: size, lines, users: index.size, deadLines: lines - 1 - index.size, batches };
    return { ...facts, unfinishedBytes: damage === undefined ? size - end : 0, damage };
  } finally {
    log.close();
    mark.close();
  }
}

/** What `repair` would do. Throws `corrupt` if nothing can be. */
export async function survey(fs: FileSystem, path: string): Promise<Survey> {
  let reason: string | undefined;
  try {
    const { damage } = await check(fs, path);
    if (damage !== undefined) reason = corruption(path, damage).message;
  } catch (error) {
    if (systemCode(error) === 'EIO') reason = `Cannot read "${path}": the disk does not give some of it (EIO)`;
    else if (error instanceof RegistrarError && error.code === 'corrupt') reason = error.message;
    else throw error;
  }
  return { reason, salvage: salvage(fs, path) };
}

/** A bad line is damage unless it is the torn tail. */
function judged(log: UserLog, damage: Damage | undefined, durable: number | undefined): Damage | undefined {
  if (damage === undefined) return undefined;
  try {
    assertTorn(log, damage, durable);
    return undefined;
  } catch (error) {
    if (error instanceof RegistrarError && error.code === 'corrupt') return damage;
    throw error;
  }
}

/**
 * Writes what `expected` says can be saved in the place of the file, durably. Returns the path under which
 * the old one is kept. Throws `busy` if the lock cannot be had, or the file has changed since `expected`
 * was read; `corrupt` if what was written does not read back.
 */
export async function repair({ fs, path, lockWaitMsMax, now }: RepairOptions, expected: Salvage): Promise<string> {
  const directory = `${path}.lock`;
  fs.makeDirectory(directory, 0o700);
  const lock = await FileLock.join({ fs, directory, onWanted: () => undefined });
  const temporary = join(directory, `.new-${lock.identity}`);
  const aside = `${path}.damaged-${now.toISOString().replaceAll(/[-:]/g, '')}`;
  try {
    await lock.acquire(lockWaitMsMax);
    if (!isSame(salvage(fs, path), expected)) throw changed(path);
    const end = await write(fs, path, temporary, expected, now);
    const log = UserLog.open(fs, path, { at: temporary });
    try {
      const damage = await log.advance(end);
      if (damage !== undefined) throw corruption(path, damage);
      if (log.index.size !== expected.users.size) throw new RegistrarError('corrupt', `"${temporary}" does not say what was written`);
      fs.link(path, aside);
      await fs.syncDirectory(dirname(path));
      fs.rename(temporary, path);
      await fs.syncDirectory(dirname(path));
      const mark = new DurableMark(fs, join(directory, 'durable'));
      try {
        mark.write({ boot: bootId, inode: log.inode, seed: log.header.seed, end });
      } catch (cause) {
        const detail = `"${path}" was repaired, and the old file is "${aside}"; but the durable mark could not be written`;
        throw new RegistrarError('unavailable', `${detail} (${messageOf(cause)}): start everything anew`, { cause });
      } finally {
        mark.close();
      }
    } finally {
      log.close();
    }
    return aside;
  } catch (error) {
    fs.unlink(temporary);
    throw error;
  } finally {
    await lock.leave();
  }
}

/** The file of what can be saved, in the order of ids. Returns its length. */
async function write(fs: FileSystem, path: string, temporary: string, { users, nextId }: Salvage, now: Date): Promise<number> {
  const ids = Float64Array.from(users.keys()).sort();
  const newSeed = randomBytes(4).readUInt32LE();
  const header = encodeHeader({ version: formatVersion, created: now.toISOString(), nextId, seed: newSeed });
  const source = fs.open(path, 'r');
  const target = fs.open(temporary, 'wx+');
  try {
    await writeAll(fs, target, header, 0);
    const [line, piece] = [Buffer.alloc(lineBytesMax), Buffer.alloc(pieceBytes)];
    let [end, length] = [header.length, 0];
    for (const id of ids) {
      const { offset, bytes } = users.get(id)!;
      if (fs.read(source, line, 0, bytes, offset) !== bytes) throw changed(path);
      length += relocateLine(line, 0, bytes, piece, length, end + length, newSeed);
      if (length < piece.length - lineBytesMax) continue;
      await writeAll(fs, target, piece.subarray(0, length), end);
      [end, length] = [end + length, 0];
    }
    await writeAll(fs, target, piece.subarray(0, length), end);
    await fs.datasync(target);
    return end + length;
  } finally {
    fs.close(source);
    fs.close(target);
  }
}

function isSame(a: Salvage, b: Salvage): boolean {
  return a.users.size === b.users.size && a.nextId === b.nextId && a.seed === b.seed && a.lost.length === b.lost.length;
}

function changed(path: string): RegistrarError {
  return new RegistrarError('busy', `"${path}" was changed meanwhile: look again`);
}
