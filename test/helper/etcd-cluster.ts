/** A cluster of etcd on loopback, real processes, and the certificates that it can use. */

import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EtcdServer } from './etcd-suites.ts';
import { freePorts, until } from './temporary.ts';

export interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly clientCert: string;
  readonly clientKey: string;
}

/** Paths of PEM files in the directory. */
export function makeCertificates(directory: string): Certificates {
  const at = (name: string): string => join(directory, name);
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'pipe', timeout: 20_000 });
  const newKey = (name: string): void => openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-out', at(name));
  newKey('ca-key.pem');
  openssl('req', '-x509', '-new', '-key', at('ca-key.pem'), '-days', '2', '-subj', '/CN=authority', '-out', at('ca.pem'));
  const sign = (name: string, subject: string, extensions: string): void => {
    newKey(`${name}-key.pem`);
    writeFileSync(at(`${name}.ext`), extensions);
    openssl('req', '-new', '-key', at(`${name}-key.pem`), '-subj', subject, '-out', at(`${name}.csr`));
    openssl('x509', '-req', '-in', at(`${name}.csr`), '-CA', at('ca.pem'), '-CAkey', at('ca-key.pem'), '-CAcreateserial', '-days', '2', '-extfile', at(`${name}.ext`), '-out', at(`${name}.pem`));
  };
  // The gateway of a member speaks to the member itself as a client, with the member's own certificate.
  sign('member', '/CN=member', 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n');
  // etcd's gateway takes no client certificate with a common name when users have to prove themselves.
  sign('client', '/O=registrar', 'subjectAltName=DNS:registrar\nextendedKeyUsage=clientAuth\n');
  return { ca: at('ca.pem'), cert: at('member.pem'), key: at('member-key.pem'), clientCert: at('client.pem'), clientKey: at('client-key.pem') };
}

export interface Member {
  readonly name: string;
  readonly url: string;
  readonly peerUrl: string;
  child: ChildProcess | undefined;
}

export interface ClusterOptions {
  readonly members?: number;
  /** More flags for every member. */
  readonly args?: readonly string[];
  /** PEM files: the members speak TLS to clients, and ask for their certificates. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string };
  /** For the test's own requests. */
  readonly client?: { readonly ca: Buffer; readonly cert: Buffer; readonly key: Buffer };
  /** Where it keeps its data; a directory that goes with the cluster by default. */
  readonly directory?: string;
  /** What comes before the program of each member, as in `ip netns exec x`, and the address it has. */
  readonly before?: readonly (readonly string[])[];
  readonly addresses?: readonly string[];
  /** For clients, then for each other; free ones by default. */
  readonly ports?: readonly number[];
}

/** A process that ends before it has stopped its clusters leaves nothing either. */
const running = new Set<ChildProcess>();
const directories = new Set<string>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const directory of directories) rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
});

export class Cluster implements EtcdServer {
  readonly members: readonly Member[];
  readonly directory: string;
  readonly #options: ClusterOptions;

  private constructor(members: readonly Member[], directory: string, options: ClusterOptions) {
    this.members = members;
    this.directory = directory;
    this.#options = options;
  }

