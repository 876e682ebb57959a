import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VerifiedPasswords } from '../../lib/session/verified-passwords.ts';

const alice = { id: 17, version: 3 };

test('verified-passwords: it is found for the same user, version, hash and password, and for no other', () => {
  const verified = new VerifiedPasswords({ secondsMax: 60, entriesMax: 100, now: () => 0 });
  assert.equal(verified.has(alice, 'salt$hash', 'correct horse'), false);
  verified.remember(alice, 'salt$hash', 'correct horse');
  assert.equal(verified.has(alice, 'salt$hash', 'correct horse'), true);
  const others = [
    [{ id: 18, version: 3 }, 'salt$hash', 'correct horse'], [{ id: 17, version: 4 }, 'salt$hash', 'correct horse'],
    [alice, 'salt$hasi', 'correct horse'], [alice, 'salt$hash', 'correct horsf'], [alice, 'salt$hash', ''], [{ id: 1, version: 73 }, 'salt$hash', 'correct horse'],
    [alice, 'salt$hash","', 'correct horse'], [alice, 'salt$', 'hashcorrect horse'],
  ] as const;
  for (const [user, stored, password] of others) assert.equal(verified.has(user, stored, password), false, JSON.stringify([user, stored, password]));
});

test('verified-passwords: after its time it is forgotten, however often it was asked for', () => {
  let ms = 0;
  const verified = new VerifiedPasswords({ secondsMax: 60, entriesMax: 100, now: () => ms });
  verified.remember(alice, 'salt$hash', 'correct horse');
  for (; ms < 60_000; ms += 1000) assert.equal(verified.has(alice, 'salt$hash', 'correct horse'), true);
  assert.equal(verified.has(alice, 'salt$hash', 'correct horse'), false);
  assert.equal(verified.size, 0);
});

test('verified-passwords: it is bounded, the oldest goes first, and what has ended leaves', () => {
  let ms = 0;
  const verified = new VerifiedPasswords({ secondsMax: 60, entriesMax: 100, now: () => ms });
  for (let id = 1; id <= 1000; id++) verified.remember({ id, version: 1 }, 's', 'p');
  assert.equal(verified.size, 100);
  assert.deepEqual([900, 901, 1000].map((id) => verified.has({ id, version: 1 }, 's', 'p')), [false, true, true]);
  ms = 60_000;
  verified.remember(alice, 's', 'p');
  assert.equal(verified.size, 1);
});
