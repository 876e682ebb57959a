/**
 * Who takes part in the lock of a directory, in a name that is never used twice:
 *
 *   <boot id, 8>-<pid namespace>-<pid>-<start time>-<directory>-<8 random bytes, hex>
 *
 * Only the random part makes it unique; the rest lets a person find the process, and lets another process
 * tell that it is gone in the rare cases that its beacon cannot tell. It is below 60 bytes: so much ext4
 * keeps of a symbolic link without a block of its own, which a full disk would not have.
 */

import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { systemCode } from '../../errors.ts';

/** The same for all processes of this machine until it is started anew, in every namespace. */
export const bootId: string = readBootId();

const pidNamespace = Number(unlessMissing(() => /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0]) ?? 0);

/** @param directoryInode of the lock directory. */
export function newIdentity(directoryInode: number): string {
  const start = startTime(process.pid) ?? 0;
  const parts = [bootId.slice(0, 8), pidNamespace.toString(36), process.pid, start.toString(36), placeOf(directoryInode)];
  return [...parts, randomBytes(8).toString('hex')].join('-');
}

export function pidOf(identity: string): string {
  return identity.split('-')[2] ?? 'unknown';
}

/**
 * True if there is surely no such process that takes part in this directory, by what its name says. False
 * means that this does not tell.
 */
export function isGone(identity: string, directoryInode: number): boolean {
  const [boot, namespace, pid, start, place] = identity.split('-');
  // A lock that came here with a copied directory is nobody's.
  if (boot !== bootId.slice(0, 8) || place !== placeOf(directoryInode)) return true;
  if (namespace !== pidNamespace.toString(36)) return false;
  try {
    if (process.platform === 'linux') return startTime(Number(pid))?.toString(36) !== start;
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    if (systemCode(error) === 'ESRCH') return true;
    if (systemCode(error) === undefined) throw error;
    return false;
  }
}

function placeOf(inode: number): string {
  return (inode % 36 ** 4).toString(36);
}

/** Field 22 of /proc/<pid>/stat, counted from behind the command's name, which may hold anything. */
function startTime(pid: number): number | undefined {
  return unlessMissing(() => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  });
}

function readBootId(): string {
  if (process.platform === 'darwin') {
    return execFileSync('/usr/sbin/sysctl', ['-n', 'kern.bootsessionuuid'], { encoding: 'latin1' }).trim().toLowerCase();
  }
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

/** Undefined where there is no such process, or no /proc. */
function unlessMissing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ESRCH') return undefined;
    throw error;
  }
}
