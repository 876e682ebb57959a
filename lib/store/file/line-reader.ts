/**
 * Reads lines whose offsets are known, and verifies the checksum of each: a line that has changed since it was first
 * read is refused.
 *
 * A list reads its lines from two windows of 64 KB. Users that were never changed follow one another in the file, and
 * so, behind them, do the ones that were: with one window, each change of place would read 64 KB for one line.
 */

import { RegistrarError, grouped } from '../../errors.ts';
import { BulkChecksum } from './checksum.ts';
import type { FileSystem } from './file-system.ts';
import { checksumHolds, lineBytesMax, lineEnd, linesEnd } from './record.ts';

/** Most lines are shorter: one read for one user. */
const lineBytesUsual = 512;

const windowBytes = 1 << 16;

/** A line within `bytes[start, end)`, newline not included; valid until the next line is read. */
export interface Line {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

/** A part of the file in memory. */
interface Window {
  readonly bytes: Buffer;
  offset: number;
  length: number;
  /** Up to here, all checksums were verified together. */
  verified: number;
  /** The end of the line that was taken last: one that begins soon after it is read with those that follow. */
  lastEnd: number;
}

export class LineReader {
  readonly #fs: FileSystem;
  readonly #fd: number;
  readonly #path: string;
  readonly #seed: number;
  readonly #single = newWindow(lineBytesMax);
  /** The one that was used last is first. */
  #windows: Window[] | undefined;
  #checksums: BulkChecksum | undefined;
  #isClosed = false;

  constructor(fs: FileSystem, fd: number, path: string, seed: number) {
    this.#fs = fs;
    this.#fd = fd;
    this.#path = path;
    this.#seed = seed;
  }

  /** The line at `offset`, alone. No line reaches beyond `fileEnd`. */
  line(offset: number, fileEnd: number): Line {
    return this.#take(this.#single, offset, fileEnd, lineBytesUsual);
  }

  /** The line at `offset`, which is one of many in the order of ids. */
  nextLine(offset: number, fileEnd: number): Line {
    this.#windows ??= [newWindow(windowBytes), newWindow(windowBytes)];
    const [recent, other] = this.#windows as [Window, Window];
    const near = [recent, other].find((window) => offset >= window.offset && offset - window.lastEnd < lineBytesMax);
    const window = near ?? other;
    if (window !== recent) this.#windows = [other, recent];
    return this.#take(window, offset, fileEnd, near === undefined ? lineBytesUsual : windowBytes);
  }

  /** Reads `length` bytes; fewer only at the end of the file. */
  read(into: Buffer, length: number, position: number): number {
    // The number of a closed descriptor may be another file's by now.
    if (this.#isClosed) throw new RegistrarError('unavailable', `"${this.#path}" was replaced by a newer file`);
    let done = 0;
    for (let got = -1; done < length && got !== 0; done += got) {
      got = this.#fs.read(this.#fd, into, done, length - done, position + done);
    }
    return done;
  }

  /** From now on every read is refused. */
  close(): void {
    this.#isClosed = true;
  }

  #take(window: Window, offset: number, fileEnd: number, usualBytes: number): Line {
    const { bytes } = window;
    let start = offset - window.offset;
    let end = window !== this.#single && start >= 0 && start < window.length ? lineEnd(bytes, start, window.length) : -1;
    for (let wanted = usualBytes; end < 0; wanted = lineBytesMax) {
      window.length = this.read(bytes, Math.min(wanted, fileEnd - offset), offset);
      window.offset = offset;
      window.verified = wanted === windowBytes ? this.#verify(window) : 0;
      start = 0;
      end = lineEnd(bytes, 0, window.length);
      if (wanted >= lineBytesMax) break;
    }
    if (end < 0 || (end >= window.verified && !checksumHolds(bytes, start, end, this.#seed))) {
      const reason = 'has changed since it was first read: it fails its checksum';
      throw new RegistrarError('corrupt', `Cannot read "${this.#path}": the line at byte ${grouped(offset)} ${reason}`);
    }
    window.lastEnd = offset + end - start;
    return { bytes, start, end };
  }

  /** The end of the last complete line, if all lines before are good: then none of them is verified alone. */
  #verify({ bytes, length }: Window): number {
    const end = linesEnd(bytes, length);
    this.#checksums ??= new BulkChecksum();
    return this.#checksums.holds(bytes, 0, end, this.#seed) ? end : 0;
  }
}

function newWindow(length: number): Window {
  return { bytes: Buffer.allocUnsafeSlow(length), offset: -1, length: 0, verified: 0, lastEnd: -lineBytesMax };
}
