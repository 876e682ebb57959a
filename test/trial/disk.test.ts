/** Disks that are full, and directories that are moved, replaced or linked underneath a service. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { appendFileSync, closeSync, copyFileSync, linkSync, mkdirSync, openSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import type { TestContext } from 'node:test';
import { decodeDurableOffset, encodeDurableOffset } from '../../lib/store/file/durable-offset.ts';
import { FileUserStore } from '../../lib/store/file/file-user-store.ts';
import { cannotMount, mountNew } from '../helper/possible.ts';
import type { FileSystemKind } from '../helper/possible.ts';
import { cheap, readUsersFile, spawnService } from '../helper/service.ts';
import type { Answer, RunningService } from '../helper/service.ts';
import { spawnStore } from '../helper/store-process.ts';
import { temporaryDirectory, until } from '../helper/temporary.ts';
import { trial, trialCount } from '../helper/trial.ts';
import { newUser } from '../helper/user-store-contract.ts';

const rounds = trialCount('TRIALS', 1);
/** From the moment that there is room to the next write that is stored; a small test runs on machines that are busy otherwise. */
const healMsMax = rounds >= 10 ? 1_000 : 20_000;

const password = 'correct horse battery';
/** A full xfs makes no new name of a file, no lock and no socket. It is at least 300 MB large, so it comes in large trials alone. */
const kinds: readonly (readonly [kind: FileSystemKind, size: string])[] =
  rounds > 1 ? [['tmpfs', '4M'], ['ext4', '16M'], ['xfs', '320M']] : [['tmpfs', '4M'], ['ext4', '16M']];

interface Disk {
  readonly data: string;
  readonly path: string;
  /** Starts a service on it. */
  spawn(): Promise<RunningService>;
  /** Takes all the room but `left` bytes. */
  fill(left: number): void;
  /** Gives it back. */
  empty(): void;
}

function newDisk(t: TestContext, kind: FileSystemKind, size: string): Disk {
  const mounted = mountNew(kind, size);
  const cleanUp: (() => unknown)[] = [];
  t.after(async () => {
    for (const f of cleanUp) await f();
    mounted.remove();
  });
  const context = { after: (f: () => unknown) => void cleanUp.push(f) } as Pick<TestContext, 'after'>;
  const data = join(mounted.directory, 'data');
  mkdirSync(data, { mode: 0o700 });
  const ballast = join(mounted.directory, 'ballast');
  mkdirSync(ballast);
  const spare = join(mounted.directory, 'spare');
  return {
    data,
    path: join(data, 'users.jsonl'),
    spawn: () => spawnService(context, { data }),
    fill: (left) => {
      writeFileSync(spare, Buffer.alloc(left));
      const fd = openSync(join(ballast, 'large'), 'w');
      while (takes(() => writeSync(fd, Buffer.alloc(1 << 16, 'x'))));
      closeSync(fd);
      const flush = (): void => void spawnSync('sync', ['-f', mounted.directory]);
      flush();
      // ext4 keeps a few blocks back from a file whose books may need more of them, and gives them to small ones.
      for (let n = 0; takes(() => writeFileSync(join(ballast, `small${n}`), 'x')); n++);
      rmSync(spare);
      flush();
    },
    empty: () => readdirSync(ballast).forEach((name) => rmSync(join(ballast, name))),
  };
}

/** Whether there was room for it. */
function takes(write: () => void): boolean {
  try {
    write();
    return true;
  } catch (error) {
    assert.equal(error instanceof Error && 'code' in error && error.code, 'ENOSPC');
    return false;
  }
}

/** What was asked for and how it was answered. */
class Ledger {
  readonly stored = new Set<string>();
  readonly refused = new Set<string>();
  #asked = 0;

  /** Registers one more user; the answer is 201, or 507 and nothing else. */
  async register({ ask }: RunningService): Promise<Answer> {
    const login = `user${this.#asked++}`;
    const answer = await ask('/user/', { method: 'POST', body: { login, password } });
    assert.ok(answer.status === 201 || answer.status === 507, `${answer.status} ${answer.text}`);
    if (answer.status === 507) assert.equal(answer.json.type, 'urn:registrar:storage-full');
    (answer.status === 201 ? this.stored : this.refused).add(login);
    return answer;
  }

  /** Registers users until there is no room. */
  async fillUp(service: RunningService): Promise<void> {
    const one = async (): Promise<void> => {
      while ((await this.register(service)).status === 201);
    };
    await Promise.all(Array.from({ length: 8 }, one));
  }

