/**
 * A whole site for nginx (1.18 and later) in front of the service; pure text. The comments in it are for whoever keeps it.
 * What stands before another application, and asks the service who is signed in, is in `nginx-auth.ts`.
 */

import type { ProxyListen } from './config.ts';
import { authLocations, authMaps, registrarPaths, strictTransport } from './nginx-auth.ts';
import { intermediateCiphers, problemText, retrySeconds } from './site.ts';
import type { Site, Upstream } from './site.ts';

/** Everything in the context `http`, or with `whole` a main configuration to be run by itself. */
export function nginxSite(site: Site): string {
  const parts = [header(site), upstreams(site), maps(site), redirectServer(site), tlsServer(site)];
  const text = parts.filter((part) => part !== '').join('\n');
  return site.whole === undefined ? text : wholeConfiguration(site.whole, text);
}

function header({ serve, whole }: Site): string {
  const install = `
# As a site of Debian's nginx: put it into /etc/nginx/sites-available/registrar, then
#   ln -s ../sites-available/registrar /etc/nginx/sites-enabled/ && nginx -t && systemctl reload nginx
# If the service listens on a socket, nginx's user has to be in the group of the service, which owns the socket,
# and may pass through its directory: adduser www-data registrar
`;
  return `# Registrar behind nginx, made by: registrar proxy nginx
# It fits a service that is started as:
#   ${serve}
# Made anew when that changes; what is changed here by hand is lost then.
${whole === undefined ? install.slice(1) : ''}`;
}

/**
 * The two upstreams are the same services. What a read finds closed is asked again elsewhere; a write may have been
 * carried out by then, so writes go where nothing can be closed under them.
 */
function upstreams({ upstreams, idleSeconds }: Site): string {
  const servers = upstreams.map((upstream) => `  server ${address(upstream)} max_fails=0;`).join('\n');
  return `# Reads share connections, which nginx closes after ${idleSeconds} s, before the service does.
upstream registrar_reads {
${servers}
  keepalive 32;
  keepalive_timeout ${idleSeconds}s;
}
# A write gets a connection of its own. On a kept one it could meet the end of the service, and nobody would know
# whether it was carried out; a new one is either refused, and nothing was sent, or served to its end.
upstream registrar_writes {
${servers}
}
`;
}

function maps(site: Site): string {
  const keys = `# A registration that has no key gets one, so that sending it again to another instance, when one has died before it
# answered, has the answer of the first try.
map "$request_method$http_idempotency_key" $registrar_key {
  POST $request_id;
  PUT $request_id;
  default $http_idempotency_key;
}
`;
  return `map $request_method $registrar_upstream {
  GET registrar_reads;
  HEAD registrar_reads;
  OPTIONS registrar_reads;
  default registrar_writes;
}
${site.upstreams.length > 1 ? keys : ''}${site.auth === undefined ? '' : authMaps()}\
# With the id under which the service's log, and its answer, know the request.
log_format registrar '$remote_addr [$time_iso8601] "$request" $status $body_bytes_sent $request_time $upstream_http_x_request_id';
`;
}

function redirectServer({ http, serverName, origin, whole }: Site): string {
  return `server {
${listen(http, whole, '')}
  server_name ${serverName};
  server_tokens off;
  # 308 keeps method and body (RFC 9110, 15.4.9). What was sent here was sent in the clear all the same.
  return 308 ${origin}$request_uri;
}
`;
}

function tlsServer(site: Site): string {
  const { https, serverName, whole } = site;
  return `server {
${listen(https, whole, ' ssl http2')}
  server_name ${serverName};
  server_tokens off;
  access_log ${quote(`${whole ?? '/var/log/nginx'}/registrar.log`)} registrar;
${tls(site)}${requestLimits(site)}${toService(site)}${ownAnswers(site)}${locations(site)}}
`;
}

function tls(site: Site): string {
  return `
  ssl_certificate ${quote(site.certificate)};
  ssl_certificate_key ${quote(site.key)};
  # Mozilla's intermediate profile.
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_ciphers ${intermediateCiphers};
  ssl_prefer_server_ciphers off;
  ssl_session_timeout 1d;
  ssl_session_cache shared:registrar:10m;
  ssl_session_tickets off;
${strictTransport(site, '  ')}`;
}

function requestLimits({ bodyBytesMax, headerBytesMax, headersSeconds, requestSeconds }: Site): string {
  return `
  # The service's own limits, so that what it would refuse does not reach it. A body is read to its end before the service
  # hears of it: a client that sends a byte a minute costs a connection here, and nothing there. It is never put on disk.
  client_max_body_size ${bodyBytesMax};
  client_body_buffer_size ${bodyBytesMax};
  large_client_header_buffers 4 ${headerBytesMax};
  client_header_timeout ${headersSeconds}s;
  client_body_timeout ${requestSeconds}s;
`;
}

