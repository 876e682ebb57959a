/**
 * Reads the file that another process is compacting into while that grows, so that it is known when it
 * takes the old one's place: a million users would take a third of a second then, in which nobody could
 * be served. A small file is not worth it. Whatever goes wrong here only means that it is read later.
 */

import type { FileSystem } from './file-system.ts';
import { UserLog } from './log.ts';
import type { Mark } from './mark.ts';

/** Files of compaction are in the lock's directory, by the name of their maker. */
export const compactPrefix = '.compact-';

/** Below, reading it all takes 20 ms. */
const worthBytesMin = 16 << 20;

/** What is written in this time is read in a tenth of it. */
const lookMs = 100;

export interface SuccessorOptions {
  readonly fs: FileSystem;
  readonly path: string;
  readonly lockDirectory: string;
  /** The file of this process's own compaction needs no reading. */
  readonly identity: string;
  /** The file as it is now. */
  readonly current: () => UserLog | undefined;
}

export class Successor {
  readonly #options: SuccessorOptions;
  readonly #timer: NodeJS.Timeout;
  #log: UserLog | undefined;
  #reading: Promise<void> | undefined;

  constructor(options: SuccessorOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      this.#reading ??= this.#look().finally(() => (this.#reading = undefined));
    }, lookMs).unref();
  }

  /** The log that the mark is of, read as far as it was when it was last looked at, if it is this one. */
  async take(mark: Mark): Promise<UserLog | undefined> {
    // To wait for what is being read takes less than to read it again.
    await this.#reading;
    const log = this.#log;
    if (log?.inode !== mark.inode || log.header.seed !== mark.seed) return undefined;
    this.#log = undefined;
    return log;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#reading;
    this.#drop();
  }

  async #look(): Promise<void> {
    const { current } = this.#options;
    if ((current()?.end ?? 0) < worthBytesMin) return;
    try {
      if (this.#log?.isRemoved === true) this.#drop();
      this.#log ??= this.#open();
      await this.#advance();
    } catch {
      // It is gone, or is not what it should be: whoever puts it in place reads it again.
      this.#drop();
    }
  }

  async #advance(): Promise<void> {
    const { fs, path } = this.#options;
    const log = this.#log;
    const to = log?.size ?? 0;
    // Once it is in place others write to it, and what they have not made durable may be cut off again: it is
    // read up to its mark then, and not here. So much as it had before that is final.
    if (log === undefined || fs.stat(path)?.inode === log.inode) return;
    const damage = await log.advanceWhole(to);
    if (damage !== undefined) throw new Error(damage.reason);
  }

  #open(): UserLog | undefined {
    const { fs, path, lockDirectory, identity, current } = this.#options;
    const name = fs.list(lockDirectory).find((other) => other.startsWith(compactPrefix) && !other.endsWith(identity));
    return name === undefined ? undefined : UserLog.open(fs, path, { at: `${lockDirectory}/${name}`, users: current()?.index.size ?? 0 });
  }

  #drop(): void {
    this.#log?.close();
    this.#log = undefined;
  }
}
