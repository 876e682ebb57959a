/**
 * Keys that are asked for at once go to etcd together, in one transaction of nothing but reads: what a read costs is
 * the way through the gateway. Each is linearizable as a read of its own is: it is sent after it was asked for.
 */

import { readOne, readTransaction } from './answers.ts';
import type { Found } from './answers.ts';
import { Batches } from './batches.ts';
import { get, getBody, operationsMax } from './bodies.ts';
import type { EtcdClient } from './client.ts';

const limits = { batchMax: operationsMax / 2, batchesMax: 8 };

export class Reads {
  readonly #batches: Batches<string, Found | undefined>;

  constructor(client: EtcdClient) {
    this.#batches = new Batches(limits, async (batch, deadline) => {
      const [first] = batch;
      if (first !== undefined && batch.length === 1) {
        return first.resolve(readOne(await client.ask('/v3/kv/range', getBody(first.input), deadline)));
      }
      const { responses } = readTransaction(await client.transact({ success: batch.map(({ input }) => get(input)) }, deadline));
      for (const [n, { resolve }] of batch.entries()) resolve(responses[n]?.found[0]);
    });
  }

  /** What is under the key. Rejects as the client does. */
  get(key: string, deadline: number): Promise<Found | undefined> {
    return this.#batches.add(key, deadline);
  }
}
