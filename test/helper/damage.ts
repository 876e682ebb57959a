/**
 * Kinds of damage to a users file, and what must hold after a repair: every user is recovered or named as lost, no id
 * is given again, and no removed user or earlier state comes back without being named.
 */

import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RegistrarError } from '../../lib/errors.ts';
import { nodeFileSystem } from '../../lib/store/file/file-system.ts';
import { repair } from '../../lib/store/file/repair.ts';
import { FileUserStore } from '../../lib/store/file/file-user-store.ts';
import { newUser } from './user-store-contract.ts';

export type Random = () => number;

export interface Intact {
  readonly bytes: Buffer;
  /** With their newlines; the first is the header. */
  readonly lines: readonly string[];
  /** Of another store. */
  readonly other: string;
}

export interface Kind {
  readonly name: string;
  readonly damage: (intact: Intact, random: Random) => Buffer | string;
  /** Takes lines that no checksum vouches for. */
  readonly takesUnverified?: boolean;
  /** Without a durable offset nothing tells that bytes are missing. */
  readonly needsOffset?: boolean;
}

/** The state of each id ever given: its version, or removed. */
export type Truth = ReadonlyMap<number, { readonly login: string; readonly version: number | 'removed' }>;

const at = '2026-11-23T08:00:00.000Z';

/** Users who were changed, rehashed, removed and registered again, and one with an imported id. */
export async function makeHistory(path: string, random: Random): Promise<Truth> {
  const truth = new Map<number, { login: string; version: number | 'removed' }>();
  const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000 });
  const login = (): string => `user${Math.floor(random() * 30)}`;
  for (let n = 0; n < 70; n++) {
    const name = login();
    const user = await store.findRecord(name);
    if (user === undefined) {
      const imported = n === 40 ? [{ ...newUser(name), id: 5_000 }, newUser(`batch${n}`)] : [newUser(name)];
      for (const { user: created } of await store.createMany(imported)) truth.set(created.id, { login: created.login, version: 1 });
    } else if (random() < 0.4) {
      await store.remove(user, at);
      truth.set(user.id, { login: name, version: 'removed' });
    } else {
      const changed = await store.replace(user, { kdf: `pbkdf2:sha256:${n}`, password: user.password, changed: at });
      truth.set(user.id, { login: name, version: changed!.version });
    }
  }
  await store.close();
  return truth;
}

const pick = (list: readonly string[], random: Random): number => 1 + Math.floor(random() * (list.length - 1));
const withLine = (lines: readonly string[], n: number, change: (line: string) => string): string =>
  lines.map((line, other) => (other === n ? change(line) : line)).join('');
const aLine = (change: (line: string, random: Random) => string): Kind['damage'] => ({ lines }, random) =>
  withLine(lines, pick(lines, random), (line) => change(line, random));
const aLineOf = (pattern: RegExp, change: (line: string) => string): Kind['damage'] => ({ lines }, random) => {
  const fitting = lines.flatMap((line, n) => (n > 0 && n < lines.length - 1 && pattern.test(line) ? [n] : []));
  return withLine(lines, fitting[Math.floor(random() * fitting.length)] ?? 1, change);
};
const everyLine = (change: (line: string) => string): Kind['damage'] => ({ lines }) => lines.map(change).join('');
const rewritten = (change: (value: Record<string, unknown>) => unknown, space = ''): Kind['damage'] =>
  everyLine((line) => {
    const text = JSON.stringify(change(JSON.parse(line) as Record<string, unknown>), undefined, space);
    return `${text}\n`;
  });
const flip = (text: string, index: number, bit = 1): string =>
  text.slice(0, index) + String.fromCharCode(text.charCodeAt(index) ^ bit) + text.slice(index + 1);
