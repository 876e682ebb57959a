/**
 * An etcd cluster as one server. Members take turns. A member that fails is skipped and probed until it responds again. A
 * request that fails is sent to the next member until its deadline.
 *
 * A write may so be sent more than once. The client reports that (`mayHaveRun`), and the body of the write must allow it:
 * `write-tokens.ts`. What is idempotent, as all reads, needs nothing of that.
 */

import { RegistrarError, messageOf } from '../../errors.ts';
import { alarmsRequest, get, put, transactionRequest } from './gateway.ts';
import type { Compare, EtcdRequest, KeyValue, Transaction, TransactionResult } from './gateway.ts';
import { EtcdMember } from './member.ts';
import type { EtcdTls, RequestFailure } from './member.ts';

export interface EtcdClientOptions {
  /** As in `https://10.0.0.1:2379`; plain http for loopback only. */
  readonly endpoints: readonly string[];
  readonly tls?: EtcdTls;
  readonly user?: string;
  readonly password?: string;
  /** From the call of an operation to its outcome. Below the 7 s after which etcd itself gives up. */
  readonly waitMsMax?: number;
  /** Takes one line for the operator. */
  readonly log?: (line: string) => void;
}

interface MemberHealth {
  readonly member: EtcdMember;
  /** Milliseconds until the next probe: 0 while the member responds, more than the first delay after a failed probe. */
  probeMs: number;
  timer?: NodeJS.Timeout;
}

const waitMsMaxDefault = 2_700;
/** Three members get a try before the deadline: in a cluster of three that lost one, one of them can respond. */
const triesMin = 3;
const remainingMsMin = 20;
const pauseMsMin = 20;
const pauseMsMax = 250;
const probeMsMin = 50;
const probeMsMax = 5_000;

export class EtcdClient {
  readonly #members: readonly MemberHealth[];
  readonly #waitMsMax: number;
  readonly #log: (line: string) => void;
  readonly #probe: EtcdRequest<TransactionResult>;
  /** Starts at random, so that services spread over the members. */
  #turn = Math.floor(Math.random() * 1_000);
  #isClosed = false;

  /** Throws `usage` for an invalid endpoint. Probes read `probeKey`. */
  constructor(options: EtcdClientOptions, probeKey: string) {
    const { endpoints, tls = {}, user, password = '', waitMsMax = waitMsMaxDefault, log = () => undefined } = options;
    const urls = [...new Set(endpoints.map(parseEndpoint))];
    if (urls.length === 0) throw new RegistrarError('usage', 'No etcd endpoint is given. Give at least one, as in https://10.0.0.1:2379.');
    const credentials = user === undefined ? undefined : { user, password };
    this.#members = urls.map((url) => ({ member: new EtcdMember(url, tls, credentials), probeMs: 0 }));
    this.#waitMsMax = waitMsMax;
    this.#log = log;
    this.#probe = transactionRequest({ success: [get(probeKey)] });
  }

  /** The deadline of an operation that is called now. */
  deadline(): number {
    return performance.now() + this.#waitMsMax;
  }

  /**
   * `mayHaveRun`: an earlier sending may have been executed, or may still be. Rejects with `unavailable` or `storage-full` if
   * nothing was executed, with `outcome-unknown` if something may have been.
   */
  write(transaction: Transaction, deadline: number): Promise<Sent<TransactionResult>> {
    return this.#send(transactionRequest(transaction), deadline, false);
  }

