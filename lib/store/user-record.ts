/**
 * A stored user as JSON: a line of the file and a value in etcd hold the same fields in the same order; pure.
 *
 *   id login registered version [changed] [disabled] kdf password [key] [unknown fields]
 *
 * The public fields come first, so the public JSON of a user is a prefix of the record. Fields that this version does not
 * know stand behind the password: every write keeps them, none is public.
 */

import type { StoredUser } from '../user-store.ts';
import { publicUser } from '../user.ts';

export function encodeRecord(user: StoredUser): string {
  const { id, login, registered, version, changed, disabled, kdf, password, key, unknownFields } = user;
  // One shape, without a spread: an import writes a million.
  const record = { id, login, registered, version, changed, disabled, kdf, password, key };
  return JSON.stringify(unknownFields === undefined ? record : { ...record, ...unknownFields });
}

export function publicJson(user: StoredUser): string {
  return JSON.stringify(publicUser(user));
}

/** The user that the fields of a record say; undefined if one is missing, of another type, or out of its place. */
export function decodeRecord(fields: Readonly<Record<string, unknown>>): StoredUser | undefined {
  const { id, login, registered, version, changed, disabled, kdf, password, key, ...rest } = fields;
  if (!isCount(id) || typeof login !== 'string' || typeof registered !== 'string' || !isCount(version)) return undefined;
  if (typeof kdf !== 'string' || typeof password !== 'string') return undefined;
  if (!isTextOrAbsent(changed) || !isTextOrAbsent(disabled) || !isTextOrAbsent(key)) return undefined;
  // What stands before the kdf is public: nothing else may.
  const publicFields = Object.keys(publicUser({ id, login, registered, version, changed, disabled }));
  const names = Object.keys(fields);
  if (publicFields.some((name, n) => names[n] !== name) || names[publicFields.length] !== 'kdf') return undefined;
  return {
    id, login, registered, version, ...(changed === undefined ? {} : { changed }), ...(disabled === undefined ? {} : { disabled }),
    kdf, password, ...(key === undefined ? {} : { key }), ...(Object.keys(rest).length === 0 ? {} : { unknownFields: rest }),
  };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0;
}

function isTextOrAbsent(value: unknown): value is string | undefined {
  return value === undefined || typeof value === 'string';
}
