/**
 * Takes users in from elsewhere, line by line, with a result for each line in order.
 *
 * What is said to be added is durable. Where it is interrupted, by a signal or a full disk, it is run again from the
 * beginning: whoever is there already and is the same is left alone. It never changes a user. In memory are the lines
 * of two batches, whatever the input; a dry run remembers some 100 bytes for each user to find those that come twice.
 */

import { createHash } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import type { PasswordPolicy } from '../password-policy.ts';
import type { ForeignFormat } from '../password/foreign-hash.ts';
import type { Credential } from '../user.ts';
import type { Arrival, StoredUser, UserStore } from '../user-store.ts';
import { readLines } from './lines.ts';
import type { Line } from './lines.ts';
import { parseNewcomer } from './newcomer.ts';
import type { Hashed, InClear, Newcomer } from './newcomer.ts';

export type ImportResult =
  /** `detail` says so if it could not have the id that it had elsewhere. In a dry run there is no id. */
  | { readonly line: number; readonly outcome: 'added'; readonly login: string; readonly id?: number; readonly detail?: string }
  | { readonly line: number; readonly outcome: 'unchanged'; readonly login: string; readonly id?: number }
  /** The login is another user's. */
  | { readonly line: number; readonly outcome: 'refused'; readonly login: string; readonly detail: string }
  | { readonly line: number; readonly outcome: 'invalid'; readonly detail: string };

interface VerifyOptions {
  readonly signal?: AbortSignal | undefined;
  readonly kdfs: readonly string[];
}

export interface ImportOptions {
  readonly store: Pick<UserStore, 'find' | 'createMany'>;
  /** Waits for its workers as long as it takes. */
  readonly hasher: {
    hash(password: string, signal?: AbortSignal): Promise<Credential>;
    verify(password: string, credential: Credential, options: VerifyOptions): Promise<boolean>;
  };
  readonly policy: PasswordPolicy;
  readonly now: () => Date;
  /** How the lines' hashes are written, if not as here. */
  readonly from: ForeignFormat | undefined;
  /** Says what would happen, and writes nothing. */
  readonly isDryRun: boolean;
  /** What is being written is finished still. */
  readonly signal?: AbortSignal;
}

/** What is durable together; the time of one sync is shared by so many. */
const linesMax = 4_000;

/** Each takes a tenth of a second of a core: so many are hashed again where it was killed between. */
const clearLinesMax = 64;

interface Planned {
  readonly line: number;
  readonly newcomer: Newcomer | { readonly problem: string };
}

/**
 * Results as they become durable, in the order of the lines. Ends early when the signal comes; rejects with what
 * the store or the input does, after all that is durable has been told.
 */
export async function* importLines(input: AsyncIterable<Uint8Array>, options: ImportOptions): AsyncGenerator<readonly ImportResult[]> {
  // Each hash that waits listens to it: Node would take more than ten for a leak, and say so.
  if (options.signal !== undefined) setMaxListeners(0, options.signal);
  const carryOut = options.isDryRun ? rehearsal(options) : (batch: readonly Planned[]) => addAll(batch, options);
  let writing: Promise<readonly ImportResult[]> | undefined;
  let failure: { readonly error: unknown } | undefined;
  const batches = batchesOf(input, options);
  try {
    while (!options.signal?.aborted) {
      // The next lines are read and looked into while those before are synced.
      const reading = batches.next().catch((error: unknown) => {
        failure = { error };
      });
      const results = await settled(writing, options.signal);
      writing = undefined;
      if (results.length > 0) yield results;
      const next = await reading;
      if (next === undefined || next.done === true) break;
      writing = carryOut(next.value);
      writing.catch(() => undefined);
    }
    const results = await settled(writing, options.signal);
    if (results.length > 0) yield results;
  } finally {
    await batches.return(undefined).catch(() => undefined);
  }
  if (failure !== undefined && !options.signal?.aborted) throw failure.error;
}

async function settled(writing: Promise<readonly ImportResult[]> | undefined, signal: AbortSignal | undefined) {
  try {
    return (await writing) ?? [];
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return [];
    throw error;
  }
}

/** Lines that were looked into, as many as are carried out together. */
async function* batchesOf(input: AsyncIterable<Uint8Array>, options: ImportOptions): AsyncGenerator<readonly Planned[]> {
  let batch: Planned[] = [];
  let clear = 0;
  for await (const lines of readLines(input)) {
    for (const line of lines) {
      const planned = plan(line, options);
      batch.push(planned);
      if ('clear' in planned.newcomer) clear++;
      if (batch.length < linesMax && clear < clearLinesMax) continue;
      yield batch;
      batch = [];
      clear = 0;
    }
  }
  if (batch.length > 0) yield batch;
}

function plan(line: Line, options: ImportOptions): Planned {
  const newcomer = 'problem' in line ? line : parseNewcomer(line.text, options);
  return { line: line.number, newcomer };
}

