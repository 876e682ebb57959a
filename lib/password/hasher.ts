/**
 * Makes and checks password hashes in worker threads, one for each core, behind a bounded queue.
 *
 * A request whose wait would pass the deadline is refused at once, with the time after which it would
 * not be; one whose client has gone leaves the queue. All workers but one run at the lowest priority:
 * serving and fsync go first while everything hashes (measured: the 99th percentile of an append stays
 * at 0.4 ms, against 3.9 ms from libuv's pool), and the one at normal priority is never starved.
 */

import { randomBytes } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import { RegistrarError } from '../errors.ts';
import type { Credential } from '../user.ts';
import { padding } from './failure-work.ts';
import type { Derivation } from './failure-work.ts';
import { digestBytes, formatKdf, formatPassword, parseCredential, parseStoredKdf, saltCharacters } from './kdf.ts';
import type { Digest, Kdf } from './kdf.ts';

export interface HasherOptions {
  /** How new hashes are made. */
  readonly kdf: Kdf;
  readonly workers: number;
  /** The longest that a hash may have to wait for its turn. */
  readonly waitMsMax: number;
  /** Hashes in the queue, whatever they cost: bounds its memory. */
  readonly queueMax: number;
  /** Told of each hash or check: the time it took, and the calls of pbkdf2 it was. */
  readonly onHash?: (ms: number, calls: readonly Derivation[]) => void;
}

export interface VerifyOptions {
  readonly signal?: AbortSignal | undefined;
  /** How the stored hashes are made: a failure costs what the dearest of each digest would. */
  readonly kdfs: readonly string[];
}

/** What a worker is told to do. */
interface Job {
  readonly password: string;
  readonly salt: string | Uint8Array;
  readonly first: Derivation;
  /** The hash that the first call should give; undefined where it is wanted itself. */
  readonly expected?: Uint8Array;
  /** What is done when it does not. */
  readonly rest: readonly Derivation[];
}

interface Task {
  readonly job: Job;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

interface Answer {
  /** In answer to a job with no expected hash. */
  readonly hash?: Uint8Array;
  readonly isRight?: boolean;
  readonly calls: readonly (Derivation & { readonly ms: number })[];
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
/** Nobody is told to come later than that: by then most have given up. */
const turnMsMax = 60_000;

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
  /** Nobody's password, read like everybody's: to make one for each check took 2 µs longer, which could be told. */
  readonly #decoy: Credential;
  /** When there is room for the next one that is refused. */
  #nextTurn = 0;
  #closed = false;
  #hashes = 0;
  #refused = 0;

