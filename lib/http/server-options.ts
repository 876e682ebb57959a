/** The options of the listener. Every limit is set, since Node's own timeouts are 30 s to 5 min; TLS is Mozilla's intermediate profile. */

import { constants } from 'node:crypto';
import http from 'node:http';
import type { Server } from 'node:http';
import https from 'node:https';
import type { SecureContextOptions } from 'node:tls';
import type { Certificate } from './certificate.ts';

export const limits = {
  /** Node checks the timeouts below this often; its default of 30 s would make them all 30 s. */
  connectionsCheckingInterval: 500,
  handshakeTimeout: 5_000,
  headersTimeout: 5_000,
  requestTimeout: 10_000,
  /** Longer than proxies keep idle connections (nginx: 60 s), so that the proxy closes them. */
  keepAliveTimeout: 65_000,
  /** Nothing sent and nothing read: a client that does not read its response. Longer than the hash queue's deadline. */
  socketTimeout: 12_000,
  maxHeaderSize: 8_192,
  /** A connection is closed after so many: it bounds what a leak could cost. */
  requestsPerConnectionMax: 10_000,
  /** At the limit of connections, idle ones are closed at most this often. */
  roomIntervalMs: 1_000,
  /** How long requests in progress may take when the service stops. */
  drainMs: 10_000,
  /** How long a connection without a request is kept when the service stops: its client may be sending one. */
  firstRequestMs: 1_000,
} as const;

/** Mozilla's intermediate profile; TLS 1.3 has its own suites. */
const ciphers = [
  'TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

const serverOptions: http.ServerOptions = {
  connectionsCheckingInterval: limits.connectionsCheckingInterval,
  headersTimeout: limits.headersTimeout,
  requestTimeout: limits.requestTimeout,
  keepAliveTimeout: limits.keepAliveTimeout,
  maxHeaderSize: limits.maxHeaderSize,
  // The handler checks it, and responds with a problem.
  requireHostHeader: false,
  insecureHTTPParser: false,
  noDelay: true,
};

export function plainServer(): Server {
  return http.createServer(serverOptions);
}

export function contextOptions({ cert, key }: Certificate): SecureContextOptions {
  // Renegotiation (TLS 1.2) costs the service a handshake and its client next to nothing, and has no use here.
  return { cert, key, ciphers, minVersion: 'TLSv1.2', secureOptions: constants.SSL_OP_NO_RENEGOTIATION };
}

export function secureServer(certificate: Certificate): Server {
  return https.createServer({
    ...serverOptions,
    ...contextOptions(certificate),
    handshakeTimeout: limits.handshakeTimeout,
    // `curl -0` offers http/1.0 alone.
    ALPNProtocols: ['http/1.1', 'http/1.0'],
  });
}

