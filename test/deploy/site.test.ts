/** The files of lib/deploy: what fills them, and what is refused. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseCommandLine } from '../../lib/config.ts';
import { fill } from '../../lib/deploy/fill.ts';
import { proxySite } from '../../lib/deploy/site.ts';
import type { ProxyName } from '../../lib/deploy/site.ts';
import { RegistrarError } from '../../lib/errors.ts';
import { bodyBytesMax } from '../../lib/http/body.ts';
import { certificates } from '../helper/service.ts';
import { makeCertificate, root, temporaryDirectory, without } from '../helper/temporary.ts';

const own = (): Buffer => readFileSync(join(certificates(), 'cert.pem'));
const trusted = ['--trusted-proxy', '127.0.0.1,::1,unix'];

function site(name: ProxyName, args: readonly string[], certificate = own()): string {
  const { config, given } = parseCommandLine('proxy', ['--certs', '/certs', ...trusted, ...args], {});
  return proxySite(name, { config, given, certificates: { service: config.http ? undefined : certificate, proxy: certificate } });
}

function refused(pattern: RegExp, make: () => unknown): void {
  assert.throws(make, (error) => error instanceof RegistrarError && error.code === 'usage' && pattern.test(error.message) && !error.message.includes('\n'));
}

test('fill: placeholders and sections, also in sections; a name without a value is a mistake', () => {
  const template = 'a {{x}}\n{{#x}}\nb\n  {{^y}}\nc\n  {{/y}}\n{{/x}}\n{{^x}}\nd\n{{#z}}\n{{z}}\n{{/z}}\n{{/x}}\ne';
  assert.equal(fill(template, { x: 1, y: '', z: undefined }), 'a 1\nb\nc\ne');
  assert.equal(fill(template, { x: false, y: true, z: 'z' }), 'a false\nd\nz\ne');
  for (const wrong of ['{{nothing}}', '{{#x}}', '{{/x}}', '{{#x}}\n{{/y}}', '{{toString}}']) assert.throws(() => fill(wrong, { x: 1, y: 1 }), Error, wrong);
});

test('proxy site: what is wrong behind any proxy is refused with the remedy', () => {
  const cases: [args: string[], pattern: RegExp][] = [
    [['--port', '0'], /has to know the port/],
    [['--http', '--host', '10.0.0.5'], /in plain text.*Leave --http out/],
    [['--trusted-proxy', ''], /share its limits.*--trusted-proxy 127\.0\.0\.1$/],
    [['--socket', '/run/x', '--trusted-proxy', '127.0.0.1'], /--trusted-proxy unix$/],
    [['--host', '10.0.0.5', '--trusted-proxy', ''], /the proxy's address$/],
    [['--hsts'], /self-signed.*Leave the flag out/],
    [['--socket', '/run/a"b'], /characters that/],
    [['--socket', '/run/$x'], /characters that/],
    [['--socket', '/run/a\nb'], /characters that/],
    [['--certs', '/tmp/;x'], /characters that/],
    [['--certs', '/tmp/{{x}}'], /characters that/],
    [['--proxy-cert', '/x'], /give both/],
    [['--server-name', 'a b'], /--server-name: it must be a host name/],
    [['--server-name', 'x;'], /--server-name: it must be a host name/],
    [['--public-url', 'https://x.example/a;b'], /--public-url: it must be an address/],
    [['--listen', '0'], /"0" for --listen: it must be a port/],
    [['--listen-tls', 'x:1'], /"x:1" for --listen-tls/],
    [['--auth-for', 'https://x'], /--auth-for/],
    [['--auth-for', 'http://x/path'], /--auth-for/],
    [['--app-body-max', '1g; x'], /--app-body-max/],
    [['--listen'], /--listen needs a value/],
    [['--nonsense'], /nonsense/],
  ];
  for (const name of ['nginx', 'apache', 'caddy'] as const) {
    for (const [args, pattern] of cases) refused(pattern, () => site(name, ['--public-url', 'https://localhost', ...args]));
  }
  refused(/--public-url https:\/\/localhost;/, () => site('apache', []));
  refused(/registrar proxy nginx/, () => site('apache', ['--auth-for', 'http://127.0.0.1:1']));
  // With no limits of its own the service need not tell clients apart.
  assert.match(site('nginx', ['--trusted-proxy', '', '--limits', 'off']), /server_name localhost;/);
});

test('proxy site: the values are those of the service', () => {
  const nginx = site('nginx', ['--public-url', 'https://x.example/accounts', '--port', '9443', '--host', '0.0.0.0', '--listen', '[::1]:81']);
  for (const line of [
    'server 127.0.0.1:9443 max_fails=0;', 'listen [::1]:81;', 'listen 443 ssl http2;', 'listen [::]:443 ssl http2;', 'server_name x.example;',
    'return 308 https://x.example$request_uri;', `client_max_body_size ${bodyBytesMax};`, 'proxy_ssl_verify on;', 'location /accounts/ {',
    '# The service is started as: registrar serve --host 0.0.0.0 --port 9443 --certs /certs --public-url https://x.example/accounts --trusted-proxy 127.0.0.1,::1,unix',
  ]) assert.ok(nginx.includes(`${line}\n`), line);
  const socket = site('nginx', ['--http', '--socket', '/run/a b']);
  assert.match(socket, /server "unix:\/run\/a b" max_fails=0;/);
  assert.doesNotMatch(socket, /proxy_ssl|https:\/\/\$/);
  const apache = site('apache', ['--public-url', 'https://localhost']);
  for (const line of [`LimitRequestBody ${bodyBytesMax}`, 'SSLProxyVerify require', 'ProxyAddHeaders Off']) assert.match(apache, new RegExp(`^ *${line}$`, 'm'));
  const caddy = site('caddy', ['--auth-for', 'http://127.0.0.1:3000']);
  for (const line of ['reverse_proxy 127.0.0.1:3000 {', 'tls_server_name localhost', 'rewrite /auth']) assert.ok(caddy.includes(`${line}\n`), line);
  for (const text of [nginx, socket, apache, caddy]) assert.doesNotMatch(text, /\{\{|undefined/);
});

test('deploy: the container has what it runs, as another user, with a health check; the unit dumps no core', () => {
  const read = (name: string): string => readFileSync(join(root, 'lib/deploy', name), 'utf8');
  assert.deepEqual(read('Dockerfile.dockerignore').match(/^!.*$/gm), ['!bin', '!lib', '!package.json', '!lib/password/README.md']);
  assert.match(read('Dockerfile'), /^USER node$[^]*^HEALTHCHECK .*"registrar", "health"/m);
  assert.match(read('compose.yaml'), /read_only: true/);
  assert.match(read('registrar.service'), /^LimitCORE=0$/m);
});

test('proxy site: a certificate of an authority is verified by those of the system, and may have HSTS', { skip: without('openssl') }, (t) => {
  const directory = temporaryDirectory(t);
  const [authority, certs] = [join(directory, 'authority'), join(directory, 'certs')];
  for (const path of [authority, certs]) {
    mkdirSync(path);
    makeCertificate(path);
  }
  mkdirSync(join(directory, 'issued'));
  const request = execFileSync('openssl', ['req', '-new', '-key', join(certs, 'key.pem'), '-subj', '/CN=issued', '-addext', 'subjectAltName=DNS:registrar.example'], { stdio: ['pipe', 'pipe', 'pipe'] });
  const issue = ['x509', '-req', '-CA', join(authority, 'cert.pem'), '-CAkey', join(authority, 'key.pem'), '-set_serial', '5', '-copy_extensions', 'copy'];
  const issued = execFileSync('openssl', issue, { input: request, stdio: ['pipe', 'pipe', 'pipe'] });
  const made = site('nginx', ['--hsts'], issued);
  for (const line of ['proxy_ssl_name registrar.example;', 'proxy_ssl_trusted_certificate "/etc/ssl/certs/ca-certificates.crt";', 'add_header Strict-Transport-Security "max-age=63072000" always;']) {
    assert.ok(made.includes(`${line}\n`), line);
  }
  assert.match(site('apache', ['--hsts', '--public-url', 'https://registrar.example'], issued), /Header always set Strict-Transport-Security "max-age=63072000"/);
  assert.match(site('nginx', ['--upstream-ca', '/ca.pem'], issued), /proxy_ssl_trusted_certificate "\/ca\.pem";/);
  const nameless = execFileSync('openssl', ['req', '-x509', '-key', join(certs, 'key.pem'), '-subj', '/CN=x', '-addext', 'subjectAltName=IP:127.0.0.1']);
  refused(/has no host name/, () => site('nginx', [], nameless));
});
