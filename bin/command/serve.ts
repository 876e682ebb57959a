/** The command `serve`: runs the service until a signal, its terminal's end or a failed store ends it. */

import { X509Certificate } from 'node:crypto';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isatty } from 'node:tty';
import { openApp } from '../../lib/app.ts';
import type { App } from '../../lib/app.ts';
import type { Config } from '../../lib/config.ts';
import type { RegistrarError } from '../../lib/errors.ts';
import { systemCode } from '../../lib/errors.ts';
import { SystemdNotifier } from '../../lib/telemetry/systemd-notify.ts';
import type { Command } from './command.ts';
import { standardOutput } from './log-output.ts';
import type { Terminal } from './terminal.ts';
import { version } from './version.ts';

export const serve: Command = {
  name: 'serve',
  summary: 'runs the user-registration service',
  about: `
Runs the user-registration service. Without an admin token it is in
unauthenticated mode: it accepts clients on this machine only, and allows them
everything. "registrar token" makes the token.

SIGINT and SIGTERM stop it: it answers the requests in progress for up to 10 s;
a second signal ends it at once. SIGHUP reads the certificate again; a changed
certificate is also noticed by itself. A service that was started on a terminal
ends with the terminal, except under nohup.`,
  examples: [
    'registrar serve',
    'registrar serve --port 9443 --data /var/lib/registrar',
    'registrar serve --socket /run/registrar/http --http --trusted-proxy unix',
  ],
  run: async ({ config }, terminal) => {
    let failure: RegistrarError | undefined;
    let end: () => void = () => undefined;
    let fail: () => void = () => undefined;
    const ending = new Promise<void>((resolve) => (end = resolve));
    const failed = new Promise<void>((resolve) => (fail = resolve));
    const onFailed = (error: RegistrarError): void => {
      failure = error;
      fail();
    };
    const app = await openApp(config, { report: terminal.say, onFailed, output: standardOutput(), version: version() });
    const systemd = new SystemdNotifier(process.env, terminal.say);
    stopBySignal(terminal, end);
    stopWithTerminal(end, () => app.reload());
    const isTried = terminal.hasOutput && app.mode() === 'unauthenticated';
    // The service goes on where its output cannot be written.
    terminal.print(greeting(app, config) + (isTried ? examples(app, config) : '')).catch(() => undefined);
    systemd.ready(app.url);
    await Promise.race([ending, failed]);
    void systemd.stopping();
    // After a failure of the store pending requests are still answered, but not for long.
    await Promise.race([app.close(), failed.then(() => sleep(answerMsMax))]);
    if (failure !== undefined) throw failure;
  },
};

const answerMsMax = 1_000;

function stopBySignal(terminal: Terminal, end: () => void): void {
  let isStopping = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (isStopping) process.exit(1);
      isStopping = true;
      if (process.stderr.isTTY) terminal.say('Stopping. A second signal ends it at once.');
      end();
    });
  }
}

const terminalCheckMs = 5_000;

/**
 * A closed terminal sends SIGHUP, as does "reload" of systemd: what tells them apart is whether there still is a terminal. A service
 * in the background of a shell that exits gets no signal, so a timer checks as well. Under nohup no stream is a terminal.
 */
function stopWithTerminal(end: () => void, reload: () => void): void {
  const isOnTerminal = [0, 1, 2].some((fd) => isatty(fd));
  process.on('SIGHUP', () => (isOnTerminal && !hasTerminal() ? end() : reload()));
  if (isOnTerminal && hasTerminal()) setInterval(() => hasTerminal() || end(), terminalCheckMs).unref();
}

function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch (error) {
    return systemCode(error) !== 'ENXIO';
  }
}

function greeting({ url, page, mode, where }: App, config: Config): string {
  const warning = isSelfSigned(config) ? '; the certificate is self-signed, so browsers warn' : '';
  const lines = [
    ...(page === undefined ? [] : [`Page:  ${page}${warning}`]),
    `Mode:  ${modes[mode()]}`,
    `Users: ${where}`,
  ];
  return `Registrar listens on ${url}\n${lines.map((line) => `  ${line}\n`).join('')}`;
}

const modes = {
  unauthenticated: 'unauthenticated: every direct client on this machine may do everything',
  authenticated: 'authenticated: requests need credentials',
} as const;

function isSelfSigned({ http, certs }: Config): boolean {
  if (http) return false;
  const certificate = new X509Certificate(readFileSync(join(certs, 'cert.pem')));
  return certificate.issuer === certificate.subject;
}

function examples({ url }: App, { http }: Config): string {
  const curl = http ? 'curl' : 'curl -k';
  return `
Ctrl-C ends it. Try:

  ${curl} -H 'Content-Type: application/json' -d '{"login":"alice","password":"correct horse battery staple"}' '${url}/user/'
  ${curl} '${url}/user/alice'
  ${curl} -X DELETE '${url}/user/alice'

`;
}
