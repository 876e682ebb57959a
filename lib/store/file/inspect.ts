/**
 * Reads every line of a file, without the lock and without a change, and gives the verdict on it with the counts that
 * `registrar check` prints. Other processes may write to it meanwhile.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { sameFile } from './crash-recovery.ts';
import { readDurableOffset } from './durable-offset.ts';
import type { FileSystem } from './file-system.ts';
import { bootId } from './identity.ts';
import { UserLog } from './user-log.ts';
import type { Damage } from './user-log.ts';
import { judge } from './verdict.ts';

export interface Inspection {
  readonly bytes: number;
  /** The header included. */
  readonly lines: number;
  readonly users: number;
  /** Obsolete lines: earlier states, and removals. */
  readonly deadLines: number;
  readonly batches: number;
  /** Bytes at the end that belong to a write in progress, or to one that was cut off. */
  readonly unfinishedBytes: number;
  /** Why the file is not opened. */
  readonly damage: Damage | undefined;
}

const pauseMs = 5;

/**
 * Rejects with `corrupt` if the header cannot be read. A tail that another process cuts off or writes on while it is read looks
 * damaged, so damage is reported when two looks in a row find the same.
 */
export async function inspect(fs: FileSystem, path: string): Promise<Inspection> {
  for (let before: Damage | undefined; ; await sleep(pauseMs)) {
    const found = await look(fs, path);
    const { damage } = found;
    if (damage === undefined || (damage.offset === before?.offset && damage.reason === before.reason)) return found;
    before = damage;
  }
}

async function look(fs: FileSystem, path: string): Promise<Inspection> {
  const log = UserLog.open(fs, path, { access: 'r' });
  try {
    const offset = readDurableOffset(fs, path);
    const { size } = log;
    const durableEnd = offset !== undefined && sameFile(offset, log) ? offset.end : 0;
    const verdict = await judge(log, durableEnd, size);
    const { end, lineCount: lines, batches, index: { size: users } } = log;
    const finished = verdict.state === 'sound' && offset?.boot === bootId && durableEnd > 0 ? durableEnd : end;
    return {
      bytes: size, lines, users, deadLines: lines - 1 - users, batches,
      unfinishedBytes: verdict.state === 'damaged' ? 0 : size - finished,
      damage: verdict.state === 'damaged' ? verdict.damage : undefined,
    };
  } finally {
    log.close();
  }
}
