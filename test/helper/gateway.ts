/** What stands between a store and a member of etcd and does to requests what networks do to them. */

import { once } from 'node:events';
import { createServer, request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

/**
 * `lose`: it arrives, and its answer does not. `hold`: it is on its way until `release`, and nobody waits for it then.
 * `hang`: it arrives nowhere, and the connection stays. Anything else is answered as it says.
 */
export type Fate = 'pass' | 'lose' | 'hold' | 'hang' | { readonly status: number; readonly body: string };

export interface Asked {
  readonly path: string;
  readonly body: string;
  readonly token: string | undefined;
}

export interface Gateway {
  readonly url: string;
  /** What was asked, in order. */
  readonly asked: Asked[];
  /** What becomes of the next requests; it may wait before it says so. */
  fate: (asked: Asked) => Fate | Promise<Fate>;
  /** Lets go what is held, and resolves when all of it was answered. */
  release(): Promise<string[]>;
}

export async function startGateway(t: Pick<TestContext, 'after'>, target: string): Promise<Gateway> {
  const held: (() => Promise<string>)[] = [];
  const forward = async (incoming: IncomingMessage, body: string): Promise<{ status: number; text: string } | undefined> => {
    const { 'content-type': type, authorization } = incoming.headers;
    const headers = { 'Content-Length': Buffer.byteLength(body), ...(type && { 'Content-Type': type }), ...(authorization && { Authorization: authorization }) };
    const request = httpRequest(target + incoming.url, { method: 'POST', agent: false, headers });
    request.end(body);
    // Nothing comes back from a member that is killed.
    const response: IncomingMessage | undefined = await once(request, 'response').then(([first]) => first, () => undefined);
    if (response === undefined) return undefined;
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    return { status: response.statusCode ?? 0, text };
  };
  const server = createServer(async (incoming, response) => {
    let body = '';
    for await (const chunk of incoming.setEncoding('utf8')) body += chunk;
    const asked = { path: incoming.url ?? '', body, token: incoming.headers.authorization };
    gateway.asked.push(asked);
    const fate = await gateway.fate(asked);
    if (fate === 'hang') return;
    if (fate === 'hold') {
      held.push(async () => (await forward(incoming, body))?.text ?? '');
      return void incoming.socket.destroy();
    }
    if (typeof fate === 'object') return void response.writeHead(fate.status, { 'Content-Type': 'application/json' }).end(fate.body);
    const answer = await forward(incoming, body);
    if (answer === undefined || fate === 'lose') return void incoming.socket.destroy();
    response.writeHead(answer.status, { 'Content-Type': 'application/json' }).end(answer.text);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const gateway: Gateway = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: [],
    fate: () => 'pass',
    release: () => Promise.all(held.splice(0).map((go) => go())),
  };
  return gateway;
}

/** Whether it is a write of users: the transactions that carry a receipt. */
export function isWrite({ path, body }: Asked): boolean {
  return path === '/v3/kv/txn' && body.includes('"target":"MOD"') && decoded(body).includes('/receipt/');
}

/** The body with what is base64 in it made readable, for a test to look into. */
export function decoded(body: string): string {
  return body.replace(/"(key|value|range_end)":"([^"]*)"/g, (_, name: string, text: string) => `"${name}":${JSON.stringify(Buffer.from(text, 'base64').toString('utf8'))}`);
}
