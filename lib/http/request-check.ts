/**
 * Checks the head of a request for what Node's parser accepts and two servers may read in two ways (RFC 9112), and takes
 * authority, path and query from the target. Optional features, such as Upgrade, are ignored.
 */

import type { RequestContext } from '../auth/request-context.ts';
import { RegistrarError } from '../errors.ts';

/** The parser would drop those above a count of its own, and with them what they forbid. */
const headersMax = 64;
const origin = /^\/[\x21\x22\x24-\x7e]*$/;
/** Authority, then path and query (RFC 9112, 3.2.2); user information is not for http (RFC 9110, 4.2.4). */
const absolute = /^https?:\/\/([^/?#@]+)([/?][\x21\x22\x24-\x7e]*)?$/i;
const authority = /^[A-Za-z0-9._~!$&'()*+,;=%:[\]-]*$/;

/** Throws `malformed` or `headers-too-large`. */
export function checkRequest(context: RequestContext): void {
  const { rawHeaders, headers, httpVersion } = context.request;
  // The parser takes 0.9, which has no headers, and 2.0, which is not written like this.
  if (httpVersion !== '1.1' && httpVersion !== '1.0') throw malformed('its version has to be HTTP/1.1 or HTTP/1.0');
  if (rawHeaders.length > 2 * headersMax) throw new RegistrarError('headers-too-large', `There are more than ${headersMax} headers`);
  const coding = headers['transfer-encoding'];
  if (coding !== undefined && coding.toLowerCase() !== 'chunked') throw malformed('the only transfer coding is chunked');
  let seen = 0;
  for (let n = 0; n < rawHeaders.length; n += 2) {
    const bit = singleHeaderBit(rawHeaders[n]!);
    if ((seen & bit) !== 0) throw malformed(`the header ${rawHeaders[n]!.toLowerCase()} is there more than once`);
    seen |= bit;
  }
  if (headers.host === undefined && httpVersion === '1.1') throw malformed('it has no Host header');
  readTarget(context);
  if (context.host !== undefined && !authority.test(context.host)) throw malformed('its Host is not a host');
}

function readTarget(context: RequestContext): void {
  const { url = '' } = context.request;
  const isAsterisk = url === '*' && context.method === 'OPTIONS';
  let target = url;
  if (!isAsterisk && !origin.test(url)) {
    const [, host, rest = ''] = absolute.exec(url) ?? [];
    if (host === undefined) throw malformed('its target has to be a path, as in /user/');
    context.host = host;
    target = rest.startsWith('/') ? rest : context.method === 'OPTIONS' && rest === '' ? '*' : `/${rest}`;
  }
  const cut = target.indexOf('?');
  context.path = cut < 0 ? target : target.slice(0, cut);
  if (cut >= 0) context.query = target.slice(cut + 1);
}

/** One bit for each header that is there once in a sane request (the parser takes the first and drops the rest); 0 for others. */
function singleHeaderBit(name: string): number {
  switch (name.length) {
    case 4: return name.toLowerCase() === 'host' ? 1 : 0;
    case 12: return name.toLowerCase() === 'content-type' ? 2 : 0;
    case 13: return name.toLowerCase() === 'authorization' ? 4 : 0;
    case 14: return name.toLowerCase() === 'content-length' ? 8 : 0;
    default: return 0;
  }
}

function malformed(reason: string): RegistrarError {
  return new RegistrarError('malformed', `Cannot read the request: ${reason}`);
}
