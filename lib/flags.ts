/**
 * Reads arguments and variables by a table of flags; pure. A flag wins over its variable, a variable of the environment over
 * one of the environment file, and that over the default: `--port 9443` is `REGISTRAR_PORT=9443`. Errors name what was given.
 * A secret is read from a file or a variable, never from an argument, which other users of the machine can see: for the
 * secret `admin-token` these are --admin-token-file, REGISTRAR_ADMIN_TOKEN_FILE and REGISTRAR_ADMIN_TOKEN.
 */

import { parseArgs } from 'node:util';
import { RegistrarError } from './errors.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** What a flag takes. `read` returns undefined for anything else; `is` completes "it must be …". */
export interface Type<Value> {
  readonly read: (text: string) => Value | undefined;
  readonly is: string;
  /** An empty text stands for no value. */
  readonly isOptional?: boolean;
}

export interface Flag<Value> {
  /** What stands for the value in --help; undefined for a switch. */
  readonly value: string | undefined;
  readonly default: string;
  readonly type: Type<Value>;
  readonly commands: readonly string[];
  readonly help: string;
  /** `run`: it says what one run does, and has no variable. */
  readonly kind: 'flag' | 'run' | 'secret';
}

export type FlagTable = Readonly<Record<string, Flag<unknown>>>;

