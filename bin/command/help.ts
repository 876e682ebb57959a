/** Everything that is made from the table of flags for a person: --help, the table in bin/README.md, an example environment file. */

import { flags } from '../../lib/config.ts';
import { variable } from '../../lib/flags.ts';
import type { Flag } from '../../lib/flags.ts';
import type { Command } from './command.ts';

const columns = 80;
const indent = 26;

export function overview(commands: readonly Command[]): string {
  const lines = commands.map(({ name, summary }) => `  ${name.padEnd(9)} ${summary}`);
  return `Usage: registrar COMMAND [flags]

${lines.join('\n')}

"registrar help COMMAND" tells more; "registrar help environment" prints an example
environment file, "registrar help flags" the table of all flags, "registrar --version"
the version. Commands work while services run on the same directory.
Exit codes: 0 done, 1 refused or failed, 2 usage.
`;
}

export function help({ name, words, about, examples }: Command): string {
  const lines = flagsOf(name).map(([flag, row]) => describe(flag, row));
  return `Usage: registrar ${[name, words, '[flags]'].filter((word) => word !== undefined).join(' ')}

${about.replace(/^\n/, '')}

${lines.join('\n')}

--drain-seconds 3 is REGISTRAR_DRAIN_SECONDS=3, and so on; a flag wins over its
variable. Flags of a single run (--help, --json, --yes, …) have no variable.

${examples.map((line) => `  ${line}`).join('\n')}
`;
}

function flagsOf(command: string): [name: string, row: Flag<unknown>][] {
  return Object.entries<Flag<unknown>>(flags).filter(([, { commands }]) => commands.includes(command));
}

function describe(name: string, row: Flag<unknown>): string {
  const left = `  ${argument(name, row)}`;
  const more = row.kind === 'secret' ? `; or ${variable(name)}` : isShown(row) ? ` [${row.default}]` : '';
  const right = wrap(row.help + more, columns - indent);
  const [first = '', ...rest] = left.length < indent ? [left.padEnd(indent) + (right.shift() ?? ''), ...right] : [left, ...right];
  return [first, ...rest.map((line) => ' '.repeat(indent) + line)].join('\n');
}

function argument(name: string, { value, kind }: Flag<unknown>): string {
  return [`--${name}${kind === 'secret' ? '-file' : ''}`, value].filter((word) => word !== undefined).join(' ');
}

/** Whether there is a default worth telling. */
function isShown(row: Flag<unknown>): boolean {
  return row.value !== undefined && row.default !== '' && row.default !== '-';
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** The table in Markdown. */
export function flagTable(): string {
  const rows = Object.entries(flags).map(([name, row]) => {
    const secret = row.kind === 'secret' ? `, \`${variable(name)}_FILE\`` : '';
    const variables = row.kind === 'run' ? '' : `\`${variable(name)}\`${secret}`;
    const cells = [`\`${argument(name, row)}\``, variables, isShown(row) ? `\`${row.default}\`` : '', row.help, commandNames(row)];
    return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  });
  return `| flag | variable | default | meaning | commands |\n| --- | --- | --- | --- | --- |\n${rows.join('\n')}\n`;
}

function commandNames({ commands }: Flag<unknown>): string {
  return commands.length === flags.help.commands.length ? 'all' : commands.join(' ');
}

/** For the unit's EnvironmentFile and for --env-file: every variable of the service, commented out. */
export function exampleEnvironment(): string {
  const rows = flagsOf('serve').filter(([name, { kind }]) => kind !== 'run' && name !== 'env-file');
  const entries = rows.map(([name, row]) => {
    const assignment = row.kind === 'secret' ? `${variable(name)}_FILE=` : `${variable(name)}=${row.default}`;
    return `# ${row.help}\n#${assignment}\n`;
  });
  const header = '# Variables of Registrar, as systemd reads them: for EnvironmentFile= of the unit, and --env-file of every command.';
  return `${header}\n\n${entries.join('\n')}`;
}
