#!/usr/bin/env node
/**
 * The one command: parses argv, calls lib, prints, exits. Results go to stdout, talk goes to stderr.
 * Exit codes: 0 done, 1 refused or failed, 2 usage.
 */

import { relative } from 'node:path';
import { openApp } from '../lib/app.ts';
import type { App } from '../lib/app.ts';
import { parseConfig } from '../lib/config.ts';
import { RegistrarError } from '../lib/errors.ts';
import { SystemdNotifier } from '../lib/ops/systemd-notify.ts';
import { standardOutput } from './log-output.ts';
import { check, checkUsage, compact, compactUsage, repair, repairUsage } from './maintain.ts';
import { proxyCommand, proxyUsage } from './proxy.ts';
import { openapi, openapiUsage } from './openapi.ts';
import { systemdCommand, systemdUsage } from './systemd.ts';
import { say } from './terminal.ts';
import { token, tokenUsage } from './token.ts';
import { exportCommand, exportUsage, importCommand, importUsage } from './transfer.ts';
import { userCommand, userUsage } from './user.ts';

const usage = `Usage: registrar COMMAND [flags]

  serve      runs the user-registration service
  user       adds, shows, lists, verifies and removes users
  import     takes users in, with their passwords or hashes, from lines of JSON
  export     gives all users out as lines of JSON, to move or as a backup
  check      reads every line of the users' file and says what is in it
  compact    writes the users' file anew without what says nothing any more
  repair     saves what can be saved of a damaged users' file
  token      prints the admin token, and makes it if there is none
  proxy      prints a site for nginx or Apache in front of it, or runs both
  openapi    prints the description of the API
  systemd    prints a unit that runs the service
  --help, --version

registrar COMMAND --help tells more. All of them may run at the same time on
the same directory. Exit codes: 0 done, 1 refused or failed, 2 usage.
`;

const serveUsage = `Usage: registrar serve [flags]

Runs the user-registration service.

  --port 8443        where it listens; 0 takes a free port and prints it
  --host 127.0.0.1   the address; others need an admin token: registrar token
  --socket PATH      a unix socket to listen on instead
  --http             plain HTTP, without a certificate: behind a proxy here
  --data data        the directory of the users' file
  --certs certs      the directory of cert.pem and key.pem, made by: make cert
  --kdf pbkdf2:sha256:600000
                     how new passwords are hashed: sha256, sha384 or sha512,
                     and 1 to 10000000 iterations
  --password-min 8   characters that a new password needs, 8 to 64
  --registration open
                     who may register users, once there is an admin token:
                     open is anyone, admin is its bearer
  --public-url URL   what the world calls it: https://registrar.example
  --allow-origin URL,URL
                     sites whose pages may use it from a browser (CORS)
  --trusted-proxy 127.0.0.1,10.0.0.0/8,unix
                     whose X-Forwarded-For says who the client is
  --limits on        how often a client may ask; off if a proxy limits
  --etcd URL,URL     users are kept in this etcd cluster and not in a file;
                     with --etcd-prefix /registrar/, --etcd-ca FILE,
                     --etcd-cert FILE, --etcd-key FILE, --etcd-user NAME,
                     --etcd-password-file FILE
  --log on           a line for each request on standard output; off without
  --drain-seconds 0  how long it says that it is not ready, and serves on,
                     before it ends
  --help

Every flag has a variable: --port 9443 is REGISTRAR_PORT=9443, and --http is
REGISTRAR_HTTP=1. REGISTRAR_ADMIN_TOKEN is the admin token, if it is not to be
in a file. Directories are relative to the current one. SIGHUP reads the
certificate anew; a changed one is noticed by itself.
Exit codes: 0 done, 1 refused or failed, 2 usage.

  registrar serve
  registrar serve --port 9443 --data /var/lib/registrar
  registrar serve --socket /run/registrar/http --http --trusted-proxy unix
`;

