/**
 * Ids that are never given twice: a counter in etcd says which is the first that nobody was given, and is raised by
 * compare-and-set, a block at a time, before any of the block is used. A store that is killed wastes what it
 * had left. The counter also holds the mark of who raised it last, so that a lost answer wastes nothing.
 */

import { randomBytes } from 'node:crypto';
import { RegistrarError } from '../../errors.ts';
import { keptIdMax } from '../decide.ts';
import { readOne, readTransaction } from './answers.ts';
import { get, getBody, isUnchanged, put } from './bodies.ts';
import type { Keys } from './bodies.ts';
import type { EtcdClient } from './client.ts';

const blockIdsMin = 16;
const blockIdsMax = 4_096;
/** A block that lasted less is too small. */
const blockMsMin = 1_000;

export class Ids {
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  /** Given back unused, the smallest last. */
  readonly #unused: number[] = [];
  #next = 1;
  #end = 1;
  #block = blockIdsMin;
  #filledAt = -Infinity;
  #filling: { readonly deadline: number; readonly done: Promise<void> } | undefined;

  constructor(client: EtcdClient, keys: Keys) {
    this.#client = client;
    this.#keys = keys;
  }

  /** Rejects as the client does. */
  async take(deadline: number): Promise<number> {
    for (;;) {
      const unused = this.#unused.pop();
      if (unused !== undefined) return unused;
      if (this.#next < this.#end) return this.#next++;
      const filling = (this.#filling ??= { deadline, done: this.#fill(deadline).finally(() => (this.#filling = undefined)) });
      await filling.done.catch((error: unknown) => {
        // Whoever has more time than the one who asked first asks again.
        if (filling.deadline >= deadline) throw error;
      });
    }
  }

  /** For an id that no write was done with, nor can be done any more. */
  giveBack(id: number): void {
    const at = this.#unused.findIndex((other) => other < id);
    this.#unused.splice(at < 0 ? this.#unused.length : at, 0, id);
  }

  /** An id that was never to be given is somebody's: the counter was put back, and it has to get ahead again. */
  skipBlock(): void {
    this.#next = this.#end;
    this.#unused.length = 0;
    this.#block = blockIdsMax;
    this.#filledAt = performance.now();
  }

  /**
   * Those of the ids that nobody can have been given, which are the caller's from now on.
   * @param wanted distinct.
   */
  async reserve(wanted: readonly number[], deadline: number): Promise<ReadonlySet<number>> {
    const fit = wanted.filter((id) => id <= keptIdMax);
    if (fit.length === 0) return new Set();
    const highest = fit.reduce((max, id) => Math.max(max, id), 0);
    const from = await this.#raise((next) => (highest < next ? undefined : highest + 1), deadline);
    return new Set(from === undefined ? [] : fit.filter((id) => id >= from));
  }

  async #fill(deadline: number): Promise<void> {
    const isSoon = performance.now() - this.#filledAt < blockMsMin;
    this.#block = Math.max(blockIdsMin, Math.min(blockIdsMax, isSoon ? this.#block * 2 : this.#block / 2));
    const from = await this.#raise((next) => next + this.#block, deadline);
    if (from === undefined) return;
    this.#next = from;
    this.#end = from + this.#block;
    this.#filledAt = performance.now();
  }

  /**
   * Raises the counter to what `to` makes of it; undefined is: leave it.
   * @returns where it was: all from there up to where it is now are the caller's; undefined if it was left.
   */
  async #raise(to: (next: number) => number | undefined, deadline: number): Promise<number | undefined> {
    const { counter } = this.#keys;
    for (;;) {
      const now = readOne(await this.#client.ask('/v3/kv/range', getBody(counter), deadline));
      const from = now === undefined ? 1 : readCounter(now.value);
      const next = to(from);
      if (next === undefined) return undefined;
      if (next > Number.MAX_SAFE_INTEGER) throw new RegistrarError('storage-full', `The ids are used up: the next one would be ${next}`);
      const value = `${next} ${randomBytes(9).toString('base64url')}`;
      const transaction = {
        compare: [isUnchanged(counter, now?.revision ?? '0')],
        success: [put(counter, value)],
        failure: [get(counter)],
      };
      const answer = readTransaction(await this.#client.transact(transaction, deadline));
      // An answer may have been lost, and the repeat found the counter raised by what it repeats.
      if (answer.succeeded || answer.responses[0]?.found[0]?.value === value) return from;
    }
  }
}

/** The counter's value: the first id that was never given. */
export function readCounter(value: string): number {
  const next = Number(/^([1-9]\d{0,15}) /.exec(value)?.[1]);
  if (!Number.isSafeInteger(next)) {
    const rule = 'it has to be a number above every id ever given, and a blank';
    throw new RegistrarError('corrupt', `Cannot read the counter of ids in etcd, "next-id" under the prefix: ${rule}`);
  }
  return next;
}
