/** Reads the query of a request: known parameters only, each once. */

import { RegistrarError } from '../errors.ts';

/** @returns the values by name. Throws `malformed`. */
export function readQuery<Name extends string>(query: string, known: readonly Name[]): Partial<Record<Name, string>> {
  const values: Partial<Record<Name, string>> = {};
  if (query === '') return values;
  for (const [name, value] of new URLSearchParams(query)) {
    const found = known.find((other) => other === name);
    if (found === undefined) {
      const may = known.length === 0 ? 'there are none here' : `here it may have ${known.join(' and ')}`;
      throw new RegistrarError('malformed', `The query has a parameter that is not known: ${may}`);
    }
    if (values[found] !== undefined) throw malformed(found, 'stands in the query twice');
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

function malformed(parameter: string, reason: string): RegistrarError {
  return new RegistrarError('malformed', `"${parameter}" ${reason}`, { fields: [{ detail: `It ${reason}`, parameter }] });
}
