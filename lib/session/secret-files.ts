/**
 * Secrets as files of a directory: 0600, ours, whole or not there. A first one is decided by link(2), so that of
 * many processes exactly one makes it; a replacement under a lock file that is broken after ten seconds, which is
 * for commands that people give and not for every request. What others can read is refused, not used.
 */

import { randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, fsyncSync, linkSync, openSync } from 'node:fs';
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { RegistrarError, messageOf, systemCode } from '../errors.ts';
import type { SecretStore } from './secret-store.ts';

/** A key of any kind has less, and nobody may fill our memory with a file. */
const bytesMax = 65_536;
/** The lock is held for a few writes; who has it longer has died with it. */
const lockStaleMs = 10_000;
const lockWaitMsMax = 15_000;
const lockPollMs = 10;

export class SecretFiles implements SecretStore {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  get(name: string): string | undefined {
    return readSecretFile(join(this.#directory, name));
  }

  async putIfAbsent(name: string, value: string): Promise<boolean> {
    return createSecretFile(join(this.#directory, name), value);
  }

  async replace(name: string, expected: string | undefined, value: string): Promise<boolean> {
    const path = join(this.#directory, name);
    const unlock = await lock(join(this.#directory, `.${name}.lock`));
    try {
      if (readSecretFile(path) !== expected) return false;
      const temporary = writeTemporary(path, value);
      renameSync(temporary, path);
      syncDirectory(path);
      return true;
    } finally {
      unlock();
    }
  }
}

/**
 * The text of a secret file; undefined if there is none. Throws `cannot-start` if it is not a file of ours alone,
 * is empty, or cannot be read, with what to do.
 */
export function readSecretFile(path: string): string | undefined {
  let fd: number;
  try {
    // Not waiting for a writer, should it be a pipe.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return undefined;
    throw refusal(path, `it cannot be opened (${systemCode(cause) ?? messageOf(cause)})`, cause);
  }
  try {
    const { mode, uid, size } = fstatSync(fd);
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw refusal(path, 'it is no file');
    const own = process.getuid?.() ?? uid;
    if (uid !== own) throw refusal(path, `it belongs to uid ${uid}, and this is uid ${own}: chown ${own} ${path}`);
    if ((mode & 0o077) !== 0) throw refusal(path, `others may read it: chmod 600 ${path}, and put a new one there if they may have`);
    if (size > bytesMax) throw refusal(path, 'it is far too large for a secret');
    const text = readFileSync(fd, 'utf8');
    if (text.trim() === '') throw refusal(path, 'it is empty');
    return text;
  } catch (cause) {
    throw cause instanceof RegistrarError ? cause : refusal(path, messageOf(cause), cause);
  } finally {
    closeSync(fd);
  }
}

/** Makes the file, whole and on the disk, if there is none; false if there is. */
export function createSecretFile(path: string, value: string): boolean {
  const temporary = writeTemporary(path, value);
  try {
    linkSync(temporary, path);
  } catch (cause) {
    if (systemCode(cause) === 'EEXIST') return false;
    throw cause;
  } finally {
    rmSync(temporary, { force: true });
  }
  syncDirectory(path);
  return true;
}

function writeTemporary(path: string, value: string): string {
  const temporary = `${path}.${randomBytes(8).toString('hex')}.tmp`;
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    writeFileSync(fd, value);
    fsyncSync(fd);
    return temporary;
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
}

function syncDirectory(path: string): void {
  const fd = openSync(dirname(path), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** @returns what lets go of it. */
async function lock(path: string): Promise<() => void> {
  for (const deadline = performance.now() + lockWaitMsMax; ; ) {
    try {
      closeSync(openSync(path, 'wx', 0o600));
      return () => rmSync(path, { force: true });
    } catch (cause) {
      if (systemCode(cause) !== 'EEXIST') throw cause;
    }
    breakStale(path);
    if (performance.now() > deadline) {
      throw new RegistrarError('busy', `Cannot change a secret: another process keeps "${path}"; remove it if none is at work`);
    }
    await sleep(lockPollMs);
  }
}

function breakStale(path: string): void {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined || Math.abs(Date.now() - found.mtimeMs) < lockStaleMs) return;
  const aside = `${path}.${randomBytes(8).toString('hex')}.tmp`;
  try {
    // Of two who break it one moves it away; the other finds none, or, at worst, a new one.
    renameSync(path, aside);
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw cause;
  }
  rmSync(aside, { force: true });
}

function refusal(path: string, reason: string, cause?: unknown): RegistrarError {
  return new RegistrarError('cannot-start', `Cannot use the secret "${path}": ${reason}`, { cause });
}
