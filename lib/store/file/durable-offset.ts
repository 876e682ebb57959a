/**
 * The durable offset: the length up to which the file is known to be on the disk, and the lowest id that is free there.
 * The holder of the lock overwrites it in place after fdatasync and before it answers; every other process reads it
 * before it answers a read, catches up to `end` and goes no further.
 *
 *   {"boot":"<boot id>","inode":<n>,"seed":"<8 hex>","end":<n>,"nextId":<n>,"crc":"<8 hex>"}   padded to 256 bytes
 *
 * It is a lower bound in any boot: what it counts was synced before, and the file is never cut below it. It is not
 * synced itself, so after a power cut it may be an older one, or unreadable. A reader that meets the overwriting
 * half-way sees a wrong checksum and reads again.
 */

import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { FileSystem } from './file-system.ts';
import { lockDirectoryOf } from './lock-directory.ts';
import { hex8 } from './record.ts';

export interface DurableOffset {
  readonly boot: string;
  readonly inode: number;
  /** The seed of the file's header: inode numbers are used again, seeds are not. */
  readonly seed: number;
  /** Bytes of the file that are durable. */
  readonly end: number;
  /** No id from here on was given in these bytes. */
  readonly nextId: number;
}

const offsetBytes = 256;
/** Overwriting 256 bytes of one page takes well under a microsecond. */
const triesMax = 1000;

export class DurableOffsetFile {
  readonly #fs: FileSystem;
  readonly #path: string;
  readonly #bytes = Buffer.alloc(offsetBytes);
  readonly #last = Buffer.alloc(offsetBytes);
  #lastOffset: DurableOffset | undefined;
  #fd: number | undefined;
  #isWritable = false;

  /** @param path of the users file. */
  constructor(fs: FileSystem, path: string) {
    this.#fs = fs;
    this.#path = join(lockDirectoryOf(path), 'durable');
  }

  /** The offset as it is now; undefined if there is none, or it is unreadable. */
  read(): DurableOffset | undefined {
    // A file that was removed would say the same for ever.
    if (this.#fd !== undefined && this.#fs.statFd(this.#fd).links === 0) this.close();
    if (this.#fd === undefined) {
      if (this.#fs.stat(this.#path) === undefined) return undefined;
      this.#fd = this.#fs.open(this.#path, 'r');
    }
    for (let n = 0; n < triesMax; n++) {
      this.#bytes.fill(0);
      this.#fs.read(this.#fd, this.#bytes, 0, offsetBytes, 0);
      // Mostly nothing has happened since the last look.
      if (this.#lastOffset !== undefined && this.#bytes.equals(this.#last)) return this.#lastOffset;
      const offset = decodeDurableOffset(this.#bytes);
      if (offset === undefined) continue;
      this.#bytes.copy(this.#last);
      this.#lastOffset = offset;
      return offset;
    }
    return undefined;
  }

  /** For the holder of the lock, so that `write` does not fail for want of a descriptor. */
  openForWriting(): number {
    if (this.#fd !== undefined && (!this.#isWritable || this.#fs.statFd(this.#fd).links === 0)) this.close();
    this.#fd ??= this.#fs.open(this.#path, this.#fs.stat(this.#path) === undefined ? 'wx+' : 'r+');
    this.#isWritable = true;
    return this.#fd;
  }

  /** For the holder of the lock, after fdatasync. */
  write(offset: DurableOffset): void {
    const bytes = encodeDurableOffset(offset);
    const written = this.#fs.writeNow(this.openForWriting(), bytes, 0);
    if (written !== bytes.length) throw new Error('the durable offset was written in part');
  }

  close(): void {
    if (this.#fd !== undefined) this.#fs.close(this.#fd);
    this.#fd = undefined;
    this.#isWritable = false;
    this.#lastOffset = undefined;
  }
}

/** The durable offset of a users file as it is now. */
export function readDurableOffset(fs: FileSystem, path: string): DurableOffset | undefined {
  const file = new DurableOffsetFile(fs, path);
  try {
    return file.read();
  } finally {
    file.close();
  }
}

export function encodeDurableOffset({ boot, inode, seed, end, nextId }: DurableOffset): Buffer {
  const open = JSON.stringify({ boot, inode, seed: hex8(seed), end, nextId }).slice(0, -1);
  const text = `${open},"crc":"${hex8(crc32(open))}"}`;
  if (text.length >= offsetBytes) throw new RangeError('the durable offset is too long');
  return Buffer.from(`${text.padEnd(offsetBytes - 1)}\n`, 'latin1');
}

const shape = /^(\{"boot":"([^"]*)","inode":(\d+),"seed":"([0-9a-f]{8})","end":(\d+),"nextId":(\d+)),"crc":"([0-9a-f]{8})"\} *\n$/;

export function decodeDurableOffset(bytes: Buffer): DurableOffset | undefined {
  const [, open = '', boot = '', inode, seed = '', end, nextId, crc = ''] = shape.exec(bytes.toString('latin1')) ?? [];
  if (crc === '' || crc32(open) !== Number.parseInt(crc, 16)) return undefined;
  return { boot, inode: Number(inode), seed: Number.parseInt(seed, 16), end: Number(end), nextId: Number(nextId) };
}
