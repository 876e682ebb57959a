/** The log, the metrics and the health of one service, put together: what the rest of it tells, and what it is asked. */

import type { LoggedRequest } from '../auth/request-context.ts';
import { AuditLog } from './audit-log.ts';
import type { AuditEvent, AuditEventName, AuditLogOptions } from './audit-log.ts';
import { Health } from './health.ts';
import type { Check } from './health.ts';
import { Log } from './log.ts';
import type { Write } from './log.ts';
import { ProcessMetrics } from './process-metrics.ts';
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

export class Watch {
  readonly service = new ServiceMetrics();
  readonly log: Log | undefined;
  readonly #version: string;
  #process: ProcessMetrics | undefined;
  #audit: AuditLog | undefined;
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

  openAudit(options: Omit<AuditLogOptions, 'log'>): void {
    const log = ({ event, ...more }: AuditEvent): void => this.log?.event('info', 'audit', { audit: event, ...more });
    this.#audit = new AuditLog({ ...options, log });
    this.service.metrics.counted('registrar_audit_failures_total', 'Audit events that were not written.', () => this.#audit?.failures ?? 0);
  }

  /** An event of a request, about the user with that id. */
  readonly audit = (event: AuditEventName, request: LoggedRequest, target: number): void => {
    this.#audit?.record({ event, ...actorOf(request), target });
  };

  /** @param login that was tried with a password. */
  readonly rejected = (request: LoggedRequest, login?: string): void => this.#audit?.rejected(actorOf(request), login);

  modeChanged(mode: string): void {
    this.#audit?.record({ event: 'mode-changed', actor: 'service', detail: mode });
  }

  begin(): void {
    this.service.begun();
  }

  ended(request: LoggedRequest): void {
    const ms = performance.now() - request.startedMs;
    this.service.ended(request, ms);
    this.log?.request(request, ms);
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
    await this.#audit?.close();
    await this.log?.close();
  }
}

function actorOf({ principal, isUnauthenticatedMode, client, id }: LoggedRequest): { actor: string; client: string; request: string } {
  const kind = principal?.kind ?? (isUnauthenticatedMode ? 'unauthenticated' : 'anonymous');
  return { actor: principal?.kind === 'user' ? `user:${principal.id}` : kind, client: client.name, request: id };
}
