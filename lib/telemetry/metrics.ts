/**
 * Counters, gauges and histograms, and their text for Prometheus (exposition format 0.0.4). Counting is an addition;
 * only being read costs more. What labels a series may have is for the caller to bound: nothing here forgets one.
 */

export class Counter {
  value = 0;

  add(count = 1): void {
    this.value += count;
  }
}

export class Histogram {
  readonly bounds: readonly number[];
  /** One more than bounds: the last is for what is above them all. */
  readonly counts: number[];
  sum = 0;

  /** @param bounds upper ones, ascending. */
  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = Array.from({ length: bounds.length + 1 }, () => 0);
  }

  observe(value: number): void {
    const { bounds, counts } = this;
    let n = 0;
    while (n < bounds.length && value > bounds[n]!) n++;
    counts[n]!++;
    this.sum += value;
  }
}

export type Labels = Readonly<Record<string, string>>;

type Kind = 'counter' | 'gauge' | 'histogram';

/** Undefined where it cannot be told. */
type Reading = number | undefined;

interface Series {
  readonly labels: Labels;
  readonly value: Counter | Histogram | (() => Reading);
}

interface Family {
  readonly kind: Kind;
  readonly help: string;
  readonly series: Series[];
}

export class Metrics {
  readonly #families = new Map<string, Family>();

  /** A series of the family `name`; of one name all have the same labels. A counter's name ends in `_total`. */
  counter(name: string, help: string, labels: Labels = {}): Counter {
    return this.#add('counter', name, help, labels, new Counter());
  }

  histogram(name: string, help: string, bounds: readonly number[], labels: Labels = {}): Histogram {
    return this.#add('histogram', name, help, labels, new Histogram(bounds));
  }

  /** Read when it is asked for. */
  gauge(name: string, help: string, read: () => Reading, labels: Labels = {}): void {
    this.#add('gauge', name, help, labels, read);
  }

  /** A counter that somebody else counts. */
  counted(name: string, help: string, read: () => Reading): void {
    this.#add('counter', name, help, {}, read);
  }

  text(): string {
    let text = '';
    for (const [name, { kind, help, series }] of this.#families) {
      let lines = '';
      for (const { labels, value } of series) lines += seriesText(name, labels, value);
      if (lines !== '') text += `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n${lines}`;
    }
    return text;
  }

  #add<Value extends Series['value']>(kind: Kind, name: string, help: string, labels: Labels, value: Value): Value {
    const family = this.#families.get(name) ?? { kind, help, series: [] };
    this.#families.set(name, family);
    family.series.push({ labels, value });
    return value;
  }
}

function seriesText(name: string, labels: Labels, value: Series['value']): string {
  if (value instanceof Counter) return `${name}${labelsText(labels)} ${value.value}\n`;
  if (value instanceof Histogram) return histogramText(name, labels, value);
  const reading = value();
  return reading === undefined ? '' : `${name}${labelsText(labels)} ${reading}\n`;
}

function histogramText(name: string, labels: Labels, { bounds, counts, sum }: Histogram): string {
  let text = '';
  let below = 0;
  for (const [n, count] of counts.entries()) {
    below += count;
    text += `${name}_bucket${labelsText({ ...labels, le: n < bounds.length ? String(bounds[n]) : '+Inf' })} ${below}\n`;
  }
  return `${text}${name}_sum${labelsText(labels)} ${sum}\n${name}_count${labelsText(labels)} ${below}\n`;
}

function labelsText(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${value.replace(/[\\"\n]/g, escape)}"`);
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

function escape(character: string): string {
  return character === '\n' ? '\\n' : `\\${character}`;
}
