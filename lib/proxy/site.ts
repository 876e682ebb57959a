/**
 * What a proxy in front has to know of the running service, from the same Config: where it listens, what it is verified
 * by, its limits. It refuses what would be wrong behind any proxy, and says the way out. Pure; how nginx and Apache are
 * told is in `nginx.ts` and `apache.ts`.
 */

import { X509Certificate } from 'node:crypto';
import { isLoopback } from '../access.ts';
import type { Config } from '../config.ts';
import { usage } from '../flags.ts';
import { bodyBytesMax } from '../http/body.ts';
import { clientAddress, parseTrustedProxies } from '../http/client-address.ts';
import { limits } from '../http/server.ts';
import type { ProxyConfig, ProxyListen } from './config.ts';

/** What is known of the certificates besides their paths: PEM, as read. */
export interface SiteCertificates {
  /** The service's own; undefined where it speaks plain HTTP. */
  readonly service: Buffer | undefined;
  /** The one that the proxy shows to the world. */
  readonly shown: Buffer;
}

/** Where one instance of the service listens. */
export type Upstream = { readonly socket: string } | { readonly host: string; readonly port: number };

export interface Site {
  readonly serverName: string;
  readonly http: ProxyListen;
  readonly https: ProxyListen;
  /** Where http is sent, and what the world calls it: `https://registrar.example`. */
  readonly origin: string;
  readonly certificate: string;
  readonly key: string;
  readonly isHsts: boolean;
  /** The service, then others on the same users. */
  readonly upstreams: readonly Upstream[];
  /** How the service proves itself; undefined for plain HTTP. */
  readonly verify: { readonly name: string; readonly authorities: string } | undefined;
  readonly bodyBytesMax: number;
  readonly headerBytesMax: number;
  readonly headersSeconds: number;
  readonly requestSeconds: number;
  /** How long an answer may take: two hashes that wait, as a change of password by Basic has, and the lock. */
  readonly answerSeconds: number;
  /** How long an idle connection to the service is kept: well below what the service keeps it. */
  readonly idleSeconds: number;
  /** Another application, which this service says who is signed in for. */
  readonly auth: { readonly application: string; readonly signIn: string } | undefined;
  /** The directory for everything that a server run for this site alone writes. */
  readonly whole: string | undefined;
  /** How the service is started for it. */
  readonly serve: string;
}

