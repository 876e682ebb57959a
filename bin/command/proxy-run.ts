/**
 * Runs the service, and nginx, Apache or Caddy in front of it, until Ctrl-C: to try it. The proxy is a process of this user,
 * with its files in a temporary directory; the system's own is not touched.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openApp } from '../../lib/app.ts';
import { makeToken } from '../../lib/auth/static-token.ts';
import type { Config } from '../../lib/config.ts';
import type { ProxyName } from '../../lib/deploy/site.ts';
import { RegistrarError, messageOf, systemCode } from '../../lib/errors.ts';
import { createDirectory } from '../../lib/open.ts';
import type { Terminal } from './terminal.ts';

interface Program {
  /** The name of the program and of its package in Debian. */
  readonly name: string;
  readonly args: (file: string, directory: string) => string[];
  /** Ends it when the requests in progress are answered. */
  readonly endSignal: 'SIGQUIT' | 'SIGTERM' | 'SIGWINCH';
}

const programs: Readonly<Record<ProxyName, Program>> = {
  // -e: until it has read where its log is, nginx would write to the system's.
  nginx: {
    name: 'nginx', endSignal: 'SIGQUIT',
    args: (file, directory) => ['-e', join(directory, 'error.log'), '-p', directory, '-c', file],
  },
  apache: { name: 'apache2', args: (file, directory) => ['-DFOREGROUND', '-d', directory, '-f', file], endSignal: 'SIGWINCH' },
  caddy: { name: 'caddy', args: (file) => ['run', '--config', file, '--adapter', 'caddyfile'], endSignal: 'SIGTERM' },
};

/** @param site makes the configuration. Resolves when both have ended. */
export async function runBehindProxy(
  name: ProxyName, config: Config, site: (config: Config, directory: string) => string, { say, print }: Terminal,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), `registrar-${name}-`));
  try {
    const host = config.serverName ?? (config.publicUrl === undefined ? 'localhost' : new URL(config.publicUrl).hostname);
    const publicUrl = config.publicUrl ?? `https://${host}:${config.listenTls.port}`;
    const service = { ...config, publicUrl };
    const file = join(directory, `${name}.conf`);
    // The site first: what is wrong with it is reported before anything is created.
    writeFileSync(file, site(service, directory));
    if (service.adminToken === undefined) {
      const { path, isNew } = await makeToken(createDirectory(service.data, say), 'admin');
      say(`The admin token is ${isNew ? 'new, and ' : ''}in "${path}". "registrar token" prints it.`);
    }
    let failure: RegistrarError | undefined;
    let fail: () => void = () => undefined;
    const failed = new Promise<void>((resolve) => (fail = resolve));
    const onFailed = (error: RegistrarError): void => {
      failure = error;
      fail();
    };
    const app = await openApp(service, { report: say, onFailed });
    try {
      const listening = `Registrar listens on ${publicUrl} through ${name}, and on ${app.url} itself\n`;
      await serveUntil(programs[name], file, directory, failed, () => print(listening));
    } finally {
      await app.close();
    }
    if (failure !== undefined) throw failure;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function serveUntil(program: Program, file: string, directory: string, failed: Promise<void>, started: () => unknown): Promise<void> {
  // In a process group of its own: Ctrl-C of the terminal is for this process, which ends the proxy in good order.
  const child = spawn(program.name, program.args(file, directory), {
    stdio: ['ignore', 'inherit', 'inherit'], detached: true,
    env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin`, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory },
  });
  await once(child, 'spawn').catch((cause: unknown) => {
    const isMissing = systemCode(cause) === 'ENOENT';
    const detail = isMissing ? `It is not installed. On Debian: apt-get install ${program.name}` : messageOf(cause);
    throw new RegistrarError('cannot-start', `Cannot run ${program.name}. ${detail}`, { cause });
  });
  const exited = once(child, 'exit');
  let isAsked = false;
  const asked = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        // A second signal ends it at once.
        if (isAsked) child.kill('SIGTERM');
        isAsked = true;
        resolve();
      });
    }
  });
  await started();
  await Promise.race([asked, failed, exited]);
  if (child.exitCode === null && child.signalCode === null) child.kill(program.endSignal);
  const [code, signal] = await exited;
  if (isAsked || code === 0) return;
  throw new RegistrarError('cannot-start', `${program.name} ended by itself with ${code ?? signal}. Its messages say why.`);
}
