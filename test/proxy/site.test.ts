import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { RegistrarError } from '../../lib/errors.ts';
import { bodyBytesMax } from '../../lib/http/body.ts';
import { limits } from '../../lib/http/server.ts';
import { apacheSite } from '../../lib/proxy/apache.ts';
import { parseProxyConfig } from '../../lib/proxy/config.ts';
import { nginxSite } from '../../lib/proxy/nginx.ts';
import { proxySite } from '../../lib/proxy/site.ts';
import type { Site } from '../../lib/proxy/site.ts';
import { certificates } from '../helper/service.ts';
import { makeCertificate, temporaryDirectory, without } from '../helper/temporary.ts';

const own = (): Buffer => readFileSync(join(certificates(), 'cert.pem'));
const trusted = ['--trusted-proxy', '127.0.0.1,::1,unix'];

function site(args: readonly string[], certificate = own()): Site {
  const config = parseProxyConfig(['--certs', '/certs', ...trusted, ...args], {});
  return proxySite(config, { service: config.service.isPlain ? undefined : certificate, shown: certificate });
}

function refused(pattern: RegExp, make: () => unknown): void {
  assert.throws(make, (error) => error instanceof RegistrarError && error.code === 'usage' && pattern.test(error.message) && !error.message.includes('\n'));
}

