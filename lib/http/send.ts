/** Hands an answer over: its headers, its body as fast as the client reads, and the rest of a request that nobody wanted. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Reply } from './message.ts';

export interface Sending {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** The request's. */
  readonly id: string;
  /** Of the body, as far as it is handed over. */
  bytes: number;
  /** Called when the answer is handed over: with false when the connection is to be closed behind it. */
  readonly done: (keepAlive: boolean) => void;
}

/** Sent with every answer, the request's id behind: none of them may be kept, and none is anything but what its type says. */
export const everyHeader = ['Cache-Control', 'no-store', 'X-Content-Type-Options', 'nosniff', 'X-Request-Id'] as const;

/** A body that nobody wants is read for so long, lest closing on it takes the answer away from its reader. */
export const lingerMs = 1_000;
const lingerBytesMax = 8 << 20;
/** A client that takes none of its answer is left after twice this: Node lets the first pass while a write is under way. */
const unreadMs = 5_000;

/** @param more headers of this request's answers, whatever they are. Resolves when the answer is handed over. */
export function send(sending: Sending, reply: Reply, more: Reply['headers']): Promise<void> | undefined {
  const { request, response, id, done } = sending;
  const { status, body } = reply;
  const headers = withHeaders(reply.headers, more);
  const hasBody = request.headers['transfer-encoding'] !== undefined || (request.headers['content-length'] ?? '0') !== '0';
  const keep = response.shouldKeepAlive && (request.complete || !hasBody);
  // A flat list is what Node takes fastest.
  const all: string[] = [...everyHeader, id];
  for (const name in headers) all.push(name, headers[name]!);
  if (!keep) all.push('Connection', 'close');
  if (body !== undefined && typeof body !== 'string' && !Buffer.isBuffer(body)) {
    response.writeHead(status, all);
    return sendStream(sending, body).then((isWhole) => {
      if (!isWhole) return;
      done(keep);
      response.end();
    });
  }
  const bytes = body === undefined ? 0 : Buffer.byteLength(body);
  if (request.method !== 'HEAD') sending.bytes = bytes;
  if (status !== 204 && status !== 304) all.push('Content-Length', String(bytes));
  response.writeHead(status, all);
  done(keep);
  if (hasBody && !request.complete) {
    if (body !== undefined) response.write(body);
    else response.flushHeaders();
    return linger(request).then(() => void response.end());
  }
  // Text of as many bytes as characters is ASCII, which Node need not encode: so head and body are one string to it.
  if (typeof body === 'string') response.end(body, bytes === body.length ? 'latin1' : 'utf8');
  else response.end(body);
  if (response.socket?.writableNeedDrain === true) response.socket.setTimeout(unreadMs);
  return undefined;
}

function withHeaders(own: Reply['headers'], more: Reply['headers']): Reply['headers'] {
  if (more === undefined) return own;
  const all = { ...own, ...more };
  if (own?.Vary !== undefined && more.Vary !== undefined) all.Vary = `${own.Vary}, ${more.Vary}`;
  return all;
}

/** @returns false if the client has left. */
async function sendStream(sending: Sending, body: AsyncIterable<Buffer>): Promise<boolean> {
  const { request, response } = sending;
  if (request.method === 'HEAD') return true;
  for await (const chunk of body) {
    if (response.destroyed) return false;
    sending.bytes += chunk.length;
    if (response.write(chunk)) continue;
    response.socket?.setTimeout(unreadMs);
    await drained(response);
  }
  return true;
}

/** Reads and drops what comes, until it ends or it is enough. */
function linger(request: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    let bytes = 0;
    const timer = setTimeout(settle, lingerMs);
    function settle(): void {
      clearTimeout(timer);
      request.off('data', count);
      request.resume();
      resolve();
    }
    function count(chunk: Buffer): void {
      bytes += chunk.length;
      if (bytes > lingerBytesMax) settle();
    }
    for (const event of ['end', 'close', 'error']) request.once(event, settle);
    request.on('data', count);
  });
}

/** Resolves when the client has read on, or is gone. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      response.off('drain', settle);
      response.off('close', settle);
      resolve();
    };
    response.on('drain', settle);
    response.on('close', settle);
    if (response.destroyed) settle();
  });
}
