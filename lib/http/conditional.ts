/** ETags and conditional requests (RFC 9110, 13). An ETag is `"<id>.<version>"`, and strong. */

import { trimOws } from '../auth/credentials.ts';
import { RegistrarError } from '../errors.ts';
import type { User } from '../user.ts';

/** The part of a user that an ETag is made of. */
type State = Pick<User, 'id' | 'version'>;

/** Tags between commas; empty elements are ignored (RFC 9110, 5.6.1.2). */
const tagList = /^[ \t,]*(?:(?:W\/)?"[^"]*"[ \t]*(?:,[ \t,]*|$))+$/;

export function etag({ id, version }: State): string {
  return `"${id}.${version}"`;
}

/** If-Match on a change: throws `precondition-failed`. Compared strongly, so a weak one never matches. */
export function requireMatch(header: string | undefined, user: State): void {
  if (header === undefined || trimOws(header) === '*') return;
  if (tags('If-Match', header).includes(etag(user))) return;
  throw new RegistrarError('precondition-failed', `If-Match does not name the user's ETag, which is ${etag(user)} now`);
}

/** Whether If-None-Match names the current state. Compared weakly. */
export function hasMatch(header: string | undefined, user: State): boolean {
  if (header === undefined) return false;
  if (trimOws(header) === '*') return true;
  return tags('If-None-Match', header).some((tag) => tag.replace(/^W\//, '') === etag(user));
}

function tags(name: string, header: string): string[] {
  if (tagList.test(header)) return Array.from(header.matchAll(/(?:W\/)?"[^"]*"/g), ([tag]) => tag);
  const fields = [{ detail: 'It has to be *, or ETags in quotes, as in "1.1"', parameter: name }];
  throw new RegistrarError('malformed', `${name} cannot be read: an ETag is in quotes, as in "1.1"`, { fields });
}
