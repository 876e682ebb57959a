#!/usr/bin/env node
/**
 * The one command: parses argv, calls lib, prints, exits. Results go to stdout, talk goes to stderr.
 * Exit codes: 0 done, 1 refused or failed, 2 usage.
 */

import { relative } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { checkUsers, compactUsers, openApp, planRepair } from '../lib/app.ts';
import type { App } from '../lib/app.ts';
import { parseConfig, parseDataConfig } from '../lib/config.ts';
import { RegistrarError, grouped } from '../lib/errors.ts';

const usage = `Usage: registrar COMMAND [flags]

  serve      runs the user-registration service
  check      reads every line of the users' file and says what is in it
  compact    writes the users' file anew without what says nothing any more
  repair     saves what can be saved of a damaged users' file
  --help, --version

registrar COMMAND --help tells more. All of them may run at the same time on
the same directory. Exit codes: 0 done, 1 refused or failed, 2 usage.
`;

const serveUsage = `Usage: registrar serve [flags]

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
  --help

Every flag has a variable: --port 9443 is REGISTRAR_PORT=9443, and --http is
REGISTRAR_HTTP=1. Directories are relative to the current one.
Exit codes: 0 done, 1 refused or failed, 2 usage.

  registrar serve
  registrar serve --port 9443 --data /var/lib/registrar
`;

const checkUsage = `Usage: registrar check [--data data]

Reads every line of the users' file, verifies its checksum and its place, and
says what is in it. It changes nothing and waits for nobody.

  --data data        the directory of the users' file
  --help

Exit codes: 0 all is well, 1 damaged or not there, 2 usage.

  registrar check --data /var/lib/registrar
`;

const compactUsage = `Usage: registrar compact [--data data]

Writes the users' file anew without the lines that say nothing any more: what
users were before a change, and users who were removed. Services go on reading
and writing meanwhile, and do the same by themselves when more than half of the
file, and more than 1 MB, is of that kind. There has to be room for both files.

  --data data        the directory of the users' file
  --help

Exit codes: 0 done, 1 refused or failed, and nothing was changed, 2 usage.

  registrar compact --data /var/lib/registrar
`;

const repairUsage = `Usage: registrar repair [--data data] [--yes]

For a file that is refused as damaged, where no backup is to be had. It says
which lines cannot be read and whom they seem to be about, asks, writes a new
file with all the others, and keeps the old one as users.jsonl.damaged-<time>.
Where the lost line was a change, the user is as before it; where it was a
removal, the user is back.

  --data data        the directory of the users' file
  --yes              does not ask
  --help

Exit codes: 0 done or nothing to do, 1 refused or failed, 2 usage.

  registrar repair --data /var/lib/registrar
`;

const commands: Readonly<Record<string, readonly [help: string, run: (args: readonly string[]) => Promise<void>]>> = {
  serve: [serveUsage, serve],
  check: [checkUsage, check],
  compact: [compactUsage, compact],
  repair: [repairUsage, repair],
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
  } else if (rest.some(asksForHelp)) {
    process.stdout.write(help);
  } else {
    await run(rest);
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

async function check(args: readonly string[]): Promise<void> {
  const checked = await checkUsers(parseDataConfig(args, process.env));
  if (!checked.isSound) {
    process.stdout.write(`${checked.file}: damaged\n`);
    for (const loss of checked.losses) process.stdout.write(`  ${loss}\n`);
    throw new RegistrarError('corrupt', checked.reason);
  }
  const { users, lines, deadLines, batches, bytes, unfinishedBytes } = checked.facts;
  const found = `${grouped(users)} users, ${grouped(lines)} lines of which ${grouped(deadLines)} are dead, ${grouped(batches)} batches`;
  process.stdout.write(`${checked.file}: ${found}, ${grouped(bytes)} bytes; every checksum holds\n`);
  if (unfinishedBytes > 0) say(`the last ${grouped(unfinishedBytes)} bytes are of a write that is going on, or was cut off`);
}

async function compact(args: readonly string[]): Promise<void> {
  const { users, bytesBefore, bytesAfter } = await compactUsers(parseDataConfig(args, process.env), say);
  process.stdout.write(`${grouped(users)} users: ${grouped(bytesBefore)} bytes became ${grouped(bytesAfter)}\n`);
}

async function repair(args: readonly string[]): Promise<void> {
  const config = parseDataConfig(args, process.env, { mayYes: true });
  const { file, reason, losses, users, carryOut } = await planRepair(config);
  if (reason === undefined) {
    process.stdout.write(`${file}: nothing is wrong with it\n`);
    return;
  }
  say(reason);
  process.stdout.write(`${grouped(users)} users can be saved. What is lost:\n`);
  for (const loss of losses) process.stdout.write(`  ${loss}\n`);
  if (losses.length === 0) process.stdout.write('  whatever stood behind the end of the file\n');
  if (!config.isYes && !(await isAgreed('Write a new file with them, and keep the old one aside? [y/N] '))) {
    throw new RegistrarError('forbidden', 'nothing was changed; with --yes nobody is asked');
  }
  const aside = await carryOut();
  process.stdout.write(`${file} has ${grouped(users)} users now; the damaged file is ${aside}\n`);
}

async function isAgreed(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) return false;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await lines.question(question).finally(() => lines.close());
  return /^y(?:es)?$/i.test(answer.trim());
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
  app.close().then(() => (failure === undefined ? process.exit(0) : fail(failure)), fail);
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
