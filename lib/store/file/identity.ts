/**
 * The identity of a process in the lock of one directory, never used twice:
 *
 *   <boot id, 8>-<pid namespace>-<pid>-<start time>-<directory tag>-<8 random bytes, hex>
 *
 * The random part alone makes it unique. The rest names the process to the operator, and proves that it has ended where
 * its liveness socket is missing. It is shorter than 60 bytes: ext4 keeps such a symbolic link in the inode, so that a
 * full disk has room for it.
 */

import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { systemCode } from '../../errors.ts';
import type { FileStatus } from './file-system.ts';

/** The same for all processes of this machine until it restarts, in every namespace. Empty without /proc. */
export const bootId: string = readBootId();

const pidNamespace = Number(unlessMissing(() => /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0]) ?? 0);

/** Tells the lock directory from a copy of it: an identically made volume has the same inode numbers on another device. */
export function directoryTag({ device, inode }: Pick<FileStatus, 'device' | 'inode'>): string {
  return ((inode + device * 7919) % 36 ** 4).toString(36);
}

export function newIdentity(tag: string): string {
  const start = startTime(process.pid) ?? 0;
  const parts = [bootId.slice(0, 8), pidNamespace.toString(36), process.pid, start.toString(36), tag];
  return [...parts, randomBytes(8).toString('hex')].join('-');
}

export function pidOf(identity: string): string {
  return identity.split('-')[2] ?? 'unknown';
}

/** Whether the identity proves that its process has ended or uses another directory. False if it does not tell. */
export function isGone(identity: string, tag: string): boolean {
  const [boot, namespace, pid, start, itsTag] = identity.split('-');
  // The lock came with a copied directory.
  if (boot !== bootId.slice(0, 8) || itsTag !== tag) return true;
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

/** Field 22 of /proc/<pid>/stat, counted from behind the name of the command, which may contain anything. */
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
  return unlessMissing(() => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()) ?? '';
}

/** Undefined if there is no such process, or no /proc. */
function unlessMissing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ESRCH') return undefined;
    throw error;
  }
}
