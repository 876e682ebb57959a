import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { bootId } from '../../../lib/store/file/identity.ts';
import { encodeMark } from '../../../lib/store/file/mark.ts';
import { decodeHeader, encodeHeader, encodeRemoval, encodeUser } from '../../../lib/store/file/record.ts';
import { FileUserStore } from '../../../lib/store/file/store.ts';
import type { StoredUser } from '../../../lib/user-store.ts';
import { temporaryDirectory } from '../../helper/temporary.ts';
import { candidate } from '../../helper/user-store-contract.ts';

const seed = 0x5e0c41d7;
const at = '2026-11-23T08:00:00.000Z';

/** A file made of batches of logins, and where each batch begins. The mark of it is another boot's: none. */
function makeFile(batches: readonly (readonly string[])[]): { bytes: Buffer; begins: number[] } {
  const parts = [encodeHeader({ version: 1, created: at, nextId: 1, seed })];
  const begins: number[] = [];
  let length = parts[0]!.length;
  let id = 0;
  for (const logins of batches) {
    begins.push(length);
    const lines = logins.map((login) => encodeUser({ id: ++id, version: 1, ...candidate(login) }, begins.at(-1)!, seed));
    parts.push(...lines);
    length += Buffer.concat(lines).length;
  }
  return { bytes: Buffer.concat(parts), begins };
}

function put(directory: string, bytes: Buffer): string {
  const path = join(directory, 'users.jsonl');
  writeFileSync(path, bytes);
  return path;
}

async function open(t: Pick<TestContext, 'after'>, path: string, reports: string[] = []): Promise<FileUserStore> {
  const store = await FileUserStore.open({ path, lockWaitMsMax: 5_000, report: (line) => reports.push(line) });
  t.after(() => store.close());
  return store;
}

const three = [['alice', 'bob'], ['carol'], ['dave', 'erin', 'frank']] as const;

test('recover: every cut of the last batch loses that batch at most, and nothing half is left', async (t) => {
  const { bytes, begins } = makeFile(three);
  const last = begins.at(-1)!;
  const directory = temporaryDirectory(t);
  for (let cut = last; cut <= bytes.length; cut++) {
    const own = join(directory, String(cut));
    mkdirSync(own);
    const path = put(own, bytes.subarray(0, cut));
    const store = await open(t, path);
    for (const login of ['alice', 'bob', 'carol']) assert.equal((await store.find(login))?.login, login, `cut at ${cut}`);
    const whole = bytes.subarray(last, cut).toString().split('\n').length - 1;
    assert.equal((await store.page(undefined, 100)).users.length, 3 + whole, `cut at ${cut}`);
    // What was cut off is set aside, to the byte, and the next write follows a whole line.
    const torn = readdirSync(own).filter((name) => name.includes('.torn-'));
    const kept = torn.map((name) => readFileSync(join(own, name)));
    assert.equal(Buffer.concat([bytes.subarray(0, statSync(path).size), ...kept]).equals(bytes.subarray(0, cut)), true);
    await store.create(candidate('grace'));
    await store.close();
    const again = await open(t, path);
    assert.equal((await again.find('grace'))?.id, 4 + whole, `cut at ${cut}`);
    await again.close();
  }
});

test('recover: a last batch with holes of zeros, as a lost block leaves, is a torn tail', async (t) => {
  const { bytes, begins } = makeFile(three);
  const last = begins.at(-1)!;
  const directory = temporaryDirectory(t);
  for (let hole = 0; hole < 30; hole++) {
    const own = join(directory, String(hole));
    mkdirSync(own);
    const torn = Buffer.from(bytes);
    const from = last + Math.floor(((bytes.length - last) * hole) / 31);
    torn.fill(0, from, Math.min(bytes.length, from + 100));
    const reports: string[] = [];
    const store = await open(t, put(own, torn), reports);
    for (const login of ['alice', 'bob', 'carol']) assert.equal((await store.find(login))?.login, login);
    assert.match(reports.join(), /was cut off, .*: its \d+ bytes/);
    await store.close();
  }
});

/** The line (from 1) and the byte at which it begins, for a byte of the file. */
function placeOf(bytes: Buffer, offset: number): { line: number; byte: number } {
  const before = bytes.subarray(0, offset);
  return { line: before.toString('latin1').split('\n').length, byte: before.lastIndexOf(0x0a) + 1 };
}

test('recover: 200 random bit flips before the last batch are refused with line and byte, and nothing is touched', async (t) => {
  const { bytes, begins } = makeFile([...three, ...Array.from({ length: 20 }, (_, n) => [`user${n}`]), ['x', 'y']]);
  const last = begins.at(-1)!;
  const directory = temporaryDirectory(t);
  for (let flip = 0; flip < 200; flip++) {
    const offset = Math.floor(Math.random() * last);
    const bit = 1 << Math.floor(Math.random() * 8);
    const bad = Buffer.from(bytes);
    bad[offset]! ^= bit;
    const own = join(directory, String(flip));
    mkdirSync(own);
    const path = put(own, bad);
    const place = placeOf(bytes, offset);
    const where = `line ${place.line} (byte ${place.byte.toLocaleString('en-US')})`;
    await assert.rejects(open(t, path), (error: Error & { code: string }) => {
      assert.equal(error.code, 'corrupt', `bit ${bit} of byte ${offset}: ${error.message}`);
      assert.ok(error.message.includes(where), `${error.message}, and not ${where}`);
      assert.match(error.message, /restore|format version/);
      return true;
    });
    assert.ok(readFileSync(path).equals(bad));
    assert.deepEqual(readdirSync(own).filter((name) => name !== 'users.jsonl.lock'), ['users.jsonl']);
  }
});

