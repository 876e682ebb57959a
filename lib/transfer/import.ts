/**
 * Imports users, line by line, with a result for each line in order. It never changes a user who exists.
 *
 * What is reported as added is durable. After an interruption, by a signal or a full disk, it is run again from the beginning:
 * a user who exists and is the same is left alone. Two users are the same if the dates that are given agree, and the id or
 * the hash does. A dry run is the same code on `dry-run.ts`. In memory are the lines of two batches, whatever the input.
 */

import { setMaxListeners } from 'node:events';
import { costFactorMax } from '../password/equalize-cost.ts';
import type { ForeignFormat } from '../password/foreign-hash.ts';
import type { PasswordPolicy } from '../password-policy.ts';
import type { ImportedUser, StoredUser } from '../user-store.ts';
import { dryRun } from './dry-run.ts';
import type { ImportHasher, ImportTarget } from './dry-run.ts';
import { costFactor, parseImportLine } from './import-line.ts';
import type { HashedUser, ImportLine, PlaintextUser } from './import-line.ts';
import { readLines } from './lines.ts';

export interface Added {
  readonly line: number;
  readonly outcome: 'added';
  readonly login: string;
  /** Absent in a dry run. */
  readonly id?: number;
  /** Says so if the user did not keep the id of the line. */
  readonly detail?: string;
  /** How many hashes of the service the hash costs, if that is more than `costFactorMax`. */
  readonly costs?: number;
}

export type ImportResult =
  | Added
  | { readonly line: number; readonly outcome: 'unchanged'; readonly login: string; readonly id?: number }
  /** The login belongs to another user. */
  | { readonly line: number; readonly outcome: 'refused'; readonly login: string; readonly detail: string }
  | { readonly line: number; readonly outcome: 'invalid'; readonly detail: string };

export interface ImportOptions extends ImportTarget {
  readonly policy: PasswordPolicy;
  readonly now: () => Date;
  /** The format of the hashes, if it is not that of this product. */
  readonly from: ForeignFormat | undefined;
  /** Whether a hash may cost more than `costFactorMax` times one of the service. */
  readonly isCostlyAllowed?: boolean;
  /** Whether each hash is compared with that of an empty password, which takes the time of a sign-in. */
  readonly isEmptyChecked?: boolean;
  /** Reports what would happen, and writes nothing. */
  readonly isDryRun: boolean;
  /** Ends it; what is being written is finished. */
  readonly signal?: AbortSignal;
}

/** Lines that become durable together, and share the time of one sync. */
const linesMax = 4_000;
/** The same for lines that take a hash each: after a kill so many are hashed again. */
const hashedLinesMax = 64;

interface Planned {
  readonly line: number;
  readonly user: ImportLine | { readonly problem: string };
}

interface Run extends ImportOptions {
  /** The first id that this run was given: users from there on were added by it. */
  firstAddedId: number;
}

/**
 * Results as they become durable, in the order of the lines. Ends early on the signal; rejects with the error of the store or
 * of the input, after everything durable has been reported.
 */
export async function* importLines(input: AsyncIterable<Uint8Array>, options: ImportOptions): AsyncGenerator<readonly ImportResult[]> {
  // Each hash that waits listens to the signal: Node would report more than ten as a leak.
  if (options.signal !== undefined) setMaxListeners(0, options.signal);
  const run: Run = { ...options, ...(options.isDryRun ? dryRun(options) : {}), firstAddedId: Infinity };
  let writing: Promise<readonly ImportResult[]> | undefined;
  let failure: { readonly error: unknown } | undefined;
  const batches = batchesOf(input, run);
  try {
    while (!run.signal?.aborted) {
      // The next lines are read and parsed while those before are synced.
      const reading = batches.next().catch((error: unknown) => {
        failure = { error };
      });
      const results = await finished(writing, run.signal);
      writing = undefined;
      if (results.length > 0) yield results;
      const next = await reading;
      if (next === undefined || next.done === true) break;
      writing = addAll(next.value, run);
      writing.catch(() => undefined);
    }
    const results = await finished(writing, run.signal);
    if (results.length > 0) yield results;
  } finally {
    await batches.return(undefined).catch(() => undefined);
  }
  if (failure !== undefined && !run.signal?.aborted) throw failure.error;
}

async function finished(writing: Promise<readonly ImportResult[]> | undefined, signal: AbortSignal | undefined) {
  try {
    return (await writing) ?? [];
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return [];
    throw error;
  }
}

/** Parsed lines, as many as are written together. */
async function* batchesOf(input: AsyncIterable<Uint8Array>, run: Run): AsyncGenerator<readonly Planned[]> {
  const rules = { from: run.from, policy: run.policy, kdf: run.hasher.kdf, isCostlyAllowed: run.isCostlyAllowed ?? false };
  let batch: Planned[] = [];
  let hashes = 0;
  for await (const lines of readLines(input)) {
    for (const line of lines) {
      const user = 'problem' in line ? line : parseImportLine(line.text, rules);
      batch.push({ line: line.number, user });
      if ('plaintext' in user || run.isEmptyChecked) hashes++;
      if (batch.length < linesMax && hashes < hashedLinesMax) continue;
      yield batch;
      batch = [];
      hashes = 0;
    }
  }
  if (batch.length > 0) yield batch;
}

