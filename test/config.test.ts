/** Arguments, variables and files -> one configuration, by the one table of flags. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flags, parseCommandLine } from '../lib/config.ts';
import type { CommandName } from '../lib/config.ts';
import { RegistrarError } from '../lib/errors.ts';
import { nearest, variable } from '../lib/flags.ts';
import type { Environment, Files } from '../lib/flags.ts';

const secretText = 'a-token-of-some-length';

function parse(args: readonly string[], env: Environment = {}, command: CommandName = 'serve', files?: Files) {
  return parseCommandLine(command, args, env, files);
}

/** Files as the command reads them. */
function filesOf(texts: Readonly<Record<string, string>>, variables: Environment = {}): Files {
  return { variables: () => variables, secret: (path) => texts[path] ?? assert.fail(`nothing reads ${path}`) };
}

function refused(pattern: RegExp, make: () => unknown): void {
  assert.throws(make, (error: unknown) => {
    assert.ok(error instanceof RegistrarError && error.code === 'usage', String(error));
    assert.match(error.message, pattern);
    assert.ok(!error.message.includes('\n') && /[.?]$/.test(error.message), error.message);
    assert.ok(!error.message.includes(secretText), 'a secret is repeated');
    return true;
  });
}

test('config: the defaults of the table, under the names of the flags, frozen', () => {
  const { config, words, given, warnings } = parse([]);
  assert.deepEqual([config.data, config.port, config.drainSeconds, config.publicUrl, config.etcd, config.limits, config.http], ['data', 8443, 0, undefined, [], true, false]);
  assert.deepEqual([config.kdf, config.passwordMin, config.adminToken, config.lockWaitMsMax], [{ digest: 'sha256', iterations: 600_000 }, 8, undefined, 5_000]);
  assert.deepEqual([words, [...given], warnings, Object.isFrozen(config)], [[], [], [], true]);
});

test('config: a flag wins over its variable, that over the environment file, and that over the default', () => {
  const env = { REGISTRAR_PORT: '1', REGISTRAR_DATA: 'there', REGISTRAR_HTTP: '1', REGISTRAR_PASSWORD_MIN: '15' };
  const files = filesOf({}, { REGISTRAR_PORT: '2', REGISTRAR_HOST: '::1', PATH: 'ignored' });
  const { config, given } = parse(['--port', '0', '--kdf=pbkdf2:sha512:220000', '--env-file', 'registrar.env'], env, 'serve', files);
  assert.deepEqual([config.port, config.data, config.http, config.host, config.passwordMin], [0, 'there', true, '::1', 15]);
  assert.deepEqual(config.kdf, { digest: 'sha512', iterations: 220_000 });
  assert.deepEqual(given.get('host'), '::1');
  assert.equal(parse([], { REGISTRAR_HTTP: '0' }).config.http, false);
  assert.equal(parse([], { REGISTRAR_ENV_FILE: 'registrar.env' }, 'check', filesOf({}, { REGISTRAR_DATA: 'elsewhere' })).config.data, 'elsewhere');
  assert.equal(parse(['--port', '1', '--port', '2']).config.port, 2, 'the last one counts');
});

test('config: words are kept, and flags stand anywhere among them', () => {
  assert.deepEqual(parse(['add', '--json', 'alice', '--data=d'], {}, 'user').words, ['add', 'alice']);
  assert.deepEqual(parse(['add', '--', '--json'], {}, 'user').words, ['add', '--json']);
  assert.deepEqual(parse(['-'], {}, 'import').words, ['-']);
});

