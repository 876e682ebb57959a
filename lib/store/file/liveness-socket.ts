/**
 * A unix socket on which a process listens for as long as it lives: a refused connection proves that the process is
 * dead. The kernel closes the socket when the last thread has ended, so no system call of the dead process is still
 * running then. A heartbeat gives no such proof; a pid is reused, differs between namespaces, and exists for a zombie.
 *
 * The socket is bound under a temporary name and renamed when it listens, since a socket that is bound and does not
 * listen yet looks dead. Its path goes through /proc/self/fd: the path of a socket is limited to 108 bytes.
 */

import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { RegistrarError, systemCode } from '../../errors.ts';
import type { FileSystem } from './file-system.ts';
import { isGone } from './identity.ts';

/** macOS has no names below /proc/self/fd; its limit is 104 bytes. */
const socketPathBytesMax = 100;

/** Connections that the kernel queues; with more a connect fails with EAGAIN, which means alive. */
const backlog = 128;

export type Liveness =
  | { readonly state: 'dead' }
  | { readonly state: 'alive'; readonly connection: Socket }
  /** Not known to be dead: the backlog is full, descriptors or the permission are missing. */
  | { readonly state: 'unknown' };

export interface LivenessSocketOptions {
  readonly fs: FileSystem;
  /** The lock directory, a descriptor of it, and its tag in identities. */
  readonly directory: string;
  readonly directoryFd: number;
  readonly directoryTag: string;
  readonly identity: string;
  /** The process at the other end waits for the lock. */
  readonly onWaiter: (connection: Socket) => void;
}

export class LivenessSocket {
  readonly #options: LivenessSocketOptions;
  readonly #server: Server;
  readonly #connections = new Set<Socket>();

  private constructor(options: LivenessSocketOptions, server: Server) {
    this.#options = options;
    this.#server = server;
    server.unref();
    server.on('connection', (connection) => {
      this.#connections.add(connection);
      connection.on('close', () => this.#connections.delete(connection));
      // A probe sends nothing and ends the connection. An error ends it as well.
      connection.on('error', () => connection.destroy());
      connection.once('data', () => options.onWaiter(connection));
    });
  }

  static async listen(options: LivenessSocketOptions): Promise<LivenessSocket> {
    const { fs, directory, identity } = options;
    const server = createServer({ allowHalfOpen: false });
    const temporary = `.t-${identity}`;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // exclusive: the socket of a cluster worker must die with the worker, not with the primary.
      server.listen({ path: socketPath(options, temporary), exclusive: true, backlog }, resolve);
    });
    const socket = new LivenessSocket(options, server);
    try {
      fs.rename(`${directory}/${temporary}`, `${directory}/${identity}.s`);
    } catch (error) {
      // Closing removes the file of the socket.
      await new Promise<void>((resolve) => server.close(() => resolve()));
      throw error;
    }
    const self = await socket.probe(identity);
    if (self.state !== 'alive') {
      await socket.close();
      throw new RegistrarError('cannot-start', `Cannot use "${directory}": connecting to a unix socket in it fails`);
    }
    self.connection.destroy();
    return socket;
  }

  /** Whether the process of that identity is alive. The caller closes the connection of an `alive` one. */
  async probe(identity: string): Promise<Liveness> {
    const connection = connect({ path: socketPath(this.#options, `${identity}.s`) });
    connection.on('error', () => undefined);
    const code = await new Promise<string | undefined>((resolve) => {
      connection.once('connect', () => resolve(undefined));
      connection.once('error', (error) => resolve(systemCode(error) ?? 'unknown'));
    });
    if (code === undefined) return { state: 'alive', connection };
    connection.destroy();
    if (code === 'ECONNREFUSED') return { state: 'dead' };
    // A living process without its socket: the file was removed by hand, or the directory was copied without it.
    return { state: code === 'ENOENT' && isGone(identity, this.#options.directoryTag) ? 'dead' : 'unknown' };
  }

  /** Called when no system call of the process uses the store any more. */
  async close(): Promise<void> {
    const { fs, directory, identity } = this.#options;
    fs.unlink(`${directory}/${identity}.s`);
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      // The server closes when its last connection has ended.
      for (const connection of this.#connections) connection.destroy();
    });
  }
}

function socketPath({ directory, directoryFd }: LivenessSocketOptions, name: string): string {
  const path = process.platform === 'linux' ? `/proc/self/fd/${directoryFd}/${name}` : `${directory}/${name}`;
  if (Buffer.byteLength(path) > socketPathBytesMax + 8) {
    throw new RegistrarError('cannot-start', `Cannot use "${directory}": its path is too long for a unix socket`);
  }
  return path;
}
