/**
 * What of the service is counted. Labels are of bounded number: routes are patterns, methods those of the table, and a
 * status is one that some code of ours gives. Nothing here knows a login, an id, or an address.
 */

import type { LoggedRequest, RouteName } from '../auth/request-context.ts';
import { Counter, Histogram, Metrics } from './metrics.ts';

/** Seconds. A read takes a twentieth of the first, a hash some 0.1 s; the deadline of its queue is 5 s. */
const requestSeconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const hashSeconds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];
const syncSeconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5];
const lockSeconds = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5];
const batchUsers = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];

/** What is read when somebody asks. Each is undefined where there is no such thing. */
export interface Sources {
  readonly connections: () => number;
  readonly hashQueue: () => { readonly queued: number; readonly running: number; readonly hashes: number; readonly refused: number };
  readonly store: () => StoreFacts;
  /** Milliseconds since 1970; undefined without TLS. */
  readonly certificateExpires: () => number | undefined;
  readonly logDropped: () => number | undefined;
  readonly isReady: () => boolean;
}

interface StoreFacts {
  readonly users?: number;
  readonly fileBytes?: number;
  readonly deadBytes?: number;
}

/** All requests of one method to one route. */
interface RouteSeries {
  readonly seconds: Histogram;
  /** By status. */
  readonly answers: Map<number, Counter>;
}

export class ServiceMetrics {
  readonly metrics = new Metrics();
  readonly #series = new Map<RouteName, RouteSeries>();
  readonly #headSeries = new Map<RouteName, RouteSeries>();
  readonly #limits = new Map<string, Counter>();
  readonly #elsewhere: RouteSeries;
  #inFlight = 0;

  readonly sessions: Counter;
  readonly #goodSignIns: Counter;
  readonly #badSignIns: Counter;
  readonly #hashSeconds: Histogram;
  readonly #batchChanges: Histogram;
  readonly #batchBytes: Counter;
  readonly #syncSeconds: Histogram;
  readonly #lockSeconds: Histogram;
  readonly #handOvers: Counter;

