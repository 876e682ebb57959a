import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { clientAddress, clientKey, parseTrustedProxies } from '../../lib/http/client-address.ts';
import type { TrustedProxies } from '../../lib/http/client-address.ts';

function trust(text: string): TrustedProxies {
  const parsed = parseTrustedProxies(text);
  assert.ok('addresses' in parsed, JSON.stringify(parsed));
  return parsed;
}

test('client-address: X-Forwarded-For counts as far as trusted hops have written it', () => {
  const rows: [trusted: string, peer: string | undefined, forwardedFor: string | undefined, client: string][] = [
    ['', '192.0.2.1', undefined, '192.0.2.1'],
    ['', '192.0.2.1', '198.51.100.7', '192.0.2.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7', '198.51.100.7'],
    ['127.0.0.1', '127.0.0.1', undefined, '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.2', '198.51.100.7', '127.0.0.2'],
    // What the client itself has written stands to the left.
    ['127.0.0.1', '127.0.0.1', '203.0.113.9, 198.51.100.7', '198.51.100.7'],
    ['127.0.0.1', '127.0.0.1', '127.0.0.1, 198.51.100.7', '198.51.100.7'],
    ['127.0.0.1, 10.0.0.0/8', '127.0.0.1', '203.0.113.9, 198.51.100.7, 10.1.2.3', '198.51.100.7'],
    ['127.0.0.1, 10.0.0.0/8', '127.0.0.1', '10.9.9.9,10.1.2.3', '10.9.9.9'],
    ['127.0.0.1', '127.0.0.1', 'unknown', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7, _hidden', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7,', '127.0.0.1'],
    ['127.0.0.1,10.0.0.0/8', '127.0.0.1', '198.51.100.7, rubbish, 10.0.0.1', '10.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7.example', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', '198.51.100.7:4711', '198.51.100.7'],
    ['127.0.0.1', '127.0.0.1', '[2001:db8::1]:4711', '2001:db8::1'],
    ['127.0.0.1', '127.0.0.1', '2001:DB8::1', '2001:db8::1'],
    // A dual-stack listener sees IPv4 peers as mapped ones.
    ['127.0.0.1', '::ffff:127.0.0.1', '198.51.100.7', '198.51.100.7'],
    ['127.0.0.0/8', '::ffff:7f00:1', '::ffff:198.51.100.7', '198.51.100.7'],
    ['::ffff:10.0.0.0/104', '10.3.0.1', '198.51.100.7', '198.51.100.7'],
    ['fd00::/8', 'fd12::1', '198.51.100.7', '198.51.100.7'],
    ['fd00::/8', 'fe80::1%eth0', '198.51.100.7', 'fe80::1'],
    ['::1', '::1', '198.51.100.7', '198.51.100.7'],
    ['unix', undefined, '198.51.100.7', '198.51.100.7'],
    ['unix', '', '198.51.100.7', '198.51.100.7'],
    ['127.0.0.1', undefined, '198.51.100.7', 'unix'],
    // Nobody is on our socket through a proxy.
    ['127.0.0.1,unix', '127.0.0.1', 'unix', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.1', `198.51.100.7${', 127.0.0.1'.repeat(1000)}`, '127.0.0.1'],
  ];
  for (const [trusted, peer, forwardedFor, client] of rows) {
    assert.equal(clientAddress(peer, forwardedFor, trust(trusted)), client, JSON.stringify([trusted, peer, forwardedFor]));
  }
});

test('client-address: what is no list of proxies is said', () => {
  for (const wrong of ['localhost', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0/8', 'fd00::/129', '::ffff:10.0.0.0/8', '10.0.0.0/-1', '1.2.3.4, all', '*', 'fe80::1%eth0']) {
    const parsed = parseTrustedProxies(wrong);
    assert.ok('problem' in parsed && parsed.problem.includes(wrong.split(', ').at(-1)!), wrong);
  }
  assert.ok('addresses' in parseTrustedProxies(' 10.0.0.0/8 ,, unix,::/0,0.0.0.0/0 '));
});

test('client-address: IPv4 is limited by the address, IPv6 by its /64, however it is spelt', () => {
  assert.equal(clientKey('192.0.2.1'), '192.0.2.1');
  assert.equal(clientKey('unix'), 'unix');
  const same = ['2001:db8:1:2::', '2001:db8:1:2:ffff:ffff:ffff:ffff', '2001:0db8:0001:0002::1', '2001:DB8:1:2::192.0.2.1'];
  assert.deepEqual([...new Set(same.map(clientKey))], ['2001:db8:1:2::/64']);
  assert.notEqual(clientKey('2001:db8:1:3::1'), clientKey('2001:db8:1:2::1'));
  assert.deepEqual(['::1', '::1.2.3.4', '::'].map(clientKey), Array.from({ length: 3 }, () => '0:0:0:0::/64'));
  assert.equal(clientKey('1::2:3:4:5:6'), '1:0:0:2::/64');
  assert.equal(clientKey('1:2:3:4:5:6:7:8'), '1:2:3:4::/64');
});

test('client-address: no header makes it anything but an address or "unix"', () => {
  const trusted = trust('127.0.0.1,10.0.0.0/8,unix');
  const alphabet = ['1', '255', '256', '.', ':', '::', ',', ' ', '[', ']', 'ffff', '%', 'x', '10.0.0.1', '127.0.0.1', '\t', '"', '0'];
  for (let n = 0; n < 20_000; n++) {
    const header = Array.from({ length: randomInt(12) }, () => alphabet[randomInt(alphabet.length)]).join('');
    const client = clientAddress('127.0.0.1', header, trusted);
    assert.match(client, /^(?:\d+\.\d+\.\d+\.\d+|[0-9a-f:]*:[0-9a-f:.]*)$/, JSON.stringify(header));
  }
});