test('config: an error is one line that names what was given, where, and what it must be', () => {
  const inFile = filesOf({}, { REGISTRAR_PORT: 'abc' });
  const cases: [args: string[], env: Environment, pattern: RegExp, command?: CommandName, files?: Files][] = [
    [['--port', 'abc'], {}, /^Invalid value "abc" for --port: it must be a whole number from 0 to 65535\.$/],
    [[], { REGISTRAR_PORT: 'abc' }, /^Invalid value "abc" for REGISTRAR_PORT: it must/],
    [['--env-file', 'x.env'], {}, /^Invalid value "abc" for REGISTRAR_PORT in "x\.env": it must/, 'serve', inFile],
    [['--port', '65536'], {}, /65535/],
    [['--drain-seconds', '-1'], {}, /^Invalid value "-1" for --drain-seconds: it must be a whole number from 0 to 300\.$/],
    [[], { REGISTRAR_PORT: '' }, /^Invalid value "" for REGISTRAR_PORT/],
    [['--kdf', 'md5'], {}, /as in pbkdf2:sha256:600000/],
    [['--password-min', '7'], {}, /from 8 to 64/],
    [['--host', ''], {}, /for --host: it must be an address/],
    [['--data', 'a\nb', '--port', 'x\ny'], {}, /"x\\ny" for --port/],
    [['--registration', 'closed'], {}, /it must be open or admin/],
    [['--limits', 'maybe'], {}, /on or off/],
    [['--public-url', 'https://registrar.example/path?x'], {}, /an address as in https:\/\/registrar\.example/],
    [['--allow-origin', 'https://a.example, *'], {}, /for --allow-origin: it must be an origin.*or several/],
    [['--trusted-proxy', 'nginx'], {}, /"nginx" for --trusted-proxy: it must be addresses/],
    [['--etcd', 'https://a:2379', '--etcd-cert', 'x'], {}, /--etcd-cert and --etcd-key go together/],
    [['--etcd-user', 'x'], {}, /--etcd-user and --etcd-password-file go together/],
    [['--proxy-key', 'x'], {}, /--proxy-cert and --proxy-key go together/, 'proxy'],
    [['--port'], {}, /^--port needs a value: --port PORT\.$/],
    [['--data', '--port'], {}, /^--data needs a value: --data DIR\.$/],
    [['--prot', '1'], {}, /^registrar serve has no flag --prot\. Did you mean --port\? See "registrar help serve"\.$/],
    [['--lgin=x'], {}, /^registrar user has no flag --lgin\. See "registrar help user"\.$/, 'user'],
    [['--port', '1'], {}, /^registrar check has no flag --port\. See/, 'check'],
    [['-p', '1'], {}, /has no flag -p\./],
    [[], { UV_USE_IO_URING: '2' }, /^Unset UV_USE_IO_URING/],
  ];
  for (const [args, env, pattern, command, files] of cases) refused(pattern, () => parse(args, env, command, files));
});

test('config: secrets come from a variable or a file, never from an argument, and a bad one never opens the service', () => {
  const files = filesOf({ good: `${secretText}\n`, empty: '\n', short: 'too-short\n' });
  assert.equal(parse([], { REGISTRAR_ADMIN_TOKEN: secretText }).config.adminToken, secretText);
  assert.equal(parse([], { REGISTRAR_ADMIN_TOKEN: `${secretText}\n` }).config.adminToken, secretText);
  const byFile = parse([], { REGISTRAR_ADMIN_TOKEN_FILE: 'good' }, 'serve', files);
  assert.deepEqual([byFile.config.adminToken, [...byFile.given]], [secretText, [['admin-token-file', 'good']]]);
  assert.equal(parse(['--admin-token-file', 'good'], { REGISTRAR_ADMIN_TOKEN: 'x' }, 'serve', files).config.adminToken, secretText);
  assert.deepEqual([...parse([], { REGISTRAR_ADMIN_TOKEN: secretText }).given], [], 'the secret itself is not among what was given');
  const etcd = ['--etcd', 'https://a:2379', '--etcd-user', 'registrar', '--etcd-password-file', 'short'];
  assert.equal(parse(etcd, {}, 'user', files).config.etcdPassword, 'too-short', 'the password of another system may be short');
  const cases: [args: string[], env: Environment, pattern: RegExp][] = [
    [['--admin-token', secretText], {}, /^A secret is not an argument.*--admin-token-file or REGISTRAR_ADMIN_TOKEN\.$/],
    [[], { REGISTRAR_ADMIN_TOKEN: '' }, /^Invalid value for REGISTRAR_ADMIN_TOKEN: it must be 16 or more visible ASCII characters/],
    [[], { REGISTRAR_ADMIN_TOKEN: 'short' }, /^Invalid value for REGISTRAR_ADMIN_TOKEN/],
    [[], { REGISTRAR_ADMIN_TOKEN: 'with white space in it' }, /^Invalid value for REGISTRAR_ADMIN_TOKEN/],
    [[], { REGISTRAR_ADMIN_TOKEN_FILE: 'empty' }, /^Invalid value for REGISTRAR_ADMIN_TOKEN_FILE \("empty"\)/],
    [['--admin-token-file', 'short'], {}, /^Invalid value for --admin-token-file \("short"\)/],
    [[], { REGISTRAR_ADMIN_TOKEN: secretText, REGISTRAR_ADMIN_TOKEN_FILE: 'good' }, /ADMIN_TOKEN and REGISTRAR_ADMIN_TOKEN_FILE are both set: unset one/],
    [[], { REGISTRAR_ADMIN_TOKN: secretText }, /^Unknown variable REGISTRAR_ADMIN_TOKN\. Did you mean REGISTRAR_ADMIN_TOKEN\?$/],
    [[], { REGISTRAR_ADMIN_TOKEN_FIEL: 'good' }, /Did you mean REGISTRAR_ADMIN_TOKEN_FILE\?/],
  ];
  for (const [args, env, pattern] of cases) refused(pattern, () => parse(args, env, 'serve', files));
});

