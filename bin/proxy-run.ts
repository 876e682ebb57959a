/**
 * Runs the service, and nginx or Apache in front of it, until Ctrl-C: for looking at it, and for one machine of one's own.
 * The server is an ordinary process of this user, with its files in a temporary directory; a system's own is not touched.
 */

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openApp } from '../lib/app.ts';
import { RegistrarError, messageOf, systemCode } from '../lib/errors.ts';
import { makeAdminToken } from '../lib/maintenance.ts';
import type { ProxyConfig } from '../lib/proxy/config.ts';
import { say } from './terminal.ts';

export type ServerName = 'nginx' | 'apache';

interface Server {
  readonly program: string;
  readonly package: string;
  readonly args: (file: string, directory: string) => string[];
  /** Ends it when what is being answered is answered. */
  readonly endSignal: 'SIGQUIT' | 'SIGWINCH';
}

const servers: Readonly<Record<ServerName, Server>> = {
  nginx: {
    program: 'nginx',
    package: 'nginx',
    // -e: until it has read where its log is it would write to the system's.
    args: (file, directory) => ['-e', join(directory, 'error.log'), '-p', directory, '-c', file],
    endSignal: 'SIGQUIT',
  },
  apache: {
    program: 'apache2',
    package: 'apache2',
    args: (file, directory) => ['-DFOREGROUND', '-d', directory, '-f', file],
    endSignal: 'SIGWINCH',
  },
};

/** @param text makes the configuration. Ends the process. */
export async function runBehindProxy(name: ServerName, config: ProxyConfig, text: (config: ProxyConfig) => string): Promise<void> {
  const server = servers[name];
  const directory = mkdtempSync(join(tmpdir(), `registrar-${name}-`));
  try {
    const publicUrl = config.service.publicUrl ?? `https://${config.serverName}:${config.listenTls.port}`;
    const service = { ...config.service, publicUrl };
    const file = join(directory, `${name}.conf`);
    // The site first: what is wrong with it is said before anything is made.
    writeFileSync(file, text({ ...config, service, whole: directory }));
    if (service.adminToken === undefined) {
      const { path, isNew } = await makeAdminToken({ ...service, isNew: false, isSigningKey: false });
      say(`the admin token is ${isNew ? 'new, and ' : ''}in ${path}; registrar token prints it`);
    }
    let failed: RegistrarError | undefined;
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    const app = await openApp(service, {
      report: say,
      onFailed: (error) => {
        failed = error;
        end();
      },
    });
    try {
      await serveUntil(server, spawnServer(server, file, directory), ended, `${publicUrl} by ${name}, and on ${app.url} by itself`);
    } finally {
      await app.close();
    }
    if (failed !== undefined) throw failed;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  process.exit(0);
}

/** In a process group of its own: the terminal's Ctrl-C is for this process, which ends the server in good order. */
function spawnServer({ program, args }: Server, file: string, directory: string): ChildProcess {
  return spawn(program, args(file, directory), {
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
    env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` },
  });
}

async function serveUntil(server: Server, child: ChildProcess, failed: Promise<void>, where: string): Promise<void> {
  const started = once(child, 'spawn').catch((cause: unknown) => {
    const isMissing = systemCode(cause) === 'ENOENT';
    const detail = isMissing ? `there is no ${server.program} here: apt-get install ${server.package}` : messageOf(cause);
    throw new RegistrarError('cannot-start', `Cannot run ${server.program}: ${detail}`, { cause });
  });
  await started;
  const exited = once(child, 'exit');
  let isAsked = false;
  const asked = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        // Once more ends it at once.
        if (isAsked) child.kill('SIGTERM');
        isAsked = true;
        resolve();
      });
    }
  });
  process.stdout.write(`Registrar listens on ${where}\n`);
  await Promise.race([asked, failed, exited]);
  if (child.exitCode === null && child.signalCode === null) child.kill(server.endSignal);
  const [code, signal] = await exited;
  if (isAsked || code === 0) return;
  throw new RegistrarError('cannot-start', `${server.program} ended by itself, with ${code ?? signal}; it has said why`);
}
