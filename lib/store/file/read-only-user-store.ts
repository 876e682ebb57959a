/**
 * The users of a file as they are when it is opened, for commands that only read. It takes no lock and creates nothing,
 * so it works on a read-only mount, on an immutable file, and beside services, whose later writes it does not see.
 */

import { RegistrarError } from '../../errors.ts';
import type { NdjsonPage, PublicUser, RecordPage, StoredUser, UserPage, UserStore } from '../../user-store.ts';
import { sameFile } from './crash-recovery.ts';
import { cannotRead } from './directory.ts';
import { readDurableOffset } from './durable-offset.ts';
import type { FileSystem } from './file-system.ts';
import { bootId } from './identity.ts';
import { inspect } from './inspect.ts';
import { UserLog, corruption } from './user-log.ts';
import { judge } from './verdict.ts';

export class ReadOnlyUserStore implements UserStore {
  readonly #log: UserLog;

  private constructor(log: UserLog) {
    this.#log = log;
  }

  /** Rejects with `corrupt` as opening for writing does, or with `cannot-start`. */
  static async open(fs: FileSystem, path: string): Promise<ReadOnlyUserStore> {
    let log: UserLog | undefined;
    try {
      log = UserLog.open(fs, path, { access: 'r' });
      const offset = readDurableOffset(fs, path);
      const isOwn = offset !== undefined && sameFile(offset, log);
      // Bytes behind the durable offset of this boot are of a write in progress, which may still fail.
      const end = isOwn && offset.boot === bootId ? offset.end : log.size;
      const verdict = await judge(log, isOwn ? offset.end : 0, end);
      const isDamaged = verdict.state === 'damaged';
      const damage = isDamaged || end < log.size ? (await inspect(fs, path)).damage : undefined;
      if (damage !== undefined) throw corruption(path, damage);
      if (!isDamaged) return new ReadOnlyUserStore(log);
      // Another process was about to recover the file.
      log.close();
      log = undefined;
      return await ReadOnlyUserStore.open(fs, path);
    } catch (error) {
      log?.close();
      throw cannotRead(path, error);
    }
  }

  get size(): number {
    return this.#log.index.size;
  }

  async findRecord(login: string): Promise<StoredUser | undefined> {
    return this.#log.users.findRecord(login);
  }

  findPublic(login: string): PublicUser | undefined {
    return this.#log.users.findPublic(login);
  }

  async page(after: string | undefined, limit: number): Promise<UserPage> {
    return this.#log.users.page(after, limit);
  }

  async ndjsonPage(after: string | undefined): Promise<NdjsonPage> {
    return this.#log.users.ndjsonPage(after);
  }

  async recordPage(after: string | undefined): Promise<RecordPage> {
    return this.#log.users.recordPage(after);
  }

  async lastId(): Promise<number> {
    return this.#log.nextId - 1;
  }

  kdfs(): readonly string[] {
    return this.#log.kdfs;
  }

  create(): Promise<never> {
    return refuseWrite();
  }

  createMany(): Promise<never> {
    return refuseWrite();
  }

  replace(): Promise<never> {
    return refuseWrite();
  }

  remove(): Promise<never> {
    return refuseWrite();
  }

  async close(): Promise<void> {
    this.#log.close();
  }
}

async function refuseWrite(): Promise<never> {
  throw new RegistrarError('unavailable', 'The users file is open for reading only.');
}