  /** Starts it and waits until it has a leader. `stop` it. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const directory = options.directory ?? mkdtempSync(join(tmpdir(), 'registrar-etcd-'));
    if (options.directory === undefined) directories.add(directory);
    const count = options.members ?? 3;
    const ports = options.ports ?? (await freePorts(count * 2));
    const scheme = options.tls === undefined ? 'http' : 'https';
    const members = Array.from({ length: count }, (_, n): Member => {
      const address = options.addresses?.[n] ?? '127.0.0.1';
      return { name: `member-${n + 1}`, url: `${scheme}://${address}:${ports[n]}`, peerUrl: `http://${address}:${ports[count + n]}`, child: undefined };
    });
    const cluster = new Cluster(members, directory, options);
    for (const member of members) cluster.launch(member);
    try {
      await cluster.ready();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  /** Kills all members and removes what they kept. */
  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => this.kill(member)));
    if (this.#options.directory !== undefined) return;
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
    directories.delete(this.directory);
  }

  get endpoints(): string[] {
    return this.members.map(({ url }) => url);
  }

  /** Starts a member, anew with what it kept. Does not wait. */
  launch(member: Member): void {
    const { tls, args = [], before = [] } = this.#options;
    const flags = [
      '--name', member.name, '--data-dir', join(this.directory, member.name),
      '--listen-client-urls', member.url, '--advertise-client-urls', member.url,
      '--listen-peer-urls', member.peerUrl, '--initial-advertise-peer-urls', member.peerUrl,
      '--initial-cluster', this.members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(','),
      '--initial-cluster-state', 'new', '--initial-cluster-token', this.directory,
      '--logger', 'zap', '--log-level', 'warn',
      ...(tls === undefined ? [] : ['--cert-file', tls.cert, '--key-file', tls.key, '--trusted-ca-file', tls.ca, '--client-cert-auth']),
      ...args,
    ];
    const [program = '', ...words] = [...(before[this.members.indexOf(member)] ?? []), 'etcd', ...flags];
    const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.pipe(createWriteStream(join(this.directory, `${member.name}.log`), { flags: 'a' }));
    member.child = child;
    running.add(child);
    child.once('exit', () => running.delete(child));
  }

  async kill(member: Member, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const { child } = member;
    if (child === undefined) return;
    member.child = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGCONT');
    child.kill(signal);
    await ended;
  }

  /** Waits until so many members agree on a leader. */
  async ready(count = this.members.length): Promise<void> {
    await until(async () => {
      for (const { name, child } of this.members) {
        if (child !== undefined && child.exitCode !== null) throw new Error(`${name} has ended: ${readFileSync(join(this.directory, `${name}.log`), 'utf8')}`);
      }
      const found = await Promise.all(this.members.map((member) => this.leaderOf(member)));
      const leaders = found.filter((leader) => leader !== undefined);
      return leaders.length >= count && new Set(leaders).size === 1;
    }, 'a cluster with a leader', 30_000);
  }

  /** The member that leads now, as itself says. */
  async leader(): Promise<Member> {
    for (;;) {
      for (const member of this.members) {
        const status = member.child && (await this.status(member));
        if (status !== undefined && status.leader === status.header.member_id) return member;
      }
    }
  }

  async leaderOf(member: Member): Promise<string | undefined> {
    const leader = (await this.status(member))?.leader;
    return leader === '0' ? undefined : leader;
  }

  async status(member: Member): Promise<any> {
    return this.ask('/v3/maintenance/status', {}, member).catch(() => undefined);
  }

  /** Straight to the gateway. Rejects if it says no. */
  async ask(path: string, body: unknown, member = this.members[0]!, headers: Readonly<Record<string, string>> = {}): Promise<any> {
    const text = JSON.stringify(body);
    const request = (this.#options.tls === undefined ? httpRequest : httpsRequest)(member.url + path, {
      method: 'POST', agent: false, timeout: 10_000, ...this.#options.client,
      headers: { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text), ...headers },
    });
    request.on('timeout', () => request.destroy(new Error(`${path} was not answered`)));
    request.end(text);
    const [response] = await once(request, 'response');
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    const answer = Buffer.concat(chunks).toString('utf8');
    if (response.statusCode !== 200) throw new Error(`${path}: ${response.statusCode} ${answer}`);
    return JSON.parse(answer);
  }

  /** What is under the keys that begin so, by key. */
  async read(prefix: string): Promise<Map<string, string>> {
    const end = Buffer.from(prefix);
    end[end.length - 1]!++;
    const { kvs = [] } = await this.ask('/v3/kv/range', { key: Buffer.from(prefix).toString('base64'), range_end: end.toString('base64') });
    const text = (base64 = ''): string => Buffer.from(base64, 'base64').toString('utf8');
    return new Map(kvs.map(({ key, value }: { key: string; value?: string }) => [text(key), text(value)]));
  }

  async put(key: string, value: string): Promise<void> {
    await this.ask('/v3/kv/put', { key: Buffer.from(key).toString('base64'), value: Buffer.from(value).toString('base64') });
  }

  async removeAll(prefix: string): Promise<void> {
    const end = Buffer.from(prefix);
    end[end.length - 1]!++;
    await this.ask('/v3/kv/deleterange', { key: Buffer.from(prefix).toString('base64'), range_end: end.toString('base64') });
  }
}
