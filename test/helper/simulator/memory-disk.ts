/**
 * A disk in memory which knows what of it would outlive a power cut. Everything in it is immutable, so a
 * copy of it at every moment costs nothing.
 *
 * A file has what is seen of it, what is durable, and the changes since it was last synced: each of these
 * may reach the disk or not, whole or in part, in any order. Entries of directories likewise: a link, a
 * rename, an unlink is one edit, and is durable when a directory that it touches was synced.
 */

import { join } from 'node:path';

/** A write, or a new length. */
export interface Change {
  readonly n: number;
  readonly at: number;
  readonly bytes: Buffer | undefined;
}

export interface FileNode {
  readonly kind: 'file';
  readonly seen: Buffer;
  readonly durable: Buffer;
  readonly pending: readonly Change[];
}

interface LinkNode {
  readonly kind: 'link';
  readonly target: string;
}

type Entries = ReadonlyMap<string, number>;

interface DirectoryNode {
  readonly kind: 'directory';
  readonly seen: Entries;
  readonly durable: Entries;
}

export type Node = FileNode | LinkNode | DirectoryNode;

export interface EditPart {
  readonly directory: number;
  readonly name: string;
  readonly inode: number | undefined;
}

/** What one call does to names, as one: it is durable as a whole or not at all. */
export interface Edit {
  readonly parts: readonly EditPart[];
}

/** What a power cut leaves: which edits, and of each file what. */
export interface Remains {
  readonly edit: (edit: Edit, n: number) => boolean;
  readonly content: (file: FileNode, inode: number) => Buffer;
  /** What another boot makes of a name or of a link's target. */
  readonly name: (name: string) => string;
}

export const rootInode = 1;
const empty = Buffer.alloc(0);

export class MemoryDisk {
  readonly #nodes: Map<number, Node>;
  #edits: readonly Edit[];
  #nextInode: number;
  #changes = 0;

  constructor(from?: MemoryDisk) {
    this.#nodes = new Map(from?.nodes() ?? [[rootInode, { kind: 'directory', seen: new Map(), durable: new Map() }]]);
    this.#edits = from?.edits ?? [];
    this.#nextInode = from === undefined ? rootInode + 1 : from.#nextInode;
    this.#changes = from === undefined ? 0 : from.#changes;
  }

  /** Edits that are not durable. */
  get edits(): readonly Edit[] {
    return this.#edits;
  }

  nodes(): Iterable<[number, Node]> {
    return this.#nodes.entries();
  }

  node(inode: number): Node {
    return this.#nodes.get(inode)!;
  }

  file(inode: number): FileNode {
    const node = this.node(inode);
    if (node.kind !== 'file') throw failure('EISDIR');
    return node;
  }

  /** The file at a path, as it is seen. */
  bytes(path: string): Buffer | undefined {
    const inode = this.find(path);
    return inode === undefined ? undefined : this.file(inode).seen;
  }

  find(path: string): number | undefined {
    let inode: number | undefined = rootInode;
    for (const name of path.split('/').filter((part) => part !== '')) {
      const node: Node | undefined = inode === undefined ? undefined : this.#nodes.get(inode);
      if (node?.kind !== 'directory') return undefined;
      inode = node.seen.get(name);
    }
    return inode;
  }

  entries(path: string): Entries {
    const inode = this.find(path);
    const node = inode === undefined ? undefined : this.node(inode);
    if (node?.kind !== 'directory') throw failure('ENOENT');
    return node.seen;
  }

  /** Every path with what is there. */
  *walk(directory = ''): Generator<[path: string, node: Node, inode: number]> {
    for (const [name, inode] of this.entries(directory)) {
      const path = join(directory, name);
      const node = this.node(inode);
      yield [path, node, inode];
      if (node.kind === 'directory') yield* this.walk(path);
    }
  }

  links(inode: number): number {
    let count = 0;
    for (const node of this.#nodes.values()) {
      if (node.kind === 'directory') for (const other of node.seen.values()) if (other === inode) count++;
    }
    return count;
  }

  make(path: string, kind: 'file' | 'directory' | { readonly target: string }): number {
    if (this.find(path) !== undefined) throw failure('EEXIST');
    const inode = this.#nextInode++;
    if (kind === 'file') this.#nodes.set(inode, { kind, seen: empty, durable: empty, pending: [] });
    else if (kind === 'directory') this.#nodes.set(inode, { kind, seen: new Map(), durable: new Map() });
    else this.#nodes.set(inode, { kind: 'link', target: kind.target });
    this.#edit([this.#part(path, inode)]);
    return inode;
  }

  link(existing: string, path: string): void {
    const inode = this.find(existing);
    if (inode === undefined) throw failure('ENOENT');
    if (this.find(path) !== undefined) throw failure('EEXIST');
    this.#edit([this.#part(path, inode)]);
  }

