/**
 * The formats of password hashes; pure.
 *
 *   kdf       pbkdf2:<digest>:<iterations>       pbkdf2:sha256:600000       new hashes, and hashes from elsewhere
 *             scrypt:<N>:<r>:<p>                 scrypt:32768:8:1           hashes from elsewhere alone
 *   password  <salt>$<hash>                      32 hex characters, then the hash in hex
 *
 * The salt's ASCII bytes, not the bytes that they spell, are the salt of RFC 8018. So `kdf + "$" + password` is a Werkzeug hash
 * string, and one line of Python checks it. With `:hex` at the end of the kdf the salt is the bytes that its hex spells. A new
 * hash is as long as its digest; one from elsewhere has 16 to 64 bytes.
 */

import { RegistrarError } from '../errors.ts';
import type { Credential } from '../user.ts';

export type Digest = 'sha256' | 'sha384' | 'sha512';

export interface Kdf {
  readonly digest: Digest;
  readonly iterations: number;
}

export interface Scrypt {
  readonly digest: 'scrypt';
  /** The names of RFC 7914: cost, block size, parallelization. */
  readonly n: number;
  readonly r: number;
  readonly p: number;
}

/** A computation of a hash. */
export type Derivation = Kdf | Scrypt;

export type StoredKdf = Derivation & {
  /** The salt is written as the hex of its bytes, and not as it is. */
  readonly isSaltHex: boolean;
};

export const digestBytes: Readonly<Record<Digest, number>> = { sha256: 32, sha384: 48, sha512: 64 };

/** OWASP Password Storage Cheat Sheet, March 2026; SHA-384 does the work of SHA-512. */
const iterationsAdvised: Readonly<Record<Digest, number>> = { sha256: 600_000, sha384: 220_000, sha512: 220_000 };

/** About 2 s on a core: a costlier hash would delay every other request. */
export const iterationsMax = 10_000_000;

/** What a round costs, in iterations of PBKDF2-SHA256: SHA-512 by OWASP's advice, scrypt as measured (1.7, and memory). */
const costOfRound: Readonly<Record<Derivation['digest'], number>> = { sha256: 1, sha384: 30 / 11, sha512: 30 / 11, scrypt: 2 };

/** OWASP's first recommendation for scrypt takes so much, in each worker. */
const scryptBytesMax = 128 << 20;

export const saltCharacters = 32;
/** Longer salts do not occur; the line of a user has to have room for them. */
export const saltBytesMax = 256;
const hashBytesMin = 16;
const hashBytesMax = 64;

const pbkdf2 = /^pbkdf2:(sha256|sha384|sha512):([1-9][0-9]{0,8})$/;
const scrypt = /^scrypt:([1-9][0-9]{0,8}):([1-9][0-9]{0,8}):([1-9][0-9]{0,8})$/;
const hexMark = ':hex';

/** Reads the `kdf` of new hashes; undefined if it is none, or costlier than `iterationsMax`. */
export function parseKdf(text: string): Kdf | undefined {
  const match = pbkdf2.exec(text);
  if (match === null) return undefined;
  const iterations = Number(match[2]);
  return iterations > iterationsMax ? undefined : { digest: match[1] as Digest, iterations };
}

/** Reads the `kdf` of a stored hash, which may be from elsewhere; undefined as in `parseKdf`. */
export function parseStoredKdf(text: string): StoredKdf | undefined {
  const isSaltHex = text.endsWith(hexMark);
  const plain = isSaltHex ? text.slice(0, -hexMark.length) : text;
  const derivation = parseKdf(plain) ?? parseScrypt(plain);
  return derivation && { ...derivation, isSaltHex };
}

function parseScrypt(text: string): Scrypt | undefined {
  const [, n = 0, r = 0, p = 0] = (scrypt.exec(text) ?? []).map(Number);
  // RFC 7914: N is a power of two.
  if (n < 2 || Math.log2(n) % 1 !== 0 || 128 * n * r > scryptBytesMax) return undefined;
  const derivation: Scrypt = { digest: 'scrypt', n, r, p };
  return costOf(derivation) > iterationsMax ? undefined : derivation;
}

