import assert from 'node:assert/strict';
import { lstatSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeWholeFile } from '../../lib/transfer/whole-file.ts';
import { temporaryDirectory } from '../helper/temporary.ts';

async function* chunks(...texts: readonly string[]): AsyncGenerator<Buffer> {
  for (const text of texts) yield Buffer.from(text);
}

test('whole file: it is there whole, for its owner alone, in the place of what was there', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'backup.jsonl');
  writeFileSync(path, 'before', { mode: 0o644 });
  assert.equal(await writeWholeFile(path, chunks('one\n', 'two\n')), 8);
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwo\n');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory), ['backup.jsonl']);
  // A link goes on being one.
  symlinkSync('backup.jsonl', join(directory, 'link'));
  await writeWholeFile(join(directory, 'link'), chunks('three\n'));
  assert.ok(lstatSync(join(directory, 'link')).isSymbolicLink());
  assert.equal(readFileSync(path, 'utf8'), 'three\n');
});

test('whole file: where it fails, what was there is as it was, and nothing else is there', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'backup.jsonl');
  writeFileSync(path, 'before');
  async function* failing(error: unknown): AsyncGenerator<Buffer> {
    yield Buffer.from('half');
    throw error;
  }
  const full = Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC' });
  await assert.rejects(writeWholeFile(path, failing(full)), (error: Error & { code: string }) => {
    assert.equal(error.code, 'storage-full');
    assert.match(error.message, /^Cannot write ".*backup\.jsonl": there is no room for it; nothing is left of it$/);
    return true;
  });
  await assert.rejects(writeWholeFile(path, chunks('x'), AbortSignal.abort()), { name: 'AbortError' });
  assert.equal(readFileSync(path, 'utf8'), 'before');
  assert.deepEqual(readdirSync(directory), ['backup.jsonl']);
  mkdirSync(join(directory, 'directory'));
  for (const other of [join(directory, 'directory'), '/dev/null', join(directory, 'missing', 'x'), join(path, 'x')]) {
    await assert.rejects(writeWholeFile(other, chunks('x')), { code: 'cannot-start' }, other);
  }
});