function toService(site: Site): string {
  const { verify, answerSeconds, requestSeconds, upstreams } = site;
  const many = `  # Another instance is asked if one cannot be reached, and not when a request has waited for its answer in vain. What may
  # have been carried out is sent again only if that changes nothing (RFC 9110, 9.2.2).
  proxy_next_upstream error timeout;
  proxy_next_upstream_timeout 5s;
  proxy_set_header Idempotency-Key $registrar_key;
`;
  const one = `  # Nothing is sent twice but what did not reach the service.
  proxy_next_upstream error;
`;
  return `
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  # With the port, by which the service knows its own pages' requests from those of other sites.
  proxy_set_header Host $http_host;
  # Replaced, not added to: whatever a client claims to be is dropped. If another proxy stands in front of this one, name
  # its addresses with set_real_ip_from, and $remote_addr will be the client's.
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto https;
  proxy_set_header X-Real-IP "";
  proxy_set_header Forwarded "";
${verification(verify)}  proxy_connect_timeout 2s;
  proxy_send_timeout ${requestSeconds}s;
  # As long as a password may wait for its turn.
  proxy_read_timeout ${answerSeconds}s;
${upstreams.length > 1 ? many : one}  # An export of everybody goes through memory at the reader's pace.
  proxy_max_temp_file_size 0;
`;
}

function verification(verify: Site['verify']): string {
  if (verify === undefined) return '';
  return `  # Without this anybody on the way could be the service.
  proxy_ssl_verify on;
  proxy_ssl_verify_depth 3;
  proxy_ssl_trusted_certificate ${quote(verify.authorities)};
  proxy_ssl_name ${verify.name};
  proxy_ssl_server_name on;
  proxy_ssl_protocols TLSv1.2 TLSv1.3;
`;
}

const sorry = 'The service does not answer: try again soon';

/** What the service answers is never touched. */
function ownAnswers(site: Site): string {
  const answers: [status: number, code: string, title: string, detail: string][] = [
    [400, 'malformed', 'The request cannot be read', 'This is not a request of HTTP as it has to be'],
    [413, 'too-large', 'The body is too large', `The body is larger than ${site.bodyBytesMax} bytes`],
    [431, 'headers-too-large', 'The headers are too large', `The headers are larger than ${site.headerBytesMax} bytes`],
    [502, 'unreachable', 'The service cannot be reached', sorry],
    [503, 'unreachable', 'The service cannot be reached', sorry],
    [504, 'unreachable', 'The service does not answer', 'Whether the request was carried out is not known: look before you repeat it'],
  ];
  const pages = answers.map(([status]) => `  error_page ${status === 431 ? '431 494 =431' : status} @registrar_${status};`).join('\n');
  const blocks = answers.map(([status, code, title, detail]) => `  location @registrar_${status} {
    default_type application/problem+json;
${status >= 500 ? `    add_header Retry-After ${retrySeconds} always;\n` : ''}    add_header Cache-Control no-store always;
${strictTransport(site, '    ')}    return ${status} '${problemText(code, status, title, detail)}\\n';
  }`).join('\n');
  return `
  # What nginx answers by itself looks like what the service answers. Plain HTTP at this port is sent to the right scheme.
  error_page 497 =308 ${site.origin}$request_uri;
${pages}
${blocks}
`;
}

function locations(site: Site): string {
  const { verify, auth, upstreams } = site;
  const scheme = verify === undefined ? 'http' : 'https';
  const pass = `proxy_pass ${scheme}://$registrar_upstream;`;
  // Only a registration: its key makes the second try the first one's.
  const register = `
  location ~ ^/user/?$ {
    proxy_next_upstream error timeout non_idempotent;
    ${pass}
  }
`;
  return `${upstreams.length > 1 ? register : ''}
  location ${auth === undefined ? '/' : `~ ${registrarPaths}`} {
    ${pass}
  }
${auth === undefined ? '' : authLocations(site, auth, scheme)}`;
}

function listen({ address, port }: ProxyListen, whole: string | undefined, more: string): string {
  if (address !== undefined) return `  listen ${address}:${port}${more};`;
  const all = `  listen ${port}${more};`;
  return whole === undefined ? `${all}\n  listen [::]:${port}${more};` : all;
}

function address(upstream: Upstream): string {
  if ('socket' in upstream) return quote(`unix:${upstream.socket}`);
  return upstream.host.includes(':') ? `[${upstream.host}]:${upstream.port}` : `${upstream.host}:${upstream.port}`;
}

function quote(path: string): string {
  return `"${path}"`;
}

/** In the foreground, unprivileged, and with nothing outside `directory`. */
function wholeConfiguration(directory: string, text: string): string {
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `daemon off;
worker_processes auto;
pid ${quote(`${directory}/nginx.pid`)};
error_log ${quote(`${directory}/error.log`)};

events {
  worker_connections 4096;
}

http {
${kinds.map((kind) => `${kind}_temp_path ${quote(`${directory}/${kind}`)};`).join('\n')}
access_log off;

${text}}
`;
}
