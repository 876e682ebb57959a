/**
 * A disk that is really full: a small tmpfs, and a small ext4 in an image, as root. More rounds, and the promise
 * about time, with TRIALS=20. A service writes until there is no room, another one on the same directory reads
 * meanwhile, and both are held against a ledger of what was answered.
 */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { appendFileSync, closeSync, mkdirSync, openSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import type { TestContext } from 'node:test';
import { decodeMark, encodeMark } from '../lib/store/file/mark.ts';
import { cannotMount, mountNew, testIf } from './helper/possible.ts';
import type { FileSystemKind } from './helper/possible.ts';
import { readUsersFile, spawnService } from './helper/service.ts';
import type { Answer, RunningService } from './helper/service.ts';

const rounds = Number(process.env.TRIALS ?? 1);
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

  /** Whoever was stored before the question is there, whoever was refused before it is not. */
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

  /** The file ends with its last durable byte, and holds the stored and nobody else. */
  assertFile({ data, path }: Disk): void {
    const bytes = readFileSync(path);
    assert.equal(decodeMark(readFileSync(join(`${path}.lock`, 'durable')))?.end, bytes.length);
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
  testIf(cannotMount(kind, size), `disk full on ${kind}: 507, the file ends with its last durable byte, reads go on, writes heal, also after a restart`, async (t) => {
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
  // After a reboot somebody has to settle, which takes the lock: a full xfs refuses the start.
  if (kind === 'xfs') boots = ['the same'];
  for (const boot of boots) {
    testIf(cannotMount(kind, size), `disk full on ${kind}: a torn tail from ${boot} boot stays where it is, and is set aside when there is room`, async (t) => {
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
        const mark = decodeMark(readFileSync(markPath))!;
        assert.equal(mark.end, sound);
        if (boot === 'another') writeFileSync(markPath, encodeMark({ ...mark, boot: '0'.repeat(36) }), { flag: 'r+' });
        disk.fill(0);

        const services = await Promise.all([disk.spawn(), disk.spawn()]);
        for (const service of services) {
          await ledger.look(service);
          const answer = await ledger.register(service);
          assert.equal(answer.status, 507, answer.text);
          if (kind !== 'xfs') assert.match(answer.json.detail, /no room to set a torn tail aside: the store is read-only/);
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
