/**
 * Measures the service against bare Node, and checks its own answers: `make bench`.
 *
 * Every figure is a ratio of two sides that took turns in one run, so that a slow or busy machine is slow
 * for both. Servers and clients are processes of their own. A check that fails ends it with 1, a speed
 * never does. It knows the service from outside only: its flags, its answers, its file.
 */

import { execFile, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { createServer } from 'node:https';
import type { ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { availableParallelism, cpus, release, tmpdir, type } from 'node:os';
import { join, resolve } from 'node:path';
import { connect } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { Worker } from 'node:worker_threads';

const usage = `Usage: make bench ARGS="[flags]"    Measures the service against bare Node, and checks its own answers.

  --rounds 5         turns of each side
  --seconds 4        the length of a turn
  --only get,start   some of: register, get, create-64, start, take-over
  --data /tmp        where the stores are made, and removed at the end: what a write costs depends on the disk
  --certs certs      the directory of cert.pem and key.pem, made by: make cert
  --help

Exit codes: 0 measured, 1 a check failed or nothing could be measured, 2 usage.
`;

const notes = `
Baselines: register, pbkdf2Sync in a thread for each core; get, node:https with the same bytes and cipher; create-64,
one client at a time; start, node:https with the same loader; take-over (kill -9 of the lock's holder until another
process has committed), a create. A bar of sixteen cells is the mark. The clients take their part of the cores, from
both sides alike. What this does not show: a network, a proxy in front, a file larger than memory, another disk.
`;

const cheapKdf = ['--kdf', 'pbkdf2:sha256:1'];
const [readers, creators, usersToReadFrom, takeOversMin] = [32, 64, 1000, 20];
const self = fileURLToPath(import.meta.url);
const isRunnable = self.endsWith('.js') || ('typescript' in process.features && process.features.typescript !== false);
const loader = isRunnable ? [] : ['--import', 'tsx'];
const cores = availableParallelism();

type Flags = ReturnType<typeof parseFlags>;
type Server = Readonly<{ url: string; child: ReturnType<typeof spawn> }>;
type Answer = Readonly<{ status: number; head: string; body: string; cipher: string }>;
type Figure = Readonly<{ value: number; p99Ms?: number }>;
type Turn = (seconds: number) => Promise<Figure>;
type Sides = Readonly<{ unit: '/s' | 'ms'; service: Turn; baseline: Turn; mark?: number; end?: () => Promise<void> }>;
/** A service on a new store, and the logins that it has answered 201 to. */
type Stage = { readonly flags: Flags; readonly data: string; readonly logins: string[]; service: Server };

const measures: Readonly<Record<string, (stage: Stage) => Promise<Sides>>> = {
  register,
  get,
  'create-64': async (stage) => ({ unit: '/s', mark: 5, service: create(stage, creators), baseline: create(stage, 1) }),
  start,
  'take-over': takeOver,
};
const names = Object.keys(measures);

/** As many hashes on both sides: counting those of some seconds would be off by one for each core. */
async function register(stage: Stage): Promise<Sides> {
  const hash = bareHashing();
  const { value } = await hash(2 * cores);
  const count = (seconds: number): number => Math.max(2, Math.round((value * seconds) / cores)) * cores;
  return { unit: '/s', mark: 0.97, service: create(stage, 4 * cores, count), baseline: (seconds) => hash(count(seconds)) };
}

async function get(stage: Stage): Promise<Sides> {
  const { service, logins, flags } = stage;
  await create(stage, creators, () => usersToReadFrom)(0);
  const path = `/user/${logins[usersToReadFrom / 2]}`;
  const answer = await askOnce(service, path);
  check(answer.body.includes(`"login":"${path.slice('/user/'.length)}"`), `get: the answer is ${essence(answer)}`);
  const bare = await startServer(['role:server', flags.certs, JSON.stringify(answer)]);
  const readFrom = ({ url }: Server): Turn => async (seconds) => {
    const byNode = { url, clients: readers, seconds, path, body: answer.body };
    const figure = await (flags.wrk === undefined ? load(byNode) : wrk(url + path, seconds));
    const sample = essence(await askOnce({ url }, path));
    check(sample === essence(answer), `get: ${url} answers\n${sample}\ninstead of\n${essence(answer)}`);
    return figure;
  };
  return { unit: '/s', mark: 0.65, service: readFrom(service), baseline: readFrom(bare), end: () => stop(bare) };
}

async function start({ flags }: Stage): Promise<Sides> {
  const data = newDirectory(flags);
  const answer = { status: 200, head: 'HTTP/1.1 200 OK\r\nContent-Type: application/json', body: '{}\n', cipher: '' };
  const time = (open: () => Promise<Server>): Turn => async () => {
    const from = performance.now();
    const server = await open();
    await askOnce(server, '/user/');
    const value = performance.now() - from;
    await stop(server);
    return { value };
  };
  const bare = ['role:server', flags.certs, JSON.stringify(answer)];
  return { unit: 'ms', service: time(() => startService(flags, data, [])), baseline: time(() => startServer(bare)) };
}

/** Each time the process that wrote last, and so holds the lock, is killed, and another one is asked to write. */
async function takeOver(stage: Stage): Promise<Sides> {
  const lock = join(stage.data, 'users.jsonl.lock', 'lock');
  let connection = await dial(stage.service);
  const put = async (from = performance.now()): Promise<Figure> => {
    const login = `user-${stage.logins.length}`;
    const { status } = await connection.ask('PUT', `/user/${login}`);
    if (status !== 201) throw new Error(`take-over: PUT was answered ${status}`);
    stage.logins.push(login);
    return { value: performance.now() - from };
  };
  await put();
  const service: Turn = async () => {
    const other = await startService(stage.flags, stage.data, cheapKdf);
    connection.close();
    connection = await dial(other);
    for (let n = 0; n < 50; n++) await connection.ask('GET', `/user/${stage.logins[0]}`);
    const [victim, from] = [readlinkSync(lock), performance.now()];
    stage.service.child.kill('SIGKILL');
    stage.service = other;
    const figure = await put(from);
    check(readlinkSync(lock) !== victim, 'take-over: the lock is still that of the process that was killed');
    return figure;
  };
  return { unit: 'ms', service, baseline: () => put() };
}

/** A B A B …, so that what changes on the machine meanwhile changes for both. The first turns are to warm up. */
async function measure(name: string, flags: Flags): Promise<string[]> {
  const data = newDirectory(flags);
  const stage = { flags, data, logins: [], service: await startService(flags, data, name === 'register' ? [] : cheapKdf) };
  const sides = await measures[name]!(stage);
  const pairs: [service: Figure, baseline: Figure][] = [];
  const rounds = name === 'take-over' ? Math.max(takeOversMin, flags.rounds) : flags.rounds;
  for (let round = 0; round <= rounds; round++) {
    tell(`${name}: round ${round} of ${rounds}`);
    const seconds = round === 0 ? 1 : flags.seconds;
    pairs.push([await sides.service(seconds), await sides.baseline(seconds)]);
  }
  await Promise.all([stop(stage.service), sides.end?.()]);
  checkStore(name, stage);
  return row(name, sides, pairs.slice(1));
}

let linesChecked = 0;
const failures: string[] = [];
function check(isRight: boolean, what: string): void {
  if (!isRight) failures.push(what);
}

/** Every 201 is one line, and there is no other line. The service has ended, so the file is at rest. */
function checkStore(name: string, { data, logins, service }: Stage): void {
  const lines = readFileSync(join(data, 'users.jsonl'), 'utf8').trimEnd().split('\n').slice(1);
  const stored = new Set(lines.map((line) => (JSON.parse(line) as { readonly login: unknown }).login));
  const isWhole = lines.length === logins.length && stored.size === lines.length && logins.every((login) => stored.has(login));
  check(isWhole, `${name}: ${logins.length} answers 201, but ${lines.length} lines with ${stored.size} different logins`);
  check(service.child.exitCode === 0, `${name}: the service ended with ${service.child.exitCode}, not with 0`);
  linesChecked += lines.length;
}

/** All of an answer but the date and the request's id. */
function essence({ cipher, head, body }: Answer): string {
  return [cipher, head.replace(/^((Date|X-Request-Id): ).*$/gim, '$1…'), body].join('\n');
}

/** Aborted at the end, whatever the end is: no child outlives it. */
const ending = new AbortController();
const directories: string[] = [];
/** The settings of whoever runs this are not those of what is measured. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('REGISTRAR_')));
const execute = promisify(execFile);
const childOptions = { env, maxBuffer: Infinity, signal: ending.signal, killSignal: 'SIGKILL' } as const;

function newDirectory({ data }: Flags): string {
  const directory = mkdtempSync(join(data, 'registrar-bench-'));
  directories.push(directory);
  return directory;
}

function startService({ certs }: Flags, data: string, flags: readonly string[]): Promise<Server> {
  const own = ['serve', '--port', '0', '--data', data, '--certs', certs];
  return startServer([...own, ...flags], self.replace(/bench(?=\.[jt]s$)/, 'registrar'));
}

async function startServer(args: readonly string[], file = self): Promise<Server> {
  const child = spawn(process.execPath, [...loader, file, ...args], childOptions);
  let [said, complained] = ['', ''];
  child.stderr.on('data', (chunk: Buffer) => (complained += chunk));
  const url = await new Promise<string>((resolve, reject) => {
    child.once('close', () => reject(new Error(`a server did not start: ${complained.trim()}`)));
    child.stdout.on('data', (chunk: Buffer) => {
      const found = /listens on (https:\S+)\n/.exec((said += chunk))?.[1];
      if (found !== undefined) resolve(found);
    });
  });
  return { url, child };
}

async function stop({ child }: Server): Promise<void> {
  if (child.kill('SIGTERM')) await once(child, 'exit');
}

function bareHashing(): (count: number) => Promise<Figure> {
  const left = new Int32Array(new SharedArrayBuffer(4));
  // Not a file, since a worker on Node 20 has no loader for types.
  const program = `const { parentPort, workerData } = require('node:worker_threads');
    const { pbkdf2Sync, randomBytes } = require('node:crypto');
    const hash = () => pbkdf2Sync('twenty-four characters..', randomBytes(16).toString('hex'), 600_000, 32, 'sha256');
    parentPort.on('message', () => {
      while (Atomics.sub(workerData, 0, 1) > 0) hash();
      parentPort.postMessage('done');
    });`;
  const workers = Array.from({ length: cores }, () => new Worker(program, { eval: true, workerData: left, execArgv: [] }));
  for (const worker of workers) worker.unref();
  return async (count) => {
    left[0] = count;
    const from = performance.now();
    for (const worker of workers) worker.postMessage('go');
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    return { value: (count / (performance.now() - from)) * 1000 };
  };
}

async function wrk(url: string, seconds: number): Promise<Figure> {
  const { stdout: said } = await execute('wrk', ['-t1', `-c${readers}`, `-d${seconds}s`, '--latency', url], childOptions);
  const [, p99, unit, perSecond] = /^\s+99%\s+([\d.]+)(us|ms|s)$[^]*^Requests\/sec:\s+([\d.]+)/m.exec(said) ?? [];
  check(perSecond !== undefined && !/Non-2xx|Socket errors/.test(said), `get: wrk says\n${said}`);
  return { value: Number(perSecond), p99Ms: Number(p99) * (unit === 's' ? 1000 : unit === 'us' ? 0.001 : 1) };
}

/** With `body`, `path` has to answer it; without, it is what the paths of users to make begin with. */
type Load = Readonly<{ url: string; clients: number; path: string; body?: string; count?: number; seconds?: number }>;

function create({ service, logins }: Stage, clients: number, count?: (seconds: number) => number): Turn {
  return async (seconds) => {
    const first = logins.length;
    const until = count === undefined ? { seconds } : { count: count(seconds) };
    const { asked, ...figure } = await load({ url: service.url, clients, ...until, path: `/user/user-${first}-` });
    for (let n = 0; n < asked; n++) logins.push(`user-${first}-${n}`);
    return figure;
  };
}

/** Puts a load on a server from a process of its own. */
async function load(job: Load): Promise<Figure & { readonly asked: number }> {
  const { stdout } = await execute(process.execPath, [...loader, self, 'role:load', JSON.stringify(job)], childOptions);
  const { wrong, ...loaded } = JSON.parse(stdout) as Awaited<ReturnType<typeof runLoad>>;
  check(wrong.length === 0, `${wrong.length} answers were wrong, for one: ${wrong[0]}`);
  return loaded;
}

async function runLoad({ url, clients, path, body, count = Infinity, seconds = Infinity }: Load) {
  const [took, wrong]: [number[], string[]] = [[], []];
  const connections = await Promise.all(Array.from({ length: clients }, () => dial({ url })));
  let asked = 0;
  const from = performance.now();
  const work = async (connection: Awaited<ReturnType<typeof dial>>): Promise<void> => {
    while (asked < count && performance.now() - from < seconds * 1000) {
      const sent = performance.now();
      const answer = await (body === undefined ? connection.ask('PUT', `${path}${asked++}`) : connection.ask('GET', path));
      took.push(performance.now() - sent);
      const isRight = body === undefined ? answer.status === 201 : answer.status === 200 && answer.body === body;
      if (!isRight) wrong.push(`${answer.status} ${answer.body}`);
      // It allows a number of requests on a connection.
      if (answer.head.includes('\r\nConnection: close')) return work(await dial({ url }));
    }
    connection.close();
  };
  await Promise.all(connections.map(work));
  const value = ((took.length - wrong.length) / (performance.now() - from)) * 1000;
  return { value, p99Ms: took.sort((a, b) => a - b)[Math.floor(took.length * 0.99)] ?? 0, asked, wrong };
}

/** One request at a time, as it stands on the wire: node:https would take several times as much of the servers' cores. */
async function dial({ url }: Pick<Server, 'url'>) {
  const { hostname, port } = new URL(url);
  // The certificate is self-signed, and there is nothing to protect.
  const socket = connect({ host: hostname, port: Number(port), ALPNProtocols: ['http/1.1'], rejectUnauthorized: false });
  socket.setEncoding('latin1').setNoDelay();
  await once(socket, 'secureConnect');
  // Whoever waits for an answer learns of it below; nobody waits for that of a server that was killed.
  socket.on('error', () => undefined);
  const chunks: AsyncIterator<string> = socket[Symbol.asyncIterator]();
  const ask = async (method: 'GET' | 'PUT', path: string): Promise<Answer> => {
    const user = JSON.stringify({ password: randomBytes(18).toString('base64url') });
    const rest = method === 'GET' ? '\r\n' : `Content-Type: application/json\r\nContent-Length: ${user.length}\r\n\r\n${user}`;
    socket.write(`${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${rest}`);
    for (let received = ''; ; ) {
      const { value, done } = await chunks.next();
      if (done === true) throw new Error(`${url} closed the connection instead of answering`);
      const [head = '', body] = (received += value).split('\r\n\r\n', 2);
      if (body === undefined || body.length < Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0)) continue;
      return { status: Number(head.slice(9, 12)), head, body, cipher: socket.getCipher().name };
    }
  };
  return { ask, close: () => void socket.destroy() };
}

async function askOnce(server: Pick<Server, 'url'>, path: string): Promise<Answer> {
  const { ask, close } = await dial(server);
  const answer = await ask('GET', path).finally(close);
  check(answer.status === 200, `${path} was answered ${answer.status}`);
  return answer;
}

/** Answers everything with one answer that the service gave; what Node adds by itself it adds here too. */
function runBare(certs: string, { status, head, body, cipher }: Answer): void {
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

function tell(progress: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${progress}`);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return ((sorted.at((sorted.length - 1) / 2) ?? NaN) + (sorted.at(sorted.length / 2) ?? NaN)) / 2;
}

function describe(figures: readonly Figure[], unit: Sides['unit']): string {
  const round = (value: number): string => value.toLocaleString('en', { maximumFractionDigits: value < 100 ? 1 : 0 });
  const values = figures.map(({ value }) => value);
  const p99 = figures.flatMap(({ p99Ms }) => p99Ms ?? []);
  const rest = unit === 'ms' ? `, max ${round(Math.max(...values))}` : p99.length > 0 ? `, p99 ${round(median(p99))} ms` : '';
  return `${round(median(values))} ${unit}${rest}`;
}

function row(name: string, { unit, mark }: Sides, pairs: readonly [Figure, Figure][]): string[] {
  const ratios = pairs.map(([service, baseline]) => service.value / baseline.value);
  const ratio = median(ratios);
  const spread = `${Math.min(...ratios).toFixed(2)}..${Math.max(...ratios).toFixed(2)}`;
  const met = mark === undefined ? ['-', '-'] : [`>= ${mark}`, ratio >= mark ? 'yes' : 'no'];
  if (mark !== undefined && process.stdout.isTTY) {
    const bar = '█'.repeat(Math.round(Math.min(ratio / mark, 1.5) * 16));
    met.push((process.env.NO_COLOR ?? '') === '' ? `\x1b[${ratio >= mark ? 32 : 33}m${bar}\x1b[0m` : bar);
  }
  const [service, baseline] = [describe(pairs.map(([of]) => of), unit), describe(pairs.map(([, of]) => of), unit)];
  return [name, service, baseline, ratio.toFixed(3), spread, ...met];
}

function parseFlags(args: readonly string[]) {
  const flag = (value: string) => ({ type: 'string', default: value }) as const;
  const flags = { rounds: flag('5'), seconds: flag('4'), only: flag(names.join()), data: flag(tmpdir()), certs: flag('certs') };
  const options = { ...flags, help: { type: 'boolean' } } as const;
  const { rounds, seconds, only, data, certs, help } = parseArgs({ args: [...args], options }).values;
  const isSound = /^[1-9]\d{0,3} [1-9]\d{0,3}$/.test(`${rounds} ${seconds}`) && only.split(',').every((of) => names.includes(of));
  if (!isSound) throw new RangeError(`--only takes some of ${names.join()}, --rounds and --seconds take 1 to 9999`);
  const wrk = /^wrk \D*([\d.]+)/.exec(spawnSync('wrk', ['-v'], { encoding: 'utf8' }).stdout ?? '')?.[1];
  return { help, only, wrk, rounds: Number(rounds), seconds: Number(seconds), data: resolve(data), certs: resolve(certs) };
}

async function bench(args: readonly string[]): Promise<void> {
  const flags = parseFlags(args);
  exitCode = 1;
  if (flags.help === true) return void process.stdout.write(usage);
  process.on('exit', () => {
    ending.abort();
    for (const path of directories) rmSync(path, { recursive: true, force: true, maxRetries: 5 });
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));
  process.stdout.write(`${cpus()[0]?.model ?? 'unknown processor'}, ${cores} cores; ${type()} ${release()}
Node ${process.version}${loader.length > 0 ? ' with tsx' : ''}; ${flags.wrk === undefined ? 'no wrk' : `wrk ${flags.wrk}`}
${new Date().toISOString()}; stores in ${flags.data}; ${flags.rounds} rounds of ${flags.seconds} s on each side\n\n`);
  const rows = [['what', 'service', 'baseline', 'ratio', 'spread', 'mark', 'met?']];
  for (const name of flags.only.split(',')) rows.push(await measure(name, flags));
  tell('');
  const widths = [11, 27, 27, 8, 14, 9, 6];
  for (const cells of rows) process.stdout.write(`${cells.map((cell, n) => cell.padEnd(widths[n] ?? 0)).join('').trimEnd()}\n`);
  if (failures.length > 0) throw new Error(`checks failed:\n${failures.join('\n')}`);
  process.stdout.write(`\nAll checks hold; ${linesChecked} answers 201 are ${linesChecked} lines, each login once.\n${notes}`);
}

let exitCode = 2;
try {
  const [role, first = '', second = ''] = process.argv.slice(2);
  if (role === 'role:server') runBare(first, JSON.parse(second) as Answer);
  else if (role === 'role:load') process.stdout.write(JSON.stringify(await runLoad(JSON.parse(first) as Load)));
  else await bench(process.argv.slice(2));
} catch (error) {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`bench: ${exitCode === 2 ? message.split('. ')[0] : message}\n`);
  process.exit(exitCode);
}
