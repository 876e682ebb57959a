/**
 * Reads records: one by its login, or a list in the order of ids.
 *
 * Records that are requested at the same time are read in one transaction, which costs little more than one. Each read is
 * linearizable: its transaction is sent after the read was requested. A list first reads a window of ids, since etcd visits
 * every key of a range whatever its limit, then the records as they are by then.
 */

import { RegistrarError } from '../../errors.ts';
import { parseObject } from '../../json.ts';
import type { StoredUser } from '../../user-store.ts';
import { decodeRecord } from '../user-record.ts';
import type { EtcdClient } from './client.ts';
import { get, operationsMax, range } from './gateway.ts';
import type { Keys, KeyValue } from './gateway.ts';
import { parseCounter } from './id-allocator.ts';

interface Read {
  readonly key: string;
  readonly deadline: number;
  readonly resolve: (found: KeyValue | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/** Further reads wait, and so fill the next transactions. */
const transactionsMax = 8;
/** After an empty window the next one is so many times as wide: an import may leave ids far apart. */
const widening = 4;

export class UserReader {
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #waiting: Read[] = [];
  #running = 0;

  constructor(client: EtcdClient, keys: Keys) {
    this.#client = client;
    this.#keys = keys;
  }

  /** The record of a login as etcd holds it, for `readUser`. Rejects as the client does. */
  find(login: string, deadline: number): Promise<KeyValue | undefined> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ key: this.#keys.user(login), deadline, resolve, reject });
      // Other reads of this turn of the event loop share the transaction.
      if (this.#waiting.length === 1) setImmediate(() => this.#readWaiting());
    });
  }

  /** At most `limit` users with an id above `after`. `next` is the id after which the list goes on; undefined at its end. */
  async list(after: number, limit: number, deadline: number): Promise<{ readonly users: readonly StoredUser[]; readonly next?: number }> {
    const entries = await this.#listIds(after + 1, limit + 1, deadline);
    const listed = entries.slice(0, limit);
    const found = await Promise.all(listed.map(({ login }) => this.find(login, deadline)));
    const users = listed.flatMap(({ id, login }, n) => {
      const user = found[n] && readUser(found[n], login);
      // Removed since, or registered again with another id, which the list has yet to reach.
      return user?.id === id ? [user] : [];
    });
    return { users, next: entries.length > limit ? listed.at(-1)?.id : undefined };
  }

  #readWaiting(): void {
    while (this.#running < transactionsMax && this.#waiting.length > 0) {
      this.#running++;
      void this.#read(this.#waiting.splice(0, operationsMax)).finally(() => {
        this.#running--;
        this.#readWaiting();
      });
    }
  }

  async #read(reads: readonly Read[]): Promise<void> {
    const deadline = Math.min(...reads.map((read) => read.deadline));
    try {
      const { found } = await this.#client.transact({ success: reads.map(({ key }) => get(key)) }, deadline);
      for (const [n, { resolve }] of reads.entries()) resolve(found[n]?.[0]);
    } catch (error) {
      // The most urgent read is over; the others have time left.
      const now = performance.now();
      for (const read of reads) {
        if (read.deadline > deadline && read.deadline > now) this.#waiting.push(read);
        else read.reject(error);
      }
    }
  }

  async #listIds(first: number, count: number, deadline: number): Promise<{ readonly id: number; readonly login: string }[]> {
    const entries: { id: number; login: string }[] = [];
    for (let from = first, width = count; ; ) {
      const to = Math.min(from + width, Number.MAX_SAFE_INTEGER);
      const missing = count - entries.length;
      const window = range(this.#keys.id(from), this.#keys.id(to), missing);
      const { found: [counter, found = []] } = await this.#client.transact({ success: [get(this.#keys.nextId), window] }, deadline);
      for (const { key, value } of found) entries.push({ id: Number(key.slice(key.lastIndexOf('/') + 1)), login: value });
      const next = counter?.[0];
      if (found.length === missing || next === undefined || to >= parseCounter(next.key, next.value)) return entries;
      // As wide as needed if ids go on being as far apart as in this window.
      width = found.length === 0 ? width * widening : Math.ceil((width / found.length) * (missing - found.length)) + 1;
      from = to;
    }
  }
}

/** Throws `corrupt` if the value is not the record of this login. */
export function readUser({ key, value }: KeyValue, login: string): StoredUser {
  const parsed = parseObject(value);
  const user = 'fields' in parsed ? decodeRecord(parsed.fields) : undefined;
  if (user?.login === login) return user;
  throw new RegistrarError('corrupt', `The value of "${key}" in etcd is not a record of this user. Correct or remove it with etcdctl.`);
}
