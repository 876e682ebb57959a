/**
 * Maps a login to the place of its line: a hash table from a keyed hash of the login to the user's rank, and a
 * 16-byte entry for each rank: id, offset, hash. It is derived from the file and never written.
 *
 * A rank is the position of a user in the order of ids; the rank of a removed user stays unused until the file is
 * compacted. The hash is HalfSipHash-2-4 under a random key, so that clients cannot choose logins that collide. The
 * hash alone does not decide: the caller compares the login in the line.
 *
 * Memory: 16 bytes a rank and 4 a slot, with at most three slots of four in use: 21 to 27 bytes a user. The slots are
 * in 256 segments that grow one at a time, so that no insertion of a million users blocks for longer than 2 ms.
 */

import { halfSipHash } from './half-sip-hash.ts';

const entriesBits = 14;
const entriesPerBlock = 1 << entriesBits;
const wordsPerEntry = 4;
const segmentBits = 8;
const segmentCount = 1 << segmentBits;
const segmentSlotsMin = 8;
const two32 = 2 ** 32;

export class LoginIndex {
  readonly #key: readonly [number, number];
  /** By the upper bits of the hash. A slot has rank + 1, or 0 if it is free. */
  readonly #segments: Uint32Array[];
  readonly #segmentSizes = new Uint32Array(segmentCount);
  /** For each rank: id low, offset low, hash, id high 16 bits and offset high 16 bits. */
  readonly #blocks: Uint32Array[] = [];
  #ranks = 0;
  #size = 0;

  /**
   * @param key 64 random bits, as two unsigned 32-bit numbers.
   * @param usersExpected the number of users for which the table is made.
   */
  constructor(key: readonly [number, number], usersExpected = 0) {
    this.#key = key;
    let slots = segmentSlotsMin;
    while (usersExpected * 4 > slots * segmentCount * 3) slots *= 2;
    this.#segments = Array.from({ length: segmentCount }, () => new Uint32Array(slots));
  }

  /** The number of users. */
  get size(): number {
    return this.#size;
  }

  /** The number of users, and of those removed since the file was compacted. */
  get ranks(): number {
    return this.#ranks;
  }

  /** The highest id of any line, removals included; 0 if there is none. */
  get lastId(): number {
    return this.#ranks === 0 ? 0 : this.id(this.#ranks - 1);
  }

  hash(bytes: Uint8Array, start: number, end: number): number {
    return halfSipHash(this.#key[0], this.#key[1], bytes, start, end);
  }

  /** The rank of the first user with this hash that `matches`, or -1. */
  find(hash: number, matches: (rank: number) => boolean): number {
    const slots = this.#segmentOf(hash);
    const mask = slots.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const rank = slots[slot]! - 1;
      if (rank < 0) return -1;
      if (this.#hashOf(rank) === hash && matches(rank)) return rank;
    }
  }

  /** Adds a user, whose id must be above `lastId`. */
  add(hash: number, id: number, offset: number): void {
    if (id <= this.lastId) throw new RangeError('the ids of the index must ascend');
    const rank = this.#ranks++;
    if (rank >> entriesBits === this.#blocks.length) this.#blocks.push(new Uint32Array(entriesPerBlock * wordsPerEntry));
    const block = this.#blockOf(rank);
    const at = entryAt(rank);
    block[at] = id;
    block[at + 1] = offset;
    block[at + 2] = hash;
    block[at + 3] = (((id / two32) << 16) | (offset / two32)) >>> 0;
    this.#size++;
    const segment = hash >>> (32 - segmentBits);
    const used = ++this.#segmentSizes[segment]!;
    if (used * 4 > this.#segments[segment]!.length * 3) this.#grow(segment);
    insert(this.#segments[segment]!, hash, rank);
  }

  /** The user has a new line. */
  move(rank: number, offset: number): void {
    const block = this.#blockOf(rank);
    const at = entryAt(rank);
    block[at + 1] = offset;
    block[at + 3] = ((block[at + 3]! & 0xffff0000) | (offset / two32)) >>> 0;
  }

  /** Removes a user: entries that follow its slot move up, and its offset becomes 0. */
  remove(rank: number): void {
    const hash = this.#hashOf(rank);
    const slots = this.#segmentOf(hash);
    const mask = slots.length - 1;
    let hole = hash & mask;
    while (slots[hole] !== rank + 1) hole = (hole + 1) & mask;
    for (let slot = (hole + 1) & mask; slots[slot] !== 0; slot = (slot + 1) & mask) {
      const home = this.#hashOf(slots[slot]! - 1) & mask;
      // An entry may move to the hole if the hole lies between its home slot and its slot.
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue;
      slots[hole] = slots[slot]!;
      hole = slot;
    }
    slots[hole] = 0;
    this.move(rank, 0);
    this.#segmentSizes[hash >>> (32 - segmentBits)]!--;
    this.#size--;
  }

  id(rank: number): number {
    const block = this.#blockOf(rank);
    const at = entryAt(rank);
    return block[at]! + (block[at + 3]! >>> 16) * two32;
  }

  /** The offset of the user's line; 0 if the user was removed. */
  offset(rank: number): number {
    const block = this.#blockOf(rank);
    const at = entryAt(rank);
    return block[at + 1]! + (block[at + 3]! & 0xffff) * two32;
  }

  /** The first rank whose id is above `id`. */
  rankAfter(id: number): number {
    let low = 0;
    let high = this.#ranks;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.id(middle) <= id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #segmentOf(hash: number): Uint32Array {
    return this.#segments[hash >>> (32 - segmentBits)]!;
  }

  #blockOf(rank: number): Uint32Array {
    return this.#blocks[rank >> entriesBits]!;
  }

  #hashOf(rank: number): number {
    return this.#blockOf(rank)[entryAt(rank) + 2]!;
  }

  #grow(segment: number): void {
    const old = this.#segments[segment]!;
    const slots = new Uint32Array(old.length * 2);
    for (let slot = 0; slot < old.length; slot++) {
      const rank = old[slot]! - 1;
      if (rank >= 0) insert(slots, this.#hashOf(rank), rank);
    }
    this.#segments[segment] = slots;
  }
}

function insert(slots: Uint32Array, hash: number, rank: number): void {
  const mask = slots.length - 1;
  let slot = hash & mask;
  while (slots[slot] !== 0) slot = (slot + 1) & mask;
  slots[slot] = rank + 1;
}

function entryAt(rank: number): number {
  return (rank & (entriesPerBlock - 1)) * wordsPerEntry;
}
