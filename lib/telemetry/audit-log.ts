/**
 * The audit log: who changed what and when, and which credentials were rejected, as one JSON line for each event.
 *
 *   {"time":"…","event":"password-changed","actor":"user:17","target":17,"client":"192.0.2.7","request":"2e8516d8dfc51b08"}
 *
 * A line is appended after the change, by one write(2), so that processes can share the file; it is not synced. A failure is
 * reported and counted, and never fails or delays a request. A file that was renamed is noticed, and a torn last line is closed.
 * The rejections of a client are one line and then one count a minute, so that no client fills the disk.
 */

import { createHmac } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { messageOf, systemCode } from '../errors.ts';

export type AuditEventName =
  | 'registered' | 'invited' | 'signed-in' | 'rejected' | 'password-changed' | 'link-issued' | 'link-used' | 'disabled' | 'enabled'
  | 'sessions-ended' | 'removed' | 'imported' | 'exported' | 'restored' | 'repaired' | 'token-made' | 'keys-rotated' | 'keys-revoked'
  | 'mode-changed';

export interface AuditEvent {
  readonly event: AuditEventName;
  /** `user:17`, `admin`, `metrics`, `anonymous`, `unauthenticated`, or `command:1000` with the uid. */
  readonly actor: string;
  /** The id of the user that the event is about. */
  readonly target?: number;
  readonly client?: string;
  readonly request?: string;
  /** How many users, or how many rejections besides the first. */
  readonly count?: number;
  readonly detail?: string;
}

export interface AuditLogOptions {
  /** Undefined to write no file. */
  readonly path: string | undefined;
  /** The key of the HMAC of a login that was tried. It is the installation's own: logins cannot be guessed without it. */
  readonly key: () => Promise<string>;
  readonly now: () => Date;
  /** One line for the operator. */
  readonly report: (line: string) => void;
  /** Also receives each event. */
  readonly log?: (event: AuditEvent) => void;
}

const windowMs = 60_000;
const clientsMax = 10_000;
const pendingLengthMax = 4 << 20;
const reportMs = 60_000;
const overflow = 'other clients';

interface Window {
  readonly until: number;
  count: number;
}

export class AuditLog {
  readonly #options: AuditLogOptions;
  readonly #windows = new Map<string, Window>();
  readonly #timer: NodeJS.Timeout;
  #pending = '';
  /** Rejections whose login is being hashed: the first of an installation makes the key. */
  readonly #hashing = new Set<Promise<void>>();
  #writing: Promise<void> | undefined;
  #file: { readonly handle: FileHandle; readonly inode: number } | undefined;
  #reportedAt = -Infinity;
  #failures = 0;

  constructor(options: AuditLogOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#endWindows(), windowMs).unref();
  }

  /** Events that were not written. */
  get failures(): number {
    return this.#failures;
  }

  record(event: AuditEvent): void {
    const { path, now, log } = this.#options;
    log?.(event);
    if (path === undefined) return;
    if (this.#pending.length > pendingLengthMax) return this.#fail(new Error('the disk is too slow'));
    this.#pending += `${JSON.stringify({ time: now().toISOString(), ...event })}\n`;
    this.#writing ??= this.#write().finally(() => (this.#writing = undefined));
  }

  /** Credentials were rejected. @param login that was tried, if there was one. */
  rejected(event: Omit<AuditEvent, 'event' | 'detail'>, login?: string): void {
    const now = this.#options.now().getTime();
    const name = event.client ?? '';
    const client = this.#windows.has(name) || this.#windows.size < clientsMax ? name : overflow;
    const window = this.#windows.get(client);
    if (window !== undefined && now < window.until) {
      window.count++;
      return;
    }
    if (window !== undefined) this.#endWindow(client, window);
    this.#windows.set(client, { until: now + windowMs, count: 0 });
    if (login === undefined) this.record({ event: 'rejected', ...event, client });
    else this.#hash(login, { event: 'rejected', ...event, client });
  }

  /** Writes what is left. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#hashing);
    for (const [client, window] of this.#windows) this.#endWindow(client, window);
    await this.#writing;
    await this.#file?.handle.close();
    this.#file = undefined;
  }

  #hash(login: string, event: AuditEvent): void {
    const hashing = this.#recordTried(login, event).finally(() => this.#hashing.delete(hashing));
    this.#hashing.add(hashing);
  }

  async #recordTried(login: string, event: AuditEvent): Promise<void> {
    try {
      const tried = createHmac('sha256', await this.#options.key()).update(login).digest('hex').slice(0, 32);
      this.record({ ...event, detail: `login ${tried}` });
    } catch (error) {
      this.#fail(error);
      this.record(event);
    }
  }

  #endWindows(): void {
    const now = this.#options.now().getTime();
    for (const [client, window] of this.#windows) if (now >= window.until) this.#endWindow(client, window);
  }

  #endWindow(client: string, { count }: Window): void {
    this.#windows.delete(client);
    if (count > 0) this.record({ event: 'rejected', actor: 'anonymous', client, count });
  }

  async #write(): Promise<void> {
    while (this.#pending !== '') {
      const text = this.#pending;
      this.#pending = '';
      try {
        await (await this.#open()).appendFile(text);
      } catch (error) {
        // On a read-only mount, and without a data directory, the operator gets the events themselves.
        const isWithoutFile = ['EROFS', 'ENOENT'].includes(systemCode(error) ?? '');
        if (isWithoutFile) for (const line of text.trimEnd().split('\n')) this.#options.report(`audit: ${line}`);
        else this.#fail(error);
      }
    }
  }

  /** The file at the path, which logrotate may have renamed since. */
  async #open(): Promise<FileHandle> {
    const { path = '' } = this.#options;
    const found = await stat(path).catch((error: unknown) => {
      if (systemCode(error) !== 'ENOENT') throw error;
      return undefined;
    });
    if (this.#file !== undefined && found?.ino === this.#file.inode) return this.#file.handle;
    await this.#file?.handle.close();
    this.#file = undefined;
    const handle = await open(path, 'a+', 0o600);
    const { ino: inode, size } = await handle.stat();
    this.#file = { handle, inode };
    const last = size === 0 ? undefined : (await handle.read(Buffer.alloc(1), 0, 1, size - 1)).buffer[0];
    if (last !== undefined && last !== 0x0a) await handle.appendFile('\n');
    return handle;
  }

  #fail(error: unknown): void {
    this.#failures++;
    const now = performance.now();
    if (now - this.#reportedAt < reportMs) return;
    this.#reportedAt = now;
    this.#options.report(`Cannot write the audit log "${this.#options.path}": ${messageOf(error)}. Events are lost.`);
  }
}
