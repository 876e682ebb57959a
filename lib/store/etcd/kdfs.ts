/**
 * Every way in which a password of some user was hashed: a key in etcd for each, written before the first record
 * that says so, and never removed. It knows no more than the names.
 */

import { readTransaction } from './answers.ts';
import { endOf, put, range } from './bodies.ts';
import type { Keys } from './bodies.ts';
import type { EtcdClient } from './client.ts';

/** Other services write, too; what they wrote is asked for so often. */
const refreshMs = 10_000;
const kdfsMax = 1_000;

export class Kdfs {
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #known = new Set<string>();
  readonly #adding = new Map<string, Promise<unknown>>();
  #readAt = -Infinity;

  constructor(client: EtcdClient, keys: Keys) {
    this.#client = client;
    this.#keys = keys;
  }

  /** Before a record with it is written. */
  async add(kdf: string, deadline: number): Promise<void> {
    if (this.#known.has(kdf)) return;
    const adding =
      this.#adding.get(kdf) ??
      this.#client.transact({ success: [put(this.#keys.kdfs + kdf, '')] }, deadline).finally(() => this.#adding.delete(kdf));
    this.#adding.set(kdf, adding);
    await adding;
    this.#known.add(kdf);
  }

  async all(): Promise<readonly string[]> {
    if (performance.now() - this.#readAt > refreshMs) {
      const { kdfs } = this.#keys;
      const answer = await this.#client.transact({ success: [range(kdfs, endOf(kdfs), kdfsMax)] }, this.#client.deadline());
      for (const { key } of readTransaction(answer).responses[0]?.found ?? []) this.#known.add(key.slice(kdfs.length));
      this.#readAt = performance.now();
    }
    return [...this.#known];
  }
}
