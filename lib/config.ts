/**
 * Flags and environment -> one frozen Config; pure. Every default and every limit that an operator may
 * know stands here, with its unit. A flag wins over its variable: `--port 8443` is `REGISTRAR_PORT=8443`.
 */

import { parseArgs } from 'node:util';
import type { ParseArgsConfig } from 'node:util';
import type { RegistrationMode } from './access.ts';
import { RegistrarError, messageOf } from './errors.ts';
import { foreignFormats } from './password/foreign-hash.ts';
import type { ForeignFormat } from './password/foreign-hash.ts';
import { parseKdf } from './password/kdf.ts';
import type { Kdf } from './password/kdf.ts';

/** The members of an etcd cluster, and how they know us. */
export interface EtcdConfig {
  readonly endpoints: readonly string[];
  /** Of all keys. */
  readonly prefix: string;
  /** Files in PEM: who has signed the members' certificates, our own, and its key. */
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly user: string | undefined;
  readonly passwordFile: string | undefined;
}

/** Where users are kept. */
export interface StoreConfig {
  /** The directory of the users' file, and of secrets. */
  readonly data: string;
  /** Users are in a cluster instead of a file. */
  readonly etcd: EtcdConfig | undefined;
  /** How long a write waits for another process to let go of the file; past it, 503. */
  readonly lockWaitMsMax: number;
}

export interface Config extends StoreConfig {
  /** The directory of cert.pem and key.pem. */
  readonly certs: string;
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Plain HTTP, without a certificate: for a proxy on this machine. */
  readonly isPlain: boolean;
  /** The path of a unix socket to listen on instead of a port. */
  readonly socket: string | undefined;
  /** Who may register users once there is an admin token. */
  readonly registration: RegistrationMode;
  /** The origin under which the world knows the service, as in `https://registrar.example`. */
  readonly publicUrl: string | undefined;
  /** Origins of other sites whose pages may use the service. */
  readonly allowedOrigins: readonly string[];
  /** Addresses, networks and `unix`, separated by commas, whose X-Forwarded-For counts. */
  readonly trustedProxies: string;
  readonly isLimited: boolean;
  /** From the environment, never from argv: whoever lists processes reads that. */
  readonly adminToken: string | undefined;
  readonly kdf: Kdf;
  readonly passwordCodePointsMin: number;
  readonly passwordCodePointsMax: number;
  /** How long a request may have to wait for its hash; past it, 503. */
  readonly hashWaitMsMax: number;
  readonly hashQueueMax: number;
  readonly connectionsMax: number;
  readonly sessionSeconds: number;
  /** How long, and for how many users, a password that was right is not hashed again. */
  readonly verifiedSecondsMax: number;
  readonly verifiedEntriesMax: number;
}

/** How long a session token is good. */
export const sessionSeconds = 3_600;

const fixed = {
  passwordCodePointsMax: 256,
  hashWaitMsMax: 5_000,
  hashQueueMax: 10_000,
  lockWaitMsMax: 5_000,
  connectionsMax: 10_000,
  sessionSeconds,
  verifiedSecondsMax: 60,
  verifiedEntriesMax: 10_000,
} as const;

/** The flags of `serve` with their defaults; the name of a variable is made from the flag's. */
const defaults = {
  data: 'data',
  certs: 'certs',
  host: '127.0.0.1',
  port: '8443',
  kdf: 'pbkdf2:sha256:600000',
  'password-min': '8',
  socket: '',
  registration: 'open',
  'public-url': '',
  'allow-origin': '',
  'trusted-proxy': '',
  limits: 'on',
  etcd: '',
  'etcd-prefix': '/registrar/',
  'etcd-ca': '',
  'etcd-cert': '',
  'etcd-key': '',
  'etcd-user': '',
  'etcd-password-file': '',
} as const;

/** 96 bits in base64. What is shorter was thought up, and can be guessed. */
const adminTokenCharactersMin = 16;

type Flag = keyof typeof defaults;

