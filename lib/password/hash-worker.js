/**
 * A thread that computes one password hash after the other, so that libuv's pool stays free for the store's files.
 * It answers whether a hash was the expected one, and not the hash.
 */

import { setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { runJob } from './derive.js';

// On Linux a priority belongs to a thread. Elsewhere this would slow the whole process down.
if (workerData.nice !== 0 && process.platform === 'linux') {
  try {
    setPriority(0, workerData.nice);
  } catch (error) {
    // Not allowed in some sandboxes (EPERM, EACCES): hashing then only competes with serving.
    if (!(error instanceof Error) || !('code' in error)) throw error;
  }
}

parentPort?.on('message', (job) => parentPort?.postMessage(runJob(job)));
