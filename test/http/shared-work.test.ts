import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedWork } from '../../lib/http/shared-work.ts';

/** Work that ends when it is told to. */
function work(): { run: (signal: AbortSignal) => Promise<number>; runs: AbortSignal[]; end: (value: number) => void; fail: (error: Error) => void } {
  const runs: AbortSignal[] = [];
  let settle: { resolve: (value: number) => void; reject: (error: Error) => void } | undefined;
  return {
    runs,
    run: (signal) => {
      runs.push(signal);
      return new Promise((resolve, reject) => (settle = { resolve, reject }));
    },
    end: (value) => settle?.resolve(value),
    fail: (error) => settle?.reject(error),
  };
}

test('shared work: what two want at once is done once, and the next time anew', async () => {
  const shared = new SharedWork<number>();
  const { run, runs, end } = work();
  const { signal } = new AbortController();
  const both = [shared.run('a', signal, run), shared.run('a', signal, run)];
  assert.equal(runs.length, 1);
  end(7);
  assert.deepEqual(await Promise.all(both), [7, 7]);
  const third = shared.run('a', signal, run);
  assert.equal(runs.length, 2);
  end(8);
  assert.equal(await third, 8);
});

test('shared work: a failure is everybody\'s, and other keys are other work', async () => {
  const shared = new SharedWork<number>();
  const first = work();
  const second = work();
  const { signal } = new AbortController();
  const failing = [shared.run('a', signal, first.run), shared.run('a', signal, first.run)];
  const good = shared.run('b', signal, second.run);
  first.fail(new Error('no'));
  second.end(1);
  for (const promise of failing) await assert.rejects(promise, /no/);
  assert.equal(await good, 1);
});

test('shared work: it goes on while anybody waits, and is aborted when the last has left', async () => {
  const shared = new SharedWork<number>();
  const { run, runs, end } = work();
  const [one, two] = [new AbortController(), new AbortController()];
  const leaving = shared.run('a', one.signal, run);
  const staying = shared.run('a', two.signal, run);
  one.abort(new Error('gone'));
  await assert.rejects(leaving, /gone/);
  assert.equal(runs[0]!.aborted, false);
  end(3);
  assert.equal(await staying, 3);

  const alone = new AbortController();
  const left = shared.run('a', alone.signal, run);
  alone.abort(new Error('gone too'));
  await assert.rejects(left, /gone too/);
  assert.equal(runs[1]!.aborted, true);
  // Whoever comes now does not get what was aborted.
  const next = shared.run('a', two.signal, run);
  assert.equal(runs.length, 3);
  end(4);
  assert.equal(await next, 4);
  assert.throws(() => shared.run('a', alone.signal, run), /gone too/);
});
