import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { Hasher } from '../../lib/password/hasher.ts';
import type { HasherOptions } from '../../lib/password/hasher.ts';
import { padding } from '../../lib/password/failure-work.ts';
import type { Derivation } from '../../lib/password/failure-work.ts';
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
  assert.equal(await hasher.verify('correct horse', credential, { kdfs: [] }), true);
  assert.equal(await hasher.verify('correct horsf', credential, { kdfs: [] }), false);
  assert.equal(await hasher.verify('', credential, { kdfs: [] }), false);
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
  assert.equal(await hasher.verify('correct horse', credential, { kdfs: [] }), true);
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

test('hasher: those who are refused are not all told to come back in the same second', async (t) => {
  const hasher = open(t, { kdf: slow, workers: 1, waitMsMax: 100 });
  const waits: number[] = [];
  const asked = Array.from({ length: 100 }, (_, n) => hasher.hash(`correct horse ${n}`).catch((error) => {
    if (error.code === 'overloaded') waits.push(error.retryAfterSeconds);
  }));
  await Promise.any(asked);
  assert.ok(waits.length > 80, `${waits.length} were refused`);
  assert.deepEqual(waits, waits.toSorted((a, b) => a - b));
  // A hundred hashes of some tens of milliseconds each.
  assert.equal(waits[0], 1);
  assert.ok(waits.at(-1)! >= 3, String(waits));
  assert.ok(waits.at(-1)! <= 60);
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
  assert.equal(await broken.verify('correct horse', credential, { kdfs: [] }), true);
});

test('hasher: a failure is the same work for every login, however its hash was made', async (t) => {
  const done: (readonly Derivation[])[] = [];
  const hasher = open(t, { kdf: { digest: 'sha256', iterations: 500 }, onHash: (_, calls) => done.push(calls) });
  const made = ['pbkdf2:sha256:500', 'pbkdf2:sha256:20', 'pbkdf2:sha256:900', 'pbkdf2:sha512:70', 'pbkdf2:sha512:7'];
  const kdfs = [...made, 'no kdf of ours'];
  /** Calls and iterations of each digest, as the worker has done them. */
  const work = (calls: readonly Derivation[]): string[] =>
    ['sha256', 'sha384', 'sha512'].map((digest) => {
      const own = calls.filter((call) => call.digest === digest);
      return `${digest} ${own.length} ${own.reduce((sum, { iterations }) => sum + iterations, 0)}`;
    });
  const failure = ['sha256 2 901', 'sha384 0 0', 'sha512 2 71'];
  assert.equal(await hasher.verify('correct horse', undefined, { kdfs }), false);
  assert.deepEqual(work(done.at(-1)!), failure);
  for (const kdf of made) {
    const [, digest, iterations] = kdf.split(':') as ['pbkdf2', Derivation['digest'], string];
    const credential = await open(t, { workers: 1, kdf: { digest, iterations: Number(iterations) } }).hash('correct horse');
    assert.equal(await hasher.verify('wrong horse', credential, { kdfs }), false);
    assert.deepEqual(work(done.at(-1)!), failure, kdf);
    assert.ok(done.at(-1)!.every((call) => call.iterations >= 1));
    // What is right costs its own hash and no more.
    assert.equal(await hasher.verify('correct horse', credential, { kdfs }), true);
    assert.deepEqual(done.at(-1)!.map((call) => `${call.digest}:${call.iterations}`), [`${digest}:${iterations}`]);
  }
  assert.equal(hasher.hashes, done.length);
  assert.deepEqual([hasher.running, hasher.queued], [0, 0]);
});

test('hasher: whatever mix of hashes is stored, padding brings every one to the same', () => {
  const digests = ['sha256', 'sha384', 'sha512'] as const;
  for (let n = 0; n < 500; n++) {
    const kdfs = Array.from({ length: 1 + (n % 6) }, () => ({ digest: digests[randomInt(3)]!, iterations: 1 + randomInt(1000) }));
    const totals = kdfs.map((own) =>
      digests.map((digest) => {
        const calls = [own, ...padding(own, kdfs)].filter((call) => call.digest === digest);
        return [calls.length, calls.reduce((sum, { iterations }) => sum + iterations, 0)];
      }),
    );
    for (const total of totals) assert.deepEqual(total, totals[0]);
  }
});

test('hasher: a check waits in the queue for what a failure takes', async (t) => {
  const kdfs = ['pbkdf2:sha256:4000000'];
  const hasher = open(t, { workers: 1, waitMsMax: 1000, kdf: { digest: 'sha256', iterations: 20_000 } });
  const credential = await hasher.hash('correct horse');
  const results = await Promise.allSettled(Array.from({ length: 12 }, () => hasher.verify('correct horse', credential, { kdfs })));
  const refused = results.filter(({ status }) => status === 'rejected');
  // Twelve hashes of 20,000 are nothing; twelve failures of 4,000,000 are far more than a second.
  assert.ok(refused.length >= 5, `${refused.length} refused`);
});

test('hasher: when it closes, those who wait are told', async () => {
  const hasher = new Hasher({ kdf: slow, workers: 1, waitMsMax: 60_000, queueMax: 100 });
  const waiting = Promise.allSettled([hasher.hash('one'), hasher.hash('two')]);
  await hasher.close();
  for (const result of await waiting) assert.equal(result.status === 'rejected' && result.reason.code, 'unavailable');
  await assert.rejects(hasher.hash('three'), { code: 'unavailable' });
});
