/**
 * The certificate and its key: read, and checked to belong together, before anything listens; and read again when
 * they are replaced, without a restart. What does not fit together is never used: what is in use stays.
 */

import { X509Certificate, createPrivateKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { RegistrarError, messageOf, systemCode } from '../errors.ts';

export interface Certificate {
  /** PEM, leaf first. */
  readonly cert: Buffer;
  readonly key: Buffer;
  /** Days until it expires; negative if it has. */
  readonly daysLeft: number;
}

const way = 'make one with: make cert';

/** @param directory holds `cert.pem` and `key.pem`. Throws `cannot-start` with what to run. */
export function readCertificate(directory: string, now: Date): Certificate {
  const certPath = join(directory, 'cert.pem');
  const keyPath = join(directory, 'key.pem');
  const key = read(keyPath, 'key');
  const cert = read(certPath, 'certificate');
  const x509 = parse(certPath, 'certificate', () => new X509Certificate(cert));
  const privateKey = parse<KeyObject>(keyPath, 'key', () => createPrivateKey(key));
  if (!x509.checkPrivateKey(privateKey)) {
    throw refusal(`"${certPath}" was not made for the key "${keyPath}"; put the right pair there, or ${way} FORCE=1`);
  }
  // What TLS itself would not take: a key that is too short, a signature that is too old.
  parse(certPath, 'certificate', () => createSecureContext({ cert, key }));
  const daysLeft = Math.floor((Date.parse(x509.validTo) - now.getTime()) / 86_400_000);
  return { cert, key, daysLeft };
}

export interface CertificateWatchOptions {
  readonly directory: string;
  readonly now: () => Date;
  readonly report: (line: string) => void;
  /** What is in use. */
  readonly current: Certificate;
  /** Takes a certificate into use. */
  readonly apply: (certificate: Certificate) => void;
  /** How often the files are looked at; 2 s by default. */
  readonly everyMs?: number;
}

export interface CertificateWatch {
  /** Reads both files now, and says what came of it. */
  reload(): void;
  close(): void;
}

const lookEveryMs = 2000;

/**
 * Takes a new pair into use as soon as it is whole. Between the new certificate and its new key the two do not fit:
 * that is tried again at every look, and said at the second, once. It keeps no process alive.
 */
export function watchCertificate({ directory, now, report, current, apply, everyMs }: CertificateWatchOptions): CertificateWatch {
  let inUse = current;
  let seen: string | undefined;
  let problem: { readonly text: string; readonly isSaid: boolean } | undefined;
  const look = (isAsked: boolean): void => {
    const state = stateOf(directory);
    if (state === seen && !isAsked) return;
    try {
      const found = readCertificate(directory, now());
      const isSame = found.cert.equals(inUse.cert) && found.key.equals(inUse.key);
      if (!isSame) apply(found);
      inUse = found;
      seen = state;
      problem = undefined;
      if (isAsked || !isSame) report(`The certificate ${isSame ? 'is as it was' : 'was replaced'}: it is good for ${found.daysLeft} days`);
    } catch (error) {
      const text = messageOf(error);
      const isAgain = problem?.text === text;
      const isSaid = isAgain && problem?.isSaid === true;
      const isToSay = isAsked || (isAgain && !isSaid);
      problem = { text, isSaid: isSaid || isToSay };
      if (isToSay) report(`${text}. The certificate in use stays`);
    }
  };
  look(false);
  const timer = setInterval(look, everyMs ?? lookEveryMs, false);
  timer.unref();
  return { reload: () => look(true), close: () => clearInterval(timer) };
}

/** Changes with either file. */
function stateOf(directory: string): string {
  return ['cert.pem', 'key.pem']
    .map((name) => {
      try {
        const { dev, ino, size, mtimeNs, ctimeNs } = statSync(join(directory, name), { bigint: true });
        return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
      } catch (error) {
        return systemCode(error) ?? messageOf(error);
      }
    })
    .join('; ');
}

function read(path: string, what: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    const code = systemCode(cause);
    if (code === 'ENOENT') throw refusal(`there is no ${what} "${path}"; ${way}`, cause);
    throw refusal(`the ${what} "${path}" cannot be read (${code ?? messageOf(cause)}); mend its permissions`, cause);
  }
}

function parse<T>(path: string, what: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw refusal(`"${path}" holds no ${what} in PEM that can be used; ${way} FORCE=1`, cause);
  }
}

function refusal(reason: string, cause?: unknown): RegistrarError {
  return new RegistrarError('cannot-start', `Cannot serve HTTPS: ${reason}`, { cause });
}
