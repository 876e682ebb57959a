/** Wiring: config -> store, hasher, registry, handler, server. The only file that knows all the parts. */

import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isLoopback } from './access.ts';
import type { Config } from './config.ts';
import { RegistrarError } from './errors.ts';
import { readCertificate, watchCertificate } from './http/certificate.ts';
import type { Certificate } from './http/certificate.ts';
import { parseTrustedProxies } from './http/client-address.ts';
import type { TrustedProxies } from './http/client-address.ts';
import { Gate } from './http/gate.ts';
import { createHandler } from './http/handler.ts';
import type { Handler, HandlerOptions } from './http/handler.ts';
import { Limits } from './http/limits.ts';
import { opsRoutes } from './http/ops-routes.ts';
import { routes } from './http/routes.ts';
import { HttpServer } from './http/server.ts';
import { openPolicy, reportWeakness } from './open-policy.ts';
import { openStore } from './open-store.ts';
import type { Check } from './ops/health.ts';
import type { Sources } from './ops/service-metrics.ts';
import { Watch } from './ops/watch.ts';
import type { Output } from './ops/watch.ts';
import { Hasher } from './password/hasher.ts';
import { Registry } from './registry.ts';
import { AdminToken, adminTokenName } from './session/admin-token.ts';
import { Sessions } from './session/sessions.ts';
import { VerifiedPasswords } from './session/verified-passwords.ts';
import { checkDirectory } from './store/file/directory.ts';

export interface AppOptions {
  /** One line for the operator. */
  readonly report: (line: string) => void;
  /** The store has failed: the process has to end, with an error. */
  readonly onFailed: (error: RegistrarError) => void;
  /** Where the lines of `--log on` go, from when it is open; undefined for nowhere. */
  readonly output?: Output;
  readonly version?: string;
}

export interface App {
  /** Where it listens, as in `https://127.0.0.1:8443`. */
  readonly url: string;
  /** For a person: where users are kept. */
  readonly where: string;
  /** Whether it asks nobody who they are, as yet. */
  readonly isOpen: () => boolean;
  /** Reads the certificate anew, and says what came of it. */
  reload(): void;
  /** Answers what is being asked, finishes writing, lets go of the lock. */
  close(): Promise<void>;
}

/** Expired certificates are said so; so are those with less than this. */
const daysLeftMin = 14;

/** Starts the service. Rejects with `cannot-start`, `corrupt` or `busy`, and has let go of everything then. */
export async function openApp(config: Config, { report: tell, onFailed: fail, output, version = '' }: AppOptions): Promise<App> {
  const watch = new Watch({ output: config.isLogged ? output : undefined, version });
  const report = (line: string, id?: string): void => {
    tell(line);
    watch.log?.event(id === undefined ? 'warn' : 'error', 'report', { ...(id === undefined ? {} : { id }), message: line });
  };
  const onFailed = (error: RegistrarError): void => {
    watch.log?.event('error', 'failed', { message: error.message });
    fail(error);
  };
  const trusted = parseTrustedProxies(config.trustedProxies);
  if ('problem' in trusted) throw new RegistrarError('usage', `--trusted-proxy: ${trusted.problem}`);
  const certificate = config.isPlain ? undefined : readCertificate(config.certs, now());
  if (certificate !== undefined && certificate.daysLeft < daysLeftMin) {
    report(`The certificate ${certificate.daysLeft < 0 ? 'has expired' : `expires in ${certificate.daysLeft} days`}: make cert FORCE=1`);
  }
  reportWeakness(config.kdf, report);
  if (config.isPlain && config.socket === undefined && !isLoopback(config.host)) {
    report(`WARNING: --http on ${config.host}: whoever is on the way reads every password; serve HTTPS, or a proxy on this machine`);
  }
  // Nothing is made yet, and what could not be read would be taken for no token.
  checkDirectory(config.data);
  const admin = AdminToken.open({ env: config.adminToken, path: join(config.data, adminTokenName), report });
  if (!admin.isSet()) refuseOpenListener(config);
  // The port first: if it is taken, no directory and no file has been made. Who asks early waits.
  let settle: { resolve: (handler: Handler) => void; reject: () => void } | undefined;
  const opened = new Promise<Handler>((resolve, reject) => (settle = { resolve, reject }));
  opened.catch(() => undefined);
  let handler: Handler = async (...call) => {
    await opened.then((ready) => ready(...call), () => void call[1].destroy());
  };
  const { host, port, socket, connectionsMax } = config;
  const at = socket === undefined ? { host, port } : { socket };
  const serve: Handler = (request, response, expectation, done) => handler(request, response, expectation, done);
  const server = await HttpServer.listen({ at, certificate, connectionsMax, handler: serve, onUnparsable: watch.unparsable, report });
  try {
    const parts = await openParts(config, { report, onFailed }, watch);
    watch.read({ ...parts.facts, connections: () => server.connections }, parts.checks);
    handler = makeHandler(config, parts, admin, trusted, report, watch);
    watch.log?.event('info', 'listening', { url: server.url, version });
    settle?.resolve(handler);
    const apply = (replaced: Certificate): void => server.setCertificate(replaced);
    const certificates = certificate && watchCertificate({ directory: config.certs, now, report, current: certificate, apply });
    return {
      url: server.url,
      where: parts.where,
      isOpen: () => !admin.isSet(),
      reload: () => certificates?.reload(),
      close: async () => {
        certificates?.close();
        watch.log?.event('info', 'stopping');
        watch.drain();
        if (parts.isWell()) await sleep(config.drainSeconds * 1000);
        await server.drain();
        await parts.close();
        await watch.close();
      },
    };
  } catch (error) {
    settle?.reject();
    await server.abort();
    await watch.close();
    throw error;
  }
}

