/**
 * The one table of flags: what each is called, takes and means, and which commands have it. --help, bin/README.md, the
 * example environment and the errors are made from it. A command gets every value as a property of one frozen Config, under
 * the name of the flag (`--drain-seconds` is `drainSeconds`); flags that it does not have keep their default.
 * How arguments and variables are read is in `flags.ts`. Pure.
 */

import { parseTrustedProxies } from './auth/client-address.ts';
import type { TrustedProxies } from './auth/client-address.ts';
import { flag, list, matching, oneOf, onOff, optional, readCommandLine, run, secret, text, usage, wholeNumber } from './flags.ts';
import type { CommandLine, ConfigOf, Environment, Files, Type } from './flags.ts';
import { foreignFormats } from './password/foreign-hash.ts';
import { parseKdf } from './password/kdf.ts';
import type { Kdf } from './password/kdf.ts';

/** Limits that are not flags. */
const fixed = {
  passwordCodePointsMax: 256,
  /** How long a request may wait for its hash before it is answered 503. */
  hashWaitMsMax: 5_000,
  hashQueueMax: 10_000,
  /** How long a write waits for another process to release the lock of the users file before it is answered 503. */
  lockWaitMsMax: 5_000,
  connectionsMax: 10_000,
  /** How long, and for how many users, a verified password is not hashed again. */
  verifiedSecondsMax: 60,
  verifiedEntriesMax: 10_000,
} as const;

const service = ['serve', 'proxy'] as const;
const hashing = [...service, 'user', 'import'] as const;
const users = [...hashing, 'export', 'token'] as const;
const directory = [...users, 'check', 'compact', 'repair', 'restore'] as const;
const all = [...directory, 'openapi', 'health'] as const;
const listening = [...service, 'health'] as const;

export type CommandName = (typeof all)[number];

const kdf: Type<Kdf> = {
  read: parseKdf,
  is: 'pbkdf2:DIGEST:ITERATIONS with sha256, sha384 or sha512 and 1 to 10000000, as in pbkdf2:sha256:600000',
};

/** With a path where a proxy serves the service below one, as in https://example.org/accounts. */
const publicUrl: Type<string> = {
  read: (value) => {
    const url = URL.canParse(value) ? new URL(value) : undefined;
    const isBare = url !== undefined && url.search + url.hash + url.username === '' && /^(?:\/[\w.~-]+)*\/?$/.test(url.pathname);
    return isBare && /^https?:$/.test(url.protocol) ? `${url.origin}${url.pathname}`.replace(/\/$/, '') : undefined;
  },
  is: 'an address as in https://registrar.example, or with a path as in https://example.org/accounts',
};

/** As browsers send it: no path, no port where it is the scheme's default, the host in ASCII. */
const origin: Type<string> = {
  read: (value) => {
    const url = URL.canParse(value) ? new URL(value) : undefined;
    const isBare = url?.pathname === '/' && url.search + url.hash + url.username === '';
    return isBare && /^https?:$/.test(url.protocol) ? url.origin : undefined;
  },
  is: 'an origin without a path, as in https://registrar.example',
};

const proxies: Type<TrustedProxies> = {
  read: (value) => {
    const parsed = parseTrustedProxies(value);
    return 'problem' in parsed ? undefined : parsed;
  },
  is: 'addresses, networks such as 10.0.0.0/8, or unix, with commas between',
};

export interface ListenOn {
  /** Undefined for every address. */
  readonly address: string | undefined;
  readonly port: number;
}

const listen: Type<ListenOn> = {
  read: (value) => {
    const [, address, port = ''] = /^(?:([\d.]+|\[[\da-f:]+\]):)?(\d{1,5})$/i.exec(value) ?? [];
    return Number(port) >= 1 && Number(port) <= 65_535 ? { address, port: Number(port) } : undefined;
  },
  is: 'a port, or an address and a port, as in 127.0.0.1:8080',
};

const application: Type<string> = {
  read: (value) => (value.startsWith('http:') ? origin.read(value) : undefined),
  is: 'the address of an application without a path, as in http://127.0.0.1:3000',
};

