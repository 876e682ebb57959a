/** What `bin/bench.ts` has measured, as the rows of its table. */

export type Figure = Readonly<{ value: number; p99Ms?: number; rssMb?: number }>;
export type Turn = (seconds: number) => Promise<Figure>;

/** What is measured, and what it comes to: service ÷ baseline, or service - baseline, or the service's alone. */
export type Sides = Readonly<{
  unit: '/s' | 'ms' | 's' | 'bytes' | 'MB/s';
  service: Turn;
  baseline?: Turn;
  by?: 'difference';
  mark?: number;
  isMost?: boolean;
  end?: () => Promise<unknown>;
}>;

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return ((sorted.at((sorted.length - 1) / 2) ?? NaN) + (sorted.at(sorted.length / 2) ?? NaN)) / 2;
}

function describe(figures: readonly Figure[], unit: Sides['unit']): string {
  if (figures.length === 0) return '-';
  const round = (value: number): string => value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });
  const values = figures.map(({ value }) => value);
  const [p99, rss] = [figures.flatMap(({ p99Ms }) => p99Ms ?? []), figures.flatMap(({ rssMb }) => rssMb ?? [])];
  const rest = [
    ...(unit === 'ms' ? [`max ${round(Math.max(...values))}`] : p99.length > 0 ? [`p99 ${round(median(p99))} ms`] : []),
    ...(rss.length > 0 ? [`rss ${round(Math.max(...rss))} MB`] : []),
  ];
  return [`${round(median(values))} ${unit}`, ...rest].join(', ');
}

export function row(name: string, { unit, by, mark, isMost }: Sides, turns: readonly (readonly [Figure, Figure | undefined])[]): string[] {
  const outcomes = turns.map(([{ value }, baseline]) =>
    baseline === undefined ? value : by === 'difference' ? value - baseline.value : value / baseline.value);
  const outcome = median(outcomes);
  const digits = outcome >= 1000 ? 0 : outcome >= 20 ? 1 : by === undefined ? 3 : 2;
  const spread = [Math.min(...outcomes), Math.max(...outcomes)].map((value) => value.toFixed(outcome >= 1000 ? 0 : 2)).join('..');
  const isMet = mark !== undefined && (isMost === true ? outcome <= mark : outcome >= mark);
  const met = mark === undefined ? ['-', '-'] : [`${isMost === true ? '<=' : '>='} ${mark}`, isMet ? 'yes' : 'no'];
  if (mark !== undefined && process.stdout.isTTY) {
    // Longer is better, also where less is.
    const share = isMost === true ? mark / Math.max(outcome, mark / 1.5) : outcome / mark;
    const bar = '█'.repeat(Math.round(Math.min(share, 1.5) * 16));
    met.push((process.env.NO_COLOR ?? '') === '' ? `\x1b[${isMet ? 32 : 33}m${bar}\x1b[0m` : bar);
  }
  const [service, baseline] = [describe(turns.map(([of]) => of), unit), describe(turns.flatMap(([, of]) => of ?? []), unit)];
  return [name, service, baseline, outcome.toFixed(digits), spread, ...met];
}
