/**
 * What a crash can leave of a recorded run, and whether a store makes the best of it.
 *
 * A kill leaves everything that was done, for the next process of the same boot: of a write under way, its
 * beginning. A power cut leaves what was synced, and of the rest anything: nothing, all, each beginning of
 * each write, blocks without those before them, a longer file whose content is zeros, some names and not
 * others; and the durable mark is another boot's, of any age.
 *
 */

import { createHash } from 'node:crypto';
import { FileUserStore } from '../../../lib/store/file/file-user-store.ts';
import { RegistrarError } from '../../../lib/errors.ts';
import { bootId } from '../../../lib/store/file/identity.ts';
import { decodeDurableOffset, encodeDurableOffset } from '../../../lib/store/file/durable-offset.ts';
import { MemoryDisk, applied } from './memory-disk.ts';
import type { Edit, FileNode } from './memory-disk.ts';
import { MemoryFileSystem } from './memory-file-system.ts';
import type { Call, Step } from './memory-file-system.ts';
import { Ledger, Run, absent, now, since, stateOf } from './scenario.ts';
import type { Expectation, Operation, State } from './scenario.ts';
import { newUser } from '../user-store-contract.ts';

export interface CrashState {
  readonly what: string;
  readonly disk: MemoryDisk;
  readonly expectation: Expectation;
}

/** Calls that say they have done it, and have not. */
export type Lie = (call: Call, path: string) => boolean;

const file = 'users.jsonl';
const lock = 'users.jsonl.lock';
const blocks = [512, 4096] as const;
const otherBoot = bootId.replace(/^.{8}/, '00000000');

/** Another boot than this one, in the name of a process. */
function ofOtherBoot(name: string): string {
  return name.replaceAll(bootId.slice(0, 8), otherBoot.slice(0, 8));
}

/** Random numbers that can be had again, in [0, 1). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** States that a crash of the recorded run can leave, at each of its steps; all of them, or that part and every kill between two steps. */
export function* crashStates({ steps, ledger }: Recorded, random: () => number, part = 1): Generator<CrashState> {
  for (let n = 0; n <= steps.length; n++) {
    const step = steps[n];
    const disk = step?.before ?? steps.at(-1)!.after;
    const expectation = ledger.at(n);
    const moment = `before ${n}. ${step?.what ?? 'nothing more'}`;
    yield { what: `killed ${moment}`, disk, expectation };
    if (step?.write !== undefined) {
      const { inode, at, bytes } = step.write;
      for (const cut of cuts(at, bytes)) {
        if (random() >= part) continue;
        const torn = new MemoryDisk(disk);
        torn.change(inode, at, bytes.subarray(0, cut));
        yield { what: `killed during ${n}. ${step.what}, ${cut} bytes written`, disk: torn, expectation };
      }
    }
    for (const [what, cut] of powerCuts(disk, random)) {
      if (random() < part) yield { what: `power cut ${moment}: ${what}`, disk: cut(), expectation };
    }
  }
}

