/**
 * Work that several clients want at the same moment is done once. It goes on while one of them is still there, and is
 * aborted when the last has left.
 */

interface Running<T> {
  readonly outcome: Promise<T>;
  readonly controller: AbortController;
  waiting: number;
}

export class SharedWork<T> {
  readonly #running = new Map<string, Running<T>>();

  /** What `work` comes to, be it begun now or by somebody else. Rejects as it does, or with the signal's reason. */
  run(key: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const running = this.#running.get(key) ?? this.#start(key, work);
    running.waiting++;
    return new Promise<T>((resolve, reject) => {
      const leave = (): void => {
        running.waiting--;
        if (running.waiting === 0) {
          this.#forget(key, running);
          running.controller.abort(signal.reason);
        }
        reject(signal.reason);
      };
      signal.addEventListener('abort', leave, { once: true });
      running.outcome.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave));
    });
  }

  #start(key: string, work: (signal: AbortSignal) => Promise<T>): Running<T> {
    const controller = new AbortController();
    const running: Running<T> = { outcome: work(controller.signal), controller, waiting: 0 };
    this.#running.set(key, running);
    const forget = (): void => this.#forget(key, running);
    running.outcome.then(forget, forget);
    return running;
  }

  #forget(key: string, running: Running<T>): void {
    if (this.#running.get(key) === running) this.#running.delete(key);
  }
}
