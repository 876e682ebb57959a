/**
 * Counters, gauges and histograms in the text format of Prometheus (exposition format 0.0.4). The caller bounds the labels of
 * a family: no series is ever forgotten.
 */

export interface Counter {
  value: number;
}

export type Labels = Readonly<Record<string, string>>;

export class Histogram {
  readonly #bounds: readonly number[];
  /** One more than bounds: the last is above all of them. */
  readonly #counts: number[];
  #sum = 0;

  /** @param bounds upper bounds, ascending. */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = Array.from({ length: bounds.length + 1 }, () => 0);
  }

  observe(value: number): void {
    let n = 0;
    while (n < this.#bounds.length && value > this.#bounds[n]!) n++;
    this.#counts[n]!++;
    this.#sum += value;
  }

  text(name: string, labels: Labels): string {
    let text = '';
    let total = 0;
    for (const [n, count] of this.#counts.entries()) {
      total += count;
      text += `${name}_bucket${labelsText({ ...labels, le: String(this.#bounds[n] ?? '+Inf') })} ${total}\n`;
    }
    return `${text}${name}_sum${labelsText(labels)} ${this.#sum}\n${name}_count${labelsText(labels)} ${total}\n`;
  }
}

export class Metrics {
  readonly #families = new Map<string, { readonly head: string; readonly series: (() => string)[] }>();

  /** The series of a family all have the same names of labels. The name of a counter ends in `_total`. */
  counter(name: string, help: string, labels?: Labels): Counter {
    const counter = { value: 0 };
    this.read('counter', name, help, () => counter.value, labels);
    return counter;
  }

  histogram(name: string, help: string, bounds: readonly number[], labels: Labels = {}): Histogram {
    const histogram = new Histogram(bounds);
    this.#add('histogram', name, help, () => histogram.text(name, labels));
    return histogram;
  }

  /** A value that is read at each scrape. Undefined has no line. */
  read(kind: 'counter' | 'gauge', name: string, help: string, read: () => number | undefined, labels: Labels = {}): void {
    const series = `${name}${labelsText(labels)}`;
    this.#add(kind, name, help, () => {
      const value = read();
      return value === undefined ? '' : `${series} ${value}\n`;
    });
  }

  text(): string {
    const families = [...this.#families.values()].map(({ head, series }) => ({ head, lines: series.map((line) => line()).join('') }));
    return families.map(({ head, lines }) => (lines === '' ? '' : head + lines)).join('');
  }

  #add(kind: string, name: string, help: string, line: () => string): void {
    const family = this.#families.get(name) ?? { head: `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n`, series: [] };
    this.#families.set(name, family);
    family.series.push(line);
  }
}

function labelsText(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${value.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n')}"`);
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}
