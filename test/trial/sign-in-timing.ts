/**
 * Whether time tells that a login exists: failed sign-ins of unknown logins and with wrong passwords, in random
 * order, one at a time, over the registry; means, their ratio, and Welch's t, also without the slowest tenth. Not a test, since no time is proof;
 * what is asserted about the work itself is in test/password/hasher.test.ts and test/registry.test.ts.
 *
 *   node --import tsx test/trial/sign-in-timing.ts [trials=10000] [trials at 600,000 iterations=500]
 */

import { randomInt } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Hasher } from '../../lib/password/hasher.ts';
import { parseKdf } from '../../lib/password/kdf.ts';
import { Registry } from '../../lib/registry.ts';
import { FileUserStore } from '../../lib/store/file/store.ts';

const [trials = 10_000, trialsFull = 500] = process.argv.slice(2).map(Number);
const users = 1000;

interface Summary {
  readonly mean: number;
  readonly variance: number;
  readonly count: number;
}

function summarize(values: readonly number[]): Summary {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  return { mean, variance, count: values.length };
}

function compare(one: Summary, other: Summary): string {
  const welch = (one.mean - other.mean) / Math.sqrt(one.variance / one.count + other.variance / other.count);
  return `mean ${one.mean.toFixed(4)} ms, ratio ${(one.mean / other.mean).toFixed(5)}, Welch's t ${welch.toFixed(2)}`;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;
}

/** Failures at `kdf` while users have hashes of `stored`; each kind of stored hash is a sample of its own. */
async function trial(kdf: string, stored: readonly string[], count: number): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'registrar-timing-'));
  const store = await FileUserStore.open({ path: join(directory, 'users.jsonl'), lockWaitMsMax: 5000, report: () => undefined });
  const make = (text: string): Hasher => new Hasher({ kdf: parseKdf(text)!, workers: 1, waitMsMax: 60_000, queueMax: 100 });
  const hasher = make(kdf);
  try {
    for (const [n, text] of stored.entries()) {
      const maker = make(text);
      // One hash for all of a kind: it is never the right one here.
      const credential = await maker.hash('correct horse');
      await maker.close();
      const candidates = Array.from({ length: users }, (_, m) => ({ login: `user${n}.${m}`, registered: '2026-11-22T15:00:00.000Z', ...credential }));
      await Promise.all(candidates.map((candidate) => store.create(candidate)));
    }
    const policy = { codePointsMin: 8, codePointsMax: 256, common: new Set<string>() };
    const registry = new Registry({ store, hasher, policy, now: () => new Date() });
    const samples = Array.from({ length: stored.length + 1 }, (): number[] => []);
    const warm = Math.ceil(count / 20);
    const order = samples.flatMap((_, kind) => Array.from({ length: count + warm }, () => kind));
    for (let n = order.length - 1; n > 0; n--) {
      const m = randomInt(n + 1);
      [order[n], order[m]] = [order[m]!, order[n]!];
    }
    for (const [n, kind] of order.entries()) {
      // Both as long as the other, and neither asked for twice in a row.
      const login = kind === stored.length ? `nope${randomInt(10)}.${randomInt(users)}` : `user${kind}.${randomInt(users)}`;
      const started = process.hrtime.bigint();
      const user = await registry.verify(login, 'another horse');
      const ms = Number(process.hrtime.bigint() - started) / 1e6;
      if (user !== undefined) throw new Error('a wrong password was taken for the right one');
      if (n >= warm * samples.length) samples[kind]!.push(ms);
    }
    // What the scheduler does to the slowest says little about us, and hides what is sought: both are shown.
    const all = samples.flat().sort((a, b) => a - b);
    const slowest = all[Math.floor(all.length * 0.9)]!;
    const quick = (values: readonly number[]): Summary => summarize(values.filter((ms) => ms <= slowest));
    const unknown = samples.at(-1)!;
    console.log(`${kdf}, ${order.length} failures in random order`);
    console.log(`  unknown login: mean ${summarize(unknown).mean.toFixed(4)} ms, of the quicker nine tenths ${quick(unknown).mean.toFixed(4)} ms, median ${median(unknown).toFixed(4)} ms`);
    for (const [kind, text] of stored.entries()) {
      const wrong = samples[kind]!;
      console.log(`  wrong password, ${text}: median ${median(wrong).toFixed(4)} ms`);
      console.log(`    all:                 ${compare(summarize(wrong), summarize(unknown))}`);
      console.log(`    quicker nine tenths: ${compare(quick(wrong), quick(unknown))}`);
    }
  } finally {
    await hasher.close();
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

await trial('pbkdf2:sha256:20000', ['pbkdf2:sha256:20000'], trials);
await trial('pbkdf2:sha256:20000', ['pbkdf2:sha256:1000', 'pbkdf2:sha512:5000', 'pbkdf2:sha256:20000'], Math.ceil(trials / 2));
await trial('pbkdf2:sha256:600000', ['pbkdf2:sha256:600000'], trialsFull);
