/**
 * Writes a file that is there whole or not at all: under a temporary name beside it, for the owner alone, synced,
 * renamed, and the directory synced. What was under the name before stays until then.
 */

import { randomBytes } from 'node:crypto';
import { lstat, open, realpath, rename, stat, unlink } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { RegistrarError, messageOf, noRoom, systemCode } from '../errors.ts';

/** Resolves with the bytes that it has. Rejects with `storage-full` or `cannot-start`, and has left nothing then. */
export async function writeWholeFile(path: string, chunks: AsyncIterable<Buffer>, signal?: AbortSignal): Promise<number> {
  const target = await targetOf(path).catch((error: unknown) => refuse(path, error));
  const temporary = `${target}.part-${randomBytes(4).toString('hex')}`;
  const file = await open(temporary, 'wx', 0o600).catch((error: unknown) => refuse(path, error));
  let bytes = 0;
  try {
    try {
      for await (const chunk of chunks) {
        signal?.throwIfAborted();
        await file.writeFile(chunk);
        bytes += chunk.length;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, target);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    refuse(path, error);
  }
  const directory = await open(dirname(target), 'r').catch((error: unknown) => refuse(path, error));
  await directory.sync().finally(() => directory.close());
  return bytes;
}

/** What would be replaced. A link is followed: it is not made a file. */
async function targetOf(path: string): Promise<string> {
  const link = await lstat(path).catch((error: unknown) => {
    if (systemCode(error) !== 'ENOENT') throw error;
  });
  if (link === undefined) return resolve(path);
  if (!(await stat(path)).isFile()) throw new RegistrarError('cannot-start', `Cannot write "${path}": it is there, and is no file`);
  return realpath(path);
}

function refuse(path: string, error: unknown): never {
  if (error instanceof RegistrarError || (error instanceof Error && error.name === 'AbortError')) throw error;
  const isFull = noRoom(error);
  const reason = isFull ? 'there is no room for it' : messageOf(error);
  const detail = `Cannot write "${path}": ${reason}; nothing is left of it`;
  throw new RegistrarError(isFull ? 'storage-full' : 'cannot-start', detail, { cause: error });
}
