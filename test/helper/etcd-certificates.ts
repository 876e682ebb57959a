/** Certificates as a cluster of etcd needs them, made with openssl: an authority, the members', a client's. */

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly clientCert: string;
  readonly clientKey: string;
}

/** Paths of PEM files in the directory. */
export function makeCertificates(directory: string): Certificates {
  const at = (name: string): string => join(directory, name);
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'pipe', timeout: 20_000 });
  const newKey = (name: string): void => openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-out', at(name));
  newKey('ca-key.pem');
  openssl('req', '-x509', '-new', '-key', at('ca-key.pem'), '-days', '2', '-subj', '/CN=authority', '-out', at('ca.pem'));
  const sign = (name: string, subject: string, extensions: string): void => {
    newKey(`${name}-key.pem`);
    writeFileSync(at(`${name}.ext`), extensions);
    openssl('req', '-new', '-key', at(`${name}-key.pem`), '-subj', subject, '-out', at(`${name}.csr`));
    openssl('x509', '-req', '-in', at(`${name}.csr`), '-CA', at('ca.pem'), '-CAkey', at('ca-key.pem'), '-CAcreateserial', '-days', '2', '-extfile', at(`${name}.ext`), '-out', at(`${name}.pem`));
  };
  // The gateway of a member speaks to the member itself as a client, with the member's own certificate.
  sign('member', '/CN=member', 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n');
  // etcd's gateway takes no client certificate with a common name when users have to prove themselves.
  sign('client', '/O=registrar', 'subjectAltName=DNS:registrar\nextendedKeyUsage=clientAuth\n');
  return { ca: at('ca.pem'), cert: at('member.pem'), key: at('member-key.pem'), clientCert: at('client.pem'), clientKey: at('client-key.pem') };
}
