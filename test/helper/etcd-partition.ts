/**
 * Runs in a network namespace of its own, in which it may do as it likes: two members of etcd here and one in another
 * namespace, joined by a cable that is pulled, under load, and put back. Prints what came of it as JSON. Without arguments
 * it does nothing.
 */

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RegistrarError } from '../../lib/errors.ts';
import { EtcdUserStore } from '../../lib/store/etcd/etcd-user-store.ts';
import { Cluster } from './etcd-cluster.ts';
import type { Member } from './etcd-cluster.ts';
import { until } from './temporary.ts';
import { findViolations, runLoad } from './user-history.ts';

async function main(trials: number): Promise<void> {
  const ip = (...args: string[]): void => void execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });

  const directory = mkdtempSync(join(tmpdir(), 'registrar-etcd-'));
  /** Keeps the other namespace. */
  const keeper = spawn('unshare', ['--net', 'sh', '-c', 'echo ready; exec sleep 100000'], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => keeper.stdout.once('data', resolve));
  const inside = ['nsenter', '--net', '--target', String(keeper.pid)];
  ip('link', 'set', 'lo', 'up');
  ip('link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'there', 'netns', String(keeper.pid));
  ip('address', 'add', '192.0.2.1/24', 'dev', 'cable');
  ip('link', 'set', 'cable', 'up');
  const [nsenter = '', ...words] = inside;
  for (const args of [['link', 'set', 'lo', 'up'], ['address', 'add', '192.0.2.2/24', 'dev', 'there'], ['link', 'set', 'there', 'up']]) {
    execFileSync(nsenter, [...words, 'ip', ...args]);
  }

  // The store takes plain http for loopback only: what it asks here goes through a port of this machine, as through a tunnel.
  const tunnels: { close: () => void }[] = [];
  async function tunnel(to: string): Promise<string> {
    const { connect, createServer } = await import('node:net');
    const { hostname, port } = new URL(to);
    const server = createServer((near) => {
      const far = connect(Number(port), hostname);
      near.pipe(far).pipe(near);
      for (const [one, other] of [[near, far], [far, near]] as const) one.on('error', () => other.destroy()).on('close', () => other.destroy());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    tunnels.push(server);
    const address = server.address();
    return `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
  }

  const cluster = await Cluster.start({ directory, addresses: ['192.0.2.1', '192.0.2.1', '192.0.2.2'], before: [[], [], inside] });
  try {
    const lost = cluster.members[2]!;
    const urls = await Promise.all(cluster.endpoints.map(tunnel));
    const prefix = '/partition/';
    const stores = await Promise.all([1, 2, 3].map(() => EtcdUserStore.open({ endpoints: urls, prefix })));
    const lonely = await EtcdUserStore.open({ endpoints: [urls[2]!], prefix });
    let isOver = false;
    let isCut = false;
    const alone: string[] = [];
    const loading = runLoad(stores, { logins: Array.from({ length: 80 * trials }, (_, n) => `user${n}`), clients: 18, until: () => isOver });
    let recovered = 0;
    const pull = async (): Promise<void> => {
      ip('link', 'set', 'cable', 'down');
      isCut = true;
      // Long enough for an election, and for what is asked meanwhile to be rejected.
      for (let n = 0; n < 2; n++) {
        for (const ask of [() => lonely.findRecord('user0'), () => lonely.create({ login: `lonely${alone.length}`, registered: '', kdf: 'k', password: 'p' })]) {
          alone.push(await ask().then(() => 'success', (error: unknown) => (error instanceof RegistrarError ? error.code : String(error))));
        }
      }
      await until(async () => (await cluster.leaderOf(cluster.members[0]!)) !== undefined, 'the others have a leader');
      ip('link', 'set', 'cable', 'up');
      isCut = false;
      await until(() => lonely.findRecord('user0').then(() => true, () => false), 'the lost member is back', 60_000);
      recovered++;
      await cluster.ready();
    };
    for (let n = 0; n < trials; n++) {
      // The one that leads, and one that follows.
      await move(lost);
      await pull();
      await move(cluster.members[n % 2]!);
      await pull();
    }
    isOver = true;
    const { history, errors } = await loading;
    const known = ['unavailable to a read', 'unavailable to a write', 'outcome-unknown to a write'];
    const unexpected = [...errors.keys()].filter((name) => !known.includes(name));
    process.stdout.write(JSON.stringify({ violations: findViolations(history), errors: Object.fromEntries(errors), unexpected, alone, recovered, operations: history.length, isCut }));
    await Promise.all([...stores, lonely].map((store) => store.close()));
  } finally {
    await cluster.stop();
    for (const server of tunnels) server.close();
    keeper.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }

  /** Makes the member the leader. */
  async function move(member: Member): Promise<void> {
    await until(async () => {
      const leader = await cluster.leader();
      if (leader === member) return true;
      const { header } = await cluster.status(member);
      await cluster.ask('/v3/maintenance/transfer-leadership', { targetID: header.member_id }, leader).catch(() => undefined);
      return (await cluster.leader()) === member;
    }, 'the member leads');
  }
}

if (process.argv[2] !== undefined) {
  await main(Number(process.argv[2]));
  process.exit();
}
