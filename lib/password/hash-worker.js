/**
 * A thread that does one pbkdf2 after the other, each as one synchronous call, so that libuv's pool
 * stays free for the store's files. It is JavaScript since a worker on Node 20 has no loader for types.
 */

import { pbkdf2Sync } from 'node:crypto';
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

parentPort?.on('message', ({ password, salt, iterations, bytes, digest }) => {
  const started = performance.now();
  const hash = pbkdf2Sync(password, salt, iterations, bytes, digest);
  parentPort?.postMessage({ hash, ms: performance.now() - started });
});
