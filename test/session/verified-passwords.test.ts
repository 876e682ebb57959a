import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VerifiedPasswords } from '../../lib/session/verified-passwords.ts';

const alice = { id: 17, version: 3 };

test('verified-passwords: it is found for the same user, version, hash and password, and for no other', () => {
  const verified = new VerifiedPasswords({ secondsMax: 60, entriesMax: 100, now: () => 0 });
  assert.equal(verified.has(alice, 'correct horse'), false);
  verified.remember(alice, 'correct horse');
  assert.equal(verified.has(alice, 'correct horse'), true);
  const others = [
    [{ id: 18, version: 3 }, 'correct horse'], [{ id: 17, version: 4 }, 'correct horse'], [alice, 'correct horsf'], [alice, ''],
    [{ id: 1, version: 73 }, 'correct horse'], [alice, ',correct horse'],
  ] as const;
  for (const [user, password] of others) assert.equal(verified.has(user, password), false, JSON.stringify([user, password]));
});

test('verified-passwords: after its time it is forgotten, however often it was asked for', () => {
  let ms = 0;
  const verified = new VerifiedPasswords({ secondsMax: 60, entriesMax: 100, now: () => ms });
  verified.remember(alice, 'correct horse');
  for (; ms < 60_000; ms += 1000) assert.equal(verified.has(alice, 'correct horse'), true);
  assert.equal(verified.has(alice, 'correct horse'), false);
  assert.equal(verified.size, 0);
});

test('verified-passwords: it is bounded, the oldest goes first, and what has ended leaves', () => {
  let ms = 0;
  const verified = new VerifiedPasswords({ secondsMax: 60, entriesMax: 100, now: () => ms });
  for (let id = 1; id <= 1000; id++) verified.remember({ id, version: 1 }, 'p');
  assert.equal(verified.size, 100);
  assert.deepEqual([900, 901, 1000].map((id) => verified.has({ id, version: 1 }, 'p')), [false, true, true]);
  ms = 60_000;
  verified.remember(alice, 'p');
  assert.equal(verified.size, 1);
});
