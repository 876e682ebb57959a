/** The commands that move users in and out: import, export. What they do is lib's business. */

import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { addAbortSignal } from 'node:stream';
import { parseExportConfig, parseImportConfig } from '../lib/command-config.ts';
import { RegistrarError, grouped, messageOf, noRoom, systemCode } from '../lib/errors.ts';
import { exportUsers, importUsers } from '../lib/moving.ts';
import type { ImportResult } from '../lib/moving.ts';
import { say } from './terminal.ts';

export const importUsage = `Usage: registrar import [flags] [FILE]

Takes users in from FILE, or from standard input: a line of JSON for each.

  {"login":"alice","password":"correct horse battery"}
  {"login":"bob","kdf":"pbkdf2:sha256:600000","password":"salt$hash"}

or what registrar export has written. A password in clear has to keep the rules
for a new one. It never changes a user: one who is there already is left alone,
so an import that was cut off is run again as it was. Services go on meanwhile.

  --from FORMAT      the passwords are hashes as these write them: werkzeug,
                     django, phc or passlib, by pbkdf2 with sha256, sha384 or
                     sha512. Each is made anew when its user signs in
  --dry-run          says what would happen, and writes nothing
  --json             a line of JSON for each line of FILE on standard output
  --data data        the directory of the users' file
  --etcd URL,URL     users are in a cluster; with the other flags of serve for it
  --kdf pbkdf2:sha256:600000
                     how passwords in clear are hashed
  --password-min 8   characters that a password in clear needs, 8 to 64
  --help

Every line may have "registered", as in "2026-11-22T15:00:00.000Z".
Exit codes: 0 every line is in, 1 some were refused or it failed, and it says
which and where, 2 usage, 130 or 143 interrupted, and it says how far it came.

  registrar import users.jsonl
  registrar import --from django --dry-run django.jsonl
`;

export const exportUsage = `Usage: registrar export [flags]

Gives all users out, a line of JSON for each, hashes included: keep it as you
would keep the users' file. It is a backup that is made while services run, and
registrar import takes it back. Each user is as at the moment it is read.

  --output FILE      writes FILE, for its owner alone, whole or not at all;
                     without it they go to standard output
  --json             one JSON document instead, which import does not take
  --data data        the directory of the users' file
  --etcd URL,URL     users are in a cluster; with the other flags of serve for it
  --help

Exit codes: 0 done, 1 refused or failed, 2 usage, 130 or 143 interrupted, 141
whoever read the output has left. Except with 0 there is no new FILE.

  registrar export --output backup.jsonl
  registrar export --data /var/lib/registrar | gzip > users.jsonl.gz
`;

const progressMs = 200;
const exitCodes = { SIGINT: 130, SIGTERM: 143 } as const;
const readerHasLeft = 141;

type Outcome = ImportResult['outcome'];

export async function importCommand(args: readonly string[]): Promise<void> {
  const config = parseImportConfig(args, process.env);
  const interruption = interruptible();
  const input = open(config.input, interruption.signal);
  const counts: Record<Outcome, number> = { added: 0, unchanged: 0, refused: 0, invalid: 0 };
  const progress = new Progress();
  let line = 0;
  try {
    for await (const results of importUsers(config, { input, report: say, signal: interruption.signal })) {
      for (const result of results) counts[result.outcome]++;
      line = results.at(-1)?.line ?? line;
      if (results.some((result) => 'detail' in result)) progress.clear();
      await tell(results, config.isJson);
      progress.show(`${grouped(line)} lines`);
    }
  } catch (error) {
    const isOurs = error instanceof RegistrarError;
    const what = isOurs ? error.message : `Cannot read the input: ${messageOf(error)}`;
    if (!isOurs && systemCode(error) === undefined) throw error;
    throw new RegistrarError(isOurs ? error.code : 'cannot-start', `${what}. ${howFar(line, counts.added)}`, { cause: error });
  } finally {
    progress.clear();
    interruption.end();
    input.destroy();
  }
  const summary = summaryOf(counts, config.isDryRun);
  if (config.isJson) say(summary);
  else process.stdout.write(`${summary}\n`);
  if (interruption.signal.aborted) {
    say(`interrupted. ${howFar(line, counts.added)}`);
    process.exitCode = interruption.exitCode();
  } else if (counts.refused + counts.invalid > 0) {
    process.exitCode = 1;
  }
}

