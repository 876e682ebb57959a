/**
 * A user as the value of a key: compact JSON, the public fields first, so that the public JSON of a user is a
 * prefix of its value. What cannot be read is `corrupt`, with the key's name: nothing is guessed.
 */

import { RegistrarError } from '../../errors.ts';
import type { StoredUser, UserView } from '../../user-store.ts';
import type { Found } from './answers.ts';

export function encodeRecord({ id, login, registered, version, changed, kdf, password, key }: StoredUser): string {
  return JSON.stringify({ id, login, registered, version, changed, kdf, password, key });
}

/** @param login whose key it was found under. */
export function decodeRecord({ key: name, value }: Found, login: string): StoredUser {
  const { id, login: own, registered, version, changed, kdf, password, key } = parse(name, value);
  const isUser = isCount(id) && own === login && typeof registered === 'string' && isCount(version) && isTextOrAbsent(changed);
  if (!isUser || typeof kdf !== 'string' || typeof password !== 'string' || !isTextOrAbsent(key)) {
    throw damaged(name, 'it is no whole record of this user');
  }
  return {
    id, login, registered, version, ...(changed === undefined ? {} : { changed }), kdf, password, ...(key === undefined ? {} : { key }),
  };
}

/** The public side alone, without making the rest anew. */
export function viewRecord(found: Found, login: string): UserView {
  const { id, version } = decodeRecord(found, login);
  return { id, version, json: publicJson(found) };
}

/** No login can hold a quotation mark, so the first one that could be meant is. */
export function publicJson({ key, value }: Found): string {
  const end = value.indexOf(',"kdf":"');
  if (end < 0) throw damaged(key, 'it has no public part');
  return `${value.slice(0, end)}}`;
}

function parse(name: string, value: string): Readonly<Record<string, unknown>> {
  try {
    const json: unknown = JSON.parse(value);
    if (typeof json === 'object' && json !== null) return json as Record<string, unknown>;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw damaged(name, 'it is no JSON object');
}

function damaged(name: string, what: string): RegistrarError {
  return new RegistrarError('corrupt', `Cannot read "${name}" in etcd: ${what}; see it with etcdctl get, and put it right or remove it`);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0;
}

function isTextOrAbsent(value: unknown): value is string | undefined {
  return value === undefined || typeof value === 'string';
}
