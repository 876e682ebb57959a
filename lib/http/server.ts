/**
 * The listener: node:https with every limit set, since Node's own are 30 s to 5 min, and the way it ends.
 * It does not know what a request is about.
 */

import { constants } from 'node:crypto';
import http from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import https from 'node:https';
import { Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { SecureContextOptions } from 'node:tls';
import { RegistrarError, messageOf } from '../errors.ts';
import type { Certificate } from './certificate.ts';
import type { Expectation, Handler } from './handler.ts';
import { newRequestId } from './handler.ts';
import { listen } from './listen.ts';
import type { ListenAddress } from './listen.ts';
import { problem } from './problem.ts';
import { everyHeader, lingerMs } from './send.ts';

export const limits = {
  /** The timeouts below are looked at this often; Node's own 30 s would make them all 30 s. */
  connectionsCheckingInterval: 500,
  handshakeTimeout: 5_000,
  headersTimeout: 5_000,
  requestTimeout: 10_000,
  /** Longer than a proxy keeps idle connections by habit, so that it is the proxy that closes them. */
  keepAliveTimeout: 65_000,
  /** Nothing sent and nothing read: a client that does not take its answer. Longer than a hash may have to wait. */
  socketTimeout: 12_000,
  maxHeaderSize: 8_192,
  /** After so many a connection is closed: it bounds what a leak could cost. */
  requestsPerConnectionMax: 10_000,
  /** Idle connections are closed so often at most, where others are refused. */
  roomIntervalMs: 1_000,
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
  readonly at: ListenAddress;
  /** Undefined for plain HTTP. */
  readonly certificate: Certificate | undefined;
  readonly connectionsMax: number;
  readonly handler: Handler;
  /** Told of an answer to what is no HTTP, or came too slowly. */
  readonly onUnparsable?: (id: string, status: number) => void;
  readonly report: (line: string) => void;
  /** For a test that does not wait so long. */
  readonly socketTimeoutMs?: number;
}

/** A connection has one request at a time, and none behind the last. */
interface Connection {
  /** The answer that is not handed over yet, or was in this turn of the event loop. */
  current: ServerResponse | undefined;
  /** The last answer; it is closed when the kernel has all of it, and of those before. */
  last: ServerResponse | undefined;
  isClosing: boolean;
  requests: number;
}

export class HttpServer {
  readonly #server: Server;
  readonly #isSecure: boolean;
  readonly #handler: Handler;
  readonly #socketTimeoutMs: number;
  readonly #onUnparsable: ServerOptions['onUnparsable'];
  /** With what changes from request to request in them. A Set of the answers instead would leave tables behind in old
   *  memory that hold on to answers long gone, for each collection of young memory to copy: a fifth of all time. */
  readonly #connections = new WeakMap<Duplex, Connection>();
  /** TCP connections, and where TLS is spoken those that have shaken hands. */
  readonly #raw = new Set<Socket>();
  readonly #secured = new Set<Socket>();
  #isDraining = false;
  #madeRoomAt = -Infinity;

  private constructor(server: Server, isSecure: boolean, { handler, onUnparsable, socketTimeoutMs = limits.socketTimeout }: ServerOptions) {
    this.#server = server;
    this.#isSecure = isSecure;
    this.#handler = handler;
    this.#onUnparsable = onUnparsable;
    this.#socketTimeoutMs = socketTimeoutMs;
  }

  /** Listens. Throws `cannot-start` if the port is taken, the address is not ours, or it is not allowed. */
  static async listen(options: ServerOptions): Promise<HttpServer> {
    const { at, certificate, connectionsMax } = options;
    const server = certificate === undefined ? plainServer() : secureServer(certificate);
    const made = new HttpServer(server, certificate !== undefined, options);
    // The parser would drop the headers above a count, and what they forbid: the handler counts them.
    server.maxHeadersCount = 0;
    server.maxConnections = connectionsMax;
    server.timeout = made.#socketTimeoutMs;
    server.on('connection', (socket) => remember(made.#raw, socket));
    server.on('secureConnection', (socket) => remember(made.#secured, socket));
    server.on('timeout', (socket) => made.#timedOut(socket));
    server.on('request', (request, response) => made.#serve(request, response, 'none'));
    server.on('checkContinue', (request, response) => made.#serve(request, response, 'continue'));
    server.on('checkExpectation', (request, response) => made.#serve(request, response, 'unknown'));
    server.on('drop', () => made.#makeRoom());
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => made.#answerUnparsable(error, socket));
    await listen(server, at);
    server.on('error', (error) => options.report(`the listener failed: ${messageOf(error)}`));
    return made;
  }

  get url(): string {
    const at = this.#server.address() as AddressInfo | string;
    const scheme = this.#isSecure ? 'https' : 'http';
    if (typeof at === 'string') return `${scheme}+unix:${at}`;
    const host = at.family === 'IPv6' ? `[${at.address}]` : at.address;
    return `${scheme}://${host}:${at.port}`;
  }

  get connections(): number {
    return this.#raw.size;
  }

  /** For connections from now on; those there are go on with what they have. */
  setCertificate(certificate: Certificate): void {
    if (this.#server instanceof https.Server) this.#server.setSecureContext(contextOptions(certificate));
  }

  /** Accepts nothing more, answers what is being asked, and resolves when every connection is closed. */
  async drain(): Promise<void> {
    await this.#close(limits.drainMs);
  }

  /** Closes every connection, whatever it is waiting for. */
  async abort(): Promise<void> {
    await this.#close(0);
  }

  async #close(ms: number): Promise<void> {
    this.#isDraining = true;
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    const sockets = this.#isSecure ? this.#secured : this.#raw;
    const ends = new Set([...this.#secured].map(remoteEnd));
    for (const socket of sockets) {
      const { current, last } = this.#connectionOf(socket);
      if (current?.headersSent === false) current.shouldKeepAlive = false;
      if (last === undefined || last.closed || ms === 0) socket.destroy();
      else destroyBehind(last, socket);
    }
    for (const socket of this.#raw) if (this.#isSecure && !ends.has(remoteEnd(socket))) socket.destroy();
    const timer = setTimeout(() => this.#server.closeAllConnections(), ms);
    await closed;
    clearTimeout(timer);
  }

  /** Nothing came and nothing went. Who has said all and waits for us, for a hash on a machine that has too much to do, is not cut off. */
  #timedOut(socket: Socket): void {
    const { current } = this.#connectionOf(socket);
    const waitsForUs = current !== undefined && !current.headersSent && current.req.complete;
    if (waitsForUs) socket.setTimeout(this.#socketTimeoutMs);
    else socket.destroy();
  }

  #serve(request: IncomingMessage, response: ServerResponse, expectation: Expectation): void {
    const { socket } = request;
    const connection = this.#connectionOf(socket);
    const { current } = connection;
    if (current !== undefined || connection.isClosing) {
      // Behind an answer that is not given (pipelining), or that is the last one: RFC 9112, 9.3.2 and 9.6.
      // It is not carried out, and nothing more is read; its client sees the connection close and asks again.
      endBehindLast(connection, socket);
      if (current !== undefined && !current.headersSent) current.shouldKeepAlive = false;
      socket.pause();
      return;
    }
    connection.current = response;
    connection.last = response;
    connection.requests++;
    const isLast = this.#isDraining || connection.requests >= limits.requestsPerConnectionMax || request.httpVersion !== '1.1';
    if (isLast) response.shouldKeepAlive = false;
    void this.#handler(request, response, expectation, (keepAlive) => {
      // What came in one piece with the request is parsed in the same turn, and must not be taken for the next one.
      if (keepAlive) process.nextTick(release, connection);
      else endBehindLast(connection, socket);
    });
  }

  /** There are too many connections for another one: those that nobody uses are closed, lest a few clients keep all others out. */
  #makeRoom(): void {
    const now = performance.now();
    if (now - this.#madeRoomAt < limits.roomIntervalMs) return;
    this.#madeRoomAt = now;
    this.#server.closeIdleConnections();
  }

  #connectionOf(socket: Duplex): Connection {
    let connection = this.#connections.get(socket);
    if (connection === undefined) {
      connection = { current: undefined, last: undefined, isClosing: false, requests: 0 };
      this.#connections.set(socket, connection);
    }
    return connection;
  }

  /** What is no HTTP, or comes too slowly, gets one answer, and its connection is closed. */
  #answerUnparsable(error: NodeJS.ErrnoException, socket: Duplex): void {
    const connection = this.#connectionOf(socket);
    // The last answer is on its way, and the connection is closed behind it.
    if (connection.isClosing) return;
    const { current } = connection;
    endBehindLast(connection, socket);
    if (current?.req.complete === true) {
      // It is what follows that is no HTTP: the request itself is answered, and then it is over.
      if (!current.headersSent) current.shouldKeepAlive = false;
      return;
    }
    // Two answers cannot stand in one another; a TLS failure has nobody to be answered.
    if (!socket.writable || current?.headersSent === true || !isParserError(error.code)) {
      socket.destroy();
      return;
    }
    const id = newRequestId();
    const { status, headers = {}, body } = problem(unparsable(error.code), id);
    this.#onUnparsable?.(id, status);
    const length = String(Buffer.byteLength(String(body)));
    const flat = [...everyHeader, id, ...Object.entries(headers).flat(), 'Content-Length', length, 'Connection', 'close'];
    const head = flat.map((part, n) => part + (n % 2 === 0 ? ': ' : '\r\n')).join('');
    socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\n${head}\r\n${String(body)}`);
    // What still comes is read and dropped for a while: closing on it could take the answer away.
    socket.resume();
    setTimeout(() => socket.destroy(), lingerMs).unref();
  }
}

function release(connection: Connection): void {
  connection.current = undefined;
}

/** Nothing is taken from it any more, and it is closed when its last answer is out. */
function endBehindLast(connection: Connection, socket: Duplex): void {
  if (connection.isClosing) return;
  connection.isClosing = true;
  if (connection.last?.closed === false) destroyBehind(connection.last, socket);
}

/** Listened for when it is wanted: for every answer it would be a cost to all, for the sake of few. */
function destroyBehind(response: ServerResponse, socket: Duplex): void {
  response.once('close', () => {
    if (socket instanceof Socket) socket.destroySoon();
  });
}

function remember(sockets: Set<Socket>, socket: Socket): void {
  sockets.add(socket);
  socket.once('close', () => sockets.delete(socket));
}

/** A TLS socket and the TCP socket below it have it in common. */
function remoteEnd({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

function plainServer(): Server {
  return http.createServer(serverOptions);
}

function contextOptions({ cert, key }: Certificate): SecureContextOptions {
  // To negotiate anew (TLS 1.2) costs the service a handshake and its client next to nothing, and is of no use here.
  return { cert, key, ciphers, minVersion: 'TLSv1.2', secureOptions: constants.SSL_OP_NO_RENEGOTIATION };
}

function secureServer(certificate: Certificate): Server {
  return https.createServer({
    ...serverOptions,
    ...contextOptions(certificate),
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
