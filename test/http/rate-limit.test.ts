import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { RateLimiter, rateLimitHeaders } from '../../lib/http/rate-limit.ts';
import type { Policy } from '../../lib/http/rate-limit.ts';

const signIn: Policy = { name: 'sign-in', quota: 20, windowSeconds: 600 };

function open(policy: Policy = signIn, keysMax = 1024) {
  let ms = 5_000_000;
  const limiter = new RateLimiter({ policy, keysMax, now: () => ms });
  return { limiter, pass: (seconds: number) => void (ms += seconds * 1000) };
}

test('rate-limit: a bucket gives its quota at once, then one for each refill, and says when', () => {
  const { limiter, pass } = open();
  for (let left = 19; left >= 0; left--) {
    const { allowed, remaining, retryAfterSeconds, resetSeconds } = limiter.take('a');
    assert.deepEqual({ allowed, remaining, retryAfterSeconds, resetSeconds }, { allowed: true, remaining: left, retryAfterSeconds: 0, resetSeconds: 30 });
  }
  const { policy: _, ...refused } = limiter.take('a');
  assert.deepEqual(refused, { allowed: false, remaining: 0, resetSeconds: 30, retryAfterSeconds: 30 });
  pass(29);
  assert.equal(limiter.take('a').retryAfterSeconds, 1);
  pass(1);
  assert.equal(limiter.take('a').allowed, true);
  assert.equal(limiter.take('a').allowed, false);
  pass(600);
  assert.equal(limiter.size, 0);
  assert.deepEqual([limiter.peek('a').remaining, limiter.peek('a').resetSeconds], [20, 0]);
});

test('rate-limit: a refusal costs nothing, so that who comes back when told is let in', () => {
  const { limiter, pass } = open({ name: 'odd', quota: 3, windowSeconds: 10 });
  for (let n = 0; n < 3; n++) assert.ok(limiter.take('a').allowed);
  for (let n = 0; n < 200; n++) {
    for (let m = 0; m < 5; m++) assert.equal(limiter.take('a').allowed, false);
    const { retryAfterSeconds } = limiter.take('a');
    assert.ok(retryAfterSeconds > 0 && retryAfterSeconds <= 4);
    pass(retryAfterSeconds);
    assert.ok(limiter.take('a').allowed, `${n}`);
    while (limiter.take('a').allowed);
  }
});

test('rate-limit: over a long time no more goes through than quota and refill', () => {
  const { limiter, pass } = open({ name: 'odd', quota: 7, windowSeconds: 60 });
  let through = 0;
  for (let n = 0; n < 6000; n++) {
    if (limiter.take('a').allowed) through++;
    pass(0.1);
  }
  assert.ok(through >= 76 && through <= 77, `${through}`);
});

test('rate-limit: keys do not touch one another, and what is given back can be taken again', () => {
  const { limiter } = open({ name: 'two', quota: 2, windowSeconds: 60 });
  assert.deepEqual([1, 2, 3].map(() => limiter.take('a').allowed), [true, true, false]);
  assert.equal(limiter.take('b').allowed, true);
  assert.deepEqual([limiter.peek('a').allowed, limiter.peek('a').retryAfterSeconds], [false, 30]);
  assert.deepEqual([limiter.peek('b').allowed, limiter.peek('b').remaining], [true, 1]);
  limiter.giveBack('a');
  assert.equal(limiter.peek('a').remaining, 1);
  for (let n = 0; n < 9; n++) limiter.giveBack('a');
  limiter.giveBack('never seen');
  assert.deepEqual([1, 2, 3].map(() => limiter.take('a').allowed), [true, true, false]);
});

test('rate-limit: a million keys take no more memory than the first, and a key at its limit stays there', () => {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  const bytes = (): number => {
    collect();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const { limiter } = open(signIn, 65_536);
  const limited = Array.from({ length: 100 }, (_, n) => `limited ${n}`);
  for (const key of limited) while (limiter.take(key).allowed);
  for (let n = 0; n < 100_000; n++) limiter.take(`early ${n}`);
  const before = bytes();
  for (let n = 0; n < 1_000_000; n++) limiter.take(`flood ${n}`);
  const grown = bytes() - before;
  assert.ok(grown < 1_000_000, `${grown} bytes for a million keys`);
  assert.ok(limiter.size <= 65_536);
  assert.deepEqual(limited.filter((key) => limiter.take(key).allowed), []);
});

test('rate-limit: the headers are structured fields, one item for each policy', () => {
  const { limiter } = open();
  const { limiter: other } = open({ name: 'a "b"\\', quota: 1, windowSeconds: 1 });
  assert.deepEqual(rateLimitHeaders([limiter.take('a'), other.take('a')]), {
    'RateLimit-Policy': '"sign-in";q=20;w=600, "a \\"b\\"\\\\";q=1;w=1',
    RateLimit: '"sign-in";r=19;t=30, "a \\"b\\"\\\\";r=0;t=1',
  });
  assert.deepEqual(rateLimitHeaders([]), {});
});

test('rate-limit: a limit of nothing is refused', () => {
  for (const wrong of [{ quota: 0 }, { windowSeconds: 0 }, { quota: 1.5 }]) {
    assert.throws(() => open({ ...signIn, ...wrong }), { code: 'cannot-start' });
  }
});
