/**
 * Gives all users out as text that an import takes: a JSON line for each, in the order of ids, hash included. It is
 * read while the store is in use: each user is as at the moment when its turn comes, and whole.
 */

import type { StoredUser, UserStore } from '../user-store.ts';

/** Pieces of some 64 KB. As one document it is `{"users":[…]}`, with a line for each user all the same. */
export async function* exportText(store: Pick<UserStore, 'records'>, isDocument = false): AsyncGenerator<Buffer> {
  if (isDocument) yield Buffer.from('{"users":[');
  let isFirst = true;
  for (let after: string | undefined, more = true; more; more = after !== undefined) {
    const { users, next } = await store.records(after);
    if (users.length > 0) {
      const lines = users.map(line);
      const text = isDocument ? `${isFirst ? '' : ','}\n${lines.join(',\n')}` : `${lines.join('\n')}\n`;
      yield Buffer.from(text);
      isFirst = false;
    }
    after = next;
  }
  if (isDocument) yield Buffer.from('\n]}\n');
}

/** Always in the same order, so that two exports can be compared. */
function line({ id, login, registered, version, changed, kdf, password, key }: StoredUser): string {
  return JSON.stringify({ id, login, registered, version, changed, kdf, password, key });
}
