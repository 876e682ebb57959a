/**
 * Puts a backup in the place of a users file: a copy of one, or an export. The backup is read and verified completely
 * before anything is changed, and the present file is kept beside it. Every process that has joined the lock is refused.
 */

import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { RegistrarError, hasCode } from '../../errors.ts';
import { FileLock } from './file-lock.ts';
import type { FileSystem } from './file-system.ts';
import { inspect } from './inspect.ts';
import { lockDirectoryOf } from './lock-directory.ts';
import { idsUnknown, recover } from './recover.ts';
import type { Recovery } from './recover.ts';
import { examine, replaceUsersFile } from './repair.ts';

export interface Backup {
  readonly kind: 'copy' | 'export';
  readonly recovery: Recovery;
}

/** Rejects with `corrupt` if it is neither a sound copy of a users file nor a complete export. */
export async function readBackup(fs: FileSystem, path: string): Promise<Backup> {
  const recovery = recover(fs, path, { takesUnverified: true });
  if (recovery.hasHeader) {
    // A copy that was made while a service wrote may end in a torn line, which was not acknowledged.
    const { damage } = await inspect(fs, path);
    if (damage === undefined && recovery.unverified === 0) return { kind: 'copy', recovery };
    const line = damage === undefined ? 'a line without a valid checksum' : `damage in line ${damage.line}`;
    const way = 'Copy it to DIR/users.jsonl and run "registrar repair --data DIR" first.';
    throw new RegistrarError('corrupt', `Cannot restore "${path}": it has ${line}. Nothing was changed. ${way}`);
  }
  // The first loss is the header, which an export does not have.
  if (recovery.losses.length === 1 && recovery.unverified === recovery.users.size) return { kind: 'export', recovery };
  const reason = 'it is neither a copy of a users file nor an export';
  throw new RegistrarError('corrupt', `Cannot restore "${path}": ${reason}. Nothing was changed.`);
}

export interface RestoreOptions {
  readonly fs: FileSystem;
  readonly path: string;
  readonly lockWaitMsMax: number;
  readonly now: Date;
  /** Runs under the lock when nothing but the replacement is left to do. If it rejects, the file stays. */
  readonly beforeReplace: () => Promise<void>;
}

/** Resolves with the path under which the present file is kept. Rejects with `busy` while another process has it open. */
export async function restore(options: RestoreOptions, { recovery }: Backup): Promise<string | undefined> {
  const { fs, path, lockWaitMsMax } = options;
  const directory = lockDirectoryOf(path);
  fs.makeDirectory(directory, 0o700);
  const lock = await FileLock.join({ fs, directory, onWaiter: () => undefined });
  let kept: string | undefined;
  try {
    if (await lock.hasPeers()) {
      const way = `Stop every service on "${dirname(path)}" first.`;
      throw new RegistrarError('busy', `Cannot restore "${path}": a service or a command has it open. ${way}`);
    }
    await lock.acquire(lockWaitMsMax);
    const nextId = await nextIdAfter(fs, path, recovery);
    await options.beforeReplace();
    const temporary = join(directory, `.new-${lock.identity}`);
    kept = await replaceUsersFile(options, { ...recovery, nextId }, { temporary, suffix: 'replaced' });
  } finally {
    await lock.leave();
  }
  rmSync(directory, { recursive: true, force: true });
  return kept;
}

/** Above the ids of the backup, and above those that were given since. */
async function nextIdAfter(fs: FileSystem, path: string, { nextIdSeen }: Recovery): Promise<number> {
  if (fs.stat(path) === undefined) return nextIdSeen + idsUnknown;
  try {
    return Math.max(nextIdSeen, (await examine(fs, path)).recovery.nextId);
  } catch (error) {
    if (hasCode(error, 'corrupt')) return nextIdSeen + idsUnknown;
    throw error;
  }
}
