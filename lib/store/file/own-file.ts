/**
 * The file must be the only one of its kind: its lock is beside its path, and protects nothing that another path, a link
 * or a mount leads to.
 */

import { basename, dirname, join } from 'node:path';
import { RegistrarError } from '../../errors.ts';
import type { FileStatus, FileSystem } from './file-system.ts';
import { UserLog } from './user-log.ts';

/** Throws `cannot-start` where the lock beside the path would not protect the file, and `corrupt` without a header. */
export function assertOwnFile(fs: FileSystem, path: string, directoryFd: number): void {
  if (fs.readLink(path) !== undefined) {
    const remedy = 'Name the directory that contains the file itself with --data.';
    throw new RegistrarError('cannot-start', `Cannot open "${path}": it is a symbolic link, and the lock is beside it. ${remedy}`);
  }
  if (fs.stat(path) === undefined) return;
  const log = UserLog.open(fs, path);
  const isMounted = log.mountId !== fs.mountId(directoryFd);
  log.close();
  if (!isMounted) return;
  const remedy = 'Mount its directory instead.';
  throw new RegistrarError('cannot-start', `Cannot open "${path}": it is a mount of its own, which another directory may share. ${remedy}`);
}

/** Throws if the file has a second name, which may be in a directory with another lock. An interrupted repair's does not count. */
export function assertSingleLink(fs: FileSystem, path: string, { links, inode }: FileStatus, code: 'cannot-start' | 'unavailable'): void {
  if (links === 1) return;
  const isQuarantined = (name: string): boolean =>
    name.startsWith(`${basename(path)}.damaged-`) && fs.stat(join(dirname(path), name))?.inode === inode;
  if (links === 1 + fs.list(dirname(path)).filter(isQuarantined).length) return;
  const reason = `it has ${links} names (hard links), and each may be written to under a lock of its own`;
  throw new RegistrarError(code, `Cannot use "${path}": ${reason}. Remove all but one.`);
}

/** Why the file at the path is not the one that this process has open, as it left it; undefined if it is. */
export function replacement(path: string, status: FileStatus | undefined, log: UserLog): string | undefined {
  if (status?.inode !== log.inode || status.device !== log.device) return `"${path}" was removed or replaced while it was in use`;
  if (status.bytes !== log.end) return `"${path}" was written to by another program: its length has changed`;
  return undefined;
}
