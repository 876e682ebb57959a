/**
 * The lock of the store: one process of the machine at a time writes. In `<file>.lock/`:
 *
 *   protocol-1       an empty file; whoever finds another protocol keeps out
 *   <identity>.s     the beacon of a process that takes part
 *   lock             -> the holder's beacon
 *   <victim>.b<n>    -> the beacon of who may break the lock of a dead victim
 *   .compact-<identity>  the file that a process is compacting into
 *
 * Taking is one symlink(2): atomic, content included. Breaking needs the victim's break right, of which
 * there is one at a time, so nobody can remove a lock that is not the victim's any more. The proof, and
 * what goes wrong in the naive ways, is told by `test/store/file/lock-model.test.ts`.
 *
 * The hold is sticky: it stays until another process asks for it, so one process alone pays nothing for
 * each batch. A waiter keeps a connection to the holder's beacon; the kernel closes it when the holder
 * dies, so a dead holder is noticed at once and nothing polls.
 *
 * It does not cover: a holder that hangs (the others wait, and name its pid), a hand that removes files.
 */

import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RegistrarError, noRoom, systemCode } from '../../errors.ts';
import { Beacon } from './beacon.ts';
import type { Verdict } from './beacon.ts';
import type { FileSystem } from './file-system.ts';
import { newIdentity, pidOf } from './identity.ts';

const protocol = 'protocol-1';

/** A wait whose end nobody announces: between these, at random, so that waiters do not march in step. */
const backOffMsMin = 5;
const backOffMsMax = 50;

/** After handing over, how long the next holder has to take the lock before this process tries again. */
const handOverMsMax = 20;

/** A socket under a temporary name belongs to a process that is just starting, or died doing so. */
const temporaryMsMax = 3_600_000;

const housekeepingMs = 60_000;

export interface LockOptions {
  readonly fs: FileSystem;
  /** The directory; it exists, belongs to this user and is on a local file system. */
  readonly directory: string;
  /** The lock is wanted elsewhere and may be free now: release it, or do so after the current batch. */
  readonly onWanted: () => void;
}

export class FileLock {
  readonly identity: string;
  readonly #fs: FileSystem;
  readonly #directory: string;
  readonly #directoryFd: number;
  readonly #directoryInode: number;
  readonly #directoryDevice: number;
  readonly #onWanted: () => void;
  #beacon: Beacon | undefined;
  #held = false;
  #handedOverAt = -Infinity;
  #tidiedAt = -Infinity;
  readonly #waiters = new Set<Socket>();

