/**
 * A whole site for Apache (2.4.54 and later) in front of the service; pure text. The comments in it are for whoever keeps
 * it. It stands before the service only: asking it who is signed in, for another application, is nginx's.
 */

import { RegistrarError } from '../errors.ts';
import type { ProxyListen } from './config.ts';
import { hstsSeconds, intermediateCiphers, problemText, retrySeconds } from './site.ts';
import type { Site, Upstream } from './site.ts';

/** Two virtual hosts, or with `whole` a main configuration to be run by itself. Throws `usage`. */
export function apacheSite(site: Site, publicUrl: string | undefined): string {
  if (site.auth !== undefined) {
    const detail = '--auth-for: Apache asks nobody for other applications; registrar proxy nginx prints a site that does';
    throw new RegistrarError('usage', detail);
  }
  if (site.verify !== undefined && publicUrl === undefined) {
    const detail = 'Apache verifies the service by the Host that it sends on, so the service has to be told its own name: give serve, ' +
      `and this, --public-url ${site.origin}; or let the service listen with --socket and --http`;
    throw new RegistrarError('usage', detail);
  }
  const text = `${header(site)}${listening(site)}
${redirectHost(site)}
${tlsHost(site)}`;
  return site.whole === undefined ? text : wholeConfiguration(site.whole, site, text);
}

function modules({ upstreams }: Site): string[] {
  return ['ssl', 'proxy', 'proxy_http', 'headers', 'reqtimeout', 'http2', 'alias', ...(upstreams.length > 1 ? balancerModules : [])];
}

const balancerModules = ['proxy_balancer', 'lbmethod_byrequests', 'slotmem_shm'];

function header(site: Site): string {
  const install = `# As a site of Debian's Apache: put it into /etc/apache2/sites-available/registrar.conf, then
#   a2enmod ${modules(site).join(' ')} && a2ensite registrar && apache2ctl configtest && systemctl restart apache2
# If the service listens on a socket, Apache's user has to be in the group of the service, which owns the socket,
# and may pass through its directory: adduser www-data registrar
`;
  return `# Registrar behind Apache, made by: registrar proxy apache
# It fits a service that is started as:
#   ${site.serve}
# Made anew when that changes; what is changed here by hand is lost then.
${site.whole === undefined ? install : ''}
`;
}

/** Debian's ports.conf listens on 80 and 443, and twice is an error. */
function listening({ http, https, whole }: Site): string {
  const usual = ({ address, port }: ProxyListen): boolean => whole === undefined && address === undefined && [80, 443].includes(port);
  const lines = [http, https].filter((port) => !usual(port)).map((port) => `Listen ${at(port)}\n`);
  return `${lines.join('')}ServerTokens Prod
ServerSignature Off
TraceEnable Off
SSLSessionCache "shmcb:${whole ?? '/var/run/apache2'}/registrar-tls(512000)"
# With the id under which the service's log, and its answer, know the request.
LogFormat "%a [%{%Y-%m-%dT%H:%M:%S%z}t] \\"%r\\" %>s %B %D %{X-Request-Id}o" registrar
`;
}

function redirectHost({ http, serverName, origin }: Site): string {
  return `<VirtualHost ${http.address ?? '*'}:${http.port}>
  ServerName ${serverName}
  # 308 keeps method and body (RFC 9110, 15.4.9). What was sent here was sent in the clear all the same.
  Redirect 308 "/" "${origin}/"
</VirtualHost>
`;
}

function tlsHost(site: Site): string {
  const { https, serverName, whole } = site;
  return `<VirtualHost ${https.address ?? '*'}:${https.port}>
  ServerName ${serverName}
  Protocols h2 http/1.1
  CustomLog "${whole ?? '${APACHE_LOG_DIR}'}/registrar.log" registrar
${tls(site)}${requestLimits(site)}${forwarding(site)}${toService(site)}${ownAnswers(site)}</VirtualHost>
`;
}

function tls({ certificate, key, isHsts, origin }: Site): string {
  const unreadable = problemText('malformed', 400, 'The request cannot be read', `This is not a request as it has to be; ask ${origin}`);
  const hsts = isHsts ? `  Header always set Strict-Transport-Security "max-age=${hstsSeconds}"\n` : '';
  return `
  SSLEngine on
  SSLCertificateFile "${certificate}"
  SSLCertificateKeyFile "${key}"
  # Mozilla's intermediate profile.
  SSLProtocol -all +TLSv1.2 +TLSv1.3
  SSLCipherSuite ${intermediateCiphers}
  SSLHonorCipherOrder off
  SSLSessionTickets off
${hsts}  # Plain HTTP at this port is told where to go.
  ErrorDocument 400 ${json(unreadable)}
`;
}

function requestLimits({ bodyBytesMax, headerBytesMax, headersSeconds, requestSeconds }: Site): string {
  return `
  # The service's own limits, so that what it would refuse does not reach it.
  LimitRequestBody ${bodyBytesMax}
  LimitRequestLine ${headerBytesMax}
  LimitRequestFieldSize ${headerBytesMax}
  LimitRequestFields 64
  # In all, however slowly it comes: a client that sends a byte a minute is shown out.
  RequestReadTimeout handshake=${headersSeconds} header=${headersSeconds} body=${requestSeconds}
`;
}

