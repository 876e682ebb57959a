import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RegistrarError } from '../../../lib/errors.ts';
import { bootId } from '../../../lib/store/file/identity.ts';
import { encodeMark } from '../../../lib/store/file/mark.ts';
import { encodeHeader, encodeRemoval, encodeUser } from '../../../lib/store/file/record.ts';
import { FileUserStore } from '../../../lib/store/file/store.ts';
import type { StoredUser } from '../../../lib/user-store.ts';
import { MemoryDisk } from '../../helper/memory-disk.ts';
import { MemoryFileSystem } from '../../helper/memory-file-system.ts';
import { randomFrom } from '../../helper/crash-states.ts';
import { now } from '../../helper/scenario.ts';
import { candidate } from '../../helper/user-store-contract.ts';

/** More of them with `make faults`; beyond these they say nothing new. */
const trials = Math.min(1_000, Number(process.env.TRIALS ?? 80));
const seed = Number(process.env.SEED ?? Date.now() % 1e9);
const fileSeed = 0x5e0c41d7;

interface Made {
  readonly bytes: Buffer;
  /** Where each batch begins, and each line. */
  readonly batches: readonly number[];
  readonly lines: readonly number[];
  /** Everybody, and who of them is not of the last batch or was not touched by it. */
  readonly users: ReadonlyMap<string, StoredUser | undefined>;
  readonly usersBefore: ReadonlyMap<string, StoredUser | undefined>;
}

/** A file with batches of so many lines: registrations, and later on changes and removals too. */
function makeFile(sizes: readonly number[]): Made {
  const parts = [encodeHeader({ version: 1, created: '2026-11-22T15:00:00.000Z', nextId: 1, seed: fileSeed })];
  const [batches, lines]: [number[], number[]] = [[], []];
  const users = new Map<string, StoredUser | undefined>();
  let usersBefore = new Map(users);
  let end = parts[0]!.length;
  let id = 0;
  for (const size of sizes) {
    batches.push(end);
    usersBefore = new Map(users);
    const batch = end;
    for (let n = 0; n < size; n++) {
      const [login = '', user] = [...users].find(([, other]) => other !== undefined && n % 5 === 4) ?? [];
      let line: Buffer;
      if (user === undefined || size < 5) {
        const made = { id: ++id, version: 1, ...candidate(`user${id}`) };
        line = encodeUser(made, batch, fileSeed);
        users.set(made.login, made);
      } else if (n % 2 === 0) {
        const changed = { ...user, version: user.version + 1, changed: '2026-11-23T08:00:00.000Z' };
        line = encodeUser(changed, batch, fileSeed);
        users.delete(login);
        users.set(login, changed);
      } else {
        line = encodeRemoval(user.id, login, '2026-11-23T08:00:00.000Z', batch, fileSeed);
        users.set(login, undefined);
      }
      lines.push(end);
      parts.push(line);
      end += line.length;
    }
  }
  return { bytes: Buffer.concat(parts), batches, lines, users, usersBefore };
}

/** The file on a disk of its own, with a mark that says that all of it, as it was, is durable, or without. */
function diskOf(bytes: Buffer, markedEnd: number | undefined): MemoryDisk {
  const disk = new MemoryDisk();
  const inode = disk.make('users.jsonl', 'file');
  disk.change(inode, 0, bytes);
  if (markedEnd !== undefined) {
    disk.make('users.jsonl.lock', 'directory');
    disk.make('users.jsonl.lock/protocol-1', 'file');
    disk.change(disk.make('users.jsonl.lock/durable', 'file'), 0, encodeMark({ boot: bootId, inode, seed: fileSeed, end: markedEnd }));
  }
  return disk;
}

type Outcome =
  /** Refused, with everything as it was. */
  | { readonly kind: 'refused'; readonly message: string }
  /** Opened without the last write, or a part of it, which is set aside. */
  | { readonly kind: 'set aside' }
  /** Opened, and nobody is other than they were. */
  | { readonly kind: 'harmless' }
  /** Opened, and somebody is other than they were, with no word about it. */
  | { readonly kind: 'unnoticed' }
  /** The same, until somebody writes: that is refused, or brings everybody back. */
  | { readonly kind: 'found later' }
  | { readonly kind: 'wrong'; readonly why: string };

