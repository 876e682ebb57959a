/**
 * What must be true of the data directory before anything in it is touched: it is ours, it is writable,
 * and it is on a file system of this machine. The lock asks the kernel whether a process is alive, and
 * two kernels that share a directory (NFS, SMB, a virtual machine's shared folder) do not know of each other.
 */

import { accessSync, closeSync, constants, fsyncSync, mkdirSync, openSync, readFileSync, statSync, statfsSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { RegistrarError, messageOf, systemCode } from '../../errors.ts';

/** statfs(2) f_type of file systems that one kernel alone writes to. */
const localTypes: ReadonlyMap<number, string> = new Map([
  [0xef53, 'ext'], [0x58465342, 'xfs'], [0x9123683e, 'btrfs'], [0x01021994, 'tmpfs'], [0x794c7630, 'overlay'],
  [0xf2f52010, 'f2fs'], [0x2fc12fc1, 'zfs'], [0xca451a4e, 'bcachefs'], [0x3153464a, 'jfs'], [0x858458f6, 'ramfs'],
]);

const sharedTypes: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'], [0x517b, 'SMB'], [0xff534d42, 'CIFS'], [0xfe534d42, 'SMB2'], [0x01021997, '9p'],
  [0x65735546, 'FUSE'], [0x6a656a63, 'virtiofs'], [0x00c36400, 'Ceph'], [0x5346414f, 'AFS'], [0x786f4256, 'vboxsf'],
]);

/** What the machine says, so that a test can say otherwise. */
export interface Surroundings {
  readonly uid: number;
  readonly fileSystemType: (path: string) => number;
}

export const surroundings: Surroundings = {
  uid: process.getuid?.() ?? 0,
  fileSystemType: (path) => statfsSync(path).type,
};

/** Checks the directory, or, if there is none, where it would be made. Throws as `prepareDirectory` does; it changes nothing. */
export function checkDirectory(path: string, { uid, fileSystemType }: Surroundings = surroundings): void {
  const present = existing(resolve(path));
  const { isDirectory, owner, mode } = present.stats;
  if (!isDirectory) throw refusal(path, 'it is not a directory');
  // Volumes of Kubernetes (fsGroup) belong to root and are writable by the group of the service.
  if (owner !== uid && !(owner === 0 && (mode & constants.S_IWGRP) !== 0)) {
    const name = userName(owner);
    throw refusal(path, `it belongs to ${name}, not to you: start it as its owner, with sudo -u ${name} …`);
  }
  const type = process.platform === 'linux' ? fileSystemType(present.path) : 0xef53;
  if (!localTypes.has(type)) {
    const kind = sharedTypes.get(type) ?? `of type 0x${type.toString(16)}`;
    throw refusal(
      path,
      `its file system (${kind}) is not known to be local to this machine, so its lock would not hold; use a ` +
        'local disk (bind mounts of Docker Desktop are not local: use a named volume)',
    );
  }
  try {
    accessSync(present.path, constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw notWritable(path, cause);
  }
  if (present.path !== resolve(path)) return;
  if ((mode & constants.S_IWOTH) !== 0) throw refusal(path, `others can write to it. Run: chmod o-w "${path}"`);
  const problem = openToOthers(join(path, 'users.jsonl'));
  if (problem !== undefined) throw refusal(path, problem);
}

/** What is wrong with a file that others can read or write, with the remedy; undefined if they cannot, or there is none. */
export function openToOthers(path: string): string | undefined {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined || (stats.mode & constants.S_IRWXO) === 0) return undefined;
  return `others can read or write "${path}", which contains password hashes. Run: chmod o-rwx "${path}"`;
}

/** The error for a file that a command only reads. */
export function cannotRead(path: string, cause: unknown): unknown {
  const code = systemCode(cause);
  if (code === undefined || cause instanceof RegistrarError) return cause;
  const owner = code === 'EACCES' ? existing(path).stats.owner : undefined;
  const name = owner === undefined ? undefined : userName(owner);
  const way = name === undefined ? '' : `. Run the command as its owner, with sudo -u ${name}`;
  return new RegistrarError('cannot-start', `Cannot read "${path}" (${code})${way}.`, { cause });
}

/**
 * Makes the directory if there is none and checks it. Returns its absolute path.
 * Throws `cannot-start` with what to do; nothing has been changed then.
 */
export function prepareDirectory(path: string, machine: Surroundings = surroundings): string {
  checkDirectory(path, machine);
  const directory = resolve(path);
  const present = existing(directory);
  try {
    if (present.path !== directory) makeDurably(directory, present.path);
  } catch (cause) {
    throw notWritable(path, cause);
  }
  return directory;
}

/** Makes the directory and those above it that are missing, and makes their names durable. */
function makeDurably(directory: string, present: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  for (let made = directory; made !== present; made = dirname(made)) {
    try {
      const fd = openSync(dirname(made), 'r');
      fsyncSync(fd);
      closeSync(fd);
    } catch (error) {
      // One that may be passed through and not be read cannot be synced by us either.
      if (systemCode(error) !== 'EACCES') throw error;
    }
  }
}

interface Existing {
  readonly path: string;
  readonly stats: { readonly isDirectory: boolean; readonly owner: number; readonly mode: number };
}

/** The directory, or the nearest one above it that is there. */
function existing(path: string): Existing {
  let stats: Stats | undefined;
  try {
    stats = statSync(path, { throwIfNoEntry: false });
  } catch (cause) {
    throw refusal(path, `it cannot be looked at (${systemCode(cause) ?? messageOf(cause)})`, cause);
  }
  if (stats !== undefined) return { path, stats: { isDirectory: stats.isDirectory(), owner: stats.uid, mode: stats.mode } };
  const above = existing(dirname(path));
  // A process that may write to the one above may create this one, and owns it then.
  return { path: above.path, stats: { ...above.stats, owner: process.getuid?.() ?? 0 } };
}

function notWritable(path: string, cause: unknown): RegistrarError {
  return refusal(path, `it is not writable (${systemCode(cause) ?? messageOf(cause)})`, cause);
}

function refusal(path: string, reason: string, cause?: unknown): RegistrarError {
  return new RegistrarError('cannot-start', `Cannot use the data directory "${path}": ${reason}`, { cause });
}

/** The name of a user id as sudo takes it: `#1000` where the system has no name for it. */
function userName(uid: number): string {
  try {
    for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
      const [name, , id] = line.split(':');
      if (name !== undefined && id === String(uid)) return name;
    }
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
  }
  return `'#${uid}'`;
}
