import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { intactOf, kinds, makeHistory, tryDamage } from '../helper/damage.ts';
import { randomFrom } from '../helper/simulator/crash-states.ts';
import { temporaryDirectory } from '../helper/temporary.ts';
import { trial, trialCount } from '../helper/trial.ts';

/** Of each kind, with and without the durable offset. */
const trials = Math.ceil(trialCount('TRIALS', 1));
const seed = trialCount('SEED', Date.now() % 1e9);

trial(`repair: ${kinds.length} kinds of damage, ${trials} times each: every user is recovered or named, no id is given again, no removal is undone unnamed`, async (t) => {
  const random = randomFrom(seed);
  const wrong: string[] = [];
  const sums = { trials: 0, saved: 0, older: 0, lost: 0, back: 0 };
  for (const withOffset of [true, false]) {
    for (let n = 0; n < trials; n++) {
      for (const kind of kinds) {
        if (!withOffset && kind.needsOffset === true) continue;
        const directory = temporaryDirectory(t);
        mkdirSync(join(directory, 'data'));
        const path = join(directory, 'data', 'users.jsonl');
        const truth = await makeHistory(path, random);
        const damaged = kind.damage(await intactOf(path, directory), random);
        const result = await tryDamage(path, truth, kind, damaged, withOffset).catch((error: Error) => ({
          saved: 0, older: 0, lost: 0, back: 0, wrong: [error.message],
        }));
        sums.trials++;
        for (const key of ['saved', 'older', 'lost', 'back'] as const) sums[key] += result[key];
        for (const what of result.wrong) wrong.push(`SEED=${seed}: ${kind.name}, ${withOffset ? 'with' : 'without'} the durable offset: ${what}`);
      }
    }
  }
  t.diagnostic(`${JSON.stringify(sums)}, SEED=${seed}`);
  assert.deepEqual(wrong, []);
});