async function open(bytes: Buffer, made: Made, isMarked: boolean): Promise<Outcome> {
  const fs = new MemoryFileSystem(diskOf(bytes, isMarked ? made.bytes.length : undefined));
  const before = describe(fs.disk);
  try {
    let store: FileUserStore;
    try {
      store = await FileUserStore.open({ path: fs.path, lockWaitMsMax: 1_000, fs, now });
    } catch (error) {
      if (!(error instanceof RegistrarError)) throw error;
      if (error.code !== 'corrupt') return { kind: 'wrong', why: `${error.code}: ${error.message}` };
      const after = describe(fs.disk);
      if (isMarked ? after !== before : !fs.disk.bytes('users.jsonl')!.equals(bytes)) return { kind: 'wrong', why: `${before} became ${after}` };
      return { kind: 'refused', message: error.message };
    }
    try {
      const torn = [...fs.disk.walk()].find(([path]) => path.includes('.torn-'));
      let isSameForAll = true;
      for (const [login, user] of made.users) {
        const found = await store.find(login);
        const isSame = versionOf(found) === versionOf(user);
        // The last write may have made several versions, each of them whole.
        const isEarlier = versionOf(found) >= versionOf(made.usersBefore.get(login)) || versionOf(user) === 0;
        if (!isSame && torn !== undefined && !isEarlier) return { kind: 'wrong', why: `${login} is older than before the last write` };
        isSameForAll &&= isSame;
      }
      if (torn !== undefined) return { kind: 'set aside' };
      if (isSameForAll) return { kind: 'harmless' };
      const told = await store.create(candidate('late')).catch((error: RegistrarError) => error.code);
      if (told === 'corrupt') return { kind: 'found later' };
      for (const [login, user] of made.users) if (versionOf(await store.find(login)) !== versionOf(user)) return { kind: 'unnoticed' };
      return { kind: 'found later' };
    } finally {
      await store.close();
    }
  } finally {
    fs.dispose();
  }
}

function versionOf(user: StoredUser | undefined): number {
  return user?.version ?? 0;
}

/** All that is on a disk, as one text. */
function describe(disk: MemoryDisk): string {
  return [...disk.walk()].map(([path, node, inode]) => `${path} ${inode} ${node.kind === 'file' ? node.seen.toString('latin1') : node.kind}`).join('\n');
}

/** A damage: the file with it, and the byte where it begins; undefined where it comes to nothing. */
type Damage = (made: Made, from: number, to: number, random: () => number) => { readonly bytes: Buffer; readonly at: number } | undefined;

const below = (random: () => number, from: number, to: number): number => from + Math.floor(random() * (to - from));

function edited(bytes: Buffer, edit: (copy: Buffer) => void, at: number): { bytes: Buffer; at: number } | undefined {
  const copy = Buffer.from(bytes);
  edit(copy);
  return copy.equals(bytes) ? undefined : { bytes: copy, at: Math.max(at, copy.findIndex((byte, n) => byte !== bytes[n])) };
}

function lineAt(made: Made, offset: number): { from: number; to: number } {
  const n = made.lines.findLastIndex((line) => line <= offset);
  return { from: made.lines[n] ?? 0, to: made.lines[n + 1] ?? made.bytes.length };
}

const damages: Readonly<Record<string, Damage>> = {
  'a bit flipped': ({ bytes }, from, to, random) => {
    const at = below(random, from, to);
    return edited(bytes, (copy) => (copy[at]! ^= 1 << below(random, 0, 8)), at);
  },
  'a byte overwritten': ({ bytes }, from, to, random) => {
    const at = below(random, from, to);
    return edited(bytes, (copy) => (copy[at] = below(random, 0, 256)), at);
  },
  'a sector of zeros': ({ bytes }, from, to, random) => {
    const at = below(random, from, to) & ~511;
    return at < from || at + 512 > to ? undefined : edited(bytes, (copy) => copy.fill(0, at, at + 512), at);
  },
  'cut short': ({ bytes }, from, to, random) => {
    const at = below(random, from + 1, to);
    return { bytes: bytes.subarray(0, at), at };
  },
  'a line twice': (made, from, to, random) => {
    const line = lineAt(made, below(random, from, to));
    if (line.from < from || line.to > to) return undefined;
    return { bytes: Buffer.concat([made.bytes.subarray(0, line.to), made.bytes.subarray(line.from)]), at: line.to };
  },
  'a line missing': (made, from, to, random) => {
    const line = lineAt(made, below(random, from, to));
    if (line.from < from || line.to > to) return undefined;
    return { bytes: Buffer.concat([made.bytes.subarray(0, line.from), made.bytes.subarray(line.to)]), at: line.from };
  },
  'two lines swapped': (made, from, to, random) => {
    const first = lineAt(made, below(random, from, to));
    const second = lineAt(made, first.to);
    if (first.from < from || second.to > to || second.from === first.from) return undefined;
    const { bytes } = made;
    const swapped = [bytes.subarray(second.from, second.to), bytes.subarray(first.from, first.to)];
    return { bytes: Buffer.concat([bytes.subarray(0, first.from), ...swapped, bytes.subarray(second.to)]), at: first.from };
  },
};

interface Where {
  readonly isMarked: boolean;
  readonly from: (made: Made) => number;
  readonly to: (made: Made) => number;
}