  constructor() {
    const { metrics } = this;
    this.#elsewhere = this.#newSeries('other', 'none');
    metrics.gauge('registrar_requests_in_flight', 'Requests that are being answered.', () => this.#inFlight);
    this.sessions = metrics.counter('registrar_sessions_issued_total', 'Session tokens that were issued.');
    const signIns = ['registrar_sign_ins_total', 'Passwords that were checked to sign somebody in, by what came of it.'] as const;
    this.#goodSignIns = metrics.counter(...signIns, { outcome: 'good' });
    this.#badSignIns = metrics.counter(...signIns, { outcome: 'bad' });
    const hashed = 'Time that a hash or a check took in its worker.';
    this.#hashSeconds = metrics.histogram('registrar_hash_duration_seconds', hashed, hashSeconds);
    this.#batchChanges = metrics.histogram('registrar_store_batch_changes', 'Changes that were made durable together.', batchUsers);
    this.#batchBytes = metrics.counter('registrar_store_written_bytes_total', 'Bytes that were added to the users\' file.');
    const synced = 'Time of an fdatasync of the users\' file.';
    this.#syncSeconds = metrics.histogram('registrar_store_sync_duration_seconds', synced, syncSeconds);
    this.#lockSeconds = metrics.histogram('registrar_store_lock_wait_seconds', 'Time until the lock of the store was taken.', lockSeconds);
    this.#handOvers = metrics.counter('registrar_store_lock_hand_overs_total', 'Times that the lock was let go for another process.');
  }

  /** What others know; once. */
  read({ connections, hashQueue, store, certificateExpires, logDropped, isReady }: Sources): void {
    const { metrics } = this;
    const expiry = (): number | undefined => (certificateExpires() ?? Number.NaN) / 1000 || undefined;
    metrics.gauge('registrar_certificate_expiry_timestamp_seconds', 'When the certificate expires.', expiry);
    metrics.gauge('registrar_ready', 'Whether it is to be sent requests.', () => Number(isReady()));
    metrics.gauge('registrar_connections', 'Open connections.', connections);
    metrics.gauge('registrar_hashes_queued', 'Hashes that wait for a worker.', () => hashQueue().queued);
    metrics.gauge('registrar_hashes_running', 'Workers that hash.', () => hashQueue().running);
    metrics.counted('registrar_hashes_total', 'Hashes and checks that were done.', () => hashQueue().hashes);
    metrics.counted('registrar_hashes_refused_total', 'Hashes that would have had to wait too long.', () => hashQueue().refused);
    metrics.gauge('registrar_users', 'Users that this process knows of.', () => store().users);
    metrics.gauge('registrar_store_file_bytes', 'Length of the users\' file.', () => store().fileBytes);
    metrics.gauge('registrar_store_dead_bytes', 'Bytes of it that say nothing any more; compaction drops them.', () => store().deadBytes);
    metrics.counted('registrar_log_lines_dropped_total', 'Log lines that could not be written.', logDropped);
  }

  begun(): void {
    this.#inFlight++;
  }

  ended({ method, route, status, code, rateLimits }: LoggedRequest, ms: number): void {
    this.#inFlight--;
    this.#count(this.#seriesOf(method, route), method, route, status, ms);
    if (code === 'rate-limited') this.#refusedByLimit(rateLimits[0]?.policy.name ?? 'unknown');
    if (status === 201 && route?.action === 'open-session') this.sessions.add();
  }

  /** An answer to what is no HTTP. */
  unparsable(status: number): void {
    this.#answer(this.#elsewhere, 'other', 'none', status).value++;
  }

  readonly onSignIn = (isGood: boolean): void => {
    (isGood ? this.#goodSignIns : this.#badSignIns).add();
  };

  readonly onHash = (ms: number): void => {
    this.#hashSeconds.observe(ms / 1000);
  };

  /** What the store does. */
  readonly store = {
    committed: (changes: number, bytes: number, syncMs: number): void => {
      this.#batchChanges.observe(changes);
      this.#batchBytes.add(bytes);
      this.#syncSeconds.observe(syncMs / 1000);
    },
    locked: (waitMs: number): void => this.#lockSeconds.observe(waitMs / 1000),
    handedOver: (): void => this.#handOvers.add(),
  };

  #count(series: RouteSeries, method: string, route: RouteName | undefined, status: number, ms: number): void {
    series.seconds.observe(ms / 1000);
    const counter = series.answers.get(status) ?? this.#answer(series, labelOf(method, route), route?.pattern ?? 'none', status);
    counter.value++;
  }

  #seriesOf(method: string, route: RouteName | undefined): RouteSeries {
    if (route === undefined) return this.#elsewhere;
    const all = method === 'HEAD' ? this.#headSeries : this.#series;
    let series = all.get(route);
    if (series === undefined) {
      series = this.#newSeries(labelOf(method, route), route.pattern);
      all.set(route, series);
    }
    return series;
  }

  #newSeries(method: string, route: string): RouteSeries {
    const help = 'Time from a request\'s headers until its answer was handed over.';
    const seconds = this.metrics.histogram('registrar_request_duration_seconds', help, requestSeconds, { method, route });
    return { seconds, answers: new Map() };
  }

  #answer({ answers }: RouteSeries, method: string, route: string, status: number): Counter {
    let counter = answers.get(status);
    if (counter === undefined) {
      const labels = { method, route, status: String(status) };
      counter = this.metrics.counter('registrar_requests_total', 'Requests that were answered; 499 where the client had gone.', labels);
      answers.set(status, counter);
    }
    return counter;
  }

  #refusedByLimit(limit: string): void {
    let counter = this.#limits.get(limit);
    if (counter === undefined) {
      counter = this.metrics.counter('registrar_limits_refused_total', 'Requests that came too often, by the limit.', { limit });
      this.#limits.set(limit, counter);
    }
    counter.add();
  }
}

/** What is not of the table is one series, whatever method somebody thinks of. */
function labelOf(method: string, route: RouteName | undefined): string {
  if (route === undefined) return 'other';
  return method === 'HEAD' ? 'HEAD' : route.method;
}
