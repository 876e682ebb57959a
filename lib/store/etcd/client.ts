/**
 * A cluster of etcd as one thing to ask: members take turns, one that fails is passed over until it answers again,
 * and what has no answer is asked of the next one until the deadline. It repeats a write only as its body allows,
 * and says whether an earlier sending of it may have been carried out; what that comes to is the caller's.
 */

import { RegistrarError, messageOf } from '../../errors.ts';
import { readAlarms } from './answers.ts';
import { alarmsBody, getBody, transactionBody } from './bodies.ts';
import type { Transaction } from './bodies.ts';
import { Member } from './member.ts';
import type { Attempt, Credentials, Tls } from './member.ts';

export interface ClientOptions {
  /** As in `https://10.0.0.1:2379`; plain http for loopback only. */
  readonly endpoints: readonly string[];
  readonly tls?: Tls;
  readonly user?: string;
  readonly password?: string;
  /** How long an operation may take, from being asked for to its answer. Below etcd's own 7 s. */
  readonly waitMsMax?: number;
  /** One line for the operator's log. */
  readonly report?: (line: string) => void;
}

export interface Call {
  readonly path: string;
  readonly body: string;
  /** In the time of `performance.now()`. */
  readonly deadline: number;
  /** It changes nothing that somebody is told about: its doubts are nobody's. */
  readonly isHarmless?: boolean;
}

export interface Answer {
  readonly json: unknown;
  /** Earlier sendings may have been carried out, too. */
  readonly isRepeat: boolean;
}

interface Standing {
  readonly member: Member;
  /** How long after a failure it is probed; 0 while it answers. */
  againMs: number;
  isReported: boolean;
  timer?: NodeJS.Timeout;
}

const waitMsMaxDefault = 2_700;
/** Three members can be asked before the deadline: a cluster of three that has lost one has one that can answer. */
const attemptsMin = 3;
const remainingMsMin = 20;
const pauseMsMin = 20;
const pauseMsMax = 250;
const probeMsMin = 50;
const probeMsMax = 5_000;

export class EtcdClient {
  readonly #standings: readonly Standing[];
  readonly #waitMsMax: number;
  readonly #report: (line: string) => void;
  readonly #probeBody: string;
  /** Somewhere else for each service, so that they do not all ask the same member. */
  #turn = Math.floor(Math.random() * 1_000);
  #isClosed = false;

  /** Throws `usage` if an endpoint cannot be one. */
  constructor(options: ClientOptions, probeKey: string) {
    const { tls = {}, user, password = '', waitMsMax = waitMsMaxDefault, report = () => undefined } = options;
    const credentials: Credentials | undefined = user === undefined ? undefined : { user, password };
    const urls = [...new Set(options.endpoints.map(checkEndpoint))];
    if (urls.length === 0) throw new RegistrarError('usage', 'No member of etcd is named: give an address, as in https://10.0.0.1:2379');
    this.#standings = urls.map((url) => ({ member: new Member(url, tls, credentials), againMs: 0, isReported: false }));
    this.#waitMsMax = waitMsMax;
    this.#report = report;
    this.#probeBody = getBody(probeKey);
  }

  /** By when an operation that begins now has to have its answer. */
  deadline(): number {
    return performance.now() + this.#waitMsMax;
  }

