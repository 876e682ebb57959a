/**
 * The lock of the store: one process of the machine at a time writes. Taking it is one symlink(2): atomic, content
 * included. What it is made of, and how the lock of a dead process is removed: `lock-directory.ts`.
 *
 * The hold is sticky: it lasts until another process waits, so that one process alone pays nothing per write. A waiter
 * is connected to the holder's socket; the kernel ends the connection when the holder dies. The holder wakes the one
 * that has waited longest, then waits behind that one itself, and wakes the next when it has the lock again.
 *
 * Not covered: a holder that hangs (the others wait, and report its pid); an operator who removes files of the lock.
 */

import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RegistrarError } from '../../errors.ts';
import { pidOf } from './identity.ts';
import { LockDirectory, backOff } from './lock-directory.ts';
import type { LockDirectoryOptions } from './lock-directory.ts';

/** The time that a woken waiter has to take the lock before the process that woke it tries again. */
const wokenMsMax = 100;

/** A waiter asks again after this time if the lock has passed to another process: the one that it asked may hang. */
const waitAtOneMsMax = 2_000;

/** The clock of the file system is coarser than that of a timer. */
const clockMsMax = 20;

export interface LockOptions extends LockDirectoryOptions {
  /** Another process waits: release the lock, at once or after the current batch. */
  readonly onWaiter: () => void;
}

export class FileLock {
  readonly #onWaiter: () => void;
  #directory!: LockDirectory;
  #isHeld = false;
  /** Calls of `acquire` that have not returned. */
  #callers = 0;
  #competing: Promise<void> | undefined;
  /** The process that this one waits for. */
  #holder: Socket | undefined;
  /** Processes that wait for this one, the longest waiting first. */
  readonly #waiters = new Set<Socket>();
  /** The waiter that was woken last; it ends the connection when it has taken the lock. */
  #woken: Socket | undefined;

  private constructor({ onWaiter }: LockOptions) {
    this.#onWaiter = onWaiter;
  }

  /** Joins the protocol, without taking the lock. */
  static async join(options: LockOptions): Promise<FileLock> {
    const lock = new FileLock(options);
    lock.#directory = await LockDirectory.join(options, (connection) => lock.#addWaiter(connection));
    return lock;
  }

  get identity(): string {
    return this.#directory.identity;
  }

  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** Whether no living process holds the lock. */
  async isTakeable(): Promise<boolean> {
    const holder = this.#directory.ownerOf('lock');
    return holder === undefined || this.#directory.isDead(holder);
  }

  /** Whether another process waits for this one to release the lock. */
  get hasWaiters(): boolean {
    return this.#waiters.size > 0;
  }

