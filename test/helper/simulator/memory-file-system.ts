/**
 * A FileSystem on a disk in memory. It records the disk before and after every operation, so that a crash
 * can be played at each, and lets any call fail. The lock's sockets alone are real, in a directory of their
 * own, since only the kernel knows whether a process is alive.
 */

import fs from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { FileStatus, FileSystem, LinkStatus } from '../../../lib/store/file/file-system.ts';
import { MemoryDisk, failure } from './memory-disk.ts';
import type { Change } from './memory-disk.ts';

/** Calls that can fail, or be taken out. */
export const calls = ['open', 'write', 'writeNow', 'datasync', 'truncate', 'syncDirectory', 'symlink', 'link', 'rename', 'unlink'] as const;
export type Call = (typeof calls)[number];

/** How a call fails; writes do so after a part, where that is said. */
export interface Fault {
  readonly code: string;
  /** Of a write: how much of it is done; below 1 without a code it is a short write. */
  readonly part?: number;
  /** Of a sync: whether the kernel drops what it could not write. */
  readonly isDropped?: boolean;
  /** Of a sync: so many of the changes had reached the disk before it failed. */
  readonly reached?: number;
}

export interface Step {
  readonly what: string;
  readonly before: MemoryDisk;
  readonly after: MemoryDisk;
  /** What a kill may leave the beginning of. */
  readonly write?: { readonly inode: number; readonly at: number; readonly bytes: Buffer };
}

interface Options {
  readonly isRecording?: boolean;
  /** Says whether the n-th call of a kind, from 0, fails. */
  readonly fault?: (call: Call, n: number, path: string) => Fault | undefined;
  /** Calls that say they have done it, and have not. */
  readonly isLie?: (call: Call, path: string) => boolean;
}

export class MemoryFileSystem implements FileSystem {
  readonly path: string;
  readonly disk: MemoryDisk;
  readonly steps: Step[] = [];
  readonly #calls = new Map<Call, number>();
  readonly #options: Options;
  readonly #root: string;
  readonly #files = new Map<number, number>();
  readonly #directories = new Map<number, number>();
  /** The next calls of these kinds fail. */
  readonly failNext: { readonly call: Call; readonly fault: Fault }[] = [];
  #nextFd = 1_000_000;
  #stepCount = 0;

