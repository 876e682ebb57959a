/** Talking with whoever runs the command: to standard error, and from a terminal only. */

import { createInterface } from 'node:readline/promises';

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
