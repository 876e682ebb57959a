/**
 * The calls of the file system that the store makes, as one value, so that a test can record them, make
 * the n-th one fail, or play a crash. What can wait for a disk (write, sync) does not block the event
 * loop; what is answered from the page cache (a positioned read, a link, a stat) is synchronous, since a
 * trip to a thread and back costs ten times the call.
 */

import fs from 'node:fs';
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

export interface FileSystem {
  open(path: string, flags: 'r' | 'r+' | 'wx+', mode?: number): number;
  close(fd: number): void;
  /** May read less than asked for; 0 at the end. */
  read(fd: number, into: Buffer, offset: number, length: number, position: number): number;
  /** May write less than asked for, without an error. */
  write(fd: number, from: Buffer, offset: number, length: number, position: number): Promise<number>;
  /** For the few bytes of the durable mark, which are overwritten in place. */
  writeNow(fd: number, from: Buffer, position: number): number;
  datasync(fd: number): Promise<void>;
  truncate(fd: number, bytes: number): Promise<void>;
  /** Makes the entries of a directory durable. */
  syncDirectory(path: string): Promise<void>;
  statFd(fd: number): FileStatus;
  /** Undefined if there is nothing at the path. */
  stat(path: string): FileStatus | undefined;
  /** Undefined if there is nothing at the path, or no symbolic link. */
  readLink(path: string): string | undefined;
  symlink(target: string, path: string): void;
  link(existing: string, path: string): void;
  rename(from: string, to: string): void;
  /** Nothing at the path is fine. */
  unlink(path: string): void;
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

function settle<T>(call: (done: (error: Error | null, value?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    call((error, value) => (error === null ? resolve(value as T) : reject(error)));
  });
}

export const nodeFileSystem: FileSystem = {
  open: (path, flags, mode = 0o600) => fs.openSync(path, flags, mode),
  close: (fd) => fs.closeSync(fd),
  read: (fd, into, offset, length, position) => fs.readSync(fd, into, offset, length, position),
  write: (fd, from, offset, length, position) =>
    settle<number>((done) => fs.write(fd, from, offset, length, position, done)),
  writeNow: (fd, from, position) => fs.writeSync(fd, from, 0, from.length, position),
  datasync: (fd) => settle<void>((done) => fs.fdatasync(fd, done)),
  truncate: (fd, bytes) => settle<void>((done) => fs.ftruncate(fd, bytes, done)),
  syncDirectory: async (path) => {
    const fd = fs.openSync(path, 'r');
    try {
      await settle<void>((done) => fs.fsync(fd, done));
    } finally {
      fs.closeSync(fd);
    }
  },
  statFd: (fd) => status(fs.fstatSync(fd)),
  stat: (path) => {
    const stats = fs.statSync(path, { throwIfNoEntry: false });
    return stats === undefined ? undefined : status(stats);
  },
  readLink: (path) => unlessMissing(() => fs.readlinkSync(path), 'EINVAL'),
  symlink: (target, path) => fs.symlinkSync(target, path),
  link: (existing, path) => fs.linkSync(existing, path),
  rename: (from, to) => fs.renameSync(from, to),
  unlink: (path) => void unlessMissing(() => fs.unlinkSync(path)),
  list: (directory) => fs.readdirSync(directory),
  makeDirectory: (path, mode) => void fs.mkdirSync(path, { recursive: true, mode }),
};
