import assert from 'node:assert/strict';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { prepareDirectory, surroundings } from '../../../lib/store/file/directory.ts';
import { temporaryDirectory } from '../../helper/temporary.ts';

test('directory: one that is missing is made, for its owner alone', (t) => {
  const directory = join(temporaryDirectory(t), 'a', 'b');
  assert.equal(prepareDirectory(directory), directory);
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  assert.equal(prepareDirectory(directory), directory);
});

test('directory: a file system that another kernel may write to is refused, by name, and nothing is made', { skip: process.platform !== 'linux' }, (t) => {
  const directory = join(temporaryDirectory(t), 'a');
  const cases: [number, RegExp][] = [
    [0x6969, /\(NFS\)/], [0x65735546, /\(FUSE\).*Docker Desktop.*named volume/], [0x01021997, /\(9p\)/], [0xff534d42, /\(CIFS\)/], [0x1234, /\(of type 0x1234\)/],
  ];
  for (const [type, pattern] of cases) {
    assert.throws(() => prepareDirectory(directory, { ...surroundings, fileSystemType: () => type }), { code: 'cannot-start', message: pattern });
  }
  assert.equal(existsSync(directory), false);
});

test('directory: another owner is named, or numbered where there is no name', (t) => {
  const directory = temporaryDirectory(t);
  assert.throws(() => prepareDirectory(directory, { ...surroundings, uid: 54_321 }), { code: 'cannot-start', message: /belongs to \w+, not to you: .*sudo -u \w+/ });
});

test('directory: a file in its place is refused', (t) => {
  const path = join(temporaryDirectory(t), 'file');
  writeFileSync(path, '');
  assert.throws(() => prepareDirectory(path), { message: /not a directory/ });
  assert.throws(() => prepareDirectory(join(path, 'below')), { message: /cannot be looked at \(ENOTDIR\)|not a directory/ });
});
