/**
 * HalfSipHash-2-4 with a 64-bit key and a 32-bit result (Aumasson and Bernstein, SipHash, 2012, and the
 * authors' halfsiphash reference). A keyed hash for tables: without the key it is infeasible to find
 * inputs that collide. It is no signature.
 */

/** @returns an unsigned 32-bit number for `bytes[start, end)`. */
export function halfSipHash(k0: number, k1: number, bytes: Uint8Array, start: number, end: number): number {
  let v0 = k0 | 0;
  let v1 = k1 | 0;
  let v2 = 0x6c796765 ^ k0;
  let v3 = 0x74656462 ^ k1;
  const length = end - start;
  const whole = end - (length & 3);
  let at = start;
  for (let rounds = 0, word = 0, last = false; !last; ) {
    last = at >= whole;
    if (last) {
      word = length << 24;
      for (let n = 0; whole + n < end; n++) word |= bytes[whole + n]! << (8 * n);
    } else {
      word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
      at += 4;
    }
    v3 ^= word;
    // Two rounds for each word; after the last one four more, with v2 marked.
    for (rounds = last ? -2 : 0; rounds < (last ? 4 : 2); rounds++) {
      if (last && rounds === 0) {
        v0 ^= word;
        v2 ^= 0xff;
      }
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
    if (!last) v0 ^= word;
  }
  return (v1 ^ v3) >>> 0;
}
