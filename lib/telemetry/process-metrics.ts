/** What every Prometheus client says of its process, and how late the event loop is. Where there is no /proc it says less. */

import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Metrics } from './metrics.ts';

const lagResolutionMs = 20;

export class ProcessMetrics {
  readonly #lag = monitorEventLoopDelay({ resolution: lagResolutionMs });
  #openFiles: number | undefined;

  /** @param version of the service. */
  constructor(metrics: Metrics, version: string) {
    const lag = this.#lag;
    lag.enable();
    const startSeconds = Date.now() / 1000 - process.uptime();
    const filesMax = readFilesMax();
    metrics.gauge('registrar_build_info', 'Always 1.', () => 1, { version, node_version: process.version });
    const late = 'How late timers were since this was last read';
    metrics.gauge('registrar_event_loop_lag_p50_seconds', `${late}, the median.`, () => lateness(lag.percentile(50)));
    metrics.gauge('registrar_event_loop_lag_p99_seconds', `${late}, the 99th percentile.`, () => lateness(lag.percentile(99)));
    metrics.gauge('registrar_event_loop_lag_max_seconds', `${late}, the worst.`, () => lateness(lag.max));
    metrics.counted('process_cpu_seconds_total', 'User and system time of all threads.', () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    });
    metrics.gauge('process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss());
    metrics.gauge('process_heap_bytes', 'What of the heap of JavaScript is in use.', () => process.memoryUsage().heapUsed);
    metrics.gauge('process_external_memory_bytes', 'Memory of buffers and typed arrays.', () => process.memoryUsage().external);
    metrics.gauge('process_open_fds', 'Open file descriptors.', () => this.#openFiles);
    metrics.gauge('process_max_fds', 'File descriptors that it may open.', () => filesMax);
    metrics.gauge('process_start_time_seconds', 'When the process started, since 1970.', () => startSeconds);
  }

  /** Before the text is made: what is not at hand at once. */
  async look(): Promise<void> {
    // Not counting the one that reads.
    this.#openFiles = await readdir('/proc/self/fd').then((names) => names.length - 1, () => undefined);
  }

  /** After the text was made. */
  looked(): void {
    this.#lag.reset();
  }

  close(): void {
    this.#lag.disable();
  }
}

/** The timer itself takes its resolution; before its first tick there is nothing to tell. */
function lateness(nanoseconds: number): number {
  return Math.max(0, nanoseconds / 1e9 - lagResolutionMs / 1000) || 0;
}

/** Undefined if there is no limit, or it cannot be told. */
function readFilesMax(): number | undefined {
  try {
    const [, soft = ''] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? [];
    return soft === '' ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