  private constructor(options: LockOptions) {
    this.#fs = options.fs;
    this.#directory = options.directory;
    this.#onWanted = options.onWanted;
    this.#directoryFd = options.fs.open(options.directory, 'r');
    const { inode, device } = options.fs.statFd(this.#directoryFd);
    this.#directoryInode = inode;
    this.#directoryDevice = device;
    this.identity = newIdentity(this.#directoryInode);
  }

  /** Takes part in the protocol, which takes no lock yet. */
  static async join(options: LockOptions): Promise<FileLock> {
    const lock = new FileLock(options);
    try {
      lock.#checkProtocol();
      // A full disk has no room for a socket either. Who only reads needs none; who acquires tries again.
      await lock.#lit().catch((error: unknown) => {
        if (!noRoom(error)) throw error;
      });
      return lock;
    } catch (error) {
      options.fs.close(lock.#directoryFd);
      throw error;
    }
  }

  get isHeld(): boolean {
    return this.#held;
  }

  /** Whether somebody waits for the lock. */
  get isWanted(): boolean {
    return this.#waiters.size > 0;
  }

  /**
   * Takes the lock; at once if it is still held. Rejects with `busy` after `waitMsMax`, naming the pid of
   * the process that keeps it, and with `unavailable` if the directory was removed or replaced underneath.
   */
  async acquire(waitMsMax: number): Promise<void> {
    if (this.#held) return;
    const deadline = performance.now() + waitMsMax;
    // Without a beacon the others would take this one for dead.
    await this.#lit();
    await this.#letOthersTakeIt();
    for (;;) {
      this.assertInPlace();
      if (this.#take()) {
        await this.#tidy();
        return;
      }
      const holder = this.#owner('lock');
      if (holder === undefined) continue;
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw this.#busy(holder, waitMsMax);
      const verdict = await this.#probe(holder);
      if (verdict.state === 'alive') await askAndWait(verdict.connection, leftMs);
      else if (verdict.state === 'dead') await this.#break(holder);
      else await sleep(backOffMsMin + Math.random() * (backOffMsMax - backOffMsMin));
    }
  }

  /**
   * Lets go, and tells those who wait. The caller has finished every write.
   * Throws `unavailable` if the lock is no longer this process's: a hand was in the directory.
   */
  release(): void {
    if (!this.#held) return;
    this.assertHeld();
    this.#held = false;
    this.#fs.unlink(this.#path('lock'));
    if (this.#waiters.size > 0) this.#handedOverAt = performance.now();
    for (const waiter of this.#waiters) waiter.destroy();
    this.#waiters.clear();
  }

  /** Whether another process, and one that lives, has a file of this name with its identity behind it. */
  async isTaken(prefix: string): Promise<boolean> {
    for (const name of this.#fs.list(this.#directory)) {
      const owner = name.slice(prefix.length);
      if (name.startsWith(prefix) && owner !== this.identity && !(await this.#isDead(owner))) return true;
    }
    return false;
  }

  /** Throws `unavailable` if somebody removed the lock or its directory underneath: stop writing then. */
  assertHeld(): void {
    if (!this.#isOurs()) throw this.#lost();
  }

  /** Throws `unavailable` if its path leads elsewhere by now: those whom it would find dead there may be alive. */
  assertInPlace(): void {
    if (!this.#isInPlace()) throw this.#lost();
  }

  /** Leaves the protocol. With `keeping`, the lock stays until the process has ended, if it is held. */
  async leave(keeping = false): Promise<void> {
    if (this.#held && keeping) return;
    if (this.#held && this.#isOurs()) this.release();
    await this.#beacon?.extinguish();
    this.#fs.close(this.#directoryFd);
  }

  #isOurs(): boolean {
    return this.#isInPlace() && this.#owner('lock') === this.identity;
  }

  #isInPlace(): boolean {
    const directory = this.#fs.stat(this.#directory);
    return directory?.inode === this.#directoryInode && directory.device === this.#directoryDevice;
  }

  #lost(): RegistrarError {
    return new RegistrarError('unavailable', `The lock in "${this.#directory}" was removed or replaced underneath`);
  }

  async #lit(): Promise<Beacon> {
    this.#beacon ??= await Beacon.light({
      fs: this.#fs,
      directory: this.#directory,
      directoryFd: this.#directoryFd,
      directoryInode: this.#directoryInode,
      identity: this.identity,
      onWanted: (connection) => this.#want(connection),
    });
    return this.#beacon;
  }

  async #probe(identity: string): Promise<Verdict> {
    return (await this.#lit()).probe(identity);
  }

  #path(name: string): string {
    return `${this.#directory}/${name}`;
  }

  #checkProtocol(): void {
    this.#refuseOtherProtocol();
    try {
      this.#fs.close(this.#fs.open(this.#path(protocol), 'wx+'));
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw error;
    }
    // Of two that come at once with different protocols, both see both, and one at least keeps out.
    this.#refuseOtherProtocol();
  }

  #refuseOtherProtocol(): void {
    const other = this.#fs.list(this.#directory).find((name) => name.startsWith('protocol') && name !== protocol);
    if (other === undefined) return;
    throw new RegistrarError(
      'cannot-start',
      `Cannot use "${this.#directory}": it follows "${other}", and this program knows "${protocol}" only`,
    );
  }

  #take(): boolean {
    if (!this.#claim('lock')) return false;
    this.#held = true;
    return true;
  }

  /** One atomic step: the name exists and says whose it is, or it existed before. */
  #claim(name: string): boolean {
    try {
      this.#fs.symlink(`${this.identity}.s`, this.#path(name));
      return true;
    } catch (error) {
      if (systemCode(error) === 'EEXIST') return false;
      throw error;
    }
  }

  /** Whose a name is. It is a link to the owner's beacon: what leads nowhere stops those who walk the tree. */
  #owner(name: string): string | undefined {
    return this.#fs.readLink(this.#path(name))?.replace(/\.s$/, '');
  }

