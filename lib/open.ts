/**
 * Opens what the service, the commands and the library share: the store, the secrets beside it, the hasher and the registry.
 * The configuration says which store it is: one file, shared by the processes of this machine, or an etcd cluster.
 * Every directory that is created is reported.
 */

import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { PasswordLinks } from './auth/password-links.ts';
import { SecretFiles } from './auth/secret-files.ts';
import type { SecretStore } from './auth/secret-store.ts';
import { SigningKeys } from './auth/signing-keys.ts';
import type { SigningKeysOptions } from './auth/signing-keys.ts';
import type { Config } from './config.ts';
import { RegistrarError, messageOf } from './errors.ts';
import { Hasher } from './password/hasher.ts';
import type { HasherOptions } from './password/hasher.ts';
import { formatKdf, weakness } from './password/kdf.ts';
import { parseCommonPasswords } from './password-policy.ts';
import type { PasswordPolicy } from './password-policy.ts';
import { Registry } from './registry.ts';
import { EtcdUserStore } from './store/etcd/etcd-user-store.ts';
import { cannotRead, openToOthers, prepareDirectory } from './store/file/directory.ts';
import { nodeFileSystem } from './store/file/file-system.ts';
import { ReadOnlyUserStore } from './store/file/read-only-user-store.ts';
import { FileUserStore } from './store/file/file-user-store.ts';
import type { StoreObserver } from './store/file/file-user-store.ts';
import { MemoryUserStore } from './store/memory.ts';
import type { UserStore } from './user-store.ts';

export interface OpenOptions {
  /** One line for the operator. */
  readonly report: (line: string) => void;
  /** The store has failed: every later call is rejected, and the process has to end. */
  readonly onFailed?: (error: RegistrarError) => void;
  readonly observer?: StoreObserver;
  readonly onHash?: HasherOptions['onHash'];
  /** Where there is no users file: it and its directory are created, it is refused, or an empty store in memory takes its place. */
  readonly ifMissing: 'create' | 'refuse' | 'memory';
  /** Whether a verified password whose hash has another kdf is hashed anew and saved. */
  readonly isRehashing: boolean;
  /** A file is opened without the lock and as it is now, also on a read-only mount. Writes are rejected. */
  readonly isReadOnly?: boolean;
}

export interface OpenedStore {
  readonly store: UserStore;
  /** For a person: the users file, or the cluster. */
  readonly where: string;
  readonly secrets: SecretStore;
  /** What is known of a file without reading it. */
  readonly facts: () => { readonly users?: number; readonly fileBytes?: number; readonly deadBytes?: number };
  /** Why writes, or even reads, fail; undefined while they do not. */
  readonly unhealthyReason: () => string | undefined;
  /** False once the store has failed for good. */
  readonly isUsable: () => boolean;
}

export interface OpenedUsers extends OpenedStore {
  readonly registry: Registry;
  readonly hasher: Hasher;
  readonly policy: PasswordPolicy;
  /** Finishes what was requested, and closes the store. */
  close(): Promise<void>;
}

export const now = (): Date => new Date();

/** Rejects with `cannot-start`, `corrupt` or `busy`; with `cannot-start` also where there are no users and none may be created. */
export async function openUsers(config: Config, options: OpenOptions): Promise<OpenedUsers> {
  const opened = await openStore(config, options);
  const { kdf, hashWaitMsMax: waitMsMax, hashQueueMax: queueMax } = config;
  const { isRehashing, onHash } = options;
  const hasher = new Hasher({ kdf, workers: availableParallelism(), waitMsMax, queueMax, isRehashing, onHash });
  const policy = openPolicy(config);
  return {
    ...opened,
    hasher,
    policy,
    registry: new Registry({ store: opened.store, hasher, policy, now }),
    close: async () => {
      await hasher.close();
      await opened.store.close();
    },
  };
}

async function openStore(config: Config, { report, onFailed, observer, ifMissing, isReadOnly }: OpenOptions): Promise<OpenedStore> {
  if (config.etcd.length > 0) return openCluster(config, report);
  if (ifMissing === 'memory' && !existsSync(usersFile(config.data))) return openMemory();
  if (ifMissing === 'refuse') requireUsersFile(config);
  if (isReadOnly === true) return openReadOnly(config, report);
  const directory = createDirectory(config.data, report);
  const path = usersFile(directory);
  const store = await FileUserStore.open({ path, lockWaitMsMax: config.lockWaitMsMax, now, report, onFailed, observer });
  return {
    store,
    where: path,
    secrets: new SecretFiles(directory),
    facts: () => ({ users: store.size, fileBytes: store.bytes.file, deadBytes: store.bytes.obsolete }),
    unhealthyReason: () => store.unhealthyReason,
    isUsable: () => !store.isFailed,
  };
}

async function openReadOnly({ data }: Config, report: OpenOptions['report']): Promise<OpenedStore> {
  const where = usersFile(data);
  const problem = openToOthers(where);
  if (problem !== undefined) report(`WARNING: ${problem}`);
  const store = await ReadOnlyUserStore.open(nodeFileSystem, where);
  return { ...healthy, store, where, secrets: new SecretFiles(resolve(data)) };
}

