/**
 * Reads a request's body: type, encoding, length, UTF-8, JSON, and its fields, each strictly. Errors never repeat what the
 * client sent: it holds a password.
 */

import type { IncomingMessage } from 'node:http';
import { trimOws } from '../auth/credentials.ts';
import type { RequestContext } from '../auth/request-context.ts';
import { RegistrarError } from '../errors.ts';
import type { FieldError } from '../errors.ts';
import { parseObject } from '../json.ts';
import { readMediaType } from './header-values.ts';
import type { FieldTable } from './route.ts';

type Values = Readonly<Record<string, string | boolean>>;

/** A login and a password of the greatest length, every character escaped twice over, are below 8 KB. */
export const bodyBytesMax = 16_384;

const decoder = new TextDecoder('utf-8', { fatal: true });
const none: Values = {};

/** Whether the headers announce a body. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
}

/**
 * The values of the fields, when the whole request has arrived; without fields the body is ignored. Throws
 * `unsupported-media-type`, `too-large`, `malformed`, or `invalid` with every field that is wrong.
 * @param wantsContinue the client waits for 100 Continue.
 */
export async function readBody(context: RequestContext, fields: FieldTable | undefined, wantsContinue: boolean): Promise<Values> {
  const { request, response } = context;
  if (fields !== undefined) checkType(request);
  if (Number(request.headers['content-length'] ?? 0) > bodyBytesMax) throw tooLarge();
  if (wantsContinue && hasBody(request)) response.writeContinue();
  const bytes = await receive(request);
  if (fields === undefined) return none;
  return pick(parse(decode(bytes), Object.keys(fields).filter((name) => fields[name] === 'required')), fields);
}

function checkType({ headers }: IncomingMessage): void {
  const header = headers['content-type'];
  // A body without a type can only be JSON.
  const { type, parameters } = readMediaType(header ?? 'application/json');
  if (type !== 'application/json') {
    throw new RegistrarError(
      'unsupported-media-type',
      "The body's Content-Type has to be application/json: with curl add -H 'Content-Type: application/json'",
    );
  }
  // JSON is UTF-8, and other parameters mean nothing (RFC 8259, 11).
  if (!/^utf-?8$/.test(parameters.get('charset') ?? 'utf-8')) {
    throw new RegistrarError('unsupported-media-type', "The body's charset has to be UTF-8");
  }
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && trimOws(encoding).toLowerCase() !== 'identity') {
    throw new RegistrarError('unsupported-media-type', 'The body is compressed: send it as it is, with no Content-Encoding');
  }
}

/** Rejects when the client leaves, and when the body is too large, of which the rest is then not read. */
function receive(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const take = (chunk: Buffer): void => {
      length += chunk.length;
      chunks.push(chunk);
      if (length <= bodyBytesMax) return;
      request.off('data', take);
      reject(tooLarge());
    };
    request.on('data', take);
    request.once('end', () => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)));
    request.once('error', reject);
    request.once('close', () => reject(new RegistrarError('timeout', 'The client closed the connection before the end of the request')));
  });
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
  throw new RegistrarError('malformed', `The body ${text === '' ? 'is empty' : parsed.problem}. ${example}`);
}

function pick(value: Record<string, unknown>, fields: FieldTable): Values {
  const errors: FieldError[] = [];
  const picked: Record<string, string | boolean> = {};
  for (const [name, kind] of Object.entries(fields)) {
    const given = Object.hasOwn(value, name) ? value[name] : undefined;
    const pointer = `#/${name}`;
    const [type, inWords] = kind === 'boolean' ? ['boolean', 'true or false'] : ['string', 'text'];
    if (typeof given === type) picked[name] = given as string | boolean;
    else if (given !== undefined) errors.push({ detail: `"${name}" has to be ${inWords}`, pointer });
    else if (kind === 'required') errors.push({ detail: `"${name}" is missing`, pointer });
  }
  if (Object.keys(value).some((name) => !Object.hasOwn(fields, name))) {
    // The name is not repeated: it may be anything, a password among others.
    const known = Object.keys(fields).map((name) => `"${name}"`).join(', ');
    errors.push({ detail: `The body has an unknown field: it may have ${known}`, pointer: '#' });
  }
  if (errors.length === 0) return picked;
  throw new RegistrarError('invalid', errors.map(({ detail }) => detail).join('. '), { fields: errors });
}
