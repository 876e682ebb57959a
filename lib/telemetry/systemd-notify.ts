/**
 * What systemd wants to know of a service of Type=notify: that it is ready, that it still lives, that it ends. Node has no
 * unix datagrams, so systemd's own program says it. Nothing is run where nobody asked for it.
 */

import { execFile } from 'node:child_process';

export interface NotifyOptions {
  /** For NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** One line for the operator's log. */
  readonly report: (line: string) => void;
}

/** It may take a while on a machine that is busy; what comes too late is not worth waiting for. */
const timeoutMs = 10_000;

export class SystemdNotifier {
  readonly #options: NotifyOptions;
  #timer: NodeJS.Timeout | undefined;
  #hasFailed = false;

  constructor(options: NotifyOptions) {
    this.#options = options;
  }

  /** It serves. From now on it also says twice in each interval of the watchdog that the event loop turns. */
  ready(url: string): void {
    void this.#tell('READY=1', `STATUS=Listens on ${url}`);
    const intervalMs = this.#watchdogMs();
    if (intervalMs === undefined || this.#options.env.NOTIFY_SOCKET === undefined) return;
    this.#timer = setInterval(() => void this.#tell('WATCHDOG=1'), intervalMs / 2).unref();
  }

  /** Resolves when systemd was told. The watchdog goes on: ending can hang as well. */
  stopping(): Promise<void> {
    return this.#tell('STOPPING=1', 'STATUS=Ends');
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Undefined if there is no watchdog, or it watches another process. */
  #watchdogMs(): number | undefined {
    const { WATCHDOG_USEC: microseconds = '', WATCHDOG_PID: pid = String(process.pid) } = this.#options.env;
    if (!/^[1-9]\d*$/.test(microseconds) || pid !== String(process.pid)) return undefined;
    return Number(microseconds) / 1000;
  }

  #tell(...what: readonly string[]): Promise<void> {
    const { env, report } = this.#options;
    const { NOTIFY_SOCKET: socket, PATH: path } = env;
    if (socket === undefined || socket === '') return Promise.resolve();
    return new Promise((resolve) => {
      // Nothing else of the environment: there may be a secret in it.
      const options = { env: { NOTIFY_SOCKET: socket, PATH: path }, timeout: timeoutMs };
      execFile('systemd-notify', [...what], options, (error) => {
        if (error !== null && !this.#hasFailed) report(`systemd-notify ${what.join(' ')} failed: ${error.message.trim()}`);
        this.#hasFailed = error !== null;
        resolve();
      });
    });
  }
}
