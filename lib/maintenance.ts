/** What is done to a data directory beside the service, and while it runs: wiring for the commands that do it. */

import { join } from 'node:path';
import { fixed } from './config.ts';
import type { DataConfig, TokenConfig } from './command-config.ts';
import { RegistrarError, systemCode } from './errors.ts';
import { openSecrets, requireUsers } from './open-store.ts';
import { adminTokenName, newAdminToken } from './session/admin-token.ts';
import { SecretFiles } from './session/secret-files.ts';
import { SigningKeys } from './session/signing-keys.ts';
import { prepareDirectory } from './store/file/directory.ts';
import { nodeFileSystem } from './store/file/file-system.ts';
import { check, repair, survey } from './store/file/repair.ts';
import type { CheckResult } from './store/file/repair.ts';
import { describeLosses } from './store/file/salvage.ts';
import { FileUserStore } from './store/file/store.ts';
import type { Compacted } from './store/file/store.ts';

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

export interface AdminTokenMade {
  readonly value: string;
  readonly path: string;
  readonly isNew: boolean;
}

/** The admin token of a data directory; it and the directory are made if they are not there. */
export async function makeAdminToken({ data, isNew }: TokenConfig): Promise<AdminTokenMade> {
  const directory = prepareDirectory(data);
  const path = join(directory, adminTokenName);
  const secrets = new SecretFiles(directory);
  for (;;) {
    const value = secrets.get(adminTokenName);
    if (value !== undefined && !isNew) return { value: value.trim(), path, isNew: false };
    const made = newAdminToken();
    if (await secrets.replace(adminTokenName, value, `${made}\n`)) return { value: made, path, isNew: true };
  }
}

/** Another key for session tokens; resolves with its id. */
export async function rotateSigningKey(config: TokenConfig, report: (line: string) => void): Promise<string> {
  const { secrets, close } = await openSecrets(config, report);
  try {
    const keys = await SigningKeys.open({ secrets, now, report, keepSeconds: fixed.sessionSeconds });
    return (await keys.rotate()).kid;
  } finally {
    await close();
  }
}

/** Of a store that is looked after; none is made. */
function usersFile({ data }: DataConfig): string {
  requireUsers({ data, etcd: undefined });
  return join(prepareDirectory(data), 'users.jsonl');
}

function now(): Date {
  return new Date();
}
