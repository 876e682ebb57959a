/** Users in from elsewhere, and out: wiring for the commands import and export, which run beside the services. */

import { existsSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { ExportConfig, ImportConfig } from './command-config.ts';
import { RegistrarError } from './errors.ts';
import { openPolicy, reportWeakness } from './open-policy.ts';
import { openStore, requireUsers } from './open-store.ts';
import { Hasher } from './password/hasher.ts';
import { MemoryUserStore } from './store/memory.ts';
import { exportText } from './transfer/export.ts';
import { importLines } from './transfer/import.ts';
import type { ImportResult } from './transfer/import.ts';
import { writeWholeFile } from './transfer/whole-file.ts';
import type { UserStore } from './user-store.ts';

export type { ImportResult };

export interface ImportParts {
  readonly input: AsyncIterable<Uint8Array>;
  readonly report: (line: string) => void;
  /** Ends it early, after what is being written. */
  readonly signal: AbortSignal;
}

/** Takes users in, with a result for each line. Rejects as `openApp` does, and with what reading the input does. */
export async function* importUsers(config: ImportConfig, { input, report, signal }: ImportParts): AsyncGenerator<readonly ImportResult[]> {
  if (!config.isDryRun) reportWeakness(config.kdf, report);
  const store = await openForImport(config, report);
  const hasher = new Hasher({ kdf: config.kdf, workers: availableParallelism(), waitMsMax: Infinity, queueMax: config.hashQueueMax });
  try {
    const { from, isDryRun } = config;
    yield* importLines(input, { store, hasher, policy: openPolicy(config), now, from, isDryRun, signal });
  } finally {
    await hasher.close();
    await store.close();
  }
}

/** A dry run makes no file where there is none. */
async function openForImport(config: ImportConfig, report: (line: string) => void): Promise<UserStore> {
  const { data, etcd, isDryRun } = config;
  if (isDryRun && etcd === undefined && !existsSync(join(data, 'users.jsonl'))) return new MemoryUserStore();
  return (await openStore(config, { report })).store;
}

export interface ExportParts {
  /** Where it goes, if the config names no file. */
  readonly write: (bytes: Buffer) => Promise<void>;
  readonly report: (line: string) => void;
  readonly signal: AbortSignal;
}

/** Gives all users out. Rejects with what the store, `write` or the file to write does. */
export async function exportUsers(config: ExportConfig, { write, report, signal }: ExportParts): Promise<void> {
  requireUsers(config);
  if (config.etcd === undefined && config.output !== undefined && isSameFile(config.output, join(config.data, 'users.jsonl'))) {
    throw new RegistrarError('usage', `--output ${config.output}: it is the users' file itself`);
  }
  const { store } = await openStore(config, { report });
  try {
    const text = exportText(store, config.isJson);
    if (config.output !== undefined) await writeWholeFile(config.output, text, signal);
    else for await (const bytes of text) await write(bytes);
  } finally {
    await store.close();
  }
}

function isSameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => statSync(path, { throwIfNoEntry: false }));
  return a !== undefined && a.ino === b?.ino && a.dev === b.dev;
}

function now(): Date {
  return new Date();
}
