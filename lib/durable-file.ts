/**
 * Writes a file durably: complete under a temporary name, readable by its owner alone, fdatasync, then rename(2) or
 * link(2) to its name, then fsync of the directory. After a crash the file is complete, or as it was before.
 * It takes no lock: of two processes that replace one file, the later one wins.
 */

import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { dirname } from 'node:path';
import { systemCode } from './errors.ts';

/** The system calls that it makes, so that a test can record them and let each one fail. */
export interface DurableFileCalls {
  open(path: string, flags: 'wx+', mode?: number): number;
  close(fd: number): void;
  /** May write less than requested, without an error. */
  write(fd: number, from: Uint8Array, offset: number, length: number, position: number): Promise<number>;
  datasync(fd: number): Promise<void>;
  /** Makes the entries of a directory durable. */
  syncDirectory(path: string): Promise<void>;
  link(existing: string, path: string): void;
  rename(from: string, to: string): void;
  /** A path that does not exist is no error. */
  unlink(path: string): void;
}

export interface DurableFileOptions {
  /** The file must not exist: the result is false if it does, and nothing is changed. */
  readonly isNew?: boolean;
  /** On the same file system as the file. */
  readonly temporary?: string;
  /** Runs on the complete temporary file. If it rejects, the file stays as it was. */
  readonly beforeRename?: (temporary: string) => Promise<void>;
  readonly calls?: DurableFileCalls;
}

const ownerOnly = 0o600;

export const nodeDurableFileCalls = {
  open: (path: string, flags: string, mode = ownerOnly) => fs.openSync(path, flags, mode),
  close: (fd: number) => fs.closeSync(fd),
  write: (fd: number, from: Uint8Array, offset: number, length: number, position: number) =>
    promisify<number>((done) => fs.write(fd, from, offset, length, position, done)),
  datasync: (fd: number) => promisify<void>((done) => fs.fdatasync(fd, done)),
  syncDirectory: async (path: string) => {
    const fd = fs.openSync(path, 'r');
    try {
      await promisify<void>((done) => fs.fsync(fd, done));
    } finally {
      fs.closeSync(fd);
    }
  },
  link: (existing: string, path: string) => fs.linkSync(existing, path),
  rename: (from: string, to: string) => fs.renameSync(from, to),
  unlink: (path: string) => {
    try {
      fs.unlinkSync(path);
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error;
    }
  },
} satisfies DurableFileCalls;

/**
 * Creates or replaces the file. Returns false only with `isNew`, if the file exists already. Rejects with the error of
 * the system call, of `chunks` or of `beforeRename`, after it has removed the temporary file.
 */
export async function writeDurableFile(
  path: string,
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  options: DurableFileOptions = {},
): Promise<boolean> {
  const { isNew = false, calls = nodeDurableFileCalls, beforeRename } = options;
  const temporary = options.temporary ?? `${path}.${randomBytes(8).toString('hex')}.tmp`;
  const fd = calls.open(temporary, 'wx+', ownerOnly);
  try {
    try {
      let position = 0;
      for await (const bytes of chunks) {
        await writeAll(calls, fd, bytes, position);
        position += bytes.length;
      }
      await calls.datasync(fd);
    } finally {
      calls.close(fd);
    }
    await beforeRename?.(temporary);
    if (isNew) calls.link(temporary, path);
    else calls.rename(temporary, path);
    await calls.syncDirectory(dirname(path));
    return true;
  } catch (error) {
    if (isNew && systemCode(error) === 'EEXIST') return false;
    throw error;
  } finally {
    calls.unlink(temporary);
  }
}

/** Writes all bytes at `position`, in as many calls as it takes. */
export async function writeAll(calls: Pick<DurableFileCalls, 'write'>, fd: number, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const written = await calls.write(fd, bytes, done, bytes.length - done, position + done);
    if (written === 0) throw Object.assign(new Error('write(2) returned 0'), { code: 'EIO' });
    done += written;
  }
}

/** The asynchronous calls of `node:fs` as promises, without the FileHandle of `node:fs/promises`, which costs a call more. */
export function promisify<T>(call: (done: (error: Error | null, value?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    call((error, value) => (error === null ? resolve(value as T) : reject(error)));
  });
}