  constructor(options: HasherOptions) {
    this.#options = options;
    this.#decoy = { kdf: this.kdf, password: formatPassword(newSalt(), randomBytes(digestBytes[options.kdf.digest])) };
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

  /** Workers that are busy. */
  get running(): number {
    return this.#seats.filter((seat) => seat.task !== undefined).length;
  }

  /** Hashes and checks that were done. */
  get hashes(): number {
    return this.#hashes;
  }

  /** Hashes and checks that would have had to wait too long. */
  get refused(): number {
    return this.#refused;
  }

  /** Whether one more would have to wait too long. */
  get isFull(): boolean {
    if (this.#queue.size === 0 && this.#seats.some(isIdle)) return false;
    return this.#waitMs() > this.#options.waitMsMax || this.#queue.size >= this.#options.queueMax;
  }

  /** Hashes a normalised password under a new random salt. Rejects with `overloaded`, or the signal's reason. */
  async hash(password: string, signal?: AbortSignal): Promise<Credential> {
    const salt = newSalt();
    const { hash } = await this.#do({ password, salt, first: this.#options.kdf, rest: [] }, signal);
    if (hash === undefined) throw new RegistrarError('internal', 'A hash worker has answered another question');
    return { kdf: this.kdf, password: formatPassword(salt, hash) };
  }

  /**
   * Whether a normalised password is the one behind a stored credential. Without one, for a login that nobody has,
   * it never is, and costs what every failure costs. Rejects as `hash` does.
   */
  async verify(password: string, credential: Credential | undefined, { signal, kdfs }: VerifyOptions): Promise<boolean> {
    const { kdf, password: field } = credential ?? this.#decoy;
    const stored = parseCredential(kdf, field);
    const known = kdfs.map(parseStoredKdf).filter((parsed) => parsed !== undefined);
    const rest = padding(stored, [...known, this.#options.kdf]);
    const { isRight } = await this.#do({ password, salt: stored.salt, first: stored, expected: stored.hash, rest }, signal);
    return credential !== undefined && isRight === true;
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

  #do(job: Job, signal: AbortSignal | undefined): Promise<Answer> {
    if (this.#closed) throw new RegistrarError('unavailable', 'Cannot hash: the service is ending');
    signal?.throwIfAborted();
    this.#refuseIfOverloaded();
    return new Promise<Answer>((resolve, reject) => {
      const leave = (): void => {
        if (this.#take(task)) reject(signal?.reason);
      };
      const task: Task = {
        job,
        resolve: (answer) => {
          signal?.removeEventListener('abort', leave);
          resolve(answer);
        },
        reject: (error) => {
          signal?.removeEventListener('abort', leave);
          reject(error);
        },
      };
      signal?.addEventListener('abort', leave, { once: true });
      this.#queue.add(task);
      this.#count(job, 1);
      this.#dispatch();
    });
  }

  #refuseIfOverloaded(): void {
    if (!this.isFull) return;
    this.#refused++;
    const waitMs = this.#waitMs();
    const retryAfterSeconds = Math.max(1, Math.ceil(this.#turnMs(waitMs - this.#options.waitMsMax) / 1000));
    throw new RegistrarError(
      'overloaded',
      `Too many passwords are waiting to be hashed: try again in ${retryAfterSeconds} s`,
      { retryAfterSeconds },
    );
  }

  /**
   * In how long there is room for whoever is refused now, behind all who were refused before: told the same second they
   * would all come at once, and all but a few in vain.
   */
  #turnMs(roomMs: number): number {
    const now = performance.now();
    const turn = Math.min(Math.max(now + roomMs, this.#nextTurn), now + turnMsMax);
    this.#nextTurn = turn + this.#cost(this.#options.kdf) / this.#seats.length;
    return turn - now;
  }

  /** How long a task that came now would wait: what is queued and what still runs, over all workers. */
  #waitMs(): number {
    const now = performance.now();
    let ms = 0;
    for (const [digest, { calls, iterations }] of Object.entries(this.#waiting) as [Digest, { calls: number; iterations: number }][]) {
      ms += this.#cost({ digest, iterations }, calls);
    }
    for (const { task, startedAt } of this.#seats) {
      if (task === undefined) continue;
      const whole = derivations(task.job).reduce((sum, derivation) => sum + this.#cost(derivation), 0);
      ms += Math.max(0, whole - (now - startedAt));
    }
    return ms / this.#seats.length;
  }

  #cost({ digest, iterations }: Derivation, calls = 1): number {
    return calls * msPerCall + iterations * this.#msPerIteration[digest];
  }

  #take(task: Task): boolean {
    if (!this.#queue.delete(task)) return false;
    this.#count(task.job, -1);
    return true;
  }

  /** A check counts as a failure: what it may take, and what a flood of guesses does take. */
  #count(job: Job, sign: 1 | -1): void {
    for (const { digest, iterations } of derivations(job)) {
      const waiting = this.#waiting[digest];
      waiting.calls += sign;
      waiting.iterations += sign * iterations;
    }
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
      const { job } = task;
      seat.worker.postMessage({ ...job, first: withBytes(job.first), rest: job.rest.map(withBytes) });
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

  #finish(seat: Seat, answer: Answer): void {
    const task = seat.task;
    seat.task = undefined;
    seat.worker.unref();
    let total = 0;
    for (const { digest, iterations, ms } of answer.calls) {
      total += ms;
      if (iterations < iterationsMeasuredMin) continue;
      this.#msPerIteration[digest] = this.#msPerIteration[digest] * 0.8 + (ms / iterations) * 0.2;
    }
    this.#hashes++;
    this.#options.onHash?.(total, answer.calls);
    task?.resolve(answer);
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

function isIdle({ task, isOut }: Seat): boolean {
  return task === undefined && !isOut;
}

function newSalt(): string {
  return randomBytes(saltCharacters / 2).toString('hex');
}

/** All that a job may turn out to be. */
function derivations({ first, rest }: Job): readonly Derivation[] {
  return [first, ...rest];
}

function withBytes({ digest, iterations }: Derivation): Derivation & { readonly bytes: number } {
  return { digest, iterations, bytes: digestBytes[digest] };
}
