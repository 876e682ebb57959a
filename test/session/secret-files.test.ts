import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { SecretFiles } from '../../lib/session/secret-files.ts';
import { temporaryDirectory } from '../helper/temporary.ts';

test('secret-files: the first one wins, and nobody else can read it', async (t) => {
  const directory = temporaryDirectory(t);
  const secrets = new SecretFiles(directory);
  assert.equal(secrets.get('key'), undefined);
  const results = await Promise.all(Array.from({ length: 20 }, (_, n) => new SecretFiles(directory).putIfAbsent('key', `secret ${n}`)));
  assert.equal(results.filter(Boolean).length, 1);
  assert.equal(secrets.get('key'), `secret ${results.indexOf(true)}`);
  assert.equal(statSync(join(directory, 'key')).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory), ['key']);
});

test('secret-files: of replacements at once each sees the one before', async (t) => {
  const directory = temporaryDirectory(t);
  await new SecretFiles(directory).putIfAbsent('key', '0');
  const add = async (): Promise<void> => {
    const secrets = new SecretFiles(directory);
    for (;;) {
      const text = secrets.get('key');
      if (await secrets.replace('key', text, String(Number(text) + 1))) return;
    }
  };
  await Promise.all(Array.from({ length: 20 }, add));
  assert.equal(readFileSync(join(directory, 'key'), 'utf8'), '20');
  assert.deepEqual(readdirSync(directory), ['key']);
  const secrets = new SecretFiles(directory);
  assert.equal(await secrets.replace('key', '19', '21'), false);
  assert.equal(await secrets.replace('other', 'x', 'y'), false);
  assert.equal(await secrets.replace('other', undefined, 'y'), true);
});

test('secret-files: a lock whose holder has died is broken', async (t) => {
  const directory = temporaryDirectory(t);
  const secrets = new SecretFiles(directory);
  await secrets.putIfAbsent('key', '0');
  const lock = join(directory, '.key.lock');
  writeFileSync(lock, '');
  utimesSync(lock, new Date(), new Date(Date.now() - 20_000));
  assert.equal(await secrets.replace('key', '0', '1'), true);
  assert.deepEqual(readdirSync(directory), ['key']);
});

test('secret-files: what is no file of ours alone is refused', (t) => {
  const directory = temporaryDirectory(t);
  const secrets = new SecretFiles(directory);
  mkdirSync(join(directory, 'directory'));
  writeFileSync(join(directory, 'open'), 'x', { mode: 0o604 });
  writeFileSync(join(directory, 'empty'), ' \n', { mode: 0o600 });
  symlinkSync(join(directory, 'open'), join(directory, 'link'));
  for (const name of ['directory', 'open', 'empty', 'link', 'empty/below']) assert.throws(() => secrets.get(name), { code: 'cannot-start' }, name);
});
