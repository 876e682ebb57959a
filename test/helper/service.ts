/** The whole service, in this process or as one of its own, and a client for it. */

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { App } from '../../lib/app.ts';
import { systemCode } from '../../lib/errors.ts';
import type { Output } from '../../lib/telemetry/log.ts';
import { childEnvironment, loader, makeCertificate, root, temporaryDirectory } from './temporary.ts';

type Context = Pick<TestContext, 'after'>;

let certificateDirectory: string | undefined;

/** The directory of one certificate for all tests of this process. It is removed when the process ends. */
export function certificates(): string {
  if (certificateDirectory === undefined) {
    const directory = mkdtempSync(join(tmpdir(), 'registrar-certs-'));
    process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
    makeCertificate(directory);
    certificateDirectory = directory;
  }
  return certificateDirectory;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  readonly json: any;
}

export interface AskOptions {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

export type Ask = (path: string, options?: AskOptions) => Promise<Answer>;

export interface Service {
  readonly url: string;
  readonly data: string;
  readonly ask: Ask;
}

/** A cheap hash, for tests that are not about hashing. */
export const cheap = ['--kdf', 'pbkdf2:sha256:1'];

/** Authenticated mode: for the environment, as REGISTRAR_ADMIN_TOKEN. */
export const adminToken = 'the-administrators-token-of-these-tests';

/** Runs the service in this process. Of a flag that is there twice the last one counts. */
export async function openService(
  t: Context,
  args: readonly string[] = cheap,
  env: Readonly<Record<string, string>> = {},
  output?: Output,
): Promise<Service & { app: App; reports: string[] }> {
  const reports: string[] = [];
  // Loaded here: most trials only spawn services, and the whole library takes half a second.
  const { parseCommandLine } = await import('../../lib/config.ts');
  const { openApp } = await import('../../lib/app.ts');
  const { config } = parseCommandLine('serve', ['--port', '0', '--data', temporaryDirectory(t), '--certs', certificates(), ...args], env);
  const { data } = config;
  const app = await openApp(config, {
    report: (line) => reports.push(line),
    onFailed: (error) => reports.push(`failed: ${error.message}`),
    ...(output === undefined ? {} : { output }),
  });
  const agent = new https.Agent({ keepAlive: true });
  t.after(async () => {
    agent.destroy();
    await app.close();
  });
  return { url: app.url, data, ask: client(app.url, agent), app, reports };
}

export interface RunningService extends Service {
  readonly child: ChildProcess;
  /** What it has printed to standard error. */
  readonly stderr: () => string;
  /** Resolves with the exit code, or the signal. */
  readonly ended: Promise<number | string>;
  /** SIGTERM, to the service itself where another program runs it. */
  readonly terminate: (signal?: 'SIGKILL') => void;
}

/** Runs the command as a user does, as a process of its own, which is killed when the test has ended. */
export async function spawnService(
  t: Context,
  { data = temporaryDirectory(t), args = cheap, before = [] }: { data?: string; args?: readonly string[]; before?: readonly string[] } = {},
): Promise<RunningService> {
  const flags = ['serve', '--port', '0', '--data', data, '--certs', certificates(), ...args];
  const [program = '', ...words] = [...before, process.execPath, ...loader, 'bin/registrar.ts', ...flags];
  const child = spawn(program, words, { cwd: root, env: childEnvironment() });
  const output = { stdout: '', stderr: '' };
  const ended = once(child, 'exit').then(([code, signal]) => (code ?? signal) as number | string);
  const agent = new https.Agent({ keepAlive: true });
  t.after(async () => {
    agent.destroy();
    if (child.exitCode === null && child.signalCode === null) terminate('SIGKILL');
    await ended;
  });
  const terminate = (signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): void => {
    if (before.length === 0) return void child.kill(signal);
    try {
      const [pid = ''] = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'latin1').trim().split(' ');
      if (pid !== '') process.kill(Number(pid), signal);
    } catch (error) {
      // It has ended already.
      if (!['ENOENT', 'ESRCH'].includes(systemCode(error) ?? '')) throw error;
    }
  };
  child.stderr.on('data', (chunk) => (output.stderr += chunk));
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.on('data', (chunk) => {
      output.stdout += chunk;
      const [, found] = /listens on (\S+)\n/.exec(output.stdout) ?? [];
      if (found !== undefined) resolve(found);
    });
    void ended.then((code) => reject(new Error(`the service ended with ${code}: ${output.stderr}`)));
  });
  return { url, data, ask: client(url, agent), child, stderr: () => output.stderr, ended, terminate };
}

/** Asks over HTTPS, whose certificate is not the point. A body that is no text is sent as JSON. */
export function client(url: string, agent: https.Agent): Ask {
  return async (path, { method = 'GET', body, headers = {}, signal } = {}) => {
    const options = { method, headers, agent, rejectUnauthorized: false, ...(signal === undefined ? {} : { signal }) };
    const request = https.request(new URL(path, url), options);
    request.end(body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body));
    const [response] = await once(request, 'response');
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString('utf8');
    const isJson = /json$/.test(response.headers['content-type'] ?? '') && !/ndjson/.test(response.headers['content-type']);
    return { status: response.statusCode, headers: response.headers, text, json: isJson && text !== '' ? JSON.parse(text) : undefined };
  };
}

/** The users' file, one parsed line each, header first. */
export function readUsersFile(data: string): any[] {
  const text = readFileSync(join(data, 'users.jsonl'), 'utf8');
  return text.trimEnd().split('\n').map((line) => JSON.parse(line));
}
