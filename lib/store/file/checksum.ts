/**
 * CRC-32 is linear, which is used twice.
 *
 * The checksums of many lines are verified by one call of zlib: a call for each line doubles the time to open a file. From
 * the checksum that a line states follows, by tables, the CRC-32 of the whole line from any start, and from all of them
 * that of the chunk. If zlib finds another one, a checksum is wrong. If one line alone is wrong, this cannot miss it: what
 * follows from a CRC is one to one. Errors in several lines cancel each other in one case of 2^32, as within one line.
 *
 * And there is exactly one seed for the bytes and the checksum of a line: it identifies the file of a line whose header
 * cannot be read.
 */

import { crc32 } from 'node:zlib';

/** The polynomial of CRC-32, reflected (ISO 3309). */
const polynomial = 0xedb88320;

/** The end of a line: its checksum, the brace, the newline. */
const seal = ',"crc":"00000000"}\n';
const digitsAt = seal.indexOf('0');
const digits = 8;

const sealSum = crc32(seal);
/** The change of the seal's own checksum by each digit at each place. */
const digitSums = Uint32Array.from({ length: digits * 16 }, (_, n) => {
  const at = digitsAt + (n >> 4);
  return crc32(`${seal.slice(0, at)}${(n & 15).toString(16)}${seal.slice(at + 1)}`) ^ sealSum;
});

const notHex = 0xff;
const hexValues = Uint8Array.from({ length: 256 }, (_, byte) => {
  const value = '0123456789abcdef'.indexOf(String.fromCharCode(byte));
  return value < 0 ? notHex : value;
});

const newline = 0x0a;

export class BulkChecksum {
  /** For each length of a line: a table for what a checksum becomes over as many zero bytes. */
  readonly #shifts = new Map<number, Uint32Array>();
  readonly #sealShift = shiftTable(seal.length);

  /**
   * Whether the checksums of all lines in `bytes[start, end)`, started from `seed`, are right. False does not tell which
   * one is wrong.
   */
  holds(bytes: Buffer, start: number, end: number, seed: number): boolean {
    let expected = seed;
    let length = 0;
    let shift = this.#sealShift;
    for (let at = start; at < end; at += length) {
      const found = bytes.indexOf(newline, at) + 1;
      if (found === 0 || found > end || found - at <= seal.length) return false;
      if (found - at !== length) {
        length = found - at;
        shift = this.#shiftOf(length);
      }
      let stored = 0;
      let sum = sealSum;
      for (let n = 0, digit = found - seal.length + digitsAt; n < digits; n++, digit++) {
        const value = hexValues[bytes[digit]!]!;
        if (value === notHex) return false;
        stored = (stored << 4) | value;
        sum ^= digitSums[(n << 4) | value]!;
      }
      expected = sum ^ shifted(this.#sealShift, stored) ^ shifted(shift, expected ^ seed);
    }
    return crc32(bytes.subarray(start, end), seed) === expected >>> 0;
  }

  #shiftOf(length: number): Uint32Array {
    let table = this.#shifts.get(length);
    if (table === undefined) {
      table = shiftTable(length);
      this.#shifts.set(length, table);
    }
    return table;
  }
}

/** The seed with which `checksum` is the CRC-32 of `bytes`. */
export function seedOf(bytes: Buffer, checksum: number): number {
  // x has the order 2^32 - 1, so this is the inverse of x^(8 × bytes).
  const inverse = power(2 ** 32 - 1 - ((8 * bytes.length) % (2 ** 32 - 1)));
  return multiply(inverse, crc32(bytes) ^ checksum) >>> 0;
}

function shifted(table: Uint32Array, sum: number): number {
  return table[sum & 255]! ^ table[256 | ((sum >>> 8) & 255)]! ^ table[512 | ((sum >>> 16) & 255)]! ^ table[768 | (sum >>> 24)]!;
}

/** A table for `shifted`: multiplication by x^(8 × bytes) modulo the polynomial. */
function shiftTable(bytes: number): Uint32Array {
  const factor = power(8 * bytes);
  const table = new Uint32Array(4 * 256);
  for (let bit = 0; bit < 32; bit++) {
    const from = (bit >> 3) * 256;
    const size = 1 << (bit & 7);
    const column = multiply(factor, 1 << bit);
    for (let n = 0; n < size; n++) table[from + size + n] = table[from + n]! ^ column;
  }
  return table;
}

/** x^exponent modulo the polynomial, for an unsigned 32-bit exponent. */
function power(exponent: number): number {
  let factor = 1 << 31;
  for (let bit = 31; bit >= 0; bit--) {
    factor = multiply(factor, factor);
    if ((exponent >>> bit) & 1) factor = multiply(factor, 1 << 30);
  }
  return factor;
}

/** The product of two polynomials modulo that of CRC-32, reflected: the highest bit is x^0. */
function multiply(a: number, b: number): number {
  let product = 0;
  for (let bit = 31; bit >= 0; bit--) {
    if ((a >>> bit) & 1) product ^= b;
    b = b & 1 ? (b >>> 1) ^ polynomial : b >>> 1;
  }
  return product;
}
