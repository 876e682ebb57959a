/** Power cuts of a file system in an image, as root: its cached writes are dropped, the process is killed, and it is mounted again. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { FileUserStore } from '../../lib/store/file/file-user-store.ts';
import { cannotMount, mountNew } from '../helper/possible.ts';
import type { Mounted } from '../helper/possible.ts';
import { spawnStore } from '../helper/store-process.ts';
import { trial, trialCount } from '../helper/trial.ts';

interface Outcome {
  readonly acknowledged: number;
  readonly lost: number;
}

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Writes until the power fails, and counts what is not there afterwards. */
async function cutOnce({ directory, cut, unmount, mount }: Mounted, isCopied: boolean, isSynced: boolean, isReboot: boolean): Promise<Outcome> {
  const path = join(directory, 'data', 'users.jsonl');
  mkdirSync(join(directory, 'data'), { recursive: true });
  const cleanUp: (() => unknown)[] = [];
  const context = { after: (f: () => unknown) => void cleanUp.push(f) } as Parameters<typeof spawnStore>[0];
  const store = await spawnStore(context, path, 20_000, ...(isSynced ? [] : ['no-sync'] as const));
  const acknowledged = new Map<string, number>();
  const prefix = `t${Date.now().toString(36)}-`;
  let asked = 0;
  const load = async (): Promise<void> => {
    for (;;) {
      const logins = Array.from({ length: 1 + (asked % 7) }, () => `${prefix}${asked++}`);
      const answers: { id: number }[] = await store.tell({ do: 'create', logins });
      for (const [n, { id }] of answers.entries()) acknowledged.set(logins[n]!, id);
    }
  };
  const loads = [load(), load(), load()].map((running) => running.catch(() => undefined));
  await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 200));
  // While the power is cut no process writes: copying an image takes a moment.
  store.child.kill('SIGSTOP');
  cut();
  if (!isCopied) {
    // What is answered from now on counts too: nothing may be, for nothing can be synced any more.
    store.child.kill('SIGCONT');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  store.child.kill('SIGKILL');
  await Promise.all(loads);
  for (const f of cleanUp) await f();
  unmount();
  mount();
  // The boot id stays the same here; a mark that did not come back is what a reboot looks like.
  if (isReboot) rmSync(`${path}.lock`, { recursive: true, force: true });
  const again = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
  let lost = 0;
  for (const [login, id] of acknowledged) if ((await again.findRecord(login))?.id !== id) lost++;
  await again.create({ login: `${prefix}after`, registered: 'r', kdf: 'k', password: 'p' });
  await again.close();
  return { acknowledged: acknowledged.size, lost };
}

async function makeStore(directory: string): Promise<void> {
  mkdirSync(join(directory, 'data'), { recursive: true });
  await (await FileUserStore.open({ path: join(directory, 'data', 'users.jsonl'), lockWaitMsMax: 5_000 })).close();
  run('sync', '-f', directory);
}

interface Cuts {
  readonly trials: number;
  readonly acknowledged: number;
  readonly lost: number;
  /** Trials that lost anything. */
  readonly losing: number;
}

/** So many cuts on one file system. Without syncing it is made anew each time, since nothing of it can be believed. */
async function cutPower(type: 'ext4' | 'xfs' | 'btrfs', times: number, isSynced: boolean): Promise<Cuts> {
  const mounted = mountNew(type, type === 'ext4' ? '64M' : '320M');
  const sum = { trials: 0, acknowledged: 0, lost: 0, losing: 0 };
  try {
    for (let n = 0; n < times; n++) {
      // Without it, what is lost is to be users: the file itself is there to stay.
      if (!isSynced) await makeStore(mounted.directory);
      // An unsynced file may even be refused afterwards, which is a loss of all.
      const outcome = await cutOnce(mounted, type === 'btrfs', isSynced, n % 2 === 1).catch((error: Error) => {
        if (isSynced) throw error;
        return { acknowledged: 1, lost: 1 };
      });
      sum.trials++;
      sum.acknowledged += outcome.acknowledged;
      sum.lost += outcome.lost;
      if (outcome.lost > 0) sum.losing++;
      if (!isSynced) mounted.make();
    }
  } finally {
    mounted.remove();
  }
  return sum;
}

for (const [kind, small] of [['ext4', 2], ['xfs', 1], ['btrfs', 1]] as const) {
  const times = trialCount('TRIALS', small);
  const options = { needs: ['xfs_io', `mkfs.${kind}`], cannot: () => cannotMount(kind) };
  trial(`powercut: ${times} power cuts on ${kind} lose no acknowledged write`, options, async (t) => {
    const { trials, acknowledged, lost } = await cutPower(kind, times, true);
    assert.equal(lost, 0, `${lost} of ${acknowledged} users are lost`);
    t.diagnostic(`${trials} power cuts, ${acknowledged} users acknowledged, 0 lost`);
  });

  trial(`powercut: on ${kind} a store without fdatasync loses writes, so a loss would be noticed`, options, async (t) => {
    const { trials, losing } = await cutPower(kind, Math.max(3, Math.ceil(times / 20)), false);
    assert.ok(losing > 0);
    t.diagnostic(`${losing} of ${trials} power cuts lost users`);
  });
}
