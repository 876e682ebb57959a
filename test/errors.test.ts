import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RegistrarError, messageOf, noRoom, systemCode } from '../lib/errors.ts';

test('errors: what is thrown is read for what it is', () => {
  const full = Object.assign(new Error('no space'), { code: 'ENOSPC' });
  assert.equal(systemCode(full), 'ENOSPC');
  for (const other of [new Error('plain'), Object.assign(new Error('odd'), { code: 5 }), 'text', undefined]) assert.equal(systemCode(other), undefined);
  assert.deepEqual([noRoom(full), noRoom(new Error('plain')), noRoom(undefined)], [true, false, false]);
  assert.deepEqual([messageOf(full), messageOf('text')], ['no space', 'text']);
});

test('errors: one of ours has a code, a detail, and a cause if there is one', () => {
  const cause = new Error('why');
  const error = new RegistrarError('taken', 'The login is taken', { cause });
  assert.deepEqual([error.code, error.detail, error.cause, error.fields, error.allow], ['taken', 'The login is taken', cause, [], []]);
  assert.equal('cause' in new RegistrarError('taken', 'x'), false);
});

test('errors: a refusal carries no stack, what is to be mended does, and so does any other error after it', () => {
  assert.doesNotMatch(new RegistrarError('not-found', 'nobody').stack ?? '', /\n\s+at /);
  assert.match(new RegistrarError('corrupt', 'damage').stack ?? '', /\n\s+at .*errors\.test/);
  assert.match(new TypeError('defect').stack ?? '', /\n\s+at .*errors\.test/);
});