type Camel<Name extends string> = Name extends `${infer Head}-${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : Name;

/** The values of all flags: `drainSeconds` for `drain-seconds`. */
export type ConfigOf<Table extends FlagTable> = {
  readonly [Name in keyof Table as Name extends string ? Camel<Name> : never]: Table[Name] extends Flag<infer Value> ? Value : never;
};

type Row<Value> = [value: string | undefined, fallback: string, type: Type<Value>, commands: readonly string[], help: string];

export function flag<Value>(...[value, fallback, type, commands, help]: Row<Value>): Flag<Value> {
  return { value, default: fallback, type, commands, help, kind: 'flag' };
}

export function run<Value>(...row: Row<Value>): Flag<Value> {
  return { ...flag(...row), kind: 'run' };
}

export function secret(type: Type<string>, commands: readonly string[], help: string): Flag<string | undefined> {
  return { value: 'FILE', default: '', type, commands, help, kind: 'secret' };
}

/** @param is as in "a directory"; without it the text may be empty. */
export function text(is?: string): Type<string> {
  return { read: (value) => (value === '' && is !== undefined ? undefined : value), is: is ?? 'text' };
}

export function matching(pattern: RegExp, is: string): Type<string> {
  return { read: (value) => (pattern.test(value) ? value : undefined), is };
}

export function optional<Value>(type: Type<Value>): Type<Value | undefined> {
  return { ...type, isOptional: true };
}

export function list<Value>({ read, is }: Type<Value>): Type<readonly Value[]> {
  return {
    read: (value) => {
      const items = value.split(',').map((item) => item.trim()).filter((item) => item !== '').map(read);
      const known = items.filter((item) => item !== undefined);
      return known.length === items.length ? known : undefined;
    },
    is: `${is}, or several with commas between`,
  };
}

export function wholeNumber(min: number, max: number): Type<number> {
  return {
    read: (value) => (/^\d{1,9}$/.test(value) && Number(value) >= min && Number(value) <= max ? Number(value) : undefined),
    is: `a whole number from ${min} to ${max}`,
  };
}

export function oneOf<Value extends string>(...values: readonly Value[]): Type<Value> {
  return { read: (value) => values.find((known) => known === value), is: values.join(' or ') };
}

export const onOff: Type<boolean> = {
  read: (value) => (/^(?:on|1|yes|true)$/.test(value) ? true : /^(?:off|0|no|false)?$/.test(value) ? false : undefined),
  is: 'on or off',
};

export function usage(detail: string): RegistrarError {
  return new RegistrarError('usage', detail);
}

/** `REGISTRAR_DRAIN_SECONDS` for `drain-seconds`. */
export function variable(name: string): string {
  return `REGISTRAR_${name.toUpperCase().replaceAll('-', '_')}`;
}

/** A text and where it was given: `--port`, `REGISTRAR_PORT`. */
export interface Given {
  readonly text: string;
  readonly source: string;
}

/** Reads the text of files that flags and variables name. Both throw `cannot-start`, or `usage`. */
export interface Files {
  readonly variables: (path: string) => Environment;
  readonly secret: (path: string) => string;
}

export interface CommandLine<Config> {
  readonly config: Config;
  /** Words that are not flags: an action, a login, a file. */
  readonly words: readonly string[];
  /** What was given by flags and variables, as text under the flag that gives the same; no secret itself, but its file. */
  readonly given: ReadonlyMap<string, string>;
  /** Variables that have no effect, a line each. */
  readonly warnings: readonly string[];
}

/** Throws `usage`, with one line that says what to change. With --help no value is read. */
export function readCommandLine<Table extends FlagTable>(
  table: Table,
  command: string,
  args: readonly string[],
  environment: Environment,
  files: Files,
): CommandLine<ConfigOf<Table>> {
  // Wrong positions and lost writes were seen with it: nodejs/node#55113.
  if (!['', '0'].includes(environment.UV_USE_IO_URING ?? '')) throw usage('Unset UV_USE_IO_URING: files are not safe with it.');
  const { flags, words } = readArguments(table, command, args);
  const isHelp = flags.has('help');
  const { variables, warnings } = readEnvironment(table, isHelp ? {} : environment, flags.get('env-file')?.text, files);
  const given = new Map<string, string>();
  const values = Object.entries(table).map(([name, row]) => {
    const found = row.commands.includes(command) && (!isHelp || name === 'help') ? find(name, row, flags, variables, files) : undefined;
    if (found !== undefined && row.kind !== 'secret') given.set(name, found.text);
    if (found?.path !== undefined) given.set(`${name}-file`, found.path);
    if (found !== undefined) return [camel(name), readValue(row, found)];
    return [camel(name), row.kind === 'secret' ? undefined : readValue(row, { text: row.default, source: `--${name}` })];
  });
  return { config: Object.freeze(Object.fromEntries(values)) as ConfigOf<Table>, words, given, warnings };
}

/** Throws `usage` for a text that the flag does not take. */
export function readValue<Value>({ type, kind }: Flag<Value>, { text: value, source }: Given): Value {
  const isEmpty = type.isOptional === true && value === '';
  const read = isEmpty ? undefined : type.read(value);
  if (read !== undefined || isEmpty) return read as Value;
  throw usage(`Invalid value ${kind === 'secret' ? '' : `${JSON.stringify(value)} `}for ${source}: it must be ${type.is}.`);
}

function readArguments(table: FlagTable, command: string, args: readonly string[]): { flags: Map<string, Given>; words: string[] } {
  const own = Object.entries(table).filter(([, { commands }]) => commands.includes(command));
  const known = new Map(own.map(([name, row]) => [row.kind === 'secret' ? `${name}-file` : name, row]));
  const options = Object.fromEntries([...known].map(([name, { value }]) => {
    const type = value === undefined ? 'boolean' as const : 'string' as const;
    return [name, name === 'help' ? { type, short: 'h' } : { type }];
  }));
  // Not strict: its errors name neither the nearest flag nor the command's help.
  const { tokens } = parseArgs({ args: [...args], options, strict: false, tokens: true });
  const flags = new Map<string, Given>();
  const words: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') words.push(token.value);
    if (token.kind !== 'option') continue;
    const { name, rawName, value, inlineValue: isInline } = token;
    const row = known.get(name);
    if (row === undefined) throw unknownFlag(command, name, rawName, [...known.keys()]);
    const isMissing = value === undefined || (!isInline && value.startsWith('--'));
    if (row.value !== undefined && isMissing) throw usage(`--${name} needs a value: --${name} ${row.value}.`);
    flags.set(name, { text: value ?? 'on', source: `--${name}` });
  }
  return { flags, words };
}

function unknownFlag(command: string, name: string, given: string, known: readonly string[]): RegistrarError {
  if (known.includes(`${name}-file`)) {
    return usage(`A secret is not an argument, which other users can see: use --${name}-file or ${variable(name)}.`);
  }
  const near = nearest(name, known);
  const hint = near === undefined ? '' : ` Did you mean --${near}?`;
  return usage(`registrar ${command} has no flag ${given}.${hint} See "registrar help ${command}".`);
}

type Variables = ReadonlyMap<string, Given>;

interface Found extends Given {
  /** The file of a secret. */
  readonly path?: string;
}

function find(name: string, { kind }: Flag<unknown>, flags: Variables, variables: Variables, files: Files): Found | undefined {
  if (kind !== 'secret') return flags.get(name) ?? (kind === 'flag' ? variables.get(variable(name)) : undefined);
  const flagged = flags.get(`${name}-file`);
  const byFile = flagged ?? variables.get(`${variable(name)}_FILE`);
  const plain = flagged === undefined ? variables.get(variable(name)) : undefined;
  if (byFile !== undefined && plain !== undefined) throw usage(`${plain.source} and ${byFile.source} are both set: unset one.`);
  const source = byFile && `${byFile.source} ("${byFile.text}")`;
  const found = byFile === undefined ? plain : { text: files.secret(byFile.text), source: source ?? '', path: byFile.text };
  // A newline at its end is not part of a secret.
  return found && { ...found, text: found.text.replace(/\r?\n$/, '') };
}

/** The variables that have an effect, and a line for each that has none. */
function readEnvironment(table: FlagTable, environment: Environment, file: string | undefined, files: Files) {
  const rows = Object.entries(table).filter(([, { kind }]) => kind !== 'run');
  const secrets = rows.filter(([, { kind }]) => kind === 'secret').flatMap(([name]) => [variable(name), `${variable(name)}_FILE`]);
  const known = [...rows.map(([name]) => variable(name)), ...secrets];
  const variables = new Map<string, Given>();
  const [warnings, injected]: [string[], string[]] = [[], []];
  const add = (more: Environment, suffix: string): void => {
    for (const [name, value = ''] of Object.entries(more)) {
      if (!name.startsWith('REGISTRAR_')) continue;
      if (isInjected(name, value)) injected.push(name);
      else if (!known.includes(name)) warnings.push(unknownVariable(name, suffix, known, secrets));
      else if (!variables.has(name)) variables.set(name, { text: value, source: `${name}${suffix}` });
    }
  };
  add(environment, '');
  const path = file ?? variables.get(variable('env-file'))?.text ?? '';
  if (path !== '') add(files.variables(path), ` in "${path}"`);
  if (injected.length > 0) warnings.push(`Ignored variables that Kubernetes sets for a Service of this name: ${injected.join(', ')}.`);
  return { variables, warnings };
}

/** https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables */
function isInjected(name: string, value: string): boolean {
  const isAddress = /_SERVICE_(?:HOST|PORT(?:_\w+)?)$|_PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?$/.test(name);
  return isAddress || (name.endsWith('_PORT') && /^(?:tcp|udp|sctp):\/\//.test(value));
}

/** A misspelt secret would leave the service open, so it throws `usage`. */
function unknownVariable(name: string, suffix: string, known: readonly string[], secrets: readonly string[]): string {
  const near = nearest(name, known);
  const line = `Unknown variable ${name}${suffix}.${near === undefined ? '' : ` Did you mean ${near}?`}`;
  if (near !== undefined && secrets.includes(near)) throw usage(line);
  return line;
}

/** The word that has the most letters in common, if at most a third of its letters differ. */
export function nearest(word: string, words: readonly string[]): string | undefined {
  const bare = (name: string): string => name.replace(/^REGISTRAR_/, '');
  const scored = words.map((known) => ({ known, differs: difference(bare(word), bare(known)) }));
  const best = scored.sort((a, b) => a.differs - b.differs)[0];
  return best !== undefined && best.differs <= Math.max(1, bare(best.known).length / 3) ? best.known : undefined;
}

function difference(one: string, other: string): number {
  let rest = other;
  let differs = 0;
  for (const letter of one) {
    if (rest.includes(letter)) rest = rest.replace(letter, '');
    else differs++;
  }
  return Math.max(differs, rest.length);
}

function camel(name: string): string {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}
