/**
 * Reads the kdf of each line of a user, for the list of the costliest ones. It costs little: mostly the kdf is the one
 * of the line before, at the same distance from the login, and only its bytes are compared.
 */

import { CostliestKdfs } from '../costliest-kdfs.ts';

const quote = 0x22;
const comma = 0x2c;
const k = 0x6b;
const prefixBytes = ',"kdf":"'.length;

export class KdfReader {
  readonly #costliest = new CostliestKdfs();
  /** The kdf that was read last, with the quote that follows. */
  #last = Buffer.alloc(0);
  #distance = 0;

  get costliest(): readonly string[] {
    return this.#costliest.list;
  }

  /** Reads the kdf of a user's line in `bytes`, whose login ends at `loginEnd` and which itself ends at `end`. */
  read(bytes: Buffer, loginEnd: number, end: number): void {
    if (this.#last.length > 0 && isAt(bytes, loginEnd + this.#distance, this.#last)) return;
    // A login has no quotes, and the kdf is the first field behind it whose name begins with a k.
    let at = loginEnd;
    while (at < end && (bytes[at] !== comma || bytes[at + 1] !== quote || bytes[at + 2] !== k)) at++;
    at += prefixBytes;
    const kdfEnd = bytes.indexOf(quote, at);
    if (kdfEnd < 0 || kdfEnd >= end) return;
    this.#last = Buffer.from(bytes.subarray(at, kdfEnd + 1));
    this.#distance = at - loginEnd;
    this.#costliest.add(bytes.toString('latin1', at, kdfEnd));
  }
}

/** Compared from the end, where kdfs differ. */
function isAt(bytes: Buffer, at: number, wanted: Buffer): boolean {
  for (let n = wanted.length - 1; n >= 0; n--) if (bytes[at + n] !== wanted[n]) return false;
  return true;
}
