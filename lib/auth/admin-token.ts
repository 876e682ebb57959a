/**
 * The admin token decides the mode of the service. It comes from the configuration, or from a file that is watched. Once
 * there is a token the service stays in authenticated mode until it ends: with a file that is removed, emptied, weak or
 * open to others no request is authenticated as the administrator's.
 */

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import { RegistrarError, messageOf } from '../errors.ts';
import { FileWatcher } from './file-watcher.ts';
import { markAuthenticated } from './mode.ts';
import { SecretFiles, readSecretFile } from './secret-files.ts';

export interface AdminTokenOptions {
  /** The token of the configuration; the file is not read then. */
  readonly configured: string | undefined;
  readonly path: string;
  readonly report: (line: string) => void;
  /** The service has left unauthenticated mode since a token has appeared. */
  readonly onSet?: () => void;
  /** A monotonic clock, in milliseconds. */
  readonly now?: () => number;
}

/** In the data directory. */
export const adminTokenName = 'admin-token';
/** 16 characters are 96 bits in base64. A shorter text was chosen by a person, and can be guessed. */
const tokenPattern = /^[\x21-\x7e]{16,}$/;
const tokenBytes = 32;

export interface AdminTokenMade {
  readonly value: string;
  readonly path: string;
  readonly isNew: boolean;
}

/** The token of a data directory, created if there is none, or if `isNew`. A service accepts it within a second. */
export async function makeAdminToken(directory: string, { isNew = false } = {}): Promise<AdminTokenMade> {
  const secrets = new SecretFiles(directory);
  const path = join(directory, adminTokenName);
  for (;;) {
    const value = secrets.get(adminTokenName);
    if (value !== undefined && !isNew) return { value: checkSecretToken(value, `"${path}"`), path, isNew: false };
    const made = randomBytes(tokenBytes).toString('base64url');
    await markAuthenticated(directory);
    if (await secrets.replace(adminTokenName, value, `${made}\n`)) return { value: made, path, isNew: true };
  }
}

/** Throws `cannot-start` for a token that is empty, weak, or cannot stand in a header. `where` names its source. */
export function checkSecretToken(text: string, where: string): string {
  const token = text.replace(/\r?\n$/, '');
  if (tokenPattern.test(token)) return token;
  const rule = '16 visible ASCII characters or more. Run "registrar token --new"';
  throw new RegistrarError('cannot-start', `${where} has to have ${rule}.`);
}

export class AdminToken {
  readonly #options: AdminTokenOptions;
  readonly #watcher: FileWatcher | undefined;
  #isSet = false;
  #secret: SecretToken | undefined;

  /** Throws `cannot-start` if there is a token that cannot be used. */
  constructor(options: AdminTokenOptions) {
    const { configured, path, now } = options;
    this.#options = options;
    if (configured === undefined) this.#watcher = new FileWatcher([path], now);
    const token = configured === undefined ? this.#read() : checkSecretToken(configured, 'The admin token');
    if (token !== undefined) this.#accept(token);
  }

  /** Whether the service is in authenticated mode. Costs one stat(2) a second. */
  isSet(): boolean {
    if (this.#watcher?.hasChanged() === true) this.#reload();
    return this.#isSet;
  }

  /** In constant time for every candidate of the token's length. */
  matches(candidate: string): boolean {
    return this.isSet() && this.#secret?.matches(candidate) === true;
  }

  #reload(): void {
    const { path, report } = this.#options;
    const wasSet = this.#isSet;
    try {
      const token = this.#read();
      if (token !== undefined) {
        this.#accept(token);
        report(`The admin token was read from "${path}".`);
      } else if (wasSet) {
        throw new RegistrarError('cannot-start', `The admin token "${path}" was removed.`);
      }
    } catch (error) {
      // A file that cannot be used was meant to end unauthenticated mode as well.
      this.#isSet = true;
      this.#secret = undefined;
      report(`${messageOf(error)} Authenticated mode goes on, without an administrator. Run "registrar token --new".`);
    }
    if (!wasSet && this.#isSet) this.#options.onSet?.();
  }

  #read(): string | undefined {
    const { path } = this.#options;
    const text = readSecretFile(path);
    return text === undefined ? undefined : checkSecretToken(text, `"${path}"`);
  }

  #accept(token: string): void {
    this.#isSet = true;
    this.#secret = new SecretToken(token);
  }
}

/** A secret that is compared in constant time, and not kept as text. */
export class SecretToken {
  readonly #digest: Buffer;
  readonly #length: number;

  constructor(token: string) {
    this.#digest = sha256(token);
    this.#length = token.length;
  }

  matches(candidate: string): boolean {
    // Session tokens are longer, and need not be hashed.
    return candidate.length === this.#length && timingSafeEqual(this.#digest, sha256(candidate));
  }
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}
