/** The store on a simulated disk: failing calls, and damage to the file. */

import assert from 'node:assert/strict';
import { RegistrarError } from '../../lib/errors.ts';
import { encodeDurableOffset } from '../../lib/store/file/durable-offset.ts';
import { bootId } from '../../lib/store/file/identity.ts';
import { encodeHeader, encodeRemoval, encodeUser } from '../../lib/store/file/record.ts';
import { FileUserStore } from '../../lib/store/file/file-user-store.ts';
import type { StoredUser } from '../../lib/user-store.ts';
import { crashStates, powerCuts, randomFrom, record, wrongWith } from '../helper/simulator/crash-states.ts';
import type { CrashState } from '../helper/simulator/crash-states.ts';
import { MemoryDisk } from '../helper/simulator/memory-disk.ts';
import { MemoryFileSystem, calls } from '../helper/simulator/memory-file-system.ts';
import type { Call, Fault } from '../helper/simulator/memory-file-system.ts';
import { Ledger, Run, nothing, now, scenarios } from '../helper/simulator/scenario.ts';
import type { Operation } from '../helper/simulator/scenario.ts';
import { trial, trialCount } from '../helper/trial.ts';
import { newUser } from '../helper/user-store-contract.ts';

/** More of them with `make faults TRIALS=20000`, which is all. */
const trials = trialCount('TRIALS', 250);
const seed = trialCount('SEED', Date.now() % 1e9);

/** Who waits for the lock here waits for a process that has ended, and is not waited for long. */
const lockWaitMsMax = 30;

interface Scenario {
  readonly name: string;
  readonly from: Pick<CrashState, 'disk' | 'expectation'>;
  readonly operations: readonly Operation[];
}

interface Trial extends Scenario {
  readonly call: Call;
  readonly n: number;
  readonly fault: Fault;
  readonly isForEver: boolean;
}

/** What callers were told, counted. */
type Told = Record<string, number>;

type Faults = (call: Call) => Fault | undefined;

/** Ways in which a call can fail. */
function faultsOf(call: Call): readonly Fault[] {
  const codes = ['EIO', 'ENOSPC'];
  if (call === 'datasync') return codes.flatMap((code) => [{ code, isDropped: false }, { code, isDropped: true }]);
  if (call !== 'write' && call !== 'writeNow') return codes.map((code) => ({ code }));
  return [...codes.flatMap((code) => [{ code }, { code, part: 0.6 }, { code, part: 1 }]), { code: '', part: 0.4 }, { code: '', part: 0 }];
}

/**
 * Goes through a scenario on a disk that may fail. A process whose store has failed ends, and another one
 * begins; so it does where one cannot even begin, but once. Returns what is wrong, as soon as something is.
 */
async function live({ from, operations }: Scenario, faults: Faults, told: Told): Promise<{ wrong: string | undefined; left: typeof from }> {
  const { disk } = from;
  let { expectation } = from;
  let wrong: string | undefined;
  let next = 0;
  for (let refusals = 0; next < operations.length && refusals < 2 && wrong === undefined; ) {
    const fs = new MemoryFileSystem(disk, { fault: faults });
    await fs.bury();
    const ledger = new Ledger(expectation);
    let run: Run | undefined;
    try {
      run = await Run.open(fs, ledger, expectation.states.keys(), lockWaitMsMax);
      for (let isOver = false; next < operations.length && !isOver && wrong === undefined; ) {
        const asked = run.answers.length;
        await operations[next++]!(run);
        wrong = run.answers.includes('corrupt') ? 'a write was answered "corrupt"' : await run.misread();
        isOver = run.answers.slice(asked).some((answer) => answer === 'outcome-unknown' || answer === 'unavailable');
      }
    } catch (error) {
      refusals++;
      wrong = refusal(error);
    }
    for (const answer of run?.answers ?? []) told[answer] = (told[answer] ?? 0) + 1;
    await run?.close().catch((error: unknown) => (wrong ??= refusal(error)));
    expectation = ledger.at(fs.stepCount);
    fs.dispose();
  }
  return { wrong, left: { disk, expectation } };
}

/** A disk that fails may keep a store from opening, closing or answering, and is not taken for damage. */
function refusal(error: unknown): string | undefined {
  if (error instanceof RegistrarError) return error.code === 'corrupt' ? error.message : undefined;
  return /injected|wrote nothing/.test(String(error)) ? undefined : `not an error of the store: ${String(error)}`;
}

