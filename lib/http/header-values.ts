/** Reads header values as RFC 9110 writes them; pure. White space is SP and HTAB only: JavaScript's `trim` also removes U+00A0. */

import type { IncomingHttpHeaders } from 'node:http';
import { trimOws } from '../auth/credentials.ts';

/** A media type or range in lower case, with its parameters in lower case, quotes removed (RFC 9110, 8.3.1); empty ones are ignored. */
export function readMediaType(text: string): { readonly type: string; readonly parameters: ReadonlyMap<string, string> } {
  const [type = '', ...rest] = text.split(';').map((part) => trimOws(part).toLowerCase());
  const parameters = rest.filter((part) => part !== '').map((part): [string, string] => {
    const cut = part.indexOf('=');
    return cut < 0 ? [part, ''] : [part.slice(0, cut), part.slice(cut + 1).replace(/^"(.*)"$/, '$1')];
  });
  return { type, parameters: new Map(parameters) };
}

/** Whether a browser opens a page, by Fetch Metadata, which older browsers do not send. */
export function isNavigation({ accept = '', 'sec-fetch-mode': mode }: IncomingHttpHeaders): boolean {
  return mode === undefined ? accept.includes('text/html') : mode === 'navigate';
}

/**
 * Whether `Accept` prefers the second type to the first, which is the default (RFC 9110, 12.5.1): by weight, and where the
 * weights are the same only if it names the second and has no name for the first.
 */
export function prefers(accept: string | undefined, first: string, second: string): boolean {
  if (accept === undefined) return false;
  const ranges = accept.split(',').map(readMediaType);
  const weigh = (type: string): { weight: number; isNamed: boolean } => {
    const group = `${type.slice(0, type.indexOf('/'))}/*`;
    const range = [type, group, '*/*'].map((name) => ranges.find((other) => other.type === name)).find((found) => found !== undefined);
    const weight = range === undefined ? 0 : Number(range.parameters.get('q') ?? '1');
    return { weight: weight >= 0 && weight <= 1 ? weight : 0, isNamed: range?.type === type };
  };
  const [one, other] = [weigh(first), weigh(second)];
  return other.isNamed && (other.weight > one.weight || (other.weight === one.weight && other.weight > 0 && !one.isNamed));
}
