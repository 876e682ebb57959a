/**
 * One etcd member in memory, as far as the store uses its gateway: transactions and alarms. It executes one request after
 * the other, enforces the limit of operations, rejects duplicate keys, and omits default values from responses, as etcd
 * 3.4 does. The same suite runs on it and on a real cluster. It ends with its connections.
 */

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { EtcdServer } from './etcd-suites.ts';

interface Entry {
  readonly value: string;
  readonly created: number;
  readonly modified: number;
}

interface Compare { key: string; target: string; result: string; create_revision?: string; mod_revision?: string; value?: string }
interface Operation {
  request_put?: { key: string; value: string };
  request_range?: { key: string; range_end?: string; limit?: number };
  request_delete_range?: { key: string; range_end?: string };
  request_txn?: Transaction;
}
interface Transaction { compare?: Compare[]; success?: Operation[]; failure?: Operation[] }

const operationsMax = 128;

export interface FakeEtcd extends EtcdServer {
  readonly url: string;
  /** Responses to come instead of executing the request; undefined executes it. */
  respond: (path: string) => { readonly status: number; readonly body: string } | undefined;
}

export async function startFakeEtcd(): Promise<FakeEtcd> {
  const entries = new Map<string, Entry>();
  let revision = 1;

  /** Sorted by the bytes of the key, which are here one character each. */
  const keysIn = (key: string, end: string | undefined): string[] =>
    end === undefined ? [key].filter((one) => entries.has(one)) : [...entries.keys()].filter((one) => one >= key && one < end).sort();

  const holds = ({ key, target, result, create_revision = '0', mod_revision = '0', value }: Compare): boolean => {
    if (result !== 'EQUAL') throw new Error(`the fake does not know the result ${result}`);
    const entry = entries.get(bytes(key));
    if (target === 'CREATE') return String(entry?.created ?? 0) === create_revision;
    if (target === 'MOD') return String(entry?.modified ?? 0) === mod_revision;
    return entry !== undefined && entry.value === value;
  };

  const execute = ({ compare = [], success = [], failure = [] }: Transaction, next: number): Record<string, unknown> => {
    const succeeded = compare.every(holds);
    const responses = (succeeded ? success : failure).map((operation): Record<string, unknown> => {
      const { request_put: put, request_range: range, request_delete_range: removal, request_txn: transaction } = operation;
      if (put !== undefined) {
        const key = bytes(put.key);
        entries.set(key, { value: put.value, created: entries.get(key)?.created ?? next, modified: next });
        revision = next;
        return { response_put: { header: { revision: String(next) } } };
      }
      if (range !== undefined) {
        const found = keysIn(bytes(range.key), range.range_end === undefined ? undefined : bytes(range.range_end));
        const kvs = found.slice(0, range.limit).map((key) => {
          const { value, created, modified } = entries.get(key)!;
          const text = { key: Buffer.from(key, 'latin1').toString('base64'), create_revision: String(created), mod_revision: String(modified), version: '1' };
          return value === '' ? text : { ...text, value };
        });
        return { response_range: kvs.length === 0 ? { header: {} } : { header: {}, kvs, count: String(found.length) } };
      }
      if (removal !== undefined) {
        const found = keysIn(bytes(removal.key), removal.range_end === undefined ? undefined : bytes(removal.range_end));
        for (const key of found) entries.delete(key);
        if (found.length > 0) revision = next;
        return { response_delete_range: { header: {} } };
      }
      if (transaction !== undefined) return { response_txn: { header: {}, ...execute(transaction, next) } };
      throw new Error('the fake does not know this operation');
    });
    return { ...(succeeded ? { succeeded } : {}), ...(responses.length === 0 ? {} : { responses }) };
  };

  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const send = (status: number, body: string): void => void response.writeHead(status, { 'Content-Type': 'application/json' }).end(body);
    const path = request.url ?? '';
    const own = fake.respond(path);
    if (own !== undefined) return send(own.status, own.body);
    if (path === '/v3/maintenance/alarm') return send(200, '{"header":{"revision":"1"}}');
    if (path !== '/v3/kv/txn') return send(404, '404 page not found');
    const transaction: Transaction = JSON.parse(Buffer.concat(chunks).toString('utf8'));
    const problem = problemOf(transaction, operationsMax);
    if (problem !== undefined) return send(400, JSON.stringify({ error: `etcdserver: ${problem}`, code: 3 }));
    const result = execute(transaction, revision + 1);
    send(200, JSON.stringify({ header: { cluster_id: '1', member_id: '2', revision: String(revision), raft_term: '2' }, ...result }));
  });
  server.listen(0, '127.0.0.1').unref();
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const latin1 = (text: string): string => Buffer.from(text, 'utf8').toString('latin1');
  const fake: FakeEtcd = {
    url,
    endpoints: [url],
    respond: () => undefined,
    read: async (prefix) => new Map([...entries]
      .map(([key, { value }]) => [Buffer.from(key, 'latin1').toString('utf8'), Buffer.from(value, 'base64').toString('utf8')] as const)
      .filter(([key]) => key.startsWith(prefix)).sort(([a], [b]) => (a < b ? -1 : 1))),
    put: async (key, value) => {
      execute({ success: [{ request_put: { key: Buffer.from(key).toString('base64'), value: Buffer.from(value).toString('base64') } }] }, revision + 1);
    },
    removeAll: async (prefix) => {
      for (const key of [...entries.keys()]) if (key.startsWith(latin1(prefix))) entries.delete(key);
      revision++;
    },
  };
  return fake;
}

/** The bytes of a key, one character each. Unpadded base64 is an error of the caller. */
function bytes(base64: string): string {
  const decoded = Buffer.from(base64, 'base64');
  if (decoded.toString('base64') !== base64) throw new Error(`"${base64}" is not padded base64`);
  return decoded.toString('latin1');
}

function problemOf({ compare = [], success = [], failure = [] }: Transaction, left: number): string | undefined {
  const most = Math.max(compare.length, success.length, failure.length);
  if (most > left) return 'too many operations in txn request';
  for (const branch of [success, failure]) {
    const keys = branch.flatMap(({ request_put: put }) => put?.key ?? []);
    if (new Set(keys).size < keys.length) return 'duplicate key given in txn request';
    for (const { request_txn: transaction } of branch) {
      const problem = transaction === undefined ? undefined : problemOf(transaction, left - most);
      if (problem !== undefined) return problem;
    }
  }
  return undefined;
}
