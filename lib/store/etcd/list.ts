/**
 * Users in the order of their ids. etcd walks all keys of a range to count them, whatever the limit, so a list asks for
 * windows of ids that hold about as many users as are wanted: the cost does not grow with the number of users. Ids
 * lead to logins, then the records are read as they are now; who was removed in between is left out.
 */

import { readTransaction } from './answers.ts';
import type { Found } from './answers.ts';
import { get, operationsMax, range } from './bodies.ts';
import type { Keys, Operation } from './bodies.ts';
import type { EtcdClient } from './client.ts';
import { readCounter } from './ids.ts';
import { decodeRecord } from './record.ts';
import type { StoredUser } from '../../user-store.ts';

export interface Listed {
  readonly user: StoredUser;
  readonly found: Found;
}

export interface Piece {
  readonly listed: readonly Listed[];
  /** The id of the last one, though they may have been removed; undefined if nobody follows. */
  readonly last: number | undefined;
}

/** A window that was empty is followed by one so many times as wide: ids may be far apart after an import. */
const widening = 4;

/** At most `limit` users with an id above `after`. */
export async function listUsers(client: EtcdClient, keys: Keys, after: number, limit: number, deadline: number): Promise<Piece> {
  const entries = await listIds(client, keys, after + 1, limit + 1, deadline);
  const asked = entries.slice(0, limit);
  const chunks: Entry[][] = [];
  for (let n = 0; n < asked.length; n += operationsMax) chunks.push(asked.slice(n, n + operationsMax));
  const listed = await Promise.all(chunks.map(async (chunk): Promise<Listed[]> => {
    const success: Operation[] = chunk.map(({ login }) => get(keys.user(login)));
    const { responses } = readTransaction(await client.transact({ success }, deadline));
    return chunk.flatMap(({ id, login }, n) => {
      const found = responses[n]?.found[0];
      const user = found === undefined ? undefined : decodeRecord(found, login);
      // With another id it is somebody who registered since, and whose turn comes.
      return found === undefined || user?.id !== id ? [] : [{ user, found }];
    });
  }));
  return { listed: listed.flat(), last: entries.length > limit ? asked.at(-1)?.id : undefined };
}

interface Entry {
  readonly id: number;
  readonly login: string;
}

async function listIds(client: EtcdClient, keys: Keys, first: number, count: number, deadline: number): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (let from = first, width = count; ; ) {
    const to = Math.min(from + width, Number.MAX_SAFE_INTEGER);
    const missing = count - entries.length;
    const success = [get(keys.counter), range(keys.id(from), keys.id(to), missing)];
    const [counter, window] = readTransaction(await client.transact({ success }, deadline)).responses;
    const found = window?.found ?? [];
    for (const { key, value } of found) entries.push({ id: Number(key.slice(key.lastIndexOf('/') + 1)), login: value });
    const value = counter?.found[0]?.value;
    if (found.length === missing || value === undefined || to >= readCounter(value)) return entries;
    // As wide as it would have to be if users went on being as far apart.
    width = found.length === 0 ? width * widening : Math.ceil((width / found.length) * (missing - found.length)) + 1;
    from = to;
  }
}
