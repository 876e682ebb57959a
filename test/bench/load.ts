/**
 * What `test/bench/bench.ts` sets side by side with the service, and what it asks it with: a client that writes a request
 * as it stands on the wire, bare Node servers and hashers, and a file of as many users as are wanted.
 */

import type { ChildProcess } from 'node:child_process';
import { pbkdf2Sync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:https';
import type { ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import { Worker } from 'node:worker_threads';
import { encodeHeader, encodeUser } from '../../lib/store/file/record.ts';

export type Answer = Readonly<{ status: number; head: string; body: string; cipher: string }>;
export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** `count` requests, or as many as the time takes: each for `path` with a number behind it. */
export type Step = Readonly<{
  method: Method;
  path: string;
  status: number;
  count?: number;
  /** From and to, both included, round and round or at random. Without it the numbers of a job go up. */
  range?: readonly [number, number];
  isRandom?: boolean;
  /** No number. */
  isFixed?: boolean;
  /** What the answer has to be, with the number for #. */
  answer?: string;
  /** What is sent, instead of a new password; # stands for the number. */
  body?: string;
  /** One more header, as it stands on the wire. */
  headers?: string;
  /** Done, but not measured. */
  isAside?: boolean;
  /** How long each client waits between two requests. */
  thinkMs?: number;
}>;

/** All steps in turn, again and again, for so long as what is measured takes `seconds`; once where that is missing. */
export type Job = Readonly<{ url: string; clients: number; seconds?: number; steps: readonly Step[] }>;
export type Loaded = Readonly<{ value: number; p99Ms: number; cpuUs?: number; done: Readonly<Record<Method, number>>; wrong: readonly string[] }>;

export async function runLoad({ url, clients, seconds, steps }: Job): Promise<Loaded> {
  const [took, wrong]: [number[], string[]] = [[], []];
  const done = { GET: 0, POST: 0, PUT: 0, PATCH: 0, DELETE: 0 };
  const msMax = (seconds ?? Infinity) * 1000;
  const connections = await Promise.all(Array.from({ length: clients }, () => dial({ url })));
  let [measuredMs, measured, base] = [0, 0, 0];
  do {
    let asked = 0;
    for (const step of steps) {
      const { method, path, status, count = Infinity, isRandom, isFixed, answer, body, headers, isAside, thinkMs } = step;
      const [low, high] = step.range ?? [base, Infinity];
      const size = high - low + 1;
      asked = 0;
      const from = performance.now();
      const work = async (client: number): Promise<void> => {
        while (asked < count && (count < Infinity || performance.now() - from < msMax)) {
          const n = low + (isRandom === true ? Math.floor(Math.random() * size) : asked % size);
          asked++;
          const sent = performance.now();
          const named = isFixed === true ? path : `${path}${n}`;
          const got = await connections[client]!.ask(method, named, body?.replaceAll('#', String(n)), headers);
          if (isAside !== true) took.push(performance.now() - sent);
          const isRight = got.status === status && (answer === undefined || got.body === answer.replaceAll('#', String(n)));
          if (isRight) done[method]++;
          else wrong.push(`${method} ${named}: ${got.status} ${got.body}`);
          // It allows a number of requests on a connection.
          if (got.head.includes('\r\nConnection: close')) connections[client] = await dial({ url });
          if (thinkMs !== undefined) await sleep(thinkMs);
        }
      };
      const before = took.length;
      await Promise.all(connections.map((_, client) => work(client)));
      if (isAside === true) continue;
      measuredMs += performance.now() - from;
      measured += took.length - before;
    }
    base += asked;
  } while (seconds !== undefined && measuredMs < msMax && wrong.length === 0);
  for (const { close } of connections) close();
  took.sort((a, b) => a - b);
  return { value: ((measured - wrong.length) / measuredMs) * 1000, p99Ms: took[Math.floor(took.length * 0.99)] ?? 0, done, wrong };
}

/** One request at a time, as it stands on the wire: node:https would take several times as much of the servers' cores. */
export async function dial({ url }: { readonly url: string }) {
  const { hostname, port } = new URL(url);
  // The certificate is self-signed, and there is nothing to protect.
  const socket = connect({ host: hostname, port: Number(port), ALPNProtocols: ['http/1.1'], rejectUnauthorized: false });
  socket.setEncoding('latin1').setNoDelay();
  await once(socket, 'secureConnect');
  // A request in progress fails below; no request waits for a server that was killed.
  socket.on('error', () => undefined);
  const chunks: AsyncIterator<string> = socket[Symbol.asyncIterator]();
  const ask = async (method: Method, path: string, body?: string, headers?: string): Promise<Answer> => {
    const sent = body ?? JSON.stringify({ password: randomBytes(18).toString('base64url') });
    const isBare = method === 'GET' || method === 'DELETE';
    const rest = isBare ? '\r\n' : `Content-Type: application/json\r\nContent-Length: ${sent.length}\r\n\r\n${sent}`;
    socket.write(`${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${headers === undefined ? '' : `${headers}\r\n`}${rest}`);
    for (let received = ''; ; ) {
      const { value, done } = await chunks.next();
      if (done === true) throw new Error(`${url} closed the connection instead of answering`);
      const [head = '', got] = (received += value).split('\r\n\r\n', 2);
      if (got === undefined || got.length < Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0)) continue;
      return { status: Number(head.slice(9, 12)), head, body: got, cipher: socket.getCipher().name };
    }
  };
  return { ask, close: () => void socket.destroy() };
}

/** Throws unless the answer is 200. */
export async function askOnce(server: { readonly url: string }, path: string): Promise<Answer> {
  const { ask, close } = await dial(server);
  const answer = await ask('GET', path).finally(close);
  if (answer.status !== 200) throw new Error(`${path} was answered ${answer.status} ${answer.body}`);
  return answer;
}

/** All of an answer but the date and the request's id. */
export function essenceOf({ cipher, head, body }: Answer): string {
  return [cipher, head.replace(/^((Date|X-Request-Id): ).*$/gim, '$1…'), body].join('\n');
}

/** What a process prints where `pattern` has its brackets, when it does. */
export function said({ stdout, stderr }: ChildProcess, pattern: RegExp): Promise<string> {
  let [text, complaint] = ['', ''];
  stderr?.on('data', (chunk) => (complaint += chunk));
  return new Promise((resolve, reject) => {
    stdout?.once('close', () => setImmediate(() => reject(new Error(`a server ended early: ${complaint.trim()}`))));
    const look = (chunk: Buffer): void => {
      const found = pattern.exec((text += chunk))?.[1];
      if (found === undefined) return;
      // What follows is read and dropped: a log, which may be long.
      stdout?.off('data', look).resume();
      resolve(found);
    };
    stdout?.on('data', look);
  });
}

/** Reads all users and drops them. @returns the bytes of the answer, and how long it took. */
export async function drainStream({ url }: { readonly url: string }, path: string): Promise<{ bytes: number; lines: number; ms: number }> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), ALPNProtocols: ['http/1.1'], rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const from = performance.now();
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\nConnection: close\r\n\r\n`);
  let [bytes, lines, last] = [0, 0, 0];
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (last === 0x7d && chunk[0] === 0x0a) lines++;
    last = chunk.at(-1) ?? 0;
    for (let at = chunk.indexOf('}\n'); at >= 0; at = chunk.indexOf('}\n', at + 2)) lines++;
  }
  return { bytes, lines, ms: performance.now() - from };
}

/** Lets wrk ask for random users, whose requests are made before it begins: making them would be a load of its own. */
export function wrkScript({ path, range, headers = '' }: Step): string {
  const number = range === undefined ? "''" : `math.random(${range.join()})`;
  const [name, value] = headers.split(': ');
  const fields = value === undefined ? '' : `['${name}'] = '${value}'`;
  return `local all, n = {}, 0