  /** For transactions that are idempotent. Rejects with `unavailable` or `storage-full`. */
  async transact(transaction: Transaction, deadline: number): Promise<TransactionResult> {
    return (await this.#send(transactionRequest(transaction), deadline, true)).value;
  }

  async get(key: string, deadline: number): Promise<KeyValue | undefined> {
    return (await this.transact({ success: [get(key)] }, deadline)).found[0]?.[0];
  }

  /**
   * Puts the value if the condition holds, which the put makes false.
   * @returns the key afterwards: with this value if it was put, also by an earlier sending of the same request.
   */
  async putIf(condition: Compare, key: string, value: string, deadline: number): Promise<string | undefined> {
    const { succeeded, found } = await this.transact({ compare: [condition], success: [put(key, value)], failure: [get(key)] }, deadline);
    return succeeded ? value : found[0]?.[0]?.value;
  }

  /** Why writes fail now; undefined if they would succeed. Takes a round trip or two, at most `waitMs`. */
  async unhealthyReason(waitMs: number): Promise<string | undefined> {
    const deadline = performance.now() + waitMs;
    try {
      await this.#send(this.#probe, deadline, true);
      const { value: alarms } = await this.#send(alarmsRequest, deadline, true);
      if (alarms.includes('NOSPACE')) return quotaExceeded;
      return alarms.length === 0 ? undefined : `etcd has active alarms: ${alarms.join(', ')}.`;
    } catch (error) {
      return messageOf(error);
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const { member, timer } of this.#members) {
      clearTimeout(timer);
      member.close();
    }
  }

  /** An idempotent request never ends in `outcome-unknown`. */
  async #send<T>(request: EtcdRequest<T>, deadline: number, isIdempotent: boolean): Promise<Sent<T>> {
    const tried = new Set<MemberHealth>();
    let mayHaveRun = false;
    let cause: unknown = new Error('the request waited too long');
    for (let pauseMs = pauseMsMin; ; ) {
      if (this.#isClosed) throw failed(mayHaveRun, new Error('the store is closed'));
      if (deadline - performance.now() < remainingMsMin) throw failed(mayHaveRun, cause);
      const health = this.#next(tried);
      if (health === undefined) {
        tried.clear();
        await sleep(Math.min(pauseMs * (0.5 + Math.random()), deadline - performance.now()));
        pauseMs = Math.min(pauseMs * 2, pauseMsMax);
        continue;
      }
      tried.add(health);
      const outcome = await health.member.post(request, this.#waitMsMax / triesMin, deadline);
      if (outcome.kind === 'response') {
        this.#markUp(health);
        return { value: outcome.value, mayHaveRun };
      }
      if (outcome.kind === 'error' && !isTemporary(outcome)) throw this.#rejected(mayHaveRun, outcome);
      cause = outcome.kind === 'error' ? new Error(`etcd: ${outcome.message}`) : outcome.cause;
      if (!isIdempotent && (outcome.kind === 'no-response' || (outcome.kind === 'error' && outcome.status >= 500))) mayHaveRun = true;
      this.#markDown(health, messageOf(cause));
    }
  }

  /** The next member that was not tried, a healthy one if there is one; undefined if all were tried. */
  #next(tried: ReadonlySet<MemberHealth>): MemberHealth | undefined {
    this.#turn++;
    const untried = this.#members.filter((health) => !tried.has(health));
    const healthy = untried.filter(({ probeMs }) => probeMs === 0);
    const candidates = healthy.length > 0 ? healthy : untried;
    return candidates[this.#turn % candidates.length];
  }

  #markUp(health: MemberHealth): void {
    if (health.probeMs > probeMsMin) this.#log(`etcd: ${health.member.url} responds again.`);
    health.probeMs = 0;
    clearTimeout(health.timer);
  }

  /** Starts to probe the member. It is logged when the first probe fails: a closed connection alone is not worth a line. */
  #markDown(health: MemberHealth, reason: string): void {
    if (health.probeMs > 0 || this.#isClosed) return;
    health.probeMs = probeMsMin;
    const schedule = (): void => {
      if (!this.#isClosed) health.timer = setTimeout(() => void probe(), health.probeMs * (0.5 + Math.random())).unref();
    };
    const probe = async (): Promise<void> => {
      const waitMs = this.#waitMsMax / triesMin;
      const { kind } = await health.member.post(this.#probe, waitMs, performance.now() + waitMs);
      if (health.probeMs === 0) return;
      if (kind === 'response') return this.#markUp(health);
      if (health.probeMs === probeMsMin) this.#log(`etcd: ${health.member.url} does not respond (${reason}). It is skipped until it does.`);
      health.probeMs = Math.min(health.probeMs * 2, probeMsMax);
      schedule();
    };
    schedule();
  }

  #rejected(mayHaveRun: boolean, { status, message }: ErrorResponse): RegistrarError {
    const cause = new Error(`etcd: ${status} ${message}`);
    if (mayHaveRun) return failed(true, cause);
    if (message.includes('database space exceeded')) return new RegistrarError('storage-full', quotaExceeded, { cause });
    this.#log(`etcd rejects a request: ${status} ${message}`);
    return new RegistrarError('unavailable', 'etcd rejects the request. The log has the reason.', { cause });
  }
}

interface Sent<T> {
  readonly value: T;
  readonly mayHaveRun: boolean;
}

type ErrorResponse = Extract<RequestFailure, { kind: 'error' }>;

const quotaExceeded = 'etcd exceeds its storage quota (NOSPACE alarm): compact, defragment and disarm the alarm, or raise the quota.';

/** Another member may execute the request, or the same one later. */
function isTemporary({ status, message }: ErrorResponse): boolean {
  return status >= 500 || status === 401 || /too many requests/.test(message);
}

function failed(mayHaveRun: boolean, cause: unknown): RegistrarError {
  const options = { cause, retryAfterSeconds: 1 };
  if (mayHaveRun) return new RegistrarError('outcome-unknown', 'etcd did not confirm the write: it may have been done.', options);
  return new RegistrarError('unavailable', 'etcd does not respond in time. Nothing was changed.', options);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}

function parseEndpoint(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:';
  if (url === undefined || !isHttp || url.pathname !== '/' || `${url.search}${url.hash}${url.username}${url.password}` !== '') {
    throw new RegistrarError('usage', `"${text}" is not the address of an etcd member. Write it as in https://10.0.0.1:2379.`);
  }
  if (url.protocol === 'http:' && !/^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(url.hostname)) {
    throw new RegistrarError('usage', `"${text}" is plain http to another machine, and password hashes are sent over it. Use https.`);
  }
  return url.origin;
}
