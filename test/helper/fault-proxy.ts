/** An HTTP proxy between a store and an etcd member that does to requests what networks do. It ends with its connections. */

import { once } from 'node:events';
import { createServer, request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * `lose-response`: the request is executed, and the connection is closed. `delay`: the connection is closed, and the request is
 * forwarded by `release`. `hang`: the request is not forwarded, and the connection stays open. An object is the response.
 */
export type Fault = 'none' | 'lose-response' | 'delay' | 'hang' | { readonly status: number; readonly body: string };

export interface ProxiedRequest {
  readonly path: string;
  readonly body: string;
  /** The authentication token. */
  readonly token: string | undefined;
}

export interface FaultProxy {
  readonly url: string;
  /** In the order in which they came. */
  readonly requests: ProxiedRequest[];
  /** Chooses the fault of each request; the request waits for it. */
  fault: (request: ProxiedRequest) => Fault | Promise<Fault>;
  /** Forwards the delayed requests. Resolves with their responses. */
  release(): Promise<string[]>;
}

export async function startFaultProxy(target: string): Promise<FaultProxy> {
  const delayed: (() => Promise<string>)[] = [];
  const forward = async (incoming: IncomingMessage, body: string): Promise<{ status: number; text: string } | undefined> => {
    const { 'content-type': type, authorization } = incoming.headers;
    const headers = { 'Content-Length': Buffer.byteLength(body), ...(type && { 'Content-Type': type }), ...(authorization && { Authorization: authorization }) };
    const request = httpRequest(target + incoming.url, { method: 'POST', agent: false, headers });
    request.end(body);
    // A killed member does not respond.
    const response: IncomingMessage | undefined = await once(request, 'response').then(([first]) => first, () => undefined);
    if (response === undefined) return undefined;
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    return { status: response.statusCode ?? 0, text };
  };
  const server = createServer(async (incoming, response) => {
    let body = '';
    for await (const chunk of incoming.setEncoding('utf8')) body += chunk;
    const request = { path: incoming.url ?? '', body, token: incoming.headers.authorization };
    proxy.requests.push(request);
    const fault = await proxy.fault(request);
    if (fault === 'hang') return;
    if (fault === 'delay') {
      delayed.push(async () => (await forward(incoming, body))?.text ?? '');
      return void incoming.socket.destroy();
    }
    if (typeof fault === 'object') return void response.writeHead(fault.status, { 'Content-Type': 'application/json' }).end(fault.body);
    const forwarded = await forward(incoming, body);
    if (forwarded === undefined || fault === 'lose-response') return void incoming.socket.destroy();
    response.writeHead(forwarded.status, { 'Content-Type': 'application/json' }).end(forwarded.text);
  });
  server.listen(0, '127.0.0.1').unref();
  await once(server, 'listening');
  const proxy: FaultProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: [],
    fault: () => 'none',
    release: () => Promise.all(delayed.splice(0).map((send) => send())),
  };
  return proxy;
}

/** Whether the request is a write of users: a transaction with a write token. */
export function isUserWrite({ path, body }: ProxiedRequest): boolean {
  return path === '/v3/kv/txn' && body.includes('"target":"MOD"') && readable(body).includes('/write/');
}

/** The body with its base64 decoded, to be searched by tests. */
export function readable(body: string): string {
  return body.replace(/"(key|value|range_end)":"([^"]*)"/g, (_, name: string, text: string) => `"${name}":${JSON.stringify(Buffer.from(text, 'base64').toString('utf8'))}`);
}