  constructor(disk: MemoryDisk, options: Options = {}) {
    this.disk = disk;
    this.#options = options;
    this.#root = unused.pop() ?? newRoot();
    this.path = join(this.#root, 'users.jsonl');
  }

  /** Operations so far, recorded or not. */
  get stepCount(): number {
    return this.#stepCount;
  }

  /** It is not used any more: the directory of its sockets may be another's. */
  dispose(): void {
    const directory = `${this.path}.lock`;
    for (const name of fs.readdirSync(directory)) fs.unlinkSync(join(directory, name));
    unused.push(this.#root);
  }

  open(path: string, flags: 'r' | 'r+' | 'wx+', _mode?: number): number {
    this.#call('open', path);
    const name = this.#name(path);
    const inode = flags === 'wx+' ? this.#step(`create ${name}`, () => this.disk.make(name, 'file')) : this.disk.find(name);
    if (inode === undefined) throw failure('ENOENT');
    const isDirectory = this.disk.node(inode).kind === 'directory';
    const fd = isDirectory ? fs.openSync(path, 'r') : this.#nextFd++;
    (isDirectory ? this.#directories : this.#files).set(fd, inode);
    return fd;
  }

  close(fd: number): void {
    if (this.#directories.delete(fd)) fs.closeSync(fd);
    else if (!this.#files.delete(fd)) throw failure('EBADF');
  }

  read(fd: number, into: Buffer, offset: number, length: number, position: number): number {
    return this.disk.file(this.#inode(fd)).seen.copy(into, offset, position, position + length);
  }

  async write(fd: number, from: Buffer, offset: number, length: number, position: number): Promise<number> {
    try {
      return this.append(fd, from.subarray(offset, offset + length), position);
    } finally {
      await nextTurn();
    }
  }

  append(fd: number, from: Buffer, position: number): number {
    const inode = this.#inode(fd);
    const { isLie, fault } = this.#ask('write', String(inode));
    const part = fault === undefined ? from.length : Math.floor(from.length * (fault.part ?? 0));
    const bytes = Buffer.from(from.subarray(0, part));
    if (part > 0 && !isLie) {
      this.#step(`write ${part} bytes at ${position} of ${inode}`, () => this.disk.change(inode, position, bytes), { inode, at: position, bytes });
    }
    if (fault !== undefined && fault.code !== '') throw failure(fault.code);
    return part;
  }

  writeNow(fd: number, from: Buffer, position: number): number {
    const inode = this.#inode(fd);
    const { isLie, fault } = this.#ask('writeNow', String(inode));
    const bytes = Buffer.from(from.subarray(0, fault === undefined ? from.length : Math.floor(from.length * (fault.part ?? 0))));
    if (bytes.length > 0 && !isLie) this.#step(`mark ${inode}`, () => this.disk.change(inode, position, bytes));
    if (fault !== undefined && fault.code !== '') throw failure(fault.code);
    return bytes.length;
  }

  async datasync(fd: number): Promise<void> {
    const inode = this.#inode(fd);
    const { isLie, fault } = this.#ask('datasync', String(inode));
    const changes: readonly Change[] = this.disk.file(inode).pending;
    await nextTurn();
    if (fault !== undefined) {
      const reached = fault.reached ?? 0;
      this.#step(`sync ${inode}, in vain`, () => {
        this.disk.synced(inode, changes.slice(0, reached));
        this.disk.lost(inode, changes.slice(reached), fault.isDropped ?? false);
      });
      throw failure(fault.code);
    }
    if (!isLie) this.#step(`sync ${inode}`, () => this.disk.synced(inode, changes));
  }

  async truncate(fd: number, bytes: number): Promise<void> {
    const inode = this.#inode(fd);
    const isLie = this.#call('truncate', String(inode));
    if (!isLie) this.#step(`truncate ${inode} to ${bytes}`, () => this.disk.change(inode, bytes, undefined));
    await nextTurn();
  }

  async syncDirectory(path: string): Promise<void> {
    const isLie = this.#call('syncDirectory', path);
    await nextTurn();
    const name = this.#name(path);
    if (!isLie) this.#step(`sync directory "${name}"`, () => this.disk.syncDirectory(name));
  }

  /** The only directory that is kept open for it is the one of the file. */
  syncOpenDirectory(_fd: number): Promise<void> {
    return this.syncDirectory(this.#root);
  }

  mountId(_fd: number): undefined {
    return undefined;
  }

  statFd(fd: number): FileStatus {
    return this.#status(this.#inode(fd));
  }

  stat(path: string): FileStatus | undefined {
    if (isSocket(path)) return undefined;
    const inode = this.disk.find(this.#name(path));
    return inode === undefined ? undefined : this.#status(inode);
  }

  readLink(path: string): string | undefined {
    const inode = this.disk.find(this.#name(path));
    const node = inode === undefined ? undefined : this.disk.node(inode);
    return node?.kind === 'link' ? node.target : undefined;
  }

  linkStatus(path: string): LinkStatus | undefined {
    if (isSocket(path)) return undefined;
    const inode = this.disk.find(this.#name(path));
    return inode === undefined ? undefined : { isLink: this.disk.node(inode).kind === 'link', modifiedMs: 0 };
  }

  symlink(target: string, path: string): void {
    const name = this.#name(path);
    if (!this.#call('symlink', path)) this.#step(`symlink ${name}`, () => this.disk.make(name, { target }));
  }

  link(existing: string, path: string): void {
    const [from, to] = [this.#name(existing), this.#name(path)];
    if (!this.#call('link', path)) this.#step(`link ${from} ${to}`, () => this.disk.link(from, to));
  }

  rename(from: string, to: string): void {
    const isLie = this.#call('rename', to);
    const names = [this.#name(from), this.#name(to)] as const;
    if (isSocket(to)) fs.renameSync(from, to);
    else if (!isLie) this.#step(`rename ${names[0]} ${names[1]}`, () => this.disk.rename(...names));
  }

  unlink(path: string): void {
    const isLie = this.#call('unlink', path);
    const name = this.#name(path);
    if (isSocket(path)) fs.rmSync(path, { force: true });
    else if (!isLie && this.disk.find(name) !== undefined) this.#step(`unlink ${name}`, () => this.disk.unlink(name));
  }

  list(directory: string): string[] {
    const real = directory.endsWith('.lock') ? fs.readdirSync(directory) : [];
    return [...this.disk.entries(this.#name(directory)).keys(), ...real];
  }

  makeDirectory(path: string, _mode: number): void {
    const name = this.#name(path);
    if (this.disk.find(name) === undefined) this.#step(`mkdir ${name}`, () => this.disk.make(name, 'directory'));
  }

  /** Processes of this boot that are named in the lock directory are dead: their sockets are there, and answer no more. */
  async bury(): Promise<void> {
    const lock = `${this.#name(this.path)}.lock`;
    if (this.disk.find(lock) === undefined) return;
    const identities = new Set<string>();
    for (const [path, node] of this.disk.walk(lock)) {
      for (const text of node.kind === 'link' ? [path, node.target] : [path]) {
        for (const [identity] of text.matchAll(/[0-9a-f]{8}-\w+-\d+-\w+-\w+-[0-9a-f]{16}/g)) identities.add(identity);
      }
    }
    for (const identity of identities) fs.linkSync(await deadSocket(), join(`${this.path}.lock`, `${identity}.s`));
  }

  #name(path: string): string {
    return relative(this.#root, path);
  }

  #inode(fd: number): number {
    const inode = this.#files.get(fd) ?? this.#directories.get(fd);
    if (inode === undefined) throw failure('EBADF');
    return inode;
  }

  #status(inode: number): FileStatus {
    const node = this.disk.node(inode);
    return {
      device: 1,
      inode,
      bytes: node.kind === 'file' ? node.seen.length : 0,
      links: this.disk.links(inode),
      owner: process.getuid?.() ?? 0,
      modifiedMs: Date.now(),
      isFile: node.kind === 'file',
      isDirectory: node.kind === 'directory',
    };
  }

  #ask(call: Call, path: string): { isLie: boolean; fault: Fault | undefined } {
    const n = this.#calls.get(call) ?? 0;
    this.#calls.set(call, n + 1);
    const at = this.failNext.findIndex((next) => next.call === call);
    const [next] = at < 0 ? [] : this.failNext.splice(at, 1);
    return { isLie: this.#options.isLie?.(call, path) ?? false, fault: next?.fault ?? this.#options.fault?.(call, n, path) };
  }

  /** Throws if the call is to fail; true if it is to do nothing. */
  #call(call: Call, path: string): boolean {
    const { isLie, fault } = this.#ask(call, path);
    if (fault !== undefined && fault.code !== '') throw failure(fault.code);
    return isLie;
  }

  #step<T>(what: string, work: () => T, write?: Step['write']): T {
    const before = new MemoryDisk(this.disk);
    // What was refused, as that something is there already, is no operation.
    const result = work();
    this.#stepCount++;
    if (this.#options.isRecording !== true) return result;
    const step = { what, before, after: new MemoryDisk(this.disk) };
    this.steps.push(write === undefined ? step : { ...step, write });
    return result;
  }
}

function isSocket(path: string): boolean {
  return /\.s$|\/\.t-|^\.t-/.test(path);
}

/** Directories for the sockets, used again and again: to remove one takes longer than all the rest. */
const unused: string[] = [];
let base: string | undefined;

function baseDirectory(): string {
  if (base === undefined) {
    const made = fs.mkdtempSync(join(tmpdir(), 'registrar-memory-'));
    process.once('exit', () => fs.rmSync(made, { recursive: true, force: true }));
    base = made;
  }
  return base;
}

function newRoot(): string {
  const root = fs.mkdtempSync(join(baseDirectory(), 'root-'));
  fs.mkdirSync(join(root, 'users.jsonl.lock'), { mode: 0o700 });
  return root;
}

let dead: Promise<string> | undefined;

/** A closed socket, to be linked to. */
function deadSocket(): Promise<string> {
  dead ??= (async () => {
    const [alive, path] = [join(baseDirectory(), 'alive'), join(baseDirectory(), 'dead')];
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(alive, resolve));
    fs.renameSync(alive, path);
    await new Promise((resolve) => server.close(resolve));
    return path;
  })();
  return dead;
}