async function tryOne(trial: Trial, told: Told): Promise<string | undefined> {
  const counts = new Map<Call, number>();
  const faults: Faults = (call) => {
    const n = counts.get(call) ?? 0;
    counts.set(call, n + 1);
    return call === trial.call && (n === trial.n || (trial.isForEver && n > trial.n)) ? trial.fault : undefined;
  };
  const { wrong, left } = await live({ ...trial, from: { ...trial.from, disk: new MemoryDisk(trial.from.disk) } }, faults, told);
  if (wrong !== undefined) return wrong;
  // Now the disk is well again, and the next process begins, in this boot or in another one.
  const random = randomFrom(seed + trial.n);
  const now = await wrongWith({ what: '', ...left }, random);
  if (now !== undefined) return `afterwards ${now}`;
  const cuts = [...powerCuts(left.disk, random)];
  for (const [what, cut] of [...cuts.slice(0, 2), cuts[Math.floor(random() * cuts.length)]!]) {
    const later = await wrongWith({ what, disk: cut(), expectation: left.expectation }, random);
    if (later !== undefined) return `after a power cut (${what}) ${later}`;
  }
  return undefined;
}

/** The scenarios, and what a writer that died half-way, or whose machine did, leaves to the next. */
async function allScenarios(random: () => number): Promise<Scenario[]> {
  const fresh = { disk: new MemoryDisk(), expectation: nothing };
  const list = Object.entries(scenarios).map(([name, operations]) => ({ name, from: fresh, operations }));
  const recorded = await record(fresh, scenarios.batches!);
  for (const pattern of [/^killed during .* write 4\d+ .* 3\d+ bytes written/, /^power cut .* 4\d\d bytes of change \d+, and zeros/]) {
    const from = [...crashStates(recorded, random)].find(({ what }) => pattern.test(what));
    assert.ok(from !== undefined, String(pattern));
    list.push({ name: from.what, from, operations: scenarios['one after the other']!.slice(1) });
  }
  return list;
}

async function allTrials(random: () => number): Promise<Trial[]> {
  const list: Trial[] = [];
  for (const scenario of await allScenarios(random)) {
    const counts = new Map<Call, number>();
    const count: Faults = (call) => void counts.set(call, (counts.get(call) ?? 0) + 1);
    await live({ ...scenario, from: { ...scenario.from, disk: new MemoryDisk(scenario.from.disk) } }, count, {});
    for (const call of calls) {
      for (let n = 0; n < (counts.get(call) ?? 0); n++) {
        for (const fault of faultsOf(call)) for (const isForEver of [false, true]) list.push({ ...scenario, call, n, fault, isForEver });
      }
    }
  }
  return list;
}

async function tryMany(): Promise<{ tried: number; of: number; wrong: string[]; told: Told }> {
  const random = randomFrom(seed);
  const all = await allTrials(random);
  const chosen = all.map((trial) => ({ trial, at: random() })).sort((a, b) => a.at - b.at).slice(0, trials).map(({ trial }) => trial);
  const wrong: string[] = [];
  const told: Told = {};
  let tried = 0;
  const work = async (): Promise<void> => {
    while (tried < chosen.length && wrong.length < 10) {
      const trial = chosen[tried++]!;
      const found = await tryOne(trial, told);
      const { name, call, n, fault, isForEver } = trial;
      if (found !== undefined) wrong.push(`SEED=${seed}: ${name}: ${call} ${n}${isForEver ? ' and all after' : ''} ${JSON.stringify(fault)}: ${found}`);
    }
  };
  await Promise.all(Array.from({ length: 32 }, work));
  return { tried, of: all.length, wrong, told };
}

trial(`faults: whichever call fails, nothing is acknowledged that is lost, and nothing refused that is kept`, async (t) => {
  const { tried, of, wrong, told } = await tryMany();
  assert.deepEqual(wrong, []);
  t.diagnostic(`${tried} of ${of} faults, ${wrong.length} false answers, SEED=${seed}; told: ${JSON.stringify(told)}`);
});

/** More of them with `make faults`; beyond these they say nothing new. */
const damageTrials = Math.min(1_000, trialCount('TRIALS', 80));
const damageSeed = trialCount('SEED', Date.now() % 1e9);
const fileSeed = 0x5e0c41d7;

