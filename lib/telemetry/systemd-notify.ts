/**
 * Tells systemd that a service of Type=notify is ready, alive (the watchdog) and stopping. Node has no unix datagrams, so the
 * program systemd-notify sends them. Nothing runs without NOTIFY_SOCKET.
 */

import { execFile } from 'node:child_process';

const timeoutMs = 10_000;

export class SystemdNotifier {
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #report: (line: string) => void;
  #hasFailed = false;

  /** @param env has NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. @param report one line for the operator's log. */
  constructor(env: Readonly<Record<string, string | undefined>>, report: (line: string) => void) {
    this.#env = env;
    this.#report = report;
  }

  /** The service listens. From now on the watchdog is notified twice in each of its intervals. */
  ready(url: string): void {
    void this.#notify('READY=1', `STATUS=Listens on ${url}`);
    const { WATCHDOG_USEC: microseconds, WATCHDOG_PID: pid = String(process.pid) } = this.#env;
    if (microseconds === undefined || pid !== String(process.pid)) return;
    setInterval(() => void this.#notify('WATCHDOG=1'), Number(microseconds) / 2000).unref();
  }

  /** The watchdog goes on: stopping can hang as well. */
  stopping(): Promise<void> {
    return this.#notify('STOPPING=1', 'STATUS=Stopping');
  }

  #notify(...states: readonly string[]): Promise<void> {
    const { NOTIFY_SOCKET, PATH } = this.#env;
    if (NOTIFY_SOCKET === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      // Other variables stay here: one may be a secret.
      execFile('systemd-notify', states, { env: { NOTIFY_SOCKET, PATH }, timeout: timeoutMs }, (error) => {
        if (error !== null && !this.#hasFailed) this.#report(`systemd-notify ${states.join(' ')} failed: ${error.message.trim()}.`);
        this.#hasFailed = error !== null;
        resolve();
      });
    });
  }
}
