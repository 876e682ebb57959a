/** What testssl.sh, which knows the holes of TLS by their names, finds here. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { spawnService } from '../helper/service.ts';
import { temporaryDirectory } from '../helper/temporary.ts';
import { trial } from '../helper/trial.ts';

interface Finding {
  readonly id: string;
  readonly severity: string;
  readonly finding: string;
}

/** All of its checks take minutes; these are the protocols. */
const checks = process.env.TLS_CHECKS === 'all' ? ['-p', '-s', '-f', '-S', '-U', '-c'] : ['-p'];
/** Findings that are expected: what openssl here cannot do, and a self-signed certificate for this machine. */
const selfSigned = /^engine_problem|^cert_(?:chain_of_trust|trust|caIssuers|crlDistributionPoints|ocspURL|revocation|validityPeriod|extlifeSpan|signatureAlgorithm)|^DNS_CAArecord|^OCSP_|^certificate_transparency/;

trial(`tls: testssl.sh finds nothing above LOW but that the certificate is self-signed (${checks.join(' ')})`, { needs: ['testssl'] }, async (t) => {
  const service = await spawnService(t);
  const directory = temporaryDirectory(t);
  const file = join(directory, 'found.json');
  const args = ['--quiet', '--color', '0', '--warnings', 'off', '--ip', 'one', '--nodns', 'min', '--jsonfile', file, ...checks, service.url.replace('https://', '')];
  const child = spawn('testssl', args, { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  await once(child, 'close');
  const found: Finding[] = JSON.parse(readFileSync(file, 'utf8'));
  assert.ok(found.some(({ id }) => id === 'TLS1_3') && found.some(({ id }) => id === 'SSLv3'), said);
  const bad = found.filter(({ id, severity }) => !['OK', 'INFO', 'LOW', 'DEBUG'].includes(severity) && !selfSigned.test(id));
  assert.deepEqual(bad.map(({ id, severity, finding }) => `${severity} ${id}: ${finding}`), [], said);
  assert.equal((await service.ask('/user/')).status, 200);
});

trial('tls: a client of TLS 1.2 may not negotiate anew, which costs the service more than the client', async (t) => {
  const { url } = await spawnService(t);
  const socket = connect({ port: Number(new URL(url).port), host: '127.0.0.1', rejectUnauthorized: false, maxVersion: 'TLSv1.2' });
  t.after(() => socket.destroy());
  await once(socket, 'secureConnect');
  const outcome = await new Promise<string>((resolve) => {
    socket.on('error', () => resolve('refused'));
    socket.on('close', () => resolve('closed'));
    if (!socket.renegotiate({ rejectUnauthorized: false }, (error) => resolve(error === null ? 'negotiated' : 'refused'))) resolve('refused');
  });
  assert.notEqual(outcome, 'negotiated');
});