  rename(from: string, to: string): void {
    const inode = this.find(from);
    if (inode === undefined) throw failure('ENOENT');
    this.#edit([this.#part(from, undefined), this.#part(to, inode)]);
  }

  unlink(path: string): boolean {
    if (this.find(path) === undefined) return false;
    this.#edit([this.#part(path, undefined)]);
    return true;
  }

  /** A write, or without bytes a new length. */
  change(inode: number, at: number, bytes: Buffer | undefined): void {
    const file = this.file(inode);
    const change = { n: this.#changes++, at, bytes };
    this.#nodes.set(inode, { ...file, seen: applied(file.seen, change), pending: [...file.pending, change] });
  }

  /** What was done up to `changes` is durable. */
  synced(inode: number, changes: readonly Change[]): void {
    const file = this.file(inode);
    const pending = file.pending.filter((change) => !changes.includes(change));
    const durable = file.pending.filter((change) => changes.includes(change)).reduce(applied, file.durable);
    // The length is one number, and is written as it is, also where an earlier sync of it has failed.
    const length = pending.length > 0 ? durable.length : file.seen.length;
    const whole = durable.length <= length ? durable : applied(durable, { at: length, bytes: undefined });
    this.#nodes.set(inode, { ...file, durable: whole, pending });
  }

  /**
   * A sync failed: what was to be synced is taken for clean by the kernel, and no later sync writes it.
   * It can still be read, until the kernel drops it (`isDropped`): then there is a hole.
   */
  lost(inode: number, changes: readonly Change[], isDropped: boolean): void {
    const file = this.file(inode);
    const hole = Buffer.alloc(file.seen.length);
    file.durable.copy(hole, 0, 0, hole.length);
    const pending = file.pending.filter((change) => !changes.includes(change));
    this.#nodes.set(inode, { ...file, pending, seen: isDropped ? pending.reduce(applied, hole) : file.seen });
  }

  syncDirectory(path: string): void {
    const inode = this.find(path);
    if (inode === undefined) throw failure('ENOENT');
    const now = this.#edits.filter(({ parts }) => parts.some(({ directory }) => directory === inode));
    for (const part of now.flatMap(({ parts }) => parts)) {
      const node = this.node(part.directory);
      if (node.kind === 'directory') this.#nodes.set(part.directory, { ...node, durable: edited(node.durable, part) });
    }
    this.#edits = this.#edits.filter((edit) => !now.includes(edit));
  }

  /** The disk as it is found after a power cut. */
  afterPowerCut({ edit, content, name }: Remains): MemoryDisk {
    const disk = new MemoryDisk(this);
    const kept = this.#edits.filter(edit);
    for (const [inode, node] of this.#nodes) {
      if (node.kind === 'file') {
        const bytes = content(node, inode);
        disk.#nodes.set(inode, { kind: 'file', seen: bytes, durable: bytes, pending: [] });
      } else if (node.kind === 'link') {
        disk.#nodes.set(inode, { kind: 'link', target: name(node.target) });
      } else {
        const parts = kept.flatMap(({ parts }) => parts).filter(({ directory }) => directory === inode);
        const entries = new Map([...parts.reduce(edited, node.durable)].map(([key, value]) => [name(key), value]));
        disk.#nodes.set(inode, { kind: 'directory', seen: entries, durable: entries });
      }
    }
    disk.#edits = [];
    const reached = new Set([rootInode, ...[...disk.walk()].map(([, , inode]) => inode)]);
    for (const inode of disk.#nodes.keys()) if (!reached.has(inode)) disk.#nodes.delete(inode);
    return disk;
  }

  #part(path: string, inode: number | undefined): EditPart {
    const at = path.lastIndexOf('/');
    const directory = this.find(at < 0 ? '' : path.slice(0, at));
    if (directory === undefined) throw failure('ENOENT');
    return { directory, name: path.slice(at + 1), inode };
  }

  #edit(parts: readonly EditPart[]): void {
    for (const part of parts) {
      const node = this.node(part.directory);
      if (node.kind === 'directory') this.#nodes.set(part.directory, { ...node, seen: edited(node.seen, part) });
    }
    this.#edits = [...this.#edits, { parts }];
  }
}

export function applied(content: Buffer, { at, bytes }: Pick<Change, 'at' | 'bytes'>): Buffer {
  const length = bytes === undefined ? at : Math.max(content.length, at + bytes.length);
  const result = Buffer.alloc(length);
  content.copy(result, 0, 0, length);
  bytes?.copy(result, at);
  return result;
}

function edited(entries: Entries, { name, inode }: EditPart): Entries {
  const result = new Map(entries);
  if (inode === undefined) result.delete(name);
  else result.set(name, inode);
  return result;
}

export function failure(code: string): Error {
  return Object.assign(new Error(`injected ${code}`), { code });
}
