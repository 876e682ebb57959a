/** Writes the file that an operator names: durably, through a symbolic link, with errors that name the file and the reason. */

import { lstat, realpath, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { writeDurableFile } from '../durable-file.ts';
import { RegistrarError, messageOf, noRoom, systemCode } from '../errors.ts';

/** Resolves with the bytes that it has. Rejects with `storage-full` or `cannot-start`, and has left nothing then. */
export async function writeWholeFile(path: string, chunks: AsyncIterable<Buffer>, signal?: AbortSignal): Promise<number> {
  let bytes = 0;
  async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      signal?.throwIfAborted();
      bytes += chunk.length;
      yield chunk;
    }
  }
  try {
    await writeDurableFile(await targetOf(path), counted());
  } catch (error) {
    refuse(path, error);
  }
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
