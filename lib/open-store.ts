/** Wiring: which store a configuration means, and where secrets that its services share are kept. For the service and the commands. */

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { EtcdConfig, StoreConfig } from './config.ts';
import { RegistrarError, messageOf } from './errors.ts';
import { SecretFiles, readSecretFile } from './session/secret-files.ts';
import type { SecretStore } from './session/secret-store.ts';
import { EtcdUserStore } from './store/etcd/store.ts';
import { prepareDirectory } from './store/file/directory.ts';
import { FileUserStore } from './store/file/store.ts';
import type { StoreObserver } from './store/file/store.ts';
import type { UserStore } from './user-store.ts';

export interface OpenStoreOptions {
  readonly report: (line: string) => void;
  /** The store has failed, and the process has to end; only where it writes for long. */
  readonly onFailed?: (error: RegistrarError) => void;
  /** Told of what is written; only a file has it. */
  readonly observer?: StoreObserver;
}

export interface OpenedStore {
  readonly store: UserStore;
  /** For a person: the users' file, or the cluster. */
  readonly where: string;
  readonly secrets: SecretStore;
  /** As far as it is known without asking anybody. */
  readonly facts: () => { readonly users?: number; readonly fileBytes?: number; readonly deadBytes?: number };
  /** Why nothing can be written, or not even read; undefined while all is well. */
  readonly trouble: () => string | undefined;
  /** False once it has failed for good. */
  readonly isWell: () => boolean;
}

export interface OpenedSecrets {
  readonly secrets: SecretStore;
  readonly close: () => Promise<void>;
}

/** Rejects with `cannot-start`, `corrupt` or `busy`. */
export async function openStore(config: StoreConfig, { report, onFailed, observer }: OpenStoreOptions): Promise<OpenedStore> {
  const { data, etcd, lockWaitMsMax } = config;
  if (etcd !== undefined) return openCluster(etcd, report);
  const directory = prepareDirectory(data);
  const path = join(directory, 'users.jsonl');
  const more = { ...(onFailed === undefined ? {} : { onFailed }), ...(observer === undefined ? {} : { observer }) };
  const store = await FileUserStore.open({ path, lockWaitMsMax, now: () => new Date(), report, ...more });
  return {
    store,
    where: path,
    secrets: new SecretFiles(directory),
    facts: () => ({ users: store.size, fileBytes: store.bytes.file, deadBytes: store.bytes.dead }),
    trouble: () => store.trouble,
    isWell: () => !store.isFailed,
  };
}

/** Where nothing may be made: throws `cannot-start` if there is no users' file. */
export function requireUsers({ data, etcd }: Pick<StoreConfig, 'data' | 'etcd'>): void {
  const file = join(data, 'users.jsonl');
  if (etcd !== undefined || existsSync(file)) return;
  throw new RegistrarError('cannot-start', `There is no users' file "${file}"; name its directory with --data`);
}

/** The secrets alone: no users' file is made for them. */
export async function openSecrets(config: StoreConfig, report: OpenStoreOptions['report']): Promise<OpenedSecrets> {
  if (config.etcd === undefined) return { secrets: new SecretFiles(prepareDirectory(config.data)), close: async () => undefined };
  const { store, secrets } = await openCluster(config.etcd, report);
  return { secrets, close: () => store.close() };
}

async function openCluster(config: EtcdConfig, report: OpenStoreOptions['report']): Promise<OpenedStore> {
  const { endpoints, prefix, ca, cert, key, user, passwordFile } = config;
  const tls = {
    ...(ca === undefined ? {} : { ca: readPem('etcd-ca', ca) }),
    ...(cert === undefined ? {} : { cert: readPem('etcd-cert', cert) }),
    ...(key === undefined ? {} : { key: readPem('etcd-key', key) }),
  };
  const password = passwordFile === undefined ? undefined : readSecretFile(passwordFile);
  if (passwordFile !== undefined && password === undefined) {
    throw new RegistrarError('cannot-start', `--etcd-password-file ${passwordFile}: there is no such file`);
  }
  const credentials = user === undefined || password === undefined ? {} : { user, password: password.replace(/\r?\n$/, '') };
  const store = await EtcdUserStore.open({ endpoints, prefix, tls, ...credentials, report });
  const { secrets } = store;
  const shared: SecretStore = {
    get: (name) => secrets.get(name),
    putIfAbsent: async (name, value) => (await secrets.putIfAbsent(name, value)) === value,
    replace: async (name, expected, value) =>
      expected === undefined ? (await secrets.putIfAbsent(name, value)) === value : secrets.replace(name, expected, value),
  };
  let known: string | undefined;
  // Whoever asks is answered at once, with what came of the question before.
  const trouble = (): string | undefined => {
    store.health().then(({ reason }) => (known = reason), () => undefined);
    return known;
  };
  return { store, where: `etcd at ${endpoints.join(', ')}`, secrets: shared, facts: () => ({}), trouble, isWell: () => true };
}

function readPem(flag: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new RegistrarError('cannot-start', `--${flag} ${path}: it cannot be read (${messageOf(cause)})`, { cause });
  }
}
