/** Listens on an address and port, or on a Unix socket, whose file outlives a process that was killed. */

import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import type { Server } from 'node:http';
import { connect } from 'node:net';
import { RegistrarError, messageOf, systemCode } from '../errors.ts';

export type ListenAddress =
  /** Port 0 takes a free one. */
  | { readonly host: string; readonly port: number }
  | { readonly socket: string };

/** The proxy's user has to be in the group; other users have no access. */
const socketMode = 0o660;

/** Throws `cannot-start` if the port or the path is taken, or it is not allowed. */
export async function listen(server: Server, at: ListenAddress): Promise<void> {
  if (!('socket' in at)) {
    await tryListen(server, at).catch((cause: unknown) => {
      throw new RegistrarError('cannot-start', `Cannot listen on ${at.host} port ${at.port}: ${portFailure(cause, at.port)}`, { cause });
    });
    return;
  }
  try {
    if (await isLeftOver(at.socket)) unlinkSync(at.socket);
    await tryListen(server, { path: at.socket });
    chmodSync(at.socket, socketMode);
  } catch (cause) {
    throw new RegistrarError('cannot-start', `Cannot listen on the socket "${at.socket}": ${socketFailure(cause)}`, { cause });
  }
}

function tryListen(server: Server, at: { host: string; port: number } | { path: string }): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(at, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Whether the socket is left over: no process listens on it. */
async function isLeftOver(path: string): Promise<boolean> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false;
  return new Promise<boolean>((resolve) => {
    const client = connect(path);
    client.once('connect', () => {
      client.destroy();
      resolve(false);
    });
    client.once('error', (error) => resolve(systemCode(error) === 'ECONNREFUSED'));
  });
}

function portFailure(cause: unknown, port: number): string {
  const code = systemCode(cause);
  if (code === 'EADDRINUSE') return 'another program listens there: choose another with --port';
  if (code === 'EADDRNOTAVAIL') return 'this machine does not have that address: choose another with --host';
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'the host name cannot be resolved: choose another with --host';
  if (code === 'EACCES') return `port ${port} needs root or CAP_NET_BIND_SERVICE: choose one above 1023 with --port`;
  return messageOf(cause);
}

function socketFailure(cause: unknown): string {
  const code = systemCode(cause);
  if (code === 'EADDRINUSE') return 'another program listens there, or it is no socket: choose another path';
  if (code === 'ENOENT') return 'its directory does not exist';
  if (code === 'EACCES') return 'its directory may not be written to';
  if (code === 'EINVAL') return 'the path is longer than the 107 bytes that a socket may have';
  return messageOf(cause);
}
