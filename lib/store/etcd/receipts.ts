/**
 * Writes that are done once, or known not to be. A write whose answer is lost may have been done, may be done yet,
 * and what it did may have been undone by others before anybody looks, so the record alone cannot tell.
 *
 * Every write therefore also writes a receipt, a key that one write at a time of one store has to itself, under the
 * condition that the receipt is as the write before left it. A repeat is the same transaction: at most one sending of
 * a write is ever carried out, and the receipt says whether one was. Where the other conditions fail they fail for good, since
 * they name revisions. What cannot be answered is `outcome-unknown`, and its receipt is not used again.
 */

import { randomBytes } from 'node:crypto';
import { RegistrarError } from '../../errors.ts';
import { readTransaction } from './answers.ts';
import type { Found, Response } from './answers.ts';
import { endOf, get, isUnchanged, put, range, remove, removePrefixBody, transactionBody } from './bodies.ts';
import type { Compare, Keys, Operation } from './bodies.ts';
import type { EtcdClient } from './client.ts';

export interface Write {
  /** Once false it stays false: that a key is as some revision left it. Or nothing, and conditions are within `success`. */
  readonly compare: readonly Compare[];
  readonly success: readonly Operation[];
  /** What to look at if it is not done. */
  readonly look: readonly string[];
}

export type Outcome =
  /** At that revision, with the responses to `success`; if that answer was lost, with what is to be seen now. */
  | { readonly isDone: true; readonly revision: string; readonly responses: readonly Response[]; readonly found?: undefined }
  | { readonly isDone: true; readonly revision: string; readonly responses?: undefined; readonly found: Looked }
  /** Nothing was done and nothing will be. */
  | { readonly isDone: false; readonly responses?: undefined; readonly found: Looked };

/** What was looked at, as it is now. */
type Looked = readonly (Found | undefined)[];

interface Receipt {
  readonly key: string;
  /** That wrote it last. */
  revision: string;
  writes: number;
}

/** A store that ended without clearing its receipts away leaves them so long: nothing is on its way any more by then. */
const leftMsMin = 24 * 3_600_000;
const sweptMax = 100;
const clearMsMax = 1_000;

export class Receipts {
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #now: () => Date;
  readonly #prefix: string;
  readonly #free: Receipt[] = [];
  #made = 0;
  /** Some sending may still be on its way. */
  #isInDoubt = false;

  constructor(client: EtcdClient, keys: Keys, now: () => Date) {
    this.#client = client;
    this.#keys = keys;
    this.#now = now;
    this.#prefix = `${keys.receipts}${randomBytes(9).toString('base64url')}/`;
  }

  /** Rejects as the client does. */
  async write(write: Write, deadline: number): Promise<Outcome> {
    for (;;) {
      const receipt = this.#free.pop() ?? { key: `${this.#prefix}${this.#made++}`, revision: '0', writes: 0 };
      const outcome = await this.#write(write, receipt, deadline);
      if (outcome !== 'lost') return outcome;
    }
  }

  /** 'lost' if the receipt is not as it was left and nothing was done: somebody has removed it. */
  async #write({ compare, success, look }: Write, receipt: Receipt, deadline: number): Promise<Outcome | 'lost'> {
    const mark = ++receipt.writes;
    const body = transactionBody({
      compare: [...compare, isUnchanged(receipt.key, receipt.revision)],
      success: [...success, put(receipt.key, `${mark} ${this.#now().toISOString()}`)],
      failure: [...look, receipt.key].map(get),
    });
    const { json, isRepeat } = await this.#client.call({ path: '/v3/kv/txn', body, deadline }).catch((error: unknown) => {
      const isUnknown = error instanceof RegistrarError && error.code === 'outcome-unknown';
      this.#isInDoubt ||= isUnknown;
      if (!isUnknown) this.#free.push(receipt);
      throw error;
    });
    this.#isInDoubt ||= isRepeat;
    const { succeeded, revision, responses } = readTransaction(json);
    if (succeeded) return this.#settled(receipt, revision, { isDone: true, revision, responses: responses.slice(0, success.length) });
    const found = responses.map((response) => response.found[0]);
    const seen = found.pop();
    if ((seen?.revision ?? '0') === receipt.revision) return this.#settled(receipt, receipt.revision, { isDone: false, found });
    if (seen?.value.startsWith(`${mark} `)) return this.#settled(receipt, seen.revision, { isDone: true, revision: seen.revision, found });
    if (!isRepeat) return 'lost';
    throw new RegistrarError('outcome-unknown', `The receipt of a write was removed from etcd: it may or may not have been done`);
  }

  #settled(receipt: Receipt, revision: string, outcome: Outcome): Outcome {
    receipt.revision = revision;
    this.#free.push(receipt);
    return outcome;
  }

  /** Removes what stores left that ended without `clear`, some of it. */
  async sweep(): Promise<void> {
    const { receipts } = this.#keys;
    const deadline = this.#client.deadline();
    const all = readTransaction(await this.#client.transact({ success: [range(receipts, endOf(receipts), sweptMax)] }, deadline));
    for (const { key, value, revision } of all.responses[0]?.found ?? []) {
      const written = Date.parse(value.slice(value.indexOf(' ') + 1));
      if (!(this.#now().getTime() - written > leftMsMin)) continue;
      await this.#client.transact({ compare: [isUnchanged(key, revision)], success: [remove(key)] }, this.#client.deadline());
    }
  }

  /** At the end; what may still be carried out has to find its receipt. */
  async clear(): Promise<void> {
    if (this.#isInDoubt || this.#made === 0) return;
    await this.#client.ask('/v3/kv/deleterange', removePrefixBody(this.#prefix), performance.now() + clearMsMax);
  }
}
