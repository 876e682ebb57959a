import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Health } from '../../lib/ops/health.ts';

test('health: it is ready until a check says why not, and never again once it drains', () => {
  let trouble: string | undefined;
  const health = new Health([() => undefined, () => trouble]);
  assert.equal(health.unready(), undefined);
  trouble = 'no room';
  assert.equal(health.unready(), 'no room');
  trouble = undefined;
  assert.equal(health.unready(), undefined);
  health.drain();
  assert.equal(health.unready(), 'the service is ending');
});