/** What a power cut can leave of a disk. */
export function* powerCuts(disk: MemoryDisk, random: () => number): Generator<[what: string, cut: () => MemoryDisk]> {
  const { edits } = disk;
  const marks = new Set([...disk.walk()].filter(([path]) => path === `${lock}/durable`).map(([, , inode]) => inode));
  const names = [...disk.walk()].flatMap(([path, node, inode]) => (node.kind === 'file' ? [{ path, node, inode }] : []));
  const cut = (edit: (edit: Edit, n: number) => boolean, content: (file: FileNode, inode: number) => Buffer) => (): MemoryDisk =>
    disk.afterPowerCut({
      edit,
      content: (node, inode) => (marks.has(inode) ? oldMark(node, random) : content(node, inode)),
      name: ofOtherBoot,
    });
  const all = (): boolean => true;
  const none = (): boolean => false;
  const written = (node: FileNode): Buffer => node.pending.reduce(applied, node.durable);
  const synced = (node: FileNode): Buffer => node.durable;

  yield ['nothing more than was synced', cut(none, synced)];
  yield ['everything', cut(all, written)];
  yield ['every name, and of the content what was synced', cut(all, synced)];
  yield ['all content, and names that were synced', cut(none, written)];
  const isOf = (path: string) => (edit: Edit): boolean => edit.parts.some(({ directory }) => directory === disk.find(path));
  yield ['names beside the file only', cut(isOf(''), written)];
  yield ['names in the lock directory only', cut((edit) => !isOf('')(edit), written)];
  for (let n = Math.max(1, edits.length - 8); n < edits.length; n++) {
    yield [`names up to the ${n}. of ${edits.length}`, cut((_, other) => other < n, written)];
    yield [`names but the ${n}. of ${edits.length}`, cut((_, other) => other !== n - 1, written)];
  }
  for (let n = 0; n < Math.min(4, edits.length); n++) {
    const chosen = edits.map(() => random() < 0.5);
    yield [`names ${chosen.map(Number).join('')}`, cut((_, other) => chosen[other]!, random() < 0.5 ? written : synced)];
  }
  for (const { path, node, inode } of names) {
    if (node.pending.length === 0 || marks.has(inode)) continue;
    for (const [what, bytes] of contents(node, random)) {
      yield [`of ${path} ${what}`, cut(all, (other, number) => (number === inode ? bytes() : written(other)))];
    }
  }
}

/**
 * What can have reached the disk of a file that was not synced. A new length is in the journal before all that
 * is written later, and is not left out where that is there.
 */
function* contents({ durable, pending }: FileNode, random: () => number): Generator<[what: string, bytes: () => Buffer]> {
  const whole = pending.reduce(applied, durable);
  const cut = pending.findLastIndex(({ bytes }) => bytes === undefined);
  for (const [n, change] of pending.entries()) {
    const before = pending.slice(0, n).reduce(applied, durable);
    yield [`${n} of ${pending.length} changes`, () => before];
    if (n > cut || n === pending.length - 1) yield [`all changes but the ${n}.`, () => pending.filter((other) => other !== change).reduce(applied, durable)];
    const { bytes } = change;
    if (bytes === undefined) continue;
    for (const at of cuts(change.at, bytes)) {
      const begun = (): Buffer => applied(before, { at: change.at, bytes: bytes.subarray(0, at) });
      yield [`${at} bytes of change ${n}`, begun];
      // The length is on the disk before the content.
      yield [`${at} bytes of change ${n}, and zeros`, () => applied(begun(), { at: whole.length, bytes: Buffer.alloc(0) })];
    }
  }
  if (cut === pending.length - 1) return;
  const from = Math.min(...pending.slice(cut + 1).map(({ at }) => at));
  const old = applied(pending.slice(0, cut + 1).reduce(applied, durable), { at: whole.length, bytes: Buffer.alloc(0) });
  for (const block of blocks) {
    const begins: number[] = [];
    for (let at = from - (from % block); at < whole.length; at += block) begins.push(at);
    for (const at of begins) {
      yield [`all but the ${block} bytes at ${at}`, () => mixed(old, whole, (other) => other !== at, block)];
      yield [`nothing but the ${block} bytes at ${at}`, () => mixed(old, whole, (other) => other === at, block)];
    }
    for (let n = 0; n < Math.min(8, begins.length); n++) {
      const chosen = new Set(begins.filter(() => random() < 0.5));
      yield [`some blocks of ${block} bytes`, () => mixed(old, whole, (at) => chosen.has(at), block)];
    }
  }
}

function mixed(old: Buffer, written: Buffer, isWritten: (at: number) => boolean, block: number): Buffer {
  const result = Buffer.from(old);
  for (let at = 0; at < result.length; at += block) if (isWritten(at) && at < written.length) written.copy(result, at, at, at + block);
  return result;
}