export function formatKdf(kdf: Derivation): string {
  return kdf.digest === 'scrypt' ? `scrypt:${kdf.n}:${kdf.r}:${kdf.p}` : `pbkdf2:${kdf.digest}:${kdf.iterations}`;
}

/** Iterations, or for scrypt mixes of a block of 128 bytes. */
export function roundsOf(derivation: Derivation): number {
  return derivation.digest === 'scrypt' ? derivation.n * derivation.r * derivation.p : derivation.iterations;
}

/** In iterations of PBKDF2-SHA256, on any machine the same. */
export function costOf(derivation: Derivation): number {
  return roundsOf(derivation) * costOfRound[derivation.digest];
}

export function roundsForCost(digest: Derivation['digest'], cost: number): number {
  return Math.floor(cost / costOfRound[digest]);
}

/** What OWASP advises for this digest, if `kdf` stays below it. */
export function weakness(kdf: Kdf): number | undefined {
  const advised = iterationsAdvised[kdf.digest];
  return kdf.iterations < advised ? advised : undefined;
}

export interface StoredHash {
  readonly derivation: Derivation;
  readonly salt: Uint8Array;
  readonly hash: Uint8Array;
}

/** Reads a credential from the store. Throws `corrupt` on anything that this file did not write. */
export function parseCredential(kdf: string, password: string): StoredHash {
  const parsed = parseStoredKdf(kdf);
  if (parsed === undefined || credentialProblem(parsed, password) !== undefined) {
    throw new RegistrarError('corrupt', `Cannot check a password: the stored kdf "${kdf}" or its hash is not known`);
  }
  const { isSaltHex, ...derivation } = parsed;
  const cut = password.indexOf('$');
  // The first block of PBKDF2 tells a right password from a wrong one; each further block would cost as much again.
  const bytesMax = derivation.digest === 'scrypt' ? hashBytesMax : digestBytes[derivation.digest];
  const hash = Buffer.from(password.slice(cut + 1), 'hex').subarray(0, bytesMax);
  const salt = Buffer.from(password.slice(0, cut), isSaltHex ? 'hex' : 'latin1');
  // Bytes of their own: with a view into Node's pool the worker would get a copy of the whole pool.
  return { derivation, salt: new Uint8Array(salt), hash: new Uint8Array(hash) };
}

/** What keeps `salt$hash` from being kept as the hash of this kdf; undefined if it can be. Nothing of it is repeated. */
export function credentialProblem({ isSaltHex }: StoredKdf, password: string): string | undefined {
  const cut = password.indexOf('$');
  if (cut < 0) return 'The hash has no "$" between salt and hash';
  const salt = password.slice(0, cut);
  if (isSaltHex ? !hexBytes.test(salt) : !plainText.test(salt)) {
    return isSaltHex ? 'The salt is not lower-case hex' : 'The salt is empty, or is no plain ASCII text: it can be given as hex';
  }
  if (salt.length > saltBytesMax * (isSaltHex ? 2 : 1)) return `The salt is longer than ${saltBytesMax} bytes`;
  const hash = password.slice(cut + 1);
  if (!hexBytes.test(hash)) return 'The hash is not lower-case hex';
  return lengthProblem(hash.length / 2);
}

export function lengthProblem(bytes: number): string | undefined {
  if (bytes >= hashBytesMin && bytes <= hashBytesMax) return undefined;
  return `The hash has ${bytes} bytes: it needs ${hashBytesMin} to ${hashBytesMax}`;
}

const hexBytes = /^(?:[0-9a-f]{2})+$/;
/** What needs no escaping in JSON, and is not a separator of a hash. */
const plainText = /^[ !#%-[\]-~]+$/;

/** Makes a credential of a hash from elsewhere: with a salt that is plain text a hash like our own, with another one in hex. */
export function foreignCredential(kdf: Derivation, salt: Buffer, hash: Buffer): Credential {
  const text = salt.toString('latin1');
  if (plainText.test(text)) return { kdf: formatKdf(kdf), password: formatPassword(text, hash) };
  return { kdf: `${formatKdf(kdf)}${hexMark}`, password: formatPassword(salt.toString('hex'), hash) };
}

export function formatPassword(salt: string, hash: Uint8Array): string {
  return `${salt}$${Buffer.from(hash).toString('hex')}`;
}
