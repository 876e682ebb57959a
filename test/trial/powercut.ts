/**
 * Power cuts: `make powercut TRIALS=200`, as root. A store on a file system of its own, in an image, is written
 * to until the file system is shut down without writing anything back; the process is killed, the file system
 * is mounted again, and every user that was acknowledged has to be there, once.
 *
 * The last trials take fdatasync out: they have to lose users, or this finds nothing. Without arguments it
 * does nothing: test runners start every file below test/.
 */

import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { FileUserStore } from '../../lib/store/file/store.ts';
import { mountNew } from '../helper/possible.ts';
import { spawnStore } from '../helper/store-process.ts';

const [kind, trials] = process.argv.slice(2);

interface Outcome {
  readonly acknowledged: number;
  readonly lost: number;
}

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Writes until the power fails, and counts what is not there afterwards. */
async function trial(directory: string, mountAgain: () => void, isSynced: boolean, isReboot: boolean): Promise<Outcome> {
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
  run('xfs_io', '-x', '-c', 'shutdown', directory);
  // What is answered from now on counts too: nothing may be, for nothing can be synced any more.
  await new Promise((resolve) => setTimeout(resolve, 5));
  store.child.kill('SIGKILL');
  await Promise.all(loads);
  for (const f of cleanUp) await f();
  mountAgain();
  // The boot id stays the same here; a mark that did not come back is what a reboot looks like.
  if (isReboot) rmSync(`${path}.lock`, { recursive: true, force: true });
  const again = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
  let lost = 0;
  for (const [login, id] of acknowledged) if ((await again.find(login))?.id !== id) lost++;
  await again.create({ login: `${prefix}after`, registered: 'r', kdf: 'k', password: 'p' });
  await again.close();
  return { acknowledged: acknowledged.size, lost };
}

async function makeStore(directory: string): Promise<void> {
  mkdirSync(join(directory, 'data'), { recursive: true });
  await (await FileUserStore.open({ path: join(directory, 'data', 'users.jsonl'), lockWaitMsMax: 5_000 })).close();
  run('sync', '-f', directory);
}

export interface Cuts {
  readonly trials: number;
  readonly acknowledged: number;
  readonly lost: number;
  /** Trials that lost anything. */
  readonly losing: number;
}

/** So many cuts on one file system. Without syncing it is made anew each time, since nothing of it can be believed. */
export async function cutPower(type: 'ext4' | 'xfs', times: number, isSynced: boolean): Promise<Cuts> {
  const mounted = mountNew(type, type === 'xfs' ? '320M' : '64M');
  const sum = { trials: 0, acknowledged: 0, lost: 0, losing: 0 };
  try {
    for (let n = 0; n < times; n++) {
      const mountAgain = (): void => {
        mounted.unmount();
        mounted.mount();
      };
      // Without it, what is lost is to be users: the file itself is there to stay.
      if (!isSynced) await makeStore(mounted.directory);
      // What nobody has synced may even be refused afterwards, which is a loss of all.
      const outcome = await trial(mounted.directory, mountAgain, isSynced, n % 2 === 1).catch((error: Error) => {
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

async function main(type: 'ext4' | 'xfs', count: number): Promise<void> {
  for (const [isSynced, times] of [[true, count], [false, Math.max(3, Math.ceil(count / 20))]] as const) {
    const sum = await cutPower(type, times, isSynced);
    const what = isSynced ? type : `${type}, with fdatasync taken out`;
    process.stdout.write(`${what}: ${sum.trials} power cuts, ${sum.acknowledged} users acknowledged, ${sum.lost} lost in ${sum.losing} of them\n`);
    if (isSynced === sum.lost > 0) process.exitCode = 1;
  }
}

if ((kind === 'ext4' || kind === 'xfs') && trials !== undefined) await main(kind, Number(trials));
