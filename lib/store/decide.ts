/**
 * What a change comes to, given the user who has the login now; pure. Stores that decide under a lock of
 * their own (memory and file) share it, so that they cannot come to differ.
 */

import type { CreateOutcome, Expected, ImportedUser, NewUser, Replacement, StoredUser } from '../user-store.ts';

/** The answer, and what has to be durable before it may be given. */
export interface Decision<T> {
  readonly outcome: T;
  readonly put?: StoredUser;
  readonly remove?: { readonly id: number; readonly at: string };
}

/** Half of what 48 bits hold: an id from elsewhere must not be the last that there is. */
export const keptIdMax = 2 ** 47;

export function decideCreate(
  { login, registered, kdf, password, key }: NewUser,
  current: StoredUser | undefined,
  nextId: number,
): Decision<CreateOutcome> {
  // No other field of the object is taken over.
  return decideImport({ login, registered, kdf, password, key }, current, nextId);
}

/** Ids below `nextId` were given, or may have been. */
export function decideImport(imported: ImportedUser, current: StoredUser | undefined, nextId: number): Decision<CreateOutcome> {
  if (current !== undefined) return { outcome: { created: false, user: current } };
  const { login, registered, version = 1, changed, disabled, kdf, password, key } = imported;
  const id = imported.id !== undefined && imported.id >= nextId && imported.id <= keptIdMax ? imported.id : nextId;
  const user = {
    id, login, registered, version, ...(changed === undefined ? {} : { changed }), ...(disabled === undefined ? {} : { disabled }),
    kdf, password, ...(key === undefined ? {} : { key }),
  };
  return { outcome: { created: true, user }, put: user };
}

export function decideReplace(
  expected: Expected,
  replacement: Replacement,
  current: StoredUser | undefined,
): Decision<StoredUser | undefined> {
  if (!matches(expected, current)) return { outcome: undefined };
  const { kdf, password, changed, endsSessions, disabled } = replacement;
  // The key is compared with the password of the registration: a new password makes it void.
  const { key, disabled: disabledBefore, ...kept } = current;
  const raise = changed !== undefined || endsSessions === true || disabled !== undefined ? 1 : 0;
  const disabledNow = disabled === undefined ? disabledBefore : disabled === false ? undefined : disabled;
  const user = {
    ...kept, version: current.version + raise, kdf, password,
    ...(changed === undefined ? {} : { changed }),
    ...(disabledNow === undefined ? {} : { disabled: disabledNow }),
    ...(key === undefined || changed !== undefined ? {} : { key }),
  };
  return { outcome: user, put: user };
}

export function decideRemove(expected: Expected, at: string, current: StoredUser | undefined): Decision<boolean> {
  if (!matches(expected, current)) return { outcome: false };
  return { outcome: true, remove: { id: expected.id, at } };
}

function matches(expected: Expected, current: StoredUser | undefined): current is StoredUser {
  return current !== undefined && current.id === expected.id && current.version === expected.version;
}
