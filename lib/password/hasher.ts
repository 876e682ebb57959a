/**
 * Makes and checks password hashes in worker threads, one for each core, behind a bounded queue.
 *
 * A request whose wait would pass the deadline is refused at once, with the time after which it would
 * not be; one whose client has gone leaves the queue. All workers but one run at the lowest priority:
 * serving and fsync go first while everything hashes (measured: the 99th percentile of an append stays
 * at 0.4 ms, against 3.9 ms from libuv's pool), and the one at normal priority is never starved.
 */

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import { RegistrarError } from '../errors.ts';
import type { Credential } from '../user.ts';
import { digestBytes, formatKdf, formatPassword, parseCredential, saltCharacters } from './kdf.ts';
import type { Digest, Kdf } from './kdf.ts';

export interface HasherOptions {
  /** How new hashes are made. */
  readonly kdf: Kdf;
  readonly workers: number;
  /** The longest that a hash may have to wait for its turn. */
  readonly waitMsMax: number;
  /** Hashes in the queue, whatever they cost: bounds its memory. */
  readonly queueMax: number;
}

interface Task {
  readonly password: string;
  readonly salt: string;
  readonly kdf: Kdf;
  readonly resolve: (hash: Buffer) => void;
  readonly reject: (error: unknown) => void;
}

interface Answer {
  readonly hash: Uint8Array;
  readonly ms: number;
}

interface Seat {
  readonly worker: Worker;
  task: Task | undefined;
  startedAt: number;
  /** Its worker has died and the next one is not there yet. */
  isOut: boolean;
}

/** Milliseconds for an iteration until one has been measured: a slow core of 2020. */
const msPerIterationAtFirst: Readonly<Record<Digest, number>> = { sha256: 0.00025, sha384: 0.0005, sha512: 0.0005 };

/** A hash of fewer iterations is mostly the call around it, and would spoil the estimate for all others. */
const iterationsMeasuredMin = 10_000;
const msPerCall = 0.1;

const nicest = 19;

const reseatMs = 200;

