/** A file store with many users, for the tests of compaction. */

import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { FileUserStore } from '../../lib/store/file/file-user-store.ts';
import type { FileUserStoreOptions } from '../../lib/store/file/file-user-store.ts';
import type { StoredUser } from '../../lib/user-store.ts';
import { newUser } from './user-store-contract.ts';

/** A store that closes when the test has ended. */
export async function openStore(t: Pick<TestContext, 'after'>, directory: string, options: Partial<FileUserStoreOptions> = {}): Promise<FileUserStore> {
  const store = await FileUserStore.open({ path: join(directory, 'users.jsonl'), lockWaitMsMax: 5_000, ...options });
  t.after(() => store.close());
  return store;
}

/** Creates the users, and returns them. */
export async function fill(store: FileUserStore, logins: readonly string[]): Promise<StoredUser[]> {
  const outcomes = await Promise.all(logins.map((login) => store.create(newUser(login))));
  return outcomes.map(({ user }) => user);
}

export function names(count: number, prefix = 'user'): string[] {
  return Array.from({ length: count }, (_, n) => `${prefix}${n}`);
}

/** The public JSON of every user, from all pages. */
export async function allUsers(store: FileUserStore): Promise<string[]> {
  const users: string[] = [];
  for (let after: string | undefined, isFirst = true; isFirst || after !== undefined; isFirst = false) {
    const page = await store.page(after, 1000);
    users.push(...page.users.map(String));
    after = page.next;
  }
  return users;
}
