/** Bytes over TLS, as no client would send them. */

import { once } from 'node:events';
import { connect } from 'node:tls';
import type { TLSSocket } from 'node:tls';

export async function connectRaw(url: string): Promise<TLSSocket> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname.replace(/[[\]]/g, ''), port: Number(port), rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  return socket;
}

/** Sends the bytes and resolves with all that comes back until the other side closes, or `ms` have passed. */
export async function sendRaw(url: string, parts: readonly (string | Buffer)[], ms = 3_000): Promise<string> {
  const socket = await connectRaw(url);
  const closed = new Promise((resolve) => socket.once('close', resolve));
  let text = '';
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => (text += chunk.toString('latin1')));
  for (const part of parts) {
    // It may have been refused before it was all sent.
    if (socket.writable) socket.write(part);
    if (parts.length > 1) await new Promise((resolve) => setImmediate(resolve));
  }
  const timer = setTimeout(() => socket.destroy(), ms);
  await closed;
  clearTimeout(timer);
  return text;
}
