/**
 * An etcd cluster of three members on loopback, to try Registrar on: `make etcd`. Its data is in a temporary
 * directory, or in the one that is named. Ctrl-C ends it. Not for production: three members of one machine fail together.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Cluster, withoutEtcd } from '../helper/etcd-cluster.ts';

if (withoutEtcd !== false) {
  process.stderr.write('make etcd: there is no etcd here: install it (Debian: apt-get install etcd-server)\n');
  process.exit(1);
}
const kept = process.argv[2];
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
process.stdout.write(`Three members of etcd keep their data in ${directory}${kept === undefined ? ', which goes with them' : ''}. Try:\n\n`);
process.stdout.write(`  make run ARGS="--etcd ${cluster.endpoints.join(',')}"\n`);
process.stdout.write(`  make run ARGS="--port 8444 --etcd ${cluster.endpoints.join(',')}"\n\n`);
process.stdout.write('and kill one of them:\n\n');
for (const { name, child } of cluster.members) process.stdout.write(`  kill -9 ${child?.pid}   # ${name}\n`);
process.stdout.write('\nCtrl-C ends them.\n');
for (const { name, child } of cluster.members) {
  // Ctrl-C reaches them, too, and perhaps sooner.
  child?.once('exit', () => setTimeout(() => {
    if (!isEnding) process.stderr.write(`make etcd: ${name} has ended: two of three go on, one of three does not\n`);
  }, 200));
}
