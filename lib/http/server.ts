/**
 * The listener: connections, pipelining, what the parser rejects, and a graceful stop. It does not know what a request means.
 */

import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import https from 'node:https';
import { Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { RegistrarError, messageOf } from '../errors.ts';
import type { Certificate } from './certificate.ts';
import type { Expectation, Handler } from './handler.ts';
import { newRequestId } from './handler.ts';
import { listen } from './listen.ts';
import type { ListenAddress } from './listen.ts';
import { sendRaw } from './raw-response.ts';
import { contextOptions, limits, plainServer, secureServer } from './server-options.ts';

export interface ServerOptions {
  readonly at: ListenAddress;
  /** Undefined for plain HTTP. */
  readonly certificate: Certificate | undefined;
  readonly connectionsMax: number;
  readonly handler: Handler;
  /** Called for each response to bytes that are not HTTP, or that came too slowly. */
  readonly onUnparsable?: (id: string, status: number) => void;
  readonly report: (line: string) => void;
  /** Shorter in tests. */
  readonly socketTimeoutMs?: number;
}

/** A connection has one request at a time, and none after the last. */
interface Connection {
  /** The response that is not handed over yet. */
  current: ServerResponse | undefined;
  /** The latest response; its `close` event comes when the kernel has all of it. */
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
  /** One object for each connection: a Set of responses kept finished ones alive in old memory, and each young collection
   *  copied them, a fifth of all time. */
  readonly #connections = new WeakMap<Duplex, Connection>();
  /** TCP connections, and those whose TLS handshake is complete. */
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

  /** Listens. Throws `cannot-start` if the port is taken, or the address is not this machine's, or permission is missing. */
  static async listen(options: ServerOptions): Promise<HttpServer> {
    const { at, certificate, connectionsMax } = options;
    const server = certificate === undefined ? plainServer() : secureServer(certificate);
    const made = new HttpServer(server, certificate !== undefined, options);
    // The parser would silently drop headers above a count, with what they forbid: the handler counts them.
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
    server.on('tlsClientError', (error, socket) => made.#answerHandshakeError(error, socket));
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => made.#answerUnparsable(error, socket));
    await listen(server, at);
    server.on('error', (error) => options.report(`The listener failed: ${messageOf(error)}.`));
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

  /** For new connections; those that are open keep theirs. */
  setCertificate(certificate: Certificate): void {
    if (this.#server instanceof https.Server) this.#server.setSecureContext(contextOptions(certificate));
  }

  /** From now on each response closes its connection, while new connections are still accepted. */
  startDraining(): void {
    this.#isDraining = true;
    for (const socket of this.#isSecure ? this.#secured : this.#raw) {
      const { current } = this.#connectionOf(socket);
      if (current?.headersSent === false) current.shouldKeepAlive = false;
    }
  }

  /** Accepts no new connection, answers the requests that are there, and resolves when every connection is closed. */
  async drain(): Promise<void> {
    await this.#close(limits.drainMs);
  }

  /** Closes every connection, whatever it is waiting for. */
  async abort(): Promise<void> {
    await this.#close(0);
  }

  async #close(ms: number): Promise<void> {
    this.startDraining();
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    for (const socket of this.#isSecure ? this.#secured : this.#raw) {
      const { last } = this.#connectionOf(socket);
      if (last?.closed === false && ms > 0) destroyAfter(last, socket);
      else if (last !== undefined) socket.destroy();
    }
    // A client that has just connected gets its one response.
    const graceTimer = setTimeout(() => this.#destroyUnused(), Math.min(ms, limits.firstRequestMs));
    const timer = setTimeout(() => this.#server.closeAllConnections(), ms);
    await closed;
    clearTimeout(graceTimer);
    clearTimeout(timer);
  }

  /** Destroys the connections that have had no request. */
  #destroyUnused(): void {
    const used = new Set<string>();
    for (const socket of this.#isSecure ? this.#secured : this.#raw) {
      if (this.#connectionOf(socket).last === undefined) socket.destroy();
      else used.add(remoteEnd(socket));
    }
    for (const socket of this.#raw) if (this.#isSecure && !used.has(remoteEnd(socket))) socket.destroy();
  }

  /** Nothing was received or sent. A client whose request is complete waits for the service, as for a hash, and is not disconnected. */
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
      // Pipelined, or sent after the last response was announced (RFC 9112, 9.3.2 and 9.6). It is not carried out, and nothing
      // more is read: its client sees the connection close, and repeats it.
      endAfterLast(connection, socket);
      if (current !== undefined && !current.headersSent) current.shouldKeepAlive = false;
      socket.pause();
      return;
    }
    connection.current = response;
    connection.last = response;
    connection.requests++;
    // An upgrade is ignored (RFC 9110, 7.8), but the parser drops what follows its request in the same packet.
    const isUpgrade = request.headers.upgrade !== undefined;
    const isLast = this.#isDraining || connection.requests >= limits.requestsPerConnectionMax || request.httpVersion !== '1.1' || isUpgrade;
    if (isLast) response.shouldKeepAlive = false;
    void this.#handler(request, response, expectation, (keepAlive) => {
      // The handler responds in a later turn than the one in which the parser reads a packet: a request that came in the same
      // packet has found this one unanswered.
      if (keepAlive) connection.current = undefined;
      else endAfterLast(connection, socket);
    });
  }

  /** The limit of connections is reached: idle ones are closed, so that a few clients cannot keep all others out. */
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

  /** Bytes that are not HTTP, or come too slowly, get one response, and the connection is closed. */
  #answerUnparsable(error: NodeJS.ErrnoException, socket: Duplex): void {
    const connection = this.#connectionOf(socket);
    // The last response is on its way, and the connection is closed after it.
    if (connection.isClosing) return;
    const { current } = connection;
    endAfterLast(connection, socket);
    if (current?.req.complete === true) {
      // Only what follows the request is not HTTP: the request itself gets its response, the last one.
      if (!current.headersSent) current.shouldKeepAlive = false;
      return;
    }
    // A response cannot be put into another one, and a TLS failure has no reader.
    if (!socket.writable || current?.headersSent === true || !isParserError(error.code)) {
      socket.destroy();
      return;
    }
    this.#refuse(socket, unparsable(error.code));
  }

  /** Plain HTTP on the TLS port gets a response in plain HTTP, as nginx does. */
  #answerHandshakeError(error: NodeJS.ErrnoException, socket: TLSSocket): void {
    if (error.code !== 'ERR_SSL_HTTP_REQUEST') return;
    for (const raw of this.#raw) {
      if (remoteEnd(raw) === remoteEnd(socket)) return this.#refuse(raw, new RegistrarError('malformed', plainOnTls));
    }
  }

  #refuse(socket: Duplex, error: RegistrarError): void {
    const id = newRequestId();
    this.#onUnparsable?.(id, sendRaw(socket, error, id));
  }
}

