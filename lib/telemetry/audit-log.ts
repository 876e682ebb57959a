/**
 * The audit log: who changed what and when, and which credentials were rejected, as one JSON line for each event.
 *
 *   {"time":"…","event":"password-changed","actor":"user:17","target":17,"client":"192.0.2.7","request":"2e8516d8dfc51b08"}
 *
 * A line is appended after the change, by one write(2), so that processes can share the file; it is not synced. A failure is
 * reported and counted, and never fails or delays a request. A file that was renamed is noticed, and a torn last line is closed.
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
  /** `user:17`, `admin`, `metrics`, `anonymous`, `unauthenticated`, `service`, or `command:1000` with the uid. */
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

const minuteMs = 60_000;
const clientsMax = 10_000;
const pendingMax = 20_000;

export class AuditLog {
  readonly #options: AuditLogOptions;
  readonly #timer: NodeJS.Timeout;
  /** Rejections of each client in this minute besides the first, so that no client fills the disk. */
  readonly #rejections = new Map<string, number>();
  #minute = 0;
  /** Read for the first rejection. */
  #key: string | undefined;
  #pending: { readonly time: Date; readonly event: AuditEvent; readonly login: string | undefined }[] = [];
  #writing: Promise<void> | undefined;
  #file: { readonly handle: FileHandle; readonly inode: number } | undefined;
  #reportedAt = -Infinity;
  #failures = 0;

  constructor(options: AuditLogOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#endMinute(), minuteMs).unref();
  }

  /** Events that were not written. */
  get failures(): number {
    return this.#failures;
  }

  /** @param login that was tried; its keyed hash becomes the detail. */
  record(event: AuditEvent, login?: string): void {
    if (this.#pending.length >= pendingMax) return this.#fail(new Error('the disk is too slow'));
    this.#pending.push({ time: this.#options.now(), event, login });
    this.#writing ??= this.#write().finally(() => (this.#writing = undefined));
  }

  /** Credentials were rejected: the first of a client in a minute is an event, the others are one count. */
  rejected(event: Pick<AuditEvent, 'actor' | 'client' | 'request'>, login?: string): void {
    const minute = Math.floor(this.#options.now().getTime() / minuteMs);
    if (minute !== this.#minute) this.#endMinute();
    this.#minute = minute;
    const name = event.client ?? '';
    const client = this.#rejections.has(name) || this.#rejections.size < clientsMax ? name : 'other clients';
    const count = this.#rejections.get(client);
    this.#rejections.set(client, (count ?? -1) + 1);
    if (count === undefined) this.record({ event: 'rejected', ...event, client }, login);
  }

  /** Resolves when all events are written, or cannot be. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#endMinute();
    await this.#writing;
    await this.#file?.handle.close();
    this.#file = undefined;
  }

  #endMinute(): void {
    for (const [client, count] of this.#rejections) {
      if (count > 0) this.record({ event: 'rejected', actor: 'anonymous', client, count });
    }
    this.#rejections.clear();
  }

  async #write(): Promise<void> {
    while (this.#pending.length > 0) {
      const pending = this.#pending;
      this.#pending = [];
      const lines: string[] = [];
      for (const { time, event: plain, login } of pending) {
        const event = login === undefined ? plain : { ...plain, detail: await this.#hashOf(login) };
        this.#options.log?.(event);
        lines.push(JSON.stringify({ time: time.toISOString(), ...event }));
      }
      if (this.#options.path === undefined) continue;
      try {
        await (await this.#open(this.#options.path)).appendFile(`${lines.join('\n')}\n`);
      } catch (error) {
        // On a read-only mount, and without a data directory, the operator gets the events themselves.
        if (!['EROFS', 'ENOENT'].includes(systemCode(error) ?? '')) this.#fail(error, lines.length);
        else for (const line of lines) this.#options.report(`audit: ${line}`);
      }
    }
  }

  /** Undefined if the key cannot be read, which counts as a failure: the event is written without it. */
  async #hashOf(login: string): Promise<string | undefined> {
    try {
      this.#key ??= await this.#options.key();
      return `login ${createHmac('sha256', this.#key).update(login).digest('hex').slice(0, 32)}`;
    } catch (error) {
      this.#fail(error);
      return undefined;
    }
  }

  /** The file at the path, which logrotate may have renamed since. */
  async #open(path: string): Promise<FileHandle> {
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

  #fail(error: unknown, events = 1): void {
    this.#failures += events;
    const now = performance.now();
    if (now - this.#reportedAt < minuteMs) return;
    this.#reportedAt = now;
    this.#options.report(`Cannot write the audit log "${this.#options.path}": ${messageOf(error)}. Events are lost.`);
  }
}
