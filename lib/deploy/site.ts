/**
 * The site of a proxy in front of the service: the values for `nginx.conf`, `apache.conf` and `Caddyfile`, from the flags of
 * the service. It refuses what would be wrong behind any proxy, and says the remedy. Pure but for reading the file.
 */

import { X509Certificate } from 'node:crypto';
import { isLoopback } from '../access.ts';
import { clientAddress } from '../auth/client-address.ts';
import { flags } from '../config.ts';
import type { Config, ListenOn } from '../config.ts';
import { usage } from '../flags.ts';
import { bodyBytesMax } from '../http/body.ts';
import { limits } from '../http/server-options.ts';
import { fillFile } from './fill.ts';
import type { Values } from './fill.ts';

export type ProxyName = 'nginx' | 'apache' | 'caddy';

export interface SiteOptions {
  /** Every path is absolute. */
  readonly config: Config;
  /** What was given by flags and variables, as text. */
  readonly given: ReadonlyMap<string, string>;
  /** PEM: that of the service, undefined for plain HTTP, and that of the proxy. */
  readonly certificates: { readonly service: Buffer | undefined; readonly proxy: Buffer };
  /** A directory for a proxy that runs for this site alone; undefined for the system's own. */
  readonly directory?: string;
}

/** https://ssl-config.mozilla.org: intermediate. TLS 1.3 has its own suites. */
const ciphers = [
  'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');
const apacheModules = ['ssl', 'proxy', 'proxy_http', 'headers', 'reqtimeout', 'http2', 'alias', 'rewrite', 'setenvif'];
const files = { nginx: 'nginx.conf', apache: 'apache.conf', caddy: 'Caddyfile' } as const;
const systemAuthorities = '/etc/ssl/certs/ca-certificates.crt';
/** Two years, as the preload lists require. */
const hstsSeconds = 63_072_000;
/** About as long as the service takes to start. */
const retrySeconds = 2;

/** Throws `usage` with what to change. */
export function proxySite(name: ProxyName, options: SiteOptions): string {
  return fillFile(files[name], siteValues(name, options));
}

