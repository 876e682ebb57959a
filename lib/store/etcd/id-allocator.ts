/**
 * Ids that are never assigned twice. A counter in etcd holds the lowest id that was never assigned. It is raised by
 * compare-and-set before the ids below it are used: by a block for single users, which doubles while blocks are used up in less
 * than a second, and by the exact number for an import. A service that ends leaves the rest of its block unused.
 */

import { randomBytes } from 'node:crypto';
import { RegistrarError } from '../../errors.ts';
import { keptIdMax } from '../decide.ts';
import type { EtcdClient } from './client.ts';
import { isUnchanged } from './gateway.ts';

const blockIdsMin = 16;
const blockIdsMax = 4_096;
const blockMsMin = 1_000;

export class IdAllocator {
  readonly #client: EtcdClient;
  readonly #counter: string;
  #next = 1;
  #end = 1;
  #blockIds = blockIdsMin;
  #takenAt = -Infinity;
  #refill: { readonly deadline: number; readonly done: Promise<void> } | undefined;

  constructor(client: EtcdClient, counter: string) {
    this.#client = client;
    this.#counter = counter;
  }

  /** Rejects as the client does. */
  async take(deadline: number): Promise<number> {
    while (this.#next >= this.#end) {
      const refill = (this.#refill ??= { deadline, done: this.#takeBlock(deadline).finally(() => (this.#refill = undefined)) });
      await refill.done.catch((error: unknown) => {
        // A caller with more time than the one that started the refill tries again.
        if (refill.deadline >= deadline) throw error;
      });
    }
    return this.#next++;
  }

  /** An id for each of `wanted`, in order: the wanted one if it was never assigned, or a new one. */
  async takeMany(wanted: readonly (number | undefined)[], deadline: number): Promise<readonly number[]> {
    const from = await this.#raise((next) => assignIds(wanted, next).next, deadline);
    return assignIds(wanted, from).ids;
  }

  async #takeBlock(deadline: number): Promise<void> {
    const isShort = performance.now() - this.#takenAt < blockMsMin;
    const blockIds = isShort ? Math.min(this.#blockIds * 2, blockIdsMax) : blockIdsMin;
    this.#next = await this.#raise((next) => next + blockIds, deadline);
    this.#end = this.#next + blockIds;
    this.#blockIds = blockIds;
    this.#takenAt = performance.now();
  }

  /** Raises the counter to `to(counter)`. @returns what it was: the ids in between are the caller's. */
  async #raise(to: (next: number) => number, deadline: number): Promise<number> {
    for (;;) {
      const current = await this.#client.get(this.#counter, deadline);
      const from = current === undefined ? 1 : parseCounter(this.#counter, current.value);
      const next = to(from);
      // Every value is unique, so that a repeated request recognises its own.
      const value = `${next} ${randomBytes(9).toString('base64url')}`;
      const condition = isUnchanged(this.#counter, current?.revision ?? '0');
      if ((await this.#client.putIf(condition, this.#counter, value, deadline)) === value) return from;
    }
  }
}

/** @param next the lowest id that was never assigned. @returns the ids, and what `next` is afterwards. */
export function assignIds(wanted: readonly (number | undefined)[], next: number): { ids: readonly number[]; next: number } {
  const kept = new Set<number>();
  const ids = wanted.map((id) => {
    if (id === undefined || id < next || id > keptIdMax || kept.has(id)) return undefined;
    kept.add(id);
    return id;
  });
  let free = ids.reduce((above: number, id = 0) => Math.max(above, id + 1), next);
  return { ids: ids.map((id) => id ?? free++), next: free };
}

/** The lowest id that was never assigned. */
export function parseCounter(key: string, value: string): number {
  const next = Number(/^([1-9]\d{0,15}) /.exec(value)?.[1]);
  if (Number.isSafeInteger(next)) return next;
  throw new RegistrarError('corrupt', `The id counter "${key}" in etcd is not a number and a blank. ${remedy(key)}`);
}

export function counterBehind(key: string, id: number, login: string): RegistrarError {
  return new RegistrarError('corrupt', `The id counter "${key}" in etcd is too low: the id ${id} is that of "${login}". ${remedy(key)}`);
}

function remedy(key: string): string {
  return `Set it above every id: etcdctl put ${key} "NUMBER by-hand"`;
}
