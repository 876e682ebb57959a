/**
 * The directory of the lock, `<file>.lock/`: which process owns what in it, and what is done with what the dead own.
 *
 *   protocol-1           an empty file; a process that finds another protocol refuses to start
 *   <identity>.s         the liveness socket of a process
 *   lock                 -> the liveness socket of the holder
 *   <dead>.b<n>          a break lock: -> the liveness socket of the process that may remove the lock of a dead holder
 *   .compact-<identity>  the file into which a process compacts
 *
 * Removing the lock of a dead holder needs its break lock, so that no process can remove a lock that another one has
 * taken since. `test/helper/lock-model.ts` proves it, and shows how simpler protocols fail.
 */

import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RegistrarError, noRoom, systemCode } from '../../errors.ts';
import type { FileSystem } from './file-system.ts';
import { bootId, directoryTag, newIdentity } from './identity.ts';
import { LivenessSocket } from './liveness-socket.ts';
import type { Liveness } from './liveness-socket.ts';

const protocol = 'protocol-1';

/** The owner of what is not a symbolic link. This protocol makes only links: the directory was copied with its links followed. */
const copiedOwner = 'copied';

/** The pause where nothing announces the end of a wait; random, so that processes do not retry in step. */
const backOffMsMin = 5;
const backOffMsMax = 50;

/** A socket under a temporary name belongs to a process that is starting, or that died while it did. */
const temporaryMsMax = 3_600_000;

const housekeepingMs = 60_000;

/** The directory of the lock of a file, beside it. */
export function lockDirectoryOf(path: string): string {
  return `${path}.lock`;
}

export interface LockDirectoryOptions {
  readonly fs: FileSystem;
  /** It exists, belongs to this user and is on a local file system. */
  readonly directory: string;
}

export class LockDirectory {
  readonly path: string;
  readonly identity: string;
  readonly #fs: FileSystem;
  readonly #fd: number;
  readonly #inode: number;
  readonly #device: number;
  readonly #onWaiter: (connection: Socket) => void;
  #socket: LivenessSocket | undefined;
  #tidiedAt = -Infinity;