export class Hasher {
  readonly #options: HasherOptions;
  readonly #seats: Seat[] = [];
  readonly #queue = new Set<Task>();
  readonly #msPerIteration: Record<Digest, number> = { ...msPerIterationAtFirst };
  /** What waits, in what it takes and not in time: the estimate of the time may change meanwhile. */
  readonly #waiting: Record<Digest, { calls: number; iterations: number }> = {
    sha256: { calls: 0, iterations: 0 },
    sha384: { calls: 0, iterations: 0 },
    sha512: { calls: 0, iterations: 0 },
  };
  #closed = false;

  constructor(options: HasherOptions) {
    this.#options = options;
    for (let n = 0; n < options.workers; n++) this.#seats.push(this.#seat(n === 0 ? 0 : nicest));
  }

  /** The kdf of new hashes, as it is stored. */
  get kdf(): string {
    return formatKdf(this.#options.kdf);
  }

  /** Hashes that wait for a worker. */
  get queued(): number {
    return this.#queue.size;
  }

  /** Hashes a normalised password under a new random salt. Rejects with `overloaded`, or the signal's reason. */
  async hash(password: string, signal?: AbortSignal): Promise<Credential> {
    const salt = randomBytes(saltCharacters / 2).toString('hex');
    const hash = await this.#derive(password, salt, this.#options.kdf, signal);
    return { kdf: this.kdf, password: formatPassword(salt, hash) };
  }

  /** Whether a normalised password is the one behind a stored credential. Rejects as `hash` does. */
  async verify(password: string, credential: Credential, signal?: AbortSignal): Promise<boolean> {
    const stored = parseCredential(credential.kdf, credential.password);
    const hash = await this.#derive(password, stored.salt, stored, signal);
    return timingSafeEqual(hash, stored.hash);
  }

  /** Whether a stored hash should be made anew at the next chance. */
  isStale(credential: Credential): boolean {
    return credential.kdf !== this.kdf;
  }

  /** Ends the workers. What still waits is refused. */
  async close(): Promise<void> {
    this.#closed = true;
    const gone = new RegistrarError('unavailable', 'Cannot hash: the service is ending');
    for (const task of this.#queue) task.reject(gone);
    this.#queue.clear();
    for (const seat of this.#seats) seat.task?.reject(gone);
    await Promise.all(this.#seats.map((seat) => seat.worker.terminate()));
  }

  #derive(password: string, salt: string, kdf: Kdf, signal: AbortSignal | undefined): Promise<Buffer> {
    if (this.#closed) throw new RegistrarError('unavailable', 'Cannot hash: the service is ending');
    signal?.throwIfAborted();
    this.#refuseIfOverloaded();
    return new Promise<Buffer>((resolve, reject) => {
      const leave = (): void => {
        if (this.#take(task)) reject(signal?.reason);
      };
      const task: Task = {
        password,
        salt,
        kdf,
        resolve: (hash) => {
          signal?.removeEventListener('abort', leave);
          resolve(hash);
        },
        reject: (error) => {
          signal?.removeEventListener('abort', leave);
          reject(error);
        },
      };
      signal?.addEventListener('abort', leave, { once: true });
      this.#queue.add(task);
      this.#count(task.kdf, 1);
      this.#dispatch();
    });
  }

  #refuseIfOverloaded(): void {
    const idle = this.#seats.some((seat) => seat.task === undefined && !seat.isOut);
    if (idle && this.#queue.size === 0) return;
    const waitMs = this.#waitMs();
    if (waitMs <= this.#options.waitMsMax && this.#queue.size < this.#options.queueMax) return;
    const retryAfterSeconds = Math.max(1, Math.ceil((waitMs - this.#options.waitMsMax) / 1000));
    throw new RegistrarError(
      'overloaded',
      `Too many passwords are waiting to be hashed: try again in ${retryAfterSeconds} s`,
      { retryAfterSeconds },
    );
  }

  /** How long a task that came now would wait: what is queued and what still runs, over all workers. */
  #waitMs(): number {
    const now = performance.now();
    let ms = 0;
    for (const [digest, { calls, iterations }] of Object.entries(this.#waiting) as [Digest, { calls: number; iterations: number }][]) {
      ms += this.#cost({ digest, iterations }, calls);
    }
    for (const { task, startedAt } of this.#seats) {
      if (task !== undefined) ms += Math.max(0, this.#cost(task.kdf) - (now - startedAt));
    }
    return ms / this.#seats.length;
  }

  #cost({ digest, iterations }: Kdf, calls = 1): number {
    return calls * msPerCall + iterations * this.#msPerIteration[digest];
  }

  #take(task: Task): boolean {
    if (!this.#queue.delete(task)) return false;
    this.#count(task.kdf, -1);
    return true;
  }

  #count({ digest, iterations }: Kdf, sign: 1 | -1): void {
    const waiting = this.#waiting[digest];
    waiting.calls += sign;
    waiting.iterations += sign * iterations;
  }

  #dispatch(): void {
    for (const seat of this.#seats) {
      if (seat.task !== undefined || seat.isOut) continue;
      const [task] = this.#queue;
      if (task === undefined) return;
      this.#take(task);
      seat.task = task;
      seat.startedAt = performance.now();
      seat.worker.ref();
      const { password, salt, kdf } = task;
      const { iterations, digest } = kdf;
      seat.worker.postMessage({ password, salt, iterations, bytes: digestBytes[digest], digest });
    }
  }

  #seat(nice: number): Seat {
    // No loader of the main thread is wanted there, and no flag of its.
    const worker = new Worker(new URL('./hash-worker.js', import.meta.url), { workerData: { nice }, execArgv: [] });
    const seat: Seat = { worker, task: undefined, startedAt: 0, isOut: false };
    worker.unref();
    worker.on('message', (answer: Answer) => this.#finish(seat, answer));
    worker.on('error', (cause) => this.#replace(seat, nice, cause));
    return seat;
  }

  #finish(seat: Seat, { hash, ms }: Answer): void {
    const task = seat.task;
    seat.task = undefined;
    seat.worker.unref();
    if (task !== undefined) {
      const { digest, iterations } = task.kdf;
      if (iterations >= iterationsMeasuredMin) {
        this.#msPerIteration[digest] = this.#msPerIteration[digest] * 0.8 + (ms / iterations) * 0.2;
      }
      task.resolve(Buffer.from(hash.buffer, hash.byteOffset, hash.byteLength));
    }
    this.#dispatch();
  }

  /** A worker that dies (out of memory) takes its task with it and no more. */
  #replace(seat: Seat, nice: number, cause: unknown): void {
    const place = this.#seats.indexOf(seat);
    seat.isOut = true;
    seat.task?.reject(new RegistrarError('internal', 'A hash worker has died', { cause }));
    seat.task = undefined;
    // Not at once: one that dies as soon as it lives would take a core for that alone.
    setTimeout(() => {
      if (this.#closed || place < 0) return;
      this.#seats[place] = this.#seat(nice);
      this.#dispatch();
    }, reseatMs).unref();
  }
}