type Environment = Readonly<Record<string, string | undefined>>;

/** Where the users are: of every command that does something to them. */
const storeOptions = {
  data: { type: 'string' },
  etcd: { type: 'string' },
  'etcd-prefix': { type: 'string' },
  'etcd-ca': { type: 'string' },
  'etcd-cert': { type: 'string' },
  'etcd-key': { type: 'string' },
  'etcd-user': { type: 'string' },
  'etcd-password-file': { type: 'string' },
} as const;

const options = {
  ...storeOptions,
  certs: { type: 'string' },
  host: { type: 'string' },
  port: { type: 'string' },
  kdf: { type: 'string' },
  'password-min': { type: 'string' },
  socket: { type: 'string' },
  registration: { type: 'string' },
  'public-url': { type: 'string' },
  'allow-origin': { type: 'string' },
  'trusted-proxy': { type: 'string' },
  limits: { type: 'string' },
  http: { type: 'boolean' },
} as const;

/** What the commands that look after the users' file take. */
export interface DataConfig {
  readonly data: string;
  readonly lockWaitMsMax: number;
  /** Nobody is asked. */
  readonly isYes: boolean;
}

/** Throws `usage`. */
export function parseDataConfig(args: readonly string[], env: Environment, { mayYes = false } = {}): DataConfig {
  const values = parseFlags(args, { data: options.data, ...(mayYes ? { yes: { type: 'boolean' } as const } : {}) });
  refuseUringFiles(env);
  const data = notEmpty('data', values.data ?? env[variable('data')] ?? defaults.data);
  return Object.freeze({ data, lockWaitMsMax: fixed.lockWaitMsMax, isYes: values.yes ?? false });
}

/** What the command `token` takes. */
export interface TokenConfig extends StoreConfig {
  /** Another token, though there is one. */
  readonly isNew: boolean;
  /** Another key to sign sessions with, and no admin token. */
  readonly isSigningKey: boolean;
}

/** Throws `usage`. */
export function parseTokenConfig(args: readonly string[], env: Environment): TokenConfig {
  const flags = { ...storeOptions, new: { type: 'boolean' }, 'signing-key': { type: 'boolean' } } as const;
  const values = parseFlags(args, flags);
  return Object.freeze({ ...storeConfig(values, env), isNew: values.new ?? false, isSigningKey: values['signing-key'] ?? false });
}

/** Throws `usage`, with one line that says what to change. */
export function parseConfig(args: readonly string[], env: Environment): Config {
  const values = parseFlags(args, options);
  const value = (flag: Flag): string => values[flag] ?? env[variable(flag)] ?? defaults[flag];
  const kdf = parseKdf(value('kdf'));
  if (kdf === undefined) {
    throw usage(`--kdf ${value('kdf')}: it has to be as in pbkdf2:sha256:600000, with sha256, sha384 or sha512 and 1 to 10000000`);
  }
  refuseUringFiles(env);
  return Object.freeze({
    ...fixed,
    ...storeConfig(values, env),
    certs: notEmpty('certs', value('certs')),
    host: notEmpty('host', value('host')),
    port: wholeNumber('port', value('port'), 0, 65_535),
    isPlain: values.http ?? isOn('http', env),
    kdf,
    passwordCodePointsMin: wholeNumber('password-min', value('password-min'), 8, 64),
    socket: value('socket') === '' ? undefined : value('socket'),
    registration: oneOf('registration', value('registration'), ['open', 'admin']),
    publicUrl: value('public-url') === '' ? undefined : origin('public-url', value('public-url')),
    allowedOrigins: list(value('allow-origin')).map((text) => origin('allow-origin', text)),
    trustedProxies: value('trusted-proxy'),
    isLimited: oneOf('limits', value('limits'), ['on', 'off']) === 'on',
    adminToken: adminToken(env),
  });
}