const commands: Readonly<Record<string, readonly [help: string, run: (args: readonly string[]) => Promise<void>]>> = {
  serve: [serveUsage, serve],
  user: [userUsage, userCommand],
  import: [importUsage, importCommand],
  export: [exportUsage, exportCommand],
  check: [checkUsage, check],
  compact: [compactUsage, compact],
  repair: [repairUsage, repair],
  token: [tokenUsage, token],
  proxy: [proxyUsage, proxyCommand],
  openapi: [openapiUsage, openapi],
  systemd: [systemdUsage, systemdCommand],
};

const version = '0.1.0';

async function main(args: readonly string[]): Promise<void> {
  const [name, ...rest] = args;
  const [help, run] = (Object.hasOwn(commands, name ?? '') ? commands[name ?? ''] : undefined) ?? [];
  if (name === '--version' || name === 'version') {
    process.stdout.write(`${version}\n`);
  } else if (asksForHelp(name)) {
    process.stdout.write(usage);
  } else if (run === undefined || help === undefined) {
    const what = name === undefined ? 'no command is given' : `there is no command "${name}"`;
    throw new RegistrarError('usage', `${what}; try registrar --help`);
  } else if (wantsHelp(rest)) {
    process.stdout.write(help);
  } else {
    await run(rest);
  }
}

function asksForHelp(word: string | undefined): boolean {
  return word === '--help' || word === '-h' || word === 'help';
}

/** A word behind the first may be a login, and so may all behind `--`. */
function wantsHelp([first, ...rest]: readonly string[]): boolean {
  const end = rest.indexOf('--');
  return asksForHelp(first) || rest.slice(0, end < 0 ? undefined : end).some((word) => word !== 'help' && asksForHelp(word));
}

async function serve(args: readonly string[]): Promise<void> {
  const config = parseConfig(args, process.env);
  let app: App | undefined;
  const onFailed = (error: RegistrarError): void => void failSoon(error, () => app);
  app = await openApp(config, { report: say, onFailed, output: standardOutput(), version });
  const systemd = new SystemdNotifier({ env: process.env, report: say });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      void systemd.stopping();
      stop(app);
    });
  }
  process.on('SIGHUP', () => app.reload());
  process.stdout.write(`Registrar listens on ${app.url}\n`);
  systemd.ready(app.url);
  if (process.stdout.isTTY && app.isOpen()) process.stdout.write(welcome(app, config.isPlain));
}

/** The store has failed: those who wait are still answered, then it is over. */
async function failSoon(error: RegistrarError, opened: () => App | undefined): Promise<void> {
  failure = error;
  const timer = setTimeout(() => fail(error), answerMsMax);
  await opened()?.close().catch(() => undefined);
  clearTimeout(timer);
  fail(error);
}

const answerMsMax = 1_000;

/** Why it is ending, if the store has failed: a signal that comes then does not make it a good end. */
let failure: RegistrarError | undefined;

function welcome({ url, where }: App, isPlain: boolean): string {
  const curl = isPlain ? 'curl' : 'curl -k';
  return `
Open mode: it serves this machine only, and asks nobody who they are.
Users are kept in ${where.startsWith('/') ? relative(process.cwd(), where) : where}. Ctrl-C ends it. Try:

  ${curl} -H 'Content-Type: application/json' -d '{"login":"alice","password":"correct horse battery staple"}' '${url}/user/'
  ${curl} '${url}/user/alice'
  ${curl} -X DELETE '${url}/user/alice'

`;
}

let isStopping = false;

/** The first signal ends it in good order, the second at once. */
function stop(app: App): void {
  if (isStopping) process.exit(1);
  isStopping = true;
  if (process.stderr.isTTY) say('stopping; once more ends it at once');
  app.close().then(() => (failure === undefined ? process.exit(0) : fail(failure)), fail);
}

function fail(error: unknown): void {
  if (error instanceof RegistrarError) say(error.message);
  else say(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exit(error instanceof RegistrarError && error.code === 'usage' ? 2 : 1);
}

// Whoever read what is printed here may leave, and the service goes on.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

main(process.argv.slice(2)).catch(fail);
