/**
 * The formats of password hashes; pure.
 *
 *   kdf       pbkdf2:<digest>:<iterations>       pbkdf2:sha256:600000
 *   password  <salt>$<hash>                      32 hex characters, then the hash in hex
 *
 * The salt's ASCII bytes, not the bytes that they spell, are the salt of RFC 8018. So `kdf + "$" + password`
 * is a Werkzeug hash string, and one line of Python checks it. The hash is as long as the digest.
 */

import { RegistrarError } from '../errors.ts';

export type Digest = 'sha256' | 'sha384' | 'sha512';

export interface Kdf {
  readonly digest: Digest;
  readonly iterations: number;
}

export const digestBytes: Readonly<Record<Digest, number>> = { sha256: 32, sha384: 48, sha512: 64 };

/** OWASP Password Storage Cheat Sheet, March 2026; SHA-384 does the work of SHA-512. */
const iterationsAdvised: Readonly<Record<Digest, number>> = { sha256: 600_000, sha384: 220_000, sha512: 220_000 };

/** Some 2 s on a core: a dearer hash would hold every other request up. */
export const iterationsMax = 10_000_000;

export const saltCharacters = 32;

const pattern = /^pbkdf2:(sha256|sha384|sha512):([1-9][0-9]{0,8})$/;

/** Reads a `kdf`; undefined if it is none, or dearer than `iterationsMax`. */
export function parseKdf(text: string): Kdf | undefined {
  const match = pattern.exec(text);
  if (match === null) return undefined;
  const iterations = Number(match[2]);
  if (iterations > iterationsMax) return undefined;
  return { digest: match[1] as Digest, iterations };
}

export function formatKdf(kdf: Kdf): string {
  return `pbkdf2:${kdf.digest}:${kdf.iterations}`;
}

/** What OWASP advises for this digest, if `kdf` stays below it. */
export function weakness(kdf: Kdf): number | undefined {
  const advised = iterationsAdvised[kdf.digest];
  return kdf.iterations < advised ? advised : undefined;
}

export interface StoredHash extends Kdf {
  readonly salt: string;
  readonly hash: Buffer;
}

/** Reads a credential from the store. Throws `corrupt` on anything that this file did not write. */
export function parseCredential(kdf: string, password: string): StoredHash {
  const parsed = parseKdf(kdf);
  const cut = password.indexOf('$');
  const salt = password.slice(0, Math.max(cut, 0));
  const hash = Buffer.from(password.slice(cut + 1), 'hex');
  if (parsed === undefined || salt === '' || hash.length !== digestBytes[parsed.digest]) {
    throw new RegistrarError('corrupt', `Cannot check a password: the stored kdf "${kdf}" or its hash is not known`);
  }
  return { ...parsed, salt, hash };
}

export function formatPassword(salt: string, hash: Uint8Array): string {
  return `${salt}$${Buffer.from(hash).toString('hex')}`;
}
