/** Reads Idempotency-Key: a string of RFC 9651 in quotes, whose parameters mean nothing, or the same without quotes; pure. */

import { RegistrarError } from '../errors.ts';

const quoted = /^"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"[ \t]*(?:;[\x20-\x7e]*)?$/;
const bare = /^[\x21\x23-\x5b\x5d-\x7e]{1,255}$/;
const keyCharactersMax = 255;

/** Throws `malformed`. */
export function idempotencyKey(header: string | string[] | undefined): string | undefined {
  if (header === undefined) return undefined;
  const text = String(header);
  const key = bare.test(text) ? text : quoted.exec(text)?.[1]?.replace(/\\(.)/g, '$1');
  if (key !== undefined && key !== '' && key.length <= keyCharactersMax) return key;
  const fields = [{ detail: `It has to be 1 to ${keyCharactersMax} visible ASCII characters, in quotes`, parameter: 'Idempotency-Key' }];
  throw new RegistrarError('malformed', 'The Idempotency-Key cannot be read', { fields });
}
