import assert from 'node:assert/strict';
import { test } from 'node:test';
import { admitInOpenMode, isLoopback } from '../lib/access.ts';
import type { Approach } from '../lib/access.ts';

const direct: Approach = { method: 'POST', peer: '127.0.0.1', httpVersion: '1.1', headers: { host: 'localhost:8443' } };
const withHeaders = (headers: Approach['headers']): Approach => ({ ...direct, headers: { ...direct.headers, ...headers } });

test('open mode: a peer on this machine that speaks for itself is let in', () => {
  for (const peer of ['127.0.0.1', '127.8.8.8', '::1', '::ffff:127.0.0.1']) admitInOpenMode({ ...direct, peer });
  for (const host of ['localhost', 'LOCALHOST:1', '127.0.0.1', '127.0.0.1:8443', '[::1]', '[::1]:8443']) admitInOpenMode(withHeaders({ host }));
  admitInOpenMode(withHeaders({ origin: 'https://localhost:8443', 'sec-fetch-site': 'same-origin' }));
  admitInOpenMode(withHeaders({ 'sec-fetch-site': 'none' }));
  admitInOpenMode({ ...withHeaders({ 'sec-fetch-site': 'cross-site' }), method: 'GET' });
});

test('open mode: whoever may be somebody else is kept out, and told the way', () => {
  const refused: [string, Approach][] = [
    ['another machine', { ...direct, peer: '192.0.2.1' }],
    ['another machine', { ...direct, peer: '::ffff:192.0.2.1' }],
    ['another machine', { ...direct, peer: undefined }],
    ['HTTP/1.0', { ...direct, httpVersion: '1.0' }],
    ['another host', withHeaders({ host: 'registrar.example' })],
    ['another host', withHeaders({ host: 'localhost.evil.example' })],
    ['another host', withHeaders({ host: '127.0.0.1.evil.example:8443' })],
    ['another host', withHeaders({ host: '127.0.0.2' })],
    ['another host', withHeaders({ host: undefined })],
    ['another host', withHeaders({ host: '' })],
    ...['forwarded', 'via', 'x-real-ip', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-anything', 'cf-connecting-ip', 'x-client-ip'].map(
      (name): [string, Approach] => [`"${name}"`, withHeaders({ [name]: '' })],
    ),
  ];
  for (const [why, approach] of refused) {
    assert.throws(() => admitInOpenMode(approach), (error: any) => {
      assert.equal(error.code, 'forbidden');
      assert.ok(error.message.includes(why), `${error.message}: ${why}`);
      assert.match(error.message, /curl -k/);
      return true;
    });
  }
});

test('open mode: a page of another site changes nothing', () => {
  const foreign = [
    { 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }, { origin: 'https://evil.example' }, { origin: 'null' },
    { origin: 'https://localhost:9999' },
  ];
  for (const headers of foreign) {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
      assert.throws(() => admitInOpenMode({ ...withHeaders(headers), method }), { code: 'forbidden' });
    }
  }
});

test('open mode: what is loopback, and what only looks like it', () => {
  for (const address of ['127.0.0.1', '127.255.0.3', '::1', 'localhost', '::FFFF:127.0.0.1']) assert.equal(isLoopback(address), true, address);
  for (const address of ['0.0.0.0', '::', '128.0.0.1', '1127.0.0.1', '127.0.0.1.example', '', '10.0.0.1']) {
    assert.equal(isLoopback(address), false, address);
  }
});
