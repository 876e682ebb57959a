/**
 * Flags and environment -> one frozen Config; pure. Every default and every limit that an operator may
 * know stands here, with its unit. What the other commands take is in `command-config.ts`.
 */

import type { RegistrationMode } from './access.ts';
import { Flags, usage } from './flags.ts';
import type { Environment } from './flags.ts';
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
  /** A line for each request. */
  readonly isLogged: boolean;
  /** How long it says that it is not ready before it stops to listen, when it ends. */
  readonly drainSeconds: number;
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
const sessionSeconds = 3_600;

export const fixed = {
  passwordCodePointsMax: 256,
  hashWaitMsMax: 5_000,
  hashQueueMax: 10_000,
  lockWaitMsMax: 5_000,
  connectionsMax: 10_000,
  sessionSeconds,
  verifiedSecondsMax: 60,
  verifiedEntriesMax: 10_000,
} as const;

/** Where the users are: the flags, and their defaults, of every command that does something to them. */
export const storeFlags = {
  data: 'data',
  etcd: '',
  'etcd-prefix': '/registrar/',
  'etcd-ca': '',
  'etcd-cert': '',
  'etcd-key': '',
  'etcd-user': '',
  'etcd-password-file': '',
} as const;

/** The rules for new passwords. */
export const passwordFlags = {
  kdf: 'pbkdf2:sha256:600000',
  'password-min': '8',
} as const;

const serveFlags = {
  ...storeFlags,
  ...passwordFlags,
  certs: 'certs',
  host: '127.0.0.1',
  port: '8443',
  socket: '',
  registration: 'open',
  'public-url': '',
  'allow-origin': '',
  'trusted-proxy': '',
  limits: 'on',
  log: 'on',
  'drain-seconds': '0',
} as const;

/** 96 bits in base64. What is shorter was thought up, and can be guessed. */
const adminTokenCharactersMin = 16;

/** Throws `usage`, with one line that says what to change. */
export function parseConfig(args: readonly string[], env: Environment): Config {
  const flags = new Flags(args, env, { values: serveFlags, switchesWithVariable: ['http'] });
  const publicUrl = flags.optional('public-url');
  return Object.freeze({
    ...fixed,
    ...storeConfig(flags),
    ...passwordConfig(flags),
    certs: flags.present('certs', 'a directory'),
    host: flags.present('host', 'an address'),
    port: flags.wholeNumber('port', 0, 65_535),
    isPlain: flags.isOnOrSet('http'),
    socket: flags.optional('socket'),
    registration: flags.oneOf('registration', ['open', 'admin']),
    publicUrl: publicUrl === undefined ? undefined : origin('public-url', publicUrl),
    allowedOrigins: flags.list('allow-origin').map((text) => origin('allow-origin', text)),
    trustedProxies: flags.text('trusted-proxy'),
    isLimited: flags.oneOf('limits', ['on', 'off']) === 'on',
    isLogged: flags.oneOf('log', ['on', 'off']) === 'on',
    drainSeconds: flags.wholeNumber('drain-seconds', 0, 300),
    adminToken: adminToken(env),
  });
}

/** What `--data` and the flags of etcd say. Throws `usage`. */
export function storeConfig(flags: Flags): StoreConfig {
  const { lockWaitMsMax } = fixed;
  const data = flags.present('data', 'a directory');
  const endpoints = flags.list('etcd');
  if (endpoints.length === 0) return { data, etcd: undefined, lockWaitMsMax };
  const [user, passwordFile] = [flags.optional('etcd-user'), flags.optional('etcd-password-file')];
  if ((user === undefined) !== (passwordFile === undefined)) throw usage('--etcd-user and --etcd-password-file go together');
  const [ca, cert, key] = [flags.optional('etcd-ca'), flags.optional('etcd-cert'), flags.optional('etcd-key')];
  if ((cert === undefined) !== (key === undefined)) throw usage('--etcd-cert and --etcd-key go together');
  return { data, etcd: { endpoints, prefix: flags.text('etcd-prefix'), ca, cert, key, user, passwordFile }, lockWaitMsMax };
}

/** Throws `usage`. */
export function passwordConfig(flags: Flags): Pick<Config, 'kdf' | 'passwordCodePointsMin' | 'passwordCodePointsMax'> {
  const { passwordCodePointsMax } = fixed;
  return { kdf: flags.kdf('kdf'), passwordCodePointsMin: flags.wholeNumber('password-min', 8, 64), passwordCodePointsMax };
}

/** As browsers send it: no path, no port where it is the scheme's own, a host in ASCII. */
function origin(name: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isWhole = url !== undefined && url.pathname === '/' && url.search + url.hash + url.username === '';
  if (isWhole && /^https?:$/.test(url.protocol)) return url.origin;
  throw usage(`--${name} ${text}: it has to be an origin, as in https://registrar.example, with no path`);
}

/** Undefined if there is none; one that is too short is refused, and is not repeated. */
function adminToken(env: Environment): string | undefined {
  const token = env.REGISTRAR_ADMIN_TOKEN ?? '';
  if (token === '') return undefined;
  if (token.length >= adminTokenCharactersMin && /^[\x21-\x7e]+$/.test(token)) return token;
  throw usage(`REGISTRAR_ADMIN_TOKEN: it has to be ${adminTokenCharactersMin} visible ASCII characters or more; registrar token makes one`);
}
