/**
 * The costliest kdf of each algorithm and digest that a store holds. A failed sign-in does the work of all of them, so
 * that its time does not tell which user was tried. Cheaper kdfs are not kept: the list stays as short as there are digests.
 *
 * The cost is the product of the numbers in a kdf: `pbkdf2:sha256:600000`, `pbkdf2:sha256:29000:hex`, `scrypt:32768:8:1`.
 * A kdf without numbers, as the `none` of an invited user, costs nothing and is not listed.
 */

export class CostliestKdfs {
  readonly #byAlgorithm = new Map<string, { readonly kdf: string; readonly cost: number }>();
  #list: readonly string[] = [];

  /** In the order in which the algorithms came. */
  get list(): readonly string[] {
    return this.#list;
  }

  /** Whether the kdf costs more than the listed one of its algorithm. */
  isCostlier(kdf: string): boolean {
    const { algorithm, cost } = costOf(kdf);
    return cost > (this.#byAlgorithm.get(algorithm)?.cost ?? 0);
  }

  /** @returns whether the list changed. */
  add(kdf: string): boolean {
    if (!this.isCostlier(kdf)) return false;
    const { algorithm, cost } = costOf(kdf);
    this.#byAlgorithm.set(algorithm, { kdf, cost });
    this.#list = [...this.#byAlgorithm.values()].map((known) => known.kdf);
    return true;
  }
}

/** The algorithm with its digest, and the cost of one hash; 0 if the text is not a kdf. */
export function costOf(kdf: string): { readonly algorithm: string; readonly cost: number } {
  const [, algorithm = '', numbers = ''] = /^([a-z][a-z0-9:]*?)((?::[0-9]+)+)(?::hex)?$/.exec(kdf) ?? [];
  const cost = numbers === '' ? 0 : numbers.slice(1).split(':').reduce((product, number) => product * Number(number), 1);
  return { algorithm, cost };
}