init = function() for k = 1, 20000 do all[k] = wrk.format('GET', '${path}' .. ${number}, {${fields}}) end end
request = function() n = n % #all + 1; return all[n] end\n`;
}

/** What wrk has printed; nothing where an answer was no 200. */
export function wrkFigure(printed: string): { value: number; p99Ms: number } {
  const [, p99, unit, perSecond] = /^\s+99%\s+([\d.]+)(us|ms|s)$[^]*^Requests\/sec:\s+([\d.]+)/m.exec(printed) ?? [];
  const value = /Non-2xx|Socket errors/.test(printed) ? 0 : Number(perSecond ?? 0);
  return { value, p99Ms: Number(p99) * (unit === 's' ? 1000 : unit === 'us' ? 0.001 : 1) };
}

/** Answers everything with one answer that the service gave; what Node adds by itself it adds here too. */
export function runBare(certs: string, { status, head, body, cipher }: Answer): void {
  const fields = head.split('\r\n').slice(1).map((line) => /^(.*?): (.*)$/.exec(line)?.slice(1) ?? []);
  const headers = Object.fromEntries(fields.filter(([name = '']) => !/^(?:date|connection|keep-alive)$/i.test(name)));
  const [, timeout = '5', requestsMax = '0'] = /^keep-alive: timeout=(\d+)(?:, max=(\d+))?/im.exec(head) ?? [];
  const options: ServerOptions = { keepAliveTimeout: Number(timeout) * 1000, minVersion: 'TLSv1.2', ALPNProtocols: ['http/1.1'] };
  for (const name of ['cert', 'key'] as const) options[name] = readFileSync(join(certs, `${name}.pem`));
  if (cipher !== '') options.ciphers = cipher;
  const server = createServer(options, (_request, response) => void response.writeHead(status, headers).end(body));
  server.maxRequestsPerSocket = Number(requestsMax);
  server.listen(0, '127.0.0.1', () => {
    process.stdout.write(`Bare Node listens on https://127.0.0.1:${(server.address() as AddressInfo).port}\n`);
  });
}

