/**
 * A process that has opened a file store and does what it is told over IPC: `fork(…, [path])`. It is
 * killed, stopped and raced by the tests. Without a path it does nothing.
 */

import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { RegistrarError } from '../../lib/errors.ts';
import { nodeFileSystem } from '../../lib/store/file/file-system.ts';
import { FileUserStore } from '../../lib/store/file/store.ts';
import { loader, root } from './temporary.ts';
import { candidate } from './user-store-contract.ts';

/** What a process may be told, and the answer, which carries the same number. */
export type Command =
  | { readonly do: 'create'; readonly logins: readonly string[] }
  /** Finds the user and gives a new password: the answer is the new version, or 0. */
  | { readonly do: 'change'; readonly login: string }
  | { readonly do: 'remove'; readonly login: string }
  | { readonly do: 'find'; readonly login: string }
  /** The answer is true, or false if another process is at it. */
  | { readonly do: 'compact' }
  | { readonly do: 'close' };

const at = '2026-11-23T08:00:00.000Z';
const path = process.argv[2];

if (path !== undefined && process.send !== undefined) {
  const send = process.send.bind(process);
  // What a trial has to find when it is so: a store that says it has synced, and has not.
  const fs = process.argv[4] === 'no-sync' ? { ...nodeFileSystem, datasync: async () => undefined } : nodeFileSystem;
  const store = await FileUserStore.open({ path, lockWaitMsMax: Number(process.argv[3] ?? 20_000), fs });
  process.on('message', async ({ n, command }: { n: number; command: Command }) => {
    try {
      if (command.do === 'create') {
        const outcomes = await Promise.all(command.logins.map((login) => store.create(candidate(login))));
        send({ n, answer: outcomes.map(({ created, user }) => ({ created, id: user.id })) });
      } else if (command.do === 'change') {
        const user = await store.find(command.login);
        const changed = user && (await store.replace(user, { kdf: user.kdf, password: user.password, changed: at }));
        send({ n, answer: changed?.version ?? 0 });
      } else if (command.do === 'remove') {
        const user = await store.find(command.login);
        send({ n, answer: user !== undefined && (await store.remove(user, at)) });
      } else if (command.do === 'find') {
        send({ n, answer: await store.find(command.login) });
      } else if (command.do === 'compact') {
        send({ n, answer: await store.compact().then(() => true, isBusy) });
      } else {
        await store.close();
        send({ n, answer: 'closed' });
        process.disconnect();
      }
    } catch (error) {
      send({ n, error: error instanceof Error ? `${'code' in error ? String(error.code) : ''}: ${error.message}` : 'unknown' });
    }
  });
  send('ready');
}

function isBusy(error: unknown): false {
  if (error instanceof RegistrarError && error.code === 'busy') return false;
  throw error;
}

export interface StoreProcess {
  readonly child: ChildProcess;
  tell(command: Command): Promise<any>;
}

export async function spawnStore(
  t: Pick<TestContext, 'after'>,
  file: string,
  lockWaitMsMax = 20_000,
  ...more: readonly 'no-sync'[]
): Promise<StoreProcess> {
  const script = fileURLToPath(import.meta.url);
  const child = fork(script, [file, String(lockWaitMsMax), ...more], { cwd: root, execArgv: [...loader], stdio: ['ignore', 'inherit', 'pipe', 'ipc'] });
  let stderr = '';
  child.stderr?.on('data', (chunk) => (stderr += chunk));
  // What cannot be sent any more is told by the process's end.
  child.on('error', () => undefined);
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await ended;
    }
  });
  const waiting = new Map<number, { resolve: (answer: any) => void; reject: (error: Error) => void }>();
  let count = 0;
  await new Promise<void>((resolve, reject) => {
    child.once('message', () => resolve());
    void ended.then(() => reject(new Error(`the store's process ended: ${stderr}`)));
  });
  child.on('message', ({ n, answer, error }: { n: number; answer?: unknown; error?: string }) => {
    if (error === undefined) waiting.get(n)?.resolve(answer);
    else waiting.get(n)?.reject(new Error(error));
    waiting.delete(n);
  });
  void ended.then(() => {
    for (const { reject } of waiting.values()) reject(new Error('the process ended'));
  });
  return {
    child,
    tell: (command) =>
      new Promise((resolve, reject) => {
        waiting.set(++count, { resolve, reject });
        child.send({ n: count, command }, () => undefined);
      }),
  };
}
