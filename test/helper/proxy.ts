/** nginx, Apache and Caddy as processes on free ports, with the printed sites or with the proxy_pass of most guides. */

import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { makeToken } from '../../lib/auth/static-token.ts';
import { parseCommandLine } from '../../lib/config.ts';
import { siteText as textOf } from '../../bin/command/proxy.ts';
import type { ProxyName } from '../../lib/deploy/site.ts';
import { certificates, cheap, spawnService } from './service.ts';
import type { RunningService } from './service.ts';
import { childEnvironment, freePort, loader, root, temporaryDirectory, until } from './temporary.ts';

type Context = Pick<TestContext, 'after'>;

export type { ProxyName };

const programs = { nginx: '/usr/sbin/nginx', apache: '/usr/sbin/apache2', caddy: '/usr/bin/caddy' } as const;

/** No proxy serves as root: if the tests are root, it is another user. */
export const proxyUser = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : undefined;

/** A directory that the proxy's user may use, with the tests' certificate in it. */
export function proxyDirectory(t: Context): { directory: string; certs: string } {
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o711);
  const [certs, own] = [join(directory, 'certs'), join(directory, 'own')];
  for (const path of [certs, own]) mkdirSync(path);
  for (const name of ['cert.pem', 'key.pem']) copyFileSync(join(certificates(), name), join(certs, name));
  const all = [certs, own, join(certs, 'cert.pem'), join(certs, 'key.pem')];
  if (proxyUser !== undefined) for (const path of all) chownSync(path, proxyUser.uid, proxyUser.gid);
  return { directory: own, certs };
}

/** What the command prints. */
export function printed(args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  const command = [...loader, 'bin/registrar.ts', 'proxy', ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 30_000 });
  return { status, stdout, stderr };
}

/** The same, without the command. */
export function siteText(name: ProxyName, args: readonly string[], directory?: string): string {
  const { config, given } = parseCommandLine('proxy', args, {});
  return textOf(name, { config, given, directory });
}

const checks: Readonly<Record<ProxyName, (file: string, directory: string) => string[]>> = {
  nginx: (file, directory) => ['-t', '-e', 'stderr', '-p', directory, '-c', file],
  apache: (file, directory) => ['-t', '-d', directory, '-f', file],
  caddy: (file) => ['validate', '--config', file, '--adapter', 'caddyfile'],
};

/** Has the real server check a configuration. Its messages, and whether it would start. */
export function inspect(name: ProxyName, file: string, directory: string): { status: number | null; said: string } {
  const env = { ...process.env, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory, HOME: directory };
  const { status, stdout, stderr } = spawnSync(programs[name], checks[name](file, directory), { encoding: 'utf8', timeout: 30_000, env, ...proxyUser });
  return { status, said: stdout + stderr };
}

export interface RunningProxy {
  /** HTTPS. */
  readonly url: string;
  readonly http: string;
  readonly directory: string;
  readonly child: ChildProcess;
  /** Has it read its configuration anew while it serves. */
  readonly reload: () => void;
  readonly log: () => string;
}

