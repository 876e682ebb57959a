/**
 * The log: one JSON line for each request and event, or a short form on a terminal. Lines are collected and written together, one
 * write at a time. If the reader is slow, lines are kept up to a limit, then dropped and counted. A full disk costs lines and
 * a reader that has closed ends the log: neither stops the service.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { LoggedRequest } from '../auth/request-context.ts';
import { systemCode } from '../errors.ts';

export interface Output {
  /** Rejects if the text was not written completely. */
  readonly write: (text: string) => Promise<void>;
  readonly isTerminal: boolean;
}

export type Level = 'info' | 'warn' | 'error';

const flushMs = 100;
/** Characters. */
const flushLength = 1 << 16;
const keptLengthMax = 1 << 20;
/** How long the last write may take when the service ends. */
const closeMsMax = 500;

export class Log {
  readonly #output: Output;
  /** Wall clock, milliseconds. */
  readonly #now: () => number;
  #text = '';
  #lines = 0;
  #dropped = 0;
  #droppedTotal = 0;
  #isOpen = false;
  #isClosing = false;
  #hasReader = true;
  /** The beginning of lines of requests in this second, since 1970. */
  #stamp = '';
  #second = Number.NaN;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;

  constructor(output: Output, now: () => number) {
    this.#output = output;
    this.#now = now;
  }

  /** Lines that were not and will not be written. */
  get dropped(): number {
    return this.#droppedTotal;
  }

  /** Lines are kept until then: the start message comes first. */
  open(): void {
    this.#isOpen = true;
  }

  request(request: LoggedRequest, ms: number): void {
    this.#add(this.#output.isTerminal ? shortLine(request, ms, this.#now()) : this.#requestLine(request, ms));
  }

  /** Not on a terminal, where standard error has them. @param fields nothing secret. */
  event(level: Level, event: string, fields: Readonly<Record<string, string | number | undefined>> = {}): void {
    if (!this.#output.isTerminal) this.#add(this.#line(level, event, fields));
  }

  /** Resolves when all lines are written, or cannot be. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#flush();
    await Promise.race([this.#writing, sleep(closeMsMax, undefined, { ref: false })]);
  }

  #add(line: string): void {
    if (this.#text.length >= keptLengthMax || !this.#hasReader) return this.#drop(1);
    this.#text += line;
    this.#lines++;
    if (this.#text.length >= flushLength) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), flushMs).unref();
  }

  #drop(lines: number): void {
    this.#dropped += lines;
    this.#droppedTotal += lines;
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#text === '' || !this.#isOpen || this.#writing !== undefined) return;
    this.#writing = this.#write().finally(() => {
      this.#writing = undefined;
      if (this.#text !== '') this.#timer ??= setTimeout(() => this.#flush(), flushMs).unref();
    });
  }

  async #write(): Promise<void> {
    do {
      if (this.#dropped > 0 && !this.#output.isTerminal) {
        this.#text += this.#line('warn', 'log-dropped', { lines: this.#dropped });
        this.#lines++;
      }
      this.#dropped = 0;
      const [text, lines] = [this.#text, this.#lines];
      [this.#text, this.#lines] = ['', 0];
      try {
        await this.#output.write(text);
      } catch (error) {
        this.#drop(lines);
        this.#hasReader = !['EPIPE', 'ERR_STREAM_DESTROYED'].includes(systemCode(error) ?? '');
        if (this.#hasReader) return;
        this.#drop(this.#lines);
        [this.#text, this.#lines] = ['', 0];
        return;
      }
    } while (this.#text.length >= flushLength || (this.#isClosing && this.#text !== ''));
  }

  /** By hand: JSON.stringify and a Date cost more than the rest. Nothing needs an escape: texts are constants, addresses, known methods. */
  #requestLine(request: LoggedRequest, ms: number): string {
    const { id, method, route, status, bytes, isUnauthenticatedMode, client, principal, code } = request;
    const now = this.#now();
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#stamp = `{"time":"${new Date(second * 1000).toISOString().slice(0, 20)}`;
    }
    return this.#stamp + String(now % 1000).padStart(3, '0') + 'Z","level":' +
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

  #line(level: Level, event: string, fields: Readonly<Record<string, string | number | undefined>>): string {
    return `${JSON.stringify({ time: new Date(this.#now()).toISOString(), level, event, ...fields })}\n`;
  }
}

function shortLine(request: LoggedRequest, ms: number, now: number): string {
  const { method, route, status, bytes, isUnauthenticatedMode, client, principal, code } = request;
  const words = [new Date(now).toTimeString().slice(0, 8), status, method, route?.pattern ?? '-', `${ms.toFixed(1)} ms`, `${bytes} bytes`];
  if (principal !== undefined) words.push(principal.kind === 'user' ? `user ${principal.id} by ${principal.by}` : principal.kind);
  if (!isUnauthenticatedMode) words.push(`from ${client.name}`);
  if (code !== undefined) words.push(code);
  return `${words.join(' ')}\n`;
}
