/**
 * Wires the service: configuration to store, registry, sessions, authenticator, routes and server. No other file knows all parts.
 * The port is taken before any directory or file is created, so that a second start on the same port changes nothing.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { isLoopback } from './access.ts';
import type { Config } from './config.ts';
import { RegistrarError, messageOf } from './errors.ts';
import { readCertificate } from './http/certificate.ts';
import type { Certificate } from './http/certificate.ts';
import { watchCertificate } from './http/certificate-watch.ts';
import { Authenticator } from './auth/authenticator.ts';
import { corsHeaders } from './http/cors.ts';
import { createHandler } from './http/handler.ts';
import type { Handler, HandlerOptions } from './http/handler.ts';
import { Limits } from './auth/limits.ts';
import { notFoundPage, pageRoutes } from './http/page-routes.ts';
import { apiRoutes } from './http/routes.ts';
import type { RouteParts } from './http/route.ts';
import { HttpServer } from './http/server.ts';
import { auditPath, now, openPasswordLinks, openUsers, readAuditKey, reportWeakKdf, signingKeysOptions } from './open.ts';
import type { OpenedUsers } from './open.ts';
import type { Output } from './telemetry/log.ts';
import { Telemetry } from './telemetry/telemetry.ts';
import { StaticToken } from './auth/static-token.ts';
import type { TokenName } from './auth/static-token.ts';
import { checkMode, markAuthenticated } from './auth/mode.ts';
import type { Mode } from './auth/mode.ts';
import { Sessions } from './auth/sessions.ts';
import { SigningKeys } from './auth/signing-keys.ts';
import { checkDirectory } from './store/file/directory.ts';

export interface AppOptions {
  /** One line for the operator. */
  readonly report: (line: string) => void;
  /** The store has failed: the process has to end, with an error. */
  readonly onFailed: (error: RegistrarError) => void;
  /** Receives the access log once the service listens. */
  readonly output?: Output;
  readonly version?: string;
}

export interface App {
  /** Where it listens, as in `https://127.0.0.1:8443`. */
  readonly url: string;
  /** The address of the page for browsers; undefined on a unix socket without --public-url. */
  readonly page: string | undefined;
  /** For a person: the users file, or the cluster. */
  readonly where: string;
  readonly mode: () => Mode;
  /** Reads the certificate again, and reports the result. */
  reload(): void;
  /** Answers the requests in progress, finishes writes, and releases the lock. */
  close(): Promise<void>;
}

/** Starts the service. Rejects with `cannot-start`, `corrupt` or `busy`, and has released everything then. */
export async function openApp(config: Config, { report: tell, onFailed: fail, output, version = '' }: AppOptions): Promise<App> {
  const telemetry = new Telemetry(config.log ? output : undefined);
  const report = (line: string, id?: string): void => {
    tell(line);
    telemetry.log?.event(id === undefined ? 'warn' : 'error', 'report', { id, message: line });
  };
  const onFailed = (error: RegistrarError): void => {
    telemetry.log?.event('error', 'failed', { message: error.message });
    fail(error);
  };
  let certificate = config.http ? undefined : readCertificate(config.certs, now());
  for (const warning of certificate?.warnings ?? []) report(warning);
  reportWeakKdf(config, report);
  if (config.http && config.socket === undefined && !isLoopback(config.host)) {
    report(`WARNING: --http on ${config.host}: every password crosses the network in the clear. Serve HTTPS, or a proxy on this machine.`);
  }
  // Before the admin token: in a directory that cannot be read there would seem to be none.
  checkDirectory(config.data);
  const isCluster = config.etcd.length > 0;
  const mark = async (): Promise<void> => (isCluster ? undefined : markAuthenticated(config.data));
  const onSet = (): void => {
    telemetry.modeChanged('authenticated');
    mark().catch((error: unknown) => report(`Cannot mark the data directory as one of authenticated mode: ${messageOf(error)}.`));
  };
  const { data, adminToken, metricsToken, host, port, socket, connectionsMax } = config;
  const admin = new StaticToken({ name: 'admin', configured: adminToken, directory: data, report, onSet });
  const metrics = new StaticToken({ name: 'metrics', configured: metricsToken, directory: data, report });
  const mode = (): Mode => (admin.isSet() ? 'authenticated' : 'unauthenticated');
  checkMode(mode(), { ...config, isCluster, isOpen: config.open });
  // Requests that arrive before the store is open wait for it.
  let start: { resolve: (handler: Handler) => void; reject: () => void } | undefined;
  const opened = new Promise<Handler>((resolve, reject) => (start = { resolve, reject }));
  opened.catch(() => undefined);
  let handler: Handler = async (...call) => {
    await opened.then((ready) => ready(...call), () => void call[1].destroy());
  };
  const at = socket === undefined ? { host, port } : { socket };
  const serve: Handler = (request, response, expectation, done) => handler(request, response, expectation, done);
  const server = await HttpServer.listen({ at, certificate, connectionsMax, handler: serve, onUnparsable: telemetry.unparsable, report });
  try {
    const { metrics: observer } = telemetry;
    const users = await openUsers(config, { report, onFailed, observer, onHash: observer.onHash, ifMissing: 'create', isRehashing: true });
    const { hasher, facts: store, unhealthyReason } = users;
    if (admin.isSet()) await mark();
    telemetry.openAudit({ path: auditPath(config), key: () => readAuditKey(users.secrets), now, report });
    const tokens = await openSessions(config, users, report);
    const isBusy = (): string | undefined => (hasher.isFull ? 'too many passwords are waiting to be hashed' : undefined);
    const sources = { version, store, hashQueue: () => hasher, connections: () => server.connections };
    telemetry.start({ ...sources, certificateExpires: () => certificate?.expires }, [unhealthyReason, isBusy]);
    handler = makeHandler(config, users, tokens, { admin, metrics }, report, telemetry);
    const [{ url }, { where }] = [server, users];
    const page = config.publicUrl === undefined && socket !== undefined ? undefined : `${config.publicUrl ?? url}/`;
    telemetry.log?.event('info', 'listening', { url, page, mode: mode(), users: where, version });
    start?.resolve(handler);
    const apply = (replaced: Certificate): void => {
      certificate = replaced;
      server.setCertificate(replaced);
    };
    const certificates = certificate && watchCertificate({ directory: config.certs, now, report, current: certificate, apply });
    return {
      url, page, where, mode,
      reload: () => certificates?.reload(),
      close: async () => {
        certificates?.close();
        telemetry.drain();
        server.startDraining();
        if (users.isUsable()) await sleep(config.drainSeconds * 1000);
        await server.drain();
        await users.close();
        await telemetry.close();
      },
    };
  } catch (error) {
    start?.reject();
    await server.abort();
    await telemetry.close();
    throw error;
  }
}

