/** nginx and Apache as users run them: their own processes, on free ports, with everything in a temporary directory. */

import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { parseTokenConfig } from '../../lib/command-config.ts';
import { makeAdminToken } from '../../lib/maintenance.ts';
import { apacheSite } from '../../lib/proxy/apache.ts';
import { parseProxyConfig } from '../../lib/proxy/config.ts';
import { nginxSite } from '../../lib/proxy/nginx.ts';
import { proxySite } from '../../lib/proxy/site.ts';
import { certificates, cheap, spawnService } from './service.ts';
import type { RunningService } from './service.ts';
import { loader, root, temporaryDirectory, until, without } from './temporary.ts';

type Context = Pick<TestContext, 'after'>;

export type ProxyName = 'nginx' | 'apache';

const programs = { nginx: '/usr/sbin/nginx', apache: '/usr/sbin/apache2' } as const;

/** False, or why its tests are skipped. Debian keeps both where not everybody's PATH leads. */
export function withoutProxy(name: ProxyName): string | false {
  return without(programs[name]) && `${name} is not installed`;
}

/** Neither server serves as root, so where the tests are root it is somebody else. */
export const proxyUser = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : undefined;

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

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
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8', timeout: 30_000 });
  return { status, stdout, stderr };
}

/** The same, without the command. */
export function siteText(name: ProxyName, args: readonly string[]): string {
  const config = parseProxyConfig(args, {});
  const { service, cert } = config;
  const own = readFileSync(join(service.certs, 'cert.pem'));
  const site = proxySite(config, { service: service.isPlain ? undefined : own, shown: cert === undefined ? own : readFileSync(cert) });
  return name === 'nginx' ? nginxSite(site) : apacheSite(site, service.publicUrl);
}

/** Has the real server look at a configuration. Everything it says, and whether it would start. */
export function inspect(name: ProxyName, file: string, directory: string): { status: number | null; said: string } {
  const args = name === 'nginx' ? ['-t', '-e', 'stderr', '-p', directory, '-c', file] : ['-t', '-d', directory, '-f', file];
  const { status, stdout, stderr } = spawnSync(programs[name], args, { encoding: 'utf8', timeout: 30_000, ...proxyUser });
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

/** Prints the site for these flags, and runs the server with it. */
export async function spawnProxy(t: Context, name: ProxyName, flags: readonly string[]): Promise<RunningProxy> {
  const { directory, certs } = proxyDirectory(t);
  const [http, tls] = [await freePort(), await freePort()];
  const listening = ['--listen', `127.0.0.1:${http}`, '--listen-tls', `127.0.0.1:${tls}`, '--public-url', `https://localhost:${tls}`];
  const file = join(directory, `${name}.conf`);
  writeFileSync(file, siteText(name, ['--certs', certs, ...listening, '--whole', directory, ...flags]));
  const log = (): string => readFileSync(join(directory, 'error.log'), 'utf8');
  const args = name === 'nginx'
    ? ['-e', join(directory, 'error.log'), '-p', directory, '-c', file]
    : ['-DFOREGROUND', '-d', directory, '-f', file];
  const child = spawn(programs[name], args, { ...proxyUser, stdio: ['ignore', 'ignore', 'pipe'] });
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
    return name === 'nginx' ? answers(tls) : existsSync(join(directory, 'error.log')) && /resuming normal operations/.test(log());
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
export async function behind(t: Context, name: ProxyName, { flags = [], also = [] }: { flags?: readonly string[]; also?: readonly string[] } = {}): Promise<Behind> {
  const data = temporaryDirectory(t);
  const { value: token } = await makeAdminToken(parseTokenConfig(['--data', data], {}));
  const servicePort = await freePort();
  const own = ['--port', String(servicePort), '--trusted-proxy', '127.0.0.1', ...flags];
  const service = await spawnService(t, { data, args: [...cheap, ...own] });
  const proxy = await spawnProxy(t, name, ['--data', data, ...own, ...also]);
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
