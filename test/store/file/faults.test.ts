import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import { MemoryDisk } from '../../helper/memory-disk.ts';
import { MemoryFileSystem, calls } from '../../helper/memory-file-system.ts';
import type { Call, Fault } from '../../helper/memory-file-system.ts';
import { crashStates, powerCuts, randomFrom, record, wrongWith } from '../../helper/crash-states.ts';
import type { CrashState } from '../../helper/crash-states.ts';
import { Ledger, Run, nothing, scenarios } from '../../helper/scenario.ts';
import type { Operation } from '../../helper/scenario.ts';

/** More of them with `make faults TRIALS=20000`, which is all. */
const trials = Number(process.env.TRIALS ?? 250);
const seed = Number(process.env.SEED ?? Date.now() % 1e9);

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

test(`faults: whichever call fails, nothing is acknowledged that is lost, and nothing refused that is kept`, async (t) => {
  const { tried, of, wrong, told } = await tryMany();
  assert.deepEqual(wrong, []);
  t.diagnostic(`${tried} of ${of} faults, ${wrong.length} false answers, SEED=${seed}; told: ${JSON.stringify(told)}`);
});
