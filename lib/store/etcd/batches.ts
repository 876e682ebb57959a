/**
 * What is asked for at once goes together: so many batches are under way, and what comes meanwhile makes the next
 * ones fuller. A batch has the deadline of what is most urgent in it. It does not know what is asked.
 */

export interface Job<Input, Output> {
  readonly input: Input;
  /** In the time of `performance.now()`. */
  readonly deadline: number;
  readonly resolve: (output: Output) => void;
  readonly reject: (error: unknown) => void;
}

export interface BatchLimits {
  readonly batchMax: number;
  readonly batchesMax: number;
}

export class Batches<Input, Output> {
  /** Settles each job, or rejects for all. */
  readonly #run: (batch: readonly Job<Input, Output>[], deadline: number) => Promise<void>;
  readonly #limits: BatchLimits;
  readonly #queue: Job<Input, Output>[] = [];
  #running = 0;
  #isWoken = false;

  constructor(limits: BatchLimits, run: (batch: readonly Job<Input, Output>[], deadline: number) => Promise<void>) {
    this.#limits = limits;
    this.#run = run;
  }

  add(input: Input, deadline: number): Promise<Output> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ input, deadline, resolve, reject });
      if (this.#isWoken) return;
      this.#isWoken = true;
      // Whatever else this turn of the event loop asks for comes along.
      setImmediate(() => {
        this.#isWoken = false;
        this.#start();
      });
    });
  }

  #start(): void {
    while (this.#running < this.#limits.batchesMax && this.#queue.length > 0) {
      const batch = this.#queue.splice(0, this.#limits.batchMax);
      this.#running++;
      this.#run(batch, Math.min(...batch.map(({ deadline }) => deadline)))
        .catch((error: unknown) => {
          for (const { reject } of batch) reject(error);
        })
        .finally(() => {
          this.#running--;
          this.#start();
        });
    }
  }
}

/** Settles one job of a batch by what `result` returns or throws. */
export function settle<Input, Output>({ resolve, reject }: Job<Input, Output>, result: () => Output): void {
  try {
    resolve(result());
  } catch (error) {
    reject(error);
  }
}
