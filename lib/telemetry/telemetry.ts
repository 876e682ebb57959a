/** The log, the audit log, the metrics and the readiness of one service. */

import type { LoggedRequest } from '../auth/request-context.ts';
import { AuditLog } from './audit-log.ts';
import type { AuditEventName, AuditLogOptions } from './audit-log.ts';
import { Log } from './log.ts';
import type { Output } from './log.ts';
import { ServiceMetrics } from './service-metrics.ts';
import type { Sources } from './service-metrics.ts';

export class Telemetry {
  readonly metrics = new ServiceMetrics();
  readonly log: Log | undefined;
  #audit: AuditLog | undefined;
  #checks: readonly (() => string | undefined)[] = [];
  #isDraining = false;

  /** @param output of the log; undefined without one. */
  constructor(output: Output | undefined) {
    this.log = output && new Log(output, Date.now);
  }

  /**
   * Once, when the service listens.
   * @param checks each returns why the service is not ready, or undefined. They ask no disk: they know how the last reads and writes went.
   */
  start(sources: Omit<Sources, 'isReady' | 'logDropped' | 'auditFailures'>, checks: readonly (() => string | undefined)[]): void {
    this.#checks = checks;
    const isReady = (): boolean => this.unhealthyReason() === undefined;
    this.metrics.start({ ...sources, isReady, logDropped: () => this.log?.dropped, auditFailures: () => this.#audit?.failures ?? 0 });
    this.log?.open();
  }

  openAudit(options: Omit<AuditLogOptions, 'log'>): void {
    const log: AuditLogOptions['log'] = ({ event, ...fields }) => this.log?.event('info', 'audit', { audit: event, ...fields });
    this.#audit = new AuditLog({ ...options, log });
  }

  /** An event of a request. @param target the id of the user that it is about. */
  readonly audit = (event: AuditEventName, request: LoggedRequest, target: number): void => {
    this.#audit?.record({ event, ...actorOf(request), target });
  };

  /** Credentials were rejected. @param login that was tried with a password. */
  readonly rejected = (request: LoggedRequest, login?: string): void => this.#audit?.rejected(actorOf(request), login);

  modeChanged(mode: string): void {
    this.log?.event('info', 'mode', { mode });
    this.#audit?.record({ event: 'mode-changed', actor: 'service', detail: mode });
  }

  readonly ended = (request: LoggedRequest): void => {
    const ms = performance.now() - request.startedMs;
    this.metrics.request(request, ms);
    this.log?.request(request, ms);
  };

  /** A response to bytes that are no HTTP request. */
  readonly unparsable = (id: string, status: number): void => {
    this.metrics.count('other', 'none', status, 0);
    this.log?.event('info', 'unparsable', { id, status });
  };

  /** Why /health/ready is 503; undefined if it is 200. */
  readonly unhealthyReason = (): string | undefined => {
    if (this.#isDraining) return 'the service is stopping';
    for (const check of this.#checks) {
      const reason = check();
      if (reason !== undefined) return reason;
    }
    return undefined;
  };

  /** Readiness fails from now on; requests are still served. */
  drain(): void {
    this.log?.event('info', 'stopping');
    this.#isDraining = true;
  }

  async close(): Promise<void> {
    this.metrics.close();
    await this.#audit?.close();
    await this.log?.close();
  }
}

function actorOf({ principal, isUnauthenticatedMode, client, id }: LoggedRequest): { actor: string; client: string; request: string } {
  const kind = principal?.kind ?? (isUnauthenticatedMode ? 'unauthenticated' : 'anonymous');
  return { actor: principal?.kind === 'user' ? `user:${principal.id}` : kind, client: client.name, request: id };
}
