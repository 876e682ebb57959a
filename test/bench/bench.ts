/**
 * Measures the service against bare Node and against itself, and checks its own answers: `make bench`.
 *
 * Every figure has two sides that took turns in one run, so that a slow or busy machine is slow for both.
 * Servers and clients are processes of their own. A check that fails ends it with 1, a speed never does. It knows
 * the service from outside only: its flags, its answers, its file.
 */

import { execFile, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { constants, copyFileSync, existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, tmpdir, type } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { encodeCursor } from '../../lib/store/cursor.ts';
import { etcdMeasures } from './etcd-load.ts';
import { installFastify, runFastify } from './fastify.ts';
import { row } from './figures.ts';
import type { Figure, Sides, Turn } from './figures.ts';
import { askOnce, bareHashing, dial, drainStream, essenceOf, fill, filledAnswer, filledPassword } from './load.ts';
import { livingUsers, runBare, runLoad, said, syncFile, wrkFigure, wrkScript } from './load.ts';
import type { Answer, Job, Loaded, Method, Step } from './load.ts';
import { loader, root } from '../helper/temporary.ts';
import { notes, usage } from './figures.ts';

const cheapKdf = ['--kdf', 'pbkdf2:sha256:1'];
const user = (id: number): string => filledAnswer.replaceAll('#', String(id));
const [readers, creators, few, takeOversMin] = [32, 64, 1000, 20];
const self = fileURLToPath(import.meta.url);
const cores = availableParallelism();

type Flags = ReturnType<typeof parseFlags>;
type Environment = Readonly<Record<string, string>>;
type Server = Readonly<{ url: string; child: ReturnType<typeof spawn> }>;
/** A service on a store of its own, and what was answered 2xx. */
type Stage = Readonly<{ flags: Flags; data: string; filled: number; done: Record<Method, number> }> & { service: Server };

const put = { method: 'PUT', path: '/user/new-', status: 201 } as const;
const remove = { method: 'DELETE', path: '/user/new-', status: 204 } as const;
const look = { method: 'GET', path: '/user/user-', status: 200, isRandom: true } as const;
const signIn = {
  method: 'POST', path: '/session', status: 201, isFixed: true, body: `{"login":"user-#","password":"${filledPassword}"}`,
} as const;
const change = { method: 'PATCH', path: '/user/user-', status: 200 } as const;

const measures: Readonly<Record<string, (flags: Flags) => Promise<Sides | undefined>>> = {
  register,
  get: (flags) => get(flags, 0.65),
  'get-log': (flags) => get(flags, 0.6, { REGISTRAR_LOG: 'on' }),
  'get-fastify': (flags) => besideFastify(flags, flags.users, 1.15, (stage, server, seconds) =>
    read(stage, server, seconds, { ...look, range: [1, flags.users], answer: filledAnswer })),
  session,
  'create-fastify-64': (flags) => besideFastify(flags, 0, 1.2, (stage, server, seconds) => create(stage, server, creators, seconds)),
  'create-fastify-1': (flags) => besideFastify(flags, 0, 0.8, (stage, server, seconds) => create(stage, server, 1, seconds)),
  'create-64': async (flags) => {
    const stage = await open(flags);
    const create = (clients: number): Turn => (seconds) => load(stage, clients, seconds, [{ ...put, path: newPath() }]);
    return { unit: '/s', mark: 5, service: create(creators), baseline: create(1), end: () => close(stage) };
  },
  'create-many': (flags) => among(flags, () => [{ ...put, count: few }, { ...remove, count: few, isAside: true }]),
  'get-many': (flags) => among(flags, (users) => [{ ...look, range: [1, users], answer: filledAnswer }]),
  'change-many': (flags) => among(flags, (users) => [{ ...change, range: [1, users] }]),
  'delete-many': (flags) => among(flags, () => [{ ...put, count: few, isAside: true }, { ...remove, count: few }]),
  'page-many': (flags) => among(flags, (users) => {
    const path = `/user/?limit=100&after=${encodeCursor(Math.floor(users / 2))}`;
    return [{ method: 'GET', path, status: 200, isFixed: true }];
  }),
  'get-p99': p99WhileHashing,
  'sign-in-flood': signInsUnderFlood,
  basic,
  open: openMany,
  memory,
  export: exportAll,
  start,
  'take-over': takeOver,
  ...etcdMeasures,
};
const names = Object.keys(measures);
/** A cluster is measured where it is asked for. */
const usual = names.filter((name) => !(name in etcdMeasures));

/** As many hashes on both sides: counting those of some seconds would be off by one for each core. */
async function register(flags: Flags): Promise<Sides> {
  const [stage, hash] = [await open(flags, 0, []), bareHashing(cores)];
  const value = await hash(2 * cores);
  const count = (seconds: number): number => Math.max(2, Math.round((value * seconds) / cores)) * cores;
  const service: Turn = (seconds) => load(stage, 4 * cores, 0, [{ ...put, path: newPath(), count: count(seconds) }]);
  return { unit: '/s', mark: 0.97, service, baseline: async (seconds) => ({ value: await hash(count(seconds)) }), end: () => close(stage) };
}

/** Random ones of those whose ids have as many digits, so that all answers are as long as the one of bare Node. */
async function get(flags: Flags, mark: number, more: Environment = {}): Promise<Sides> {
  const stage = await open(flags, flags.users, cheapKdf, more);
  const low = 10 ** Math.floor(Math.log10(flags.users / 2));
  const range = [low, Math.min(flags.users, low * 10 - 1)] as const;
  const answer = await askOnce(stage.service, look.path + low);
  const bare = await startServer(['server', flags.certs, JSON.stringify(answer)]);
  const readFrom = (server: Server): Turn => async (seconds) => {
    const figure = await read(stage, server, seconds, { ...look, range, ...(server === bare ? {} : { answer: filledAnswer }) });
    for (const id of range) {
      const got = essenceOf(await askOnce(server, look.path + id));
      const own = { head: answer.head.replace(`"${low}.1"`, `"${id}.1"`), body: user(id) };
      const expected = essenceOf({ ...answer, ...(server === bare ? {} : own) });
      check(got === expected, `get: ${server.url} answers\n${got}\ninstead of\n${expected}`);
    }
    return figure;
  };
  const end = (): Promise<unknown> => Promise.all([close(stage), stop(bare)]);
  return { unit: '/s', by: 'cpu', mark, service: readFrom(stage.service), baseline: readFrom(bare), end };
}

/** GET /session by cookie, beside bare Node with the same bytes. */
async function session(flags: Flags): Promise<Sides> {
  const admin = { REGISTRAR_ADMIN_TOKEN: randomBytes(18).toString('base64url') };
  const stage = await open(flags, few, [...cheapKdf, '--limits', 'off'], admin);
  const { ask, close: hangUp } = await dial(stage.service);
  const { head } = await ask('POST', '/session', `{"login":"user-1","password":"${filledPassword}","cookie":"session"}`);
  const headers = `Cookie: ${/^set-cookie: ([^;]+)/im.exec(head)?.[1] ?? ''}`;
  const answer = await ask('GET', '/session', undefined, headers);
  hangUp();
  check(answer.status === 200, `session: GET /session by cookie was answered ${answer.status} ${answer.body}`);
  const bare = await startServer(['server', flags.certs, JSON.stringify(answer)]);
  const step = { method: 'GET', path: '/session', status: 200, isFixed: true, headers } as const;
  const end = (): Promise<unknown> => Promise.all([close(stage), stop(bare)]);
  const from = (server: Server): Turn => (seconds) => read(stage, server, seconds, step);
  return { unit: '/s', by: 'cpu', mark: 0.6, service: from(stage.service), baseline: from(bare), end };
}

let packages: string | undefined;
/** The same of the service and of Fastify with better-sqlite3; undefined where the two cannot be installed. */
async function besideFastify(
  flags: Flags,
  users: number,
  mark: number,
  measured: (stage: Stage, server: Server, seconds: number) => Promise<Figure>,
): Promise<Sides | undefined> {
  packages ??= flags.packages ?? newStore(flags, 0);
  if (!existsSync(join(packages, 'node_modules/better-sqlite3/build')) && !installFastify(packages, env)) return undefined;
  const stage = await open(flags, users);
  const fastify = await startServer(['fastify', packages, newStore(flags, 0), flags.certs, String(users)]);
  const end = (): Promise<unknown> => Promise.all([close(stage), stop(fastify)]);
  const turn = (server: Server): Turn => (seconds) => measured(stage, server, seconds);
  return { unit: '/s', by: 'cpu', mark, service: turn(stage.service), baseline: turn(fastify), end };
}

/** Durable creates, of which those of the service are counted for the file's check. */
async function create(stage: Stage, server: Server, clients: number, seconds: number): Promise<Loaded> {
  const step = { ...put, path: newPath() };
  return server === stage.service ? load(stage, clients, seconds, [step]) : client(server, clients, seconds, [step]);
}

/** The same among many and among few. */
async function among(flags: Flags, steps: (users: number) => readonly [Step, ...Step[]]): Promise<Sides> {
  const [many, some] = [await open(flags, flags.users), await open(flags, few)];
  const turn = (stage: Stage): Turn => (seconds) => {
    const [step, ...more] = steps(stage.filled);
    return step.method === 'GET' ? read(stage, stage.service, seconds, step) : load(stage, creators, seconds, [step, ...more]);
  };
  return { unit: '/s', mark: 0.9, service: turn(many), baseline: turn(some), end: () => Promise.all([close(many), close(some)]) };
}

async function p99WhileHashing(flags: Flags): Promise<Sides> {
  const stage = await open(flags, few, []);
  const measured: Turn = async (seconds) => {
    const { p99Ms } = await client(stage.service, 8, seconds, [{ ...look, range: [1, few], answer: filledAnswer, thinkMs: 10 }]);
    return { value: p99Ms };
  };
  const service: Turn = async (seconds) => {
    const hashing = load(stage, 4 * cores, seconds + 1, [{ ...put, path: newPath() }]);
    const figure = await measured(seconds);
    await hashing;
    return figure;
  };
  return { unit: 'ms', mark: 2, isMost: true, service, baseline: measured, end: () => close(stage) };
}

async function signInsUnderFlood(flags: Flags): Promise<Sides> {
  const stage = await open(flags, few, []);
  const signIns: Turn = (seconds) => client(stage.service, 4 * cores, seconds, [{ ...signIn, range: [1, few] }]);
  const service: Turn = async (seconds) => {
    const flood = client(stage.service, readers, seconds + 1, [{ ...look, range: [1, few] }]);
    const figure = await signIns(seconds);
    await flood;
    return figure;
  };
  return { unit: '/s', mark: 0.4, service, baseline: signIns, end: () => close(stage) };
}

/** In authenticated mode; the few who ask are hashed in the first turn, which is to warm up. */
async function basic(flags: Flags): Promise<Sides> {
  const env = { REGISTRAR_ADMIN_TOKEN: randomBytes(18).toString('base64url') };
  const stage = await open(flags, flags.users, ['--limits', 'off'], env);
  const password = (user: number): string => Buffer.from(`user-${user}:${filledPassword}`).toString('base64');
  const step = { ...look, range: [cores, cores], headers: `Authorization: Basic ${password(cores)}` } as const;
  return { unit: '/s', mark: 5000, service: (seconds) => read(stage, stage.service, seconds, step), end: () => close(stage) };
}

/** A service on a new file, whose every line it has to read: no mark says how far it is good. */
async function opened(flags: Flags, users: number, node: readonly string[], use: (server: Server, from: number) => Promise<Figure>) {
  const data = newStore(flags, users);
  const from = performance.now();
  const server = await startService(flags, data, cheapKdf, node);
  const figure = await use(server, from);
  await stop(server);
  rmSync(data, { recursive: true });
  return figure;
}

async function openMany(flags: Flags): Promise<Sides> {
  const time = (users: number): Turn => () => opened(flags, users, [], async (server, from) => {
    const { body } = await askOnce(server, users === 0 ? '/user/' : look.path + users);
    check(users === 0 || body === user(users), `open: the last of ${users} users is ${body}`);
    return { value: (performance.now() - from) / 1000 };
  });
  return { unit: 's', by: 'difference', mark: 1, isMost: true, service: time(flags.users), baseline: time(0) };
}

async function memory(flags: Flags): Promise<Sides> {
  const probe = `process.on('SIGUSR2', () => { gc(); gc(); console.log('memory ' + JSON.stringify(process.memoryUsage())); })`;
  const node = ['--expose-gc', '--import', `data:text/javascript,${encodeURIComponent(probe)}`];
  const bytes = (users: number): Turn => () => opened(flags, users, node, async (server) => {
    await askOnce(server, '/user/');
    server.child.kill('SIGUSR2');
    const { heapUsed, external, rss } = JSON.parse(await said(server.child, /memory (.*)\n/)) as NodeJS.MemoryUsage;
    return { value: (heapUsed + external) / flags.users, rssMb: rss / 1e6 };
  });
  return { unit: 'bytes', by: 'difference', mark: 32, isMost: true, service: bytes(flags.users), baseline: bytes(0) };
}

async function exportAll(flags: Flags): Promise<Sides> {
  const stage = await open(flags, flags.users);
  const service: Turn = async () => {
    const { bytes, lines, ms } = await drainStream(stage.service, '/user/');
    check(lines === flags.users, `export: ${lines} users came of ${flags.users}`);
    const peak = process.platform === 'linux' ? readFileSync(`/proc/${stage.service.child.pid}/status`, 'utf8') : '';
    return { value: bytes / 1e3 / ms, rssMb: Number(/VmHWM:\s+(\d+)/.exec(peak)?.[1] ?? NaN) / 1e3 };
  };
  return { unit: 'MB/s', mark: 200, service, end: () => close(stage) };
}

async function start(flags: Flags): Promise<Sides> {
  const data = newStore(flags, 0);
  const answer = { status: 200, head: 'HTTP/1.1 200 OK\r\nContent-Type: application/json', body: '{}\n', cipher: '' };
  const time = (run: () => Promise<Server>): Turn => async () => {
    const from = performance.now();
    const server = await run();
    await askOnce(server, '/user/');
    const value = performance.now() - from;
    await stop(server);
    return { value };
  };
  const bare = ['server', flags.certs, JSON.stringify(answer)];
  return { unit: 'ms', service: time(() => startService(flags, data, [])), baseline: time(() => startServer(bare)) };
}

/** Each time the process that wrote last, and so holds the lock, is killed, and another one is asked to write. */
async function takeOver(flags: Flags): Promise<Sides> {
  const stage = await open(flags);
  const lock = join(stage.data, 'users.jsonl.lock', 'lock');
  let connection = await dial(stage.service);
  const create = async (from = performance.now()): Promise<Figure> => {
    const { status } = await connection.ask('PUT', newPath());
    if (status !== 201) throw new Error(`take-over: PUT was answered ${status}`);
    stage.done.PUT++;
    return { value: performance.now() - from };
  };
  await create();
  const service: Turn = async () => {
    const other = await startService(flags, stage.data, cheapKdf);
    connection.close();
    connection = await dial(other);
    for (let n = 0; n < 50; n++) await connection.ask('GET', '/user/?limit=1');
    const [deadHolder, from] = [readlinkSync(lock), performance.now()];
    stage.service.child.kill('SIGKILL');
    stage.service = other;
    const figure = await create(from);
    check(readlinkSync(lock) !== deadHolder, 'take-over: the lock is still that of the process that was killed');
    return figure;
  };
  return { unit: 'ms', service, baseline: () => create(), end: () => close(stage) };
}

/** A B A B …, so that what changes on the machine meanwhile changes for both. The first turns are to warm up. */
async function measure(name: string, flags: Flags): Promise<string[]> {
  tell(`${name}: setting up`);
  const sides = await measures[name]!(flags);
  if (sides === undefined) return [name, 'left out: fastify and better-sqlite3 cannot be installed here'];
  const turns: [service: Figure, baseline: Figure | undefined][] = [];
  const rounds = name === 'take-over' ? Math.max(takeOversMin, flags.rounds) : flags.rounds;
  for (let round = 0; round <= rounds; round++) {
    tell(`${name}: round ${round} of ${rounds}`);
    const seconds = round === 0 ? Math.min(1, flags.seconds) : flags.seconds;
    turns.push([await sides.service(seconds), await sides.baseline?.(seconds)]);
  }
  await sides.end?.();
  tell('');
  return row(name, sides, turns.slice(1));
}

const failures: string[] = [];
const check = (isRight: boolean, what: string): void => void (isRight || failures.push(what));

/** Aborted at the end, whatever the end is: no child outlives it. */
const ending = new AbortController();
const directories: string[] = [];
/** The environment of this process is not that of the measured one. */
const foreign = Object.entries(process.env).filter(([name]) => !name.startsWith('REGISTRAR_'));
const env = { ...Object.fromEntries(foreign), REGISTRAR_LOG: 'off' };
const childOptions = { env, maxBuffer: Infinity, signal: ending.signal, killSignal: 'SIGKILL' } as const;
const execute = promisify(execFile);

const filled = new Map<number, string>();
/** A directory with so many users; they are written once and copied. */
function newStore(flags: Flags, users: number): string {
  const directory = mkdtempSync(join(flags.data, 'registrar-bench-'));
  directories.push(directory);
  if (users === 0) return directory;
  const file = filled.get(users) ?? join(newStore(flags, 0), 'users.jsonl');
  if (!filled.has(users)) fill(file, users, (done) => tell(`writing users: ${done.toLocaleString('en')} of ${users.toLocaleString('en')}`));
  filled.set(users, file);
  copyFileSync(file, join(directory, 'users.jsonl'), constants.COPYFILE_FICLONE);
  syncFile(join(directory, 'users.jsonl')); // Or the first writes of the service would wait for these.
  return directory;
}

async function open(flags: Flags, users = 0, kdf: readonly string[] = cheapKdf, more: Environment = {}): Promise<Stage> {
  const data = newStore(flags, users);
  const done = { GET: 0, POST: 0, PUT: 0, PATCH: 0, DELETE: 0 };
  return { flags, data, filled: users, done, service: await startService(flags, data, kdf, [], more) };
}

let linesChecked = 0;
/** Ends the service and looks whether the file has what was answered: no user more, none less, each change. */
async function close({ data, done, filled, service }: Stage): Promise<void> {
  await stop(service);
  check(service.child.exitCode === 0, `the service ended with ${service.child.exitCode}, not with 0`);
  const { users, changes } = livingUsers(join(data, 'users.jsonl'));
  const expected = filled + done.PUT - done.DELETE;
  const isWhole = users === expected && changes === done.PATCH;
  check(isWhole, `${users} users with ${changes} changes are stored, not ${expected} with ${done.PATCH}: ${JSON.stringify(done)}`);
  linesChecked += done.PUT + done.DELETE + done.PATCH;
  rmSync(data, { recursive: true });
}

function startService({ certs }: Flags, data: string, flags: readonly string[], node: readonly string[] = [], more: Environment = {}) {
  const own = ['serve', '--port', '0', '--data', data, '--certs', certs];
  return startServer([...own, ...flags], join(root, 'bin/registrar.ts'), node, more);
}

async function startServer(args: readonly string[], file = self, node: readonly string[] = [], more: Environment = {}): Promise<Server> {
  const child = spawn(process.execPath, [...node, ...loader, file, ...args], { ...childOptions, env: { ...env, ...more } });
  return { url: await said(child, /listens on (https:\S+)\n/), child };
}

async function stop({ child }: Server): Promise<void> {
  if (child.kill('SIGTERM')) await once(child, 'exit');
}

/** With wrk where it is: it takes less of the cores than Node would. */
async function read({ data, flags }: Stage, server: Server, seconds: number, step: Step): Promise<Figure> {
  if (flags.wrk === undefined) return client(server, readers, seconds, [step]);
  const script = join(data, 'random.lua');
  writeFileSync(script, wrkScript(step));
  const before = cpuOf(server);
  const { stdout } = await execute('wrk', ['-t1', `-c${readers}`, `-d${seconds}s`, '--latency', '-s', script, server.url], childOptions);
  const figure = wrkFigure(stdout);
  check(figure.value > 0, `wrk says\n${stdout}`);
  return { ...figure, cpuUs: (cpuOf(server) - before) / Number(/(\d+) requests in/.exec(stdout)?.[1]) };
}

/** User and system time of the server until now, in microseconds; NaN where there is no /proc. */
function cpuOf({ child }: Server): number {
  const path = `/proc/${child.pid}/stat`;
  if (!existsSync(path)) return NaN;
  const fields = readFileSync(path, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * microsecondsPerTick;
}

/** Linux counts 100 ticks a second. */
const microsecondsPerTick = 10_000;

let paths = 0;
/** What the paths of users begin with who have not been there yet. */
const newPath = (): string => `${put.path}${paths++}-`;

/** Puts a load on a server from a process of its own: for some seconds, or where there are none once. */
async function client(server: Server, clients: number, seconds: number, steps: readonly Step[]): Promise<Loaded> {
  const before = cpuOf(server);
  const job: Job = { url: server.url, clients, steps, ...(seconds > 0 ? { seconds } : {}) };
  const { stdout } = await execute(process.execPath, [...loader, self, 'load', JSON.stringify(job)], childOptions);
  const loaded = JSON.parse(stdout) as Loaded;
  check(loaded.wrong.length === 0, `${loaded.wrong.length} answers were wrong, for one: ${loaded.wrong[0]}`);
  const requests = Object.values(loaded.done).reduce((sum, count) => sum + count, 0);
  return { ...loaded, cpuUs: (cpuOf(server) - before) / requests };
}

async function load(stage: Stage, clients: number, seconds: number, steps: readonly Step[]): Promise<Loaded> {
  const loaded = await client(stage.service, clients, seconds, steps);
  for (const method of ['PUT', 'PATCH', 'DELETE'] as const) stage.done[method] += loaded.done[method];
  return loaded;
}

function tell(progress: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${progress}`);
}

function parseFlags(args: readonly string[]) {
  const flag = (value: string) => ({ type: 'string', default: value }) as const;
  const turns = { rounds: flag('5'), seconds: flag('4'), users: flag('1000000') };
  const switches = { etcd: { type: 'boolean' }, help: { type: 'boolean' } } as const;
  const options = { ...turns, only: { type: 'string' }, packages: { type: 'string' }, data: flag(tmpdir()), certs: flag('certs'), ...switches } as const;
  const { rounds, seconds, users, etcd, data, certs, help, ...rest } = parseArgs({ args: [...args], options }).values;
  const only = rest.only ?? (etcd === true ? Object.keys(etcdMeasures) : usual).join();
  const isSound = /^[1-9]\d{0,3} (?:0\.[1-9]|[1-9]\d{0,3}) [1-9]\d{3,7}$/.test(`${rounds} ${seconds} ${users}`);
  if (!isSound) throw new RangeError('--rounds and --seconds take 1 to 9999, --seconds also 0.1 to 0.9, --users 1000 to 99999999');
  if (!only.split(',').every((of) => names.includes(of))) throw new RangeError(`--only takes some of ${names.join()}`);
  const version = /^wrk \D*([\d.]+)/.exec(spawnSync('wrk', ['-v'], { encoding: 'utf8' }).stdout ?? '')?.[1];
  // It counts whole seconds.
  const wrk = Number(seconds) < 1 ? undefined : version;
  const numbers = { rounds: Number(rounds), seconds: Number(seconds), users: Number(users) };
  const packages = rest.packages === undefined ? undefined : resolve(rest.packages);
  return { help, only, packages, wrk, ...numbers, data: resolve(data), certs: resolve(certs) };
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
${new Date().toISOString()}; stores in ${flags.data}; ${flags.rounds} rounds of ${flags.seconds} s on each side; many: ${flags.users}\n\n`);
  const widths = [19, 42, 42, 8, 16, 9, 6];
  const print = (cells: readonly string[]) =>
    process.stdout.write(`${cells.map((cell, n) => cell.padEnd(widths[n] ?? 0)).join('').trimEnd()}\n`);
  print(['what', 'service', 'baseline', 'figure', 'spread', 'mark', 'met?']);
  for (const name of flags.only.split(',')) print(await measure(name, flags));
  if (failures.length > 0) throw new Error(`checks failed:\n${failures.join('\n')}`);
  process.stdout.write(`\nAll checks hold; the files say what ${linesChecked} answers to writes said.\n${notes}`);
}

let exitCode = 2;
try {
  // Without a role it does nothing: the test runner starts every file below test/.
  const [role, first = '', second = ''] = process.argv.slice(2);
  if (role === 'server') runBare(first, JSON.parse(second) as Answer);
  else if (role === 'fastify') await runFastify(first, second, process.argv[5] ?? '', Number(process.argv[6]));
  else if (role === 'load') process.stdout.write(JSON.stringify(await runLoad(JSON.parse(first) as Job)));
  else if (role === 'run') await bench(process.argv.slice(3));
} catch (error) {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`bench: ${exitCode === 2 ? message.split('. ')[0] : message}\n`);
  process.exit(exitCode);
}
