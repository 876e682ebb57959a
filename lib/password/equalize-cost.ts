/**
 * What a failed check of a password computes; pure. It is the same whether the login exists and however its hash was made,
 * so that time does not tell: for each digest in use two calls of pbkdf2, in all one iteration more than the costliest
 * stored hash has (to leave one for the second call); for scrypt one or two calls of as many rounds.
 *
 * All of it costs at most `costFactorMax` times a hash of the service. A stored hash that costs more is not matched: the
 * time of a failed sign-in then shows that its login exists, and import asks for a flag before it adds one.
 */

import { costOf, roundsForCost, roundsOf } from './kdf.ts';
import type { Derivation, Kdf } from './kdf.ts';

/** An imported hash may cost so many times a hash of the service, and so may a failed sign-in. */
export const costFactorMax = 4;

/**
 * @param own how the service makes hashes.
 * @param stored the costliest stored derivation of each digest; of one digest the costliest counts.
 * @returns the derivation of each digest that every failure comes to, cheapest first, within the bound.
 */
export function failureTargets(own: Kdf, stored: readonly Derivation[]): Derivation[] {
  const costliest = new Map<string, Derivation>([[own.digest, own]]);
  for (const derivation of stored) {
    const known = costliest.get(derivation.digest);
    if (known === undefined || costOf(known) < costOf(derivation)) costliest.set(derivation.digest, derivation);
  }
  const sorted = [...costliest.values()].sort((one, other) => costOf(one) - costOf(other));
  // The service's own kdf is always within the bound.
  let left = (costFactorMax - 1) * costOf(own);
  return sorted.map((target) => {
    const base = target.digest === own.digest ? costOf(own) : 0;
    const cost = Math.min(costOf(target), base + left);
    left -= cost - base;
    return cost === costOf(target) ? target : withRounds(target.digest, roundsForCost(target.digest, cost));
  }).filter((target) => roundsOf(target) > 0);
}

/**
 * @param first the derivation that did not give the hash.
 * @param targets as `failureTargets` gives them.
 * @returns what follows it.
 */
export function equalizeCost(first: Derivation, targets: readonly Derivation[]): Derivation[] {
  return targets.flatMap((target) => {
    const { digest } = target;
    if (digest !== first.digest) return digest === 'scrypt' ? [target] : [target, withRounds(digest, 1)];
    const missing = roundsOf(target) - roundsOf(first);
    if (digest === 'scrypt') return missing > 0 ? [withRounds(digest, missing)] : [];
    return [withRounds(digest, Math.max(1, missing + 1))];
  });
}

/** For scrypt as near as its parameters allow: exactly for powers of two from 16. */
function withRounds(digest: Derivation['digest'], rounds: number): Derivation {
  if (digest !== 'scrypt') return { digest, iterations: rounds };
  const r = 8;
  const n = 2 ** Math.max(1, Math.min(15, Math.floor(Math.log2(rounds / r))));
  return { digest, n, r, p: Math.max(1, Math.round(rounds / (n * r))) };
}