/** What `--data` and the flags of etcd say. */
function storeConfig(values: Values, env: Environment): StoreConfig {
  const value = (flag: Flag): string => values[flag] ?? env[variable(flag)] ?? defaults[flag];
  const file = (flag: Flag): string | undefined => (value(flag) === '' ? undefined : value(flag));
  const { lockWaitMsMax } = fixed;
  const data = notEmpty('data', value('data'));
  const endpoints = list(value('etcd'));
  if (endpoints.length === 0) return { data, etcd: undefined, lockWaitMsMax };
  const [user, passwordFile] = [file('etcd-user'), file('etcd-password-file')];
  if ((user === undefined) !== (passwordFile === undefined)) throw usage('--etcd-user and --etcd-password-file go together');
  if ((file('etcd-cert') === undefined) !== (file('etcd-key') === undefined)) throw usage('--etcd-cert and --etcd-key go together');
  const tls = { ca: file('etcd-ca'), cert: file('etcd-cert'), key: file('etcd-key') };
  return { data, etcd: { endpoints, prefix: value('etcd-prefix'), ...tls, user, passwordFile }, lockWaitMsMax };
}

/** As browsers send it: no path, no port where it is the scheme's own, a host in ASCII. */
function origin(flag: Flag, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isWhole = url !== undefined && url.pathname === '/' && url.search + url.hash + url.username === '';
  if (isWhole && /^https?:$/.test(url.protocol)) return url.origin;
  throw usage(`--${flag} ${text}: it has to be an origin, as in https://registrar.example, with no path`);
}

function list(text: string): string[] {
  return text.split(',').map((part) => part.trim()).filter((part) => part !== '');
}

function oneOf<Value extends string>(flag: Flag, text: string, values: readonly Value[]): Value {
  const value = values.find((other) => other === text);
  if (value !== undefined) return value;
  throw usage(`--${flag} ${text}: it has to be ${values.join(' or ')}`);
}

/** Undefined if there is none; one that is too short is refused, and is not repeated. */
function adminToken(env: Environment): string | undefined {
  const token = env.REGISTRAR_ADMIN_TOKEN ?? '';
  if (token === '') return undefined;
  if (token.length >= adminTokenCharactersMin && /^[\x21-\x7e]+$/.test(token)) return token;
  throw usage(`REGISTRAR_ADMIN_TOKEN: it has to be ${adminTokenCharactersMin} visible ASCII characters or more; registrar token makes one`);
}

/** Wrong positions and lost writes were seen with it (nodejs/node#55113). */
function refuseUringFiles(env: Environment): void {
  if (!['', '0'].includes(env.UV_USE_IO_URING ?? '')) throw usage('UV_USE_IO_URING: files are not safe with it; unset it');
}

type Values = Partial<Record<Flag, string>> & { http?: boolean; yes?: boolean; new?: boolean; 'signing-key'?: boolean };

function parseFlags(args: readonly string[], known: NonNullable<ParseArgsConfig['options']>): Values {
  try {
    return parseArgs({ args: [...args], options: known, strict: true, allowPositionals: false }).values;
  } catch (error) {
    // Of its sentences the first says what is wrong; a value is never in it.
    const [said = ''] = messageOf(error).split(/\. |\n/);
    throw usage(`${said}; try registrar --help`);
  }
}

function variable(flag: string): string {
  return `REGISTRAR_${flag.toUpperCase().replaceAll('-', '_')}`;
}

function isOn(flag: string, env: Environment): boolean {
  const text = env[variable(flag)] ?? '';
  if (['', '0', 'false', 'no'].includes(text)) return false;
  if (['1', 'true', 'yes'].includes(text)) return true;
  throw usage(`${variable(flag)}=${text}: it has to be 1 (yes, true) or 0 (no, false)`);
}

function wholeNumber(flag: Flag, text: string, min: number, max: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw usage(`--${flag} ${text}: it has to be a whole number from ${min} to ${max}`);
}

function notEmpty(flag: Flag, text: string): string {
  if (text !== '') return text;
  throw usage(`--${flag}: it has to name a directory`);
}