/** No further request is accepted, and the connection is closed when its last response is sent. */
function endAfterLast(connection: Connection, socket: Duplex): void {
  if (connection.isClosing) return;
  connection.isClosing = true;
  if (connection.last?.closed === false) destroyAfter(connection.last, socket);
}

/** The listener is added only where it is needed: for every response it would cost all of them. */
function destroyAfter(response: ServerResponse, socket: Duplex): void {
  response.once('close', () => {
    if (socket instanceof Socket) socket.destroySoon();
  });
}

function remember(sockets: Set<Socket>, socket: Socket): void {
  sockets.add(socket);
  socket.once('close', () => sockets.delete(socket));
}

/** A TLS socket and its TCP socket have the same. */
function remoteEnd({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

const plainOnTls = 'This port expects HTTPS, and the request came in plain HTTP: begin the address with https://';

function isParserError(code: string | undefined): boolean {
  return code !== undefined && (code.startsWith('HPE_') || code === 'ERR_HTTP_REQUEST_TIMEOUT');
}

function unparsable(code: string | undefined): RegistrarError {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return new RegistrarError('timeout', 'The request did not arrive in time');
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new RegistrarError('headers-too-large', `The headers are larger than ${limits.maxHeaderSize} bytes`);
  }
  return new RegistrarError('malformed', 'This is not an HTTP/1.1 request (RFC 9112)');
}
