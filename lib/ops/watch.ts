/** The log, the metrics and the health of one service, put together: what the rest of it tells, and what it is asked. */

import { Health } from './health.ts';
import type { Check } from './health.ts';
import { Log } from './log.ts';
import type { Write } from './log.ts';
import { ProcessMetrics } from './process-metrics.ts';
import type { Observer, Served } from './served.ts';
import { ServiceMetrics } from './service-metrics.ts';
import type { Sources } from './service-metrics.ts';

export interface WatchOptions {
  /** Undefined without a log. */
  readonly output: Output | undefined;
  readonly version: string;
}

/** Where log lines go. */
export interface Output {
  readonly write: Write;
  readonly isTerminal: boolean;
}

export class Watch implements Observer {
  readonly service = new ServiceMetrics();
  readonly log: Log | undefined;
  readonly #version: string;
  #process: ProcessMetrics | undefined;
  #health = new Health([]);

  constructor({ output, version }: WatchOptions) {
    this.log = output && new Log({ write: output.write, isShort: output.isTerminal, now: Date.now });
    this.#version = version;
  }

  /** When all the parts are there and it listens; once. */
  read(sources: Omit<Sources, 'isReady' | 'logDropped'>, checks: readonly Check[]): void {
    this.#health = new Health(checks);
    this.service.read({ ...sources, logDropped: () => this.log?.dropped, isReady: () => this.unready() === undefined });
    this.#process = new ProcessMetrics(this.service.metrics, this.#version);
    this.log?.open();
  }

  begin(): void {
    this.service.begun();
  }

  ended(served: Served): void {
    const ms = performance.now() - served.startedMs;
    this.service.ended(served, ms);
    this.log?.request(served, ms);
  }

  readonly unparsable = (id: string, status: number): void => {
    this.service.unparsable(status);
    this.log?.event('info', 'unparsable', { id, status });
  };

  readonly unready = (): string | undefined => this.#health.unready();

  readonly metrics = async (): Promise<string> => {
    await this.#process?.look();
    const text = this.service.metrics.text();
    this.#process?.looked();
    return text;
  };

  drain(): void {
    this.#health.drain();
  }

  async close(): Promise<void> {
    this.#process?.close();
    await this.log?.close();
  }
}