/** What open mode can be asked for, by what it takes for a `Host`. */
const openModeHosts: ReadonlySet<string> = new Set(['127.0.0.1', 'localhost', '::1']);

/** Without an admin token everything is allowed, so it may be reached from this machine alone, and not by a proxy's way. */
function refuseOpenListener({ host, socket }: Config): void {
  if (socket === undefined && openModeHosts.has(host)) return;
  const where = socket === undefined ? `--host ${host}` : `--socket ${socket}`;
  throw new RegistrarError(
    'cannot-start',
    `${where}: there is no admin token, and without one the service asks nobody who they are, so it listens on this machine's own ` +
      'address only; make one: registrar token',
  );
}

function makeHandler(
  config: Config,
  parts: Parts,
  admin: AdminToken,
  trusted: TrustedProxies,
  report: HandlerOptions['report'],
  watch: Watch,
): Handler {
  const { registry, sessions } = parts;
  const gate = new Gate({
    registry,
    admin,
    sessions,
    verified: new VerifiedPasswords({ secondsMax: config.verifiedSecondsMax, entriesMax: config.verifiedEntriesMax, now: milliseconds }),
    limits: config.isLimited ? new Limits(milliseconds) : undefined,
    trusted,
    origins: { own: config.publicUrl, allowed: config.allowedOrigins },
    onSignIn: watch.service.onSignIn,
  });
  const rules = { registration: config.registration };
  return createHandler({ routes: [...routes({ registry, sessions, gate }), ...opsRoutes(watch)], gate, rules, report, observer: watch });
}

interface Parts {
  readonly registry: Registry;
  readonly sessions: Sessions;
  readonly where: string;
  readonly facts: Pick<Sources, 'hashQueue' | 'store'>;
  /** Why requests should go elsewhere. */
  readonly checks: readonly Check[];
  /** Whether the store can still be used. */
  readonly isWell: () => boolean;
  readonly close: () => Promise<void>;
}

async function openParts(config: Config, { report, onFailed }: AppOptions, { service }: Watch): Promise<Parts> {
  const { store, where, secrets, facts, trouble, isWell } = await openStore(config, { report, onFailed, observer: service.store });
  const sessionOptions = { secrets, issuer: config.publicUrl, seconds: config.sessionSeconds, now, report };
  const sessions = await Sessions.open(sessionOptions).catch(async (error: unknown) => {
    await store.close();
    throw error;
  });
  const hasher = new Hasher({
    kdf: config.kdf,
    workers: availableParallelism(),
    waitMsMax: config.hashWaitMsMax,
    queueMax: config.hashQueueMax,
    onHash: service.onHash,
  });
  return {
    registry: new Registry({ store, hasher, policy: openPolicy(config), now }),
    sessions,
    where,
    facts: { hashQueue: () => hasher, store: facts },
    checks: [trouble, () => (hasher.isFull ? 'too many passwords are waiting to be hashed' : undefined)],
    isWell,
    close: async () => {
      await hasher.close();
      await store.close();
    },
  };
}

/** Monotonic. */
function milliseconds(): number {
  return performance.now();
}

function now(): Date {
  return new Date();
}
