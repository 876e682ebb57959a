/** Reads the query of a request: known parameters only, each once. */

import { RegistrarError } from '../errors.ts';
import type { QueryName, QueryValues } from './route.ts';

/** Throws `malformed`. */
export function readQuery(query: string, known: readonly QueryName[]): QueryValues {
  const values: Partial<Record<QueryName, string>> = {};
  if (query === '') return values;
  // URLSearchParams drops a question mark at the start, and `/user/??limit=3` is not `limit=3`.
  for (const [name, value] of new URLSearchParams(`&${query}`)) {
    const found = known.find((other) => other === name);
    if (found === undefined) {
      const may = known.length === 0 ? 'there are none here' : `here it may have ${known.join(' and ')}`;
      throw malformed(shown(name), `is not a known parameter of the query: ${may}`);
    }
    if (values[found] !== undefined) throw malformed(found, 'is in the query twice');
    values[found] = value;
  }
  return values;
}

/** A whole number from `min` to `max`. Throws `malformed`. */
export function readNumber(name: string, text: string | undefined, otherwise: number, min: number, max: number): number {
  if (text === undefined) return otherwise;
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw malformed(name, `has to be a whole number from ${min} to ${max}`);
}

/** A name is repeated as far as it is short and plain: it may be anything, a password among others. */
function shown(name: string): string {
  return /^[A-Za-z0-9_.?-]{1,32}$/.test(name) ? name : '…';
}

function malformed(parameter: string, reason: string): RegistrarError {
  return new RegistrarError('malformed', `"${parameter}" ${reason}`, { fields: [{ detail: `It ${reason}`, parameter }] });
}