function openMemory(): OpenedStore {
  return { ...healthy, store: new MemoryUserStore(), where: 'memory', secrets: { get: () => undefined, replace: async () => false } };
}

const healthy = { facts: () => ({}), unhealthyReason: () => undefined, isUsable: () => true };

export const usersFile = (data: string): string => join(resolve(data), 'users.jsonl');

/** Returns the path of the users file. Throws `cannot-start` if there is none. */
export function requireUsersFile({ data }: Pick<Config, 'data'>): string {
  const file = usersFile(data);
  try {
    if (statSync(file, { throwIfNoEntry: false }) !== undefined) return file;
  } catch (error) {
    throw cannotRead(file, error);
  }
  throw new RegistrarError('cannot-start', `There is no users file "${file}". Name its directory with --data.`);
}

/** Returns the absolute path. Throws `cannot-start` if the directory cannot be used. */
export function createDirectory(path: string, report: OpenOptions['report']): string {
  const missing: string[] = [];
  for (let directory = resolve(path); !existsSync(directory); directory = dirname(directory)) missing.unshift(directory);
  const directory = prepareDirectory(path);
  for (const created of missing) report(`Created the directory "${created}".`);
  return directory;
}

/** The secrets alone; no users file is created for them. */
export async function openSecrets(config: Config, report: OpenOptions['report']): Promise<Pick<OpenedUsers, 'secrets' | 'close'>> {
  if (config.etcd.length === 0) return { secrets: new SecretFiles(createDirectory(config.data, report)), close: async () => undefined };
  const { store, secrets } = await openCluster(config, report);
  return { secrets, close: () => store.close() };
}

/** Undefined with `--audit off`. */
export function auditPath({ audit, data }: Pick<Config, 'audit' | 'data'>): string | undefined {
  return audit === 'off' ? undefined : resolve(audit ?? join(data, 'audit.jsonl'));
}

/** Of an installation: the key that hides the logins in its audit log. */
export async function readAuditKey(secrets: SecretStore): Promise<string> {
  const name = 'audit-key';
  const found = await secrets.get(name);
  if (found !== undefined) return found;
  await secrets.replace(name, undefined, `${randomBytes(32).toString('base64url')}\n`);
  return (await secrets.get(name)) ?? '';
}

/** What opens the signing keys, which are kept as long as a token lives. */
export function signingKeysOptions(config: Config, secrets: SecretStore, report: OpenOptions['report']): SigningKeysOptions {
  return { secrets, now, report, keepSeconds: Math.max(config.tokenMinutes * 60, config.sessionHours * 3_600) };
}

export function openPasswordLinks({ linkHours, publicUrl }: Config, registry: Registry, keys: SigningKeys): PasswordLinks {
  return new PasswordLinks({ registry, keys, seconds: linkHours * 3_600, publicUrl, now });
}

async function openCluster(config: Config, report: OpenOptions['report']): Promise<OpenedStore> {
  const { etcd: endpoints, etcdPrefix: prefix, etcdUser: user, etcdPassword: password, etcdCa, etcdCert, etcdKey } = config;
  const tls = { ca: readPem('etcd-ca', etcdCa), cert: readPem('etcd-cert', etcdCert), key: readPem('etcd-key', etcdKey) };
  const store = await EtcdUserStore.open({ endpoints, prefix, tls, user, password, log: report });
  const where = `etcd at ${endpoints.join(', ')}`;
  return { ...healthy, store, where, secrets: store.secrets, unhealthyReason: () => store.unhealthyReason };
}

function readPem(flag: string, path: string | undefined): Buffer | undefined {
  try {
    return path === undefined ? undefined : readFileSync(path);
  } catch (cause) {
    throw new RegistrarError('cannot-start', `Cannot read "${path}", the file of --${flag}: ${messageOf(cause)}.`, { cause });
  }
}

/** The rules for new passwords, with the list of common ones that is shipped. */
function openPolicy(config: Pick<Config, 'passwordMin' | 'passwordCodePointsMax' | 'publicUrl'>): PasswordPolicy {
  // Of https://accounts.acme.example users know "accounts", "acme" and the whole host.
  const host = config.publicUrl === undefined ? '' : new URL(config.publicUrl).hostname;
  return {
    serviceNames: ['registrar', host, ...host.split('.')],
    codePointsMin: config.passwordMin,
    codePointsMax: config.passwordCodePointsMax,
    common: parseCommonPasswords(readFileSync(new URL('./password/common-passwords.txt', import.meta.url), 'utf8')),
  };
}

/** Reports a kdf that is cheaper than OWASP advises. */
export function reportWeakKdf({ kdf }: Pick<Config, 'kdf'>, report: OpenOptions['report']): void {
  const advised = weakness(kdf);
  if (advised === undefined) return;
  report(`WARNING: --kdf ${formatKdf(kdf)} makes passwords cheap to guess: OWASP advises ${advised} iterations or more.`);
}
