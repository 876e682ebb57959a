import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { row } from '../bench/figures.ts';
import { certificates } from '../helper/service.ts';
import { childEnvironment, loader, root, temporaryDirectory } from '../helper/temporary.ts';
import { trial } from '../helper/trial.ts';

interface Ended {
  readonly code?: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function bench(t: TestContext, ...flags: string[]): Promise<Ended & { data: string }> {
  const data = temporaryDirectory(t);
  const args = [...loader, 'test/bench/bench.ts', 'run', '--data', data, '--certs', certificates(), ...flags];
  const ended: Ended = await promisify(execFile)(process.execPath, args, { cwd: root, env: childEnvironment() }).catch((error: unknown) => error as Ended);
  return { ...ended, data };
}

trial('bench: it measures, checks what was answered against the file, and leaves nothing behind', async (t) => {
  const only = 'get,create-many,change-many,basic,open,memory,export';
  const { code, stdout, stderr, data } = await bench(t, '--rounds', '1', '--seconds', '0.2', '--users', '2000', '--only', only);
  assert.equal(code, undefined, stderr);
  for (const name of only.split(',')) assert.match(stdout, new RegExp(`^${name} +[\\d.,]+ \\S+,? .*  (?:yes|no)$`, 'm'));
  assert.match(stdout, /\nAll checks hold; the files say what [1-9]\d* answers to writes said\.\n/);
  assert.deepEqual(readdirSync(data), []);
});

trial('bench: a cluster is measured where it is asked for, and every user that was told of is in it', { needs: ['etcd'] }, async (t) => {
  const only = 'etcd-find,etcd-create,etcd-create-2';
  const { code, stdout, stderr } = await bench(t, '--rounds', '1', '--seconds', '0.3', '--users', '1000', '--only', only);
  assert.equal(code, undefined, stderr);
  for (const name of only.split(',')) assert.match(stdout, new RegExp(`^${name} +[\\d.,]+ /s `, 'm'));
});

trial('bench: flags that mean nothing are exit code 2', async (t) => {
  for (const flags of [['--users', '10'], ['--seconds', '0'], ['--only', 'get,nothing'], ['--what']]) {
    const { code, stderr } = await bench(t, ...flags);
    assert.equal(code, 2, flags.join(' '));
    assert.match(stderr, /^bench: /);
  }
});

trial('bench: a figure is held against its mark from the right side', () => {
  const turn = async (): Promise<never> => assert.fail();
  const sides = { unit: '/s', service: turn, baseline: turn } as const;
  const turns = [[{ value: 10 }, { value: 5 }], [{ value: 9 }, { value: 3 }], [{ value: 4 }, { value: 4 }]] as const;
  assert.deepEqual(row('x', { ...sides, mark: 2 }, turns), ['x', '9 /s', '4 /s', '2.000', '1.00..3.00', '>= 2', 'yes']);
  assert.deepEqual(row('x', { ...sides, mark: 1.9, isMost: true }, turns).slice(3), ['2.000', '1.00..3.00', '<= 1.9', 'no']);
  assert.deepEqual(row('x', { ...sides, by: 'difference', mark: 5, isMost: true }, turns).slice(3), ['5.00', '0.00..6.00', '<= 5', 'yes']);
  assert.deepEqual(row('x', { unit: 'MB/s', service: turn }, [[{ value: 7, rssMb: 90 }, undefined]]), ['x', '7 MB/s, rss 90 MB', '-', '7.000', '7.00..7.00', '-', '-']);
});
