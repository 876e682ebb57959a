/**
 * Creates that are asked for at once go to etcd together: one request with a transaction for each, so that the way
 * there and the sync of the disks are paid for once. Each is decided for itself: its login is free, and its id, or not.
 */

import { RegistrarError } from '../../errors.ts';
import type { StoredUser } from '../../user-store.ts';
import type { Found } from './answers.ts';
import { Batches, settle } from './batches.ts';
import { get, isAbsent, nested, operationsMax, put } from './bodies.ts';
import type { Keys } from './bodies.ts';
import type { Outcome, Receipts } from './receipts.ts';
import { encodeRecord } from './record.ts';

export type Created =
  | { readonly isDone: true }
  /** `owner` has the login now, and `hasId` says that somebody has the id; if neither is so, they were gone before they were seen. */
  | { readonly isDone: false; readonly owner: Found | undefined; readonly hasId: boolean };

/** Two keys are looked at for each, and the receipt. */
const limits = { batchMax: Math.floor(operationsMax / 2) - 4, batchesMax: 4 };

export class Creates {
  readonly #batches: Batches<StoredUser, Created>;

  constructor(receipts: Receipts, keys: Keys) {
    const keysOf = ({ login, id }: StoredUser): [record: string, entry: string] => [keys.user(login), keys.id(id)];
    this.#batches = new Batches(limits, async (batch, deadline) => {
      const success = batch.map(({ input: user }) => {
        const [record, entry] = keysOf(user);
        return nested({
          compare: [isAbsent(record), isAbsent(entry)],
          success: [put(record, encodeRecord(user)), put(entry, user.login)],
          failure: [get(record), get(entry)],
        });
      });
      const look = batch.flatMap(({ input }) => keysOf(input));
      const outcome = await receipts.write({ compare: [], success, look }, deadline);
      for (const [n, job] of batch.entries()) settle(job, () => resultOf(outcome, n));
    });
  }

  /** Two for one login are not asked for at once. Rejects as a write does. */
  add(user: StoredUser, deadline: number): Promise<Created> {
    return this.#batches.add(user, deadline);
  }
}

function resultOf(outcome: Outcome, n: number): Created {
  if (outcome.isDone && outcome.responses !== undefined) {
    const response = outcome.responses[n];
    if (response?.succeeded === true) return { isDone: true };
    const [owner, entry] = response?.responses.map(({ found }) => found[0]) ?? [];
    return { isDone: false, owner, hasId: entry !== undefined };
  }
  const [owner, entry] = outcome.found.slice(n * 2, n * 2 + 2);
  if (!outcome.isDone) return { isDone: false, owner, hasId: entry !== undefined };
  // The batch was carried out and its answer lost, so it is told from what is there now. Whatever it made says so,
  // also when it was changed since; and who was there before it still was when it came.
  if (entry?.created === outcome.revision) return { isDone: true };
  const wasThere = [owner, entry].some((found) => found !== undefined && BigInt(found.created) < BigInt(outcome.revision));
  if (wasThere) return { isDone: false, owner, hasId: entry !== undefined };
  throw new RegistrarError('outcome-unknown', 'The user may have been created, and removed by somebody since: look, or send it again');
}