  /**
   * Takes the lock; at once if it is still held. Rejects with `busy` after `waitMsMax`, naming the process that holds
   * it, and with `unavailable` if the directory was removed or replaced.
   */
  async acquire(waitMsMax: number): Promise<void> {
    if (this.#isHeld) return;
    this.#callers++;
    const timeout = new AbortController();
    let isLate = false;
    const late = sleep(waitMsMax, undefined, { signal: timeout.signal }).then(() => (isLate = true), () => undefined);
    try {
      while (!this.#isHeld && !isLate) await Promise.race([this.#compete(), late]);
      if (!this.#isHeld) throw this.#busy(waitMsMax);
    } finally {
      timeout.abort();
      this.#callers--;
      this.#stopIfUnneeded();
    }
  }

  /**
   * Releases the lock and wakes the longest waiting process. The caller has finished every write.
   * Throws `unavailable` if the lock is no longer this process's: its files were removed or replaced.
   */
  release(): void {
    if (!this.#isHeld) return;
    this.assertHeld();
    this.#isHeld = false;
    this.#directory.unlink('lock');
    const [longest] = this.#waiters;
    if (longest === undefined) return;
    this.#waiters.delete(longest);
    this.#woken = longest;
    longest.write('F');
    // The others wait for this process: it takes the lock once more to wake the next one.
    if (this.#waiters.size > 0) this.#compete().catch(() => this.#dismissWaiters());
  }

  /** Whether a living process other than this one has a file of this name, followed by its identity. */
  isTaken(prefix: string): Promise<boolean> {
    return this.#directory.isTaken(prefix);
  }

  /** Whether another living process has joined, whatever it does. */
  hasPeers(): Promise<boolean> {
    return this.#directory.isTaken('', '.s');
  }

  /** Throws `unavailable` if the lock or its directory was removed or replaced: writing must stop then. */
  assertHeld(): void {
    if (!this.#isOurs()) throw this.#directory.lost();
  }

  /** Throws `unavailable` if the path leads to another directory. */
  assertInPlace(): void {
    this.#directory.assertInPlace();
  }

  /** Leaves the protocol. */
  async leave(): Promise<void> {
    if (this.#isHeld && this.#isOurs()) this.release();
    this.#dismissWaiters();
    await this.#competing?.catch(() => undefined);
    await this.#directory.close();
  }

  #isOurs(): boolean {
    return this.#directory.isInPlace && this.#directory.ownerOf('lock') === this.identity;
  }

  #addWaiter(connection: Socket): void {
    if (!this.#isHeld) {
      connection.destroy();
      return;
    }
    this.#waiters.add(connection);
    connection.once('close', () => {
      this.#waiters.delete(connection);
      this.#stopIfUnneeded();
    });
    this.#onWaiter();
  }

  /** They ask the holder again. */
  #dismissWaiters(): void {
    for (const waiter of this.#waiters) waiter.destroy();
    this.#waiters.clear();
    this.#stopIfUnneeded();
  }

  get #isNeeded(): boolean {
    return this.#callers > 0 || this.#waiters.size > 0;
  }

  #stopIfUnneeded(): void {
    if (!this.#isNeeded) this.#holder?.destroy();
  }

  #compete(): Promise<void> {
    this.#competing ??= this.#takeInTurn().finally(() => (this.#competing = undefined));
    return this.#competing;
  }

  /** Takes the lock when it is this process's turn: for a caller, or only to wake the next waiter. */
  async #takeInTurn(): Promise<void> {
    const directory = this.#directory;
    await directory.listen();
    while (this.#isNeeded) {
      await this.#letWokenTakeIt();
      directory.assertInPlace();
      const holder = directory.link('lock') ? directory.identity : directory.ownerOf('lock');
      this.#holder?.destroy();
      if (holder === undefined) continue;
      if (holder === directory.identity) {
        await directory.tidy();
        this.#isHeld = true;
        if (this.#callers > 0) return;
        this.release();
        continue;
      }
      const liveness = await directory.probe(holder);
      if (liveness.state === 'alive') await this.#waitFor(holder, liveness.connection);
      else if (liveness.state === 'dead') await directory.breakLockOf(holder);
      else await backOff();
    }
    this.#holder?.destroy();
  }

  /** Asks a process for the lock, and waits until it wakes this one, ends the connection, or no longer holds the lock. */
  async #waitFor(holder: string, connection: Socket): Promise<void> {
    this.#holder = connection;
    this.#stopIfUnneeded();
    const outcome = await new Promise<'woken' | 'closed' | 'late'>((resolve) => {
      const timer = setInterval(() => {
        if (this.#directory.ownerOf('lock') !== holder) resolve('late');
      }, waitAtOneMsMax);
      connection.once('data', () => resolve('woken'));
      connection.once('close', () => {
        clearInterval(timer);
        resolve('closed');
      });
      connection.write('W');
    });
    // The connection of a woken waiter lasts until it has taken the lock.
    if (outcome !== 'woken') connection.destroy();
    // A holder that has no descriptors left closes each connection at once.
    if (outcome === 'closed' && this.#isNeeded && this.#directory.ownerOf('lock') === holder) await backOff();
  }

  /** The woken waiter needs a turn of its event loop: without this pause the last holder would always be first again. */
  async #letWokenTakeIt(): Promise<void> {
    const woken = this.#woken;
    this.#woken = undefined;
    if (woken === undefined || woken.destroyed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => woken.destroy(), wokenMsMax);
      woken.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #busy(waitedMs: number): RegistrarError {
    const { heldMs } = this.#directory;
    const holder = this.#directory.ownerOf('lock');
    const message = holder !== undefined && heldMs >= waitedMs - clockMsMax
      ? `The store is locked by process ${pidOf(holder)}, which has held the lock for ${seconds(heldMs)} s`
      : `The store is busy: other processes wrote in turn for ${seconds(waitedMs)} s, and this one had none`;
    return new RegistrarError('busy', message, { retryAfterSeconds: 1 });
  }
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}