  #want(connection: Socket): void {
    if (!this.#held) {
      connection.destroy();
      return;
    }
    this.#waiters.add(connection);
    connection.once('close', () => this.#waiters.delete(connection));
    this.#onWanted();
  }

  /** A waiter needs a wake-up of its event loop: without this the last holder would always be first again. */
  async #letOthersTakeIt(): Promise<void> {
    const until = this.#handedOverAt + handOverMsMax;
    this.#handedOverAt = -Infinity;
    while (performance.now() < until && this.#owner('lock') === undefined) await sleep(1);
  }

  /** Removes the lock of a dead process, if it is still there, and what that process has left. */
  async #break(victim: string): Promise<void> {
    let right = 0;
    while (!this.#claim(`${victim}.b${right}`)) {
      const owner = this.#owner(`${victim}.b${right}`);
      // Gone: whoever had the right has used it and tidied up.
      if (owner === undefined) return;
      if (owner === this.identity) break;
      const verdict = await this.#probe(owner);
      if (verdict.state === 'dead') {
        right++;
        continue;
      }
      if (verdict.state === 'alive') verdict.connection.destroy();
      await sleep(backOffMsMin);
      return;
    }
    this.assertInPlace();
    // The only living owner of a right for this victim: what is read here stays until it is unlinked.
    if (this.#owner('lock') === victim) this.#fs.unlink(this.#path('lock'));
    this.#fs.unlink(this.#path(`${victim}.s`));
    for (let n = 0; n <= right; n++) this.#fs.unlink(this.#path(`${victim}.b${n}`));
  }

  /**
   * Removes what killed processes have left. Only the holder may: while it holds, rights against others
   * mean nothing, and the beacon of a dead breaker cannot vanish while its victim's lock is still there.
   */
  async #tidy(): Promise<void> {
    const now = performance.now();
    if (now - this.#tidiedAt < housekeepingMs) return;
    this.#tidiedAt = now;
    // Beacons last: whether the owner of anything else is dead is told by its beacon.
    const names = this.#fs.list(this.#directory).sort((a, b) => Number(/\.s$/.test(a)) - Number(/\.s$/.test(b)));
    for (const name of names) {
      const path = this.#path(name);
      const [, beacon] = /^(.+)\.s$/.exec(name) ?? [];
      if (beacon !== undefined && beacon !== this.identity && (await this.#isDead(beacon))) this.#fs.unlink(path);
      if (/\.b\d+$/.test(name)) {
        const owner = this.#owner(name);
        if (owner !== undefined && (await this.#isDead(owner))) this.#fs.unlink(path);
      }
      if (name.startsWith('.t-') && this.#isOld(name)) this.#fs.unlink(path);
      const [, compactor] = /^\.compact-(.+)$/.exec(name) ?? [];
      if (compactor !== undefined && (await this.#isDead(compactor))) this.#fs.unlink(path);
      // A file that was being made when its maker died: only the holder makes one.
      if (name.startsWith('.new-') && !name.endsWith(this.identity)) this.#fs.unlink(path);
    }
  }

  async #isDead(identity: string): Promise<boolean> {
    const verdict = await this.#probe(identity);
    if (verdict.state === 'alive') verdict.connection.destroy();
    return verdict.state === 'dead';
  }

  #isOld(name: string): boolean {
    const status = this.#fs.stat(this.#path(name));
    return status !== undefined && Date.now() - status.modifiedMs > temporaryMsMax;
  }

  #busy(holder: string, waitMs: number): RegistrarError {
    return new RegistrarError(
      'busy',
      `The store is locked by process ${pidOf(holder)}, which has not let go for ${Math.round(waitMs / 100) / 10} s`,
      { retryAfterSeconds: 1 },
    );
  }
}

/** Asks the holder for the lock and waits until the connection ends: it let go, or it died. */
async function askAndWait(connection: Socket, waitMsMax: number): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => connection.destroy(), waitMsMax);
    connection.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
    connection.resume();
    connection.write('W');
  });
}