test('config: variables without effect are reported with the nearest name, those of Kubernetes in one line', () => {
  const env = {
    REGISTRAR_PROT: '9443', REGISTRAR_NONSENSE: '1', REGISTRAR_PORT: 'tcp://10.0.0.1:8443', REGISTRAR_SERVICE_HOST: '10.0.0.1', REGISTRAR_SERVICE_PORT: '8443',
    REGISTRAR_SERVICE_PORT_HTTPS: '8443', REGISTRAR_PORT_8443_TCP: 'tcp://10.0.0.1:8443', REGISTRAR_PORT_8443_TCP_PROTO: 'tcp', REGISTRAR_METRICS_PORT: 'tcp://10.0.0.2:1',
  };
  const { config, warnings } = parse([], env);
  assert.equal(config.port, 8443);
  assert.deepEqual(warnings.slice(0, 2), ['Unknown variable REGISTRAR_PROT. Did you mean REGISTRAR_PORT?', 'Unknown variable REGISTRAR_NONSENSE.']);
  assert.match(warnings[2] ?? '', /^Ignored variables that Kubernetes sets for a Service of this name: REGISTRAR_PORT, REGISTRAR_SERVICE_HOST, .*METRICS_PORT\.$/);
  assert.equal(warnings.length, 3);
  const { warnings: inFile } = parse(['--env-file', 'x'], {}, 'check', filesOf({}, { REGISTRAR_DTA: 'x' }));
  assert.deepEqual(inFile, ['Unknown variable REGISTRAR_DTA in "x". Did you mean REGISTRAR_DATA?']);
  // A variable of another command is known, and its value is that command's business.
  assert.deepEqual(parse([], { REGISTRAR_PORT: 'abc' }, 'check').warnings, []);
  assert.deepEqual(parse([], { REGISTRAR_YES: '1' }, 'repair').warnings, ['Unknown variable REGISTRAR_YES.'], 'no variable agrees in advance');
});

test('config: --help reads no value', () => {
  const { config, warnings } = parse(['--help', '--port', 'abc'], { REGISTRAR_PORT: 'abc', REGISTRAR_NONSENSE: '1' });
  assert.deepEqual([config.help, warnings], [true, []]);
  assert.equal(parse(['-h'], {}, 'openapi').config.help, true);
  assert.equal(parse(['add', '--', '-h'], {}, 'user').config.help, false);
});

test('config: origins, lists and instances as they are used', () => {
  const { config } = parse(['--public-url', 'https://Registrar.Example:443/', '--allow-origin', 'https://a.example, http://localhost:3000,'], { REGISTRAR_ETCD: 'https://a:2379, https://b:2379' });
  assert.equal(config.publicUrl, 'https://registrar.example');
  assert.deepEqual([config.allowOrigin, config.etcd], [['https://a.example', 'http://localhost:3000'], ['https://a:2379', 'https://b:2379']]);
  const { config: proxy } = parse(['--listen', '[::1]:81', '--app-body-max', '20m'], {}, 'proxy');
  assert.deepEqual([proxy.listen, proxy.appBodyMax], [{ address: '[::1]', port: 81 }, '20m']);
});

test('config: the table is sound: every default is valid, help is one line, no two flags share a variable', () => {
  const names = Object.entries(flags).map(([name, row]) => {
    if (row.kind !== 'secret' && !(row.type.isOptional && row.default === '')) assert.notEqual(row.type.read(row.default), undefined, name);
    assert.match(row.help, /^[a-zA-Z"].*[^.]$/, name);
    assert.ok(row.commands.length > 0 && !row.help.includes('\n'), name);
    return variable(name);
  });
  assert.equal(new Set(names).size, names.length);
});

test('config: the nearest word differs in few letters', () => {
  assert.equal(nearest('prot', ['host', 'port', 'proxy']), 'port');
  assert.equal(nearest('admin-tokn-file', ['admin-token-file', 'env-file']), 'admin-token-file');
  assert.equal(nearest('frobnicate', ['host', 'port']), undefined);
});