function forwarding({ verify }: Site): string {
  const host = verify === undefined
    ? "  # With the port, by which the service knows its own pages' requests from those of other sites.\n  ProxyPreserveHost On\n"
    : `  # Apache would verify the service by the client's Host otherwise; the service knows its own name by --public-url.
  ProxyPreserveHost Off
`;
  return `
  ProxyRequests Off
${host}  # Replaced, not added to: whatever a client claims to be is dropped. If another proxy stands in front of this one, name
  # it with RemoteIPInternalProxy, and REMOTE_ADDR will be the client's.
  ProxyAddHeaders Off
  ProxyVia Off
  RequestHeader unset Forwarded
  RequestHeader unset X-Real-IP
  RequestHeader set X-Forwarded-For "expr=%{REMOTE_ADDR}"
  RequestHeader set X-Forwarded-Proto https
`;
}

/**
 * Apache keeps a connection to the service without looking after it: on one that the service has closed meanwhile a
 * request is lost, and its client cannot know whether it was carried out.
 */
function toService(site: Site): string {
  const { verify, upstreams, answerSeconds } = site;
  const verification = verify === undefined ? '' : `  # Without this anybody on the way could be the service.
  SSLProxyEngine on
  SSLProxyVerify require
  SSLProxyVerifyDepth 3
  SSLProxyCACertificateFile "${verify.authorities}"
  SSLProxyCheckPeerName on
  SSLProxyCheckPeerExpire on
  SSLProxyProtocol -all +TLSv1.2 +TLSv1.3
`;
  // Alone it is always tried; one of several is left out for a second, or it would be its own substitute.
  const options = `disablereuse=on retry=${upstreams.length === 1 ? 0 : 1} connectiontimeout=2 timeout=${answerSeconds}`;
  const [first] = upstreams;
  const pass = upstreams.length === 1 && first !== undefined
    ? `  ProxyPass "/" "${target(first, site)}/" nocanon ${options}\n`
    : `  <Proxy "balancer://registrar">
${upstreams.map((upstream) => `    BalancerMember "${target(upstream, site)}" ${options}`).join('\n')}
  </Proxy>
  # Another instance is asked if one cannot be reached, and only then.
  ProxyPass "/" "balancer://registrar/" nocanon maxattempts=${upstreams.length}
`;
  return `
${verification}  # Each request gets a connection of its own. On a kept one it could meet the end of the service, and nobody would know
  # whether it was carried out. As long as a password may wait for its turn, an answer may take.
  AllowEncodedSlashes NoDecode
${pass}`;
}

function ownAnswers({ bodyBytesMax }: Site): string {
  const lost = 'Whether the request was carried out is not known: look before you repeat it';
  const sorry = 'The service does not answer: try again soon';
  const answers: [number, string][] = [
    [408, problemText('timeout', 408, 'The request took too long to arrive', 'The request did not arrive in time')],
    [413, problemText('too-large', 413, 'The body is too large', `The body is larger than ${bodyBytesMax} bytes`)],
    // A handshake that fails, as when the service is another than the one that it should be.
    [500, problemText('unreachable', 500, 'The service cannot be reached', sorry)],
    [502, problemText('unreachable', 502, 'The service did not answer', lost)],
    [503, problemText('unreachable', 503, 'The service cannot be reached', sorry)],
    [504, problemText('unreachable', 504, 'The service does not answer', lost)],
  ];
  // Every answer of the service has an id.
  const isOwn = "-z resp('X-Request-Id')";
  return `
  # What Apache answers by itself looks like what the service answers, which is never touched.
  ProxyErrorOverride Off
${answers.map(([status, text]) => `  ErrorDocument ${status} ${json(text)}`).join('\n')}
  Header always set Content-Type application/problem+json "expr=${isOwn} && %{REQUEST_STATUS} =~ /^(?:400|408|413|5..)$/"
  Header always set Cache-Control no-store "expr=${isOwn}"
  Header always set Retry-After ${retrySeconds} "expr=${isOwn} && %{REQUEST_STATUS} =~ /^5/"
`;
}

function json(text: string): string {
  return `"${text.replaceAll('"', '\\"')}"`;
}

function target(upstream: Upstream, { verify }: Site): string {
  const scheme = verify === undefined ? 'http' : 'https';
  if ('socket' in upstream) return `unix:${upstream.socket}|${scheme}://${verify?.name ?? 'localhost'}`;
  const { host, port } = upstream;
  const isNamed = verify !== undefined && /^(?:127\.|::1$|localhost$)/.test(host);
  const name = isNamed ? verify.name : host.includes(':') ? `[${host}]` : host;
  return `${scheme}://${name}:${port}`;
}

function at({ address, port }: ProxyListen): string {
  return address === undefined ? String(port) : `${address}:${port}`;
}

/** In the foreground with -DFOREGROUND, unprivileged, and with nothing outside `directory`. Debian's modules. */
function wholeConfiguration(directory: string, site: Site, text: string): string {
  const loaded = ['mpm_event', 'authz_core', 'socache_shmcb', ...modules(site)];
  return `ServerRoot "${directory}"
DefaultRuntimeDir "${directory}"
PidFile "${directory}/apache2.pid"
ErrorLog "${directory}/error.log"
ServerName ${site.serverName}
${loaded.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n')}
User www-data
Group www-data
Timeout 60
KeepAlive On
KeepAliveTimeout 15
MaxKeepAliveRequests 1000
GracefulShutdownTimeout 30

${text}`;
}
