/**
 * Who may do what; pure. Without an admin token the service is in open mode: everything is allowed, but
 * only to a peer on this machine that speaks for itself. A proxy in front would lend its loopback address
 * to the whole world, and a browser would lend it to every page that it shows, so the traces that these
 * leave are refused. A relay that leaves no trace cannot be seen.
 */

import { RegistrarError } from './errors.ts';

/** What is known of a request before its route is. */
export interface Approach {
  readonly method: string;
  /** The address at the other end of the connection. */
  readonly peer: string | undefined;
  readonly httpVersion: string;
  /** The headers by their names in lower case. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
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
export function admitInOpenMode({ method, peer, httpVersion, headers }: Approach): void {
  if (peer !== '127.0.0.1' && (peer === undefined || !isLoopback(peer))) throw refusal('requests from another machine');
  if (httpVersion !== '1.1') throw refusal(`HTTP/${httpVersion}, which proxies speak`);
  for (const name in headers) {
    if (forwarding.test(name)) throw refusal(`requests that were relayed (they carry "${name}")`);
  }
  if (typeof headers.host !== 'string' || !loopbackHost.test(headers.host)) {
    throw refusal('requests for another host: ask for localhost, 127.0.0.1 or [::1]');
  }
  if (!safeMethods.has(method)) refuseOtherSites(headers);
}

/** A page of another site may send a request from this machine's browser, and must not change anything. */
function refuseOtherSites(headers: Approach['headers']): void {
  const site = headers['sec-fetch-site'];
  const { origin, host } = headers;
  const isForeign = origin !== undefined && origin !== `https://${host}` && origin !== `http://${host}`;
  if (site === 'cross-site' || site === 'same-site' || isForeign) {
    throw new RegistrarError('forbidden', 'A page of another site may not change anything here');
  }
}

function refusal(what: string): RegistrarError {
  return new RegistrarError(
    'forbidden',
    `Open mode serves this machine only, and refuses ${what}. Ask it directly, as in curl -k https://localhost:8443/user/`,
  );
}
