import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { AdminToken } from '../../lib/session/admin-token.ts';
import { temporaryDirectory } from '../helper/temporary.ts';

const secret = 'a-token-of-the-administrator';

function open(t: TestContext, env?: string) {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'admin-token');
  const lines: string[] = [];
  let ms = 0;
  const openToken = () => AdminToken.open({ env, path, report: (line) => lines.push(line), now: () => ms });
  return { directory, path, lines, openToken, pass: (seconds = 1) => void (ms += seconds * 1000), put: (text: string) => writeFileSync(path, text, { mode: 0o600 }) };
}

test('admin-token: the variable is the token, and the file is not looked at', (t) => {
  const { openToken, put, pass } = open(t, secret);
  put('another token');
  const token = openToken();
  assert.deepEqual([token.isSet(), token.matches(secret), token.matches('another token'), token.matches('')], [true, true, false, false]);
  pass();
  assert.equal(token.matches('another token'), false);
  assert.throws(() => open(t, ' ').openToken(), { code: 'cannot-start' });
});

test('admin-token: a file that comes while the service runs closes it within a second', async (t) => {
  const { openToken, pass, path, directory, lines } = open(t);
  const [service, command] = [openToken(), openToken()];
  assert.deepEqual([service.isSet(), service.matches('')], [false, false]);
  const made = await command.make();
  assert.match(made, /^[\w-]{43}$/);
  assert.equal(readFileSync(path, 'utf8'), `${made}\n`);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory), ['admin-token']);
  assert.equal(command.matches(made), true);
  pass();
  assert.deepEqual([service.isSet(), service.matches(made), service.matches(`${made}x`)], [true, true, false]);
  await assert.rejects(command.make(), { code: 'cannot-start' });
  assert.equal(readFileSync(path, 'utf8'), `${made}\n`);
  assert.ok(!lines.join('\n').includes(made));
  rmSync(path);
  const next = await command.make();
  pass();
  assert.deepEqual([service.matches(made), service.matches(next)], [false, true]);
});

test('admin-token: whatever becomes of the file, a service that was closed does not open', (t) => {
  const spoils: [name: string, spoil: (path: string) => void, said: RegExp][] = [
    ['removed', (path) => rmSync(path), /is gone/],
    ['emptied', (path) => writeFileSync(path, ''), /empty/],
    ['of white space', (path) => writeFileSync(path, '\n \n'), /empty/],
    ['readable by a group', (path) => chmodSync(path, 0o640), /chmod 600/],
    ['readable by all', (path) => chmodSync(path, 0o604), /chmod 600/],
    ['a directory', (path) => (rmSync(path), mkdirSync(path)), /no file|EISDIR/],
    ['too large', (path) => writeFileSync(path, 'x'.repeat(100_000)), /large/],
  ];
  for (const [name, spoil, said] of spoils) {
    const { openToken, put, pass, path, lines } = open(t);
    put(secret);
    const token = openToken();
    assert.equal(token.matches(secret), true);
    spoil(path);
    for (let n = 0; n < 3; n++) {
      pass();
      assert.deepEqual([token.isSet(), token.matches(secret), token.matches('')], [true, false, false], name);
    }
    assert.equal(lines.length, 1, `${name}: ${lines.join('\n')}`);
    assert.match(lines[0]!, said, name);
    if (name !== 'removed') assert.throws(openToken, { code: 'cannot-start' }, name);
    // It can be mended with no restart.
    rmSync(path, { recursive: true, force: true });
    put('the next token');
    pass();
    assert.deepEqual([token.isSet(), token.matches('the next token')], [true, true], name);
  }
});

test('admin-token: a file that cannot be used closes a service that was open', (t) => {
  const { openToken, path, pass, lines } = open(t);
  const token = openToken();
  assert.equal(token.isSet(), false);
  writeFileSync(path, secret, { mode: 0o644 });
  pass();
  assert.deepEqual([token.isSet(), token.matches(secret)], [true, false]);
  assert.equal(lines.length, 1);
  chmodSync(path, 0o600);
  pass();
  assert.equal(token.matches(secret), true);
});
