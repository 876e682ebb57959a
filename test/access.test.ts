import assert from 'node:assert/strict';
import { test } from 'node:test';
import { admitInOpenMode, authorize, isLoopback, refuseOtherSites } from '../lib/access.ts';
import type { Action, Approach, Principal, Proof } from '../lib/access.ts';
import { RegistrarError } from '../lib/errors.ts';

const direct: Approach = { method: 'POST', peer: '127.0.0.1', httpVersion: '1.1', headers: { host: 'localhost:8443' } };
const withHeaders = (headers: Approach['headers']): Approach => ({ ...direct, headers: { ...direct.headers, ...headers } });

test('open mode: a peer on this machine that speaks for itself is let in', () => {
  for (const peer of ['127.0.0.1', '127.8.8.8', '::1', '::ffff:127.0.0.1']) admitInOpenMode({ ...direct, peer });
  for (const host of ['localhost', 'LOCALHOST:1', '127.0.0.1', '127.0.0.1:8443', '[::1]', '[::1]:8443']) admitInOpenMode(withHeaders({ host }));
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

test('a page of another site changes nothing, unless its origin is ours or is named', () => {
  const origins = { own: 'https://registrar.example', allowed: ['https://app.example', 'http://localhost:3000'] };
  const foreign: Approach['headers'][] = [
    { 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }, { origin: 'https://evil.example' }, { origin: 'null' }, { origin: '' },
    { origin: 'https://localhost:9999' }, { origin: 'https://app.example.evil.example' }, { origin: 'https://app.example:8443' },
    { origin: 'http://app.example' }, { origin: 'https://evil.example', 'sec-fetch-site': 'same-origin' },
  ];
  const ours: Approach['headers'][] = [
    {}, { 'sec-fetch-site': 'none' }, { 'sec-fetch-site': 'same-origin' }, { origin: 'https://localhost:8443', 'sec-fetch-site': 'same-origin' },
    { origin: 'http://localhost:8443' }, { origin: 'https://registrar.example' }, { origin: 'https://app.example', 'sec-fetch-site': 'cross-site' },
    { origin: 'http://localhost:3000', 'sec-fetch-site': 'same-site' },
  ];
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    for (const headers of foreign) {
      assert.throws(() => refuseOtherSites({ ...withHeaders(headers), method }, origins), { code: 'forbidden' }, JSON.stringify(headers));
    }
    for (const headers of ours) refuseOtherSites({ ...withHeaders(headers), method }, origins);
  }
  for (const method of ['GET', 'HEAD', 'OPTIONS']) {
    for (const headers of foreign) refuseOtherSites({ ...withHeaders(headers), method }, origins);
  }
});

/** Who asks; about the account of alice where it is about one. */
const user = (login: string, by: Proof): Principal => ({ kind: 'user', by, id: 7, login, version: 1, expires: undefined });
const principals = {
  local: { kind: 'local' },
  anyone: { kind: 'anyone' },
  admin: { kind: 'admin' },
  'alice by Basic': user('alice', 'basic'),
  'alice by Bearer': user('alice', 'bearer'),
  'alice by cookie': user('alice', 'cookie'),
  'bob by Basic': user('bob', 'basic'),
  'bob by Bearer': user('bob', 'bearer'),
  'bob by cookie': user('bob', 'cookie'),
} as const satisfies Record<string, Principal>;

/** Every cell: may (yes), has to say who it is (401), may not (403), in the order of the principals above. */
const yes = 'yes';
const table: readonly (readonly [Action, 'open' | 'admin', ...(readonly ('yes' | 401 | 403)[])])[] = [
  //                           local anyone admin  alice: Basic Bearer cookie  bob: Basic Bearer cookie
  ['public', 'open', yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['public', 'admin', yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['register', 'open', yes, yes, yes, yes, yes, 401, yes, yes, 401],
  ['register', 'admin', yes, 401, yes, 403, 403, 401, 403, 403, 401],
  ['list', 'open', yes, 401, yes, 403, 403, 401, 403, 403, 401],
  ['list', 'admin', yes, 401, yes, 403, 403, 401, 403, 403, 401],
  ['read', 'open', yes, 401, yes, yes, yes, 401, 403, 403, 401],
  ['read', 'admin', yes, 401, yes, yes, yes, 401, 403, 403, 401],
  ['change-password', 'open', yes, 401, yes, yes, yes, 401, 403, 403, 401],
  ['change-password', 'admin', yes, 401, yes, yes, yes, 401, 403, 403, 401],
  ['remove', 'open', yes, 401, yes, yes, 403, 401, 403, 403, 401],
  ['remove', 'admin', yes, 401, yes, yes, 403, 401, 403, 403, 401],
  ['open-session', 'open', yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['open-session', 'admin', yes, yes, yes, yes, yes, yes, yes, yes, yes],
  ['read-session', 'open', 401, 401, 403, yes, yes, yes, yes, yes, yes],
  ['read-session', 'admin', 401, 401, 403, yes, yes, yes, yes, yes, yes],
  ['end-session', 'open', 401, 401, 403, yes, yes, yes, yes, yes, yes],
  ['end-session', 'admin', 401, 401, 403, yes, yes, yes, yes, yes, yes],
  ['read-metrics', 'open', yes, 401, yes, 403, 403, 401, 403, 403, 401],
  ['read-metrics', 'admin', yes, 401, yes, 403, 403, 401, 403, 403, 401],
];

function decide(principal: Principal, action: Action, registration: 'open' | 'admin', login?: string): 'yes' | 401 | 403 {
  try {
    authorize(principal, action, { registration }, login);
    return yes;
  } catch (error) {
    assert.ok(error instanceof RegistrarError);
    assert.ok(error.code === 'unauthenticated' || error.code === 'forbidden', error.code);
    return error.code === 'unauthenticated' ? 401 : 403;
  }
}

for (const [action, registration, ...cells] of table) {
  test(`access: who may ${action}, with --registration ${registration}`, () => {
    const found = Object.values(principals).map((principal) => decide(principal, action, registration, 'alice'));
    assert.deepEqual(found, cells);
  });
}

test('access: where no login is named nobody is its owner, and what is not known is refused', () => {
  for (const action of ['read', 'change-password', 'remove'] as const) {
    assert.equal(decide(principals['alice by Basic'], action, 'open'), 403);
    assert.equal(decide(user('', 'basic'), action, 'open'), 403);
  }
  const unknown = 'shut-down' as Action;
  assert.equal(decide(principals['alice by Basic'], unknown, 'open', 'alice'), 403);
  assert.equal(decide(principals['alice by Bearer'], unknown, 'open', 'alice'), 403);
  assert.equal(decide(principals.anyone, unknown, 'open'), 401);
});

test('open mode: what is loopback, and what only looks like it', () => {
  for (const address of ['127.0.0.1', '127.255.0.3', '::1', 'localhost', '::FFFF:127.0.0.1']) assert.equal(isLoopback(address), true, address);
  for (const address of ['0.0.0.0', '::', '128.0.0.1', '1127.0.0.1', '127.0.0.1.example', '', '10.0.0.1']) {
    assert.equal(isLoopback(address), false, address);
  }
});
