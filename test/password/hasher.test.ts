import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { Hasher } from '../../lib/password/hasher.ts';
import type { HasherOptions } from '../../lib/password/hasher.ts';
import { until } from '../helper/temporary.ts';

const slow = { digest: 'sha256', iterations: 400_000 } as const;
const quick = { digest: 'sha256', iterations: 1 } as const;

function open(t: { after: (f: () => Promise<void>) => void }, options: Partial<HasherOptions> = {}): Hasher {
  const hasher = new Hasher({ kdf: quick, workers: 2, waitMsMax: 60_000, queueMax: 1000, ...options });
  t.after(() => hasher.close());
  return hasher;
}

test('hasher: a password is verified, another is not', async (t) => {
  const hasher = open(t);
  const credential = await hasher.hash('correct horse');
  assert.equal(await hasher.verify('correct horse', credential), true);
  assert.equal(await hasher.verify('correct horsf', credential), false);
  assert.equal(await hasher.verify('', credential), false);
});

test('hasher: the same password gives another salt and hash each time', async (t) => {
  const hasher = open(t);
  const passwords = new Set<string>();
  for (let n = 0; n < 50; n++) passwords.add((await hasher.hash('correct horse')).password);
  assert.equal(passwords.size, 50);
  assert.equal(new Set([...passwords].map((text) => text.split('$')[0])).size, 50);
});

test('hasher: hashes made in another way are verified in theirs, and are stale', async (t) => {
  const older = open(t, { kdf: { digest: 'sha512', iterations: 7 } });
  const hasher = open(t);
  const credential = await older.hash('correct horse');
  assert.equal(await hasher.verify('correct horse', credential), true);
  assert.equal(hasher.isStale(credential), true);
  assert.equal(older.isStale(credential), false);
});

test('hasher: when the wait would pass the deadline it refuses at once, and says when to come back', async (t) => {
  const hasher = open(t, { kdf: slow, workers: 1, waitMsMax: 300 });
  await hasher.hash('to measure');
  const results = await Promise.allSettled(Array.from({ length: 60 }, () => hasher.hash('correct horse')));
  const refused = results.filter(({ status }) => status === 'rejected').map((result) => (result as PromiseRejectedResult).reason);
  assert.ok(refused.length > 0 && refused.length < 60, `${refused.length} of 60 refused`);
  for (const error of refused) {
    assert.equal(error.code, 'overloaded');
    assert.ok(Number.isInteger(error.retryAfterSeconds) && error.retryAfterSeconds >= 1);
  }
  // It is not for good.
  assert.match((await hasher.hash('correct horse')).password, /\$/);
});

test('hasher: the queue is bounded, whatever its hashes cost', async (t) => {
  const hasher = open(t, { workers: 1, queueMax: 10 });
  const results = await Promise.allSettled(Array.from({ length: 50 }, () => hasher.hash('correct horse')));
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 11);
});

test('hasher: a client that goes leaves the queue, and what runs goes on', async (t) => {
  const hasher = open(t, { kdf: slow, workers: 1 });
  const first = hasher.hash('runs');
  const gone = new AbortController();
  const second = hasher.hash('waits', gone.signal);
  const third = hasher.hash('waits too');
  assert.equal(hasher.queued, 2);
  gone.abort(new Error('gone'));
  await assert.rejects(second, /gone/);
  assert.equal(hasher.queued, 1);
  await Promise.all([first, third]);
  const before = AbortSignal.abort(new Error('gone before'));
  await assert.rejects(hasher.hash('never', before), /gone before/);
});

test('hasher: of the workers all but one are nice, so that one is never starved', { skip: process.platform !== 'linux' }, async (t) => {
  // The 19th field of a thread's stat is its nice value.
  const niceOnes = (): number =>
    readdirSync('/proc/self/task').filter((task) => {
      const stat = readFileSync(`/proc/self/task/${task}/stat`, 'latin1');
      return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16] === '19';
    }).length;
  const before = niceOnes();
  const hasher = open(t, { workers: 3 });
  await Promise.all([1, 2, 3, 4, 5, 6].map(() => hasher.hash('correct horse')));
  await until(() => niceOnes() === before + 2, 'two nice threads');
});

test('hasher: a worker that dies takes its task with it, and another takes its seat', async (t) => {
  const broken = open(t, { kdf: { digest: 'sha256', iterations: 0 }, workers: 1 });
  await assert.rejects(broken.hash('correct horse'), { code: 'internal' });
  const hasher = open(t);
  const credential = await hasher.hash('correct horse');
  assert.equal(await broken.verify('correct horse', credential), true);
});

test('hasher: when it closes, those who wait are told', async () => {
  const hasher = new Hasher({ kdf: slow, workers: 1, waitMsMax: 60_000, queueMax: 100 });
  const waiting = Promise.allSettled([hasher.hash('one'), hasher.hash('two')]);
  await hasher.close();
  for (const result of await waiting) assert.equal(result.status === 'rejected' && result.reason.code, 'unavailable');
  await assert.rejects(hasher.hash('three'), { code: 'unavailable' });
});
