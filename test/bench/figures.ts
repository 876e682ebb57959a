/** What the benchmark prints: its usage, and the rows of its table. */



export const usage = `Usage: make bench ARGS="[flags]"    Measures the service against bare Node, and checks its own answers.

  --rounds 5         turns of each side
  --seconds 4        the length of a turn
  --users 1000000    how many are many
  --only get,start   some of: register, get, get-log, get-fastify, session,
                     create-fastify-64, create-fastify-1, create-64,
                     create-many, get-many, change-many, delete-many, page-many, get-p99,
                     sign-in-flood, basic, open, memory, export, start,
                     take-over, etcd-find, etcd-create, etcd-create-2,
                     etcd-create-3; all but the last four if it is left out
  --etcd             those four: services on an etcd cluster of three here
  --data /tmp        where the stores are made, and removed at the end: what a write costs depends on the disk
  --packages DIR     where fastify@5 and better-sqlite3@12 are, or get
                     installed; a temporary folder without it (minutes)
  --certs certs      the directory of cert.pem and key.pem, made by: make cert
  --help

Exit codes: 0 measured, 1 a check failed or nothing could be measured, 2 usage.
`;

export const notes = `
register ÷ pbkdf2Sync in a thread for each core. get: CPU of node:https with the same bytes and cipher ÷ the service's, for
random users of many; get-log: the same with a log line for each, which is read; session: the same of GET /session by cookie.
…-fastify: CPU of Fastify and better-sqlite3 (WAL, FULL) ÷ the service's, for reads, and for creates by 64 clients and by one,
kdf of one iteration. CPU is user and system time of the server for each request.
create-64 ÷ one client at a time. …-many: among many ÷ among 1,000; pages of
100, from the middle. get-p99: of 8 clients that wait
10 ms between requests, while registrations keep every core hashing ÷ without them. sign-in-flood: POST /session
under a flood of GETs ÷ without it. basic: GETs by users who send their password with each. open: start to first answer, less an
empty service's. memory: heapUsed + external after a collection, above the empty service's, for each user. export: NDJSON
of all users. start ÷ node:https with the same loader. take-over: kill -9 of the lock's holder to another's commit ÷ a
create. etcd-find, etcd-create: 64 clients of a store ÷ the same calls straight to the gateway; etcd-create-2, -3: so many
services ÷ one. A bar of sixteen cells is the mark. The clients take their part of the cores, from both sides alike. What this
does not show: a network, a proxy in front, a file larger than memory, another disk.
`;

/** `cpuUs` is user and system time of the server's process for each request, in microseconds. */
export type Figure = Readonly<{ value: number; p99Ms?: number; rssMb?: number; cpuUs?: number }>;
export type Turn = (seconds: number) => Promise<Figure>;

/** What is measured, and what it comes to: service ÷ baseline, service - baseline, the service's alone, or CPU of baseline ÷ service. */
export type Sides = Readonly<{
  unit: '/s' | 'ms' | 's' | 'bytes' | 'MB/s';
  service: Turn;
  baseline?: Turn;
  by?: 'difference' | 'cpu';
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
  const cpu = figures.flatMap(({ cpuUs }) => cpuUs ?? []);
  const rest = [
    ...(unit === 'ms' ? [`max ${round(Math.max(...values))}`] : p99.length > 0 ? [`p99 ${round(median(p99))} ms`] : []),
    ...(rss.length > 0 ? [`rss ${round(Math.max(...rss))} MB`] : []),
    ...(cpu.length > 0 ? [`cpu ${round(median(cpu))} µs`] : []),
  ];
  return [`${round(median(values))} ${unit}`, ...rest].join(', ');
}

export function row(name: string, { unit, by, mark, isMost }: Sides, turns: readonly (readonly [Figure, Figure | undefined])[]): string[] {
  const outcomes = turns.map(([{ value, cpuUs = NaN }, baseline]) => {
    if (baseline === undefined) return value;
    if (by === 'cpu') return (baseline.cpuUs ?? NaN) / cpuUs;
    return by === 'difference' ? value - baseline.value : value / baseline.value;
  });
  const outcome = median(outcomes);
  const digits = outcome >= 1000 ? 0 : outcome >= 20 ? 1 : by === 'difference' ? 2 : 3;
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
