/**
 * Writes a new users file with what can be recovered of a damaged one, and keeps the old one beside it. Services may
 * have the file open. What is written was read under the lock: if it is not what the operator agreed to, the operator
 * is asked again, so that no write of a service is lost in between.
 */

import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { writeDurableFile } from '../../durable-file.ts';
import { RegistrarError, hasCode, messageOf, systemCode } from '../../errors.ts';
import { timeForName } from './crash-recovery.ts';
import { DurableOffsetFile, readDurableOffset } from './durable-offset.ts';
import { FileLock } from './file-lock.ts';
import type { FileSystem } from './file-system.ts';
import { bootId } from './identity.ts';
import { inspect } from './inspect.ts';
import { lockDirectoryOf } from './lock-directory.ts';
import { UserLog, corruption } from './user-log.ts';
import { encodeHeader, formatVersion, sealRecord } from './record.ts';
import { recover } from './recover.ts';
import type { Recovery } from './recover.ts';

const pageBytes = 1 << 18;

/** What `repair` would write; `reason` is undefined if the file is not damaged. */
export interface Examination {
  readonly reason: string | undefined;
  readonly recovery: Recovery;
}

/** Reads a file without the lock, and without a change. */
export async function examine(fs: FileSystem, path: string, takesUnverified = false): Promise<Examination> {
  const reason = await reasonOf(fs, path);
  return { reason, recovery: recover(fs, path, { durable: readDurableOffset(fs, path), takesUnverified }) };
}

async function reasonOf(fs: FileSystem, path: string): Promise<string | undefined> {
  try {
    const { damage } = await inspect(fs, path);
    return damage === undefined ? undefined : corruption(path, damage).message;
  } catch (error) {
    if (systemCode(error) === 'EIO') return `Cannot read "${path}": the disk failed to read some of it (EIO).`;
    if (hasCode(error, 'corrupt')) return error.message;
    throw error;
  }
}

export interface RepairOptions {
  readonly fs: FileSystem;
  readonly path: string;
  readonly lockWaitMsMax: number;
  readonly now: Date;
  readonly takesUnverified: boolean;
  /** Rejects if the operator does not agree. It is called again if the file has changed since. */
  readonly confirm: (reason: string, recovery: Recovery) => Promise<void>;
}

export interface Repaired {
  readonly users: number;
  /** The path of the damaged file. */
  readonly quarantine: string;
}

/** Undefined if the file is not damaged. Rejects with `busy` if the lock is held, `corrupt` if the new file does not read back. */
export async function repair(options: RepairOptions): Promise<Repaired | undefined> {
  const { fs, path, lockWaitMsMax, takesUnverified, confirm } = options;
  for (;;) {
    const { reason, recovery } = await examine(fs, path, takesUnverified);
    if (reason === undefined) return undefined;
    await confirm(reason, recovery);
    const directory = lockDirectoryOf(path);
    fs.makeDirectory(directory, 0o700);
    const lock = await FileLock.join({ fs, directory, onWaiter: () => undefined });
    try {
      await lock.acquire(lockWaitMsMax);
      const current = await examine(fs, path, takesUnverified);
      if (current.reason === undefined) return undefined;
      if (isSame(current.recovery, recovery)) {
        const temporary = join(directory, `.new-${lock.identity}`);
        const quarantine = await replaceUsersFile(options, current.recovery, { temporary, suffix: 'damaged' });
        return { users: current.recovery.users.size, quarantine: quarantine ?? '' };
      }
    } finally {
      await lock.leave();
    }
  }
}

/** Whether the same is lost. More users than the operator saw are no loss. */
function isSame(current: Recovery, shown: Recovery): boolean {
  return current.losses.join('\n') === shown.losses.join('\n') && current.unverified === shown.unverified;
}

interface Replacement {
  readonly temporary: string;
  /** Of the name under which the old file is kept. */
  readonly suffix: 'damaged' | 'replaced';
}

/**
 * Puts a new file with these users in the place of the old one, durably. The caller holds the lock.
 * Returns the path under which the old file is kept; undefined if there was none.
 */
export async function replaceUsersFile(
  { fs, path, now }: Pick<RepairOptions, 'fs' | 'path' | 'now'>,
  recovery: Pick<Recovery, 'users' | 'nextId'>,
  { temporary, suffix }: Replacement,
): Promise<string | undefined> {
  let quarantine: string | undefined;
  const seed = randomBytes(4).readUInt32LE();
  await writeDurableFile(path, lines(recovery, seed, now), {
    temporary,
    calls: fs,
    beforeRename: async () => {
      const log = UserLog.open(fs, path, { at: temporary });
      try {
        const damage = await log.advance(log.size);
        if (damage !== undefined) throw corruption(path, damage);
        const isSame = log.index.size === recovery.users.size;
        if (!isSame) throw new RegistrarError('corrupt', `"${temporary}" does not contain what was written.`);
      } finally {
        log.close();
      }
      if (fs.stat(path) === undefined) return;
      quarantine = linkToFreeName(fs, path, `${path}.${suffix}-${timeForName(now)}`);
      await fs.syncDirectory(dirname(path));
    },
  });
  const { inode, bytes: end } = fs.stat(path)!;
  const durable = new DurableOffsetFile(fs, path);
  try {
    durable.write({ boot: bootId, inode, seed, end, nextId: recovery.nextId });
  } catch (cause) {
    const detail = `"${path}" was written anew, and the old file is "${quarantine}"; but the durable offset could not be written`;
    throw new RegistrarError('unavailable', `${detail} (${messageOf(cause)}). Restart every service.`, { cause });
  } finally {
    durable.close();
  }
  return quarantine;
}

/** The file in the order of ids, each user in a batch of its own. */
function* lines({ users, nextId }: Pick<Recovery, 'users' | 'nextId'>, seed: number, now: Date): Generator<Buffer> {
  let page = [encodeHeader({ version: formatVersion, created: now.toISOString(), nextId, seed })];
  let [offset, bytes] = [page[0]!.length, page[0]!.length];
  for (const id of Float64Array.from(users.keys()).sort()) {
    const line = sealRecord(users.get(id)!.record ?? '', offset, seed);
    page.push(line);
    offset += line.length;
    bytes += line.length;
    if (bytes < pageBytes) continue;
    yield Buffer.concat(page);
    [page, bytes] = [[], 0];
  }
  yield Buffer.concat(page);
}

/** A second repair in one millisecond, or with a clock that stands still, finds the name taken. */
function linkToFreeName(fs: FileSystem, path: string, name: string): string {
  for (let n = 1; ; n++) {
    const free = n === 1 ? name : `${name}-${n}`;
    try {
      fs.link(path, free);
      return free;
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw error;
    }
  }
}