type Tokens = Pick<RouteParts, 'sessions' | 'links'>;

function makeHandler(
  config: Config, { registry }: OpenedUsers, tokens: Tokens, { admin, metrics }: Readonly<Record<TokenName, StaticToken>>,
  report: HandlerOptions['report'], telemetry: Telemetry,
): Handler {
  const address = config.publicUrl === undefined ? undefined : new URL(config.publicUrl);
  const authenticator = new Authenticator({
    registry,
    admin,
    sessions: tokens.sessions,
    metrics,
    limits: config.limits ? new Limits({ now: milliseconds, waitMsMax: config.hashWaitMsMax }) : undefined,
    trusted: config.trustedProxy,
    origins: { own: address?.origin, allowed: config.allowOrigin, isHttps: !config.http || address?.protocol === 'https:' },
    corsHeaders: (origin) => corsHeaders(origin, config.allowOrigin),
    verifiedSecondsMax: config.verifiedSecondsMax,
    verifiedEntriesMax: config.verifiedEntriesMax,
    now: milliseconds,
    onSignIn: (isRight, context, login) => {
      telemetry.metrics.onSignIn(isRight);
      if (!isRight) telemetry.rejected(context, login);
    },
    onTokenRejected: (context) => telemetry.rejected(context),
  });
  const rules = { registration: config.registration };
  const prefix = address === undefined || address.pathname === '/' ? '' : address.pathname;
  const routes = [...apiRoutes, ...pageRoutes({ length: registry.passwordLength, prefix, help: config.helpText })];
  const { unhealthyReason, audit, ended: onEnd } = telemetry;
  const parts = { registry, ...tokens, authenticator, prefix, unhealthyReason, metrics: () => telemetry.metrics.text(), audit };
  const hsts = config.hsts && !config.http;
  return createHandler({ routes, parts, authenticator, rules, hsts, notFound: notFoundPage(prefix), report, onEnd });
}

/** What the signing keys are for: the tokens of sessions, and one-time links. */
async function openSessions(config: Config, { registry, secrets, close }: OpenedUsers, report: (line: string) => void): Promise<Tokens> {
  try {
    const { publicUrl: issuer = 'registrar', audience = issuer } = config;
    const seconds = { bearer: config.tokenMinutes * 60, cookie: config.sessionHours * 3_600 };
    const keys = await SigningKeys.open(signingKeysOptions(config, secrets, report));
    const sessions = new Sessions({ keys, issuer, audience, seconds, sessionSecondsMax: config.sessionDays * 86_400, now });
    return { sessions, links: openPasswordLinks(config, registry, keys) };
  } catch (error) {
    await close();
    throw error;
  }
}

/** From a clock that never goes back. */
const milliseconds = (): number => performance.now();
