/** Where log lines go: to standard output, whatever that is, and never so that the service waits for it. */

import { fstatSync, write } from 'node:fs';
import type { Output } from '../../lib/telemetry/watch.ts';

const fd = 1;

/** To a file Node's own stream would write at once, however long the disk takes; to pipes and sockets it does not. */
export function standardOutput(): Output {
  const { stdout } = process;
  return {
    isTerminal: stdout.isTTY === true,
    write: fstatSync(fd).isFile() ? writeToFile : (text, done) => void stdout.write(text, done),
  };
}

/** A full disk may have taken half a line: what follows is not to be read as its end. */
let isTorn = false;

const writeToFile: Output['write'] = (text, done) => {
  const bytes = Buffer.from(isTorn ? `\n${text}` : text);
  isTorn = false;
  const writeFrom = (from: number): void => {
    write(fd, bytes, from, bytes.length - from, null, (error, written) => {
      if (error !== null) {
        isTorn = from > 0;
        done(error);
      } else if (from + written < bytes.length) {
        writeFrom(from + written);
      } else {
        done(null);
      }
    });
  };
  writeFrom(0);
};