export async function exportCommand(args: readonly string[]): Promise<void> {
  const config = parseExportConfig(args, process.env);
  // Writing to a pipe that nobody reads from blocks everything: there a signal had better end it.
  const interruption = config.output === undefined ? undefined : interruptible();
  const signal = interruption?.signal ?? new AbortController().signal;
  try {
    await exportUsers(config, { write, report: say, signal });
  } catch (error) {
    if (interruption?.signal.aborted) {
      say(`interrupted: "${config.output}" is as it was`);
      process.exitCode = interruption.exitCode();
    } else if (systemCode(error) === 'EPIPE') {
      process.exitCode = readerHasLeft;
    } else if (systemCode(error) !== undefined && !(error instanceof RegistrarError)) {
      const reason = noRoom(error) ? 'there is no room for it' : messageOf(error);
      throw new RegistrarError('storage-full', `Cannot write to standard output: ${reason}; what is there is not all`, { cause: error });
    } else {
      throw error;
    }
  } finally {
    interruption?.end();
  }
}

/** Rejects with what the system says. */
function write(bytes: Buffer | string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error === undefined || error === null ? resolve() : reject(error)));
  });
}

function open(path: string | undefined, signal: AbortSignal): Readable {
  if (path === undefined && process.stdin.isTTY) say('it reads lines from the terminal, up to Ctrl-D');
  return addAbortSignal(signal, path === undefined ? process.stdin : createReadStream(path));
}

/** Each line that is not in, for a person; or each line, for a program. */
async function tell(results: readonly ImportResult[], isJson: boolean): Promise<void> {
  if (isJson) {
    // Whoever reads the results may leave: the import is not undone by that.
    await write(results.map((result) => `${JSON.stringify(result)}\n`).join('')).catch((error: unknown) => {
      if (systemCode(error) !== 'EPIPE') throw error;
    });
    return;
  }
  for (const result of results) if ('detail' in result) say(`line ${grouped(result.line)}: ${result.detail}`);
}

function summaryOf({ added, unchanged, refused, invalid }: Readonly<Record<Outcome, number>>, isDryRun: boolean): string {
  const lines = added + unchanged + refused + invalid;
  const [add, refuse] = isDryRun ? ['to add', 'to refuse'] : ['added', 'refused'];
  const said = `${grouped(added)} ${add}, ${grouped(unchanged)} there already, ${grouped(refused)} ${refuse}, ${grouped(invalid)} invalid`;
  return `${grouped(lines)} ${lines === 1 ? 'line' : 'lines'}: ${said}${isDryRun ? '; nothing was written' : ''}`;
}

function howFar(line: number, added: number): string {
  return `It came to line ${grouped(line)}; ${grouped(added)} users were added and stay. Run it again to go on`;
}

/** The first signal ends it in good order, the second at once. */
function interruptible(): { signal: AbortSignal; exitCode: () => number; end: () => void } {
  const controller = new AbortController();
  let code = 1;
  const stop = (name: NodeJS.Signals): void => {
    code = name === 'SIGTERM' ? exitCodes.SIGTERM : exitCodes.SIGINT;
    if (controller.signal.aborted) process.exit(code);
    controller.abort();
  };
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, stop);
  const end = (): void => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.off(name, stop);
  };
  return { signal: controller.signal, exitCode: () => code, end };
}

/** How far it is, on a terminal alone. */
class Progress {
  #shownAt = 0;
  #isShown = false;

  show(text: string): void {
    const now = performance.now();
    if (!process.stderr.isTTY || now - this.#shownAt < progressMs) return;
    process.stderr.write(`\r${text}`);
    this.#shownAt = now;
    this.#isShown = true;
  }

  clear(): void {
    if (this.#isShown) process.stderr.write('\r\x1b[K');
    this.#isShown = false;
  }
}
