/** Sends a response: its headers, its body as fast as the client reads. The rest of a rejected request is read and dropped. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { RequestContext } from '../auth/request-context.ts';
import { hasBody } from './body.ts';
import type { Reply } from './route.ts';

/** Called when the response is handed over: with false when the connection is to be closed after it. */
export type Done = (keepAlive: boolean) => void;

/** Tells browsers to use HTTPS only, for two years (RFC 6797). */
const hstsHeader = ['Strict-Transport-Security', 'max-age=63072000'] as const;

/** The headers of every response, before the request's id: it is not stored, and its type is not guessed. */
export const everyHeader = ['Cache-Control', 'no-store', 'X-Content-Type-Options', 'nosniff', 'X-Request-Id'] as const;

/** A rejected body is read for so long: closing on unread data would reset the connection before the client has the response. */
export const lingerMs = 1_000;
const lingerBytesMax = 8 << 20;
/** A client that reads nothing is disconnected after twice this: Node lets the first timeout pass while a write is under way. */
const unreadMs = 5_000;

/** @param more headers of every response to this request. Resolves when the response is handed over. */
export function send(context: RequestContext, reply: Reply, more: Reply['headers'], hsts: boolean, done: Done): Promise<void> | undefined {
  const { request, response, id } = context;
  const { status, body } = reply;
  const headers = withHeaders(reply.headers, more);
  const isUnread = !request.complete && hasBody(request);
  const keep = response.shouldKeepAlive && !isUnread;
  // A flat list is what Node takes fastest.
  const all: string[] = [...everyHeader, id];
  if (hsts) all.push(...hstsHeader);
  for (const name in headers) all.push(name, headers[name]!);
  if (!keep) all.push('Connection', 'close');
  if (body !== undefined && typeof body !== 'string' && !Buffer.isBuffer(body)) {
    response.writeHead(status, all);
    return sendStream(context, body).then((isWhole) => {
      if (!isWhole) return;
      done(keep);
      response.end();
    });
  }
  const bytes = body === undefined ? 0 : Buffer.byteLength(body);
  if (request.method !== 'HEAD') context.bytes = bytes;
  if (status !== 204 && status !== 304) all.push('Content-Length', String(bytes));
  response.writeHead(status, all);
  done(keep);
  if (isUnread) {
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
async function sendStream(context: RequestContext, body: AsyncIterable<Buffer>): Promise<boolean> {
  const { request, response } = context;
  if (request.method === 'HEAD') return true;
  for await (const chunk of body) {
    if (response.destroyed) return false;
    context.bytes += chunk.length;
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
