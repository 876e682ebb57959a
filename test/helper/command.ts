/** Runs a command in this process, with streams of its own: a process costs half a second. */

import { PassThrough, Readable, Writable } from 'node:stream';
import type { Terminal } from '../../bin/command/terminal.ts';

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** What comes on standard input. */
  readonly input?: string | Buffer;
}

export async function runCommand(args: readonly string[], { env = {}, input = '' }: CommandOptions = {}): Promise<Outcome> {
  const [stdout, stderr] = [new Collected(), new Collected()];
  const stdin = input.length === 0 ? Readable.from([]) : Readable.from([Buffer.from(input)]);
  const status = await run(args, env, { stdin, stdout, stderr });
  return { status, stdout: stdout.text, stderr: stderr.text };
}

/** The same with a person at a terminal that types each answer when its prompt is shown. */
export async function typeCommand(
  args: readonly string[],
  answers: readonly (readonly [prompt: string, typed: string])[],
  env: Readonly<Record<string, string>> = {},
): Promise<Outcome & { readonly modes: readonly boolean[] }> {
  const [stdout, stderr] = [new Collected(), new Collected()];
  const modes: boolean[] = [];
  const stdin = Object.assign(new PassThrough(), { isTTY: true, setRawMode: (isRaw: boolean) => modes.push(isRaw) });
  const rest = [...answers];
  stderr.onText = (shown) => {
    const [prompt, typed] = rest[0] ?? [];
    if (prompt === undefined || !shown.endsWith(prompt)) return;
    rest.shift();
    setImmediate(() => stdin.write(typed));
  };
  const status = await run(args, env, { stdin, stdout, stderr });
  return { status, stdout: stdout.text, stderr: stderr.text, modes };
}

async function run(args: readonly string[], env: Readonly<Record<string, string>>, streams: ConstructorParameters<typeof Terminal>[0]): Promise<number> {
  const [{ main }, terminal] = await Promise.all([import('../../bin/command/main.ts'), import('../../bin/command/terminal.ts')]);
  return main(args, env, new terminal.Terminal(streams));
}

class Collected extends Writable {
  text = '';
  onText: (text: string) => void = () => undefined;

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.text += chunk.toString('utf8');
    done();
    this.onText(this.text);
  }
}