async function addAll(batch: readonly Planned[], run: Run): Promise<readonly ImportResult[]> {
  const now = run.now().toISOString();
  const isHashing = run.isEmptyChecked || batch.some(({ user }) => 'plaintext' in user);
  const prepared = isHashing
    ? await everyOne(batch, async (planned) => (await prepareHash(planned, now, run)) ?? prepare(planned, now))
    : batch.map((planned) => prepare(planned, now));
  const users = prepared.filter((one): one is ImportedUser => !('outcome' in one));
  const outcomes = users.length === 0 ? [] : await run.store.createMany(users);
  for (const { created, user } of outcomes) if (created) run.firstAddedId = Math.min(run.firstAddedId, user.id);
  const results: ImportResult[] = [];
  let at = 0;
  for (const [n, one] of prepared.entries()) {
    const { line, user: planned } = batch[n]!;
    if ('outcome' in one || 'problem' in planned) {
      if ('outcome' in one) results.push(one);
      continue;
    }
    const { created, user } = outcomes[at++]!;
    results.push(created ? added(line, user, one.id, run) : await existing(line, planned, user, run));
  }
  return results;
}

/** A line that is to be written as it is, or its result. */
function prepare({ line, user }: Planned, now: string): ImportedUser | ImportResult {
  if ('problem' in user) return { line, outcome: 'invalid', detail: user.problem };
  if ('plaintext' in user) throw new TypeError('a plaintext password is hashed first');
  return hasDate(user) ? user : { ...user, registered: now };
}

function hasDate(user: HashedUser): user is HashedUser & { readonly registered: string } {
  return user.registered !== undefined;
}

/** What takes a hash; undefined for a line that `prepare` can take. A taken login costs no hash but that of the comparison. */
async function prepareHash({ line, user }: Planned, now: string, run: Run): Promise<ImportedUser | ImportResult | undefined> {
  const { signal, hasher, store } = run;
  if ('problem' in user) return undefined;
  if (!('plaintext' in user)) {
    const isEmpty = run.isEmptyChecked === true && user.kdf !== 'none' && (await hasher.verify('', user, { signal }));
    return isEmpty ? { line, outcome: 'invalid', detail: 'The hash is that of an empty password, which no sign-in accepts' } : undefined;
  }
  const { plaintext, ...rest } = user;
  const owner = await store.findRecord(user.login);
  if (owner !== undefined) return existing(line, user, owner, run);
  return { ...rest, registered: rest.registered ?? now, ...(await hasher.hash(plaintext, signal)) };
}

/** All at once; when it rejects, none is still running. */
async function everyOne<T, R>(values: readonly T[], act: (value: T) => Promise<R>): Promise<R[]> {
  const ended = await Promise.allSettled(values.map(act));
  return ended.map((one) => {
    if (one.status === 'rejected') throw one.reason;
    return one.value;
  });
}

function added(line: number, { login, id, kdf }: StoredUser, wanted: number | undefined, { hasher, isDryRun }: Run): ImportResult {
  const factor = kdf === hasher.kdf ? 1 : costFactor(kdf, hasher.kdf);
  const costs = factor > costFactorMax ? { costs: Number(factor.toFixed(1)) } : {};
  if (isDryRun) return { line, outcome: 'added', login, ...costs };
  if (wanted === undefined || wanted === id) return { line, outcome: 'added', login, id, ...costs };
  const detail = `Id ${wanted} has been assigned before, or may have been: the user has got ${id}`;
  return { line, outcome: 'added', login, id, detail, ...costs };
}

/** The result of a line whose login exists: of the same user, or of another one. */
async function existing(line: number, user: ImportLine, owner: StoredUser, run: Run): Promise<ImportResult> {
  const { login, id, registered } = owner;
  const isOfThisRun = id >= run.firstAddedId;
  if (await isSame(user, owner, isOfThisRun, run)) {
    return { line, outcome: 'unchanged', login, ...(run.isDryRun && isOfThisRun ? {} : { id }) };
  }
  const whose = isOfThisRun ? 'an earlier line' : `user ${id}, registered ${registered}`;
  // A sign-in renews the hash of a user who came without an id: that it is the same one cannot be known.
  const differs = user.registered === undefined || user.registered === registered ? 'password or hash' : 'date';
  return { line, outcome: 'refused', login, detail: `The login "${login}" belongs to ${whose}, with another ${differs}` };
}

/**
 * The id counts only of a user who existed before this run: which id an earlier line gets a dry run cannot know. A user
 * whose version is lower here than in the line is not the same: an import changes nothing.
 */
async function isSame(user: ImportLine, owner: StoredUser, isOfThisRun: boolean, { hasher, signal }: Run): Promise<boolean> {
  if (user.registered !== undefined && user.registered !== owner.registered) return false;
  if ('plaintext' in user) return isPasswordOf(user, owner, hasher, signal);
  if (owner.version < (user.version ?? 1)) return false;
  return (user.kdf === owner.kdf && user.password === owner.password) || (user.id === owner.id && !isOfThisRun);
}

function isPasswordOf({ plaintext }: PlaintextUser, owner: StoredUser, hasher: ImportHasher, signal: AbortSignal | undefined) {
  return hasher.verify(plaintext, owner, { signal });
}
