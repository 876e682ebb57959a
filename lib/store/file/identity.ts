/**
 * Who a process is, in a name that is never used twice:
 *
 *   <boot id, 8>-<pid namespace>-<pid>-<start time>-<16 random bytes, hex>
 *
 * Only the random part makes it unique; the rest lets a person find the process, and lets another process
 * tell that it is gone in the rare cases that its beacon cannot tell.
 */

import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';

/** The same for all processes of this machine until it is started anew, in every namespace. */
export const bootId: string = readBootId();

const pidNamespace = readOr('0', () => /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0]);

export function newIdentity(): string {
  const start = startTime(process.pid) ?? '0';
  return [bootId.slice(0, 8), pidNamespace, process.pid, start, randomBytes(16).toString('hex')].join('-');
}

export function pidOf(identity: string): string {
  return identity.split('-')[2] ?? 'unknown';
}

/** True if the process is surely gone, by what its name says. False means that this does not tell. */
export function isGone(identity: string): boolean {
  const [boot, namespace, pid, start] = identity.split('-');
  if (boot !== bootId.slice(0, 8)) return true;
  if (namespace !== pidNamespace || pid === undefined) return false;
  if (process.platform === 'linux') return startTime(Number(pid)) !== start;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ESRCH';
  }
}

/** Field 22 of /proc/<pid>/stat, counted from behind the command's name, which may hold anything. */
function startTime(pid: number): string | undefined {
  return readOr(undefined, () => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  });
}

function readBootId(): string {
  if (process.platform === 'darwin') {
    return execFileSync('/usr/sbin/sysctl', ['-n', 'kern.bootsessionuuid'], { encoding: 'latin1' }).trim().toLowerCase();
  }
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

function readOr<T>(otherwise: T, read: () => T | undefined): T {
  try {
    return read() ?? otherwise;
  } catch (error) {
    // No such process, or a system without /proc.
    if (error instanceof Error && 'code' in error) return otherwise;
    throw error;
  }
}
