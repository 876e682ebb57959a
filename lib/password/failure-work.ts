/**
 * What a failed check of a password costs; pure. It is the same whoever is asked for and however their hash was
 * made, so that time does not tell whether a login exists: for each digest in use two calls of pbkdf2, and in
 * all one iteration more than the dearest hash of that digest has, to leave one for the second call.
 */

import type { Digest, Kdf } from './kdf.ts';

/** One call of pbkdf2. */
export interface Derivation {
  readonly digest: Digest;
  readonly iterations: number;
}

/**
 * @param own how the hash was made that is checked: always the first call.
 * @param kdfs all in which hashes are stored and made, `own` included.
 * @returns what follows when the first call did not give the hash.
 */
export function padding(own: Kdf, kdfs: readonly Kdf[]): Derivation[] {
  const rest: Derivation[] = [];
  for (const digest of [...new Set([own, ...kdfs].map((kdf) => kdf.digest))].sort()) {
    const dearest = Math.max(...[own, ...kdfs].map((kdf) => (kdf.digest === digest ? kdf.iterations : 0)));
    const spent = digest === own.digest ? own.iterations : dearest;
    if (digest !== own.digest) rest.push({ digest, iterations: dearest });
    rest.push({ digest, iterations: dearest + 1 - spent });
  }
  return rest;
}
