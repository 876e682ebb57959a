/**
 * The admin token and the metrics token come from the configuration, or from a file that is watched. The admin token decides the
 * mode of the service: once there is one, the service stays in authenticated mode until it ends. While a file is removed,
 * emptied, weak or open to others, no request is authenticated by its token.
 */

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import { RegistrarError, messageOf } from '../errors.ts';
import { FileWatcher } from './file-watcher.ts';
import { markAuthenticated } from './mode.ts';
import { SecretFiles, readSecretFile } from './secret-files.ts';

export type TokenName = 'admin' | 'metrics';

export interface StaticTokenOptions {
  readonly name: TokenName;
  /** The token of the configuration; the file is not read then. */
  readonly configured: string | undefined;
  /** The data directory, in which the token's file is. */
  readonly directory: string;
  readonly report: (line: string) => void;
  /** A token has appeared. */
  readonly onSet?: () => void;
  /** A monotonic clock, in milliseconds. */
  readonly now?: () => number;
}

/** The name of its file in the data directory. */
const tokenFile = (name: TokenName): string => `${name}-token`;
/** 16 characters are 96 bits in base64. A shorter text was chosen by a person, and can be guessed. */
const tokenPattern = /^[\x21-\x7e]{16,}$/;
const tokenBytes = 32;

export interface MadeToken {
  readonly value: string;
  readonly path: string;
  readonly isNew: boolean;
}

/** The token of a data directory, created if there is none, or if `isNew`. A service accepts it within a second. */
export async function makeToken(directory: string, name: TokenName, { isNew = false } = {}): Promise<MadeToken> {
  const secrets = new SecretFiles(directory);
  const path = join(directory, tokenFile(name));
  for (;;) {
    const value = secrets.get(tokenFile(name));
    if (value !== undefined && !isNew) return { value: checkToken(value, name, `"${path}"`), path, isNew: false };
    const made = randomBytes(tokenBytes).toString('base64url');
    if (name === 'admin') await markAuthenticated(directory);
    if (await secrets.replace(tokenFile(name), value, `${made}\n`)) return { value: made, path, isNew: true };
  }
}

/** Throws `cannot-start` for a token that is empty, weak, or cannot stand in a header. `where` names its source. */
function checkToken(text: string, name: TokenName, where: string): string {
  const token = text.replace(/\r?\n$/, '');
  if (tokenPattern.test(token)) return token;
  throw new RegistrarError('cannot-start', `${where} has to have 16 visible ASCII characters or more. Run "${remedies[name]}".`);
}

const remedies = { admin: 'registrar token --new', metrics: 'registrar token --metrics --new' } as const;
const consequences = {
  admin: 'Authenticated mode goes on, without an administrator.', metrics: 'Only the admin token opens /metrics.',
} as const;

export class StaticToken {
  readonly #options: StaticTokenOptions;
  readonly #path: string;
  readonly #watcher: FileWatcher | undefined;
  #isSet = false;
  #secret: SecretToken | undefined;

  /** Throws `cannot-start` if there is a token that cannot be used. */
  constructor(options: StaticTokenOptions) {
    const { name, configured, directory, now } = options;
    this.#options = options;
    this.#path = join(directory, tokenFile(name));
    if (configured === undefined) this.#watcher = new FileWatcher([this.#path], now);
    const token = configured === undefined ? this.#read() : checkToken(configured, name, `The ${name} token`);
    if (token !== undefined) this.#accept(token);
  }

  /** Whether there is or was a token. Costs one stat(2) a second. */
  isSet(): boolean {
    if (this.#watcher?.hasChanged() === true) this.#reload();
    return this.#isSet;
  }

  /** In constant time for every candidate of the token's length. */
  matches(candidate: string): boolean {
    return this.isSet() && this.#secret?.matches(candidate) === true;
  }

  #reload(): void {
    const { name, report } = this.#options;
    const wasSet = this.#isSet;
    try {
      const token = this.#read();
      if (token !== undefined) {
        this.#accept(token);
        report(`The ${name} token was read from "${this.#path}".`);
      } else if (wasSet) {
        throw new RegistrarError('cannot-start', `The ${name} token "${this.#path}" was removed.`);
      }
    } catch (error) {
      // An admin token that cannot be used was meant to end unauthenticated mode as well.
      this.#isSet = true;
      this.#secret = undefined;
      report(`${messageOf(error)} ${consequences[name]} Run "${remedies[name]}".`);
    }
    if (!wasSet && this.#isSet) this.#options.onSet?.();
  }

  #read(): string | undefined {
    const text = readSecretFile(this.#path);
    return text === undefined ? undefined : checkToken(text, this.#options.name, `"${this.#path}"`);
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
