/** ETags and conditional requests (RFC 9110, 13). An ETag is `"<id>.<version>"`, and strong. */

import { RegistrarError } from '../errors.ts';
import type { User } from '../user.ts';

export function etag({ id, version }: Pick<User, 'id' | 'version'>): string {
  return `"${id}.${version}"`;
}

/** If-Match on a change: throws `precondition-failed`. Compared strongly, so a weak one never matches. */
export function requireMatch(header: string | undefined, user: User): void {
  if (header === undefined || header.trim() === '*') return;
  if (tags(header).includes(etag(user))) return;
  throw new RegistrarError('precondition-failed', `The user has changed: its ETag is ${etag(user)} now`);
}

/** Whether If-None-Match names what the client would get. Compared weakly. */
export function hasMatch(header: string | undefined, user: User): boolean {
  if (header === undefined) return false;
  if (header.trim() === '*') return true;
  return tags(header).some((tag) => tag.replace(/^W\//, '') === etag(user));
}

function tags(header: string): string[] {
  return header.match(/(?:W\/)?"[^"]*"/g) ?? [];
}
