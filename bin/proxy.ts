/** The command `proxy`: prints a site for nginx or Apache that fits the service as its flags say, or runs both. */

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { RegistrarError, messageOf, systemCode } from '../lib/errors.ts';
import { apacheSite } from '../lib/proxy/apache.ts';
import { parseProxyConfig } from '../lib/proxy/config.ts';
import type { ProxyConfig } from '../lib/proxy/config.ts';
import { nginxSite } from '../lib/proxy/nginx.ts';
import { proxySite } from '../lib/proxy/site.ts';
import { AdminToken, adminTokenName } from '../lib/session/admin-token.ts';
import { runBehindProxy } from './proxy-run.ts';
import { say } from './terminal.ts';

export const proxyUsage = `Usage: registrar proxy nginx|apache [flags]

Prints a whole site for nginx or Apache, in front of a service that is started
with the same flags: HTTPS, plain HTTP sent there, the service verified, limits
and times as the service's, clients known by their own addresses. It takes all
flags of serve, and:

  --listen 80        the port for plain HTTP, or address and port
  --listen-tls 443   the port for HTTPS, the same way
  --server-name NAME what the world calls it; by default as in --public-url
  --proxy-cert FILE --proxy-key FILE
                     another certificate for the world than the service's own
  --upstream-ca FILE what verifies the service's certificate, if neither it
                     itself nor the system does
  --also 127.0.0.1:8453,/run/registrar/2
                     other instances on the same users: while one is started
                     anew, another answers
  --hsts             browsers are to ask for HTTPS alone, for two years
  --auth-for http://127.0.0.1:3000
                     nginx: another application there, whose requests go on with
                     the user in X-User, or do not go on
  --sign-in /sign-in where browsers are sent that are not signed in
  --whole DIRECTORY  a whole configuration, for a server that runs for this alone
                     and keeps everything in the directory
  --run              runs the service and nginx or Apache in front of it, until
                     Ctrl-C; by default on 127.0.0.1, ports 8080 and 8444
  --help

There has to be an admin token: registrar token. With --run it is made.
Exit codes: 0 done, 1 refused or failed, 2 usage.

  registrar proxy nginx --trusted-proxy 127.0.0.1 --server-name registrar.example
  registrar proxy apache --http --socket /run/registrar/http --certs certs \\
    --trusted-proxy unix
`;

export async function proxyCommand(args: readonly string[]): Promise<void> {
  const [server, ...flags] = args;
  if (server !== 'nginx' && server !== 'apache') {
    throw new RegistrarError('usage', `registrar proxy ${server ?? ''}: it has to be nginx or apache; try registrar proxy --help`);
  }
  const isRun = flags.includes('--run');
  const config = absolute(parseProxyConfig(isRun ? [...runDefaults, ...flags] : flags, process.env));
  if (isRun) {
    await runBehindProxy(server, config, (running) => text(server, running));
    return;
  }
  const { adminToken, data } = config.service;
  if (!AdminToken.open({ env: adminToken, path: join(data, adminTokenName), report: say }).isSet()) {
    const detail = 'there is no admin token, and without one the service refuses what comes by a proxy: make one: registrar token';
    throw new RegistrarError('cannot-start', `registrar proxy: ${detail}`);
  }
  process.stdout.write(text(server, config));
}

/** What --run has where nothing else is said; a flag that comes again wins. */
const runDefaults = ['--listen', '127.0.0.1:8080', '--listen-tls', '127.0.0.1:8444', '--trusted-proxy', '127.0.0.1,::1,unix'];

function text(server: 'nginx' | 'apache', config: ProxyConfig): string {
  const { service, cert } = config;
  const own = `${service.certs}/cert.pem`;
  const site = proxySite(config, { service: service.isPlain ? undefined : read(own), shown: read(cert ?? own) });
  return server === 'nginx' ? nginxSite(site) : apacheSite(site, service.publicUrl);
}

/** The server that reads the site has another directory. */
function absolute(config: ProxyConfig): ProxyConfig {
  const whole = (path: string | undefined): string | undefined => (path === undefined ? undefined : resolve(path));
  const { service } = config;
  return {
    ...config,
    service: { ...service, data: resolve(service.data), certs: resolve(service.certs), socket: whole(service.socket) },
    cert: whole(config.cert),
    key: whole(config.key),
    upstreamAuthorities: whole(config.upstreamAuthorities),
    whole: whole(config.whole),
  };
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    const code = systemCode(cause);
    const what = code === 'ENOENT' ? 'is not there; make one with: make cert' : `cannot be read (${code ?? messageOf(cause)})`;
    throw new RegistrarError('cannot-start', `The certificate "${path}" ${what}`, { cause });
  }
}
