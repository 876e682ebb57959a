/** What the process was given: arguments, variables, and the files that they name. */

import { readFileSync, statSync } from 'node:fs';
import { parseCommandLine } from '../../lib/config.ts';
import type { CommandName, Config } from '../../lib/config.ts';
import { RegistrarError, messageOf, systemCode } from '../../lib/errors.ts';
import { usage } from '../../lib/flags.ts';
import type { CommandLine, Environment } from '../../lib/flags.ts';
import type { Terminal } from './terminal.ts';

/** More than any secret or environment file has. */
const bytesMax = 65_536;

/** Throws `usage` or `cannot-start`. Variables without effect are reported. */
export function readCommandLine(
  command: CommandName,
  args: readonly string[],
  environment: Environment,
  terminal: Pick<Terminal, 'say'>,
): CommandLine<Config> {
  const files = {
    variables: (path: string) => parseEnvironmentFile(read(path), path),
    secret: (path: string) => readMountedSecret(path, terminal.say),
  };
  const line = parseCommandLine(command, args, environment, files);
  line.warnings.forEach(terminal.say);
  return line;
}

/** The format of systemd's EnvironmentFile: NAME=VALUE, quoted or not, and comments on lines of their own. Throws `usage`. */
export function parseEnvironmentFile(content: string, path: string): Environment {
  const variables: Record<string, string> = {};
  for (const [index, line] of content.split(/\r?\n/).entries()) {
    if (/^\s*(?:[#;]|$)/.test(line)) continue;
    const [, name = '', value = ''] = /^\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (name === '') throw usage(`Cannot read "${path}": line ${index + 1} is not NAME=VALUE.`);
    const [, single, double] = /^(?:'([^']*)'|"((?:[^"\\]|\\.)*)")$/.exec(value) ?? [];
    variables[name] = single ?? double?.replace(/\\(["\\$`])/g, '$1') ?? value;
  }
  return variables;
}

/** Docker and Kubernetes mount secrets as files of root, often readable by others: that is reported, and accepted. */
function readMountedSecret(path: string, report: Terminal['say']): string {
  const text = read(path);
  const { mode, uid } = statSync(path);
  const own = process.getuid?.() ?? uid;
  if (![0, own].includes(uid) && own !== 0) throw unreadable(path, `it belongs to uid ${uid}, not to root or to uid ${own}`);
  if ((mode & 0o007) !== 0) report(`WARNING: Others can read the secret "${path}": chmod o-rwx '${path}'.`);
  return text;
}

function read(path: string): string {
  try {
    const stats = statSync(path);
    if (!stats.isFile()) throw unreadable(path, 'it is not a file');
    if (stats.size > bytesMax) throw unreadable(path, `it is larger than ${bytesMax} bytes`);
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (cause instanceof RegistrarError) throw cause;
    throw unreadable(path, fileProblem(cause) + (systemCode(cause) === 'EACCES' ? remedy(path) : ''), cause);
  }
}

/** Names the user that may read the file by owning it, or by its group, as the service's own does. */
function remedy(path: string): string {
  const { uid, gid, mode } = statSync(path, { throwIfNoEntry: false }) ?? { uid: 0, gid: 0, mode: 0 };
  const accounts = readFileSync('/etc/passwd', 'utf8').split('\n').map((line) => line.split(':'));
  const isReader = ([, , id, group]: readonly string[]): boolean => id === String(uid) || (group === String(gid) && (mode & 0o040) !== 0);
  const [name] = accounts.filter((account) => account[2] !== '0').find(isReader) ?? ['root'];
  return `: run it as ${name}, with sudo -u ${name} …`;
}

/** Why a file cannot be opened, after "Cannot read ...:". */
export function fileProblem(cause: unknown): string {
  const code = systemCode(cause);
  return code === 'ENOENT' ? 'it does not exist' : code === 'EACCES' ? 'permission is denied' : messageOf(cause);
}

function unreadable(path: string, reason: string, cause?: unknown): RegistrarError {
  return new RegistrarError('cannot-start', `Cannot read "${path}": ${reason}.`, { cause });
}
