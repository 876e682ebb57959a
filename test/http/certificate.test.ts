import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { connect } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import { readCertificate, watchCertificate } from '../../lib/http/certificate.ts';
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
  assert.match(lines[0]!, /was not made for the key .*The certificate in use stays/);
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
  assert.match(lines[1]!, /there is no key/);
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
  assert.match(lines.at(-1)!, /is as it was: it is good for \d+ days/);
  put('cert.pem');
  for (const count of [2, 3]) {
    watch.reload();
    assert.equal(lines.length, count);
    assert.match(lines.at(-1)!, /was not made for the key/);
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
