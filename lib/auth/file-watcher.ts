/**
 * Notices that files were changed, replaced or removed: the certificate, the admin token. It compares what stat(2) tells
 * when it is asked, once a second at most, so a process that was suspended does not act on an old answer. It does not
 * read the files.
 */

import { statSync } from 'node:fs';
import { messageOf, systemCode } from '../errors.ts';
import { secretFreshMs } from './secret-store.ts';

export class FileWatcher {
  readonly #paths: readonly string[];
  readonly #now: () => number;
  readonly #freshMs: number;
  #seen: string;
  #lookedAt: number;

  /** The files as they are now are known. @param now a monotonic clock, in milliseconds. */
  constructor(paths: readonly string[], now: () => number = () => performance.now(), freshMs = secretFreshMs) {
    this.#paths = paths;
    this.#now = now;
    this.#freshMs = freshMs;
    this.#seen = this.#look();
    this.#lookedAt = now();
  }

  /** Whether one of the files is another one than at the last call that returned true. */
  hasChanged(): boolean {
    const now = this.#now();
    if (now - this.#lookedAt < this.#freshMs) return false;
    this.#lookedAt = now;
    const found = this.#look();
    if (found === this.#seen) return false;
    this.#seen = found;
    return true;
  }

  #look(): string {
    return this.#paths.map(stateOf).join('; ');
  }
}

function stateOf(path: string): string {
  try {
    const { dev, ino, mode, uid, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return [dev, ino, mode, uid, size, mtimeNs, ctimeNs].join(' ');
  } catch (error) {
    return systemCode(error) ?? messageOf(error);
  }
}