const size = matching(/^[1-9]\d{0,8}[km]?$/, 'a number of bytes, or with k or m, as in 20m');
const hostName = matching(/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/, 'a host name in lower-case ASCII, as in registrar.example');
const etcdPassword = matching(/^[^\0\n]+$/, 'one line that is not empty');
/** 16 characters are 96 bits in base64; what is shorter was chosen by a person and can be guessed. */
const token = matching(/^[\x21-\x7e]{16,}$/, '16 or more visible ASCII characters; "registrar token" makes one');

/** In the order of --help. `run` flags say what one run does, and have no variable; a `secret` is given by file or variable. */
export const flags = {
  data: flag('DIR', 'data', text('a directory'), directory, 'directory of the users file and its secrets'),
  host: flag('ADDRESS', '127.0.0.1', text('an address'), listening, 'address to listen on; any other needs an admin token'),
  port: flag('PORT', '8443', wholeNumber(0, 65_535), listening, 'port to listen on; 0 takes a free one'),
  socket: flag('PATH', '', optional(text('a path')), listening, 'Unix socket to listen on instead of a port'),
  http: flag(undefined, 'off', onOff, listening, 'plain HTTP without a certificate, behind a proxy on this machine'),
  certs: flag('DIR', 'certs', text('a directory'), service, 'directory of cert.pem and key.pem'),
  registration: flag('MODE', 'open', oneOf('open', 'admin'), service, 'who may register in authenticated mode: open (anyone) or admin'),
  'public-url': flag('URL', '', optional(publicUrl), users, 'address under which clients reach the service; links need it'),
  'allow-origin': flag('URL,URL', '', list(origin), service, 'origins of other sites whose pages may use the service (CORS)'),
  'trusted-proxy': flag('ADDRESS,…', '', proxies, service, 'addresses, networks, or unix, whose X-Forwarded-For is believed'),
  limits: flag('on|off', 'on', onOff, service, 'rate limits; off if a proxy limits'),
  log: flag('on|off', 'on', onOff, service, 'access log on standard output'),
  'drain-seconds': flag('N', '0', wholeNumber(0, 300), service, 'drain period: at a stop readiness fails first, requests are still served'),
  'help-text': flag('TEXT', '', text(), service, 'what the page tells a user who has forgotten the password'),
  'token-minutes': flag('N', '60', wholeNumber(1, 1_440), [...service, 'token'], 'lifetime of a bearer token'),
  'session-hours': flag('N', '12', wholeNumber(1, 720), [...service, 'token'], 'lifetime of a cookie from its last use'),
  'session-days': flag('N', '30', wholeNumber(1, 366), service, 'lifetime of a cookie in all'),
  'link-hours': flag('N', '24', wholeNumber(1, 168), users, 'lifetime of a link to choose a password with'),
  audience: flag('TEXT', '', optional(text('a name')), service, 'aud of session tokens, by default the issuer; a change ends sessions'),
  audit: flag('off|FILE', '', optional(text('a file')), directory, 'audit log; by default audit.jsonl in the data directory'),
  open: run(undefined, 'off', onOff, service, 'unauthenticated mode on a cluster, or after authenticated mode'),
  'metrics-token': secret(token, service, 'token for /metrics; without it, the one of "registrar token --metrics"'),
  'admin-token': secret(token, service, 'admin token; without it, the one that "registrar token" made'),
  kdf: flag('KDF', 'pbkdf2:sha256:600000', kdf, hashing, 'how new passwords are hashed'),
  'password-min': flag('N', '8', wholeNumber(8, 64), hashing, 'characters that a new password needs'),
  etcd: flag('URL,URL', '', list(text('a URL')), users, 'keep users in this etcd cluster instead of a file'),
  'etcd-prefix': flag('PREFIX', '/registrar/', text('a prefix'), users, 'prefix of every key in etcd'),
  'etcd-ca': flag('FILE', '', optional(text('a file')), users, 'certificate authority of the etcd members (PEM)'),
  'etcd-cert': flag('FILE', '', optional(text('a file')), users, 'client certificate for etcd (PEM)'),
  'etcd-key': flag('FILE', '', optional(text('a file')), users, 'key of the client certificate (PEM)'),
  'etcd-user': flag('NAME', '', optional(text('a name')), users, 'user of etcd'),
  'etcd-password': secret(etcdPassword, users, 'password of the user of etcd'),

  listen: flag('PORT', '80', listen, ['proxy'], 'port of the proxy for HTTP, or ADDRESS:PORT'),
  'listen-tls': flag('PORT', '443', listen, ['proxy'], 'port of the proxy for HTTPS, or ADDRESS:PORT'),
  'server-name': flag('NAME', '', optional(hostName), ['proxy'], 'host name of the site; by default that of --public-url'),
  'proxy-cert': flag('FILE', '', optional(text('a file')), ['proxy'], "the proxy's certificate, if not the service's"),
  'proxy-key': flag('FILE', '', optional(text('a file')), ['proxy'], 'key of that certificate'),
  'upstream-ca': flag('FILE', '', optional(text('a file')), ['proxy'], "certificate authority of the service's certificate"),
  hsts: flag(undefined, 'off', onOff, service, 'Strict-Transport-Security for two years'),
  'auth-for': flag('URL', '', optional(application), ['proxy'], 'application whose requests are authenticated here (nginx, Caddy)'),
  'app-body-max': flag('SIZE', '', optional(size), ['proxy'], 'upload limit of that application, as in 20m; none by default'),
  run: run(undefined, 'off', onOff, ['proxy'], 'run the service and the proxy in front of it until Ctrl-C'),

  from: run('FORMAT', '', optional(oneOf(...foreignFormats)), ['import'], `format of the hashes: ${foreignFormats.join(', ')}`),
  'dry-run': run(undefined, 'off', onOff, ['import'], 'report what would be imported, and write nothing'),
  'allow-costly': run(undefined, 'off', onOff, ['import'], 'take hashes that cost more than four of the service; their timing shows'),
  'check-empty': run(undefined, 'off', onOff, ['import'], 'refuse hashes of an empty password; takes a sign-in for each line'),
  output: run('FILE', '-', text('a file'), ['export'], 'write FILE, complete or not at all, readable by its owner only'),
  json: run(undefined, 'off', onOff, ['user', 'import', 'export'], 'JSON for programs'),
  yes: run(undefined, 'off', onOff, ['user', 'repair', 'restore'], 'do not ask for confirmation'),
  unverified: run(undefined, 'off', onOff, ['repair'], 'take valid users whose checksum does not hold'),
  metrics: run(undefined, 'off', onOff, ['token'], 'print the token for /metrics instead, and create it if there is none'),
  new: run(undefined, 'off', onOff, ['token'], 'replace the token'),
  'revoke-keys': run(undefined, 'off', onOff, ['token'], 'revoke all signing keys, which ends all sessions, and make a new one'),
  'signing-key': run(undefined, 'off', onOff, ['token'], 'replace the key that signs session tokens, and print its id'),

  'env-file': flag('FILE', '', optional(text('a file')), all, 'read variables from FILE, as systemd does; the environment wins'),
  help: run(undefined, 'off', onOff, all, 'print this help'),
} as const;

export type Config = ConfigOf<typeof flags> & { readonly [Name in keyof typeof fixed]: number };

/** Throws `usage`, with one line that says what to change. */
export function parseCommandLine(
  command: CommandName,
  args: readonly string[],
  environment: Environment,
  files: Files = { variables: () => ({}), secret: () => '' },
): CommandLine<Config> {
  const line = readCommandLine(flags, command, args, environment, files);
  const { etcdCert, etcdKey, etcdUser, etcdPassword, proxyCert, proxyKey } = line.config;
  requirePair('--etcd-cert', etcdCert, '--etcd-key', etcdKey);
  requirePair('--etcd-user', etcdUser, '--etcd-password-file', etcdPassword);
  requirePair('--proxy-cert', proxyCert, '--proxy-key', proxyKey);
  return { ...line, config: Object.freeze({ ...fixed, ...line.config }) };
}

function requirePair(one: string, first: string | undefined, other: string, second: string | undefined): void {
  if ((first === undefined) !== (second === undefined)) throw usage(`${one} and ${other} go together: give both.`);
}
