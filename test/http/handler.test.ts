import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../lib/errors.ts';
import { createHandler } from '../../lib/http/handler.ts';
import type { Route } from '../../lib/http/message.ts';
import { asRegistrarError, problem } from '../../lib/http/problem.ts';
import { until } from '../helper/temporary.ts';

async function serve(t: TestContext, table: Readonly<Record<string, Route>>): Promise<{ url: string; reports: string[] }> {
  const reports: string[] = [];
  const routes = Object.entries(table).map(([pattern, route]) => ({ method: 'GET', pattern, action: 'public', route }) as const);
  const gate = {
    visit: () => ({ isOpen: true, client: '', origin: undefined, standings: [] }),
    admit: () => undefined,
    headers: () => undefined,
    principal: () => ({ kind: 'anyone' }) as const,
  };
  const handler = createHandler({ routes, gate, rules: { registration: 'open' }, report: (line) => reports.push(line) });
  const server = http.createServer((request, response) => void handler(request, response, 'none', () => undefined));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, reports };
}

test('handler: of a defect the client gets an id, and the log all of it, cause by cause', async (t) => {
  const { url, reports } = await serve(t, {
    '/bug': () => {
      throw new TypeError('the secret plan', { cause: new Error('deeper', { cause: 'not an error' }) });
    },
    '/damage': () => {
      throw new RegistrarError('corrupt', 'Cannot read "/var/lib/x": line 7', { cause: new RegistrarError('unavailable', 'why') });
    },
  });
  for (const [path, inLog] of [['/bug', /internal: .*TypeError: the secret plan[^]*deeper/], ['/damage', /corrupt: Cannot read .* <- unavailable: why/]] as const) {
    const response = await fetch(url + path);
    assert.equal(response.status, 500);
    const text = await response.text();
    assert.doesNotMatch(text, /secret|plan|TypeError|var|line 7|\.ts/);
    const { request, detail } = JSON.parse(text);
    assert.ok(detail.includes(request));
    const line = reports.pop() ?? '';
    assert.ok(line.includes(request));
    assert.match(line, inLog);
  }
});

test('handler: a stream that fails half-way is cut, so that nobody takes it for the whole', async (t) => {
  const { url, reports } = await serve(t, {
    '/half': () => ({
      status: 200,
      body: (async function* () {
        yield Buffer.from('half');
        await new Promise((resolve) => setTimeout(resolve, 20));
        throw new Error('the disk is gone');
      })(),
    }),
  });
  const response = await fetch(`${url}/half`);
  assert.equal(response.status, 200);
  await assert.rejects(response.text(), /terminated|aborted|closed/);
  assert.match(reports.join(), /while it was answered: internal: .*the disk is gone/);
});

test('handler: a stream goes as fast as its reader, and stops when the reader leaves', async (t) => {
  let given = 0;
  let ended = 0;
  const endless: Route = () => ({
    status: 200,
    body: (async function* () {
      try {
        for (; ; given++) yield Buffer.alloc(100_000);
      } finally {
        ended++;
      }
    })(),
  });
  const { url } = await serve(t, { '/endless': endless });
  const request = http.get(`${url}/endless`);
  request.on('error', () => undefined);
  const [response] = await once(request, 'response');
  response.on('error', () => undefined);
  await once(response, 'readable');
  let before = -1;
  await until(async () => {
    const same = before === given;
    before = given;
    await new Promise((resolve) => setTimeout(resolve, 50));
    return same;
  }, 'the stream to wait for its reader');
  assert.ok(given < 500, `${given} parts were given to a reader that reads nothing`);
  request.destroy();
  await until(() => ended === 1, 'the stream to end');
});

test('handler: the signal of a call is aborted when its client leaves, and not when it was answered', async (t) => {
  const signals: AbortSignal[] = [];
  const { url } = await serve(t, {
    '/waits': async (call) => {
      const { signal } = call;
      assert.equal(call.signal, signal);
      signals.push(signal);
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      throw signal.reason;
    },
    '/quick': ({ signal }) => {
      signals.push(signal);
      return { status: 204 };
    },
  });
  assert.equal((await fetch(`${url}/quick`)).status, 204);
  const controller = new AbortController();
  const asked = fetch(`${url}/waits`, { signal: controller.signal });
  await until(() => signals.length === 2, 'the call');
  controller.abort();
  await assert.rejects(asked);
  await until(() => signals[1]!.aborted, 'the signal');
  assert.equal(signals[0]!.aborted, false);
});

test('problem: every code has a status of its kind, and what is thrown is one', () => {
  const statuses = { malformed: 400, taken: 409, overloaded: 503, 'storage-full': 507, internal: 500 } as const;
  for (const [code, status] of Object.entries(statuses) as [keyof typeof statuses, number][]) {
    const { headers = {}, body, ...reply } = problem(new RegistrarError(code, 'why', { retryAfterSeconds: 3, allow: ['GET'] }), 'id');
    assert.equal(reply.status, status);
    assert.equal(headers['Retry-After'], '3');
    assert.equal(headers.Allow, 'GET');
    assert.equal(JSON.parse(String(body)).type, `urn:registrar:${code}`);
  }
  assert.equal(asRegistrarError('a string').code, 'internal');
  assert.equal(asRegistrarError('a string').cause, 'a string');
});
