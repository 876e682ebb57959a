/** System calls of the real service made to fail with strace(1): what it answers, how it ends, what the next start finds. */

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { spawnService } from '../helper/service.ts';
import type { RunningService } from '../helper/service.ts';
import { temporaryDirectory } from '../helper/temporary.ts';
import { trial, trialCount } from '../helper/trial.ts';

/** More of them with `make faults`. */
const trials = trialCount('TRIALS', 6);

interface Trial {
  readonly call: string;
  readonly error: string;
  /** Which calls of the kind fail, as strace counts them. */
  readonly when: string;
  /** The calls to this file alone, below the directory of the data. */
  readonly path?: string;
}

const file = 'users.jsonl';
const lock = 'users.jsonl.lock';
const times = [1, 2, 3, 5].flatMap((n) => [String(n), `${n}+`]);

/** The first are tried always: each of them is a way of its own. */
const all: readonly Trial[] = [
  { call: 'fdatasync', error: 'EIO', when: '4' },
  { call: 'pwrite64', error: 'ENOSPC', when: '2+', path: file },
  { call: 'pwrite64', error: 'EIO', when: '3', path: `${lock}/durable` },
  { call: 'fdatasync', error: 'ENOSPC', when: '5+' },
  { call: 'rename', error: 'EIO', when: '1' },
  { call: 'openat', error: 'EIO', when: '2', path: file },
  ...times.flatMap((when) =>
    ['EIO', 'ENOSPC'].flatMap((error) => [
      { call: 'fdatasync', error, when },
      { call: 'fsync', error, when },
      { call: 'pwrite64', error, when, path: file },
      { call: 'pwrite64', error, when, path: `${lock}/durable` },
      { call: 'ftruncate', error, when },
      { call: 'link', error, when },
      { call: 'rename', error, when },
      { call: 'symlink', error, when },
      { call: 'unlink', error, when },
      { call: 'openat', error, when, path: file },
      { call: 'openat', error, when, path: `${lock}/durable` },
    ]),
  ),
];

const body = (n: number) => ({ login: `user${n}`, password: 'correct horse battery staple' });

/** Asks a service whose calls fail for one thing after the other, and then one whose calls do not, what it has. */
async function tryOne(t: TestContext, { call, error, when, path }: Trial): Promise<string> {
  const data = temporaryDirectory(t);
  const what = `${call}:error=${error}:when=${when}`;
  // The count of strace is each thread's own, so one thread makes the calls that wait for the disk.
  const below = path === undefined ? [] : ['-P', join(data, path)];
  const strace = ['strace', '-f', '-qq', '--seccomp-bpf', '-o', '/dev/null', '-e', `trace=${call}`, '-e', `inject=${what}`, ...below];
  const before = ['env', 'UV_THREADPOOL_SIZE=1', ...(path === undefined ? strace : strace.filter((flag) => flag !== '--seccomp-bpf'))];
  const acknowledged = new Map<string, boolean>();
  const refused = new Set<string>();
  const statuses: number[] = [];
  const ask = async (service: RunningService, login: string, method: string, isThere: boolean, own?: unknown): Promise<void> => {
    const answer = await service.ask(own === undefined ? `/user/${login}` : '/user/', { method, ...(own === undefined ? {} : { body: own }) }).catch(() => undefined);
    if (answer === undefined) return void acknowledged.delete(login);
    statuses.push(answer.status);
    if (answer.status < 300) {
      acknowledged.set(login, isThere);
    } else if (answer.json?.type === 'urn:registrar:outcome-unknown') {
      acknowledged.delete(login);
    } else if (own !== undefined) {
      assert.ok([500, 503, 507].includes(answer.status), `${what}: ${answer.text}`);
      refused.add(login);
    }
  };
  let end: number | string = 'it did not start';
  try {
    const service = await spawnService(t, { data, before });
    for (let n = 0; n < 8; n++) {
      await ask(service, `user${n}`, 'POST', true, body(n));
      if (n === 4) await ask(service, 'user1', 'DELETE', false);
      // What is read meanwhile is right, if it is answered.
      for (const [login, isThere] of acknowledged) {
        const answer = await service.ask(`/user/${login}`).catch(() => undefined);
        if (answer !== undefined && answer.status < 500) assert.equal(answer.status, isThere ? 200 : 404, `${what}: ${login}`);
      }
    }
    service.terminate();
    end = await service.ended;
    if (call === 'fdatasync' && statuses.includes(503)) assert.notEqual(end, 0, `${what}: it ended as if all were well`);
  } catch (cause) {
    assert.match(String(cause), /the service ended with 1: registrar: /, `${what}: ${String(cause)}`);
  }
  const next = await spawnService(t, { data });
  for (const [login, isThere] of acknowledged) {
    const { status } = await next.ask(`/user/${login}`);
    assert.equal(status, isThere ? 200 : 404, `${what}: ${login} was acknowledged`);
  }
  for (const login of refused) assert.equal((await next.ask(`/user/${login}`)).status, 404, `${what}: ${login} was refused`);
  assert.equal((await next.ask('/user/', { method: 'POST', body: body(99) })).status, 201);
  next.terminate();
  assert.equal(await next.ended, 0);
  assert.ok(readFileSync(join(data, file)).at(-1) === 0x0a);
  const left = readdirSync(join(data, lock)).filter((name) => !/^(protocol-1|durable)$/.test(name));
  return `${what}${path === undefined ? '' : ` of ${path}`}: ${statuses.join(' ')}, ended with ${end}${left.length > 0 ? `, left ${left.length}` : ''}`;
}

trial('strace: whichever system call fails, no answer is false, and the next start is clean', { needs: ['strace'] }, async (t) => {
  const chosen = all.slice(0, trials);
  const done: string[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < chosen.length) done.push(await tryOne(t, chosen[next++]!));
  };
  await Promise.all([work(), work()]);
  for (const line of done) t.diagnostic(line);
  assert.equal(done.length, chosen.length);
});
