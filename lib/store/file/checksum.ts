/**
 * Checks the checksums of many lines by one call of zlib over all their bytes: a call for each line costs
 * more than the checksum itself, and a million of them were a third of the time to open a file.
 *
 * CRC-32 is linear. From the checksum that a line says it has follows, by tables, the CRC-32 of the whole
 * line from any start, without a look at its bytes; from all of them, that of the whole piece. If zlib
 * finds another one, some line lies. If one line alone is wrong this cannot miss it: what follows from a
 * CRC is one to one. Errors in several lines cancel each other in one case of 2^32, as within one line.
 */

import { crc32 } from 'node:zlib';

/** The polynomial of CRC-32, reflected (ISO 3309). */
const polynomial = 0xedb88320;

/** How a line ends: its checksum, the brace, the newline. */
const seal = ',"crc":"00000000"}\n';
const digitsAt = seal.indexOf('0');
const digits = 8;

const sealSum = crc32(seal);
/** What each digit, at each place, changes in the checksum of the seal. */
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

export class ChecksumProof {
  /** For each length of a line: what a checksum becomes over as many zero bytes, by its four bytes. */
  readonly #shifts = new Map<number, Uint32Array>();
  readonly #sealShift = shiftTable(seal.length);

  /**
   * Whether the lines that fill `bytes[start, end)` all say their right checksum, started from `seed`.
   * False does not tell which one is wrong.
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

/**
 * The seed from which `sum` is the CRC-32 of `bytes`: there is exactly one. It tells the seed of a file
 * whose header cannot be read, from any of its lines.
 */
export function seedOf(bytes: Buffer, sum: number): number {
  // x has the order 2^32 - 1, so this is the inverse of x^(8 × bytes).
  const inverse = power(2 ** 32 - 1 - ((8 * bytes.length) % (2 ** 32 - 1)));
  return times(inverse, crc32(bytes) ^ sum) >>> 0;
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
    const column = times(factor, 1 << bit);
    for (let n = 0; n < size; n++) table[from + size + n] = table[from + n]! ^ column;
  }
  return table;
}

/** x^exponent modulo the polynomial, for an unsigned 32-bit exponent. */
function power(exponent: number): number {
  let factor = 1 << 31;
  for (let bit = 31; bit >= 0; bit--) {
    factor = times(factor, factor);
    if ((exponent >>> bit) & 1) factor = times(factor, 1 << 30);
  }
  return factor;
}

/** The product of two polynomials modulo CRC-32's, reflected: the highest bit is x^0. */
function times(a: number, b: number): number {
  let product = 0;
  for (let bit = 31; bit >= 0; bit--) {
    if ((a >>> bit) & 1) product ^= b;
    b = b & 1 ? (b >>> 1) ^ polynomial : b >>> 1;
  }
  return product;
}