function usage(detail: string): RegistrarError {
  return new RegistrarError('usage', detail);
}

/** What `import` takes. */
export interface ImportConfig extends DataConfig, Pick<Config, 'kdf' | 'passwordCodePointsMin' | 'passwordCodePointsMax' | 'hashQueueMax'> {
  /** How the lines' hashes are written, if not as here. */
  readonly from: ForeignFormat | undefined;
  readonly isDryRun: boolean;
  /** A result for each line, as JSON. */
  readonly isJson: boolean;
  /** The file to read; undefined for the standard input. */
  readonly input: string | undefined;
}

/** Throws `usage`. */
export function parseImportConfig(args: readonly string[], env: Environment): ImportConfig {
  const { values, words } = parseWords(args, {
    data: options.data, kdf: options.kdf, 'password-min': options['password-min'],
    from: { type: 'string' }, 'dry-run': { type: 'boolean' }, json: { type: 'boolean' },
  });
  const value = (flag: 'data' | 'kdf' | 'password-min'): string => text(values, flag) ?? env[variable(flag)] ?? defaults[flag];
  const [input, ...more] = words;
  if (more.length > 0) throw usage('one file can be imported at a time; try registrar import --help');
  const from = text(values, 'from');
  const format = foreignFormats.find((known) => known === from);
  if (from !== undefined && format === undefined) throw usage(`--from: it has to be one of ${foreignFormats.join(', ')}`);
  const kdf = parseKdf(value('kdf'));
  if (kdf === undefined) {
    throw usage(`--kdf ${value('kdf')}: it has to be as in pbkdf2:sha256:600000, with sha256, sha384 or sha512 and 1 to 10000000`);
  }
  refuseUringFiles(env);
  return Object.freeze({
    data: notEmpty('data', value('data')),
    lockWaitMsMax: fixed.lockWaitMsMax,
    isYes: false,
    kdf,
    passwordCodePointsMin: wholeNumber('password-min', value('password-min'), 8, 64),
    passwordCodePointsMax: fixed.passwordCodePointsMax,
    hashQueueMax: fixed.hashQueueMax,
    from: format,
    isDryRun: values['dry-run'] === true,
    isJson: values.json === true,
    input: input === '-' ? undefined : input,
  });
}

/** What `export` takes. */
export interface ExportConfig extends DataConfig {
  /** The file to write; undefined for the standard output. */
  readonly output: string | undefined;
  /** One JSON document instead of a line for each user. */
  readonly isJson: boolean;
}

/** Throws `usage`. */
export function parseExportConfig(args: readonly string[], env: Environment): ExportConfig {
  const { values, words } = parseWords(args, { data: options.data, output: { type: 'string' }, json: { type: 'boolean' } });
  if (words.length > 0) throw usage('a file to write is named with --output; try registrar export --help');
  const output = text(values, 'output');
  if (output === '') throw usage('--output: it has to name a file');
  refuseUringFiles(env);
  const data = notEmpty('data', text(values, 'data') ?? env[variable('data')] ?? defaults.data);
  return Object.freeze({
    data, lockWaitMsMax: fixed.lockWaitMsMax, isYes: false, output: output === '-' ? undefined : output, isJson: values.json === true,
  });
}

type AnyValues = Readonly<Record<string, unknown>>;

function text(values: AnyValues, flag: string): string | undefined {
  const value = values[flag];
  return typeof value === 'string' ? value : undefined;
}

/** As `parseFlags`, with words among the flags. */
function parseWords(args: readonly string[], known: NonNullable<ParseArgsConfig['options']>): { values: AnyValues; words: string[] } {
  try {
    const { values, positionals } = parseArgs({ args: [...args], options: known, strict: true, allowPositionals: true });
    return { values, words: positionals };
  } catch (error) {
    const [said = ''] = messageOf(error).split(/\. |\n/);
    throw usage(`${said}; try registrar --help`);
  }
}