  private constructor({ fs, directory }: LockDirectoryOptions, onWaiter: (connection: Socket) => void) {
    this.path = directory;
    this.#fs = fs;
    this.#onWaiter = onWaiter;
    this.#fd = fs.open(directory, 'r');
    const { inode, device } = fs.statFd(this.#fd);
    this.#inode = inode;
    this.#device = device;
    this.identity = newIdentity(directoryTag({ inode, device }));
  }

  /** Joins the protocol. `onWaiter` is called with the connection of a process that waits for this one. */
  static async join(options: LockDirectoryOptions, onWaiter: (connection: Socket) => void): Promise<LockDirectory> {
    const { fs, directory } = options;
    if (bootId === '') throw new RegistrarError('cannot-start', `Cannot use "${directory}": the lock needs /proc, which is not mounted`);
    const own = new LockDirectory(options, onWaiter);
    try {
      own.#checkProtocol();
      // A full disk has no room for a socket. Reading needs none; taking the lock tries again.
      await own.listen().catch((error: unknown) => {
        if (!noRoom(error)) throw error;
      });
      return own;
    } catch (error) {
      fs.close(own.#fd);
      throw error;
    }
  }

  /** Makes the liveness socket, without which this process would look dead to the others. */
  async listen(): Promise<LivenessSocket> {
    this.#socket ??= await LivenessSocket.listen({
      fs: this.#fs,
      directory: this.path,
      directoryFd: this.#fd,
      directoryTag: directoryTag({ inode: this.#inode, device: this.#device }),
      identity: this.identity,
      onWaiter: this.#onWaiter,
    });
    return this.#socket;
  }

  async close(): Promise<void> {
    await this.#socket?.close();
    this.#fs.close(this.#fd);
  }

  /** Throws `unavailable` if the path leads to another directory: processes that look dead there may be alive. */
  assertInPlace(): void {
    if (!this.isInPlace) throw this.lost();
  }

  get isInPlace(): boolean {
    const status = this.#fs.stat(this.path);
    return status?.inode === this.#inode && status.device === this.#device;
  }

  lost(): RegistrarError {
    return new RegistrarError('unavailable', `The lock in "${this.path}" was removed or replaced while it was in use`);
  }

  /** One atomic step: afterwards the name exists and states its owner, or it existed before. */
  link(name: string): boolean {
    try {
      this.#fs.symlink(`${this.identity}.s`, this.#pathOf(name));
      return true;
    } catch (error) {
      if (systemCode(error) === 'EEXIST') return false;
      throw error;
    }
  }

  unlink(name: string): void {
    this.#fs.unlink(this.#pathOf(name));
  }

  /** The owner of a lock or a break lock. Each leads to a socket: dangling links stop programs that walk the tree. */
  ownerOf(name: string): string | undefined {
    const target = this.#fs.readLink(this.#pathOf(name));
    if (target !== undefined) return target.replace(/\.s$/, '');
    return this.#fs.linkStatus(this.#pathOf(name))?.isLink === false ? copiedOwner : undefined;
  }

  /** The time since the lock was taken; 0 if it is free. */
  get heldMs(): number {
    const status = this.#fs.linkStatus(this.#pathOf('lock'));
    return status === undefined ? 0 : Date.now() - status.modifiedMs;
  }

  async probe(identity: string): Promise<Liveness> {
    return (await this.listen()).probe(identity);
  }

  async isDead(identity: string): Promise<boolean> {
    const liveness = await this.probe(identity);
    if (liveness.state === 'alive') liveness.connection.destroy();
    return liveness.state === 'dead';
  }

  /** Whether a living process other than this one has a file with its identity between this prefix and suffix. */
  async isTaken(prefix: string, suffix = ''): Promise<boolean> {
    for (const name of this.#fs.list(this.path)) {
      if (!name.startsWith(prefix) || !name.endsWith(suffix)) continue;
      const owner = name.slice(prefix.length, name.length - suffix.length);
      if (owner !== this.identity && !(await this.isDead(owner))) return true;
    }
    return false;
  }

  /** Removes the lock of a dead process, if it still exists, and what that process has left. */
  async breakLockOf(dead: string): Promise<void> {
    let last = 0;
    while (!this.link(`${dead}.b${last}`)) {
      const owner = this.ownerOf(`${dead}.b${last}`);
      // The process that had the break lock has used and removed it.
      if (owner === undefined) return;
      if (owner === this.identity) break;
      if (!(await this.isDead(owner))) return backOff();
      last++;
    }
    this.assertInPlace();
    // This is the only living owner of a break lock for that process: what is read here stays until it is unlinked.
    if (this.ownerOf('lock') === dead) this.unlink('lock');
    this.unlink(`${dead}.s`);
    for (let n = 0; n <= last; n++) this.unlink(`${dead}.b${n}`);
  }

  /**
   * Removes what killed processes have left. Only the holder may: while it holds the lock, break locks of others mean
   * nothing, and the socket of a dead breaker cannot vanish before the lock that it was breaking.
   */
  async tidy(): Promise<void> {
    const now = performance.now();
    if (now - this.#tidiedAt < housekeepingMs) return;
    this.#tidiedAt = now;
    // Sockets last: they prove that the owner of anything else is dead.
    const names = this.#fs.list(this.path).sort((a, b) => Number(a.endsWith('.s')) - Number(b.endsWith('.s')));
    for (const name of names) if (await this.#isLeftOver(name)) this.unlink(name);
  }

  async #isLeftOver(name: string): Promise<boolean> {
    // Only the holder makes files of this name: an earlier holder died while it did.
    if (name.startsWith('.new-')) return !name.endsWith(this.identity);
    if (name.startsWith('.t-')) {
      const status = this.#fs.stat(this.#pathOf(name));
      return status !== undefined && Date.now() - status.modifiedMs > temporaryMsMax;
    }
    const owner = /\.b\d+$/.test(name) ? this.ownerOf(name) : /^(?:\.compact-(.+)|(.+)\.s)$/.exec(name)?.slice(1).find(Boolean);
    return owner !== undefined && owner !== this.identity && this.isDead(owner);
  }

  #checkProtocol(): void {
    this.#refuseOtherProtocol();
    try {
      this.#fs.close(this.#fs.open(this.#pathOf(protocol), 'wx+'));
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw error;
    }
    // Of two processes that start at once with different protocols, both see both files, and at least one refuses.
    this.#refuseOtherProtocol();
  }

  #refuseOtherProtocol(): void {
    const other = this.#fs.list(this.path).find((name) => name.startsWith('protocol') && name !== protocol);
    if (other === undefined) return;
    const reason = `its lock follows "${other}", and this version of Registrar knows "${protocol}" only`;
    throw new RegistrarError('cannot-start', `Cannot use "${this.path}": ${reason}`);
  }

  #pathOf(name: string): string {
    return `${this.path}/${name}`;
  }
}

export function backOff(): Promise<void> {
  return sleep(backOffMsMin + Math.random() * (backOffMsMax - backOffMsMin));
}
