import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Limits } from '../../lib/http/limits.ts';
import type { Counted } from '../../lib/http/limits.ts';

function client(address: string): Counted {
  return { client: address, standings: [] };
}

/** How often it is let in before it is refused. */
function count(act: () => void, max = 10_000): number {
  for (let n = 0; n < max; n++) {
    try {
      act();
    } catch (error: any) {
      assert.equal(error.code, 'rate-limited');
      assert.ok(error.retryAfterSeconds >= 1, String(error.retryAfterSeconds));
      return n;
    }
  }
  return max;
}

test('limits: guesses at a login are slowed, wherever they come from, and go on when time passes', () => {
  let now = 0;
  const limits = new Limits(() => now);
  let address = 0;
  const guess = (): void => void limits.attempt(client(`10.0.0.${address++}`), 'alice');
  assert.equal(count(guess), 20);
  assert.equal(count(() => limits.attempt(client('10.9.9.9'), 'bob'), 5), 5, 'another login is not meant');
  now += 30_000;
  assert.equal(count(guess), 1);
  now += 86_400_000;
  assert.equal(count(guess), 20);
});

test('limits: whoever was signed in from an address before is not locked out by guesses from others', () => {
  const limits = new Limits(() => 0);
  limits.attempt(client('192.0.2.1'), 'alice').succeed();
  let address = 0;
  count(() => limits.attempt(client(`10.0.0.${address++}`), 'alice'));
  assert.throws(() => limits.attempt(client('192.0.2.2'), 'alice'), { code: 'rate-limited' });
  limits.attempt(client('192.0.2.1'), 'alice').succeed();
  assert.equal(count(() => limits.attempt(client('192.0.2.1'), 'alice')), 20, 'an allowance of its own, and no more');
});

test('limits: a good password gives back what it took, a wrong one does not', () => {
  const limits = new Limits(() => 0);
  assert.equal(count(() => limits.attempt(client('192.0.2.1'), 'alice').succeed(), 1000), 1000);
  assert.equal(count(() => limits.attempt(client('192.0.2.1'), 'alice').giveBack(), 1000), 1000);
  assert.equal(count(() => limits.attempt(client('192.0.2.9'), 'alice')), 20);
});

test('limits: a client that tries many logins is stopped, and what was refused has taken nothing of others', () => {
  const limits = new Limits(() => 0);
  let login = 0;
  assert.equal(count(() => limits.attempt(client('192.0.2.1'), `user${login++}`)), 100);
  for (let n = 0; n < 100; n++) assert.throws(() => limits.attempt(client('192.0.2.1'), 'victim'), { code: 'rate-limited' });
  assert.equal(count(() => limits.attempt(client('192.0.2.2'), 'victim')), 20);
});

test('limits: registrations are counted for each client and in all', () => {
  const limits = new Limits(() => 0);
  assert.equal(count(() => limits.registration(client('192.0.2.1'))), 60);
  let address = 0;
  assert.equal(count(() => limits.registration(client(`10.0.0.${address++}`))), 600 - 60);
});

test('limits: requests are counted for a client, or for the user who is known, and the bearer of the admin token for neither', () => {
  const limits = new Limits(() => 0);
  const request = (address: string, login?: string | null): void => {
    const counted = client(address);
    limits.request(counted);
    if (login !== undefined) limits.prove(counted, login ?? undefined);
  };
  assert.equal(count(() => request('192.0.2.1', 'alice')), 3000);
  assert.equal(count(() => request('192.0.2.1', null), 5000), 5000);
  assert.equal(count(() => request('192.0.2.1')), 3000);
  assert.equal(count(() => request('192.0.2.2', 'bob'), 100), 100);
});

test('limits: what was counted stands ready for the answer, and a refusal alone where there is one', () => {
  const limits = new Limits(() => 0);
  const counted = client('192.0.2.1');
  limits.attempt(counted, 'alice');
  assert.deepEqual(counted.standings.map(({ policy, remaining }) => [policy.name, remaining]), [
    ['sign-in-failures', 99], ['sign-in-failures-of-login', 19],
  ]);
  count(() => limits.attempt(client('192.0.2.2'), 'alice'));
  assert.throws(() => limits.attempt(counted, 'alice'), { message: /Too many wrong passwords for this login: try again in 30 s/ });
  assert.deepEqual(counted.standings.map(({ policy, remaining }) => [policy.name, remaining]), [['sign-in-failures-of-login', 0]]);
});
