/**
 * Secrets as files of the data directory. They belong to the service's user and are closed to others; its group may have
 * access (Kubernetes fsGroup). A replacement is compare-and-set under a lock file, which is for commands and not for
 * requests. Files that a `…_FILE` variable names are not read here.
 */

import { closeSync, constants, fstatSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeDurableFile } from '../durable-file.ts';
import { RegistrarError, messageOf, systemCode } from '../errors.ts';
import type { SecretStore } from './secret-store.ts';

/** Bounds the memory that a file can take; no secret is as long. */
const bytesMax = 65_536;
/** The lock is held for a few writes: an older one is that of a process that died. */
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

  async replace(name: string, expected: string | undefined, value: string): Promise<boolean> {
    const path = join(this.#directory, name);
    const lock = join(this.#directory, `.${name}.lock`);
    await acquire(lock);
    try {
      return readSecretFile(path) === expected && (await writeDurableFile(path, [Buffer.from(value)]));
    } finally {
      rmSync(lock, { force: true });
    }
  }
}

/** The text of a secret file; undefined if there is none. Throws `cannot-start` with the remedy if the file is not safe. */
export function readSecretFile(path: string): string | undefined {
  let fd: number;
  try {
    // O_NONBLOCK: opening a pipe must not wait for its writer.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return undefined;
    throw refusal(path, `it cannot be opened (${systemCode(cause) ?? messageOf(cause)}).`, cause);
  }
  try {
    const { mode, uid, size } = fstatSync(fd);
    const own = process.getuid?.() ?? uid;
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw refusal(path, 'it is not a regular file.');
    if (uid !== own) throw refusal(path, `it belongs to uid ${uid}, and the service runs as uid ${own}. Run "chown ${own} ${path}".`);
    if ((mode & 0o007) !== 0) {
      throw refusal(path, `others can access it. Run "chmod o= ${path}", and replace the secret if others may have read it.`);
    }
    if (size > bytesMax) throw refusal(path, `it has more than ${bytesMax} bytes.`);
    const text = readFileSync(fd, 'utf8');
    if (text.trim() === '') throw refusal(path, 'it is empty.');
    return text;
  } catch (cause) {
    throw cause instanceof RegistrarError ? cause : refusal(path, `${messageOf(cause)}.`, cause);
  } finally {
    closeSync(fd);
  }
}

async function acquire(lock: string): Promise<void> {
  for (const deadline = performance.now() + lockWaitMsMax; ; await sleep(lockPollMs)) {
    if (await writeDurableFile(lock, [], { isNew: true })) return;
    const found = statSync(lock, { throwIfNoEntry: false });
    if (found !== undefined && Math.abs(Date.now() - found.mtimeMs) > lockStaleMs) rmSync(lock, { force: true });
    if (performance.now() > deadline) {
      throw new RegistrarError('busy', `Cannot change a secret: another process holds "${lock}". Remove the file if none is running.`);
    }
  }
}

function refusal(path: string, reason: string, cause?: unknown): RegistrarError {
  return new RegistrarError('cannot-start', `Cannot use the secret "${path}": ${reason}`, { cause });
}
