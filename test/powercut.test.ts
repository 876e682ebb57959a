/** A few power cuts; many of them with `make powercut TRIALS=200`. What a cut is, is told by the trial. */

import assert from 'node:assert/strict';
import { cannotMount, testIf } from './helper/possible.ts';
import { without } from './helper/temporary.ts';
import { cutPower } from './trial/powercut.ts';

for (const [kind, times] of [['ext4', 2], ['xfs', 1]] as const) {
  const skip = without('xfs_io') || without(`mkfs.${kind}`);
  testIf(skip || cannotMount(kind), `powercut: what was acknowledged is there after the power failed, on ${kind}`, async (t) => {
    const { trials, acknowledged, lost } = await cutPower(kind, times, true);
    assert.equal(lost, 0, `${lost} of ${acknowledged} users are lost`);
    t.diagnostic(`${trials} power cuts, ${acknowledged} users acknowledged, 0 lost`);
  }, skip);
}
