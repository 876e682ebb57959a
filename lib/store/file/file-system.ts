/**
 * The calls of the file system that the store makes, as one value, so that a test can record them, make the n-th one
 * fail, or play a crash. What waits for a disk (a sync, the writes of a compaction) runs in a thread. What the page cache
 * answers (a read, a link, a stat, the few bytes of a batch) is synchronous: a thread and back costs ten times the call.
 */

import fs from 'node:fs';
import { nodeDurableFileCalls, promisify } from '../../durable-file.ts';
import type { DurableFileCalls } from '../../durable-file.ts';
import { systemCode } from '../../errors.ts';

export interface FileStatus {
  readonly device: number;
  readonly inode: number;
  readonly bytes: number;
  /** Names of the file; 0 when it was removed while it is open. */
  readonly links: number;
  readonly owner: number;
  readonly modifiedMs: number;
  readonly isFile: boolean;
  readonly isDirectory: boolean;
}

export interface LinkStatus {
  readonly isLink: boolean;
  readonly modifiedMs: number;
}

export interface FileSystem extends DurableFileCalls {
  open(path: string, flags: 'r' | 'r+' | 'wx+', mode?: number): number;
  /** May read less than requested; 0 at the end. */
  read(fd: number, into: Buffer, offset: number, length: number, position: number): number;
  /** For a batch at the end of the file, which is synced next; may write less than requested, without an error. */
  append(fd: number, from: Buffer, position: number): number;
  /** For the few bytes of the durable offset, which are overwritten in place. */
  writeNow(fd: number, from: Buffer, position: number): number;
  truncate(fd: number, bytes: number): Promise<void>;
  /** `syncDirectory` with a descriptor that is open. */
  syncOpenDirectory(fd: number): Promise<void>;
  statFd(fd: number): FileStatus;
  /** The mount that a file was opened on; undefined where the system does not tell. */
  mountId(fd: number): string | undefined;
  /** Undefined if there is nothing at the path. */
  stat(path: string): FileStatus | undefined;
  /** Undefined if there is nothing at the path, or no symbolic link. */
  readLink(path: string): string | undefined;
  /** Of what is at the path itself, without following a link. */
  linkStatus(path: string): LinkStatus | undefined;
  symlink(target: string, path: string): void;
  list(directory: string): string[];
  makeDirectory(path: string, mode: number): void;
}

function status(stats: fs.Stats): FileStatus {
  return {
    device: stats.dev,
    inode: stats.ino,
    bytes: stats.size,
    links: stats.nlink,
    owner: stats.uid,
    modifiedMs: stats.mtimeMs,
    isFile: stats.isFile(),
    isDirectory: stats.isDirectory(),
  };
}

function unlessMissing<T>(call: () => T, ...alsoCodes: readonly string[]): T | undefined {
  try {
    return call();
  } catch (error) {
    const code = systemCode(error) ?? '';
    if (code === 'ENOENT' || alsoCodes.includes(code)) return undefined;
    throw error;
  }
}

export const nodeFileSystem: FileSystem = {
  ...nodeDurableFileCalls,
  read: (fd, into, offset, length, position) => fs.readSync(fd, into, offset, length, position),
  append: (fd, from, position) => fs.writeSync(fd, from, 0, from.length, position),
  writeNow: (fd, from, position) => fs.writeSync(fd, from, 0, from.length, position),
  truncate: (fd, bytes) => promisify<void>((done) => fs.ftruncate(fd, bytes, done)),
  syncOpenDirectory: (fd) => promisify<void>((done) => fs.fsync(fd, done)),
  mountId: (fd) => /mnt_id:\s*(\d+)/.exec(unlessMissing(() => fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1')) ?? '')?.[1],
  statFd: (fd) => status(fs.fstatSync(fd)),
  stat: (path) => {
    const stats = fs.statSync(path, { throwIfNoEntry: false });
    return stats === undefined ? undefined : status(stats);
  },
  readLink: (path) => unlessMissing(() => fs.readlinkSync(path), 'EINVAL'),
  linkStatus: (path) => {
    const stats = fs.lstatSync(path, { throwIfNoEntry: false });
    return stats && { isLink: stats.isSymbolicLink(), modifiedMs: stats.mtimeMs };
  },
  symlink: (target, path) => fs.symlinkSync(target, path),
  list: (directory) => fs.readdirSync(directory),
  makeDirectory: (path, mode) => void fs.mkdirSync(path, { recursive: true, mode }),
};
