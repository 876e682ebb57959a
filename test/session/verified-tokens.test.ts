import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VerifiedTokens } from '../../lib/session/verified-tokens.ts';

const claims = { iss: 'i', sub: '17', preferred_username: 'alice', version: 3, iat: 1000, exp: 4600 };

test('verified-tokens: a token is known until it expires, another is not', () => {
  let seconds = 1000;
  const verified = new VerifiedTokens({ entriesMax: 10, now: () => new Date(seconds * 1000) });
  verified.remember('a.b.c', claims);
  assert.deepEqual([verified.get('a.b.c'), verified.get('a.b.d')], [claims, undefined]);
  seconds = 4599;
  assert.deepEqual(verified.get('a.b.c'), claims);
  seconds = 4600;
  assert.equal(verified.get('a.b.c'), undefined);
  assert.equal(verified.size, 0);
});

test('verified-tokens: it is bounded, and what is used least goes first', () => {
  const verified = new VerifiedTokens({ entriesMax: 10, now: () => new Date(1_000_000) });
  verified.remember('used', claims);
  for (let n = 0; n < 100; n++) {
    verified.remember(`${n}`, claims);
    assert.ok(verified.get('used'));
  }
  assert.equal(verified.size, 10);
});
