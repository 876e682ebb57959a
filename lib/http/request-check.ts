/** What the parser accepts and the service does not: the message as such, before anybody asks whose it is or what it wants. */

import type { IncomingMessage } from 'node:http';
import { RegistrarError } from '../errors.ts';

/** The parser would drop those above a count of its own, and with them what they forbid. */
const headersMax = 64;

/** What the parser accepts and two servers may read in two ways, or that nobody sends in good faith. */
export function checkMessage(request: IncomingMessage): void {
  const { url = '', method, rawHeaders, headers, httpVersion } = request;
  // The parser takes 0.9, which has no headers, and 2.0, which is not written like this.
  if (httpVersion !== '1.1' && httpVersion !== '1.0') throw malformed('HTTP/1.1 and 1.0 are spoken here');
  const isTarget = /^\/[\x21\x22\x24-\x7e]*$/.test(url) || (method === 'OPTIONS' && url === '*');
  if (!isTarget) throw malformed('the target has to be a path, as in /user/');
  if (rawHeaders.length > 2 * headersMax) throw new RegistrarError('headers-too-large', `There are more than ${headersMax} headers`);
  if (headers.upgrade !== undefined) throw malformed('there is nothing to upgrade to');
  const coding = headers['transfer-encoding'];
  if (coding !== undefined && coding.toLowerCase() !== 'chunked') throw malformed('the only transfer coding is chunked');
  let seen = 0;
  for (let n = 0; n < rawHeaders.length; n += 2) {
    const bit = singleHeaderBit(rawHeaders[n]!);
    if ((seen & bit) !== 0) throw malformed(`the header ${rawHeaders[n]!.toLowerCase()} stands there more than once`);
    seen |= bit;
  }
  if (headers.host === undefined && httpVersion === '1.1') throw malformed('it has no header host');
}

/** One bit for each header that stands once in a sane request (the parser takes the first and drops the rest); 0 for others. */
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
  return new RegistrarError('malformed', `Cannot take the request: ${reason}`);
}
