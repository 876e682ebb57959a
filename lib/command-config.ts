/** Flags and environment of the commands beside `serve` -> a frozen configuration for each; pure. All throw `usage`. */

import { fixed, passwordConfig, passwordFlags, storeConfig, storeFlags } from './config.ts';
import type { Config, StoreConfig } from './config.ts';
import { Flags, usage } from './flags.ts';
import type { Environment } from './flags.ts';
import { foreignFormats } from './password/foreign-hash.ts';
import type { ForeignFormat } from './password/foreign-hash.ts';

/** What the commands that look after the users' file take. */
export interface DataConfig {
  readonly data: string;
  readonly lockWaitMsMax: number;
  /** Nobody is asked. */
  readonly isYes: boolean;
}

export function parseDataConfig(args: readonly string[], env: Environment, { mayYes = false } = {}): DataConfig {
  const flags = new Flags(args, env, { values: { data: storeFlags.data }, switches: mayYes ? ['yes'] : [] });
  return Object.freeze({ data: flags.present('data', 'a directory'), lockWaitMsMax: fixed.lockWaitMsMax, isYes: flags.isOn('yes') });
}

/** What the command `token` takes. */
export interface TokenConfig extends StoreConfig {
  /** Another token, though there is one. */
  readonly isNew: boolean;
  /** Another key to sign sessions with, and no admin token. */
  readonly isSigningKey: boolean;
}

export function parseTokenConfig(args: readonly string[], env: Environment): TokenConfig {
  const flags = new Flags(args, env, { values: storeFlags, switches: ['new', 'signing-key'] });
  return Object.freeze({ ...storeConfig(flags), isNew: flags.isOn('new'), isSigningKey: flags.isOn('signing-key') });
}

/** How new passwords are checked and hashed. */
type PasswordConfig = Pick<Config, 'kdf' | 'passwordCodePointsMin' | 'passwordCodePointsMax' | 'hashWaitMsMax' | 'hashQueueMax'>;

/** What `import` takes. */
export interface ImportConfig extends StoreConfig, PasswordConfig {
  /** How the lines' hashes are written, if not as here. */
  readonly from: ForeignFormat | undefined;
  readonly isDryRun: boolean;
  /** A result for each line, as JSON. */
  readonly isJson: boolean;
  /** The file to read; undefined for the standard input. */
  readonly input: string | undefined;
}

export function parseImportConfig(args: readonly string[], env: Environment): ImportConfig {
  const values = { ...storeFlags, ...passwordFlags, from: '' };
  const flags = new Flags(args, env, { values, switches: ['dry-run', 'json'], hasWords: true });
  const [input, ...more] = flags.words;
  if (more.length > 0) throw usage('one file can be imported at a time; try registrar import --help');
  const from = flags.optional('from');
  const format = foreignFormats.find((known) => known === from);
  if (from !== undefined && format === undefined) throw usage(`--from: it has to be one of ${foreignFormats.join(', ')}`);
  return Object.freeze({
    ...fixed,
    ...storeConfig(flags),
    ...passwordConfig(flags),
    from: format,
    isDryRun: flags.isOn('dry-run'),
    isJson: flags.isOn('json'),
    input: input === '-' ? undefined : input,
  });
}

/** What `export` takes. */
export interface ExportConfig extends StoreConfig {
  /** The file to write; undefined for the standard output. */
  readonly output: string | undefined;
  /** One JSON document instead of a line for each user. */
  readonly isJson: boolean;
}

export function parseExportConfig(args: readonly string[], env: Environment): ExportConfig {
  const flags = new Flags(args, env, { values: { ...storeFlags, output: '-' }, switches: ['json'], hasWords: true });
  if (flags.words.length > 0) throw usage('a file to write is named with --output; try registrar export --help');
  const output = flags.present('output', 'a file');
  return Object.freeze({ ...storeConfig(flags), output: output === '-' ? undefined : output, isJson: flags.isOn('json') });
}

const userActions = ['add', 'show', 'list', 'passwd', 'verify', 'remove'] as const;

/** What the command `user` takes: what is done, to whom, and how. */
export interface UserConfig extends StoreConfig, PasswordConfig {
  readonly action: (typeof userActions)[number];
  /** As it was typed; empty for `list`, which is about everybody. */
  readonly login: string;
  /** For a program to read. */
  readonly isJson: boolean;
  /** Nobody is asked. */
  readonly isYes: boolean;
}

export function parseUserConfig(args: readonly string[], env: Environment): UserConfig {
  const flags = new Flags(args, env, { values: { ...storeFlags, ...passwordFlags }, switches: ['json', 'yes'], hasWords: true });
  const [word = '', login = '', ...more] = flags.words;
  const action = userActions.find((other) => other === word);
  if (action === undefined) throw usage(`user ${word}: the action has to be one of ${userActions.join(', ')}; try registrar user --help`);
  if (action === 'list' && login !== '') throw usage('user list is about everybody: it takes no login');
  if (action !== 'list' && login === '') throw usage(`user ${action}: no login is given; try registrar user --help`);
  if (more.length > 0) throw usage(`user ${action} takes one login, and a password on the command line would be seen by others`);
  if (flags.isOn('yes') && action !== 'remove') throw usage(`user ${action} asks nothing, so --yes has no meaning`);
  return Object.freeze({
    ...fixed, ...storeConfig(flags), ...passwordConfig(flags), action, login, isJson: flags.isOn('json'), isYes: flags.isOn('yes'),
  });
}

/** Of a command that takes no flags. */
export function parseNothing(args: readonly string[]): void {
  new Flags(args, {}, { values: {} });
}

/** What a program gives the library, for the flags of these names. */
export interface LibraryFlags {
  readonly data: string;
  readonly kdf?: string;
  readonly passwordMin?: number;
}

export function configOfLibrary({ data, kdf, passwordMin }: LibraryFlags): StoreConfig & PasswordConfig {
  const password = { ...(kdf === undefined ? {} : { kdf }), ...(passwordMin === undefined ? {} : { 'password-min': String(passwordMin) }) };
  const flags = new Flags([], {}, { values: { ...storeFlags, ...passwordFlags, data, ...password } });
  return Object.freeze({ ...fixed, ...storeConfig(flags), ...passwordConfig(flags) });
}
