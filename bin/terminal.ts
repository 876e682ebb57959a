/** Talking with whoever runs the command: to standard error, and from a terminal only; and handing results over. */

import { createInterface } from 'node:readline/promises';
import { RegistrarError, systemCode } from '../lib/errors.ts';

/** Longer than any password: four bytes for each of 256 code points, and room to be told that it is too long. */
const secretBytesMax = 8_192;

/** One line of talk; results go to standard output. */
export function say(line: string): void {
  process.stderr.write(`registrar: ${line}\n`);
}

export async function isAgreed(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) return false;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await lines.question(question).finally(() => lines.close());
  return /^y(?:es)?$/i.test(answer.trim());
}

/**
 * Hands a piece of the result over, as fast as it is read. Resolves with false when whoever read it has gone, as `head`
 * does; rejects when it cannot be written, as to a full disk.
 */
export function print(piece: string | Uint8Array): Promise<boolean> {
  return new Promise((resolve, reject) => {
    process.stdout.write(piece, (error) => {
      if (error === null || error === undefined) resolve(true);
      else if (systemCode(error) === 'EPIPE') resolve(false);
      else reject(new RegistrarError('storage-full', `Cannot write the result (${systemCode(error) ?? error.message})`, { cause: error }));
    });
  });
}

/**
 * A password, by a prompt that does not echo, or the first line of standard input where that is no terminal. It is
 * asked for twice where `isNew`, since nobody sees what is typed. Throws `invalid` where none comes.
 */
export async function readPassword(what: string, { isNew = false } = {}): Promise<string> {
  if (!process.stdin.isTTY) return readLine();
  const [password = '', again] = await ask(isNew ? [`${what}: `, 'Once more: '] : [`${what}: `]);
  if (isNew && password !== again) throw new RegistrarError('invalid', 'The two passwords are not the same: nothing was done');
  if (password === '') throw noPassword();
  return password;
}

async function readLine(): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    const end = chunk.indexOf(0x0a);
    chunks.push(end < 0 ? chunk : chunk.subarray(0, end));
    bytes += chunks.at(-1)?.length ?? 0;
    if (bytes > secretBytesMax) {
      throw new RegistrarError('invalid', `The first line of standard input is longer than ${secretBytesMax} bytes: no password is`);
    }
    if (end >= 0) break;
  }
  const line = decode(Buffer.concat(chunks)).replace(/\r$/, '');
  if (line === '') throw noPassword();
  return line;
}

/** What was typed after each prompt. The terminal is as it was afterwards, whatever happens. */
async function ask(prompts: readonly string[]): Promise<string[]> {
  const { stdin, stderr } = process;
  const answers: string[] = [];
  // Raw before the prompt is shown: what is typed as soon as it is seen must not be echoed.
  stdin.setRawMode(true);
  try {
    let typed: number[] = [];
    stderr.write(prompts[0] ?? '');
    for await (const chunk of stdin as AsyncIterable<Buffer>) {
      for (const byte of keys(chunk)) {
        if (byte === 0x03 || (byte === 0x04 && typed.length === 0)) throw new RegistrarError('forbidden', 'interrupted; nothing was done');
        if (byte === 0x0d || byte === 0x0a) {
          answers.push(decode(Buffer.from(typed)));
          typed = [];
          if (answers.length === prompts.length) return answers;
          stderr.write(`\n${prompts[answers.length] ?? ''}`);
        } else {
          edit(typed, byte);
        }
      }
    }
    throw noPassword();
  } finally {
    stdin.setRawMode(false);
    stderr.write('\n');
  }
}

/** Backspace and Ctrl-U as a terminal has them; other keys that are no characters do nothing. */
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

/** Without what the arrows and other such keys send. */
function keys(chunk: Buffer): Buffer {
  return Buffer.from(chunk.toString('latin1').replace(/\x1b(?:\[[0-9;]*[A-Za-z~]|O.)/g, ''), 'latin1');
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new RegistrarError('invalid', 'The password is not UTF-8 text');
  }
}

function noPassword(): RegistrarError {
  return new RegistrarError('invalid', 'No password came: type it, or give it as the first line of standard input');
}
