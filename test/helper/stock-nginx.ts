/** nginx with nothing but a `proxy_pass` in its site, as it stands in most guides. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { certificates } from './service.ts';
import { temporaryDirectory, until } from './temporary.ts';

export const nginx = '/usr/sbin/nginx';

export interface StockNginx {
  /** HTTPS; each of the `headers` that was asked for is a port of its own. */
  readonly urls: readonly string[];
  /** What it has passed on: request lines, as it read them. It is complete when nothing is being asked. */
  readonly passed: () => readonly string[];
}

/**
 * @param upstream as in `https://127.0.0.1:8443`.
 * @param sites directives beside `proxy_pass`, one text for each port.
 */
export async function spawnNginx(t: Pick<TestContext, 'after'>, upstream: string, sites: readonly string[] = ['']): Promise<StockNginx> {
  const directory = temporaryDirectory(t);
  const ports = await Promise.all(sites.map(() => freePort()));
  const certs = certificates();
  const servers = sites.map((directives, n) => `server {
    listen 127.0.0.1:${ports[n]} ssl; ssl_certificate ${certs}/cert.pem; ssl_certificate_key ${certs}/key.pem;
    location / { proxy_pass ${upstream}; ${directives} } }`);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${directory}/${name};`);
  const log = join(directory, 'access.log');
  writeFileSync(join(directory, 'nginx.conf'), `daemon off; master_process off; pid ${directory}/pid; error_log ${directory}/error.log;
    events { worker_connections 1024; }
    http { ${temporary.join(' ')} log_format seen escape=json '$upstream_status $request'; access_log ${log} seen; ${servers.join('\n')} }`);
  const child = spawn(nginx, ['-p', directory, '-c', join(directory, 'nginx.conf'), '-e', join(directory, 'error.log')]);
  const ended = once(child, 'exit');
  let said = '';
  child.stderr.on('data', (chunk) => (said += chunk));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  await until(() => {
    if (child.exitCode !== null) throw new Error(`nginx has ended: ${said}${readFileSync(join(directory, 'error.log'), 'utf8')}`);
    try {
      return readFileSync(join(directory, 'pid'), 'utf8').trim() === String(child.pid);
    } catch {
      return false;
    }
  }, 'nginx to listen');
  return {
    urls: ports.map((port) => `https://127.0.0.1:${port}`),
    passed: () => readFileSync(log, 'utf8').split('\n').filter((line) => /^\d/.test(line)),
  };
}

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