test('proxy site: what is wrong behind any proxy is refused with the way out', () => {
  const cases: [args: string[], pattern: RegExp][] = [
    [['--port', '0'], /has to know the port/],
    [['--http', '--host', '10.0.0.5'], /in the clear.*leave --http out/],
    [['--http', '--also', '10.0.0.5:8443'], /in the clear/],
    [['--trusted-proxy', ''], /share its limits.*--trusted-proxy 127\.0\.0\.1$/],
    [['--socket', '/run/x', '--trusted-proxy', '127.0.0.1'], /--trusted-proxy unix$/],
    [['--host', '10.0.0.5', '--trusted-proxy', ''], /the proxy's address$/],
    [['--hsts'], /self-signed.*leave the flag out/],
    [['--socket', '/run/a"b'], /characters that/],
    [['--socket', '/run/$x'], /characters that/],
    [['--socket', '/run/a\nb'], /characters that/],
    [['--whole', '/tmp/;x'], /characters that/],
    [['--proxy-cert', '/x'], /give both/],
    [['--server-name', 'a b'], /has to be a host name/],
    [['--server-name', 'x;'], /has to be a host name/],
    [['--listen', '0'], /--listen 0: it has to be a port/],
    [['--listen-tls', 'x:1'], /--listen-tls x:1/],
    [['--also', 'relative/path'], /--also/],
    [['--auth-for', 'https://x'], /--auth-for/],
    [['--auth-for', 'http://x/path'], /--auth-for/],
    [['--sign-in', '/'], /--sign-in/],
    [['--sign-in', '/a b'], /--sign-in/],
    [['--listen'], /--listen.*argument missing.*--help$/],
    [['--nonsense'], /nonsense/],
    [['extra'], /extra/],
  ];
  for (const [args, pattern] of cases) refused(pattern, () => site(args));
  // With no limits of its own the service need not know who is who.
  assert.equal(site(['--trusted-proxy', '', '--limits', 'off']).serverName, 'localhost');
});

test('proxy site: flags, variables and defaults', () => {
  const plain = site([]);
  assert.deepEqual([plain.http, plain.https, plain.origin], [{ address: undefined, port: 80 }, { address: undefined, port: 443 }, 'https://localhost']);
  assert.deepEqual([plain.certificate, plain.key], ['/certs/cert.pem', '/certs/key.pem']);
  assert.deepEqual(plain.verify, { name: 'localhost', authorities: '/certs/cert.pem' });
  const config = parseProxyConfig([], { REGISTRAR_LISTEN_TLS: '[::1]:8444', REGISTRAR_PORT: '9443', REGISTRAR_TRUSTED_PROXY: '127.0.0.1' });
  assert.deepEqual([config.listenTls, config.service.port], [{ address: '[::1]', port: 8444 }, 9443]);
  const many = site(['--public-url', 'https://registrar.example', '--also=/run/2, [::1]:9443', '--listen', '127.0.0.1:81', '--port', '9443']);
  assert.deepEqual(many.upstreams, [{ host: '127.0.0.1', port: 9443 }, { socket: '/run/2' }, { host: '::1', port: 9443 }]);
  assert.deepEqual([many.origin, many.http], ['https://registrar.example', { address: '127.0.0.1', port: 81 }]);
  assert.equal(many.serve, 'registrar serve --certs /certs --trusted-proxy 127.0.0.1,::1,unix --public-url https://registrar.example --port 9443');
  assert.deepEqual(site(['--host', '0.0.0.0']).upstreams, [{ host: '127.0.0.1', port: 8443 }]);
  assert.deepEqual(site(['--socket', '/run/a b', '--http']).verify, undefined);
});

test('proxy site: its limits are the service\'s, and it closes idle connections first', () => {
  const made = site([]);
  assert.equal(made.bodyBytesMax, bodyBytesMax);
  assert.ok(made.idleSeconds * 1000 < limits.keepAliveTimeout);
  const nginx = nginxSite(made);
  for (const line of [`client_max_body_size ${bodyBytesMax};`, `keepalive_timeout ${made.idleSeconds}s;`, 'proxy_ssl_verify on;', 'server_tokens off;', 'proxy_set_header X-Forwarded-For $remote_addr;']) {
    assert.ok(nginx.includes(`  ${line}\n`), line);
  }
  assert.ok(nginxSite(site(['--http', '--socket', '/run/a b'])).includes('server "unix:/run/a b" max_fails=0;'));
  assert.doesNotMatch(nginxSite(site(['--http', '--socket', '/run/x'])), /proxy_ssl|https:\/\/\$/);
  const apache = apacheSite(made, 'https://localhost');
  for (const line of [`LimitRequestBody ${bodyBytesMax}`, 'SSLProxyVerify require', 'ProxyAddHeaders Off', 'ServerTokens Prod']) assert.match(apache, new RegExp(`^ *${line}$`, 'm'));
  refused(/--public-url https:\/\/localhost;/, () => apacheSite(made, undefined));
  refused(/registrar proxy nginx/, () => apacheSite(site(['--auth-for', 'http://127.0.0.1:1']), 'https://localhost'));
});

test('proxy site: a certificate that somebody has issued is verified by whom the system trusts, and may have HSTS', { skip: without('openssl') }, (t) => {
  const directory = temporaryDirectory(t);
  const [authority, certs] = [join(directory, 'authority'), join(directory, 'certs')];
  for (const path of [authority, certs]) makeCertificate(path);
  mkdirSync(join(directory, 'issued'));
  const request = execFileSync('openssl', ['req', '-new', '-key', join(certs, 'key.pem'), '-subj', '/CN=issued', '-addext', 'subjectAltName=DNS:registrar.example'], { stdio: ['pipe', 'pipe', 'pipe'] });
  const issue = ['x509', '-req', '-CA', join(authority, 'cert.pem'), '-CAkey', join(authority, 'key.pem'), '-set_serial', '5', '-copy_extensions', 'copy'];
  const issued = execFileSync('openssl', issue, { input: request, stdio: ['pipe', 'pipe', 'pipe'] });
  const made = site(['--hsts'], issued);
  assert.deepEqual(made.verify, { name: 'registrar.example', authorities: '/etc/ssl/certs/ca-certificates.crt' });
  assert.match(nginxSite(made), /add_header Strict-Transport-Security "max-age=63072000" always;/);
  assert.match(apacheSite(made, 'https://registrar.example'), /Header always set Strict-Transport-Security "max-age=63072000"/);
  assert.deepEqual(site(['--upstream-ca', '/ca.pem'], issued).verify?.authorities, '/ca.pem');
  const nameless = execFileSync('openssl', ['req', '-x509', '-key', join(certs, 'key.pem'), '-subj', '/CN=x', '-addext', 'subjectAltName=IP:127.0.0.1']);
  refused(/is for no host name/, () => site([], nameless));
});
