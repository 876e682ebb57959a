/** Wiring: config -> store, hasher, registry, handler, server. The only file that knows all the parts. */

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { admitInOpenMode } from './access.ts';
import type { Config } from './config.ts';
import { RegistrarError } from './errors.ts';
import { readCertificate } from './http/certificate.ts';
import { createHandler } from './http/handler.ts';
import type { Handler } from './http/handler.ts';
import { routes } from './http/routes.ts';
import { HttpServer } from './http/server.ts';
import { Hasher } from './password/hasher.ts';
import { formatKdf, weakness } from './password/kdf.ts';
import { parseCommonPasswords } from './password-policy.ts';
import { Registry } from './registry.ts';
import { prepareDirectory } from './store/file/directory.ts';
import { FileUserStore } from './store/file/store.ts';

export interface AppOptions {
  /** One line for the operator. */
  readonly report: (line: string) => void;
  /** The store has failed: the process has to end, with an error. */
  readonly onFailed: (error: RegistrarError) => void;
}

export interface App {
  /** Where it listens, as in `https://127.0.0.1:8443`. */
  readonly url: string;
  /** The users' file. */
  readonly file: string;
  /** Answers what is being asked, finishes writing, lets go of the lock. */
  close(): Promise<void>;
}

/** Expired certificates are said so; so are those with less than this. */
const daysLeftMin = 14;

/** Starts the service. Rejects with `cannot-start`, `corrupt` or `busy`, and has let go of everything then. */
export async function openApp(config: Config, { report, onFailed }: AppOptions): Promise<App> {
  const certificate = config.isPlain ? undefined : readCertificate(config.certs, now());
  if (certificate !== undefined && certificate.daysLeft < daysLeftMin) {
    report(`The certificate ${certificate.daysLeft < 0 ? 'has expired' : `expires in ${certificate.daysLeft} days`}: make cert FORCE=1`);
  }
  const advised = weakness(config.kdf);
  if (advised !== undefined) {
    report(`WARNING: --kdf ${formatKdf(config.kdf)} makes passwords cheap to guess: OWASP advises ${advised} iterations or more`);
  }
  // The port first: if it is taken, no directory and no file has been made. Who asks early waits.
  let settle: { resolve: (handler: Handler) => void; reject: () => void } | undefined;
  const opened = new Promise<Handler>((resolve, reject) => (settle = { resolve, reject }));
  opened.catch(() => undefined);
  let handler: Handler = async (...call) => {
    await opened.then((ready) => ready(...call), () => void call[1].destroy());
  };
  const { host, port, connectionsMax } = config;
  const serve: Handler = (...call) => handler(...call);
  const server = await HttpServer.listen({ host, port, certificate, connectionsMax, handler: serve, report });
  try {
    const parts = await openParts(config, { report, onFailed });
    handler = createHandler({ routes: routes(parts.registry), admit: admitInOpenMode, report });
    settle?.resolve(handler);
    return {
      url: server.url,
      file: parts.file,
      close: async () => {
        await server.drain();
        await parts.close();
      },
    };
  } catch (error) {
    settle?.reject();
    await server.abort();
    throw error;
  }
}

interface Parts {
  readonly registry: Registry;
  readonly file: string;
  readonly close: () => Promise<void>;
}

async function openParts(config: Config, { report, onFailed }: AppOptions): Promise<Parts> {
  const file = join(prepareDirectory(config.data), 'users.jsonl');
  const store = await FileUserStore.open({ path: file, lockWaitMsMax: config.lockWaitMsMax, now, report, onFailed });
  const hasher = new Hasher({
    kdf: config.kdf,
    workers: availableParallelism(),
    waitMsMax: config.hashWaitMsMax,
    queueMax: config.hashQueueMax,
  });
  const policy = {
    codePointsMin: config.passwordCodePointsMin,
    codePointsMax: config.passwordCodePointsMax,
    common: parseCommonPasswords(readFileSync(new URL('./password/common-passwords.txt', import.meta.url), 'utf8')),
  };
  return {
    registry: new Registry({ store, hasher, policy, now }),
    file,
    close: async () => {
      await hasher.close();
      await store.close();
    },
  };
}

function now(): Date {
  return new Date();
}