interface Made {
  readonly bytes: Buffer;
  /** Where each batch begins, and each line. */
  readonly batches: readonly number[];
  readonly lines: readonly number[];
  /** All users, and those that are not of the last batch and were not changed by it. */
  readonly users: ReadonlyMap<string, StoredUser | undefined>;
  readonly usersBefore: ReadonlyMap<string, StoredUser | undefined>;
}

/** A file with batches of so many lines: registrations, and later on changes and removals too. */
function makeFile(sizes: readonly number[]): Made {
  const parts = [encodeHeader({ version: 1, created: '2026-11-22T15:00:00.000Z', nextId: 1, seed: fileSeed })];
  const [batches, lines]: [number[], number[]] = [[], []];
  const users = new Map<string, StoredUser | undefined>();
  let usersBefore = new Map(users);
  let end = parts[0]!.length;
  let id = 0;
  for (const size of sizes) {
    batches.push(end);
    usersBefore = new Map(users);
    const batch = end;
    for (let n = 0; n < size; n++) {
      const [login = '', user] = [...users].find(([, other]) => other !== undefined && n % 5 === 4) ?? [];
      let line: Buffer;
      if (user === undefined || size < 5) {
        const made = { id: ++id, version: 1, ...newUser(`user${id}`) };
        line = encodeUser(made, batch, fileSeed);
        users.set(made.login, made);
      } else if (n % 2 === 0) {
        const changed = { ...user, version: user.version + 1, changed: '2026-11-23T08:00:00.000Z' };
        line = encodeUser(changed, batch, fileSeed);
        users.delete(login);
        users.set(login, changed);
      } else {
        line = encodeRemoval(user.id, login, '2026-11-23T08:00:00.000Z', batch, fileSeed);
        users.set(login, undefined);
      }
      lines.push(end);
      parts.push(line);
      end += line.length;
    }
  }
  return { bytes: Buffer.concat(parts), batches, lines, users, usersBefore };
}

/** The file on a disk of its own, with a mark that says that all of it, as it was, is durable, or without. */
function diskOf(bytes: Buffer, markedEnd: number | undefined): MemoryDisk {
  const disk = new MemoryDisk();
  const inode = disk.make('users.jsonl', 'file');
  disk.change(inode, 0, bytes);
  if (markedEnd !== undefined) {
    disk.make('users.jsonl.lock', 'directory');
    disk.make('users.jsonl.lock/protocol-1', 'file');
    disk.change(disk.make('users.jsonl.lock/durable', 'file'), 0, encodeDurableOffset({ boot: bootId, inode, seed: fileSeed, end: markedEnd, nextId: 1 }));
  }
  return disk;
}

type Outcome =
  /** Refused, with everything as it was. */
  | { readonly kind: 'refused'; readonly message: string }
  /** Opened without the last write, or a part of it, which is quarantined. */
  | { readonly kind: 'quarantined' }
  /** Opened, and every user is as before. */
  | { readonly kind: 'harmless' }
  /** Opened, and a user differs without a report. */
  | { readonly kind: 'unnoticed' }
  /** The same, until the next write, which is refused or restores every user. */
  | { readonly kind: 'found later' }
  | { readonly kind: 'wrong'; readonly why: string };

async function open(bytes: Buffer, made: Made, isMarked: boolean): Promise<Outcome> {
  const fs = new MemoryFileSystem(diskOf(bytes, isMarked ? made.bytes.length : undefined));
  const before = describe(fs.disk);
  try {
    let store: FileUserStore;
    try {
      store = await FileUserStore.open({ path: fs.path, lockWaitMsMax: 1_000, fs, now });
    } catch (error) {
      if (!(error instanceof RegistrarError)) throw error;
      if (error.code !== 'corrupt') return { kind: 'wrong', why: `${error.code}: ${error.message}` };
      const after = describe(fs.disk);
      if (isMarked ? after !== before : !fs.disk.bytes('users.jsonl')!.equals(bytes)) return { kind: 'wrong', why: `${before} became ${after}` };
      return { kind: 'refused', message: error.message };
    }
    try {
      const torn = [...fs.disk.walk()].find(([path]) => path.includes('.torn-'));
      let isSameForAll = true;
      for (const [login, user] of made.users) {
        const found = await store.findRecord(login);
        const isSame = versionOf(found) === versionOf(user);
        // The last write may have made several versions, each of them whole.
        const isEarlier = versionOf(found) >= versionOf(made.usersBefore.get(login)) || versionOf(user) === 0;
        if (!isSame && torn !== undefined && !isEarlier) return { kind: 'wrong', why: `${login} is older than before the last write` };
        isSameForAll &&= isSame;
      }
      if (torn !== undefined) return { kind: 'quarantined' };
      if (isSameForAll) return { kind: 'harmless' };
      const told = await store.create(newUser('late')).catch((error: RegistrarError) => error.code);
      if (told === 'corrupt') return { kind: 'found later' };
      for (const [login, user] of made.users) if (versionOf(await store.findRecord(login)) !== versionOf(user)) return { kind: 'unnoticed' };
      return { kind: 'found later' };
    } finally {
      await store.close();
    }
  } finally {
    fs.dispose();
  }
}

