/**
 * The streams of the process: results to standard output, everything else to standard error. A question is asked on a terminal only,
 * and a password is not shown while it is typed; without a terminal it is the first line of standard input.
 */

import { createInterface } from 'node:readline/promises';
import type { Readable, Writable } from 'node:stream';
import { RegistrarError, messageOf, systemCode } from '../../lib/errors.ts';

/** Longer than any password: four bytes for each of 256 code points, and room for one that is refused as too long. */
const secretBytesMax = 8_192;
const progressMs = 200;

interface Input extends Readable {
  readonly isTTY?: boolean;
  setRawMode?(isRaw: boolean): unknown;
}

interface Output extends Writable {
  readonly isTTY?: boolean;
}

/** The process, or what a test gives for it. */
export interface Streams {
  readonly stdin: Input;
  readonly stdout: Output;
  readonly stderr: Output;
}

export class Terminal {
  /** Standard input is opened when it is read, not before. */
  readonly #streams: Streams;
  #progressAt = -Infinity;

  constructor(streams: Streams) {
    this.#streams = streams;
  }

  /** One line on standard error. */
  readonly say = (line: string): void => {
    this.#streams.stderr.write(`registrar: ${line}\n`);
  };

  /**
   * Hands a piece of the result over, as fast as it is read. Resolves with false when its reader has gone, as `head` does.
   * Rejects with `storage-full` when it cannot be written, as to a full disk.
   */
  readonly print = (piece: string | Uint8Array): Promise<boolean> => {
    return new Promise((resolve, reject) => {
      this.#streams.stdout.write(piece, (error) => {
        if (error === null || error === undefined) resolve(true);
        else if (systemCode(error) === 'EPIPE') resolve(false);
        else reject(new RegistrarError('storage-full', `Cannot write the result: ${messageOf(error)}.`, { cause: error }));
      });
    });
  };

  get stdin(): Input {
    return this.#streams.stdin;
  }

  get hasOutput(): boolean {
    return this.#streams.stdout.isTTY === true;
  }

  /** A line that replaces itself, on a terminal only and not more often than a person can read it; empty to remove it. */
  progress(text: string): void {
    const now = performance.now();
    if (!this.#streams.stderr.isTTY || (text !== '' && now - this.#progressAt < progressMs)) return;
    this.#streams.stderr.write(`\r${text}\x1b[K`);
    this.#progressAt = now;
  }

  /** Throws `forbidden` unless a person agrees, or `isYes`. */
  async confirm(question: string, isYes: boolean): Promise<void> {
    if (isYes || (await this.#isAgreed(question))) return;
    throw new RegistrarError('forbidden', 'Nothing was changed. With --yes there is no question.');
  }

  /** Asked for twice where `isNew`, since it is not seen while it is typed. Throws `invalid` where none comes. */
  async readPassword(what: string, { isNew = false } = {}): Promise<string> {
    if (!this.stdin.isTTY) return this.#readLine();
    const [password = '', again] = await this.#ask(isNew ? [`${what}: `, 'Once more: '] : [`${what}: `]);
    if (isNew && password !== again) throw new RegistrarError('invalid', 'The two passwords differ. Nothing was changed.');
    if (password === '') throw noPassword();
    return password;
  }

  async #isAgreed(question: string): Promise<boolean> {
    if (!this.stdin.isTTY) return false;
    const lines = createInterface({ input: this.stdin, output: this.#streams.stderr });
    const answer = await lines.question(question).finally(() => lines.close());
    return /^y(?:es)?$/i.test(answer.trim());
  }

  async #readLine(): Promise<string> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of this.stdin as AsyncIterable<Buffer>) {
      const end = chunk.indexOf(0x0a);
      chunks.push(end < 0 ? chunk : chunk.subarray(0, end));
      bytes += chunks.at(-1)?.length ?? 0;
      if (bytes > secretBytesMax) throw new RegistrarError('invalid', `The password is longer than ${secretBytesMax} bytes.`);
      if (end >= 0) break;
    }
    const line = decode(Buffer.concat(chunks)).replace(/\r$/, '');
    if (line === '') throw noPassword();
    return line;
  }

  /** What was typed after each prompt. The terminal is as it was afterwards, whatever happens. */
  async #ask(prompts: readonly string[]): Promise<string[]> {
    const { stdin, stderr } = this.#streams;
    const answers: string[] = [];
    // Raw before the prompt is shown: what is typed in answer to it is not echoed.
    stdin.setRawMode?.(true);
    try {
      let typed: number[] = [];
      stderr.write(prompts[0] ?? '');
      for await (const chunk of stdin as AsyncIterable<Buffer>) {
        for (const byte of withoutEscapes(chunk)) {
          const isEnd = byte === 0x03 || (byte === 0x04 && typed.length === 0);
          if (isEnd) throw new RegistrarError('forbidden', 'Interrupted. Nothing was changed.');
          if (byte !== 0x0d && byte !== 0x0a) {
            edit(typed, byte);
            continue;
          }
          answers.push(decode(Buffer.from(typed)));
          typed = [];
          if (answers.length === prompts.length) return answers;
          stderr.write(`\n${prompts[answers.length] ?? ''}`);
        }
      }
      throw noPassword();
    } finally {
      stdin.setRawMode?.(false);
      stderr.write('\n');
    }
  }
}

/** Backspace and Ctrl-U as a terminal has them; other control characters do nothing. */
function edit(typed: number[], byte: number): void {
  if (byte === 0x7f || byte === 0x08) {
    while (((typed.at(-1) ?? 0) & 0xc0) === 0x80) typed.pop();
    typed.pop();
  } else if (byte === 0x15) {
    typed.length = 0;
  } else if (byte >= 0x20 && typed.length < secretBytesMax) {
    typed.push(byte);
  }
}

/** Without the sequences that arrows and other such keys send. */
function withoutEscapes(chunk: Buffer): Buffer {
  return Buffer.from(chunk.toString('latin1').replace(/\x1b(?:\[[0-9;]*[A-Za-z~]|O.)/g, ''), 'latin1');
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new RegistrarError('invalid', 'The password is not UTF-8 text.');
  }
}

function noPassword(): RegistrarError {
  return new RegistrarError('invalid', 'There is no password: type it, or give it as the first line of standard input.');
}
