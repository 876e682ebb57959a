/**
 * What a change comes to, given the user who has the login now; pure. Stores that decide under a lock of
 * their own (memory and file) share it, so that they cannot come to differ.
 */

import type { Arrival, Candidate, CreateOutcome, Expected, Replacement, StoredUser } from '../user-store.ts';

/** The answer, and what has to be durable before it may be given. */
export interface Decision<T> {
  readonly outcome: T;
  readonly put?: StoredUser;
  readonly remove?: { readonly id: number; readonly at: string };
}

/** Half of what 48 bits hold: an id from elsewhere must not be the last that there is. */
export const keptIdMax = 2 ** 47;

export function decideCreate(
  { login, registered, kdf, password, key }: Candidate,
  current: StoredUser | undefined,
  nextId: number,
): Decision<CreateOutcome> {
  // Whatever else the candidate has is none of its own.
  return decideArrival({ login, registered, kdf, password, ...(key === undefined ? {} : { key }) }, current, nextId);
}

/** Ids below `nextId` were given, or may have been. */
export function decideArrival(arrival: Arrival, current: StoredUser | undefined, nextId: number): Decision<CreateOutcome> {
  if (current !== undefined) return { outcome: { created: false, user: current } };
  const { login, registered, version = 1, changed, kdf, password, key } = arrival;
  const id = arrival.id !== undefined && arrival.id >= nextId && arrival.id <= keptIdMax ? arrival.id : nextId;
  const user = {
    id, login, registered, version, ...(changed === undefined ? {} : { changed }), kdf, password, ...(key === undefined ? {} : { key }),
  };
  return { outcome: { created: true, user }, put: user };
}

export function decideReplace(
  expected: Expected,
  replacement: Replacement,
  current: StoredUser | undefined,
): Decision<StoredUser | undefined> {
  if (!matches(expected, current)) return { outcome: undefined };
  const { kdf, password, changed, endsSessions } = replacement;
  if (changed === undefined) {
    const user = { ...current, version: current.version + (endsSessions ? 1 : 0), kdf, password };
    return { outcome: user, put: user };
  }
  // The key belongs to the registration's password: with another one there is nothing to compare a repeat with.
  const { id, login, registered, version } = current;
  const user = { id, login, registered, version: version + 1, changed, kdf, password };
  return { outcome: user, put: user };
}

export function decideRemove(expected: Expected, at: string, current: StoredUser | undefined): Decision<boolean> {
  if (!matches(expected, current)) return { outcome: false };
  return { outcome: true, remove: { id: expected.id, at } };
}

function matches(expected: Expected, current: StoredUser | undefined): current is StoredUser {
  return current !== undefined && current.id === expected.id && current.version === expected.version;
}
