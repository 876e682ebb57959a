/**
 * The two modes of the service. In unauthenticated mode, for the exercise and for trying the service, every direct client
 * of this machine may do everything. A marker in the data directory tells that the service was in authenticated mode, so
 * that a token that is lost does not open the service.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { writeDurableFile } from '../durable-file.ts';
import { RegistrarError } from '../errors.ts';

export type Mode = 'unauthenticated' | 'authenticated';

export interface ModeConfig {
  readonly host: string;
  readonly socket: string | undefined;
  readonly data: string;
  readonly isCluster: boolean;
  /** `--open`: unauthenticated mode is wanted. */
  readonly isOpen: boolean;
}

const markerName = 'authenticated-mode';
const markerText = 'The service was in authenticated mode on this directory. Without an admin token it starts with --open only.\n';

/** Clients name these hosts in `Host`. */
const loopbackHosts: ReadonlySet<string> = new Set(['127.0.0.1', 'localhost', '::1']);

/** Remembers authenticated mode in the data directory. */
export async function markAuthenticated(data: string): Promise<void> {
  await writeDurableFile(join(data, markerName), [Buffer.from(markerText)], { isNew: true });
}

/** Throws `cannot-start` where unauthenticated mode would be a mistake, or contradicts the admin token. */
export function checkMode(mode: Mode, { host, socket, data, isCluster, isOpen }: ModeConfig): void {
  if (mode === 'authenticated') {
    if (isOpen) throw refusal('--open means unauthenticated mode, and there is an admin token. Remove the token or the flag.');
    return;
  }
  if (socket !== undefined || !loopbackHosts.has(host)) {
    const where = socket === undefined ? `--host ${host}` : `--socket ${socket}`;
    throw refusal(`${where} needs an admin token: without one the service listens on 127.0.0.1 only. Run "registrar token".`);
  }
  if (isOpen) return;
  if (isCluster) {
    const remedy = 'Set REGISTRAR_ADMIN_TOKEN_FILE, or start with --open to give this machine access to all users';
    throw refusal(`--etcd needs an admin token: a cluster has other services. ${remedy}.`);
  }
  if (existsSync(join(data, markerName))) {
    const remedy = `Restore the token, run "registrar token --data ${data}" for a new one, or start with --open`;
    throw refusal(`The data directory "${data}" was in authenticated mode, and there is no admin token. ${remedy}.`);
  }
}

function refusal(detail: string): RegistrarError {
  return new RegistrarError('cannot-start', detail);
}
