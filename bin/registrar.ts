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

const usage = `Usage: registrar serve [flags]

Runs the user-registration service.

  --port 8443        where it listens; 0 takes a free port and prints it
  --host 127.0.0.1   the address: 127.0.0.1, localhost or ::1
  --data data        the directory of the users' file
  --certs certs      the directory of cert.pem and key.pem, made by: make cert
  --http             plain HTTP, without a certificate
  --kdf pbkdf2:sha256:600000
                     how new passwords are hashed: sha256, sha384 or sha512,
                     and 1 to 10000000 iterations
  --password-min 8   characters that a new password needs, 8 to 64
  --help, --version

Every flag has a variable: --port 9443 is REGISTRAR_PORT=9443, and --http is
REGISTRAR_HTTP=1. Directories are relative to the current one.
Exit codes: 0 done, 1 refused or failed, 2 usage.

  registrar serve
  registrar serve --port 9443 --data /var/lib/registrar
`;

const version = '0.1.0';

async function main(args: readonly string[]): Promise<void> {
  const [command, ...rest] = args;
  if (command === '--version' || command === 'version') {
    process.stdout.write(`${version}\n`);
  } else if (asksForHelp(command) || (command === 'serve' && rest.some(asksForHelp))) {
    process.stdout.write(usage);
  } else if (command === 'serve') {
    await serve(rest);
  } else {
    const what = command === undefined ? 'no command is given' : `there is no command "${command}"`;
    throw new RegistrarError('usage', `${what}; try registrar --help`);
  }
}

function asksForHelp(word: string | undefined): boolean {
  return word === '--help' || word === '-h' || word === 'help';
}

async function serve(args: readonly string[]): Promise<void> {
  const config = parseConfig(args, process.env);
  let app: App | undefined;
  app = await openApp(config, { report: say, onFailed: (error) => void failSoon(error, () => app) });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop(app));
  process.stdout.write(`Registrar listens on ${app.url}\n`);
  if (process.stdout.isTTY) process.stdout.write(welcome(app, config.isPlain));
}

/** The store has failed: those who wait are still answered, then it is over. */
async function failSoon(error: RegistrarError, opened: () => App | undefined): Promise<void> {
  const timer = setTimeout(() => fail(error), answerMsMax);
  await opened()?.close().catch(() => undefined);
  clearTimeout(timer);
  fail(error);
}

const answerMsMax = 1_000;

function welcome({ url, file }: App, isPlain: boolean): string {
  const curl = isPlain ? 'curl' : 'curl -k';
  return `
Open mode: it serves this machine only, and asks nobody who they are.
Users are kept in ${relative(process.cwd(), file)}. Ctrl-C ends it. Try:

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
  app.close().then(() => process.exit(0), fail);
}

function say(line: string): void {
  process.stderr.write(`registrar: ${line}\n`);
}

function fail(error: unknown): void {
  if (error instanceof RegistrarError) say(error.message);
  else say(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exit(error instanceof RegistrarError && error.code === 'usage' ? 2 : 1);
}

// Whoever read what is printed here may leave, and the service goes on.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

main(process.argv.slice(2)).catch(fail);
