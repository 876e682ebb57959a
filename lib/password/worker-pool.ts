/**
 * Worker threads that compute password hashes, one for each core, behind a bounded queue. They start with the first job.
 *
 * A job whose wait would exceed the deadline is rejected at once, with the time after which it would not; one whose client
 * has disconnected leaves the queue. All workers but one run at the lowest priority: requests and fsync go first while every core hashes
 * (measured: the 99th percentile of an append stays at 0.4 ms, against 3.9 ms from libuv's pool), and the one at
 * normal priority is never starved.
 */

import { Worker } from 'node:worker_threads';
import { RegistrarError } from '../errors.ts';
import { runJob } from './derive.js';
import { costOf } from './kdf.ts';
import type { Derivation } from './kdf.ts';

export interface Job {
  readonly password: string;
  readonly salt: string | Uint8Array;
  readonly first: Derivation;
  /** The length of the first hash. */
  readonly bytes: number;
  /** What the first hash should be; absent where the hash itself is wanted. */
  readonly expected?: Uint8Array;
  /** What is computed after a mismatch. */
  readonly rest: readonly Derivation[];
}

export interface Result {
  /** Of a job without an expected hash. */
  readonly hash?: Uint8Array;
  readonly isRight?: boolean;
  readonly ms: number;
}

export interface PoolOptions {
  readonly workers: number;
  /** How long a job may have to wait for a worker. */
  readonly waitMsMax: number;
  /** Jobs in the queue, whatever they cost: bounds its memory. */
  readonly queueMax: number;
  /** What a job usually is: when the next rejected client may come back depends on it. */
  readonly usual: Derivation;
  /** Gets the time of each job and the derivations that it came to. */
  readonly onHash?: (ms: number, derivations: readonly Derivation[]) => void;
}

interface Task {
  readonly job: Job;
  readonly cost: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

interface WorkerSlot {
  readonly worker: Worker;
  task: Task | undefined;
  startedAt: number;
  /** The worker has died, and its successor has not started yet. */
  isRestarting: boolean;
}

/** A slow core of 2020, until a job has been measured. */
const msPerCostAtFirst = 0.00025;
/** A cheaper job is mostly the call around it, and would spoil the estimate. */
const costMeasuredMin = 10_000;
/** The message to a worker and back, as many iterations. A job that costs less is computed at once, on the calling thread. */
const costOfMessage = 200;

const lowPriority = 19;
const restartMs = 200;
/** Clients that are told to come back later than that have mostly given up by then. */
const retryMsMax = 60_000;

export class WorkerPool {
  readonly #options: PoolOptions;
  readonly #slots: WorkerSlot[] = [];
  readonly #queue = new Set<Task>();
  #queuedCost = 0;
  #msPerCost = msPerCostAtFirst;
  /** When there is room for the next job that is rejected. */
  #nextRetryAt = 0;
  #isClosed = false;
  #rejected = 0;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  get queued(): number {
    return this.#queue.size;
  }

  /** Jobs that would have had to wait too long. */
  get rejected(): number {
    return this.#rejected;
  }

