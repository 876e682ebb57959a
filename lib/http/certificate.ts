/**
 * The certificate and its key: read and checked before the service listens, and read again when they are replaced,
 * without a restart. A pair that does not fit is never used: the one in use stays.
 */

import { X509Certificate, createPrivateKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { RegistrarError, messageOf, systemCode } from '../errors.ts';

export interface Certificate {
  /** PEM, leaf first. */
  readonly cert: Buffer;
  readonly key: Buffer;
  /** Milliseconds since 1970. */
  readonly expires: number;
  /** Days until it expires; negative if it has. */
  readonly daysLeft: number;
  /** What works and should be changed, one line each. */
  readonly warnings: readonly string[];
}

/** A certificate that expires within so many days is reported. */
const daysLeftMin = 14;
const rsaBitsMin = 2048;
const pemCertificate = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** @param directory holds `cert.pem` and `key.pem`. Throws `cannot-start`, which names the cause and the remedy. */
export function readCertificate(directory: string, now: Date): Certificate {
  const certPath = join(directory, 'cert.pem');
  const keyPath = join(directory, 'key.pem');
  const key = read(keyPath, 'key');
  const privateKey = parseKey(keyPath, key.bytes);
  const cert = read(certPath, 'certificate');
  const chain = parseChain(certPath, cert.bytes);
  const leaf = requireLeaf(chain, privateKey, certPath, keyPath);
  try {
    // TLS itself refuses more: a key that is too short, a signature that is too old.
    createSecureContext({ cert: cert.bytes, key: key.bytes });
  } catch (cause) {
    throw refusal(`TLS does not accept "${certPath}" (${messageOf(cause)}). Get a certificate with a stronger key or signature.`, cause);
  }
  const expires = Date.parse(leaf.validTo);
  const daysLeft = Math.floor((expires - now.getTime()) / 86_400_000);
  const warnings = [...expiryWarning(leaf, daysLeft, directory), ...pairWarnings(chain, certPath), ...accessWarning(keyPath, key.stats)];
  return { cert: cert.bytes, key: key.bytes, expires, daysLeft, warnings };
}

function parseKey(path: string, bytes: Buffer): KeyObject {
  const text = bytes.toString('latin1');
  if (isDer(bytes)) throw refusal(`The key "${path}" is DER, not PEM. Convert it: openssl pkey -inform DER -in ${path} -out new-key.pem`);
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(text)) {
    throw refusal(`The key "${path}" is encrypted. Decrypt it: openssl pkey -in ${path} -out new-key.pem`);
  }
  if (!text.includes('PRIVATE KEY-----') && text.includes('-----BEGIN ')) {
    const found = /-----BEGIN ([^-]+)-----/.exec(text)?.[1] ?? 'something else';
    throw refusal(`"${path}" holds no private key, but ${found}. Put the key there.`);
  }
  try {
    return createPrivateKey(bytes);
  } catch (cause) {
    throw refusal(`The key "${path}" is damaged: it is no private key in PEM. Restore it from where the certificate was requested.`, cause);
  }
}

function parseChain(path: string, bytes: Buffer): readonly X509Certificate[] {
  if (isDer(bytes)) {
    throw refusal(`The certificate "${path}" is DER, not PEM. Convert it: openssl x509 -inform DER -in ${path} -out new-cert.pem`);
  }
  const blocks = bytes.toString('latin1').match(pemCertificate) ?? [];
  if (blocks.length === 0) throw refusal(`"${path}" holds no certificate in PEM. Put the certificate and its chain there.`);
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (cause) {
    throw refusal(`The certificate "${path}" is damaged. Get it again from its certificate authority.`, cause);
  }
}

/** The first certificate, which has to be that of the key. */
function requireLeaf(chain: readonly X509Certificate[], key: KeyObject, certPath: string, keyPath: string): X509Certificate {
  const place = chain.findIndex((certificate) => certificate.checkPrivateKey(key));
  if (place === 0) return chain[0]!;
  if (place > 0) {
    const order = `"${certPath}" has its certificates in the wrong order: the one of the key is number ${place + 1}.`;
    throw refusal(`${order} Put it first, and its issuer next.`);
  }
  const remedy = 'Put the key there that the certificate was requested with.';
  throw refusal(`The key "${keyPath}" does not belong to the certificate "${certPath}". ${remedy}`);
}

function expiryWarning(leaf: X509Certificate, daysLeft: number, directory: string): string[] {
  if (daysLeft >= daysLeftMin) return [];
  const renew = `Renew it and keep its key: make cert CERTS=${directory}`;
  const remedy = isSelfSigned(leaf) ? renew : 'Get a new one from its certificate authority.';
  return [`The certificate ${daysLeft < 0 ? 'has expired' : `expires in ${daysLeft} days`}. ${remedy}`];
}

function pairWarnings(chain: readonly X509Certificate[], path: string): string[] {
  const [leaf] = chain;
  const warnings: string[] = [];
  if (leaf !== undefined && chain.length === 1 && !isSelfSigned(leaf)) {
    warnings.push(`"${path}" holds the certificate without its chain, and many clients refuse it. Append the certificates of its issuers.`);
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = leaf?.publicKey ?? {};
  const bits = details?.modulusLength ?? rsaBitsMin;
  if (type === 'rsa' && bits < rsaBitsMin) {
    const problem = `The key of "${path}" is RSA with ${bits} bits, and clients refuse less than ${rsaBitsMin}.`;
    warnings.push(`${problem} Get a certificate with a longer key.`);
  }
  return warnings;
}

function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.issuer === certificate.subject && certificate.verify(certificate.publicKey);
}

/** A key of the service's own user that others can read is refused; one of another user, as in a mounted secret, is reported. */
function accessWarning(path: string, { mode, uid }: Stats): string[] {
  if ((mode & 0o007) === 0) return [];
  const octal = (mode & 0o777).toString(8).padStart(4, '0');
  const problem = `Other users can access the key "${path}" (mode ${octal}). Run: chmod o-rwx ${path}`;
  if (uid === process.geteuid?.()) throw refusal(problem);
  return [problem];
}

function isDer(bytes: Buffer): boolean {
  return bytes[0] === 0x30 && (bytes[1] ?? 0) >= 0x80;
}

function read(path: string, what: string): { readonly bytes: Buffer; readonly stats: Stats } {
  try {
    return { bytes: readFileSync(path), stats: statSync(path) };
  } catch (cause) {
    const code = systemCode(cause);
    if (code === 'ENOENT') throw refusal(`There is no ${what} "${path}". Make a self-signed pair: make cert`, cause);
    const remedy = code === 'EACCES' ? 'Give the service\'s user read access.' : 'Check the file.';
    throw refusal(`The ${what} "${path}" cannot be read (${code ?? messageOf(cause)}). ${remedy}`, cause);
  }
}

function refusal(reason: string, cause?: unknown): RegistrarError {
  return new RegistrarError('cannot-start', `Cannot serve HTTPS. ${reason}`, { cause });
}
