/**
 * Reads a request's body: type, encoding, length, UTF-8, JSON, and its fields, each strictly. What the
 * client sent is never repeated in an error: it holds a password.
 */

import type { IncomingMessage } from 'node:http';
import { RegistrarError } from '../errors.ts';
import type { FieldError } from '../errors.ts';
import { parseObject } from '../json.ts';
import type { FieldTable, FieldValues } from './message.ts';

/** A login and a password of the greatest length, every character escaped twice over, are below 8 KB. */
export const bodyBytesMax = 16_384;

const decoder = new TextDecoder('utf-8', { fatal: true });

/**
 * The values of the fields. Throws `unsupported-media-type`, `too-large`, `malformed`,
 * or `invalid` with every field that is wrong.
 * @param proceed is called when the headers are in order and the body is wanted (100 Continue).
 */
export async function readFields<Name extends string>(
  request: IncomingMessage,
  fields: FieldTable<Name>,
  proceed: () => void,
): Promise<FieldValues<Name>> {
  checkType(request);
  const text = decode(await readBytes(request, proceed));
  return pick(parse(text, Object.keys(fields).filter((name) => fields[name as Name] === 'required')), fields);
}

function checkType({ headers }: IncomingMessage): void {
  const type = headers['content-type'];
  // Without a type it is taken for what it can only be.
  if (type !== undefined && !/^application\/json\s*(?:;\s*charset="?utf-8"?\s*)?$/i.test(type.trim())) {
    throw new RegistrarError(
      'unsupported-media-type',
      "The body's Content-Type has to be application/json: with curl add -H 'Content-Type: application/json'",
    );
  }
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding.trim().toLowerCase() !== 'identity') {
    throw new RegistrarError('unsupported-media-type', 'The body is compressed: send it as it is, with no Content-Encoding');
  }
}

async function readBytes(request: IncomingMessage, proceed: () => void): Promise<Buffer> {
  if (Number(request.headers['content-length'] ?? 0) > bodyBytesMax) throw tooLarge();
  proceed();
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bodyBytesMax) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function tooLarge(): RegistrarError {
  return new RegistrarError('too-large', `The body is larger than ${bodyBytesMax} bytes`);
}

function decode(bytes: Buffer): string {
  try {
    return decoder.decode(bytes);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new RegistrarError('malformed', 'The body is not UTF-8 text');
  }
}

function parse(text: string, names: readonly string[]): Record<string, unknown> {
  const example = `Send an object as {${names.map((name) => `"${name}":"…"`).join(',')}}`;
  const parsed = parseObject(text);
  if ('fields' in parsed) return parsed.fields;
  if (parsed.flaw === 'repeated') throw new RegistrarError('malformed', `The body ${parsed.problem}: send it once`);
  throw new RegistrarError('malformed', `The body ${text.trim() === '' ? 'is empty' : parsed.problem}. ${example}`);
}

function pick<Name extends string>(value: Record<string, unknown>, fields: FieldTable<Name>): FieldValues<Name> {
  const errors: FieldError[] = [];
  const picked: Partial<Record<Name, string>> = {};
  for (const name of Object.keys(fields) as Name[]) {
    const pointer = `#/${name}`;
    const given = Object.hasOwn(value, name) ? value[name] : undefined;
    if (fields[name] === 'flag') {
      if (given === true) picked[name] = 'true';
      else if (given !== undefined && given !== false) errors.push({ detail: `"${name}" has to be true or false`, pointer });
    } else if (typeof given === 'string') picked[name] = given;
    else if (given !== undefined) errors.push({ detail: `"${name}" has to be text`, pointer });
    else if (fields[name] === 'required') errors.push({ detail: `"${name}" is missing`, pointer });
  }
  if (Object.keys(value).some((name) => !Object.hasOwn(fields, name))) {
    // The name is not repeated: it may be anything, a password among others.
    const known = Object.keys(fields).map((name) => `"${name}"`).join(', ');
    errors.push({ detail: `The body has an unknown field: it may have ${known}`, pointer: '#' });
  }
  if (errors.length === 0) return picked;
  throw new RegistrarError('invalid', errors.map(({ detail }) => detail).join('. '), { fields: errors });
}
