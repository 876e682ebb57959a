/** Takes a replaced certificate into use without a restart. It keeps no process alive. */

import { join } from 'node:path';
import { FileWatcher } from '../auth/file-watcher.ts';
import { messageOf } from '../errors.ts';
import { readCertificate } from './certificate.ts';
import type { Certificate } from './certificate.ts';

export interface CertificateWatchOptions {
  readonly directory: string;
  readonly now: () => Date;
  readonly report: (line: string) => void;
  /** The certificate in use. */
  readonly current: Certificate;
  /** Takes a certificate into use. */
  readonly apply: (certificate: Certificate) => void;
  /** How often the files are checked; 2 s by default. */
  readonly everyMs?: number;
}

export interface CertificateWatch {
  /** Reads both files now, and reports the outcome. */
  reload(): void;
  close(): void;
}

const checkEveryMs = 2000;

/**
 * Takes a new pair into use as soon as it is complete. Between the new certificate and its new key the two do not fit: this
 * is tried again at every check, and reported at the second, once.
 */
export function watchCertificate({ directory, now, report, current, apply, everyMs }: CertificateWatchOptions): CertificateWatch {
  let inUse = current;
  // The timer sets the pace.
  const watcher = new FileWatcher(['cert.pem', 'key.pem'].map((name) => join(directory, name)), undefined, 0);
  let isPending = true;
  let problem: { readonly text: string; readonly isReported: boolean } | undefined;
  const check = (isRequested: boolean): void => {
    isPending = watcher.hasChanged() || isPending || isRequested;
    if (!isPending) return;
    try {
      const found = readCertificate(directory, now());
      const isSame = found.cert.equals(inUse.cert) && found.key.equals(inUse.key);
      if (!isSame) apply(found);
      inUse = found;
      isPending = false;
      problem = undefined;
      if (!isRequested && isSame) return;
      report(`The certificate ${isSame ? 'is unchanged' : 'was replaced'}: it is valid for ${found.daysLeft} days.`);
      found.warnings.forEach(report);
    } catch (error) {
      const text = messageOf(error);
      const isAgain = problem?.text === text;
      const wasReported = isAgain && problem?.isReported === true;
      const isDue = isRequested || (isAgain && !wasReported);
      problem = { text, isReported: wasReported || isDue };
      if (isDue) report(`${text} The certificate in use stays.`);
    }
  };
  check(false);
  const timer = setInterval(check, everyMs ?? checkEveryMs, false);
  timer.unref();
  return { reload: () => check(true), close: () => clearInterval(timer) };
}