function versionOf(user: StoredUser | undefined): number {
  return user?.version ?? 0;
}

/** All that is on a disk, as one text. */
function describe(disk: MemoryDisk): string {
  return [...disk.walk()].map(([path, node, inode]) => `${path} ${inode} ${node.kind === 'file' ? node.seen.toString('latin1') : node.kind}`).join('\n');
}

/** A damage: the file with it, and the byte where it begins; undefined where it comes to nothing. */
type Damage = (made: Made, from: number, to: number, random: () => number) => { readonly bytes: Buffer; readonly at: number } | undefined;

const below = (random: () => number, from: number, to: number): number => from + Math.floor(random() * (to - from));

function edited(bytes: Buffer, edit: (copy: Buffer) => void, at: number): { bytes: Buffer; at: number } | undefined {
  const copy = Buffer.from(bytes);
  edit(copy);
  return copy.equals(bytes) ? undefined : { bytes: copy, at: Math.max(at, copy.findIndex((byte, n) => byte !== bytes[n])) };
}

function lineAt(made: Made, offset: number): { from: number; to: number } {
  const n = made.lines.findLastIndex((line) => line <= offset);
  return { from: made.lines[n] ?? 0, to: made.lines[n + 1] ?? made.bytes.length };
}

const damages: Readonly<Record<string, Damage>> = {
  'a bit flipped': ({ bytes }, from, to, random) => {
    const at = below(random, from, to);
    return edited(bytes, (copy) => (copy[at]! ^= 1 << below(random, 0, 8)), at);
  },
  'a byte overwritten': ({ bytes }, from, to, random) => {
    const at = below(random, from, to);
    return edited(bytes, (copy) => (copy[at] = below(random, 0, 256)), at);
  },
  'a sector of zeros': ({ bytes }, from, to, random) => {
    const at = below(random, from, to) & ~511;
    return at < from || at + 512 > to ? undefined : edited(bytes, (copy) => copy.fill(0, at, at + 512), at);
  },
  'cut short': ({ bytes }, from, to, random) => {
    const at = below(random, from + 1, to);
    return { bytes: bytes.subarray(0, at), at };
  },
  'a line twice': (made, from, to, random) => {
    const line = lineAt(made, below(random, from, to));
    if (line.from < from || line.to > to) return undefined;
    return { bytes: Buffer.concat([made.bytes.subarray(0, line.to), made.bytes.subarray(line.from)]), at: line.to };
  },
  'a line missing': (made, from, to, random) => {
    const line = lineAt(made, below(random, from, to));
    if (line.from < from || line.to > to) return undefined;
    return { bytes: Buffer.concat([made.bytes.subarray(0, line.from), made.bytes.subarray(line.to)]), at: line.from };
  },
  'two lines swapped': (made, from, to, random) => {
    const first = lineAt(made, below(random, from, to));
    const second = lineAt(made, first.to);
    if (first.from < from || second.to > to || second.from === first.from) return undefined;
    const { bytes } = made;
    const swapped = [bytes.subarray(second.from, second.to), bytes.subarray(first.from, first.to)];
    return { bytes: Buffer.concat([bytes.subarray(0, first.from), ...swapped, bytes.subarray(second.to)]), at: first.from };
  },
};

interface Where {
  readonly isMarked: boolean;
  readonly from: (made: Made) => number;
  readonly to: (made: Made) => number;
}

