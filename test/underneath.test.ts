/** A hand in the data directory while services run: what they say, how they end, and that nothing is written elsewhere. */

import assert from 'node:assert/strict';
import { copyFileSync, linkSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { spawnService } from './helper/service.ts';
import type { Answer, RunningService } from './helper/service.ts';
import { temporaryDirectory, until } from './helper/temporary.ts';

const password = 'correct horse battery';

const register = ({ ask }: RunningService, login: string): Promise<Answer> => ask('/user/', { method: 'POST', body: { login, password } });

/** Two services on one directory: the first has written last and holds the lock. */
async function pair(t: TestContext, above: string): Promise<{ data: string; writer: RunningService; reader: RunningService }> {
  const data = join(above, 'data');
  mkdirSync(data);
  const [writer, reader] = [await spawnService(t, { data }), await spawnService(t, { data })];
  assert.equal((await register(reader, 'alice')).status, 201);
  assert.equal((await register(writer, 'bob')).status, 201);
  assert.equal((await reader.ask('/user/bob')).status, 200);
  return { data, writer, reader };
}

/** The exit code, or that it has not ended for a long time. */
function codeOf(service: RunningService): Promise<number | string> {
  return Promise.race([service.ended, new Promise<string>((resolve) => setTimeout(() => resolve('it goes on'), 20_000).unref())]);
}

const hands: readonly [name: string, act: (data: string) => void, left: readonly string[]][] = [
  ['deleted', (data) => rmSync(data, { recursive: true }), []],
  ['moved away', (data) => renameSync(data, `${data}.away`), ['data.away']],
  ['replaced by an empty one', (data) => (renameSync(data, `${data}.away`), mkdirSync(data)), ['data', 'data.away']],
];

for (const [name, act, left] of hands) {
  test(`underneath: a data directory that is ${name} ends whoever writes with an error, and nothing is written elsewhere`, async (t) => {
    const above = temporaryDirectory(t);
    const { data, writer, reader } = await pair(t, above);
    const before = readFileSync(join(data, 'users.jsonl'));
    act(data);
    for (const service of [writer, reader]) {
      const { status, text } = await register(service, 'carol');
      assert.equal(status, 503, text);
      assert.doesNotMatch(text, /registrar-/, 'no path of ours is told');
      assert.equal(await codeOf(service), 1, service.stderr());
      assert.match(service.stderr(), /was removed or replaced underneath\n$/);
    }
    assert.deepEqual(readdirSync(above).sort(), [...left].sort());
    if (left.includes('data')) assert.deepEqual(readdirSync(data), []);
    if (left.includes('data.away')) assert.ok(readFileSync(join(`${data}.away`, 'users.jsonl')).equals(before));
  });

  test(`underneath: reads from a data directory that is ${name} end the service too, and are never wrong`, async (t) => {
    const { data, writer, reader } = await pair(t, temporaryDirectory(t));
    act(data);
    for (const service of [writer, reader]) {
      // It looks once a second where its directory is; what it answers until then was so when the hand came.
      await until(async () => {
        const { status } = await service.ask('/user/bob').catch(() => ({ status: 0 }));
        assert.ok([200, 503, 0].includes(status), String(status));
        return status === 0;
      }, 'the service to end');
      assert.equal(await codeOf(service), 1, service.stderr());
    }
  });
}

test('underneath: a service whose directory was replaced takes no lock from those who work in the new one', async (t) => {
  const { data, writer, reader } = await pair(t, temporaryDirectory(t));
  renameSync(data, `${data}.away`);
  mkdirSync(data);
  copyFileSync(join(`${data}.away`, 'users.jsonl'), join(data, 'users.jsonl'));
  const fresh = await spawnService(t, { data });
  assert.equal((await register(fresh, 'carol')).status, 201);
  const before = readdirSync(join(data, 'users.jsonl.lock'));
  for (const service of [reader, writer]) {
    assert.equal((await register(service, 'dave')).status, 503);
    assert.equal(await codeOf(service), 1, service.stderr());
  }
  assert.deepEqual(readdirSync(join(data, 'users.jsonl.lock')), before);
  assert.equal((await register(fresh, 'erin')).status, 201);
  assert.equal((await fresh.ask('/user/dave')).status, 404);
});

test('underneath: a second name for the file while services run refuses whoever takes the lock next, and is healed by its removal', async (t) => {
  const above = temporaryDirectory(t);
  const { data, reader } = await pair(t, above);
  linkSync(join(data, 'users.jsonl'), join(above, 'copy.jsonl'));
  const { status, text } = await register(reader, 'carol');
  assert.ok(status >= 500, `${status} ${text}`);
  assert.match(reader.stderr(), /2 names \(hard links\)/);
  assert.equal((await reader.ask('/user/bob')).status, 200);
  rmSync(join(above, 'copy.jsonl'));
  assert.equal((await register(reader, 'carol')).status, 201);
});

test('underneath: a holder that hangs is waited for, then answered with 503, and named in the log with its pid', async (t) => {
  const { writer, reader } = await pair(t, temporaryDirectory(t));
  writer.child.kill('SIGSTOP');
  const answers = await Promise.all([register(reader, 'carol'), register(reader, 'dave')]);
  for (const { status, json, headers } of answers) {
    assert.deepEqual([status, json.type, headers['retry-after']], [503, 'urn:registrar:busy', '1']);
    assert.match(json.detail, new RegExp(`locked by process ${writer.child.pid},`));
  }
  assert.equal((await reader.ask('/user/bob')).status, 200);
  const named = reader.stderr().split('\n').filter((line) => line.includes(`locked by process ${writer.child.pid},`));
  assert.equal(named.length, 1, reader.stderr());
  writer.child.kill('SIGCONT');
  assert.equal((await register(reader, 'carol')).status, 201);
  assert.equal((await register(writer, 'dave')).status, 201);
});
