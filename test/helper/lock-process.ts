/**
 * A process that takes part in a lock and does what it is told over IPC, and a fence that it walks through
 * while it holds: a counter in a file, which each holder raises, marks with its name, looks at again and again,
 * and signs off. Two that hold at once find each other's marks. Without arguments it does nothing.
 *
 * A holder that was killed inside leaves its mark. Whether it was dead when the next one came is asked of
 * PF_EXITING: a dying process closes its sockets before it is a zombie, and until then its pid looks alive.
 */

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { openSync, readFileSync, readSync, readlinkSync, writeFileSync, writeSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { nodeFileSystem } from '../../lib/store/file/file-system.ts';
import { FileLock } from '../../lib/store/file/file-lock.ts';
import { connectCommands, serveCommands } from './command-process.ts';
import { childEnvironment, loader, root, until } from './temporary.ts';

interface Mark {
  /** How often the lock was taken. */
  readonly takes: number;
  /** A step of the holder's: it is raised while it is inside. */
  readonly step: number;
  readonly isInside: boolean;
  readonly pid: number;
  readonly start: string;
  readonly namespace: string;
}

const markBytes = 256;

/** For those who look from outside, and for the process that holds. */
export class Fence {
  readonly #fd: number;
  readonly #me = { pid: process.pid, start: statOf(process.pid)?.start ?? '', namespace: readlinkSync('/proc/self/ns/pid') };
  readonly #bytes = Buffer.alloc(markBytes);
  #left: Mark | undefined;

  constructor(path: string) {
    this.#fd = openSync(path, 'r+');
  }

  /** Made before a process joins. */
  static make(path: string): Fence {
    writeFileSync(path, '');
    const fence = new Fence(path);
    fence.#write({ takes: 0, step: 0, isInside: false, ...fence.#me });
    return fence;
  }

  read(): Mark {
    const length = readSync(this.#fd, this.#bytes, 0, markBytes, 0);
    return JSON.parse(this.#bytes.toString('latin1', 0, length));
  }

  #write(mark: Mark): void {
    this.#left = mark;
    writeSync(this.#fd, JSON.stringify(mark).padEnd(markBytes), 0, 'latin1');
  }

  enter(): void {
    const before = this.read();
    if (before.isInside && isRunning(before, this.#me.namespace)) {
      throw new Error(`OVERLAP: process ${before.pid} is inside, and process ${process.pid} came in`);
    }
    this.#write({ takes: before.takes + 1, step: 0, isInside: true, ...this.#me });
  }

  /** No process has joined since. */
  step(): void {
    const left = this.#left!;
    const now = this.read();
    if (JSON.stringify(now) !== JSON.stringify(left)) {
      throw new Error(`OVERLAP: process ${process.pid} left take ${left.takes}, step ${left.step}, and finds take ${now.takes} of process ${now.pid}`);
    }
    this.#write({ ...left, step: left.step + 1 });
  }

  leave(): void {
    this.step();
    this.#write({ ...this.#left!, isInside: false });
  }
}

/** Whether that process can still do anything. Of another pid namespace this does not tell: it is taken for dead. */
function isRunning({ pid, start, namespace }: Mark, ours: string): boolean {
  if (namespace !== ours) return false;
  const stat = statOf(pid);
  return stat !== undefined && stat.start === start && !stat.isExiting;
}

export function statOf(pid: number): { state: string; start: string; isExiting: boolean; parent: number } | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0]!, parent: Number(fields[1]), isExiting: (Number(fields[6]) & 4) !== 0, start: fields[19]! };
}

export type LockCommand =
  /** Takes the lock and goes through the fence; the answer is when, in ns of the machine's clock. */
  | { readonly do: 'hold'; readonly waitMsMax: number }
  /** Resolves when another process waits for the lock that this one holds. */
  | { readonly do: 'wanted' }
  | { readonly do: 'release' }
  /** Takes turns until the lock was taken `takes` times by all together; the answer is how often by this one. */
  | { readonly do: 'turns'; readonly takes: number };

const [directory, fencePath] = process.argv.slice(2);

if (directory !== undefined && fencePath !== undefined && process.send !== undefined) {
  const fence = new Fence(fencePath);
  const lock = await FileLock.join({ fs: nodeFileSystem, directory, onWaiter: () => undefined });
  const takeTurns = async (takes: number): Promise<{ takes: number; longestMs: number }> => {
    const sum = { takes: 0, longestMs: 0 };
    for (;;) {
      const asked = performance.now();
      await lock.acquire(60_000);
      sum.longestMs = Math.max(sum.longestMs, performance.now() - asked);
      if (fence.read().takes >= takes) {
        lock.release();
        return sum;
      }
      fence.enter();
      await nextTurn();
      fence.step();
      if (sum.takes % 8 === 0) await nextTurn();
      fence.leave();
      sum.takes++;
      lock.release();
    }
  };
  serveCommands<LockCommand>(async (command) => {
    switch (command.do) {
      case 'hold': {
        await lock.acquire(command.waitMsMax);
        const heldAt = String(process.hrtime.bigint());
        fence.enter();
        return heldAt;
      }
      case 'wanted':
        return until(() => lock.hasWaiters, 'another process to wait for the lock');
      case 'release':
        fence.leave();
        return lock.release();
      case 'turns':
        return takeTurns(command.takes);
    }
  }, { identity: lock.identity, pid: process.pid });
  process.on('disconnect', () => process.exit());
}

/** Where a process lives: as a child of the test, of a parent that never asks how it ended, or in a namespace. */
export type Home = 'plain' | 'unreaped' | 'pid namespace' | 'net namespace';

const around: Readonly<Record<Home, readonly string[]>> = {
  plain: [],
  unreaped: ['sh', '-c', '"$@" & exec sleep 1000 3>&-', 'sh'],
  'pid namespace': ['unshare', '--pid', '--fork', '--mount-proc'],
  'net namespace': ['unshare', '--net'],
};

export interface LockProcess {
  readonly identity: string;
  /** As it knows itself, which in a namespace is not what it is here. */
  readonly ownPid: number;
  /** As it is known here. */
  readonly pid: number;
  tell(command: LockCommand): Promise<any>;
  /** kill -9. */
  kill(): void;
  readonly ended: Promise<void>;
}

export async function spawnLock(t: Pick<TestContext, 'after'>, lockDirectory: string, fence: string, home: Home = 'plain'): Promise<LockProcess> {
  const command = [...around[home], process.execPath, ...loader, fileURLToPath(import.meta.url), lockDirectory, fence];
  const child: ChildProcess = spawn(command[0]!, command.slice(1), { cwd: root, env: childEnvironment(), stdio: ['ignore', 'inherit', 'pipe', 'ipc'] });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const ended = new Promise<void>((resolve) => child.once('disconnect', () => resolve()));
  let pid = child.pid!;
  let start = statOf(pid)?.start;
  t.after(async () => {
    // Another process may have its number by now.
    if (statOf(pid)?.start === start) process.kill(pid, 'SIGKILL');
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await exited;
  });
  const { ready, tell } = await connectCommands<LockCommand, { identity: string; pid: number }>(child);
  if (home === 'unreaped' || home === 'pid namespace') {
    pid = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim());
    start = statOf(pid)?.start;
  }
  return {
    identity: ready.identity,
    ownPid: ready.pid,
    pid,
    tell,
    kill: () => void process.kill(pid, 'SIGKILL'),
    ended,
  };
}