async function addAll(batch: readonly Planned[], options: ImportOptions): Promise<readonly ImportResult[]> {
  const { store } = options;
  const now = options.now().toISOString();
  const prepared = batch.some(({ newcomer }) => 'clear' in newcomer)
    ? await everyOne(batch, async (planned) => prepare(planned, now) ?? prepareClear(planned, now, options))
    : batch.map((planned) => prepare(planned, now));
  const arrivals = prepared.filter((one): one is Arrival => one !== undefined && !('outcome' in one));
  const outcomes = arrivals.length === 0 ? [] : await store.createMany(arrivals);
  const results: ImportResult[] = [];
  let at = 0;
  for (const [n, one] of prepared.entries()) {
    const { line, newcomer } = batch[n]!;
    if (one !== undefined && 'outcome' in one) {
      results.push(one);
      continue;
    }
    const { created, user } = outcomes[at]!;
    const wanted = arrivals[at++]!.id;
    if (created) results.push(added(line, user, wanted));
    else if (!('problem' in newcomer)) results.push(await told(line, newcomer, user, options));
  }
  return results;
}

function isDated(newcomer: Hashed): newcomer is Hashed & { readonly registered: string } {
  return newcomer.registered !== undefined;
}

/** What takes no time: whoever comes in clear is left to `prepareClear`. */
function prepare({ line, newcomer }: Planned, now: string): Arrival | ImportResult | undefined {
  if ('problem' in newcomer) return { line, outcome: 'invalid', detail: newcomer.problem };
  if ('clear' in newcomer) return undefined;
  return isDated(newcomer) ? newcomer : { ...newcomer, registered: now };
}

/** A taken login costs no hash but that of the comparison. */
async function prepareClear({ line, newcomer }: Planned, now: string, options: ImportOptions): Promise<Arrival | ImportResult | undefined> {
  if (!('clear' in newcomer)) return undefined;
  const { login, registered = now, clear } = newcomer;
  const owner = await options.store.find(login);
  if (owner !== undefined) return told(line, newcomer, owner, options);
  return { login, registered, ...(await options.hasher.hash(clear, options.signal)) };
}

/** All at once, and none is under way any more when it rejects. */
async function everyOne<T, R>(values: readonly T[], act: (value: T, n: number) => Promise<R>): Promise<R[]> {
  const ended = await Promise.allSettled(values.map(act));
  return ended.map((one) => {
    if (one.status === 'rejected') throw one.reason;
    return one.value;
  });
}

function added(line: number, { login, id }: StoredUser, wanted: number | undefined): ImportResult {
  if (wanted === undefined || wanted === id) return { line, outcome: 'added', login, id };
  return { line, outcome: 'added', login, id, detail: `Id ${wanted} was, or may have been, given here already: it became ${id}` };
}

/** The login is somebody's: of who came with this line already, or of another user? */
async function told(line: number, newcomer: Newcomer, owner: StoredUser, options: ImportOptions): Promise<ImportResult> {
  const { login, id, registered } = owner;
  if (await isSame(newcomer, owner, options)) return { line, outcome: 'unchanged', login, id };
  return { line, outcome: 'refused', login, detail: `The login "${login}" is that of user ${id}, who was registered ${registered}` };
}

/**
 * Who has signed in, or changed the password, has another hash since, and is the same still: then the millisecond of
 * the registration tells. Whoever is here in an earlier state is not taken for the same: nothing is changed by an import.
 */
async function isSame(newcomer: Newcomer, owner: StoredUser, { hasher, signal }: ImportOptions): Promise<boolean> {
  const isRegisteredThen = newcomer.registered === owner.registered;
  if ('clear' in newcomer) return isRegisteredThen || hasher.verify(newcomer.clear, owner, { signal, kdfs: [] });
  const isHash = newcomer.kdf === owner.kdf && newcomer.password === owner.password;
  return owner.version >= (newcomer.version ?? 1) && (isRegisteredThen || isHash);
}

/** What would happen: nothing is hashed, and a line that comes twice is known by a digest of what it says. */
function rehearsal(options: ImportOptions): (batch: readonly Planned[]) => Promise<readonly ImportResult[]> {
  const seen = new Map<string, string>();
  const one = async ({ line, newcomer }: Planned): Promise<ImportResult> => {
    if ('problem' in newcomer) return { line, outcome: 'invalid', detail: newcomer.problem };
    const { login } = newcomer;
    const owner = await options.store.find(login);
    if (owner !== undefined) return told(line, newcomer, owner, options);
    const digest = digestOf(newcomer);
    const before = seen.get(login);
    if (before === undefined) seen.set(login, digest);
    else if (before === digest) return { line, outcome: 'unchanged', login };
    else return { line, outcome: 'refused', login, detail: `The login "${login}" is that of an earlier line` };
    return { line, outcome: 'added', login };
  };
  return (batch) => everyOne(batch, one);
}

function digestOf(newcomer: InClear | Hashed): string {
  const said = 'clear' in newcomer ? newcomer.clear : `${newcomer.kdf}$${newcomer.password}`;
  return createHash('sha256').update(said).digest('base64').slice(0, 16);
}
