/**
 * Authorization; pure. Without an admin token the service is in unauthenticated mode: everything is allowed, to direct
 * clients on this machine. A proxy would lend its loopback address to the network, and a browser to every page that it
 * shows, so requests with their traces are rejected; a relay that leaves no trace is not recognised. With an admin token
 * the service is in authenticated mode, where `authorize` is the whole table, and what it does not name is forbidden.
 */

import { RegistrarError } from './errors.ts';

/** The part of a request that is checked before its route is known. */
export interface IncomingRequest {
  readonly method: string;
  /** The address at the other end of the connection; undefined on a unix socket. */
  readonly peer: string | undefined;
  readonly httpVersion: string;
  readonly host: string | undefined;
  /** By their names in lower case. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** The credentials that a user was authenticated by: the password, or a session token. */
export type Proof = 'basic' | 'bearer' | 'cookie';

/** A session, as its token states it. */
export interface Session {
  readonly id: number;
  readonly login: string;
  readonly version: number;
  /** Seconds since 1970: when the token was issued, when it expires, when the user has signed in with the password. */
  readonly issued: number;
  readonly expires: number;
  readonly signedIn: number;
  /** `expires` in ISO 8601. */
  readonly expiresAt: string;
  /** Whether the cookie outlives the browser's session. */
  readonly isPersistent: boolean;
}

export interface UserPrincipal {
  readonly kind: 'user';
  readonly by: Proof;
  readonly id: number;
  readonly login: string;
  readonly version: number;
  /** Undefined for a password. */
  readonly session: Session | undefined;
  /** The public JSON of the user. */
  readonly json: string;
}

export type Principal =
  /** Any client in unauthenticated mode. */
  | { readonly kind: 'unauthenticated' }
  /** A client without credentials. */
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'admin' }
  /** The bearer of the metrics token. */
  | { readonly kind: 'metrics' }
  | UserPrincipal;

export type Action =
  | 'public' | 'register' | 'list' | 'read' | 'change-password' | 'remove' | 'issue-link' | 'use-link'
  | 'open-session' | 'read-session' | 'close-session' | 'end-sessions' | 'forward-auth' | 'read-metrics';

export type RegistrationMode = 'open' | 'admin';

export interface Rules {
  /** Who may register users in authenticated mode. */
  readonly registration: RegistrationMode;
}

/** Origins of pages, as in `https://app.example`. */
export interface Origins {
  /** The public URL of the service. */
  readonly own: string | undefined;
  readonly allowed: readonly string[];
  /** Whether pages reach the service by https only: with built-in TLS, or a public URL of https. */
  readonly isHttps: boolean;
}

const loopbackHost = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/i;
/** Header fields that proxies, content networks and load balancers add. */
const forwarding =
  /^(?:forwarded|forwarded-for|via|x-real-ip|x-(?:cluster-)?client-ip|x-(?:forwarded|original|envoy).*|(?:cf|fastly|true)-.*ip)$/;
const safeMethods = new Set(['GET', 'HEAD', 'OPTIONS']);

/** Whether an address is reached from this machine only. */
export function isLoopback(address: string): boolean {
  return /^(?:::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/i.test(address) || address === '::1' || address === 'localhost';
}

/** Throws `forbidden`, with the remedy, unless the request may be served in unauthenticated mode. */
export function requireDirectClient({ peer, httpVersion, host, headers }: IncomingRequest): void {
  if (peer !== '127.0.0.1' && (peer === undefined || !isLoopback(peer))) throw notDirect('requests from another machine');
  if (httpVersion !== '1.1') throw notDirect(`HTTP/${httpVersion}, which proxies send`);
  for (const name in headers) {
    if (forwarding.test(name)) throw notDirect(`forwarded requests (this one has "${name}")`);
  }
  if (host === undefined || !loopbackHost.test(host)) {
    throw notDirect('requests for another host than localhost, 127.0.0.1 or [::1]');
  }
}

/**
 * A page of another site may send a request from the user's browser, with the user's cookie or from the user's machine,
 * and must not change anything. Throws `forbidden`. Clients that are not browsers send neither header.
 */
export function requireOwnOrigin({ method, host, headers }: IncomingRequest, { own, allowed, isHttps }: Origins): void {
  if (safeMethods.has(method)) return;
  const { origin, 'sec-fetch-site': site } = headers;
  if (typeof origin === 'string') {
    if (origin === `https://${host}` || (!isHttps && origin === `http://${host}`) || origin === own || allowed.includes(origin)) return;
  } else if (site !== 'cross-site' && site !== 'same-site') {
    return;
  }
  throw forbidden('A page of another origin may not change anything here. --allow-origin names the origins that may.');
}

/**
 * The table. Throws `unauthenticated` where credentials could help, else `forbidden`.
 * @param login the canonical login of the account in question, if there is one. Another user's account gets the same
 *   answer whether it exists or not, so it need not exist.
 */
export function authorize(principal: Principal, action: Action, { registration }: Rules, login?: string): void {
  const { kind } = principal;
  const isOwner = kind === 'user' && login !== undefined && principal.login === login;
  switch (action) {
    case 'public':
    case 'open-session':
    case 'close-session':
    case 'use-link':
      return;
    case 'read-session':
    case 'forward-auth':
      if (kind === 'user') return;
      if (kind === 'admin' || kind === 'metrics') throw forbidden('This token has no session: sign in as a user.');
      throw unauthenticated();
    default:
      if (kind === 'unauthenticated' || kind === 'admin') return;
  }
  if (kind === 'metrics') {
    if (action === 'read-metrics') return;
    throw forbidden('The metrics token is good for /metrics only.');
  }
  // Browsers send the cookie by themselves, so it is good for sessions only.
  if (kind === 'user' && principal.by === 'cookie' && action !== 'end-sessions') throw unauthenticated();
  if (action === 'register' && registration === 'open') return;
  if (kind === 'anonymous') throw unauthenticated();
  if (administrative.has(action)) throw forbidden('This needs the admin token.');
  if (!isOwner) throw forbidden('This is another user\'s account.');
  if (action === 'read' || action === 'change-password' || action === 'end-sessions') return;
  if (action === 'remove' && principal.by === 'basic') return;
  throw forbidden('Removing an account needs its password: send login and password by Basic, as with curl -u.');
}

const administrative: ReadonlySet<Action> = new Set(['register', 'list', 'issue-link', 'read-metrics']);

function unauthenticated(): RegistrarError {
  return new RegistrarError('unauthenticated', 'This needs credentials: Basic, as with curl -u, or a token by Bearer.');
}

function forbidden(detail: string): RegistrarError {
  return new RegistrarError('forbidden', detail);
}

function notDirect(what: string): RegistrarError {
  return forbidden(
    `Unauthenticated mode serves direct clients on this machine, and rejects ${what}. ` +
      'Send requests to its own port, as with "curl -k", or run "registrar token" for authenticated mode.',
  );
}
