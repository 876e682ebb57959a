/** Connections that stall, in every way there is, and more of them than are let in: others are served meanwhile. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { connect as connectPlain } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import { HttpServer } from '../../lib/http/server.ts';
import { fill } from '../helper/load.ts';
import type { Job, Loaded } from '../helper/load.ts';
import { spawnService } from '../helper/service.ts';
import { runScript, temporaryDirectory, until } from '../helper/temporary.ts';

const connections = Number(process.env.CONNECTIONS ?? 200);
/** So that the answer does not fit into what the kernel keeps for the two of them. */
const users = 150_000;
const isTrial = process.env.CONNECTIONS !== undefined;
/** On a machine that does this and nothing else. */
const closedWithinMs = isTrial ? 15_000 : 40_000;

function open(port: number, isSecure: boolean): Promise<Socket> {
  const socket = isSecure ? connect({ port, host: '127.0.0.1', rejectUnauthorized: false }) : connectPlain(port, '127.0.0.1');
  socket.on('error', () => undefined);
  return once(socket, isSecure ? 'secureConnect' : 'connect').then(() => socket);
}

const host = 'Host: localhost\r\n';
const ways: readonly [name: string, isSecure: boolean, text: string][] = [
  ['no handshake', false, ''],
  ['half of the headers', true, `GET /user/user-1 HTTP/1.1\r\n${host}X: `],
  ['half of a body', true, `POST /user/ HTTP/1.1\r\n${host}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"login":`],
  ['an answer that is not read', true, `GET /user/ HTTP/1.1\r\n${host}Accept: application/x-ndjson\r\n\r\n`],
];

test(`stall: ${connections} connections that stall are closed, and others are served meanwhile`, { skip: process.platform !== 'linux' && 'it reads /proc' }, async (t) => {
  const data = temporaryDirectory(t);
  fill(join(data, 'users.jsonl'), users, () => undefined);
  const service = await spawnService(t, { data });
  const port = Number(new URL(service.url).port);
  const openFiles = (): number => readdirSync(`/proc/${service.child.pid}/fd`).length;
  const residentMb = (): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${service.child.pid}/status`, 'latin1'))?.[1]) / 1024;
  const others = (seconds: number): Promise<Loaded> =>
    runScript('bin/bench.ts', 'role:load', JSON.stringify({ url: service.url, clients: 4, seconds, steps: [{ method: 'GET', path: '/user/user-', status: 200, range: [1, users], isRandom: true, thinkMs: 10 }] } satisfies Job));
  const alone = await others(3);
  assert.deepEqual(alone.wrong, []);
  const [filesBefore, mbBefore] = [openFiles(), residentMb()];

  const sockets: Socket[] = [];
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  const meanwhile = others(18);
  const counts: number[] = ways.map(() => 0);
  let last = performance.now();
  for (let n = 0; n < connections; n += 40) {
    await Promise.all(Array.from({ length: Math.min(40, connections - n) }, async (_, k) => {
      const way = (n + k) % ways.length;
      const [, isSecure, text] = ways[way]!;
      const socket = await open(port, isSecure).catch(() => undefined);
      if (socket === undefined) return;
      // Whoever does not read learns of nothing: so it is the service's side that is counted.
      socket.pause();
      if (text !== '') socket.write(text);
      sockets.push(socket);
      counts[way]!++;
    }));
    last = performance.now();
  }
  const [most, mb] = [openFiles(), residentMb()];
  await until(() => openFiles() <= filesBefore + 8, 'the stalled connections to be closed', 60_000);
  const tookMs = performance.now() - last;
  const { p99Ms, value, wrong } = await meanwhile;
  const told = ways.map(([name], way) => `${counts[way]} with ${name}`).join(', ');
  console.error(`# ${told}: the last was closed ${(tookMs / 1000).toFixed(1)} s after it had begun; at most ${most} open files, ${(mb - mbBefore).toFixed(0)} MB more
# others: ${value.toFixed(0)} GETs a second, p99 ${p99Ms.toFixed(1)} ms; alone ${alone.value.toFixed(0)}, p99 ${alone.p99Ms.toFixed(1)} ms: ratio ${(p99Ms / alone.p99Ms).toFixed(2)}`);
  assert.deepEqual(wrong, []);
  assert.ok(tookMs < closedWithinMs, `${tookMs} ms`);
  assert.ok(counts.reduce((sum, count) => sum + count, 0) === connections);
  // Loose: the machine does other things too.
  if (!isTrial) assert.ok(p99Ms < Math.max(20 * alone.p99Ms, 100), `p99 ${p99Ms} ms, alone ${alone.p99Ms} ms`);
  assert.equal((await service.ask('/user/user-1')).status, 200);
});

test('stall: beyond the count that is let in a connection is refused, those that ask go on, and idle ones make room', async (t) => {
  const answer = (response: { writeHead: (status: number, headers: Record<string, string>) => unknown; end: (text: string) => unknown }): void => {
    response.writeHead(200, { 'Content-Length': '2' });
    response.end('ok');
  };
  const held: (() => void)[] = [];
  const server = await HttpServer.listen({
    at: { host: '127.0.0.1', port: 0 },
    certificate: undefined,
    connectionsMax: 10,
    handler: (request, response, _expectation, done) => {
      if (request.url === '/held') held.push(() => { done(true); answer(response); });
      else { done(true); answer(response); }
    },
    report: () => undefined,
  });
  t.after(() => server.abort());
  const port = Number(new URL(server.url).port);
  const ask = async (path: string, socket?: Socket): Promise<{ socket: Socket; text: () => string }> => {
    const used = socket ?? (await open(port, false));
    let text = '';
    used.on('data', (chunk) => (text += chunk));
    used.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
    return { socket: used, text: () => text };
  };
  // Five that wait for their answers, five that are kept idle.
  const asking = await Promise.all(Array.from({ length: 5 }, () => ask('/held')));
  await until(() => held.length === 5, 'the five to be asked');
  const idle = await Promise.all(Array.from({ length: 5 }, () => ask('/')));
  await until(() => idle.every(({ text }) => text().endsWith('ok')), 'the idle ones to be answered');
  const refused = await open(port, false);
  await once(refused, 'close');
  await until(() => idle.every(({ socket }) => socket.destroyed), 'the idle ones to be closed');
  const next = await ask('/');
  await until(() => next.text().endsWith('ok'), 'the next one to be answered');
  for (const give of held) give();
  await until(() => asking.every(({ text }) => text().endsWith('ok')), 'those that were asked before to be answered');
  await sleep(0);
  for (const { socket } of [...asking, next]) socket.destroy();
});
