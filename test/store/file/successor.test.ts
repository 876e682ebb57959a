import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import { UserLog } from '../../../lib/store/file/log.ts';
import { encodeHeader, encodeUser } from '../../../lib/store/file/record.ts';
import { Successor } from '../../../lib/store/file/successor.ts';
import { temporaryDirectory, until } from '../../helper/temporary.ts';
import { candidate } from '../../helper/user-store-contract.ts';

const seed = 0x5e0c41d7;
const users = 80_000;

/** A file that is large enough for its successor to be worth reading early, and the file of a compaction in parts. */
async function prepare(t: TestContext) {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'users.jsonl');
  const parts = [encodeHeader({ version: 1, created: 'now', nextId: 1, seed })];
  let offset = parts[0]!.length;
  for (let id = 1; id <= users; id++) {
    parts.push(encodeUser({ id, version: 1, ...candidate(`user${id}`) }, offset, seed));
    offset += parts.at(-1)!.length;
  }
  writeFileSync(path, Buffer.concat(parts));
  const log = UserLog.open(nodeFileSystem, path);
  await log.advance(log.size);
  const lockDirectory = `${path}.lock`;
  mkdirSync(lockDirectory);
  const successor = new Successor({ fs: nodeFileSystem, path, lockDirectory, identity: 'own', current: () => log });
  t.after(async () => {
    await successor.close();
    log.close();
  });
  return { path, temporary: (owner: string) => join(lockDirectory, `.compact-${owner}`), parts, successor };
}

const markOf = (path: string, mark = seed) => ({ boot: 'b', inode: statSync(path).ino, seed: mark, end: statSync(path).size });

test('successor: the file that another process compacts into is read while it grows, and taken when it is put in place', async (t) => {
  const { path, temporary, parts, successor } = await prepare(t);
  const other = temporary('other');
  writeFileSync(other, Buffer.concat([...parts.slice(0, 1_000), parts[1_000]!.subarray(0, 50)]));
  // Not the one that is in place now, not another seed.
  assert.equal(await successor.take(markOf(path)), undefined);
  await new Promise((resolve) => setTimeout(resolve, 600));
  appendFileSync(other, Buffer.concat([parts[1_000]!.subarray(50), ...parts.slice(1_001)]));
  renameSync(other, path);
  assert.equal(await successor.take(markOf(path, 1)), undefined);
  let log: UserLog | undefined;
  await until(async () => (log = await successor.take(markOf(path))) !== undefined, 'the successor');
  t.after(() => log?.close());
  assert.ok(log!.index.size >= 999);
  assert.equal(await log!.advance(log!.size), undefined);
  assert.equal(log!.find('user80000')?.id, users);
  assert.equal(await successor.take(markOf(path)), undefined, 'it is taken once');
});

test('successor: once it is in place nothing more is read, since what is not durable yet may be cut off again', async (t) => {
  const { path, temporary, parts, successor } = await prepare(t);
  const other = temporary('other');
  writeFileSync(other, Buffer.concat(parts.slice(0, 1_000)));
  const { size } = statSync(other);
  await new Promise((resolve) => setTimeout(resolve, 600));
  renameSync(other, path);
  appendFileSync(path, parts[1_000]!);
  await new Promise((resolve) => setTimeout(resolve, 600));
  const log = await successor.take(markOf(path));
  t.after(() => log?.close());
  assert.equal(log?.end, size);
});

test('successor: one that is given up, is damaged, or is this process\'s own is left alone', async (t) => {
  const { path, temporary, parts, successor } = await prepare(t);
  const all = Buffer.concat(parts.slice(0, 1_000));
  writeFileSync(temporary('own'), all);
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.equal(await successor.take(markOf(temporary('own'))), undefined);
  rmSync(temporary('own'));
  const damaged = Buffer.from(all);
  damaged[damaged.length - 2_000]! ^= 1;
  writeFileSync(temporary('other'), damaged);
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.equal(await successor.take(markOf(temporary('other'))), undefined);
  rmSync(temporary('other'));
  writeFileSync(temporary('third'), all);
  await until(async () => (await successor.take(markOf(temporary('third')))) !== undefined, 'the third');
  assert.ok(statSync(path).size > 16 << 20);
});
