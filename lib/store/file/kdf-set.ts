/**
 * The kdfs that the lines of a file name. There are few, and mostly a line has that of the line before:
 * its bytes are compared where they have to be, and nothing is made of them. It forgets none before the
 * file is read anew.
 */

const quote = 0x22;
const c = 0x63;

/** `","registered":"2026-11-22T15:00:00.000Z","version":` stands behind a login, of one length in all lines. */
const toVersionBytes = 52;
/** `,"changed":"2026-11-22T15:00:00.000Z"` */
const changedBytes = 37;

const prefix = ',"kdf":"';

export class KdfSet {
  /** Each as it stands in a line, with the quote behind. */
  readonly #seen: Buffer[] = [];
  #last: Buffer = Buffer.alloc(1);
  #list: readonly string[] = [];

  /** In the order in which they were seen first. */
  get list(): readonly string[] {
    return this.#list;
  }

  /** Takes in the kdf of a user's line in `bytes`, whose login ends at `loginEnd`, and which itself ends at `end`. */
  see(bytes: Buffer, loginEnd: number, end: number): void {
    let at = loginEnd + toVersionBytes;
    while (bytes[at]! >= 0x30 && bytes[at]! <= 0x39) at++;
    if (bytes[at + 2] === c) at += changedBytes;
    at += prefix.length;
    if (isAt(bytes, at, this.#last)) return;
    for (const known of this.#seen) {
      if (!isAt(bytes, at, known)) continue;
      this.#last = known;
      return;
    }
    this.#add(bytes, loginEnd, end);
  }

  #add(bytes: Buffer, loginEnd: number, end: number): void {
    const from = bytes.indexOf(prefix, loginEnd);
    const to = bytes.indexOf(quote, from + prefix.length);
    if (from < 0 || to < 0 || to >= end) return;
    this.#last = Buffer.from(bytes.subarray(from + prefix.length, to + 1));
    const kdf = this.#last.toString('utf8', 0, this.#last.length - 1);
    if (this.#list.includes(kdf)) return;
    this.#seen.push(this.#last);
    this.#list = [...this.#list, kdf];
  }
}

/** Compared from the end: what differs, the iterations say, stands there. */
function isAt(bytes: Buffer, at: number, wanted: Buffer): boolean {
  for (let n = wanted.length - 1; n >= 0; n--) if (bytes[at + n] !== wanted[n]) return false;
  return true;
}
