/**
 * The durable mark: how far the file is known to be on the disk. The holder of the lock overwrites it in
 * place after fdatasync and before it answers; every other process reads it before it answers a read,
 * catches up to `end` and goes no further; nobody cuts the file below it.
 *
 *   {"boot":"<boot id>","inode":<n>,"seed":"<8 hex>","end":<n>,"crc":"<8 hex>"}   padded to 160 bytes
 *
 * It is never synced: after a reboot the boot id differs and it means nothing. A reader that meets the
 * overwriting half-way sees a wrong checksum and reads again.
 */

import { crc32 } from 'node:zlib';
import type { FileSystem } from './file-system.ts';

export interface Mark {
  readonly boot: string;
  readonly inode: number;
  /** The seed of the file's header: an inode number comes back, a seed does not. */
  readonly seed: number;
  /** Bytes of the file that are durable. */
  readonly end: number;
}

const markBytes = 160;
/** Overwriting 160 bytes of one page takes well under a microsecond. */
const triesMax = 1000;

export class DurableMark {
  readonly #fs: FileSystem;
  readonly #path: string;
  readonly #bytes = Buffer.alloc(markBytes);
  readonly #last = Buffer.alloc(markBytes);
  #lastMark: Mark | undefined;
  #fd: number | undefined;

  constructor(fs: FileSystem, path: string) {
    this.#fs = fs;
    this.#path = path;
  }

  /** The mark as it is now; undefined if there is none, or none that is whole. */
  read(): Mark | undefined {
    // A mark that was removed would say the same for ever.
    if (this.#fd !== undefined && this.#fs.statFd(this.#fd).links === 0) this.close();
    if (this.#fd === undefined) {
      if (this.#fs.stat(this.#path) === undefined) return undefined;
      this.#fd = this.#fs.open(this.#path, 'r+');
    }
    for (let n = 0; n < triesMax; n++) {
      this.#bytes.fill(0);
      this.#fs.read(this.#fd, this.#bytes, 0, markBytes, 0);
      // Mostly nothing has happened since the last look.
      if (this.#lastMark !== undefined && this.#bytes.equals(this.#last)) return this.#lastMark;
      const mark = decodeMark(this.#bytes);
      if (mark === undefined) continue;
      this.#bytes.copy(this.#last);
      this.#lastMark = mark;
      return mark;
    }
    return undefined;
  }

  /** For the holder of the lock, after fdatasync. */
  write(mark: Mark): void {
    if (this.#fd !== undefined && this.#fs.statFd(this.#fd).links === 0) this.close();
    this.#fd ??= this.#fs.open(this.#path, this.#fs.stat(this.#path) === undefined ? 'wx+' : 'r+');
    const bytes = encodeMark(mark);
    const written = this.#fs.writeNow(this.#fd, bytes, 0);
    if (written !== bytes.length) throw new Error('the durable mark was written in part');
  }

  close(): void {
    if (this.#fd !== undefined) this.#fs.close(this.#fd);
    this.#fd = undefined;
    this.#lastMark = undefined;
  }
}

export function encodeMark(mark: Mark): Buffer {
  const seed = mark.seed.toString(16).padStart(8, '0');
  const open = JSON.stringify({ boot: mark.boot, inode: mark.inode, seed, end: mark.end }).slice(0, -1);
  const crc = crc32(open).toString(16).padStart(8, '0');
  const text = `${open},"crc":"${crc}"}`;
  if (text.length >= markBytes) throw new RangeError('the durable mark is too long');
  return Buffer.from(`${text.padEnd(markBytes - 1)}\n`, 'latin1');
}

export function decodeMark(bytes: Buffer): Mark | undefined {
  const match = /^(\{"boot":"([^"]*)","inode":(\d+),"seed":"([0-9a-f]{8})","end":(\d+)),"crc":"([0-9a-f]{8})"\} *\n$/.exec(
    bytes.toString('latin1'),
  );
  if (match === null || crc32(match[1]!) !== Number.parseInt(match[6]!, 16)) return undefined;
  return {
    boot: match[2]!,
    inode: Number(match[3]),
    seed: Number.parseInt(match[4]!, 16),
    end: Number(match[5]),
  };
}