/** @returns a function that makes so many hashes on as many threads, and resolves with the hashes per second. */
export function bareHashing(threads: number): (count: number) => Promise<number> {
  const left = new Int32Array(new SharedArrayBuffer(4));
  // Not a file, since a worker on Node 20 has no loader for types.
  const program = `const { parentPort, workerData } = require('node:worker_threads');
    const { pbkdf2Sync, randomBytes } = require('node:crypto');
    const hash = () => pbkdf2Sync('twenty-four characters..', randomBytes(16).toString('hex'), 600_000, 32, 'sha256');
    parentPort.on('message', () => {
      while (Atomics.sub(workerData, 0, 1) > 0) hash();
      parentPort.postMessage('done');
    });`;
  const workers = Array.from({ length: threads }, () => new Worker(program, { eval: true, workerData: left, execArgv: [] }));
  for (const worker of workers) worker.unref();
  return async (count) => {
    left[0] = count;
    const from = performance.now();
    for (const worker of workers) worker.postMessage('go');
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    return (count / (performance.now() - from)) * 1000;
  };
}

/** Of every user of `fill`. */
export const filledPassword = 'correct horse battery';

const registered = '2026-11-22T15:00:00.000Z';

/** What the service has to answer for a user of `fill`; # is the user's number. */
export const filledAnswer = `{"id":#,"login":"user-#","registered":"${registered}","version":1}\n`;

export function syncFile(path: string): void {
  const fd = openSync(path, 'r+');
  fsyncSync(fd);
  closeSync(fd);
}

/** How many are in a users' file at its end, and how often their passwords were changed. The file is at rest. */
export function livingUsers(path: string): { users: number; changes: number } {
  const bytes = readFileSync(path);
  const living = new Map<string, number>();
  for (let at = bytes.indexOf(0x0a) + 1; at < bytes.length; ) {
    const end = bytes.indexOf(0x0a, at);
    const { login, version, deleted } = JSON.parse(bytes.toString('utf8', at, end)) as Record<string, unknown>;
    if (deleted !== undefined) living.delete(String(login));
    else living.set(String(login), Number(version) - 1);
    at = end + 1;
  }
  return { users: living.size, changes: [...living.values()].reduce((sum, changed) => sum + changed, 0) };
}

/** A users' file as compaction leaves it, each line a write of its own: the user `user-7` has the id 7. */
export function fill(path: string, users: number, progress: (done: number) => void): void {
  const fd = openSync(path, 'wx', 0o600);
  const salt = '0123456789abcdef'.repeat(2);
  const password = `${salt}$${pbkdf2Sync(filledPassword, salt, 600_000, 32, 'sha256').toString('hex')}`;
  const seed = randomBytes(4).readUInt32LE();
  let offset = 0;
  let lines: Buffer[] = [];
  const flush = (): void => {
    // Synchronous, and so never short.
    writeSync(fd, Buffer.concat(lines));
    lines = [];
  };
  const add = (line: Buffer): void => {
    lines.push(line);
    offset += line.length;
  };
  add(encodeHeader({ version: 1, created: registered, nextId: 1, seed }));
  for (let id = 1; id <= users; id++) {
    add(encodeUser({ id, login: `user-${id}`, registered, version: 1, kdf: 'pbkdf2:sha256:600000', password }, offset, seed));
    if (id % 20_000 !== 0) continue;
    flush();
    progress(id);
  }
  flush();
  closeSync(fd);
}
