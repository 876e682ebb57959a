/**
 * Writes all users as text that an import takes: a JSON line for each, in the order of ids, hash included. The store may be
 * in use: each user is as at the moment that it is read. Users who registered after the start are left out, so that a
 * login that was removed and registered again meanwhile is not in the text twice. Unknown fields are left out and counted.
 */

import type { StoredUser, UserStore } from '../user-store.ts';

export interface ExportOptions {
  /** One document `{"users":[…]}`, with a line for each user all the same. */
  readonly isDocument?: boolean;
  /** Other services may assign ids below the last one (a cluster): logins are remembered, some 70 bytes each. */
  readonly isShared?: boolean;
  /** Counts the users of each unknown field that is left out. */
  readonly leftOut?: Map<string, number>;
}

/** Chunks of some 64 KB. */
export async function* exportText(store: Pick<UserStore, 'recordPage' | 'lastId'>, options: ExportOptions = {}): AsyncGenerator<Buffer> {
  const { isDocument = false, isShared = false, leftOut } = options;
  const last = await store.lastId();
  const written = isShared ? new Set<string>() : undefined;
  if (isDocument) yield Buffer.from('{"users":[');
  let isFirst = true;
  for (let after: string | undefined, isMore = true; isMore; ) {
    const { users, next } = await store.recordPage(after);
    const chosen = users.filter(({ id, login }) => id <= last && written?.has(login) !== true);
    if (chosen.length > 0) {
      const lines = chosen.map((user) => line(user, leftOut));
      yield Buffer.from(isDocument ? `${isFirst ? '' : ','}\n${lines.join(',\n')}` : `${lines.join('\n')}\n`);
      for (const { login } of chosen) written?.add(login);
      isFirst = false;
    }
    after = next;
    isMore = next !== undefined && (users.at(-1)?.id ?? 0) < last;
  }
  if (isDocument) yield Buffer.from('\n]}\n');
}

/** Always in the same order, so that two exports can be compared. */
function line(user: StoredUser, leftOut: Map<string, number> | undefined): string {
  const { id, login, registered, version, changed, disabled, kdf, password, key, unknownFields = {} } = user;
  for (const name of Object.keys(unknownFields)) leftOut?.set(name, (leftOut.get(name) ?? 0) + 1);
  return JSON.stringify({ id, login, registered, version, changed, disabled, kdf, password, key });
}
