/**
 * The formats of password hashes; pure.
 *
 *   kdf       pbkdf2:<digest>:<iterations>       pbkdf2:sha256:600000
 *   password  <salt>$<hash>                      32 hex characters, then the hash in hex
 *
 * The salt's ASCII bytes, not the bytes that they spell, are the salt of RFC 8018. So `kdf + "$" + password`
 * is a Werkzeug hash string, and one line of Python checks it. The hash is as long as the digest. A kdf with
 * a fourth part, `pbkdf2:sha256:29000:hex`, is of a hash from elsewhere, whose salt may be any bytes: there
 * the salt is the bytes that its hex spells. None is made here.
 */

import { RegistrarError } from '../errors.ts';
import type { Credential } from '../user.ts';

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
const hexMark = ':hex';

/** A salt of more is nobody's: it only has to fit into a line. */
export const saltBytesMax = 256;

/** Reads a `kdf`; undefined if it is none, or dearer than `iterationsMax`. */
export function parseKdf(text: string): Kdf | undefined {
  const match = pattern.exec(text);
  if (match === null) return undefined;
  const iterations = Number(match[2]);
  if (iterations > iterationsMax) return undefined;
  return { digest: match[1] as Digest, iterations };
}

export interface StoredKdf extends Kdf {
  /** The salt is written as the hex of its bytes, and not as it is. */
  readonly isSaltHex: boolean;
}

/** Reads the `kdf` of a stored hash, which may be from elsewhere; undefined as in `parseKdf`. */
export function parseStoredKdf(text: string): StoredKdf | undefined {
  const isSaltHex = text.endsWith(hexMark);
  const kdf = parseKdf(isSaltHex ? text.slice(0, -hexMark.length) : text);
  return kdf && { ...kdf, isSaltHex };
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
  readonly salt: Uint8Array;
  readonly hash: Uint8Array;
}

/** Reads a credential from the store. Throws `corrupt` on anything that this file did not write. */
export function parseCredential(kdf: string, password: string): StoredHash {
  const parsed = parseStoredKdf(kdf);
  if (parsed === undefined || credentialProblem(parsed, password) !== undefined) {
    throw new RegistrarError('corrupt', `Cannot check a password: the stored kdf "${kdf}" or its hash is not known`);
  }
  const { digest, iterations, isSaltHex } = parsed;
  const cut = password.indexOf('$');
  // Their own bytes: of views into Node's pool the whole pool would be copied to the worker.
  const salt = new Uint8Array(Buffer.from(password.slice(0, cut), isSaltHex ? 'hex' : 'latin1'));
  return { digest, iterations, salt, hash: new Uint8Array(Buffer.from(password.slice(cut + 1), 'hex')) };
}

/** What keeps `salt$hash` from being kept as the hash of this kdf; undefined if it can be. Nothing of it is repeated. */
export function credentialProblem({ digest, isSaltHex }: StoredKdf, password: string): string | undefined {
  const cut = password.indexOf('$');
  if (cut < 0) return 'The hash has no "$" between salt and hash';
  const salt = password.slice(0, cut);
  if (isSaltHex ? !hexBytes.test(salt) : !plainText.test(salt)) {
    return isSaltHex ? 'The salt is not lower-case hex' : 'The salt is empty, or is no plain ASCII text: it can be given as hex';
  }
  if (salt.length > saltBytesMax * (isSaltHex ? 2 : 1)) return `The salt is longer than ${saltBytesMax} bytes`;
  const bytes = digestBytes[digest];
  const hash = password.slice(cut + 1);
  if (!hexBytes.test(hash)) return 'The hash is not lower-case hex';
  return hash.length === 2 * bytes ? undefined : `The hash has ${hash.length / 2} bytes: one by ${digest} has ${bytes}`;
}

const hexBytes = /^(?:[0-9a-f]{2})+$/;
/** What needs no escaping in JSON, and is no separator of ours. */
const plainText = /^[ !#%-[\]-~]+$/;

/** Makes a credential of a hash from elsewhere: of a salt that is plain text a hash like our own, of another one in hex. */
export function foreignCredential(kdf: Kdf, salt: Buffer, hash: Buffer): Credential {
  const text = salt.toString('latin1');
  if (plainText.test(text)) return { kdf: formatKdf(kdf), password: formatPassword(text, hash) };
  return { kdf: `${formatKdf(kdf)}${hexMark}`, password: formatPassword(salt.toString('hex'), hash) };
}

export function formatPassword(salt: string, hash: Uint8Array): string {
  return `${salt}$${Buffer.from(hash).toString('hex')}`;
}