/** How each outcome is come by, counted. Everything wrong is told, and all that is unnoticed. */
async function tryDamages(damage: Damage, { isMarked, from, to }: Where, check?: (message: string, made: Made, at: number) => string | undefined) {
  const random = randomFrom(damageSeed);
  const counts: Record<string, number> = {};
  const wrong: string[] = [];
  const files = [[1, 2, 5, 17, 1, 60, 3, 12], [3, 1, 1, 25, 6, 1], [1, 40, 2, 9, 30]].map(makeFile);
  let tried = 0;
  const work = async (): Promise<void> => {
    while (tried < damageTrials) {
      const made = files[++tried % files.length]!;
      const damaged = damage(made, from(made), to(made), random);
      if (damaged === undefined) {
        counts['came to nothing'] = (counts['came to nothing'] ?? 0) + 1;
        continue;
      }
      const outcome = await open(damaged.bytes, made, isMarked);
      counts[outcome.kind] = (counts[outcome.kind] ?? 0) + 1;
      const why = outcome.kind === 'refused' ? check?.(outcome.message, made, damaged.at) : outcome.kind === 'wrong' ? outcome.why : undefined;
      if (why !== undefined) wrong.push(`SEED=${damageSeed}: byte ${damaged.at}: ${why}`);
    }
  };
  await Promise.all(Array.from({ length: 8 }, work));
  return { counts, wrong };
}

/** The message names the line and its first byte. */
function namesPlace(message: string, { bytes }: Made, at: number): string | undefined {
  const before = bytes.subarray(0, at);
  const line = before.toString('latin1').split('\n').length.toLocaleString('en-US');
  const byte = (before.lastIndexOf(0x0a) + 1).toLocaleString('en-US');
  return message.includes(`line ${line} (byte ${byte})`) && message.includes('users.jsonl') ? undefined : `${message}, and not line ${line} (byte ${byte})`;
}

const durable: Where = { isMarked: true, from: () => 0, to: ({ bytes }) => bytes.length };
const beforeLast: Where = { isMarked: false, from: () => 0, to: ({ batches }) => batches.at(-1)! };
const inLast: Where = { isMarked: false, from: ({ batches }) => batches.at(-1)!, to: ({ bytes }) => bytes.length };

/** What else may become of what is not refused. */
const also: Readonly<Record<string, readonly string[]>> = {
  'a bit flipped': [],
  'a byte overwritten': ['came to nothing'],
  'a sector of zeros': ['came to nothing'],
  'cut short': [],
  // Where a line as long as the last write pushes that behind the durable offset, everything below the offset is good.
  'a line twice': ['came to nothing', 'harmless', 'found later'],
  'a line missing': ['came to nothing'],
  // Lines of one write that say nothing about each other may stand in either order.
  'two lines swapped': ['came to nothing', 'harmless'],
};

const strict = ['a bit flipped', 'a byte overwritten', 'a sector of zeros'];

for (const [what, damage] of Object.entries(damages)) {
  const check = strict.includes(what) ? namesPlace : undefined;

  trial(`damage: ${what}, in what is known to be durable, is refused, and nothing is touched`, async (t) => {
    const { counts, wrong } = await tryDamages(damage, durable, check);
    t.diagnostic(`${what}, below the durable offset: ${JSON.stringify(counts)}, SEED=${damageSeed}`);
    assert.deepEqual(wrong, []);
    assert.ok(counts.refused! > damageTrials / 3, JSON.stringify(counts));
    assert.deepEqual(Object.keys(counts).filter((kind) => kind !== 'refused' && !also[what]!.includes(kind)), []);
  });

  // A file that was cut is an older copy of itself: only the durable offset tells that it was longer.
  if (what === 'cut short') continue;
  trial(`damage: ${what}, before the last write, is refused without a durable offset, too`, async (t) => {
    const { counts, wrong } = await tryDamages(damage, beforeLast, check);
    t.diagnostic(`${what}, before the last write, no mark: ${JSON.stringify(counts)}, SEED=${damageSeed}`);
    assert.deepEqual(wrong, []);
    assert.ok(counts.refused! > damageTrials / 3, JSON.stringify(counts));
    assert.deepEqual(Object.keys(counts).filter((kind) => kind !== 'refused' && !also[what]!.includes(kind)), []);
  });
}

trial('damage: in the last write, without a durable offset, it is refused, or quarantined if it looks torn', async (t) => {
  for (const what of strict) {
    const { counts, wrong } = await tryDamages(damages[what]!, inLast);
    t.diagnostic(`${what}, in the last write, no mark: ${JSON.stringify(counts)}, SEED=${damageSeed}`);
    assert.deepEqual(wrong, []);
    // No bit makes a NUL of what stands there, so none looks torn.
    const kinds = what === 'a bit flipped' ? ['refused'] : ['refused', 'quarantined', 'came to nothing'];
    assert.deepEqual(Object.keys(counts).filter((kind) => !kinds.includes(kind)), []);
  }
});
