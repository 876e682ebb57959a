/** A child process that runs commands which its parent sends over IPC, one answer for each. Both sides of the conversation are here. */

import type { ChildProcess } from 'node:child_process';

/** The message of the error for commands that the child did not answer before it ended. */
export const processEnded = 'The child process ended.';

interface Request<Command> {
  readonly n: number;
  readonly command: Command;
}

interface Response {
  readonly n: number;
  readonly answer?: unknown;
  readonly error?: string;
}

/** In the child: runs each command, and sends `ready` when it can. */
export function serveCommands<Command>(run: (command: Command) => Promise<unknown>, ready: unknown): void {
  const send = process.send?.bind(process);
  if (send === undefined) throw new Error('This process was started without IPC.');
  process.on('message', async ({ n, command }: Request<Command>) => {
    try {
      send({ n, answer: await run(command) } satisfies Response);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? `${String(error.code)}: ` : '';
      send({ n, error: error instanceof Error ? `${code}${error.message}` : String(error) } satisfies Response);
    }
  });
  send(ready);
}

export interface CommandProcess<Command, Ready> {
  readonly ready: Ready;
  tell(command: Command): Promise<any>;
}

/** In the parent: resolves when the child is ready. What was not answered when the child ends is rejected. */
export async function connectCommands<Command, Ready>(child: ChildProcess): Promise<CommandProcess<Command, Ready>> {
  let stderr = '';
  child.stderr?.on('data', (chunk) => (stderr += chunk));
  // A command that cannot be sent any more is rejected when the child disconnects.
  child.on('error', () => undefined);
  const waiting = new Map<number, { resolve: (answer: unknown) => void; reject: (error: Error) => void }>();
  let count = 0;
  const ready = await new Promise<Ready>((resolve, reject) => {
    child.once('message', (message) => resolve(message as Ready));
    child.once('exit', () => reject(new Error(`The child process ended: ${stderr}`)));
  });
  child.on('message', ({ n, answer, error }: Response) => {
    if (error === undefined) waiting.get(n)?.resolve(answer);
    else waiting.get(n)?.reject(new Error(error));
    waiting.delete(n);
  });
  child.once('disconnect', () => {
    for (const { reject } of waiting.values()) reject(new Error(processEnded));
  });
  return {
    ready,
    tell: (command) =>
      new Promise((resolve, reject) => {
        waiting.set(++count, { resolve, reject });
        child.send({ n: count, command } satisfies Request<Command>, () => undefined);
      }),
  };
}
