import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import https from 'node:https';
import { join } from 'node:path';
import { test } from 'node:test';
import { encodeHeader, encodeUser } from '../../lib/store/file/record.ts';
import { cheap, openService, spawnService } from '../helper/service.ts';
import { temporaryDirectory, until } from '../helper/temporary.ts';
import { candidate } from '../helper/user-store-contract.ts';

const users = 60_000;

/** A file as compaction would leave it: each line a batch of its own. */
function fill(directory: string, users: number): void {
  const seed = 7;
  const lines = [encodeHeader({ version: 1, created: 'x', nextId: 1, seed })];
  let offset = lines[0]!.length;
  for (let id = 1; id <= users; id++) {
    const line = encodeUser({ id, version: 1, ...candidate(`user${id}`) }, offset, seed);
    lines.push(line);
    offset += line.length;
  }
  writeFileSync(join(directory, 'users.jsonl'), Buffer.concat(lines));
}

test('stream: a slow reader of everybody holds nothing up and takes no memory, and gets everybody', { skip: process.platform !== 'linux' }, async (t) => {
  const data = temporaryDirectory(t);
  fill(data, users);
  const { ask, url, child } = await spawnService(t, { data });
  assert.equal((await ask(`/user/user${users}`)).json.id, users);
  const request = https.request(new URL('/user/', url), { headers: { Accept: 'application/x-ndjson' }, rejectUnauthorized: false });
  request.end();
  const [response] = await once(request, 'response');
  response.pause();
  // While it reads nothing, the service must wait for it: what it has sent fits into buffers of the kernel.
  for (let n = 0; n < 200; n++) assert.equal((await ask('/user/user1')).status, 200);
  const { socket } = response;
  assert.ok(socket.bytesRead < 6_000_000, `${socket.bytesRead} bytes came unasked`);
  let count = 0;
  for await (const chunk of response) for (const byte of chunk) if (byte === 0x0a) count++;
  assert.equal(count, users);

  // One that goes in the middle leaves nothing running.
  const leaving = https.request(new URL('/user/', url), { headers: { Accept: 'application/x-ndjson' }, rejectUnauthorized: false });
  leaving.on('error', () => undefined);
  leaving.end();
  const [first] = await once(leaving, 'response');
  first.on('error', () => undefined);
  await once(first, 'data');
  leaving.destroy();
  await until(async () => (await ask('/user/user2')).status === 200, 'an answer');
  child.kill('SIGTERM');
});

test('stream: everybody is more than a page of the store, each once and in order', async (t) => {
  const data = temporaryDirectory(t);
  fill(data, 2_500);
  const { ask } = await openService(t, [...cheap, '--data', data]);
  const { text } = await ask('/user/', { headers: { Accept: 'application/x-ndjson' } });
  const ids = text.trimEnd().split('\n').map((line) => JSON.parse(line).id);
  assert.deepEqual(ids, Array.from({ length: 2_500 }, (_, n) => n + 1));
});
