/**
 * Who asks: the address of a request's client, where proxies that are trusted stand between; and the key under
 * which it is limited. An entry of X-Forwarded-For counts only if a trusted hop has written it, so the list is
 * walked from its end. Pure. `Forwarded` (RFC 7239) is not read.
 */

import { BlockList, SocketAddress, isIP, isIPv4 } from 'node:net';

export interface TrustedProxies {
  readonly addresses: BlockList;
  /** Whether peers on a unix socket are proxies: they have no address. */
  readonly unix: boolean;
}

/** What a peer on a unix socket is called. */
const socketPeer = 'unix';
/** More hops than any chain of proxies has; a header has at most 8 KB in any case. */
const hopsMax = 32;

/** Reads a list such as `127.0.0.1, 10.0.0.0/8, fd00::/8, unix`, or says which item is none. */
export function parseTrustedProxies(text: string): TrustedProxies | { readonly problem: string } {
  const addresses = new BlockList();
  let unix = false;
  for (const item of text.split(',').map((part) => part.trim()).filter((part) => part !== '')) {
    if (item === socketPeer) unix = true;
    else if (!add(addresses, item)) return { problem: `"${item}" is no address, no network such as 10.0.0.0/8, and not "unix"` };
  }
  return { addresses, unix };
}

/**
 * @param peer the socket's remote address; undefined for a unix socket.
 * @param forwardedFor all X-Forwarded-For headers, joined by commas as Node does.
 */
export function clientAddress(peer: string | undefined, forwardedFor: string | undefined, trusted: TrustedProxies): string {
  let client = peer === undefined || peer === '' ? socketPeer : (plain(peer) ?? socketPeer);
  if (forwardedFor === undefined) return client;
  const entries = forwardedFor.split(',').reverse().slice(0, hopsMax);
  for (const entry of entries) {
    if (!isTrusted(client, trusted)) return client;
    const address = plain(withoutPort(entry.trim()));
    // A trusted hop that writes no address ("unknown", an obfuscated name) is the last that can be told apart.
    if (address === undefined) return client;
    client = address;
  }
  return client;
}

/** Whoever has one IPv6 address has its whole /64. */
export function clientKey(address: string): string {
  if (isIP(address) !== 6) return address;
  const [before = '', after = ''] = (plain(address) ?? address).split('::');
  const [left, right] = [before, after].map((part) => part.split(':').filter((group) => group !== ''));
  const zeroes = 8 - left!.length - right!.length - (after.includes('.') ? 1 : 0);
  return `${[...left!, ...Array.from({ length: zeroes }, () => '0'), ...right!].slice(0, 4).join(':')}::/64`;
}

function isTrusted(address: string, { addresses, unix }: TrustedProxies): boolean {
  if (address === socketPeer) return unix;
  return addresses.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}

function add(addresses: BlockList, item: string): boolean {
  const [base = '', prefix, ...more] = item.split('/');
  const mapped = isIP(base) === 6 && isIPv4(plain(base) ?? '');
  const address = plain(base);
  if (address === undefined || more.length > 0 || base.includes('%')) return false;
  const family = isIPv4(address) ? 'ipv4' : 'ipv6';
  if (prefix === undefined) {
    addresses.addAddress(address, family);
    return true;
  }
  const bits = /^(?:0|[1-9][0-9]{0,2})$/.test(prefix) ? Number(prefix) - (mapped ? 96 : 0) : -1;
  if (bits < 0 || bits > (family === 'ipv4' ? 32 : 128)) return false;
  addresses.addSubnet(address, bits, family);
  return true;
}

/** One spelling for each address (RFC 5952), without a zone; IPv4 for one mapped into IPv6. Undefined if it is none. */
function plain(text: string): string | undefined {
  const address = text.replace(/%.*$/, '');
  const family = isIP(address);
  if (family !== 6) return family === 4 ? address : undefined;
  const spelt = new SocketAddress({ address, family: 'ipv6' }).address;
  return /^::ffff:([0-9.]+)$/.exec(spelt)?.[1] ?? spelt;
}

/** Some proxies write the port: `192.0.2.1:4711`, `[2001:db8::1]:4711`. */
function withoutPort(entry: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d{1,5})?$/.exec(entry);
  if (bracketed !== null) return bracketed[1] ?? '';
  return entry.replace(/^([^:]+):\d{1,5}$/, '$1');
}