  /** Whether one more job would have to wait too long. */
  get isFull(): boolean {
    if (this.#queue.size === 0 && (this.#slots.length === 0 || this.#slots.some(isIdle))) return false;
    return this.#waitMs() > this.#options.waitMsMax || this.#queue.size >= this.#options.queueMax;
  }

  /** Rejects with `overloaded`, `unavailable` after `close`, or the signal's reason. */
  async run(job: Job, signal: AbortSignal | undefined): Promise<Result> {
    if (this.#isClosed) throw closed();
    signal?.throwIfAborted();
    const cost = costOfJob(job);
    if (cost < costOfMessage) return this.#finish(job, cost, runJob(job));
    this.#rejectIfFull();
    return new Promise<Result>((resolve, reject) => {
      const leave = (): void => {
        if (this.#dequeue(task)) reject(signal?.reason);
      };
      const settle = <T>(act: (value: T) => void) => (value: T): void => {
        signal?.removeEventListener('abort', leave);
        act(value);
      };
      const task: Task = { job, cost, resolve: settle(resolve), reject: settle(reject) };
      signal?.addEventListener('abort', leave, { once: true });
      this.#queue.add(task);
      this.#queuedCost += cost;
      this.#dispatch();
    });
  }

  /** Ends the workers. Jobs that have not finished are rejected. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const task of this.#queue) task.reject(closed());
    this.#queue.clear();
    for (const slot of this.#slots) slot.task?.reject(closed());
    await Promise.all(this.#slots.map((slot) => slot.worker.terminate()));
  }

  #rejectIfFull(): void {
    if (!this.isFull) return;
    this.#rejected++;
    const retryMs = this.#retryMs(this.#waitMs() - this.#options.waitMsMax);
    const retryAfterSeconds = Math.max(1, Math.ceil(retryMs / 1000));
    const detail = `Too many passwords are waiting to be hashed: try again in ${retryAfterSeconds} s`;
    throw new RegistrarError('overloaded', detail, { retryAfterSeconds });
  }

  /** Clients that are rejected get turns one after the other: told the same second, all but a few would come in vain. */
  #retryMs(roomMs: number): number {
    const now = performance.now();
    const retryAt = Math.min(Math.max(now + roomMs, this.#nextRetryAt), now + retryMsMax);
    this.#nextRetryAt = retryAt + (costOf(this.#options.usual) * this.#msPerCost) / this.#options.workers;
    return retryAt - now;
  }

  /** How long a job that came now would wait: for what is queued and what still runs, over all workers. */
  #waitMs(): number {
    const now = performance.now();
    let ms = this.#queuedCost * this.#msPerCost;
    for (const { task, startedAt } of this.#slots) {
      if (task !== undefined) ms += Math.max(0, task.cost * this.#msPerCost - (now - startedAt));
    }
    return ms / this.#options.workers;
  }

  #dequeue(task: Task): boolean {
    if (!this.#queue.delete(task)) return false;
    this.#queuedCost -= task.cost;
    return true;
  }

  #dispatch(): void {
    while (this.#slots.length < this.#options.workers) this.#slots.push(this.#start(this.#slots.length === 0 ? 0 : lowPriority));
    for (const slot of this.#slots) {
      if (!isIdle(slot)) continue;
      const [task] = this.#queue;
      if (task === undefined) return;
      this.#dequeue(task);
      slot.task = task;
      slot.startedAt = performance.now();
      slot.worker.ref();
      slot.worker.postMessage(task.job);
    }
  }

  #start(nice: number): WorkerSlot {
    // The worker is plain JavaScript: it needs no loader and no flag of the main thread.
    const worker = new Worker(new URL('./hash-worker.js', import.meta.url), { workerData: { nice }, execArgv: [] });
    const slot: WorkerSlot = { worker, task: undefined, startedAt: 0, isRestarting: false };
    worker.unref();
    worker.on('message', (result: Result) => {
      const { task } = slot;
      slot.task = undefined;
      slot.worker.unref();
      if (task !== undefined) task.resolve(this.#finish(task.job, task.cost, result));
      this.#dispatch();
    });
    worker.on('error', (cause) => this.#restart(slot, nice, cause));
    return slot;
  }

  #finish(job: Job, cost: number, result: Result): Result {
    const derivations = result.isRight === false ? [job.first, ...job.rest] : [job.first];
    const costDone = result.isRight === false ? cost : costOf(job.first);
    if (costDone >= costMeasuredMin) this.#msPerCost = this.#msPerCost * 0.8 + (result.ms / costDone) * 0.2;
    this.#options.onHash?.(result.ms, derivations);
    return result;
  }

  /** A worker that dies (out of memory) takes its task with it and no more. */
  #restart(slot: WorkerSlot, nice: number, cause: unknown): void {
    slot.isRestarting = true;
    slot.task?.reject(new RegistrarError('internal', 'A hash worker has died', { cause }));
    slot.task = undefined;
    // Not at once: a worker that dies as soon as it starts would keep a core busy.
    setTimeout(() => {
      if (this.#isClosed) return;
      this.#slots[this.#slots.indexOf(slot)] = this.#start(nice);
      this.#dispatch();
    }, restartMs).unref();
  }
}

/** A check counts as a failure: what it may take, and what a flood of guesses does take. */
function costOfJob({ first, rest }: Job): number {
  return rest.reduce((sum, derivation) => sum + costOf(derivation), costOf(first));
}

function isIdle({ task, isRestarting }: WorkerSlot): boolean {
  return task === undefined && !isRestarting;
}

function closed(): RegistrarError {
  return new RegistrarError('unavailable', 'Cannot hash: the service is ending');
}
