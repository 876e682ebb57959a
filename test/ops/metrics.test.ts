import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics } from '../../lib/ops/metrics.ts';

test('metrics: counters, gauges and histograms have the text that the format asks for', () => {
  const metrics = new Metrics();
  metrics.counter('a_total', 'Of a.', { kind: 'x "y" \\ z\n' }).add(2);
  metrics.counter('a_total', 'Of a.', { kind: 'other' });
  metrics.gauge('b', 'Of b.', () => 0.5);
  metrics.gauge('c', 'Nobody can tell.', () => undefined);
  metrics.counted('d_total', 'Of d.', () => 7);
  assert.equal(metrics.text(), [
    '# HELP a_total Of a.', '# TYPE a_total counter', 'a_total{kind="x \\"y\\" \\\\ z\\n"} 2', 'a_total{kind="other"} 0',
    '# HELP b Of b.', '# TYPE b gauge', 'b 0.5',
    '# HELP d_total Of d.', '# TYPE d_total counter', 'd_total 7', '',
  ].join('\n'));
});

test('metrics: the buckets of a histogram hold what is at most their bound, each with all below it', () => {
  const metrics = new Metrics();
  const histogram = metrics.histogram('h_seconds', 'Of h.', [0.1, 1], { of: 'h' });
  for (const value of [0.1, 0.05, 0.5, 7]) histogram.observe(value);
  const lines = metrics.text().split('\n').slice(2, -1);
  assert.deepEqual(lines, [
    'h_seconds_bucket{of="h",le="0.1"} 2', 'h_seconds_bucket{of="h",le="1"} 3', 'h_seconds_bucket{of="h",le="+Inf"} 4',
    'h_seconds_sum{of="h"} 7.65', 'h_seconds_count{of="h"} 4',
  ]);
});