  /** A user stored before the request exists, one refused before it does not. */
  async look({ ask }: RunningService): Promise<void> {
    const [stored, refused] = [[...this.stored], [...this.refused]];
    const list = await ask('/user/', { headers: { Accept: 'application/x-ndjson' } });
    assert.equal(list.status, 200, list.text);
    const there = new Set(list.text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line).login));
    for (const login of stored) assert.ok(there.has(login), `${login} is missed in the list`);
    for (const login of refused) assert.ok(!there.has(login), `${login} is shown, and was refused`);
    for (const [logins, status] of [[stored, 200], [refused, 404]] as const) {
      const login = logins[Math.floor(Math.random() * logins.length)];
      if (login !== undefined) assert.equal((await ask(`/user/${login}`)).status, status, login);
    }
  }

  /** The file ends with its last durable byte, and holds the stored users only. */
  assertFile({ data, path }: Disk): void {
    const bytes = readFileSync(path);
    assert.equal(decodeDurableOffset(readFileSync(join(`${path}.lock`, 'durable')))?.end, bytes.length);
    assert.equal(bytes.at(-1), 0x0a);
    assert.deepEqual(new Set(readUsersFile(data).slice(1).map(({ login }) => login)), this.stored);
  }
}

/** Resolves with how long it took until a write was stored. */
async function heal(ledger: Ledger, service: RunningService): Promise<number> {
  const began = performance.now();
  while ((await ledger.register(service)).status !== 201) {
    assert.ok(performance.now() - began < healMsMax, `there is room, and after ${healMsMax} ms nothing is stored`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - began;
}

async function end(service: RunningService, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  service.child.kill(signal);
  assert.equal(await service.ended, signal === 'SIGKILL' ? signal : 0);
}

for (const [kind, size] of kinds) {
  trial(`disk full on ${kind}: 507, the file ends with its last durable byte, reads go on, writes heal, also after a restart`, { cannot: () => cannotMount(kind, size) }, async (t) => {
    const healed: number[] = [];
    const sum = { stored: 0, refused: 0, looks: 0 };
    for (let round = 0; round < rounds; round++) {
      const disk = newDisk(t, kind, size);
      const ledger = new Ledger();
      const [first, reader] = await Promise.all([disk.spawn(), disk.spawn()]);
      let writer = first;
      for (let n = 0; n < 5; n++) await ledger.register(writer);
      disk.fill(40_000 + Math.floor(Math.random() * 40_000));

      let isFull = false;
      const reading = (async () => {
        for (; !isFull; sum.looks++) await ledger.look(reader);
      })();
      await ledger.fillUp(writer);
      isFull = true;
      await reading;
      ledger.assertFile(disk);
      for (const service of [writer, reader]) await ledger.look(service);
      // The other one takes the lock, and finds as little room.
      await ledger.fillUp(reader);
      ledger.assertFile(disk);
      for (const service of [writer, reader]) await ledger.look(service);

      // It ends in good order, or not, and is started again on a full disk.
      await end(writer, round % 2 === 0 ? 'SIGTERM' : 'SIGKILL');
      writer = await disk.spawn();
      await ledger.look(writer);
      await ledger.fillUp(writer);
      ledger.assertFile(disk);

      disk.empty();
      for (const service of [writer, reader]) healed.push(await heal(ledger, service));
      for (const service of [writer, reader]) await ledger.look(service);
      ledger.assertFile(disk);
      for (const service of [writer, reader]) assert.doesNotMatch(service.stderr(), /failed and the service is ending/);
      await end(writer, 'SIGTERM');
      await end(reader, 'SIGTERM');
      sum.stored += ledger.stored.size;
      sum.refused += ledger.refused.size;
    }
    t.diagnostic(
      `${rounds} times full: ${sum.stored} stored, ${sum.refused} refused, ${sum.looks} looks meanwhile; ` +
        `with room again the next write was stored after ${Math.max(...healed).toFixed(0)} ms at most`,
    );
  });

  // Few times, each kind has the half of it that is more to the point there: a mark in memory is of this boot.
  let boots = rounds > 1 ? ['the same', 'another'] : kind === 'tmpfs' ? ['the same'] : ['another'];
  // After a reboot a process has to recover, which takes the lock: a full xfs refuses the start.
  if (kind === 'xfs') boots = ['the same'];
  for (const boot of boots) {
    trial(`disk full on ${kind}: a torn tail from ${boot} boot stays where it is, and is quarantined when there is room`, { cannot: () => cannotMount(kind, size) }, async (t) => {
      const healed: number[] = [];
      for (let round = 0; round < rounds; round++) {
        const disk = newDisk(t, kind, size);
        const ledger = new Ledger();
        const first = await disk.spawn();
        for (let n = 0; n < 20; n++) await ledger.register(first);
        await end(first, 'SIGKILL');
        const sound = statSync(disk.path).size;
        const torn = '{"id":21,"login":"tor';
        appendFileSync(disk.path, torn);
        const markPath = join(`${disk.path}.lock`, 'durable');
        const mark = decodeDurableOffset(readFileSync(markPath))!;
        assert.equal(mark.end, sound);
        if (boot === 'another') writeFileSync(markPath, encodeDurableOffset({ ...mark, boot: '0'.repeat(36) }), { flag: 'r+' });
        disk.fill(0);

        const services = await Promise.all([disk.spawn(), disk.spawn()]);
        for (const service of services) {
          await ledger.look(service);
          const answer = await ledger.register(service);
          assert.equal(answer.status, 507, answer.text);
          if (kind !== 'xfs') assert.match(answer.json.detail, /no room to quarantine a torn tail: the store is read-only/);
          await ledger.look(service);
        }
        assert.equal(readFileSync(disk.path, 'latin1').slice(sound), torn);
        assert.deepEqual(readdirSync(disk.data).filter((name) => name.includes('.torn-')), []);

        disk.empty();
        for (const service of services) healed.push(await heal(ledger, service));
        for (const service of services) await ledger.look(service);
        ledger.assertFile(disk);
        const aside = readdirSync(disk.data).filter((name) => name.includes('.torn-'));
        assert.deepEqual(aside.map((name) => readFileSync(join(disk.data, name), 'latin1')), [torn]);
        for (const service of services) await end(service, 'SIGTERM');
      }
      t.diagnostic(`${rounds} times; with room again the next write was stored after ${Math.max(...healed).toFixed(0)} ms at most`);
    });
  }
}


const register = ({ ask }: RunningService, login: string): Promise<Answer> => ask('/user/', { method: 'POST', body: { login, password } });

/** Two services on one directory: the first has written last and holds the lock. */
async function pair(t: TestContext, above: string): Promise<{ data: string; writer: RunningService; reader: RunningService }> {
  const data = join(above, 'data');
  mkdirSync(data);
  // Without an audit log, whose last line may come later.
  const args = [...cheap, '--audit', 'off'];
  const [writer, reader] = await Promise.all([spawnService(t, { data, args }), spawnService(t, { data, args })]);
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
  trial(`underneath: a data directory that is ${name} ends the writer with an error, and nothing is written elsewhere`, async (t) => {
    const above = temporaryDirectory(t);
    const { data, writer, reader } = await pair(t, above);
    const before = readFileSync(join(data, 'users.jsonl'));
    act(data);
    for (const service of [writer, reader]) {
      const { status, text } = await register(service, 'carol');
      assert.equal(status, 503, text);
      assert.doesNotMatch(text, /registrar-/, 'no path of ours is told');
      assert.equal(await codeOf(service), 1, service.stderr());
      assert.match(service.stderr(), /was removed or replaced while it was in use\n$/);
    }
    assert.deepEqual(readdirSync(above).sort(), [...left].sort());
    if (left.includes('data')) assert.deepEqual(readdirSync(data), []);
    if (left.includes('data.away')) assert.ok(readFileSync(join(`${data}.away`, 'users.jsonl')).equals(before));
  });
}

trial('underneath: reads from a data directory that is moved away end the service too', async (t) => {
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

trial('underneath: a service whose directory was replaced takes no lock from those who work in the new one', async (t) => {
  const { data, writer, reader } = await pair(t, temporaryDirectory(t));
  renameSync(data, `${data}.away`);
  mkdirSync(data);
  copyFileSync(join(`${data}.away`, 'users.jsonl'), join(data, 'users.jsonl'));
  const fresh = await spawnService(t, { data });
  assert.equal((await register(fresh, 'carol')).status, 201);
  const before = readdirSync(join(data, 'users.jsonl.lock'));
  for (const service of [reader, writer]) {
    // The check of each second may have ended it already.
    const status = await register(service, 'dave').then((answer) => answer.status, () => 'ended');
    assert.ok([503, 'ended'].includes(status), `${status}`);
    assert.equal(await codeOf(service), 1, service.stderr());
  }
  assert.deepEqual(readdirSync(join(data, 'users.jsonl.lock')), before);
  assert.equal((await register(fresh, 'erin')).status, 201);
  assert.equal((await fresh.ask('/user/dave')).status, 404);
});

trial('underneath: a second name for the file while services run refuses the next process that takes the lock, until it is removed', async (t) => {
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

trial('underneath: a holder that hangs is waited for, and named in the log with its pid, once for all who wait', async (t) => {
  const path = join(temporaryDirectory(t), 'users.jsonl');
  const hanging = await spawnStore(t, path);
  const reports: string[] = [];
  const store = await FileUserStore.open({ path, lockWaitMsMax: 300, report: (line) => reports.push(line) });
  t.after(() => store.close());
  await hanging.tell({ do: 'create', logins: ['alice'] });
  hanging.child.kill('SIGSTOP');
  const named = new RegExp(`locked by process ${hanging.child.pid},`);
  const writes = ['bob', 'carol'].map((login) => assert.rejects(store.create(newUser(login)), { code: 'busy', message: named }));
  await Promise.all(writes);
  assert.equal((await store.findRecord('alice'))?.login, 'alice');
  assert.equal(reports.length, 1);
  assert.match(reports[0]!, named);
  hanging.child.kill('SIGCONT');
  const outcome = async (): Promise<boolean> => store.create(newUser('bob')).then(() => true, () => false);
  await until(outcome, 'the lock to be handed over');
});
