/**
 * Where each user's line is: an open-addressing table from a keyed hash of the login to an ordinal, and
 * for each ordinal 16 bytes: id, offset, hash. It is derived from the file and never written.
 *
 * Memory: 16 bytes for an ordinal and 4 for a slot; at most three slots in four are taken and the table
 * doubles, so a user costs 21 to 27 bytes. An ordinal is the rank of a user by id; one that was removed
 * keeps its ordinal until the file is compacted. The hash is HalfSipHash-2-4 under a random key of the
 * process: nobody can choose logins that collide. It decides nothing alone: the line that it leads to
 * has the login in it.
 */

import { halfSipHash } from './half-sip-hash.ts';

const chunkBits = 14;
const chunkSize = 1 << chunkBits;
const words = 4;
const slotsMin = 1 << 10;
const two32 = 2 ** 32;

export class LoginIndex {
  readonly #key: readonly [number, number];
  /** Ordinal + 1 in each taken slot, 0 in a free one. */
  #slots: Uint32Array;
  /** For each ordinal: id low, offset low, hash, id high 16 bits and offset high 16 bits. */
  readonly #chunks: Uint32Array[] = [];
  #ordinals = 0;
  #live = 0;

  /**
   * @param key 64 random bits, as two unsigned 32-bit numbers.
   * @param users for so many it need not grow.
   */
  constructor(key: readonly [number, number], users = 0) {
    this.#key = key;
    let slots = slotsMin;
    while (users * 4 > slots * 3) slots *= 2;
    this.#slots = new Uint32Array(slots);
  }

  /** Users that are there. */
  get size(): number {
    return this.#live;
  }

  /** Users that are there, and those removed since the file was compacted. */
  get ordinals(): number {
    return this.#ordinals;
  }

  /** The highest id of any line, removals included; 0 if there is none. */
  get lastId(): number {
    return this.#ordinals === 0 ? 0 : this.id(this.#ordinals - 1);
  }

  /** Bytes of memory that the index holds. */
  get bytes(): number {
    return this.#slots.byteLength + this.#chunks.length * chunkSize * words * 4;
  }

  hash(bytes: Uint8Array, start: number, end: number): number {
    return halfSipHash(this.#key[0], this.#key[1], bytes, start, end);
  }

  /** The first ordinal under `hash` that `is` accepts, or -1. One call of `is` is one look at the file. */
  find(hash: number, is: (ordinal: number) => boolean): number {
    const mask = this.#slots.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const taken = this.#slots[slot]!;
      if (taken === 0) return -1;
      if (this.#hashOf(taken - 1) === hash && is(taken - 1)) return taken - 1;
    }
  }

  /** Adds a user, whose id must be higher than `lastId`. */
  add(hash: number, id: number, offset: number): void {
    if (id <= this.lastId) throw new RangeError('ids go up');
    if ((this.#live + 1) * 4 > this.#slots.length * 3) this.#grow();
    const ordinal = this.#ordinals++;
    if ((ordinal & (chunkSize - 1)) === 0 && ordinal >> chunkBits === this.#chunks.length) {
      this.#chunks.push(new Uint32Array(chunkSize * words));
    }
    const chunk = this.#chunk(ordinal);
    const at = (ordinal & (chunkSize - 1)) * words;
    chunk[at] = id;
    chunk[at + 1] = offset;
    chunk[at + 2] = hash;
    chunk[at + 3] = (((id / two32) << 16) | (offset / two32)) >>> 0;
    this.#live++;
    this.#place(hash, ordinal);
  }

  /** The user has a new line. */
  move(ordinal: number, offset: number): void {
    const chunk = this.#chunk(ordinal);
    const at = (ordinal & (chunkSize - 1)) * words;
    chunk[at + 1] = offset;
    chunk[at + 3] = ((chunk[at + 3]! & 0xffff0000) | (offset / two32)) >>> 0;
  }

  /** The user is gone: its slot is freed by moving later ones up, its offset becomes 0. */
  remove(ordinal: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let hole = this.#hashOf(ordinal) & mask;
    while (slots[hole] !== ordinal + 1) hole = (hole + 1) & mask;
    for (let slot = (hole + 1) & mask; slots[slot] !== 0; slot = (slot + 1) & mask) {
      const home = this.#hashOf(slots[slot]! - 1) & mask;
      // An entry may move to the hole if the hole lies between its home and where it is.
      if (((slot - home) & mask) >= ((slot - hole) & mask)) {
        slots[hole] = slots[slot]!;
        hole = slot;
      }
    }
    slots[hole] = 0;
    this.move(ordinal, 0);
    this.#live--;
  }

  id(ordinal: number): number {
    const chunk = this.#chunk(ordinal);
    const at = (ordinal & (chunkSize - 1)) * words;
    return chunk[at]! + (chunk[at + 3]! >>> 16) * two32;
  }

  /** Where the user's line begins; 0 if the user is gone. */
  offset(ordinal: number): number {
    const chunk = this.#chunk(ordinal);
    const at = (ordinal & (chunkSize - 1)) * words;
    return chunk[at + 1]! + (chunk[at + 3]! & 0xffff) * two32;
  }

  /** The first ordinal whose id is higher: ordinals are in the order of ids. */
  after(id: number): number {
    let low = 0;
    let high = this.#ordinals;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.id(middle) <= id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #chunk(ordinal: number): Uint32Array {
    return this.#chunks[ordinal >> chunkBits]!;
  }

  #hashOf(ordinal: number): number {
    return this.#chunk(ordinal)[(ordinal & (chunkSize - 1)) * words + 2]!;
  }

  #place(hash: number, ordinal: number): void {
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot] = ordinal + 1;
  }

  #grow(): void {
    this.#slots = new Uint32Array(this.#slots.length * 2);
    for (let ordinal = 0; ordinal < this.#ordinals; ordinal++) {
      if (this.offset(ordinal) !== 0) this.#place(this.#hashOf(ordinal), ordinal);
    }
  }
}
