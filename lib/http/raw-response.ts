/** The response to bytes that never became a request: written to the socket as it is, since there is no ServerResponse. */

import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import type { RegistrarError } from '../errors.ts';
import { problem } from './problem.ts';
import { everyHeader, lingerMs } from './send.ts';

/** Writes the problem, and closes the connection. @returns its status. */
export function sendRaw(socket: Duplex, error: RegistrarError, id: string): number {
  const { status, headers = {}, body } = problem(error, id);
  const length = String(Buffer.byteLength(String(body)));
  const flat = [...everyHeader, id, ...Object.entries(headers).flat(), 'Content-Length', length, 'Connection', 'close'];
  const head = flat.map((part, n) => part + (n % 2 === 0 ? ': ' : '\r\n')).join('');
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${head}\r\n${String(body)}`);
  // What still comes is read and dropped for a while: closing on it could take the response away.
  socket.resume();
  setTimeout(() => socket.destroy(), lingerMs).unref();
  return status;
}
