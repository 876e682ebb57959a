/**
 * Flags and environment -> one frozen ProxyConfig; pure. The flags of `serve` mean what they mean there, so that both are
 * given the same ones; those of the proxy have variables like them.
 */

import { parseArgs } from 'node:util';
import { parseConfig } from '../config.ts';
import type { Config } from '../config.ts';
import { Flags, usage } from '../flags.ts';
import type { Environment } from '../flags.ts';

/** What the command `proxy` takes besides what `serve` does. */
export interface ProxyConfig {
  readonly service: Config;
  /** The flags of `serve` among those that were given. */
  readonly serveFlags: readonly string[];
  readonly listen: ProxyListen;
  readonly listenTls: ProxyListen;
  readonly serverName: string;
  /** Undefined for the service's own. */
  readonly cert: string | undefined;
  readonly key: string | undefined;
  /** What the service's certificate is verified by, if not by itself or by whom the system trusts. */
  readonly upstreamAuthorities: string | undefined;
  /** Other instances on the same users. */
  readonly also: readonly ({ readonly socket: string } | { readonly host: string; readonly port: number })[];
  readonly authFor: string | undefined;
  readonly signIn: string;
  readonly isHsts: boolean;
  /** A directory: the whole configuration of a server that runs for this alone, and keeps everything there. */
  readonly whole: string | undefined;
  /** Runs both, instead of printing. */
  readonly isRun: boolean;
}

export interface ProxyListen {
  /** Undefined for all. */
  readonly address: string | undefined;
  readonly port: number;
}

const defaults = {
  listen: '80',
  'listen-tls': '443',
  'server-name': '',
  'proxy-cert': '',
  'proxy-key': '',
  'upstream-ca': '',
  also: '',
  'auth-for': '',
  'sign-in': '/sign-in',
  whole: '',
} as const;

/** Throws `usage`, with one line that says what to change. */
export function parseProxyConfig(args: readonly string[], env: Environment): ProxyConfig {
  const { own, serve } = split(args);
  const flags = new Flags(own, env, table);
  const service = parseConfig(serve, env);
  const [cert, key] = [flags.optional('proxy-cert'), flags.optional('proxy-key')];
  if ((cert === undefined) !== (key === undefined)) throw usage('--proxy-cert and --proxy-key: one goes with the other; give both');
  const serverName = flags.optional('server-name') ?? (service.publicUrl === undefined ? 'localhost' : new URL(service.publicUrl).hostname);
  if (!/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/.test(serverName)) {
    throw usage(`--server-name ${serverName}: it has to be a host name in lower-case ASCII, as in registrar.example`);
  }
  const signIn = flags.text('sign-in');
  if (!/^\/[\w./~-]+$/.test(signIn)) throw usage(`--sign-in ${signIn}: it has to be a path, as in /sign-in`);
  const authFor = flags.optional('auth-for');
  return Object.freeze({
    service,
    serveFlags: serve,
    listen: listenAt('listen', flags.text('listen')),
    listenTls: listenAt('listen-tls', flags.text('listen-tls')),
    serverName,
    cert,
    key,
    upstreamAuthorities: flags.optional('upstream-ca'),
    also: flags.list('also').map(instance),
    authFor: authFor === undefined ? undefined : application(authFor),
    signIn,
    isHsts: flags.isOnOrSet('hsts'),
    whole: flags.optional('whole'),
    isRun: flags.isOn('run'),
  });
}

const table = { values: defaults, switches: ['run'], switchesWithVariable: ['hsts'] } as const;

/** What is ours, and what is for `serve`, which refuses what it does not know. */
function split(args: readonly string[]): { readonly own: readonly string[]; readonly serve: readonly string[] } {
  const strings = Object.keys(defaults).map((flag) => [flag, { type: 'string' }] as const);
  const options = { ...Object.fromEntries(strings), hsts: { type: 'boolean' }, run: { type: 'boolean' } } as const;
  const { tokens } = parseArgs({ args: [...args], options, strict: false, allowPositionals: true, tokens: true });
  const taken = new Set<number>();
  for (const token of tokens) {
    if (token.kind !== 'option' || !Object.hasOwn(options, token.name)) continue;
    taken.add(token.index);
    if (token.value !== undefined && !token.inlineValue) taken.add(token.index + 1);
  }
  return { own: args.filter((_, index) => taken.has(index)), serve: args.filter((_, index) => !taken.has(index)) };
}

/** `8080`, `127.0.0.1:8080` or `[::1]:8080`. */
function listenAt(flag: string, text: string): ProxyListen {
  const [, address, port] = /^(?:([\d.]+|\[[\da-f:]+\]):)?(\d{1,5})$/i.exec(text) ?? [];
  if (port === undefined || Number(port) < 1 || Number(port) > 65_535) {
    throw usage(`--${flag} ${text}: it has to be a port, or an address and a port, as in 127.0.0.1:8080`);
  }
  return { address, port: Number(port) };
}

function instance(text: string): ProxyConfig['also'][number] {
  if (text.startsWith('/')) return { socket: text };
  const [, host, port] = /^([a-z0-9.-]+|\[[\da-f:]+\]):(\d{1,5})$/i.exec(text) ?? [];
  if (host !== undefined && port !== undefined) return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
  throw usage(`--also ${text}: it has to be the host and port, or the absolute path of the socket, of another instance`);
}

function application(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === 'http:' && url.pathname === '/' && url.search + url.hash + url.username === '') return url.origin;
  throw usage(`--auth-for ${text}: it has to be where the application listens, as in http://127.0.0.1:3000, with no path`);
}