/** Where it is interesting to cut a write short: everywhere, if it is one line, and around every line's end. */
function* cuts(at: number, bytes: Buffer): Generator<number> {
  for (let n = 1; n < bytes.length; n++) {
    const isNearEnd = bytes.subarray(Math.max(0, n - 3), n + 3).includes(0x0a);
    if (bytes.length <= 400 || isNearEnd || n % 97 === 0 || (at + n) % 512 === 0) yield n;
  }
}

/** The mark is never synced: it is one of those that were written, or nothing, and in any case another boot's. */
function oldMark({ durable, pending }: FileNode, random: () => number): Buffer {
  const which = Math.floor(random() * (pending.length + 2));
  const bytes = pending.slice(0, which).reduce(applied, durable);
  if (which > pending.length) return Buffer.alloc(bytes.length);
  const mark = decodeDurableOffset(bytes);
  return mark === undefined ? bytes : encodeDurableOffset({ ...mark, boot: otherBoot });
}

/** A fingerprint of what a store can see of the disk, and of what it has to make of it. */
export function fingerprint({ disk, expectation }: CrashState): string {
  const hash = createHash('sha1');
  for (const [path, node] of disk.walk()) {
    hash.update(`${path} ${node.kind}`);
    if (node.kind === 'file') hash.update(node.seen).update(node.durable);
    if (node.kind === 'link') hash.update(node.target);
  }
  for (const [login, states] of expectation.states) hash.update(`${login} ${states.join()}`);
  return hash.digest('base64');
}

export interface Recorded {
  readonly steps: readonly Step[];
  readonly ledger: Ledger;
}

/** Records what a process does on a disk: it opens the store, does something with it, and closes it. */
export async function record(
  { disk, expectation }: Pick<CrashState, 'disk' | 'expectation'>,
  operations: readonly Operation[],
  isLie: Lie = () => false,
): Promise<Recorded> {
  const fs = new MemoryFileSystem(new MemoryDisk(disk), { isRecording: true, isLie });
  try {
    await fs.bury();
    const ledger = new Ledger(expectation);
    const run = await Run.open(fs, ledger, expectation.states.keys());
    for (const operation of operations) await operation(run);
    await run.close();
    return { steps: fs.steps, ledger };
  } finally {
    fs.dispose();
  }
}

/** What is wrong with what a store makes of the state, or undefined. */
export async function wrongWith(state: CrashState, random: () => number, isLie: Lie = () => false): Promise<string | undefined> {
  const fs = new MemoryFileSystem(new MemoryDisk(state.disk), { isLie });
  const before = state.disk.bytes(file);
  const setAside = tornFiles(state.disk);
  try {
    await fs.bury();
    const store = await FileUserStore.open({ path: fs.path, lockWaitMsMax: 2_000, fs, now });
    try {
      // Who asks for a write decides about what a dead process has left, also where nothing comes to be written.
      if (random() < 0.5) await store.remove({ login: 'nobody', id: 1, version: 1 }, '2026-11-23T08:00:00.000Z');
      const found = await readUsers(store, state.expectation);
      if (typeof found === 'string') return found;
      if (before !== undefined) {
        const kept = [fs.disk.bytes(file)!, ...[...tornFiles(fs.disk)].filter(([name]) => !setAside.has(name)).map(([, bytes]) => bytes)];
        // A last line that lacks its newline alone gets one.
        const all = Buffer.concat(kept);
        if (!all.equals(before) && !all.equals(Buffer.concat([before, Buffer.from('\n')]))) return 'bytes were thrown away';
      }
      // What it has shown outlives the next power cut, and what it writes does.
      const shown = after(found, state.expectation, since);
      const later = await wrongAfterPowerCut(fs.disk, shown, random);
      if (later !== undefined) return `after another power cut ${later}`;
      const { created, user } = await store.create(newUser('probe'));
      if (!created || user.id <= shown.lastId) return `user ${user.id} is registered, though ${shown.lastId} users were`;
      // From now on what a dead process has left is there or it is not.
      const all = await readUsers(store, { ...shown, states: new Map(shown.states).set('probe', [stateOf(user)]) });
      if (typeof all === 'string') return `after a write ${all}`;
      const more = after(all, shown, (_, state) => [state]);
      const last = await wrongAfterPowerCut(fs.disk, more, random);
      if (last !== undefined) return `after a write and a power cut ${last}`;
      await store.close();
      const again = await FileUserStore.open({ path: fs.path, lockWaitMsMax: 2_000, fs, now });
      const same = await readUsers(again, more).finally(() => again.close());
      return typeof same === 'string' ? `opened again: ${same}` : undefined;
    } finally {
      await store.close();
    }
  } catch (error) {
    if (!(error instanceof RegistrarError)) throw error;
    return `${error.code}: ${error.message}`;
  } finally {
    fs.dispose();
  }
}

