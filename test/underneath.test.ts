/** A hand in the data directory while services run: what they say, how they end, and that nothing is written elsewhere. */

import assert from 'node:assert/strict';
import { copyFileSync, linkSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { FileUserStore } from '../lib/store/file/store.ts';
import { spawnService } from './helper/service.ts';
import type { Answer, RunningService } from './helper/service.ts';
import { spawnStore } from './helper/store-process.ts';
import { temporaryDirectory, until } from './helper/temporary.ts';
import { candidate } from './helper/user-store-contract.ts';

const password = 'correct horse battery';

const register = ({ ask }: RunningService, login: string): Promise<Answer> => ask('/user/', { method: 'POST', body: { login, password } });

/** Two services on one directory: the first has written last and holds the lock. */
async function pair(t: TestContext, above: string): Promise<{ data: string; writer: RunningService; reader: RunningService }> {
  const data = join(above, 'data');
  mkdirSync(data);
  const [writer, reader] = await Promise.all([spawnService(t, { data }), spawnService(t, { data })]);
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
}

test('underneath: reads from a data directory that is moved away end the service too', async (t) => {
  const { data, writer, reader } = await pair(t, temporaryDirectory(t));
  renameSync(data, `${data}.away`);
  await Promise.all([writer, reader].map(async (service) => {
    // It looks once a second where its directory is; what it answers until then was so when the hand came.
    await until(async () => {
      const { status } = await service.ask('/user/bob').catch(() => ({ status: 0 }));
      assert.ok([200, 503, 0].includes(status), String(status));
      return status === 0;
    }, 'the service to end');
    assert.equal(await codeOf(service), 1, service.stderr());
  }));
});

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

test('underneath: a holder that hangs is waited for, and named in the log with its pid, once for all who wait', async (t) => {
  const path = join(temporaryDirectory(t), 'users.jsonl');
  const hanging = await spawnStore(t, path);
  const reports: string[] = [];
  const store = await FileUserStore.open({ path, lockWaitMsMax: 300, report: (line) => reports.push(line) });
  t.after(() => store.close());
  await hanging.tell({ do: 'create', logins: ['alice'] });
  hanging.child.kill('SIGSTOP');
  const named = new RegExp(`locked by process ${hanging.child.pid},`);
  const writes = ['bob', 'carol'].map((login) => assert.rejects(store.create(candidate(login)), { code: 'busy', message: named }));
  await Promise.all(writes);
  assert.equal((await store.find('alice'))?.login, 'alice');
  assert.equal(reports.length, 1);
  assert.match(reports[0]!, named);
  hanging.child.kill('SIGCONT');
  const outcome = async (): Promise<boolean> => store.create(candidate('bob')).then(() => true, () => false);
  await until(outcome, 'the lock to be handed over');
});
