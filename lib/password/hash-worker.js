/**
 * A thread that does one pbkdf2 after the other, each as one synchronous call, so that libuv's pool
 * stays free for the store's files. It is JavaScript since a worker on Node 20 has no loader for types.
 *
 * With an expected hash it compares, and after a mismatch goes on with `rest`, whose results nobody wants: a
 * failed check costs the same for every login. It tells what it did, and not the hash.
 */

import { pbkdf2Sync, timingSafeEqual } from 'node:crypto';
import { setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';

// On Linux a priority belongs to a thread. Elsewhere this would slow the whole process down.
if (workerData.nice !== 0 && process.platform === 'linux') {
  try {
    setPriority(0, workerData.nice);
  } catch (error) {
    // Not allowed in some sandboxes (EPERM, EACCES): hashing then only competes with serving.
    if (!(error instanceof Error) || !('code' in error)) throw error;
  }
}

parentPort?.on('message', ({ password, salt, first, expected, rest }) => {
  /** @type {{ digest: string, iterations: number, ms: number }[]} */
  const calls = [];
  /** @param {{ digest: string, iterations: number, bytes: number }} call */
  const derive = ({ digest, iterations, bytes }) => {
    const started = performance.now();
    const hash = pbkdf2Sync(password, salt, iterations, bytes, digest);
    calls.push({ digest, iterations, ms: performance.now() - started });
    return hash;
  };
  const hash = derive(first);
  if (expected === undefined) {
    parentPort?.postMessage({ hash, calls });
    return;
  }
  const isRight = timingSafeEqual(hash, expected);
  if (!isRight) rest.forEach(derive);
  parentPort?.postMessage({ isRight, calls });
});
