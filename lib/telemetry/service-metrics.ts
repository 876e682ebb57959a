/**
 * What is counted of the service. The labels are bounded: routes are patterns, methods those of the route table, statuses those of
 * the error table. No series is about a login, an id or an address.
 */

import { readFileSync, readdirSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { LoggedRequest } from '../auth/request-context.ts';
import { Metrics } from './metrics.ts';
import type { Counter, Histogram } from './metrics.ts';

/** Upper bounds in seconds. A read takes a twentieth of the first, a hash some 0.1 s; the hash queue is limited to 5 s. */
const requestSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const hashSeconds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];
const storeSeconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5];

/** What is read at each scrape; undefined where there is no such thing. */
export interface Sources {
  readonly version: string;
  readonly connections: () => number;
  readonly hashQueue: () => { readonly queued: number; readonly rejected: number };
  readonly store: () => { readonly users?: number; readonly fileBytes?: number; readonly deadBytes?: number };
  /** Milliseconds since 1970; undefined without TLS. */
  readonly certificateExpires: () => number | undefined;
  readonly logDropped: () => number | undefined;
  readonly auditFailures: () => number;
  readonly isReady: () => boolean;
}

export class ServiceMetrics {
  readonly #metrics = new Metrics();
  readonly #requests = new Map<string, Histogram>();
  readonly #limits = new Map<string, Counter>();
  readonly #lag = monitorEventLoopDelay({ resolution: 20 });
  readonly #signIns = ['success', 'failure'].map((outcome) => (
    this.#metrics.counter('registrar_sign_ins_total', 'Passwords that were checked, by outcome.', { outcome })
  ));
  readonly #hashes = this.#metrics.histogram('registrar_hash_duration_seconds', 'Time of a hash in its worker.', hashSeconds);
  readonly #syncs = this.#metrics.histogram('registrar_store_sync_duration_seconds', 'Time of fdatasync on the users file.', storeSeconds);
  readonly #locks = this.#metrics.histogram('registrar_store_lock_wait_seconds', 'Time until the lock was taken.', storeSeconds);

  /** Once, when the service listens. */
  start({ version, connections, hashQueue, store, certificateExpires, logDropped, auditFailures, isReady }: Sources): void {
    const metrics = this.#metrics;
    const startSeconds = Date.now() / 1000 - process.uptime();
    const filesMax = readFilesMax();
    this.#lag.enable();
    metrics.read('gauge', 'registrar_build_info', 'Always 1.', () => 1, { version, node_version: process.version });
    metrics.read('gauge', 'registrar_ready', 'Whether /health/ready is 200.', () => Number(isReady()));
    metrics.read('gauge', 'registrar_connections', 'Open connections.', connections);
    metrics.read('gauge', 'registrar_hashes_queued', 'Hashes that wait for a worker.', () => hashQueue().queued);
    metrics.read('counter', 'registrar_hashes_rejected_total', 'Hashes rejected since the queue was full.', () => hashQueue().rejected);
    metrics.read('gauge', 'registrar_users', 'Users.', () => store().users);
    metrics.read('gauge', 'registrar_store_file_bytes', 'Length of the users file.', () => store().fileBytes);
    metrics.read('gauge', 'registrar_store_obsolete_bytes', 'Bytes that compaction would remove.', () => store().deadBytes);
    const expires = (): number | undefined => (certificateExpires() ?? Number.NaN) / 1000 || undefined;
    metrics.read('gauge', 'registrar_certificate_expiry_timestamp_seconds', 'When the certificate expires.', expires);
    metrics.read('counter', 'registrar_log_lines_dropped_total', 'Log lines that were not written.', logDropped);
    metrics.read('counter', 'registrar_audit_failures_total', 'Audit events that were not written.', auditFailures);
    // The timer is late by its own resolution. It reads 0 before its first tick.
    const lag = (): number => Math.max(0, this.#lag.percentile(99) / 1e9 - 0.02) || 0;
    metrics.read('gauge', 'registrar_event_loop_lag_p99_seconds', '99th percentile of timer delays since the last scrape.', lag);
    metrics.read('counter', 'process_cpu_seconds_total', 'User and system time of all threads.', () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    });
    metrics.read('gauge', 'process_resident_memory_bytes', 'Resident memory.', process.memoryUsage.rss);
    metrics.read('gauge', 'process_open_fds', 'Open file descriptors.', openFiles);
    metrics.read('gauge', 'process_max_fds', 'The limit of open file descriptors.', () => filesMax);
    metrics.read('gauge', 'process_start_time_seconds', 'When the process started, since 1970.', () => startSeconds);
  }

  text(): string {
    const text = this.#metrics.text();
    this.#lag.reset();
    return text;
  }

  close(): void {
    this.#lag.disable();
  }

  request({ method, route, status, code, rateLimits }: LoggedRequest, ms: number): void {
    // Requests outside of the route table are one series, whatever their method.
    if (route === undefined) this.count('other', 'none', status, ms);
    else this.count(method === 'HEAD' ? 'HEAD' : route.method, route.pattern, status, ms);
    if (code !== 'rate-limited') return;
    const limit = rateLimits[0]?.policy.name ?? 'unknown';
    const help = 'Requests rejected by a rate limit.';
    const counter = this.#limits.get(limit) ?? this.#metrics.counter('registrar_rate_limited_total', help, { limit });
    this.#limits.set(limit, counter);
    counter.value++;
  }

  readonly onSignIn = (isRight: boolean): void => void this.#signIns[isRight ? 0 : 1]!.value++;
  readonly onHash = (ms: number): void => this.#hashes.observe(ms / 1000);
  readonly onSync = (ms: number): void => this.#syncs.observe(ms / 1000);
  readonly onLock = (waitMs: number): void => this.#locks.observe(waitMs / 1000);

  /** @param ms from the head of the request to the response; 0 for what was no HTTP request. */
  count(method: string, route: string, status: number, ms: number): void {
    const key = `${method} ${route} ${status}`;
    let seconds = this.#requests.get(key);
    if (seconds === undefined) {
      const help = 'Time from the head of a request to its response; status 499 if the client had left.';
      const labels = { method, route, status: String(status) };
      seconds = this.#metrics.histogram('registrar_request_duration_seconds', help, requestSeconds, labels);
      this.#requests.set(key, seconds);
    }
    seconds.observe(ms / 1000);
  }
}

/** Undefined without /proc. One of them is the directory that is read. */
function openFiles(): number | undefined {
  return unlessMissing(() => readdirSync('/proc/self/fd').length - 1);
}

/** Undefined without /proc, or without a limit. */
function readFilesMax(): number | undefined {
  return unlessMissing(() => Number(/^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1])) || undefined;
}

function unlessMissing(read: () => number): number | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
