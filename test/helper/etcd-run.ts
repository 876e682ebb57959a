/**
 * Runs an etcd cluster of three members on loopback, to try Registrar on: `make etcd`. The data is in the directory that is
 * given, or in a temporary one. Ctrl-C ends it. Not for production: members on one machine fail together. Without the
 * argument `run` it does nothing.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Cluster } from './etcd-cluster.ts';
import { isInstalled } from './trial.ts';

async function run(kept: string | undefined): Promise<void> {
  if (!isInstalled('etcd')) {
    process.stderr.write('make etcd: etcd is not installed. Install it, on Debian with: apt-get install etcd-server\n');
    process.exit(1);
  }
  const directory = kept === undefined ? mkdtempSync(join(tmpdir(), 'registrar-etcd-')) : resolve(kept);
  mkdirSync(directory, { recursive: true, mode: 0o700 });

  let isEnding = false;
  const end = async (): Promise<void> => {
    if (isEnding) return;
    isEnding = true;
    await Promise.all(cluster.members.map((member) => cluster.kill(member, 'SIGTERM')));
    if (kept === undefined) rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
    process.exit();
  };

  const cluster = await Cluster.start({ directory, ports: [2379, 22379, 32379, 2380, 22380, 32380], args: ['--auto-compaction-retention', '1h'] });
  process.on('SIGINT', () => void end());
  process.on('SIGTERM', () => void end());
  process.stdout.write(`Three etcd members store their data in ${directory}${kept === undefined ? ', which is removed at the end' : ''}. Try:\n\n`);
  process.stdout.write(`  make run ARGS="--open --etcd ${cluster.endpoints.join(',')}"\n`);
  process.stdout.write(`  make run ARGS="--open --port 8444 --etcd ${cluster.endpoints.join(',')}"\n\n`);
  process.stdout.write('and kill a member:\n\n');
  for (const { name, child } of cluster.members) process.stdout.write(`  kill -9 ${child?.pid}   # ${name}\n`);
  process.stdout.write('\nCtrl-C ends the cluster.\n');
  for (const { name, child } of cluster.members) {
    // Ctrl-C reaches the members as well, and may be first.
    child?.once('exit', () => setTimeout(() => {
      if (!isEnding) process.stderr.write(`make etcd: ${name} has ended. Two of three members serve requests, one does not.\n`);
    }, 200));
  }
}

if (process.argv[2] === 'run') await run(process.argv[3]);
