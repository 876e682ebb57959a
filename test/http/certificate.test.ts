import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { X509Certificate, createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, chmodSync, copyFileSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { connect } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import { readCertificate } from '../../lib/http/certificate.ts';
import { watchCertificate } from '../../lib/http/certificate-watch.ts';
import { HttpServer } from '../../lib/http/server.ts';
import { makeCertificate, temporaryDirectory, until } from '../helper/temporary.ts';

const everyMs = 5;

async function open(t: TestContext) {
  const directory = temporaryDirectory(t);
  const next = temporaryDirectory(t);
  makeCertificate(directory);
  makeCertificate(next);
  const lines: string[] = [];
  /** How much had been said when the files were read, each time. */
  const said: number[] = [];
  const now = (): Date => (said.push(lines.length), new Date());
  const current = readCertificate(directory, now());
  const report = (line: string): void => void lines.push(line);
  const server = await HttpServer.listen({
    at: { host: '127.0.0.1', port: 0 },
    certificate: current,
    connectionsMax: 100,
    handler: (_, response, __, done) => {
      response.end('hello');
      done(true);
    },
    report,
  });
  const watch = watchCertificate({ directory, now, report, current, apply: (found) => server.setCertificate(found), everyMs });
  t.after(async () => {
    watch.close();
    await server.abort();
  });
  const port = Number(new URL(server.url).port);
  const connectTo = async (options: ConnectionOptions = {}): Promise<TLSSocket> => {
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options });
    t.after(() => socket.destroy());
    await once(socket, 'secureConnect');
    return socket;
  };
  const seen = async (): Promise<string> => {
    const socket = await connectTo();
    const { fingerprint256 } = socket.getPeerCertificate();
    socket.destroy();
    return fingerprint256;
  };
  /** As tools do that replace files: under another name first. */
  const put = (name: string): void => {
    copyFileSync(join(next, name), join(directory, `${name}.new`));
    renameSync(join(directory, `${name}.new`), join(directory, name));
  };
  const [old, young] = [current.cert, readCertificate(next, now()).cert].map((pem) => new X509Certificate(pem).fingerprint256);
  return { directory, lines, watch, connectTo, seen, put, old, young, said };
}