function siteValues(name: ProxyName, { config, given, certificates, directory }: SiteOptions): Values {
  const { listen, listenTls, publicUrl, socket, authFor } = config;
  if (socket === undefined && config.port === 0) throw usage('--port 0: a proxy has to know the port of the service. Name it.');
  const host = config.host === '0.0.0.0' ? '127.0.0.1' : config.host === '::' ? '::1' : config.host;
  refuseOpenWire(host, config);
  refuseUnknownClients(host, config);
  const certificate = config.proxyCert ?? `${config.certs}/cert.pem`;
  if (config.hsts && isSelfSigned(new X509Certificate(certificates.proxy))) {
    throw usage('--hsts: the certificate is self-signed, and browsers would not let users past its warning. Leave the flag out.');
  }
  if (name === 'apache' && authFor !== undefined) {
    throw usage('--auth-for: stock Apache cannot authenticate for another application. Use "registrar proxy nginx" or "caddy".');
  }
  const address = publicUrl === undefined ? undefined : new URL(publicUrl);
  const serverName = config.serverName ?? address?.hostname ?? 'localhost';
  const origin = `https://${serverName}${listenTls.port === 443 ? '' : `:${listenTls.port}`}`;
  if (name === 'apache' && certificates.service !== undefined && publicUrl === undefined) {
    const reason = 'Apache verifies the service by the Host that it sends on, so the service has to know its own name';
    throw usage(`${reason}: give serve, and this, --public-url ${origin}; or let the service listen with --socket and --http.`);
  }
  const verify = certificates.service && verification(config, new X509Certificate(certificates.service));
  const paths = [config.certs, certificate, config.proxyKey, directory, config.upstreamCa, socket];
  for (const path of paths) if (path !== undefined) requirePlainPath(path);
  const scheme = verify === undefined ? 'http' : 'https';
  const at = `${host.includes(':') ? `[${host}]` : host}:${config.port}`;
  const named = `${verify !== undefined && isLoopback(host) ? verify.name : host.includes(':') ? `[${host}]` : host}:${config.port}`;
  return {
    serve: serveLine(given), directory, socket, serverName, origin, scheme, ciphers, hstsSeconds, retrySeconds, bodyBytesMax,
    prefix: address === undefined || address.pathname === '/' ? '' : address.pathname,
    upstream: socket === undefined ? at : `"unix:${socket}"`,
    apacheUpstream: socket === undefined ? `${scheme}://${named}` : `unix:${socket}|${scheme}://${verify?.name ?? 'localhost'}`,
    caddyUpstream: socket === undefined ? `${scheme}://${at}` : `unix/${socket}`,
    tls: verify !== undefined, verifyName: verify?.name, authorities: verify?.authorities,
    certificate, key: config.proxyKey ?? `${config.certs}/key.pem`, hsts: config.hsts,
    application: authFor, applicationAddress: authFor && new URL(authFor).host,
    appBodyMax: name === 'nginx' ? (config.appBodyMax ?? '0') : (config.appBodyMax ?? ''),
    listen: nginxListen(listen), listenAlso: also(listen, directory),
    listenTls: nginxListen(listenTls), listenTlsAlso: also(listenTls, directory),
    listenPort: listen.port, listenTlsPort: listenTls.port, bind: listen.address, bindTls: listenTls.address,
    apacheListen: apacheListen(listen, directory), apacheListenTls: apacheListen(listenTls, directory),
    apacheHost: `${listen.address ?? '*'}:${listen.port}`, apacheHostTls: `${listenTls.address ?? '*'}:${listenTls.port}`,
    logs: directory ?? (name === 'nginx' ? '/var/log/nginx' : '${APACHE_LOG_DIR}'), run: directory ?? '/var/run/apache2',
    modules: apacheModules.join(' '), loadModules: loadModules(),
    headerBytesMax: limits.maxHeaderSize,
    headersSeconds: limits.headersTimeout / 1000,
    requestSeconds: limits.requestTimeout / 1000,
    // Two hashes that wait, as a change of password by Basic has, and the lock.
    answerSeconds: Math.ceil((2 * config.hashWaitMsMax + config.lockWaitMsMax) / 1000) + 5,
    // Well below what the service keeps an idle connection.
    idleSeconds: Math.floor(limits.keepAliveTimeout / 2000),
    ...problems(origin),
  };
}

/** Errors that the proxy answers by itself, in the form of the service's (RFC 9457). */
function problems(origin: string): Record<string, string> {
  const outcome = 'It is not known whether the request took effect. Read the user before you repeat it.';
  const table: [name: string, status: number, code: string, title: string, detail: string][] = [
    ['plainProblem', 403, 'forbidden', 'This is not allowed', `This port does not encrypt. Send requests to ${origin}.`],
    ['problem400', 400, 'malformed', 'The request cannot be read', 'This is not a valid request. The port expects HTTPS.'],
    ['problem401', 401, 'unauthenticated', 'The request is not authenticated', 'Sign in: by Basic, or with a session.'],
    ['problem403', 403, 'forbidden', 'This is not allowed', 'The account is disabled, or the token is not that of a user.'],
    ['problem404', 404, 'malformed', 'The request cannot be read', 'The path is not valid.'],
    ['problem408', 408, 'timeout', 'The request took too long to arrive', 'The request did not arrive in time.'],
    ['problem413', 413, 'too-large', 'The body is too large', `The body is larger than ${bodyBytesMax} bytes.`],
    ['problem429', 429, 'rate-limited', 'Too many requests', 'Too many requests, connections or wrong passwords. Try again later.'],
    ['problem431', 431, 'headers-too-large', 'The headers are too large', 'The headers are larger than 32 KB, cookies included.'],
    ['problem503', 503, 'unreachable', 'The service cannot be reached', 'The service does not answer. Try again soon.'],
    ['problem504', 504, 'unreachable', 'The service does not answer', outcome],
    ['problemApp', 503, 'unreachable', 'The application cannot be reached', 'The application does not answer. Try again soon.'],
  ];
  return Object.fromEntries(table.flatMap(([name, status, code, title, detail]) => {
    const text = JSON.stringify({ type: `urn:registrar:${code}`, title, status, detail });
    return [[name, text], [`${name}Escaped`, text.replaceAll('"', '\\"')]];
  }));
}

