/**
 * The verdict on a file: sound, ended by a torn write, or damaged. Opening, writing, check and repair all ask here.
 *
 * At most one batch is ever not durable, so bytes that are no good line are the torn rest of the last write, which was
 * not acknowledged, or damage. They are damage if they lie below the durable offset, if a good line behind them belongs
 * to a batch that begins after them, or if they look complete: they end in a newline and contain no NUL, as an unwritten
 * block has. Without a durable offset, damage to the last batch that looks torn is not recognised.
 */

import { grouped } from '../../errors.ts';
import type { Damage, UserLog } from './user-log.ts';
import { checksumHolds, newScanned, scanLine } from './record.ts';

/** A batch is at most this long, by the store's limits, with room: nothing torn can be longer. */
const tornBytesMax = 64 << 20;

export type Verdict =
  | { readonly state: 'sound' }
  /** From the log's end on: to be quarantined and cut. */
  | { readonly state: 'torn' }
  /** The last line is complete but for its newline: `line` without it. */
  | { readonly state: 'unterminated'; readonly line: Buffer }
  | { readonly state: 'damaged'; readonly damage: Damage };

/**
 * Reads the log on to the offset `to` and judges it.
 * @param durableEnd how much of it was durable, as far as that is known, in this boot or another.
 */
export async function judge(log: UserLog, durableEnd = 0, to = log.size): Promise<Verdict> {
  const { size } = log;
  const damage = await log.advance(Math.min(to, size));
  if (damage === undefined) {
    if (size >= durableEnd) return { state: 'sound' };
    const reason = `is missing: the file ends there, though ${grouped(durableEnd)} bytes were durable`;
    return damaged({ offset: size, line: log.lineCount + 1, reason });
  }
  const { offset, reason } = damage;
  if (offset < durableEnd) return damaged({ ...damage, reason: `${reason}, though it was durable` });
  if (size - offset > tornBytesMax) return damaged(damage);
  const tail = log.bytes(offset, size);
  const end = tail.indexOf(0x0a);
  if (end >= 0 && tail.subarray(0, end).indexOf(0) < 0) return damaged(damage);
  if (end < 0) {
    const scanned = newScanned();
    const isLine = scanLine(tail, 0, tail.length, log.header.seed, scanned) === undefined;
    if (isLine && (scanned.batch === offset || scanned.batch === log.lastBatch)) return { state: 'unterminated', line: tail };
    // Its newline is another character. A torn write would leave NUL there, or nothing.
    if (tail.at(-1) !== 0 && checksumHolds(tail, 0, tail.length - 1, log.header.seed)) return damaged(damage);
  }
  if (hasLaterBatch(tail, offset, log.header.seed)) return damaged({ ...damage, reason: `${reason}, and later writes follow it` });
  return { state: 'torn' };
}

/** Whether a good line in `tail` belongs to a batch that begins after `offset`, where the tail begins. */
function hasLaterBatch(tail: Buffer, offset: number, seed: number): boolean {
  const scanned = newScanned();
  // A good line may follow a bad one whose newline is lost, so every beginning is tried.
  for (let start = tail.indexOf('{"id":'); start >= 0; start = tail.indexOf('{"id":', start + 1)) {
    const end = tail.indexOf(0x0a, start);
    if (end < 0) return false;
    if (scanLine(tail, start, end, seed, scanned) === undefined && scanned.batch > offset) return true;
  }
  return false;
}

function damaged(damage: Damage): Verdict {
  return { state: 'damaged', damage };
}
