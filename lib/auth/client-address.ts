/**
 * The client of a request: its address, also behind trusted proxies, and the networks under which it is limited. An entry
 * of X-Forwarded-For counts only if a trusted hop has written it, so the list is read from its end. Pure. `Forwarded`
 * (RFC 7239) is not read.
 */

import { BlockList, SocketAddress, isIP, isIPv4 } from 'node:net';
import { trimOws } from './credentials.ts';

export interface TrustedProxies {
  readonly addresses: BlockList;
  /** Whether peers on a unix socket are proxies: they have no address. */
  readonly unix: boolean;
}

export interface Client {
  /** For the log: the IPv4 address, the IPv6 /64, or `unix`. */
  readonly name: string;
  /** What shares its limits, the narrowest first. `factor` multiplies a limit for a wider network. */
  readonly networks: readonly [Network, ...Network[]];
}

interface Network {
  readonly key: string;
  readonly factor: number;
}

/** The name of a peer on a unix socket. */
const socketPeer = 'unix';
/** Hops that are read; a header has at most 8 KB in any case. */
const hopsMax = 32;
/** A site gets a /56 or a /48 from its provider, and so may have 65,536 networks of its own. */
const widerNetworks = [{ bits: 56, factor: 2 }, { bits: 48, factor: 4 }] as const;

/** Reads a list such as `127.0.0.1, 10.0.0.0/8, fd00::/8, unix`, or names the item that cannot be read. */
export function parseTrustedProxies(text: string): TrustedProxies | { readonly problem: string } {
  const addresses = new BlockList();
  let unix = false;
  for (const item of text.split(',').map((part) => part.trim()).filter((part) => part !== '')) {
    if (item === socketPeer) unix = true;
    else if (!add(addresses, item)) return { problem: `"${item}" is neither an address, nor a network such as 10.0.0.0/8, nor "unix"` };
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
    const address = plain(withoutPort(trimOws(entry)));
    // A trusted hop that writes no address ("unknown", an obfuscated name) is the last known one.
    if (address === undefined) return client;
    client = address;
  }
  return client;
}

/** The client that has this address. All addresses of an IPv6 /64 are one client. */
export function clientOf(address: string): Client {
  if (isIP(address) !== 6) return { name: address, networks: [{ key: address, factor: 1 }] };
  const [before = '', after = ''] = (plain(address) ?? address).split('::');
  const [left, right] = [before, after].map((part) => part.split(':').filter((group) => group !== ''));
  const zeroes = 8 - left!.length - right!.length - (after.includes('.') ? 1 : 0);
  const groups = [...left!, ...Array.from({ length: zeroes }, () => '0'), ...right!].slice(0, 4);
  const name = `${groups.join(':')}::/64`;
  const last = Number.parseInt(groups[3] ?? '0', 16);
  const wider = widerNetworks.map(({ bits, factor }) => {
    const kept = bits === 48 ? 0 : last & 0xff00;
    return { key: `${groups.slice(0, 3).join(':')}:${kept.toString(16)}::/${bits}`, factor };
  });
  return { name, networks: [{ key: name, factor: 1 }, ...wider] };
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

/** The spelling of RFC 5952, without a zone; IPv4 for a mapped address. Undefined if the text is no address. */
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