test('recover: in a file whose lines are checked many at a time, the line that is bad is named, and the lines before it count', async (t) => {
  const { bytes, begins } = makeFile(Array.from({ length: 10_000 }, (_, n) => [`user${n}`]));
  assert.ok(bytes.length > 2 << 20);
  const whole = await open(t, put(temporaryDirectory(t), bytes));
  assert.equal(whole.size, 10_000);
  for (const n of [0, 1, 4_999, 9_000, 9_998]) {
    const damaged = Buffer.from(bytes);
    damaged[begins[n]! + 40]! ^= 4;
    const expected = `line ${(n + 2).toLocaleString('en-US')} (byte ${begins[n]!.toLocaleString('en-US')}) fails its checksum`;
    const path = put(temporaryDirectory(t), damaged);
    await assert.rejects(open(t, path), (error: Error) => error.message.includes(expected));
    assert.ok(readFileSync(path).equals(damaged));
  }
});

test('recover: a bad last line that is whole to the eye is refused', async (t) => {
  const { bytes } = makeFile([['alice'], ['bob']]);
  bytes[bytes.length - 60]! ^= 1;
  await assert.rejects(open(t, put(temporaryDirectory(t), bytes)), { code: 'corrupt', message: /line 3 .*fails its checksum/ });
});

test('recover: a last line that is whole but for its newline, which is another character, is refused', async (t) => {
  const { bytes } = makeFile([['alice'], ['bob']]);
  bytes[bytes.length - 1]! ^= 4;
  await assert.rejects(open(t, put(temporaryDirectory(t), bytes)), { code: 'corrupt', message: /line 3/ });
});

test('recover: what was durable in this boot is refused even where it looks torn', async (t) => {
  const { bytes } = makeFile([['alice'], ['bob']]);
  const directory = temporaryDirectory(t);
  const path = put(directory, bytes.subarray(0, bytes.length - 5));
  const durable = { boot: bootId, inode: statSync(path).ino, seed, end: bytes.length - 5 };
  mkdirSync(`${path}.lock`, { mode: 0o700 });
  writeFileSync(join(`${path}.lock`, 'durable'), encodeMark(durable));
  await assert.rejects(open(t, path), { code: 'corrupt', message: /durable/ });
  // The same file with a mark of another boot is torn.
  writeFileSync(join(`${path}.lock`, 'durable'), encodeMark({ ...durable, boot: 'another' }));
  assert.equal((await (await open(t, path)).find('alice'))?.login, 'alice');
});

test('recover: lines in a wrong place or order are refused', async (t) => {
  const { bytes, begins } = makeFile([['alice'], ['bob']]);
  const [first = 0] = begins;
  const user = (login: string, id: number): StoredUser => ({ id, version: 1, ...candidate(login) });
  const cases: [string, Buffer, RegExp][] = [
    ['lines twice', bytes.subarray(first), /is not where it was written/],
    ['a batch that is not there', encodeUser(user('carol', 3), first, seed), /is not where it was written/],
    ['an id twice', encodeUser(user('carol', 1), bytes.length, seed), /gives id 1 a second time/],
    ['nobody to remove', encodeRemoval(9, 'carol', at, bytes.length, seed), /removes user 9, who is not there/],
  ];
  for (const [what, line, pattern] of cases) {
    const path = put(temporaryDirectory(t), Buffer.concat([bytes, line]));
    await assert.rejects(open(t, path), { code: 'corrupt', message: pattern }, what);
  }
});

test('recover: a good line glued to one whose end is gone still shows that later writes follow', async (t) => {
  const { bytes, begins } = makeFile([['alice'], ['bob'], ['carol']]);
  bytes.fill(0, begins[2]! - 40, begins[2]);
  await assert.rejects(open(t, put(temporaryDirectory(t), bytes)), { code: 'corrupt', message: /line 3 .*later writes follow/ });
});

test('recover: ids go on from the header of a file whose removals were dropped', async (t) => {
  const path = put(temporaryDirectory(t), encodeHeader({ version: 1, created: at, nextId: 41, seed }));
  const store = await open(t, path);
  assert.equal((await store.create(candidate('alice'))).user.id, 41);
});

test('recover: a file of a later format is refused and not touched', async (t) => {
  const { bytes } = makeFile([['alice']]);
  const later = Buffer.from(bytes.toString().replace('"version":1', '"version":7'));
  const path = put(temporaryDirectory(t), later);
  await assert.rejects(open(t, path), { code: 'corrupt', message: /format version 7/ });
  assert.ok(readFileSync(path).equals(later));
  assert.equal(typeof decodeHeader(later.subarray(0, later.indexOf(0x0a))), 'string');
});
