/**
 * Whether the service is to be sent requests. That it answers at all shows that it lives: the event loop turns. It does
 * not ask the disk: what it knows is what the last writes came to.
 */

/** Why not, for a person; undefined while all is well. */
export type Check = () => string | undefined;

export class Health {
  readonly #checks: readonly Check[];
  #isDraining = false;

  constructor(checks: readonly Check[]) {
    this.#checks = checks;
  }

  /** From now on it is not ready, while it still serves whoever asks. */
  drain(): void {
    this.#isDraining = true;
  }

  /** Why it is not to be sent requests; undefined if it is. */
  unready(): string | undefined {
    if (this.#isDraining) return 'the service is ending';
    for (const check of this.#checks) {
      const reason = check();
      if (reason !== undefined) return reason;
    }
    return undefined;
  }
}