async function wrongAfterPowerCut(disk: MemoryDisk, expectation: Expectation, random: () => number): Promise<string | undefined> {
  const isAll = random() < 0.2;
  const cut = disk.afterPowerCut({
    edit: () => isAll,
    content: ({ durable, pending }) => (isAll ? pending.reduce(applied, durable) : durable),
    name: ofOtherBoot,
  });
  for (const [path, node, inode] of cut.walk()) {
    // The mark is another boot's.
    const mark = path === `${lock}/durable` && node.kind === 'file' ? decodeDurableOffset(node.seen) : undefined;
    if (mark !== undefined) cut.change(inode, 0, encodeDurableOffset({ ...mark, boot: otherBoot }));
  }
  const fs = new MemoryFileSystem(cut);
  try {
    const store = await FileUserStore.open({ path: fs.path, lockWaitMsMax: 2_000, fs, now });
    const found = await readUsers(store, expectation).finally(() => store.close());
    return typeof found === 'string' ? found : undefined;
  } catch (error) {
    if (!(error instanceof RegistrarError)) throw error;
    return `${error.code}: ${error.message}`;
  } finally {
    fs.dispose();
  }
}

interface Found {
  readonly states: ReadonlyMap<string, State>;
  readonly ids: ReadonlyMap<State, number>;
}

/** The users that exist, or what is wrong with them. */
async function readUsers(store: FileUserStore, expectation: Expectation): Promise<Found | string> {
  const states = new Map<string, State>();
  const ids = new Map<State, number>();
  for (const [login, expected] of expectation.states) {
    const user = await store.findRecord(login);
    const state = stateOf(user);
    if (!expected.includes(state)) return `${login} is found as ${state}, not ${expected.join(' or ')}`;
    const id = expectation.ids.get(state);
    if (user !== undefined && id !== undefined && id !== user.id) return `${login} had id ${id} and has ${user.id}`;
    states.set(login, state);
    if (user !== undefined) ids.set(state, user.id);
  }
  const { users } = await store.page(undefined, 1_000);
  const listed = users.map((bytes) => JSON.parse(bytes.toString('utf8')) as { id: number; login: string });
  const present = [...states].filter(([, state]) => state !== absent).map(([login]) => login).sort();
  if (listed.map(({ login }) => login).sort().join() !== present.join()) return `${present.join()} are found, and listed are others`;
  if (new Set(listed.map(({ id }) => id)).size !== listed.length) return 'an id is given twice';
  return { states, ids };
}

/** What may be found after that was. */
function after(found: Found, { states, ids, lastId }: Expectation, left: (states: readonly State[], seen: State) => readonly State[]): Expectation {
  return {
    states: new Map([...found.states].map(([login, state]) => [login, left(states.get(login) ?? [], state)])),
    ids: new Map([...ids, ...found.ids]),
    lastId: Math.max(lastId, ...found.ids.values()),
  };
}

function tornFiles(disk: MemoryDisk): Map<string, Buffer> {
  return new Map([...disk.walk()].flatMap(([path, node]) => (path.includes('.torn-') && node.kind === 'file' ? [[path, node.seen]] : [])));
}
