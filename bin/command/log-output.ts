/** Where log lines go: to standard output, whatever that is, and never so that the service waits for it. */

import { fstatSync, write } from 'node:fs';
import { promisify } from 'node:util';
import type { Output } from '../../lib/telemetry/log.ts';

const fd = 1;

/** Node's own stream writes to a file at once, however long the disk takes; to pipes and sockets it does not. */
export function standardOutput(): Output {
  const { stdout } = process;
  const writeToStream = (text: string): Promise<void> => new Promise((resolve, reject) => {
    stdout.write(text, (error) => (error ? reject(error) : resolve()));
  });
  return { isTerminal: stdout.isTTY === true, write: fstatSync(fd).isFile() ? writeToFile : writeToStream };
}

const writeBytes = promisify(write);

/** A full disk may have taken half a line: the next one begins on its own. */
let isTorn = false;

async function writeToFile(text: string): Promise<void> {
  const bytes = Buffer.from(isTorn ? `\n${text}` : text);
  for (let from = 0; from < bytes.length;) {
    isTorn = from > 0;
    from += (await writeBytes(fd, bytes, from)).bytesWritten;
  }
  isTorn = false;
}
