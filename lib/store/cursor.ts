/** The cursor of a list in the order of ids: opaque to a client, so that a store may change it. */

import { RegistrarError } from '../errors.ts';

/** @param id the last one of the page. */
export function encodeCursor(id: number): string {
  return Buffer.from(`id:${id}`).toString('base64url');
}

/** The id after which to go on. Throws `malformed` if the text is no cursor. */
export function decodeCursor(text: string): number {
  const [, id] = /^id:(\d{1,15})$/.exec(Buffer.from(text, 'base64url').toString('latin1')) ?? [];
  if (id !== undefined && encodeCursor(Number(id)) === text) return Number(id);
  const fields = [{ detail: 'It is no cursor: take it from "next" of a list', parameter: 'after' }];
  throw new RegistrarError('malformed', 'The cursor "after" is none that this service gave', { fields });
}
