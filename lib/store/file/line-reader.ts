/**
 * Reads single lines of a file whose places are known, each checked: a line that has changed since it was
 * read first is not served. Lines that stand side by side are read and checked many at a time.
 */

import { RegistrarError, grouped } from '../../errors.ts';
import { ChecksumProof } from './checksum.ts';
import type { FileSystem } from './file-system.ts';
import { checksumHolds, lineBytesMax, lineEnd } from './record.ts';

/** Most lines are below this: one read for one user. */
const guessBytes = 512;

/** What is read where many lines are wanted in the order in which they stand. */
const windowBytes = 1 << 16;

/** From so many bytes on, lines are checked together: below, the tables for it would cost more. */
const provenTogetherMin = 1 << 14;

export class LineReader {
  /** What was read last. */
  readonly bytes = Buffer.allocUnsafe(windowBytes);
  readonly #fs: FileSystem;
  readonly #fd: number;
  readonly #path: string;
  readonly #seed: number;
  #proof: ChecksumProof | undefined;
  #isClosed = false;
  /** What is in `bytes`: those of the file from `#at` on, and up to `#proven` all its lines are good. */
  #at = -1;
  #length = 0;
  #proven = 0;

  constructor(fs: FileSystem, fd: number, path: string, seed: number) {
    this.#fs = fs;
    this.#fd = fd;
    this.#path = path;
    this.#seed = seed;
  }

  /**
   * Brings the line at `offset` into `bytes`, and returns where it stands there. No line is behind `fileEnd`.
   * @param isNear the one asked for before, in the same turn of the event loop, stands just before it.
   */
  line(offset: number, fileEnd: number, isNear = false): { start: number; end: number } {
    const isWithin = isNear && offset >= this.#at;
    let start = offset - this.#at;
    let end = isWithin ? lineEnd(this.bytes, start, this.#length) : -1;
    for (let wanted = isNear ? windowBytes : guessBytes; end < 0; wanted = lineBytesMax) {
      this.#length = this.read(this.bytes, Math.min(wanted, fileEnd - offset), offset);
      this.#at = offset;
      this.#proven = this.proven(this.bytes, 0, this.#length);
      start = 0;
      end = lineEnd(this.bytes, 0, this.#length);
      if (end < 0 && wanted >= lineBytesMax) break;
    }
    if (end < 0 || (end >= this.#proven && !checksumHolds(this.bytes, start, end, this.#seed))) {
      const reason = 'has changed since it was read first: it fails its checksum now';
      const where = `the line at byte ${grouped(offset)}`;
      throw new RegistrarError('corrupt', `Cannot read "${this.#path}": ${where} ${reason}`);
    }
    return { start, end };
  }

  /** The end of the last whole line in `bytes[start, end)`, if all of them are good; 0 if not, or if they are too few to tell so. */
  proven(bytes: Buffer, start: number, end: number): number {
    const whole = bytes.lastIndexOf(0x0a, end - 1) + 1;
    if (whole - start < provenTogetherMin) return 0;
    this.#proof ??= new ChecksumProof();
    return this.#proof.holds(bytes, start, whole, this.#seed) ? whole : 0;
  }

  /** Reads `length` bytes, less only at the end of the file. */
  read(into: Buffer, length: number, position: number): number {
    // Its number may be another file's by now.
    if (this.#isClosed) throw new RegistrarError('unavailable', `"${this.#path}" was replaced by a newer file`);
    let done = 0;
    for (let got = -1; done < length && got !== 0; done += got) {
      got = this.#fs.read(this.#fd, into, done, length - done, position + done);
    }
    return done;
  }

  /** Nothing is read any more. */
  close(): void {
    this.#isClosed = true;
  }
}
