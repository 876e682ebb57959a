/**
 * The log: one JSON line for each request and event, or a short form for people at a terminal. Lines are collected and
 * written together, one write at a time; while the reader is slow they are kept up to a bound, then dropped and
 * counted. A full disk costs lines, a reader that has gone ends the log, and neither ends the service.
 */

import type { LoggedRequest } from '../auth/request-context.ts';

/** `done` is called once, with what went wrong. */
export type Write = (text: string, done: (error: Error | null | undefined) => void) => void;

export interface LogOptions {
  readonly write: Write;
  /** For a terminal: requests only, since events are told there by other ways. */
  readonly isShort: boolean;
  /** Wall clock, milliseconds. */
  readonly now: () => number;
}

export type Level = 'info' | 'warn' | 'error';

const flushMs = 100;
/** Characters; they are ASCII but in events. */
const flushLength = 1 << 16;
const keptLengthMax = 1 << 20;
/** How long the last lines may take when the service ends. */
const closeMsMax = 500;

export class Log {
  readonly #options: LogOptions;
  #text = '';
  #lines = 0;
  #dropped = 0;
  #droppedInAll = 0;
  #isWriting = false;
  #isGone = false;
  #isOpen = false;
  #timer: NodeJS.Timeout | undefined;
  #onIdle: (() => void) | undefined;
  #second = Number.NaN;
  #stamp = '';

  constructor(options: LogOptions) {
    this.#options = options;
  }

  /** Lines that nobody will ever read. */
  get dropped(): number {
    return this.#droppedInAll;
  }

  /** Until then lines are kept: where it listens is said first. */
  open(): void {
    this.#isOpen = true;
  }

  request(request: LoggedRequest, ms: number): void {
    if (this.#text.length >= keptLengthMax || this.#isGone) return this.#drop(1);
    this.#add(this.#options.isShort ? this.#short(request, ms) : this.#json(request, ms));
  }

  /** @param fields values that JSON has, and no secret. */
  event(level: Level, event: string, fields: Readonly<Record<string, string | number | undefined>> = {}): void {
    if (this.#options.isShort) return;
    if (this.#text.length >= keptLengthMax || this.#isGone) return this.#drop(1);
    this.#add(this.#eventLine(level, event, fields));
  }

  /** Writes what there is, and resolves when it is written, or will not be. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flush();
    if (!this.#isWriting) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, closeMsMax);
      this.#onIdle = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #eventLine(level: Level, event: string, fields: Readonly<Record<string, string | number | undefined>>): string {
    return `${JSON.stringify({ time: new Date(this.#options.now()).toISOString(), level, event, ...fields })}\n`;
  }

  #keep(line: string): void {
    this.#text += line;
    this.#lines++;
  }

  #add(line: string): void {
    this.#keep(line);
    // Not at each line while a write is on its way.
    if (this.#text.length >= flushLength && !this.#isWriting) this.#flush();
    else this.#timer ??= setTimeout(this.#onTime, flushMs).unref();
  }

  readonly #onTime = (): void => {
    this.#timer = undefined;
    this.#flush();
  };

  #drop(lines: number): void {
    this.#dropped += lines;
    this.#droppedInAll += lines;
  }

  #flush(): void {
    if (this.#isWriting || this.#isGone || !this.#isOpen) return;
    if (this.#dropped > 0) {
      const lines = this.#dropped;
      this.#dropped = 0;
      // Beyond the bound, if need be.
      if (!this.#options.isShort) this.#keep(this.#eventLine('warn', 'log-dropped', { lines }));
    }
    if (this.#text === '') return;
    const text = this.#text;
    const lines = this.#lines;
    this.#text = '';
    this.#lines = 0;
    this.#isWriting = true;
    this.#options.write(text, (error) => this.#written(error, lines));
  }

  #written(error: Error | null | undefined, lines: number): void {
    this.#isWriting = false;
    const hasFailed = error !== null && error !== undefined;
    if (hasFailed) {
      this.#drop(lines);
      // Whoever read it has gone, and nobody else will come.
      this.#isGone = 'code' in error && (error.code === 'EPIPE' || error.code === 'ERR_STREAM_DESTROYED');
      if (this.#isGone) this.#text = '';
    }
    if (this.#onIdle === undefined) {
      if (this.#text !== '') this.#timer ??= setTimeout(this.#onTime, this.#text.length >= flushLength ? 0 : flushMs).unref();
      return;
    }
    // When it ends there is one try: how many lines were lost would be lost as well.
    if (!hasFailed) this.#flush();
    if (!this.#isWriting) this.#onIdle();
  }

  /** Nothing in it has to be escaped: what is not a number is ours, an address, or a method that Node's parser knows. */
  #json({ id, method, route, status, bytes, isUnauthenticatedMode, client, principal, code }: LoggedRequest, ms: number): string {
    return this.#time() +
      (status < 500 ? '"info","event":"request","id":"' : '"error","event":"request","id":"') + id +
      '","method":"' + method +
      '","route":"' + (route === undefined ? '-' : route.pattern) +
      '","status":' + status +
      ',"ms":' + Math.round(ms * 1000) / 1000 +
      ',"bytes":' + bytes +
      (isUnauthenticatedMode ? '' : ',"client":"' + client.name + '"') +
      (principal === undefined ? '' : principal.kind === 'user'
        ? ',"who":"' + principal.by + '","user":' + principal.id
        : ',"who":"' + principal.kind + '"') +
      (code === undefined ? '}\n' : ',"error":"' + code + '"}\n');
  }

  #short({ method, route, status, bytes, isUnauthenticatedMode, client, principal, code }: LoggedRequest, ms: number): string {
    const isUser = principal?.kind === 'user';
    const who = principal === undefined ? '' : isUser ? ` user ${principal.id} by ${principal.by}` : ` ${principal.kind}`;
    const clock = new Date(this.#options.now()).toTimeString().slice(0, 8);
    const from = isUnauthenticatedMode ? '' : ` from ${client.name}`;
    const what = `${clock} ${status} ${method} ${route?.pattern ?? '-'} ${ms.toFixed(1)} ms ${bytes} bytes`;
    return `${what}${who}${from}${code === undefined ? '' : ` ${code}`}\n`;
  }

  /** To the millisecond; all but those are made once a second, since a Date costs as much as the rest of the line. */
  #time(): string {
    const now = this.#options.now();
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#stamp = `{"time":"${new Date(second * 1000).toISOString().slice(0, 20)}`;
    }
    const ms = now - second * 1000;
    return this.#stamp + (ms < 10 ? '00' : ms < 100 ? '0' : '') + ms + 'Z","level":';
  }
}
