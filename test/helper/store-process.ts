/**
 * A process with an open file store that runs commands over IPC. Trials kill, stop and race such processes.
 * Without a path it does nothing.
 */

import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { RegistrarError } from '../../lib/errors.ts';
import { nodeFileSystem } from '../../lib/store/file/file-system.ts';
import { FileUserStore } from '../../lib/store/file/file-user-store.ts';
import { connectCommands, serveCommands } from './command-process.ts';
import { childEnvironment, loader, root } from './temporary.ts';
import { newUser } from './user-store-contract.ts';

export type Command =
  /** The answer is `{created, id}` for each login. */
  | { readonly do: 'create'; readonly logins: readonly string[] }
  /** Finds the user and replaces the password. The answer is the new version, or 0. */
  | { readonly do: 'change'; readonly login: string }
  | { readonly do: 'remove'; readonly login: string }
  | { readonly do: 'find'; readonly login: string }
  /** The answer is true, or false if another process compacts the file. */
  | { readonly do: 'compact' }
  | { readonly do: 'close' };

const at = '2026-11-23T08:00:00.000Z';
const path = process.argv[2];

if (path !== undefined && process.send !== undefined) {
  // A store that reports a sync without one: a trial has to notice it.
  const fs = process.argv[4] === 'no-sync' ? { ...nodeFileSystem, datasync: async () => undefined } : nodeFileSystem;
  const store = await FileUserStore.open({ path, lockWaitMsMax: Number(process.argv[3] ?? 20_000), fs });
  serveCommands<Command>((command) => run(store, command), 'ready');
}

async function run(store: FileUserStore, command: Command): Promise<unknown> {
  switch (command.do) {
    case 'create': {
      const outcomes = await Promise.all(command.logins.map((login) => store.create(newUser(login))));
      return outcomes.map(({ created, user }) => ({ created, id: user.id }));
    }
    case 'change': {
      const user = await store.findRecord(command.login);
      const changed = user && (await store.replace(user, { kdf: user.kdf, password: user.password, changed: at }));
      return changed?.version ?? 0;
    }
    case 'remove': {
      const user = await store.findRecord(command.login);
      return user !== undefined && (await store.remove(user, at));
    }
    case 'find':
      return store.findRecord(command.login);
    case 'compact':
      return store.compact().then(() => true, isBusy);
    case 'close':
      await store.close();
      setImmediate(() => process.disconnect());
      return 'closed';
  }
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
  const child = fork(script, [file, String(lockWaitMsMax), ...more], { cwd: root, env: childEnvironment(), execArgv: [...loader], stdio: ['ignore', 'inherit', 'pipe', 'ipc'] });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  });
  const { tell } = await connectCommands<Command, 'ready'>(child);
  return { child, tell };
}