const zeros = (bytes: Buffer, from: number, length: number): Buffer => Buffer.from(bytes).fill(0, from, Math.min(bytes.length, from + length));
const sorted = (value: Record<string, unknown>): unknown => Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
const inside = ({ bytes, lines }: Intact, random: Random): number => lines[0]!.length + Math.floor(random() * (bytes.length - lines[0]!.length));
const withSpaces = (line: string): string => line.replaceAll('":', '": ').replaceAll(',"', ', "');

export const kinds: readonly Kind[] = [
  { name: 'a bit of a hash flipped', damage: aLineOf(/"password"/, (line) => flip(line, line.indexOf('"password":"') + 20)) },
  { name: 'a bit of an id flipped', damage: aLineOf(/"id"/, (line) => flip(line, 6)) },
  { name: 'a bit of a login flipped', damage: aLineOf(/"id"/, (line) => flip(line, line.indexOf('"login":"') + 10)) },
  { name: 'a bit of a checksum flipped', damage: aLineOf(/"id"/, (line) => flip(line, line.length - 5)) },
  { name: 'a bit anywhere flipped', damage: aLine((line, random) => flip(line, Math.floor(random() * (line.length - 1)), 1 << Math.floor(random() * 7))) },
  { name: 'a removal garbled', damage: aLineOf(/"deleted"/, (line) => flip(line, line.indexOf('"deleted"') + 3)) },
  { name: 'a removal of zeros', damage: aLineOf(/"deleted"/, (line) => `${'\0'.repeat(line.length - 1)}\n`) },
  { name: 'a removal missing', damage: aLineOf(/"deleted"/, () => '') },
  { name: 'a change missing', damage: aLineOf(/"changed"/, () => '') },
  { name: 'a registration missing', damage: aLineOf(/"version":1,/, () => '') },
  { name: 'the last line missing', damage: ({ lines }) => lines.slice(0, -1).join(''), needsOffset: true },
  { name: 'the last line garbled', damage: ({ lines }) => withLine(lines, lines.length - 1, (line) => flip(line, 30)) },
  { name: 'a newline missing', damage: aLine((line) => line.slice(0, -1)), needsOffset: true },
  { name: 'a newline and the end of a line missing', damage: aLineOf(/./, (line) => line.slice(0, -40)) },
  { name: 'the beginning of a line missing', damage: aLineOf(/./, (line) => line.slice(40)) },
  { name: 'a line cut in two', damage: aLine((line) => `${line.slice(0, 50)}\n${line.slice(50)}`) },
  { name: 'a sector of zeros', damage: (intact, random) => zeros(intact.bytes, inside(intact, random), 512), needsOffset: true },
  { name: 'a page of zeros', damage: (intact, random) => zeros(intact.bytes, inside(intact, random), 4096), needsOffset: true },
  { name: 'the first sector of zeros', damage: ({ bytes }) => zeros(bytes, 0, 512) },
  { name: 'the last sector of zeros', damage: ({ bytes }) => zeros(bytes, bytes.length - 512, 512), needsOffset: true },
  { name: 'random bytes', damage: (intact, random) => {
    const bytes = Buffer.from(intact.bytes);
    for (let from = inside(intact, random), n = 0; n < 300 && from + n < bytes.length; n++) bytes[from + n] = Math.floor(random() * 256);
    return bytes;
  }, needsOffset: true },
  { name: 'a part missing', damage: (intact, random) => {
    const from = inside(intact, random);
    return Buffer.concat([intact.bytes.subarray(0, from), intact.bytes.subarray(from + 700)]);
  }, needsOffset: true },
  { name: 'the header missing', damage: ({ lines }) => lines.slice(1).join('') },
  { name: 'the header garbled', damage: ({ lines }) => withLine(lines, 0, (line) => flip(line, 3)) },
  { name: 'another seed in the header', damage: ({ lines }) => withLine(lines, 0, (line) => line.replace(/"seed":"./, '"seed":"!')) },
  { name: 'the header of another file', damage: ({ lines, other }) => withLine(lines, 0, () => `${other.split('\n')[0]}\n`) },
  { name: 'an empty header', damage: ({ lines }) => withLine(lines, 0, () => '\n') },
  { name: 'CRLF', damage: everyLine((line) => line.replace('\n', '\r\n')) },
  { name: 'CR', damage: everyLine((line) => line.replace('\n', '\r')) },
  { name: 'a byte order mark', damage: ({ lines }) => `\ufeff${lines.join('')}` },
  { name: 'spaces at the ends of lines', damage: everyLine((line) => line.replace('\n', '  \n')) },
  { name: 'indented lines', damage: everyLine((line) => `  ${line}`) },
  { name: 'blank lines', damage: everyLine((line) => `${line}\n`) },
  { name: 'sorted keys', damage: rewritten(sorted) },
  { name: 'spaces in the JSON', damage: everyLine(withSpaces) },
  { name: 'pretty-printed JSON', damage: rewritten((value) => value, '  ') },
  { name: 'an array', damage: ({ lines }) => `[${lines.map((line) => line.trim()).join(',\n')}]\n` },
  { name: 'sorted keys, and a removal missing', damage: (intact, random) => {
    const text = aLineOf(/"deleted"/, () => '')(intact, random) as string;
    return rewritten(sorted)({ ...intact, lines: text.split('\n').slice(0, -1) }, random);
  } },
  { name: 'no checksums', damage: rewritten(({ crc, ...rest }) => rest), takesUnverified: true },
  { name: 'no checksums and no offsets', damage: rewritten(({ crc, batch, ...rest }) => rest), takesUnverified: true },
  { name: 'every offset zero', damage: rewritten((value) => ({ ...value, batch: 0 })), takesUnverified: true },
  { name: 'a login edited', damage: aLineOf(/"kdf"/, (line) => line.replace(/"login":"\w+"/, '"login":"edited"')) },
  { name: 'a time edited, and taken', damage: aLineOf(/"kdf"/, (line) => line.replace('"registered":"2026', '"registered":"2025')), takesUnverified: true },
  { name: 'a line by echo', damage: ({ bytes }) => Buffer.concat([bytes, Buffer.from('hello\n')]) },
  { name: 'an appended copy of the lines', damage: ({ lines }) => [...lines, ...lines.slice(1)].join('') },
  { name: 'an appended copy of the file', damage: ({ lines }) => [...lines, ...lines].join('') },
  { name: 'another file appended', damage: ({ lines, other }) => lines.join('') + other },
  { name: 'another file before it', damage: ({ lines, other }) => other + lines.join('') },
  { name: 'every line twice', damage: ({ lines }) => lines.flatMap((line) => [line, line]).join('') },
  { name: 'two lines swapped', damage: ({ lines }, random) => {
    const n = Math.max(1, pick(lines, random) - 2);
    return [...lines.slice(0, n), lines[n + 1], lines[n], ...lines.slice(n + 2)].join('');
  } },
  { name: 'lines reversed', damage: ({ lines }) => [...lines].reverse().join('') },
  { name: 'lines sorted', damage: ({ lines }) => [...lines].sort().join('') },
  { name: 'bytes inserted', damage: (intact, random) => {
    const from = inside(intact, random);
    return Buffer.concat([intact.bytes.subarray(0, from), Buffer.from([0xff, 0, 0x7b, 0x22, 0xfe]), intact.bytes.subarray(from)]);
  }, needsOffset: true },
  { name: 'the last newline missing', damage: ({ bytes }) => bytes.subarray(0, -1) },
  { name: 'cut within a line', damage: (intact, random) => intact.bytes.subarray(0, inside(intact, random)), needsOffset: true },
  { name: 'cut at the end of a line', damage: ({ lines }, random) => lines.slice(0, pick(lines, random)).join(''), needsOffset: true },
  { name: 'cut behind the header', damage: ({ lines }) => lines[0]!, needsOffset: true },
];

export interface Result {
  readonly saved: number;
  readonly older: number;
  readonly lost: number;
  readonly back: number;
  /** Each breaks a promise. */
  readonly wrong: readonly string[];
}

/** Damages the file in place, repairs it if it does not open, and compares it with the truth. */
export async function tryDamage(path: string, truth: Truth, kind: Kind, damaged: Buffer | string, withOffset: boolean): Promise<Result> {
  writeFileSync(path, damaged);
  if (!withOffset) rmSync(`${path}.lock`, { recursive: true, force: true });
  let losses: readonly string[] = [];
  const reports: string[] = [];
  const open = (): Promise<FileUserStore> => FileUserStore.open({ path, lockWaitMsMax: 5_000, report: (line) => reports.push(line) });
  let store = await open().catch((error: RegistrarError) => error);
  if (store instanceof RegistrarError) {
    if (store.code !== 'corrupt') throw store;
    const repaired = await repair({
      fs: nodeFileSystem, path, lockWaitMsMax: 5_000, now: new Date(), takesUnverified: kind.takesUnverified ?? false,
      confirm: async (_, recovery) => void (losses = recovery.losses),
    });
    if (repaired === undefined) return { saved: 0, older: 0, lost: 0, back: 0, wrong: ['it does not open, and repair says that nothing is wrong'] };
    store = await open();
  }
  try {
    return await compare(store, truth, losses);
  } finally {
    await store.close();
  }
}

async function compare(store: FileUserStore, truth: Truth, losses: readonly string[]): Promise<Result> {
  const bounds = losses.map((loss) => Number(/any user up to id (\d+)/.exec(loss)?.[1] ?? -1));
  const mayBeNew = losses.some((loss) => loss.includes('may have been a new user'));
  const isNamed = (id: number): boolean => bounds.some((bound) => bound >= id) || losses.some((loss) => new RegExp(`\\buser ${id}\\b`).test(loss));
  const found = new Map<number, { login: string; version: number }>();
  for (let after: string | undefined, more = true; more; more = after !== undefined) {
    const page = await store.page(after, 1_000);
    for (const json of page.users) {
      const { id, login, version } = JSON.parse(json.toString('utf8')) as { id: number; login: string; version: number };
      found.set(id, { login, version });
    }
    after = page.next;
  }
  const wrong: string[] = [];
  let [saved, older, lost, back] = [0, 0, 0, 0];
  for (const [id, { login, version }] of truth) {
    const user = found.get(id);
    if (version === 'removed') {
      if (user === undefined) continue;
      back++;
      if (!isNamed(id)) wrong.push(`removed user ${id} is back, and not named`);
    } else if (user === undefined) {
      lost++;
      if (!isNamed(id) && !mayBeNew) wrong.push(`user ${id} is lost, and not named`);
    } else if (user.version < version) {
      older++;
      if (!isNamed(id)) wrong.push(`user ${id} is as of version ${user.version}, not ${version}, and not named`);
    } else {
      saved++;
      if (user.version !== version || user.login !== login) wrong.push(`user ${id} is ${user.login} ${user.version}, not ${login} ${version}`);
    }
  }
  const { user } = await store.create(newUser('probe'));
  if (user.id <= Math.max(...truth.keys())) wrong.push(`id ${user.id} is given again`);
  return { saved, older, lost, back, wrong };
}

/** The file of another store, and the lines of this one. */
export async function intactOf(path: string, directory: string): Promise<Intact> {
  const otherPath = join(directory, 'other.jsonl');
  if (statSync(otherPath, { throwIfNoEntry: false }) === undefined) {
    const other = await FileUserStore.open({ path: otherPath, lockWaitMsMax: 5_000 });
    for (const login of ['olga', 'oscar', 'otto']) await other.create(newUser(login));
    await other.close();
  }
  const bytes = readFileSync(path);
  const lines = bytes.toString('utf8').split('\n').slice(0, -1).map((line) => `${line}\n`);
  return { bytes, lines, other: readFileSync(otherPath, 'utf8') };
}
