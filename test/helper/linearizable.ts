/**
 * Whether what several clients were answered can be explained by one order of all operations, in which each takes
 * effect at one moment between its call and its answer (Herlihy and Wing; the search is Wing and Gong's, with Lowe's
 * memory of what was tried). What has no answer may have taken effect at any time after its call, or never.
 */

export interface Operation<Call> {
  readonly call: Call;
  /** When it was asked for, and when it was answered: Infinity for what has no answer. */
  readonly from: number;
  readonly to: number;
}

export interface Model<State, Call> {
  readonly initial: State;
  /** The state after it; undefined if its answer cannot come from this state. */
  step(state: State, call: Call): State | undefined;
  /** The same for states that are the same. */
  key(state: State): string;
}

export function isLinearizable<State, Call>(history: readonly Operation<Call>[], model: Model<State, Call>): boolean {
  const operations = history.toSorted((a, b) => a.from - b.from);
  const tried = new Set<string>();
  const visit = (done: bigint, state: State): boolean => {
    const key = `${done.toString(36)} ${model.key(state)}`;
    if (tried.has(key)) return false;
    tried.add(key);
    const left = operations.map((operation, n) => ({ operation, bit: 1n << BigInt(n) })).filter(({ bit }) => (done & bit) === 0n);
    const firstAnswer = left.reduce((min, { operation }) => Math.min(min, operation.to), Infinity);
    // Nothing is left that anybody was answered.
    if (firstAnswer === Infinity) return true;
    for (const { operation, bit } of left) {
      if (operation.from > firstAnswer) break;
      const next = model.step(state, operation.call);
      if (next !== undefined && visit(done | bit, next)) return true;
    }
    return false;
  };
  return visit(0n, model.initial);
}