/** Prints the site for these flags, and runs the server with it. @param port of HTTPS; a free one by default. */
export async function spawnProxy(t: Context, name: ProxyName, flags: readonly string[], port?: number): Promise<RunningProxy> {
  const { directory, certs } = proxyDirectory(t);
  const [http, tls] = [await freePort(), port ?? await freePort()];
  const listening = ['--listen', `127.0.0.1:${http}`, '--listen-tls', `127.0.0.1:${tls}`, '--public-url', `https://localhost:${tls}`];
  const file = join(directory, `${name}.conf`);
  writeFileSync(file, siteText(name, ['--certs', certs, ...listening, ...flags], directory));
  const log = (): string => readFileSync(join(directory, 'error.log'), 'utf8');
  const args = {
    nginx: ['-e', join(directory, 'error.log'), '-p', directory, '-c', file],
    apache: ['-DFOREGROUND', '-d', directory, '-f', file],
    caddy: ['run', '--config', file, '--adapter', 'caddyfile'],
  }[name];
  const env = { ...process.env, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory, HOME: directory };
  const child = spawn(programs[name], args, { ...proxyUser, env, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr?.on('data', (chunk) => (said += chunk));
  const ended = once(child, 'exit');
  t.after(async () => {
    // Both end their workers then.
    child.kill('SIGTERM');
    await ended;
  });
  await until(() => {
    if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}: ${said}`);
    // Apache listens before it minds signals.
    return name !== 'apache' ? answers(tls) : existsSync(join(directory, 'error.log')) && /resuming normal operations/.test(log());
  }, `${name} listens`);
  const reload = (): void => void child.kill(name === 'nginx' ? 'SIGHUP' : 'SIGUSR1');
  return { url: `https://localhost:${tls}`, http: `http://localhost:${http}`, directory, child, reload, log };
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export interface Behind {
  readonly service: RunningService;
  readonly proxy: RunningProxy;
  readonly data: string;
  /** The admin token. */
  readonly token: string;
  readonly servicePort: number;
}

/** A service with an admin token, and the proxy in front of it. */
export async function behind(
  t: Context, name: ProxyName, { flags = [], also = [], port }: { flags?: readonly string[]; also?: readonly string[]; port?: number | undefined } = {},
): Promise<Behind> {
  const data = temporaryDirectory(t);
  const { value: token } = await makeToken(data, 'admin');
  const servicePort = await freePort();
  const own = ['--port', String(servicePort), '--trusted-proxy', '127.0.0.1', ...flags];
  const service = await spawnService(t, { data, args: [...cheap, ...own] });
  const proxy = await spawnProxy(t, name, ['--data', data, ...own, ...also], port);
  return { service, proxy, data, token, servicePort };
}

export interface Asked {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** An address of this machine to ask from. */
  readonly from?: string;
}

export interface Got {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  readonly json: any;
}

/** Asks over a connection of its own, from any of this machine's addresses. Its certificate has to be the tests'. */
export async function ask(url: string, path: string, { method = 'GET', body, headers = {}, from = '127.0.0.1' }: Asked = {}): Promise<Got> {
  const type = body === undefined ? {} : { 'Content-Type': 'application/json' };
  const request = https.request(new URL(path, url), {
    method,
    headers: { ...type, ...headers },
    localAddress: from,
    family: 4,
    agent: false,
    ca: readFileSync(join(certificates(), 'cert.pem')),
  });
  request.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body));
  const [response] = await once(request, 'response');
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString('utf8');
  const isJson = /[/+]json/.test(response.headers['content-type'] ?? '');
  return { status: response.statusCode, headers: response.headers, text, json: isJson && text !== '' ? JSON.parse(text) : undefined };
}

export function basic(login: string, password: string): string {
  return `Basic ${Buffer.from(`${login}:${password}`, 'utf8').toString('base64')}`;
}

export const nginx = '/usr/sbin/nginx';

export interface StockNginx {
  /** HTTPS; each of the `headers` that was asked for is a port of its own. */
  readonly urls: readonly string[];
  /** What it has passed on: request lines, as it read them. It is complete when nothing is being asked. */
  readonly passed: () => readonly string[];
}

/**
 * @param upstream as in `https://127.0.0.1:8443`.
 * @param sites directives beside `proxy_pass`, one text for each port.
 */
export async function spawnNginx(t: Pick<TestContext, 'after'>, upstream: string, sites: readonly string[] = ['']): Promise<StockNginx> {
  const directory = temporaryDirectory(t);
  const ports = await Promise.all(sites.map(() => freePort()));
  const certs = certificates();
  const servers = sites.map((directives, n) => `server {
    listen 127.0.0.1:${ports[n]} ssl; ssl_certificate ${certs}/cert.pem; ssl_certificate_key ${certs}/key.pem;
    location / { proxy_pass ${upstream}; ${directives} } }`);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${directory}/${name};`);
  const log = join(directory, 'access.log');
  writeFileSync(join(directory, 'nginx.conf'), `daemon off; master_process off; pid ${directory}/pid; error_log ${directory}/error.log;
    events { worker_connections 1024; }
    http { ${temporary.join(' ')} log_format seen escape=json '$upstream_status $request'; access_log ${log} seen; ${servers.join('\n')} }`);
  const child = spawn(nginx, ['-p', directory, '-c', join(directory, 'nginx.conf'), '-e', join(directory, 'error.log')]);
  const ended = once(child, 'exit');
  let said = '';
  child.stderr.on('data', (chunk) => (said += chunk));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  await until(() => {
    if (child.exitCode !== null) throw new Error(`nginx has ended: ${said}${readFileSync(join(directory, 'error.log'), 'utf8')}`);
    try {
      return readFileSync(join(directory, 'pid'), 'utf8').trim() === String(child.pid);
    } catch {
      return false;
    }
  }, 'nginx to listen');
  return {
    urls: ports.map((port) => `https://127.0.0.1:${port}`),
    passed: () => readFileSync(log, 'utf8').split('\n').filter((line) => /^\d/.test(line)),
  };
}