  /**
   * Rejects with `unavailable` if nothing was carried out, `outcome-unknown` if something may have been, and
   * `storage-full` if nothing was, and etcd has no room.
   */
  async call({ path, body, deadline, isHarmless = false }: Call): Promise<Answer> {
    const asked = new Set<Standing>();
    let isRepeat = false;
    let cause: unknown;
    for (let pauseMs = pauseMsMin; ; ) {
      if (this.#isClosed) throw this.#failed(isRepeat, new Error('the store was closed'));
      if (deadline - performance.now() < remainingMsMin) {
        throw this.#failed(isRepeat, cause ?? new Error('it waited too long for its turn'));
      }
      const standing = this.#choose(asked);
      if (standing === undefined) {
        asked.clear();
        await pause(Math.min(pauseMs * (0.5 + Math.random()), deadline - performance.now()));
        pauseMs = Math.min(pauseMs * 2, pauseMsMax);
        continue;
      }
      asked.add(standing);
      const attempt = await standing.member.post(path, body, this.#waitMsMax / attemptsMin, deadline);
      if (attempt.kind === 'answered') {
        this.#up(standing);
        return { json: attempt.json, isRepeat };
      }
      if (attempt.kind === 'refused' && !mayPass(attempt)) throw this.#refused(isRepeat, attempt);
      cause = attempt.kind === 'refused' ? new Error(`etcd: ${attempt.text}`) : attempt.cause;
      if (isDoubtful(attempt) && !isHarmless) isRepeat = true;
      this.#down(standing, messageOf(cause));
    }
  }

  /** What reads, or what may be done again and again. */
  async ask(path: string, body: string, deadline: number): Promise<unknown> {
    return (await this.call({ path, body, deadline, isHarmless: true })).json;
  }

  /** Of ranges only, or of what may be done again and again. */
  transact(transaction: Transaction, deadline: number): Promise<unknown> {
    return this.ask('/v3/kv/txn', transactionBody(transaction), deadline);
  }

  /** Why writes cannot be done now; undefined if they can. Takes a round trip or two, at most `waitMs`. */
  async trouble(waitMs: number): Promise<string | undefined> {
    const deadline = performance.now() + waitMs;
    try {
      await this.ask('/v3/kv/range', this.#probeBody, deadline);
      const alarms = readAlarms(await this.ask('/v3/maintenance/alarm', alarmsBody, deadline));
      if (alarms.includes('NOSPACE')) return noRoom;
      return alarms.length === 0 ? undefined : `etcd has raised an alarm: ${alarms.join(', ')}`;
    } catch (error) {
      return messageOf(error);
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const { member, timer } of this.#standings) {
      clearTimeout(timer);
      member.close();
    }
  }

  /** Who answers, in turns; else who does not, as a last resort; undefined if all were asked. */
  #choose(asked: ReadonlySet<Standing>): Standing | undefined {
    this.#turn++;
    const left = this.#standings.filter((standing) => !asked.has(standing));
    const well = left.filter(({ againMs }) => againMs === 0);
    const from = well.length > 0 ? well : left;
    return from[this.#turn % from.length];
  }

  #up(standing: Standing): void {
    if (standing.againMs === 0) return;
    standing.againMs = 0;
    clearTimeout(standing.timer);
    if (standing.isReported) this.#report(`etcd: ${standing.member.url} answers again`);
    standing.isReported = false;
  }

  /** It is probed, so that no request has to find out. A connection that was merely closed is not worth a line. */
  #down(standing: Standing, why: string): void {
    if (standing.againMs > 0 || this.#isClosed) return;
    standing.againMs = probeMsMin;
    const later = (): void => {
      if (this.#isClosed) return;
      standing.timer = setTimeout(() => void probe(), standing.againMs * (0.5 + Math.random())).unref();
    };
    const probe = async (): Promise<void> => {
      const waitMs = this.#waitMsMax / attemptsMin;
      const attempt = await standing.member.post('/v3/kv/range', this.#probeBody, waitMs, performance.now() + waitMs);
      if (standing.againMs === 0) return;
      if (attempt.kind === 'answered') return this.#up(standing);
      standing.againMs = Math.min(standing.againMs * 2, probeMsMax);
      if (!standing.isReported) {
        this.#report(`etcd: ${standing.member.url} does not answer (${why}): it is passed over until it does`);
      }
      standing.isReported = true;
      later();
    };
    later();
  }

  #failed(isRepeat: boolean, cause: unknown): RegistrarError {
    const options = { cause, retryAfterSeconds: 1 };
    if (isRepeat) return new RegistrarError('outcome-unknown', `${silent}: ${unknown}`, options);
    return new RegistrarError('unavailable', `${silent}: nothing was changed; try again`, options);
  }

  #refused(isRepeat: boolean, { status, text }: Refusal): RegistrarError {
    const cause = new Error(`etcd: ${status} ${text}`);
    const isFull = /database space exceeded/.test(text);
    if (isRepeat) return new RegistrarError('outcome-unknown', `etcd, which keeps the users, failed: ${unknown}`, { cause });
    if (isFull) return new RegistrarError('storage-full', `${noRoom}: nothing was changed`, { cause });
    this.#report(`etcd refuses what it is asked: ${status} ${text}`);
    return new RegistrarError('unavailable', 'etcd, which keeps the users, refuses what it is asked: the log says why', { cause });
  }
}

type Refusal = Extract<Attempt, { kind: 'refused' }>;

const unknown = 'it may or may not have been done; look, or send it again';
const silent = 'etcd, which keeps the users, does not answer in time';
const noRoom = 'etcd has no room left (its NOSPACE alarm): compact, defragment and disarm it, or raise its quota';

/** Another member, or the same one later, may do it. */
function mayPass({ status, text }: Refusal): boolean {
  return status >= 500 || status === 401 || /too many requests/.test(text);
}

/** It may have been carried out, or still be. */
function isDoubtful(attempt: Attempt): boolean {
  return attempt.kind === 'unanswered' || (attempt.kind === 'refused' && attempt.status >= 500);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}

function checkEndpoint(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:';
  if (url === undefined || !isHttp || url.pathname !== '/' || `${url.search}${url.hash}${url.username}${url.password}` !== '') {
    throw new RegistrarError('usage', `"${text}" is no address of a member of etcd: write it as in https://10.0.0.1:2379`);
  }
  if (url.protocol === 'http:' && !/^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(url.hostname)) {
    const why = `is plain http, which is for this machine's own addresses only, since hashes of passwords go over it`;
    throw new RegistrarError('usage', `"${text}" ${why}: use https`);
  }
  return url.origin;
}
