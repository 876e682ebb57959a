/** SIGINT and SIGTERM for a command that may take long: the first one lets it end in good order, the second one ends it at once. */

const exitCodes = { SIGINT: 130, SIGTERM: 143 } as const;

export class Interruption {
  readonly #controller = new AbortController();
  #exitCode = 1;

  constructor() {
    for (const name of Object.keys(exitCodes)) process.on(name, this.#interrupt);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get exitCode(): number {
    return this.#exitCode;
  }

  close(): void {
    for (const name of Object.keys(exitCodes)) process.off(name, this.#interrupt);
  }

  readonly #interrupt = (name: NodeJS.Signals): void => {
    this.#exitCode = name === 'SIGTERM' ? exitCodes.SIGTERM : exitCodes.SIGINT;
    if (this.signal.aborted) process.exit(this.#exitCode);
    this.#controller.abort();
  };
}