/** How each outcome is come by, counted. Everything wrong is told, and all that is unnoticed. */
async function tryMany(damage: Damage, { isMarked, from, to }: Where, check?: (message: string, made: Made, at: number) => string | undefined) {
  const random = randomFrom(seed);
  const counts: Record<string, number> = {};
  const wrong: string[] = [];
  const files = [[1, 2, 5, 17, 1, 60, 3, 12], [3, 1, 1, 25, 6, 1], [1, 40, 2, 9, 30]].map(makeFile);
  let tried = 0;
  const work = async (): Promise<void> => {
    while (tried < trials) {
      const made = files[++tried % files.length]!;
      const damaged = damage(made, from(made), to(made), random);
      if (damaged === undefined) {
        counts['came to nothing'] = (counts['came to nothing'] ?? 0) + 1;
        continue;
      }
      const outcome = await open(damaged.bytes, made, isMarked);
      counts[outcome.kind] = (counts[outcome.kind] ?? 0) + 1;
      const why = outcome.kind === 'refused' ? check?.(outcome.message, made, damaged.at) : outcome.kind === 'wrong' ? outcome.why : undefined;
      if (why !== undefined) wrong.push(`SEED=${seed}: byte ${damaged.at}: ${why}`);
    }
  };
  await Promise.all(Array.from({ length: 8 }, work));
  return { counts, wrong };
}

/** The message names the line and its first byte. */
function namesPlace(message: string, { bytes }: Made, at: number): string | undefined {
  const before = bytes.subarray(0, at);
  const line = before.toString('latin1').split('\n').length.toLocaleString('en-US');
  const byte = (before.lastIndexOf(0x0a) + 1).toLocaleString('en-US');
  return message.includes(`line ${line} (byte ${byte})`) && message.includes('users.jsonl') ? undefined : `${message}, and not line ${line} (byte ${byte})`;
}

const durable: Where = { isMarked: true, from: () => 0, to: ({ bytes }) => bytes.length };
const beforeLast: Where = { isMarked: false, from: () => 0, to: ({ batches }) => batches.at(-1)! };
const inLast: Where = { isMarked: false, from: ({ batches }) => batches.at(-1)!, to: ({ bytes }) => bytes.length };

/** What else may become of what is not refused. */
const also: Readonly<Record<string, readonly string[]>> = {
  'a bit flipped': [],
  'a byte overwritten': ['came to nothing'],
  'a sector of zeros': ['came to nothing'],
  'cut short': [],
  // Where a line as long as the last write pushes that behind the mark, all up to the mark is good.
  'a line twice': ['came to nothing', 'harmless', 'found later'],
  'a line missing': ['came to nothing'],
  // Lines of one write that say nothing about each other may stand in either order.
  'two lines swapped': ['came to nothing', 'harmless'],
};

const strict = ['a bit flipped', 'a byte overwritten', 'a sector of zeros'];

for (const [what, damage] of Object.entries(damages)) {
  const check = strict.includes(what) ? namesPlace : undefined;

  test(`damage: ${what}, in what is known to be durable, is refused, and nothing is touched`, async (t) => {
    const { counts, wrong } = await tryMany(damage, durable, check);
    t.diagnostic(`${what}, below the mark: ${JSON.stringify(counts)}, SEED=${seed}`);
    assert.deepEqual(wrong, []);
    assert.ok(counts.refused! > trials / 3, JSON.stringify(counts));
    assert.deepEqual(Object.keys(counts).filter((kind) => kind !== 'refused' && !also[what]!.includes(kind)), []);
  });

  // A file that was cut is an older copy of itself: nothing but the mark tells that it was longer.
  if (what === 'cut short') continue;
  test(`damage: ${what}, before the last write, is refused without a mark, too`, async (t) => {
    const { counts, wrong } = await tryMany(damage, beforeLast, check);
    t.diagnostic(`${what}, before the last write, no mark: ${JSON.stringify(counts)}, SEED=${seed}`);
    assert.deepEqual(wrong, []);
    assert.ok(counts.refused! > trials / 3, JSON.stringify(counts));
    assert.deepEqual(Object.keys(counts).filter((kind) => kind !== 'refused' && !also[what]!.includes(kind)), []);
  });
}

test('damage: in the last write, without a mark, it is refused, or set aside if it looks torn', async (t) => {
  for (const what of strict) {
    const { counts, wrong } = await tryMany(damages[what]!, inLast);
    t.diagnostic(`${what}, in the last write, no mark: ${JSON.stringify(counts)}, SEED=${seed}`);
    assert.deepEqual(wrong, []);
    // No bit makes a NUL of what stands there, so none looks torn.
    const kinds = what === 'a bit flipped' ? ['refused'] : ['refused', 'set aside', 'came to nothing'];
    assert.deepEqual(Object.keys(counts).filter((kind) => !kinds.includes(kind)), []);
  }
});
