/** The command `proxy`: prints a site for nginx, Apache or Caddy that fits the service as its flags say, or runs both. */

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { StaticToken } from '../../lib/auth/static-token.ts';
import { flags } from '../../lib/config.ts';
import type { Config } from '../../lib/config.ts';
import { proxySite } from '../../lib/deploy/site.ts';
import type { ProxyName, SiteOptions } from '../../lib/deploy/site.ts';
import { RegistrarError, messageOf, systemCode } from '../../lib/errors.ts';
import { usage } from '../../lib/flags.ts';
import type { Command } from './command.ts';
import { runBehindProxy } from './proxy-run.ts';

export const proxy: Command = {
  name: 'proxy',
  words: 'nginx|apache|caddy',
  summary: 'prints or runs nginx, Apache or Caddy in front of the service',
  about: `
Prints a complete site for nginx, Apache or Caddy, in front of a service that is
started with the same flags: HTTPS, a redirect from plain HTTP, the certificate
of the service verified, its limits and times, and clients known by their own
addresses. The service needs an admin token: "registrar token". With --run it is
made, and the ports are 8080 and 8444 of 127.0.0.1 by default.`,
  examples: [
    'registrar proxy nginx --trusted-proxy 127.0.0.1 --public-url https://a.example',
    'registrar proxy apache --http --socket /run/registrar --trusted-proxy unix',
    'registrar proxy caddy --trusted-proxy ::1 --auth-for http://127.0.0.1:3000',
  ],
  run: async ({ config: read, given, words: [server] }, terminal) => {
    if (server !== 'nginx' && server !== 'apache' && server !== 'caddy') {
      throw usage('"registrar proxy" needs nginx, apache or caddy. See "registrar help proxy".');
    }
    const config = absolute(read.run ? { ...read, ...runDefaults(read, given) } : read);
    const site = (own: Config, directory?: string): string => siteText(server, { config: own, given, directory });
    if (config.run) return runBehindProxy(server, config, site, terminal);
    const { adminToken: configured, data } = config;
    if (!new StaticToken({ name: 'admin', configured, directory: data, report: terminal.say }).isSet()) {
      const reason = 'Without an admin token the service rejects what comes through a proxy.';
      throw new RegistrarError('cannot-start', `${reason} Run: registrar token`);
    }
    await terminal.print(site(config));
  },
};

/** What --run has where nothing else is given. */
function runDefaults(config: Config, given: ReadonlyMap<string, string>): Pick<Config, 'listen' | 'listenTls' | 'trustedProxy'> {
  return {
    listen: given.has('listen') ? config.listen : { address: '127.0.0.1', port: 8080 },
    listenTls: given.has('listen-tls') ? config.listenTls : { address: '127.0.0.1', port: 8444 },
    trustedProxy: (given.has('trusted-proxy') ? undefined : flags['trusted-proxy'].type.read('127.0.0.1,::1,unix')) ?? config.trustedProxy,
  };
}

/** The site of a configuration with absolute paths. */
export function siteText(server: ProxyName, options: Omit<SiteOptions, 'certificates'>): string {
  const { http, certs, proxyCert } = options.config;
  const own = `${certs}/cert.pem`;
  return proxySite(server, { ...options, certificates: { service: http ? undefined : read(own), proxy: read(proxyCert ?? own) } });
}

/** The server that reads the site has another directory. */
function absolute(config: Config): Config {
  const whole = (path: string | undefined): string | undefined => (path === undefined ? undefined : resolve(path));
  const { data, certs, socket, proxyCert, proxyKey, upstreamCa } = config;
  return {
    ...config, data: resolve(data), certs: resolve(certs),
    socket: whole(socket), proxyCert: whole(proxyCert), proxyKey: whole(proxyKey), upstreamCa: whole(upstreamCa),
  };
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    const code = systemCode(cause);
    const what = code === 'ENOENT' ? 'does not exist. Run: make cert' : `cannot be read (${code ?? messageOf(cause)}).`;
    throw new RegistrarError('cannot-start', `The certificate "${path}" ${what}`, { cause });
  }
}
