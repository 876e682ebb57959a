/** The certificate and its key: read, and checked to belong together, before anything listens. */

import { X509Certificate, createPrivateKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
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