/** A certificate is verified by itself if it is self-signed, else by the authorities of the system. */
function verification({ certs, upstreamCa }: Config, certificate: X509Certificate) {
  const names = [...(certificate.subjectAltName ?? '').matchAll(/DNS:([a-z0-9.-]+)/gi)].map(([, name = '']) => name);
  const name = names.includes('localhost') ? 'localhost' : names[0];
  if (name === undefined) throw usage(`"${certs}/cert.pem" has no host name that it could be verified by. Run: make cert HOSTS=NAME`);
  return { name, authorities: upstreamCa ?? (isSelfSigned(certificate) ? `${certs}/cert.pem` : systemAuthorities) };
}

/** Passwords go over this connection. */
function refuseOpenWire(host: string, { http, socket }: Config): void {
  if (!http || socket !== undefined || isLoopback(host)) return;
  throw usage(`--http with ${host}: passwords would cross the network in plain text. Leave --http out, or use --socket.`);
}

/** Without a trusted proxy every client would have the proxy's address, and share its limits. */
function refuseUnknownClients(host: string, { socket, trustedProxy: trusted, limits: areOn }: Config): void {
  if (!areOn || (socket === undefined && !isLoopback(host) && (trusted.unix || trusted.addresses.rules.length > 0))) return;
  const [peer, probe] = [socket !== undefined ? 'unix' : host === 'localhost' ? '127.0.0.1' : host, '192.0.2.1'];
  if (clientAddress(peer === 'unix' ? undefined : peer, probe, trusted) === probe) return;
  const name = socket !== undefined || isLoopback(host) ? peer : "the proxy's address";
  throw usage(`Every client would have the proxy's address, and share its limits: give serve, and this, --trusted-proxy ${name}`);
}

function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.issuer === certificate.subject && certificate.verify(certificate.publicKey);
}

/** Servers have characters of their own for variables, quotes and ends of lines: a path that has one of them is refused. */
function requirePlainPath(path: string): void {
  if (/^[\p{L}\p{M}\p{N} ._/@+,=~-]+$/u.test(path)) return;
  throw usage(`The path ${JSON.stringify(path)} has characters that the configuration of a server gives a meaning. Choose another.`);
}

function nginxListen({ address, port }: ListenOn): string {
  return address === undefined ? String(port) : `${address}:${port}`;
}

function also({ address, port }: ListenOn, directory: string | undefined): string | undefined {
  return address === undefined && directory === undefined ? `[::]:${port}` : undefined;
}

/** Debian's ports.conf listens on 80 and 443, and twice is an error. */
function apacheListen(on: ListenOn, directory: string | undefined): string | undefined {
  return directory === undefined && on.address === undefined && [80, 443].includes(on.port) ? undefined : nginxListen(on);
}

function loadModules(): string {
  const loaded = ['mpm_event', 'authz_core', 'socache_shmcb', ...apacheModules];
  return loaded.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n');
}

/** The command that starts the service of these flags. */
function serveLine(given: ReadonlyMap<string, string>): string {
  const words = [...given].flatMap(([name, text]) => {
    const row = Object.entries(flags).find(([known]) => known === name || `${known}-file` === name)?.[1];
    if (!row?.commands.some((command) => command === 'serve')) return [];
    return row.value === undefined ? [`--${name}`] : [`--${name}`, text];
  });
  const quoted = words.map((word) => (/^[\w./:,@+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`));
  return ['registrar serve', ...quoted].join(' ');
}
