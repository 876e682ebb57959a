/**
 * The listener: node:https with every limit set, since Node's own are 30 s to 5 min, and the way it ends.
 * It does not know what a request is about.
 */

import http from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { RegistrarError, messageOf, systemCode } from '../errors.ts';
import type { Certificate } from './certificate.ts';
import type { Handler } from './handler.ts';
import { newRequestId } from './handler.ts';
import { problem } from './problem.ts';

export const limits = {
  /** The timeouts below are looked at this often; Node's own 30 s would make them all 30 s. */
  connectionsCheckingInterval: 500,
  handshakeTimeout: 5_000,
  headersTimeout: 5_000,
  requestTimeout: 10_000,
  /** Longer than a proxy keeps idle connections by habit, so that it is the proxy that closes them. */
  keepAliveTimeout: 65_000,
  /** Nothing sent and nothing read: a client that does not take its answer. */
  socketTimeout: 30_000,
  maxHeaderSize: 8_192,
  maxHeadersCount: 64,
  maxRequestsPerSocket: 10_000,
  /** How long requests that are being answered may take when the service ends. */
  drainMs: 10_000,
} as const;

/** Mozilla's intermediate profile; TLS 1.3 has its own suites. */
const ciphers = [
  'TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

export interface ServerOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Undefined for plain HTTP. */
  readonly certificate: Certificate | undefined;
  readonly connectionsMax: number;
  readonly handler: Handler;
  readonly report: (line: string) => void;
}

export class HttpServer {
  readonly #server: Server;
  readonly #isSecure: boolean;
  /** Answers that have not been given yet. */
  readonly #open = new Set<ServerResponse>();
  #isDraining = false;

  private constructor(server: Server, isSecure: boolean) {
    this.#server = server;
    this.#isSecure = isSecure;
  }

  /** Listens. Throws `cannot-start` if the port is taken, the address is not ours, or it is not allowed. */
  static async listen(options: ServerOptions): Promise<HttpServer> {
    const { host, port, certificate, handler, connectionsMax } = options;
    const server = certificate === undefined ? plainServer() : secureServer(certificate);
    const made = new HttpServer(server, certificate !== undefined);
    server.maxHeadersCount = limits.maxHeadersCount;
    server.maxRequestsPerSocket = limits.maxRequestsPerSocket;
    server.maxConnections = connectionsMax;
    server.timeout = limits.socketTimeout;
    const serve = (request: IncomingMessage, response: ServerResponse, wantsContinue: boolean): void => {
      if (made.#isDraining) response.shouldKeepAlive = false;
      made.#open.add(response);
      response.once('close', () => made.#open.delete(response));
      void handler(request, response, wantsContinue);
    };
    server.on('request', (request, response) => serve(request, response, false));
    server.on('checkContinue', (request, response) => serve(request, response, true));
    server.on('checkExpectation', (_request, response) => refuseExpectation(response));
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => answerUnparsable(error, socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, () => {
        server.off('error', reject);
        resolve();
      });
    }).catch((cause: unknown) => {
      throw new RegistrarError('cannot-start', `Cannot listen on ${host} port ${port}: ${listenFailure(cause, port)}`, { cause });
    });
    server.on('error', (error) => options.report(`the listener failed: ${messageOf(error)}`));
    return made;
  }

  get url(): string {
    const { address, port, family } = this.#server.address() as AddressInfo;
    const host = family === 'IPv6' ? `[${address}]` : address;
    return `${this.#isSecure ? 'https' : 'http'}://${host}:${port}`;
  }

  /** Accepts nothing more, answers what is being asked, and resolves when every connection is closed. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    for (const response of this.#open) if (!response.headersSent) response.shouldKeepAlive = false;
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#server.closeAllConnections(), limits.drainMs);
    await closed;
    clearTimeout(timer);
  }
}

function plainServer(): Server {
  return http.createServer(serverOptions);
}

function secureServer({ cert, key }: Certificate): Server {
  return https.createServer({
    ...serverOptions,
    cert,
    key,
    ciphers,
    minVersion: 'TLSv1.2',
    handshakeTimeout: limits.handshakeTimeout,
    ALPNProtocols: ['http/1.1'],
  });
}

const serverOptions: http.ServerOptions = {
  connectionsCheckingInterval: limits.connectionsCheckingInterval,
  headersTimeout: limits.headersTimeout,
  requestTimeout: limits.requestTimeout,
  keepAliveTimeout: limits.keepAliveTimeout,
  maxHeaderSize: limits.maxHeaderSize,
  // The handler says so itself, with a problem.
  requireHostHeader: false,
  insecureHTTPParser: false,
  noDelay: true,
};

function refuseExpectation(response: ServerResponse): void {
  const error = new RegistrarError('expectation-failed', 'The only expectation that is met is 100-continue');
  const { status, headers, body } = problem(error, newRequestId());
  response.writeHead(status, { ...headers, Connection: 'close' }).end(body);
}

/** What is no HTTP, or comes too slowly, gets one answer, and its connection is closed. */
function answerUnparsable(error: NodeJS.ErrnoException, socket: Duplex): void {
  // An answer that was begun cannot be begun again; a TLS failure has nobody to be answered.
  if (!socket.writable || error.code === 'ECONNRESET' || !isParserError(error.code)) {
    socket.destroy();
    return;
  }
  const { status, headers, body } = problem(unparsable(error.code), newRequestId());
  const lines = Object.entries({ ...headers, 'Content-Length': Buffer.byteLength(String(body)), Connection: 'close' });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\n${head}\r\n${String(body)}`, () => socket.destroy());
}

function isParserError(code: string | undefined): boolean {
  return code !== undefined && (code.startsWith('HPE_') || code === 'ERR_HTTP_REQUEST_TIMEOUT');
}

function unparsable(code: string | undefined): RegistrarError {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return new RegistrarError('timeout', 'The request did not arrive in time');
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new RegistrarError('headers-too-large', `The headers are larger than ${limits.maxHeaderSize} bytes`);
  }
  return new RegistrarError('malformed', 'This is not a request of HTTP/1.1 as RFC 9112 has it');
}

function listenFailure(cause: unknown, port: number): string {
  const code = systemCode(cause);
  if (code === 'EADDRINUSE') return 'another program listens there: choose another with --port';
  if (code === 'EADDRNOTAVAIL') return 'this machine does not have that address: choose another with --host';
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'the host is not known: choose another with --host';
  if (code === 'EACCES') return `ports below 1024 are not for everybody: choose another than ${port} with --port`;
  return messageOf(cause);
}
