/**
 * Small secrets that all services of a cluster share, as text under a name: a session key, the hash of a token. They
 * are as safe as etcd is. It watches nothing: whoever wants to know of a change asks again.
 */

import { readOne, readTransaction } from './answers.ts';
import { get, getBody, holds, isAbsent, put } from './bodies.ts';
import type { Keys } from './bodies.ts';
import type { EtcdClient } from './client.ts';

/** Methods reject as reads of the store do. */
export class EtcdSecrets {
  readonly #client: EtcdClient;
  readonly #keys: Keys;

  constructor(client: EtcdClient, keys: Keys) {
    this.#client = client;
    this.#keys = keys;
  }

  async get(name: string): Promise<string | undefined> {
    const json = await this.#client.ask('/v3/kv/range', getBody(this.#keys.secret(name)), this.#client.deadline());
    return readOne(json)?.value;
  }

  /** @returns what is kept under the name from now on: `value`, or what was there. */
  async putIfAbsent(name: string, value: string): Promise<string> {
    const key = this.#keys.secret(name);
    for (const deadline = this.#client.deadline(); ; ) {
      const transaction = { compare: [isAbsent(key)], success: [put(key, value)], failure: [get(key)] };
      const { succeeded, responses } = readTransaction(await this.#client.transact(transaction, deadline));
      // A repeat that finds its own value there says the same.
      const there = succeeded ? value : responses[0]?.found[0]?.value;
      if (there !== undefined) return there;
    }
  }

  /** @returns whether `value` is there now: false if it was neither `expected` nor `value` that was. */
  async replace(name: string, expected: string, value: string): Promise<boolean> {
    const key = this.#keys.secret(name);
    const transaction = { compare: [holds(key, expected)], success: [put(key, value)], failure: [get(key)] };
    const { succeeded, responses } = readTransaction(await this.#client.transact(transaction, this.#client.deadline()));
    return succeeded || responses[0]?.found[0]?.value === value;
  }
}
