/** Wiring: config -> store, hasher, registry, handler, server. The only file that knows all the parts. */

import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { admitInOpenMode } from './access.ts';
import type { Config, DataConfig } from './config.ts';
import { RegistrarError, systemCode } from './errors.ts';
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
import { nodeFileSystem } from './store/file/file-system.ts';
import { check, repair, survey } from './store/file/repair.ts';
import type { CheckResult } from './store/file/repair.ts';
import { describeLosses } from './store/file/salvage.ts';
import { FileUserStore } from './store/file/store.ts';
import type { Compacted } from './store/file/store.ts';

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
  const serve: Handler = (request, response, expectation, done) => handler(request, response, expectation, done);
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

export type Checked =
  | { readonly file: string; readonly isSound: true; readonly facts: CheckResult }
  /** Why it would not be opened, and all that is wrong, a line for each thing. */
  | { readonly file: string; readonly isSound: false; readonly reason: string; readonly losses: readonly string[] };

/** Reads every line of the users' file. Rejects with `cannot-start` if there is none. */
export async function checkUsers(config: DataConfig): Promise<Checked> {
  const file = usersFile(config);
  try {
    const facts = await check(nodeFileSystem, file);
    if (facts.damage === undefined) return { file, isSound: true, facts };
  } catch (error) {
    if (systemCode(error) !== 'EIO' && !(error instanceof RegistrarError && error.code === 'corrupt')) throw error;
  }
  const { reason = 'it was changed meanwhile', salvage } = await survey(nodeFileSystem, file);
  return { file, isSound: false, reason, losses: describeLosses(salvage) };
}

/** Writes the users' file anew without what is dead, while it is in use. */
export async function compactUsers(config: DataConfig, report: (line: string) => void): Promise<Compacted> {
  const store = await FileUserStore.open({ path: usersFile(config), lockWaitMsMax: config.lockWaitMsMax, report });
  try {
    return await store.compact();
  } finally {
    await store.close();
  }
}

export interface RepairPlan {
  readonly file: string;
  /** Why the file would not be opened; undefined if nothing is wrong with it. */
  readonly reason: string | undefined;
  /** What would be left out, a line for each thing. */
  readonly losses: readonly string[];
  readonly users: number;
  /** Does it. Resolves with the path under which the old file is kept. */
  readonly carryOut: () => Promise<string>;
}

/** Looks what of the users' file can be saved; nothing is changed before `carryOut`. */
export async function planRepair(config: DataConfig): Promise<RepairPlan> {
  const file = usersFile(config);
  const { reason, salvage } = await survey(nodeFileSystem, file);
  const options = { fs: nodeFileSystem, path: file, lockWaitMsMax: config.lockWaitMsMax, now: now() };
  return { file, reason, losses: describeLosses(salvage), users: salvage.users.size, carryOut: () => repair(options, salvage) };
}

/** Of a store that is looked after; none is made. */
function usersFile({ data }: DataConfig): string {
  const file = join(data, 'users.jsonl');
  if (!existsSync(file)) throw new RegistrarError('cannot-start', `There is no users' file "${file}"; name its directory with --data`);
  return join(prepareDirectory(data), 'users.jsonl');
}

function now(): Date {
  return new Date();
}
