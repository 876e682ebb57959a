/**
 * Finds the command, reads what it was given, runs it, and reports what it throws. Results go to standard output, all else to standard
 * error. Exit codes: 0 done, 1 refused or failed, 2 usage.
 */

import { RegistrarError } from '../../lib/errors.ts';
import { nearest, usage } from '../../lib/flags.ts';
import type { Environment } from '../../lib/flags.ts';
import type { Command } from './command.ts';
import { readCommandLine } from './command-line.ts';
import { check } from './check.ts';
import { compact } from './compact.ts';
import { exportCommand } from './export.ts';
import { exampleEnvironment, flagTable, help, overview } from './help.ts';
import { health } from './health.ts';
import { importCommand } from './import.ts';
import { openapi } from './openapi.ts';
import { proxy } from './proxy.ts';
import { repair } from './repair.ts';
import { restore } from './restore.ts';
import { serve } from './serve.ts';
import { Terminal } from './terminal.ts';
import { token } from './token.ts';
import { user } from './user.ts';
import { version } from './version.ts';

const commands: readonly Command[] = [
  serve, user, importCommand, exportCommand, check, compact, repair, restore, token, proxy, openapi, health,
];

const flushMsMax = 1_000;

/** Ends the process. */
export async function start({ argv, env, exit, stdout, stderr }: NodeJS.Process): Promise<void> {
  // The reader of the output may leave, and the service goes on.
  for (const stream of [stdout, stderr]) stream.on('error', () => undefined);
  // By default SIGUSR1 opens Node's debugger on a port of this machine.
  process.on('SIGUSR1', () => undefined);
  const code = await main(argv.slice(2), env, new Terminal(process));
  stdout.write('', () => exit(code));
  // Results were waited for when they were printed. What is left is the log, in a pipe whose reader may have stopped reading.
  setTimeout(() => exit(code), flushMsMax);
}

/** Resolves with the exit code. */
export async function main(args: readonly string[], environment: Environment, terminal: Terminal): Promise<number> {
  try {
    return await dispatch(args, environment, terminal);
  } catch (error) {
    const isOurs = error instanceof RegistrarError;
    terminal.say(isOurs ? withCommand(error.message, args) : error instanceof Error ? (error.stack ?? error.message) : String(error));
    return isOurs && error.code === 'usage' ? 2 : 1;
  }
}

async function dispatch([name = '', ...rest]: readonly string[], environment: Environment, terminal: Terminal): Promise<number> {
  const print = async (text: string): Promise<number> => ((await terminal.print(text)), 0);
  if (['--help', '-h', 'help'].includes(name)) return print(helpOn(rest[0]));
  if (['--version', 'version'].includes(name)) return print(`${version()}\n`);
  const command = find(name);
  const line = readCommandLine(command.name, rest, environment, terminal);
  if (line.config.help) return print(help(command));
  const wordsMax = command.words?.split(' ').length ?? 0;
  // The words are not repeated: one of them may be a password.
  if (line.words.length > wordsMax) throw usage(`registrar ${name} takes ${command.words ?? 'flags only'}. See "registrar help ${name}".`);
  return (await command.run(line, terminal)) ?? 0;
}

function helpOn(topic: string | undefined): string {
  if (topic === undefined) return overview(commands);
  if (topic === 'environment') return exampleEnvironment();
  return topic === 'flags' ? flagTable() : help(find(topic));
}

function find(name: string): Command {
  const command = commands.find((known) => known.name === name);
  if (command !== undefined) return command;
  const near = nearest(name, commands.map((known) => known.name));
  const hint = near === undefined ? '' : ` Did you mean "${near}"?`;
  throw usage(`${name === '' ? 'No command is given.' : `There is no command "${name}".${hint}`} See "registrar help".`);
}

/** Completes "sudo -u NAME …" by the command that was given. */
function withCommand(message: string, args: readonly string[]): string {
  const quoted = args.map((word) => (/^[\w./:,@+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`));
  return message.replace(/(sudo -u \S+) …/, `$1 ${['registrar', ...quoted].join(' ').replaceAll('$', '$$$$')}`);
}
