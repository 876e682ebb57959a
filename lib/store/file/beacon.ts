/**
 * A unix socket that is listened to as long as its process lives: connecting to it is the question
 * whether the process is dead. The kernel closes it when the last thread is gone, so no call of a dead
 * process is still on its way when a connect is refused. A heartbeat gives no such guarantee, a pid can
 * be reused, is another one in another namespace, and answers for a zombie.
 *
 * It is bound under another name and renamed when it listens, for a bound socket that does not listen
 * yet looks dead. Names go through /proc/self/fd, since a socket's path is cut at 108 bytes.
 */

import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { RegistrarError, systemCode } from '../../errors.ts';
import type { FileSystem } from './file-system.ts';
import { isGone } from './identity.ts';

/** macOS has no /proc/self/fd with names below; its limit is 104 bytes. */
const socketPathBytesMax = 100;

/** Processes that may wait for the lock at once, before a connect says EAGAIN (which means alive). */
const backlog = 128;

export type Verdict =
  | { readonly state: 'dead' }
  | { readonly state: 'alive'; readonly connection: Socket }
  /** Alive, as far as anybody can tell: a full backlog, no descriptors, no permission. */
  | { readonly state: 'unknown' };

export interface BeaconOptions {
  readonly fs: FileSystem;
  /** The lock directory, a descriptor of it, and its inode. */
  readonly directory: string;
  readonly directoryFd: number;
  readonly directoryInode: number;
  readonly identity: string;
  /** Somebody wants the lock; the connection is closed when it is free. */
  readonly onWanted: (connection: Socket) => void;
}

export class Beacon {
  readonly #options: BeaconOptions;
  readonly #server: Server;
  readonly #connections: ReadonlySet<Socket>;

  private constructor(options: BeaconOptions, server: Server, connections: ReadonlySet<Socket>) {
    this.#options = options;
    this.#server = server;
    this.#connections = connections;
  }

  static async light(options: BeaconOptions): Promise<Beacon> {
    const { fs, directory, identity } = options;
    const server = createServer({ allowHalfOpen: false });
    const temporary = `.t-${identity}`;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // exclusive: a cluster worker's socket must die with the worker, not with its primary.
      server.listen({ path: socketPath(options, temporary), exclusive: true, backlog }, resolve);
    });
    const connections = new Set<Socket>();
    server.on('connection', (connection) => {
      connections.add(connection);
      connection.on('close', () => connections.delete(connection));
      // A connection that says nothing is a probe; it ends by itself. Errors are ends too.
      connection.on('error', () => connection.destroy());
      connection.on('data', () => options.onWanted(connection));
    });
    server.unref();
    const beacon = new Beacon(options, server, connections);
    try {
      fs.rename(`${directory}/${temporary}`, `${directory}/${identity}.s`);
    } catch (error) {
      // Which removes the socket, too.
      await new Promise<void>((resolve) => server.close(() => resolve()));
      throw error;
    }
    const self = await beacon.probe(identity);
    if (self.state !== 'alive') {
      await beacon.extinguish();
      throw new RegistrarError('cannot-start', `Cannot use "${directory}": a unix socket in it cannot be connected to`);
    }
    self.connection.destroy();
    return beacon;
  }

  /** Asks whether the process of that name is alive. An `alive` connection is the caller's to end. */
  async probe(identity: string): Promise<Verdict> {
    const connection = connect({ path: socketPath(this.#options, `${identity}.s`) });
    connection.on('error', () => undefined);
    const code = await new Promise<string | undefined>((resolve) => {
      connection.once('connect', () => resolve(undefined));
      connection.once('error', (error) => resolve(systemCode(error) ?? 'unknown'));
    });
    if (code === undefined) return { state: 'alive', connection };
    connection.destroy();
    if (code === 'ECONNREFUSED') return { state: 'dead' };
    // No socket: only a hand that removed it explains that while the process lives.
    return { state: code === 'ENOENT' && isGone(identity, this.#options.directoryInode) ? 'dead' : 'unknown' };
  }

  /** To be called when nothing of the process touches the store any more. */
  async extinguish(): Promise<void> {
    const { fs, directory, identity } = this.#options;
    fs.unlink(`${directory}/${identity}.s`);
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      // Somebody who connected and says nothing would hold it up for ever.
      for (const connection of this.#connections) connection.destroy();
    });
  }
}

function socketPath({ directory, directoryFd }: BeaconOptions, name: string): string {
  const path = process.platform === 'linux' ? `/proc/self/fd/${directoryFd}/${name}` : `${directory}/${name}`;
  if (Buffer.byteLength(path) > socketPathBytesMax + 8) {
    throw new RegistrarError('cannot-start', `Cannot use "${directory}": its path is too long for a unix socket`);
  }
  return path;
}