/** Mozilla's intermediate profile; TLS 1.3 has its own suites. https://ssl-config.mozilla.org */
export const intermediateCiphers = [
  'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

/** Two years, as the preload lists ask. */
export const hstsSeconds = 63_072_000;
/** How soon another try makes sense, where the service does not answer: about as long as it takes to start. */
export const retrySeconds = 2;

const systemAuthorities = '/etc/ssl/certs/ca-certificates.crt';
const slackSeconds = 5;

/** Throws `usage` with what to change. The paths of `config` have to be absolute. */
export function proxySite(config: ProxyConfig, certificates: SiteCertificates): Site {
  const { service, serverName, listenTls } = config;
  const upstreams = [upstreamOf(service), ...config.also];
  for (const upstream of upstreams) refuseOpenWire(upstream, service);
  refuseBlindness(upstreams, service);
  const shown = new X509Certificate(certificates.shown);
  const isHsts = config.isHsts;
  if (isHsts && isSelfSigned(shown)) {
    throw usage('--hsts: the certificate is self-signed, and browsers would let nobody past its warning; leave the flag out');
  }
  const paths = [service.certs, config.cert, config.key, config.whole, config.upstreamAuthorities, ...upstreams.map(socketOf)];
  for (const path of paths) if (path !== undefined) requirePlainPath(path);
  const port = listenTls.port === 443 ? '' : `:${listenTls.port}`;
  return {
    serverName,
    http: config.listen,
    https: listenTls,
    origin: `https://${serverName}${port}`,
    certificate: config.cert ?? `${service.certs}/cert.pem`,
    key: config.key ?? `${service.certs}/key.pem`,
    isHsts,
    upstreams,
    verify: certificates.service === undefined ? undefined : verification(config, new X509Certificate(certificates.service)),
    bodyBytesMax,
    headerBytesMax: limits.maxHeaderSize,
    headersSeconds: limits.headersTimeout / 1000,
    requestSeconds: limits.requestTimeout / 1000,
    answerSeconds: Math.ceil((2 * service.hashWaitMsMax + service.lockWaitMsMax) / 1000) + slackSeconds,
    idleSeconds: Math.floor(limits.keepAliveTimeout / 2000),
    auth: config.authFor === undefined ? undefined : { application: config.authFor, signIn: config.signIn },
    whole: config.whole,
    serve: serveLine(config.serveFlags),
  };
}

/** A certificate is verified by itself if it has signed itself, else by those whom the system trusts. */
function verification({ service, upstreamAuthorities }: ProxyConfig, certificate: X509Certificate): Site['verify'] {
  const names = [...(certificate.subjectAltName ?? '').matchAll(/DNS:([a-z0-9.-]+)/gi)].map(([, name = '']) => name);
  const name = names.includes('localhost') ? 'localhost' : names[0];
  if (name === undefined) throw usage(`"${service.certs}/cert.pem" is for no host name that it could be verified by: make cert FORCE=1`);
  const authorities = upstreamAuthorities ?? (isSelfSigned(certificate) ? `${service.certs}/cert.pem` : systemAuthorities);
  return { name, authorities };
}

function upstreamOf({ socket, host, port }: Config): Upstream {
  if (socket !== undefined) return { socket };
  if (port === 0) throw usage('--port 0: a proxy has to know the port; name the one that the service listens on');
  return { host: host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host, port };
}

/** Passwords go over this wire. */
function refuseOpenWire(upstream: Upstream, { isPlain }: Config): void {
  if (!isPlain || 'socket' in upstream || isLoopback(upstream.host)) return;
  throw usage(`--http with ${upstream.host}: passwords would cross the network in the clear; leave --http out, or use a socket here`);
}

/** Without it all clients would be one to the service: the proxy. They would share its limits, and lock each other out. */
function refuseBlindness(upstreams: readonly Upstream[], { trustedProxies, isLimited }: Config): void {
  if (!isLimited) return;
  const trusted = parseTrustedProxies(trustedProxies);
  if ('problem' in trusted) throw usage(`--trusted-proxy: ${trusted.problem}`);
  const probe = '192.0.2.1';
  for (const upstream of upstreams) {
    if (!('socket' in upstream) && !isLoopback(upstream.host) && trustedProxies !== '') continue;
    const peer = 'socket' in upstream ? 'unix' : upstream.host === 'localhost' ? '127.0.0.1' : upstream.host;
    if (clientAddress(peer === 'unix' ? undefined : peer, probe, trusted) === probe) continue;
    const name = 'socket' in upstream || isLoopback(upstream.host) ? peer : "the proxy's address";
    throw usage(`every client would be the proxy to the service, and share its limits: give serve, and this, --trusted-proxy ${name}`);
  }
}

function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.issuer === certificate.subject && certificate.verify(certificate.publicKey);
}

function socketOf(upstream: Upstream): string | undefined {
  return 'socket' in upstream ? upstream.socket : undefined;
}

/** Both servers have characters of their own for variables, quotes and ends of lines: what has them is not tried. */
function requirePlainPath(path: string): void {
  if (/^[\p{L}\p{M}\p{N} ._/@+,=~-]+$/u.test(path)) return;
  throw usage(`the path ${JSON.stringify(path)} has characters that a server's configuration reads in its own way; choose another`);
}

function serveLine(flags: readonly string[]): string {
  const quoted = (word: string): string => (/^[\w./:,@+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  return ['registrar serve', ...flags.map(quoted)].join(' ');
}

/** An error that the proxy answers by itself, in the form of the service's (RFC 9457). */
export function problemText(code: string, status: number, title: string, detail: string): string {
  return JSON.stringify({ type: `urn:registrar:${code}`, title, status, detail });
}
