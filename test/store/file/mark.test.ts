import assert from 'node:assert/strict';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeFileSystem } from '../../../lib/store/file/file-system.ts';
import { DurableMark, decodeMark, encodeMark } from '../../../lib/store/file/mark.ts';
import { temporaryDirectory } from '../../helper/temporary.ts';

const mark = { boot: 'f65472d9-ef0b-44c0-9cf6-4c3c850a7de8', inode: 2 ** 52, seed: 0xfffffff0, end: 2 ** 52 + 2 };

test('mark: what is written is read, by others too, and in place', (t) => {
  const path = join(temporaryDirectory(t), 'durable');
  const writer = new DurableMark(nodeFileSystem, path);
  const reader = new DurableMark(nodeFileSystem, path);
  t.after(() => {
    writer.close();
    reader.close();
  });
  assert.equal(reader.read(), undefined);
  writer.write(mark);
  const { ino } = statSync(path);
  assert.deepEqual(reader.read(), mark);
  assert.equal(reader.read(), reader.read());
  writer.write({ ...mark, end: 5 });
  assert.deepEqual(reader.read(), { ...mark, end: 5 });
  assert.equal(statSync(path).ino, ino);
  assert.equal(statSync(path).size, 160);
});

test('mark: half of one, or one with a changed byte, is none', (t) => {
  const bytes = encodeMark(mark);
  assert.deepEqual(decodeMark(bytes), mark);
  for (let at = 0; at < bytes.length; at++) {
    const bad = Buffer.from(bytes);
    bad[at]! ^= 1;
    assert.equal(decodeMark(bad), undefined, `byte ${at}`);
  }
  const path = join(temporaryDirectory(t), 'durable');
  writeFileSync(path, bytes.subarray(0, 80));
  const reader = new DurableMark(nodeFileSystem, path);
  t.after(() => reader.close());
  assert.equal(reader.read(), undefined);
  assert.throws(() => encodeMark({ ...mark, boot: 'x'.repeat(100) }), RangeError);
});

test('mark: a write in part is an error', (t) => {
  const fs = { ...nodeFileSystem, writeNow: () => 10 };
  const writer = new DurableMark(fs, join(temporaryDirectory(t), 'durable'));
  t.after(() => writer.close());
  assert.throws(() => writer.write(mark), /in part/);
});
