/** Requests of every kind to one service, for tests of what its log and metrics say of them. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { adminToken } from './service.ts';
import type { Service } from './service.ts';

const password = 'correct horse battery';
const admin = { Authorization: `Bearer ${adminToken}` };

function basic(login: string, word = password): Record<string, string> {
  return { Authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` };
}

/** Good and bad sign-ins, each kind of principal, an unknown path, and a connection without a request. */
export async function exercise({ ask, url }: Service): Promise<void> {
  const register = { method: 'POST', body: { login: 'alice', password } };
  assert.equal((await ask('/user/', register)).status, 201);
  assert.equal((await ask('/user/', register)).status, 409);
  assert.equal((await ask('/user/alice', { headers: basic('alice') })).status, 200);
  assert.equal((await ask('/user/alice', { headers: basic('alice', 'wrong-secret') })).status, 401);
  assert.equal((await ask('/user/alice', { method: 'HEAD', headers: admin })).status, 200);
  assert.equal((await ask('/user/', { headers: { ...admin, Accept: 'application/x-ndjson' } })).status, 200);
  const { json } = await ask('/session', { method: 'POST', body: { login: 'alice', password } });
  const { headers } = await ask('/session', { method: 'POST', body: { login: 'alice', password, cookie: 'session' } });
  assert.equal((await ask('/session', { headers: { Authorization: `Bearer ${json.token}` } })).status, 200);
  assert.equal((await ask('/session', { headers: { Cookie: String(headers['set-cookie']).split(';')[0]! } })).status, 200);
  assert.equal((await ask('/secret-place?secret=query')).status, 404);
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  await once(socket, 'connect');
  socket.destroy();
}
