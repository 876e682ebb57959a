/**
 * The administrator's token: whether there is one decides who is let in at all. It comes from the variable, or from
 * a file that is looked at each second. Once there is a token there is one until the process ends: a file that is
 * removed, emptied, or opened to others lets nobody in as administrator, and does not open the service.
 */

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { statSync } from 'node:fs';
import { RegistrarError, messageOf } from '../errors.ts';
import { createSecretFile, readSecretFile } from './secret-files.ts';

export interface AdminTokenOptions {
  /** The variable; the file is not looked at then. */
  readonly env: string | undefined;
  readonly path: string;
  readonly report: (line: string) => void;
  /** Milliseconds that never go back. */
  readonly now?: () => number;
}

const stays = 'the service stays closed, and nobody is let in as administrator until a good one is there';
/** In the data directory. */
export const adminTokenName = 'admin-token';

const freshMs = 1000;
const tokenBytes = 32;

export function newAdminToken(): string {
  return randomBytes(tokenBytes).toString('base64url');
}

export class AdminToken {
  readonly #options: AdminTokenOptions;
  readonly #now: () => number;
  /** SHA-256 of the token that lets in; undefined while none does. */
  #digest: Buffer | undefined;
  #isSet = false;
  #lookedAt = -Infinity;
  /** What the file was like when it was read, as far as `stat` tells; undefined to read it again. */
  #seen: string | undefined;
  #problem: string | undefined;

  private constructor(options: AdminTokenOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /** Throws `cannot-start` if there is a token that cannot be used. */
  static open(options: AdminTokenOptions): AdminToken {
    const made = new AdminToken(options);
    if (options.env === undefined) {
      made.#read();
      return made;
    }
    const token = options.env.trim();
    if (token === '') {
      const way = 'give it a token, or unset it';
      throw new RegistrarError('cannot-start', `Cannot use the administrator's token: REGISTRAR_ADMIN_TOKEN is set and empty; ${way}`);
    }
    made.#accept(token);
    return made;
  }

  /** Whether the service is closed to those who cannot prove themselves. Costs a `stat` a second. */
  isSet(): boolean {
    this.#look();
    return this.#isSet;
  }

  /** Takes the same time whatever the candidate has in common with the token. */
  matches(candidate: string): boolean {
    this.#look();
    return this.#digest !== undefined && timingSafeEqual(this.#digest, sha256(candidate));
  }

  /** Makes the file with a new token, which closes the service. Throws `cannot-start` if there is one. */
  async make(): Promise<string> {
    const { path } = this.#options;
    const token = newAdminToken();
    if (!createSecretFile(path, `${token}\n`)) {
      throw new RegistrarError('cannot-start', `Cannot make the administrator's token: there is one in "${path}"; remove that first`);
    }
    this.#lookedAt = -Infinity;
    this.#look();
    return token;
  }

  #look(): void {
    if (this.#options.env !== undefined) return;
    const now = this.#now();
    if (now - this.#lookedAt < freshMs) return;
    this.#lookedAt = now;
    try {
      const seen = this.#stat();
      if (seen === this.#seen && this.#problem === undefined) return;
      this.#read();
      this.#seen = seen;
    } catch (error) {
      // Whoever has put something there meant to close the service, if it was not closed before.
      this.#fail(messageOf(error));
    }
  }

  /** Throws if there is something that cannot be used. */
  #read(): void {
    const text = readSecretFile(this.#options.path);
    if (text !== undefined) this.#accept(text.trim());
    else if (this.#isSet) this.#fail(`The administrator's token "${this.#options.path}" is gone`);
  }

  #accept(token: string): void {
    const digest = sha256(token);
    const isNew = this.#digest === undefined || !digest.equals(this.#digest);
    if (isNew && this.#lookedAt !== -Infinity) this.#options.report(`The administrator's token was read from "${this.#options.path}"`);
    this.#digest = digest;
    this.#isSet = true;
    this.#problem = undefined;
  }

  #fail(problem: string): void {
    this.#digest = undefined;
    this.#isSet = true;
    if (problem !== this.#problem) this.#options.report(`${problem}: ${stays}`);
    this.#problem = problem;
  }

  #stat(): string {
    const found = statSync(this.#options.path, { bigint: true, throwIfNoEntry: false });
    if (found === undefined) return 'none';
    const { dev, ino, size, mtimeNs, ctimeNs } = found;
    return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
  }
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}
