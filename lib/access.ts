/**
 * Who may do what; pure. Without an admin token the service is in open mode: everything is allowed, but
 * only to a peer on this machine that speaks for itself. A proxy in front would lend its loopback address
 * to the whole world, and a browser would lend it to every page that it shows, so the traces that these
 * leave are refused. A relay that leaves no trace cannot be seen. With an admin token it is in closed mode,
 * where `authorize` is the whole table, and what it does not name is refused.
 */

import { RegistrarError } from './errors.ts';

/** What is known of a request before its route is. */
export interface Approach {
  readonly method: string;
  /** The address at the other end of the connection; undefined on a unix socket. */
  readonly peer: string | undefined;
  readonly httpVersion: string;
  /** The headers by their names in lower case. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** How a user has proven who they are: the password, a session token, or the same token in the page's cookie. */
export type Proof = 'basic' | 'bearer' | 'cookie';

export interface UserPrincipal {
  readonly kind: 'user';
  readonly by: Proof;
  readonly id: number;
  readonly login: string;
  readonly version: number;
  /** When the session ends, ISO 8601; undefined where the password itself was shown. */
  readonly expires: string | undefined;
}

export type Principal =
  /** Whoever is let in in open mode. */
  | { readonly kind: 'local' }
  | { readonly kind: 'anyone' }
  | { readonly kind: 'admin' }
  | UserPrincipal;

export type Action =
  | 'public' | 'register' | 'list' | 'read' | 'change-password' | 'remove'
  | 'open-session' | 'read-session' | 'end-session' | 'read-metrics';

export type RegistrationMode = 'open' | 'admin';

export interface Rules {
  /** Who may register users in closed mode. */
  readonly registration: RegistrationMode;
}

/** Origins, as in `https://app.example`, that are this service's own besides what `Host` says, and that may use it. */
export interface Origins {
  readonly own: string | undefined;
  readonly allowed: readonly string[];
}

const loopbackHost = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/i;
/** What proxies, content networks and load balancers add; a client that speaks for itself has none of them. */
const forwarding =
  /^(?:forwarded|forwarded-for|via|x-real-ip|x-(?:cluster-)?client-ip|x-(?:forwarded|original|envoy).*|(?:cf|fastly|true)-.*ip)$/;
const safeMethods = new Set(['GET', 'HEAD', 'OPTIONS']);

/** Whether a listener on this address is reached from this machine alone. */
export function isLoopback(address: string): boolean {
  return /^(?:::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/i.test(address) || address === '::1' || address === 'localhost';
}

/** Throws `forbidden`, with the way out in its detail, unless open mode may serve this. */
export function admitInOpenMode({ peer, httpVersion, headers }: Approach): void {
  if (peer !== '127.0.0.1' && (peer === undefined || !isLoopback(peer))) throw refusal('requests from another machine');
  if (httpVersion !== '1.1') throw refusal(`HTTP/${httpVersion}, which proxies speak`);
  for (const name in headers) {
    if (forwarding.test(name)) throw refusal(`requests that were relayed (they carry "${name}")`);
  }
  if (typeof headers.host !== 'string' || !loopbackHost.test(headers.host)) {
    throw refusal('requests for another host: ask for localhost, 127.0.0.1 or [::1]');
  }
}

/**
 * A page of another site may send a request from the user's browser, with the user's cookie or from the user's
 * machine, and must not change anything. Throws `forbidden`. What is no browser sends neither header.
 */
export function refuseOtherSites({ method, headers }: Approach, { own, allowed }: Origins): void {
  if (safeMethods.has(method)) return;
  const { origin, host, 'sec-fetch-site': site } = headers;
  if (typeof origin === 'string') {
    if (origin === `https://${host}` || origin === `http://${host}` || origin === own || allowed.includes(origin)) return;
  } else if (site !== 'cross-site' && site !== 'same-site') {
    return;
  }
  throw new RegistrarError('forbidden', 'A page of another site may not change anything here, but for those that --allow-origin names');
}

/**
 * The table. Throws `unauthenticated` where credentials could help, else `forbidden`.
 * @param login of the user whom it is about, canonical, where there is one. Someone else's account answers the same
 *   whether it exists or not, so it need not.
 */
export function authorize(principal: Principal, action: Action, { registration }: Rules, login?: string): void {
  const isOwner = principal.kind === 'user' && login !== undefined && principal.login === login;
  switch (action) {
    case 'public':
    case 'open-session':
      return;
    case 'read-session':
    case 'end-session':
      if (principal.kind === 'user') return;
      if (principal.kind === 'admin') throw forbidden('The admin token is nobody\'s session: sign in as a user');
      throw unauthenticated();
    default:
      if (principal.kind === 'local' || principal.kind === 'admin') return;
  }
  // A browser sends the cookie by itself, so it is good for nothing but what it is for.
  if (principal.kind === 'user' && principal.by === 'cookie') throw unauthenticated();
  if (action === 'register' && registration === 'open') return;
  if (principal.kind === 'anyone') throw unauthenticated();
  if (action === 'register') throw forbidden('Only the admin token may register users here');
  if (action === 'list' || action === 'read-metrics') throw forbidden('This is for the admin token only');
  if (!isOwner) throw forbidden('This user is not yours');
  if (action === 'read' || action === 'change-password') return;
  if (action === 'remove' && principal.by === 'basic') return;
  throw forbidden('Removing an account asks for its password: send login and password by Basic, as with curl -u');
}

function unauthenticated(): RegistrarError {
  const how = 'login and password by Basic, as with curl -u, or a token by Bearer';
  return new RegistrarError('unauthenticated', `This needs credentials: ${how}`);
}

function forbidden(detail: string): RegistrarError {
  return new RegistrarError('forbidden', detail);
}

function refusal(what: string): RegistrarError {
  return new RegistrarError(
    'forbidden',
    `Open mode serves this machine only, and refuses ${what}. Ask it directly, as in curl -k https://localhost:8443/user/; ` +
      'for anybody else make an admin token: registrar token',
  );
}
