import assert from 'node:assert/strict';
import { MemoryDisk } from '../helper/simulator/memory-disk.ts';
import { crashStates, fingerprint, randomFrom, record, wrongWith } from '../helper/simulator/crash-states.ts';
import type { CrashState, Lie } from '../helper/simulator/crash-states.ts';
import { nothing, scenarios } from '../helper/simulator/scenario.ts';
import type { Operation } from '../helper/simulator/scenario.ts';
import { trial, trialCount } from '../helper/trial.ts';

/** More of them with `make faults TRIALS=20000`. */
const trials = trialCount('TRIALS', 400);
const seed = trialCount('SEED', Date.now() % 1e9);

/** A part of the states comes from crashes of the recovery from a crash, and from crashes of that. */
const depthMax = 3;

interface Outcome {
  readonly states: number;
  readonly bad: string[];
}

/** At once: most of the time goes into waiting for the sockets of the lock. */
const width = 8;

/** Samples crash states of the scenarios and looks what the store makes of them; gives up after so many bad ones. */
async function tryStates(count: number, badMax: number, isLie?: Lie): Promise<Outcome> {
  const random = randomFrom(seed);
  const seen = new Set<string>();
  const bad: string[] = [];
  let parents: CrashState[] = [];
  /** Looks at states in turn until there have been `share` of them. */
  const look = async (states: readonly CrashState[], share: number): Promise<void> => {
    let next = 0;
    const work = async (): Promise<void> => {
      while (next < states.length && seen.size < share && bad.length < badMax) {
        const state = states[next++]!;
        const print = fingerprint(state);
        if (seen.has(print)) continue;
        seen.add(print);
        if (random() < 0.05) parents.push(state);
        const wrong = await wrongWith(state, randomFrom(seed + next), isLie);
        if (wrong !== undefined) bad.push(`SEED=${seed}: ${state.what}: ${wrong}`);
      }
    };
    await Promise.all(Array.from({ length: width }, work));
  };
  const lives: CrashState[] = [];
  for (const [name, operations] of Object.entries(scenarios)) {
    const recorded = await record({ disk: new MemoryDisk(), expectation: nothing }, operations, isLie).catch((error: Error) => error);
    if (recorded instanceof Error) bad.push(`${name}: ${recorded.message}`);
    // A small trial does not make all the states that it leaves out.
    else for (const state of crashStates(recorded, random, Math.min(1, count / 2_000))) lives.push({ ...state, what: `${name}: ${state.what}` });
  }
  // Kills between two steps are few, and each is another case: most of them come first.
  await look(shuffled(lives, ({ what }) => random() / (what.includes(': killed before') ? 4 : 1)), count / 2);
  for (let depth = 2; depth <= depthMax; depth++) {
    const from = shuffled(parents, random);
    const share = depth === depthMax ? count : (count * 5) / 6;
    parents = [];
    for (const parent of from) {
      if (seen.size >= share || bad.length >= badMax) break;
      const operations: Operation[] = [(run) => run.create(`later${depth}`), (run) => run.change('alice')];
      const recorded = await record(parent, operations, isLie).catch((error: Error) => error);
      if (recorded instanceof Error) {
        bad.push(`${parent.what}: ${recorded.message}`);
        continue;
      }
      const states = [...crashStates(recorded, random)].map((state) => ({ ...state, what: `${parent.what}; ${state.what}` }));
      await look(shuffled(states, random).slice(0, Math.max(20, count / 40)), share);
    }
  }
  return { states: seen.size, bad };
}

function shuffled<T>(list: readonly T[], place: (value: T) => number): T[] {
  return list.map((value) => ({ value, at: place(value) })).sort((a, b) => a.at - b.at).map(({ value }) => value);
}

trial(`crash states: from ${trials} of them every acknowledged write is recovered, and nothing half`, async (t) => {
  const { states, bad } = await tryStates(trials, 10);
  assert.deepEqual(bad, []);
  t.diagnostic(`${states} states, ${bad.length} bad recoveries, SEED=${seed}`);
  assert.ok(states >= trials * 0.9, `only ${states} different states`);
});

const lies: Readonly<Record<string, Lie>> = {
  'fdatasync does nothing': (call) => call === 'datasync',
  'no directory is synced': (call) => call === 'syncDirectory',
  'a failed write is not cut back': (call) => call === 'truncate',
};

for (const [what, isLie] of Object.entries(lies)) {
  trial(`crash states: where ${what}, they show it`, async (t) => {
    const { states, bad } = await tryStates(6_000, 1, isLie);
    assert.notDeepEqual(bad, []);
    t.diagnostic(`found in the first ${states} states: ${bad[0]}`);
  });
}
