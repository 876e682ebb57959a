/** Computes password hashes, each in one synchronous call. It is JavaScript since a worker on Node 20 has no loader for types. */

import { pbkdf2Sync, scryptSync, timingSafeEqual } from 'node:crypto';

/** Node refuses scrypt above its own limit of 32 MB; `kdf.ts` bounds what is accepted. */
const maxmem = 256 << 20;

/**
 * @param {string} password
 * @param {string | Uint8Array} salt
 * @param {import('./kdf.ts').Derivation} derivation
 * @param {number} bytes of the hash
 * @returns {Buffer}
 */
function derive(password, salt, derivation, bytes) {
  if (derivation.digest !== 'scrypt') return pbkdf2Sync(password, salt, derivation.iterations, bytes, derivation.digest);
  const { n, r, p } = derivation;
  return scryptSync(password, salt, bytes, { N: n, r, p, maxmem });
}

/**
 * Carries out a job. After a mismatch with the expected hash it computes `rest`, whose results nothing needs.
 *
 * @param {import('./worker-pool.ts').Job} job
 * @returns {import('./worker-pool.ts').Result}
 */
export function runJob({ password, salt, first, bytes, expected, rest }) {
  const started = performance.now();
  const hash = derive(password, salt, first, bytes);
  if (expected === undefined) return { hash, ms: performance.now() - started };
  const isRight = timingSafeEqual(hash, expected);
  if (!isRight) for (const derivation of rest) derive(password, salt, derivation, restBytes);
  return { isRight, ms: performance.now() - started };
}

/** At most the length of every digest: one block. */
const restBytes = 32;