test('certificate: a new pair is used for new connections, and those there are go on', async (t) => {
  const { lines, connectTo, seen, put, old, young } = await open(t);
  const socket = await connectTo();
  let text = '';
  socket.on('data', (data) => (text += data));
  const ask = async (count: number): Promise<void> => {
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await until(() => text.split('hello').length - 1 === count, `answer ${count}`);
  };
  await ask(1);
  assert.equal(await seen(), old);
  put('key.pem');
  put('cert.pem');
  await until(async () => (await seen()) === young, 'the new certificate');
  await ask(2);
  assert.equal(socket.getPeerCertificate().fingerprint256, old);
  assert.deepEqual(lines.filter((line) => line.includes('was replaced')).length, 1, lines.join('\n'));
  // What was set for the first one holds for the next.
  await connectTo({ maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256' });
  await assert.rejects(connectTo({ maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES256-SHA384' }));
  assert.equal((await connectTo({ ALPNProtocols: ['h2', 'http/1.1'] })).alpnProtocol, 'http/1.1');
});

test('certificate: half a pair waits for the other half, and is said once', async (t) => {
  const { lines, said, seen, put, old, young } = await open(t);
  const before = said.length;
  put('cert.pem');
  await until(() => said.length >= before + 5, 'five looks');
  // Not at the first: in a moment the other half may be there.
  assert.deepEqual(said.slice(before, before + 5), [0, 0, 1, 1, 1]);
  assert.match(lines[0]!, /does not belong to the certificate .*The certificate in use stays/);
  assert.equal(await seen(), old);
  put('key.pem');
  await until(async () => (await seen()) === young, 'the new certificate');
  assert.equal(lines.length, 2, lines.join('\n'));
});

test('certificate: a broken one, or none, leaves the old one in use, and is said once each', async (t) => {
  const { directory, lines, seen, put, old, young } = await open(t);
  writeFileSync(join(directory, 'cert.pem'), 'rubbish');
  await until(() => lines.length === 1, 'a word');
  rmSync(join(directory, 'key.pem'));
  await until(() => lines.length === 2, 'another');
  assert.match(lines[0]!, /holds no certificate in PEM/);
  assert.match(lines[1]!, /There is no key/);
  assert.equal(await seen(), old);
  put('cert.pem');
  put('key.pem');
  await until(async () => (await seen()) === young, 'the new certificate');
  assert.equal(lines.length, 3, lines.join('\n'));
});

test('certificate: when it is asked for it is read at once, and what came of it is said each time', async (t) => {
  const { lines, watch, seen, put, old, young } = await open(t);
  watch.close();
  watch.reload();
  assert.match(lines.at(-1)!, /is unchanged: it is valid for \d+ days/);
  put('cert.pem');
  for (const count of [2, 3]) {
    watch.reload();
    assert.equal(lines.length, count);
    assert.match(lines.at(-1)!, /does not belong to the certificate/);
  }
  assert.equal(await seen(), old);
  put('key.pem');
  watch.reload();
  assert.match(lines.at(-1)!, /was replaced/);
  assert.equal(await seen(), young);
});

test('certificate: files that are touched and not changed are nothing to speak of', async (t) => {
  const { directory, lines, said } = await open(t);
  const before = said.length;
  for (let n = 1; n < 5; n++) {
    utimesSync(join(directory, 'cert.pem'), n, n);
    await until(() => said.length >= before + n, 'a look');
  }
  assert.deepEqual(lines, []);
});

/** The reason why the files are refused, or the warnings. */
function outcome(directory: string): string {
  try {
    return readCertificate(directory, new Date()).warnings.join('\n');
  } catch (error: any) {
    assert.equal(error.code, 'cannot-start');
    return error.message;
  }
}

test('certificate: what cannot be used is refused with its cause, and never with the advice to overwrite a key', (t) => {
  const directory = temporaryDirectory(t);
  const other = temporaryDirectory(t);
  makeCertificate(directory);
  makeCertificate(other);
  const [key, cert] = ['key.pem', 'cert.pem'].map((name) => readFileSync(join(directory, name)));
  const otherCert = readFileSync(join(other, 'cert.pem'));
  const secret = createPrivateKey(key!);
  const der = (pem: Buffer): Buffer => new X509Certificate(pem).raw;
  const cases: [name: string, key: Buffer | string, cert: Buffer, expected: RegExp][] = [
    ['a key that is encrypted', secret.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' }), cert!, /is encrypted\. Decrypt it: openssl pkey/],
    ['a key in DER', secret.export({ type: 'pkcs8', format: 'der' }), cert!, /key ".*" is DER.*openssl pkey -inform DER/],
    ['a certificate in DER', key!, der(cert!), /certificate ".*" is DER.*openssl x509 -inform DER/],
    ['the certificate as its key', cert!, cert!, /holds no private key, but CERTIFICATE/],
    ['a key that is cut', key!.subarray(0, 60), cert!, /is damaged/],
    ['another key', key!, otherCert, /does not belong to the certificate/],
    ['the wrong order', key!, Buffer.concat([otherCert, cert!]), /wrong order: the one of the key is number 2/],
    ['a certificate that is cut', key!, Buffer.from(cert!.toString().replace(/\n[A-Za-z0-9+/]{20}/, '\n')), /is damaged/],
    ['text', key!, Buffer.from('rubbish'), /holds no certificate in PEM/],
  ];
  for (const [name, keyBytes, certBytes, expected] of cases) {
    writeFileSync(join(directory, 'key.pem'), keyBytes);
    writeFileSync(join(directory, 'cert.pem'), certBytes);
    assert.match(outcome(directory), expected, name);
    assert.doesNotMatch(outcome(directory), /FORCE/, name);
  }
});

test('certificate: a short RSA key, a missing chain, an early end and a key that others can read are reported', (t) => {
  const directory = temporaryDirectory(t);
  const run = (...args: string[]): void => assert.equal(spawnSync('openssl', args, { cwd: directory }).status, 0, args.join(' '));
  const subject = ['-subj', '/CN=localhost', '-days', '5'];
  run('req', '-x509', '-newkey', 'rsa:1024', '-nodes', '-keyout', 'key.pem', '-out', 'cert.pem', ...subject);
  const key = join(directory, 'key.pem');
  chmodSync(key, 0o600);
  // OpenSSL 3 at level 2, as in Node 24, refuses the key by itself.
  assert.match(outcome(directory), /RSA with 1024 bits|TLS does not accept .*too small/i);
  run('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'ca-key.pem', '-out', 'ca.pem', '-subj', '/CN=CA');
  run('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'key.pem', '-out', 'request.pem', '-subj', '/CN=localhost');
  run('x509', '-req', '-in', 'request.pem', '-CA', 'ca.pem', '-CAkey', 'ca-key.pem', '-out', 'cert.pem', '-days', '5');
  assert.match(outcome(directory), /expires in [45] days\. Get a new one from its certificate authority\.[^]*without its chain/);
  chmodSync(key, 0o604);
  assert.match(outcome(directory), /Other users can access the key .*mode 0604.*Run: chmod o-rwx /);
  chmodSync(key, 0o640);
  appendFileSync(join(directory, 'cert.pem'), readFileSync(join(directory, 'ca.pem')));
  assert.doesNotMatch(outcome(directory), /chain|Other users/);
});
