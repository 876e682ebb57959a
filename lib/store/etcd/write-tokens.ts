/**
 * Writes that take effect exactly once or not at all, although a request may be sent several times, arrive late, and lose
 * its response.
 *
 * A write owns a write token, a key that no other write uses meanwhile. The first sending that etcd executes finds the token
 * as the previous write left it. It checks the conditions, and writes the result, `done` or `refused`, into the token in the
 * same transaction. Every other sending finds the token changed and does nothing, whenever it arrives. So the token tells
 * the result of a write whose response was lost. A token whose state is unknown is not used again.
 *
 * The put of `done` is not nested: etcd counts only such puts towards its storage quota.
 */

import { randomBytes } from 'node:crypto';
import { RegistrarError, hasCode } from '../../errors.ts';
import type { EtcdClient } from './client.ts';
import { get, isUnchanged, nested, put, rangeOf, remove, removeAll } from './gateway.ts';
import type { Compare, Keys, KeyValue, Operation } from './gateway.ts';

export interface ConditionalWrite {
  readonly conditions: readonly Compare[];
  readonly operations: readonly Operation[];
  /** The keys to read if a condition does not hold. */
  readonly readIfRefused: readonly string[];
}

export type WriteResult =
  | { readonly isDone: true }
  /** Nothing was written, and nothing will be. */
  | { readonly isDone: false; readonly found: readonly (KeyValue | undefined)[] };

interface WriteToken {
  readonly key: string;
  /** Of its last write; '0' before the first. */
  revision: string;
  writes: number;
}

/** Tokens of a store that ended without `clear` are kept so long: by then no request is on its way. */
const abandonedMs = 24 * 3_600_000;
const sweepMax = 100;
const clearMsMax = 1_000;

export class WriteTokens {
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #now: () => Date;
  /** Of this store alone. */
  readonly #prefix: string;
  readonly #free: WriteToken[] = [];
  #created = 0;
  /** A request may still arrive, and must find its token. */
  #isPending = false;

  constructor(client: EtcdClient, keys: Keys, now: () => Date) {
    this.#client = client;
    this.#keys = keys;
    this.#now = now;
    this.#prefix = `${keys.writeTokens}${randomBytes(9).toString('base64url')}/`;
  }

  /** Rejects as the client does. */
  async write(write: ConditionalWrite, deadline: number): Promise<WriteResult> {
    for (;;) {
      const token = this.#free.pop() ?? { key: `${this.#prefix}${this.#created++}`, revision: '0', writes: 0 };
      const result = await this.#writeWith(token, write, deadline);
      if (result !== 'token-removed') return result;
    }
  }

  async #writeWith(token: WriteToken, write: ConditionalWrite, deadline: number): Promise<WriteResult | 'token-removed'> {
    const { conditions, operations, readIfRefused } = write;
    const number = ++token.writes;
    const mark = (result: 'done' | 'refused'): Operation => put(token.key, `${number} ${result} ${this.#now().toISOString()}`);
    const unused = isUnchanged(token.key, token.revision);
    const transaction = {
      compare: [unused, ...conditions],
      success: [...operations, mark('done')],
      failure: [get(token.key), nested({ compare: [unused], success: [mark('refused')] }), ...readIfRefused.map(get)],
    };
    const { value, mayHaveRun } = await this.#client.write(transaction, deadline).catch((error: unknown) => {
      const isUnknown = hasCode(error, 'outcome-unknown');
      this.#isPending ||= isUnknown;
      if (!isUnknown) this.#free.push(token);
      throw error;
    });
    const { succeeded, revision, found: [tokenBefore, , ...others] } = value;
    if (succeeded) return this.#release(token, revision, { isDone: true });
    const refused = { isDone: false, found: others.map(([keyValue]) => keyValue) } as const;
    const before = tokenBefore?.[0];
    if ((before?.revision ?? '0') === token.revision) return this.#release(token, revision, refused);
    if (before?.value.startsWith(`${number} refused `)) return this.#release(token, before.revision, refused);
    if (before?.value.startsWith(`${number} done `)) return this.#release(token, before.revision, { isDone: true });
    if (!mayHaveRun) return 'token-removed';
    throw new RegistrarError('outcome-unknown', `The write token "${token.key}" was removed from etcd: the write may have been done.`);
  }

  #release(token: WriteToken, revision: string, result: WriteResult): WriteResult {
    token.revision = revision;
    this.#free.push(token);
    return result;
  }

  /** Removes abandoned tokens of other stores, at most 100. */
  async sweep(): Promise<void> {
    const deadline = this.#client.deadline();
    const { found } = await this.#client.transact({ success: [rangeOf(this.#keys.writeTokens, sweepMax)] }, deadline);
    const writtenBefore = this.#now().getTime() - abandonedMs;
    const success = (found[0] ?? [])
      .filter(({ value }) => Date.parse(value.slice(value.lastIndexOf(' ') + 1)) < writtenBefore)
      .map(({ key, revision }) => nested({ compare: [isUnchanged(key, revision)], success: [remove(key)] }));
    if (success.length > 0) await this.#client.transact({ success }, deadline);
  }

  /** Removes the tokens of this store when it closes. */
  async clear(): Promise<void> {
    if (this.#isPending || this.#created === 0) return;
    await this.#client.transact({ success: [removeAll(this.#prefix)] }, performance.now() + clearMsMax);
  }
}
