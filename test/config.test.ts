import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseTokenConfig } from '../lib/command-config.ts';
import { parseConfig } from '../lib/config.ts';

test('config: the defaults, frozen', () => {
  const config = parseConfig([], {});
  assert.deepEqual(config, {
    data: 'data', etcd: undefined, certs: 'certs', host: '127.0.0.1', port: 8443, isPlain: false, kdf: { digest: 'sha256', iterations: 600_000 },
    passwordCodePointsMin: 8, passwordCodePointsMax: 256, hashWaitMsMax: 5_000, hashQueueMax: 10_000, lockWaitMsMax: 5_000,
    connectionsMax: 10_000, socket: undefined, registration: 'open', publicUrl: undefined, allowedOrigins: [], trustedProxies: '', isLimited: true,
    isLogged: true, drainSeconds: 0,
    adminToken: undefined, sessionSeconds: 3_600, verifiedSecondsMax: 60, verifiedEntriesMax: 10_000,
  });
  assert.ok(Object.isFrozen(config));
});

test('config: a flag wins over its variable, and a variable over the default', () => {
  const env = { REGISTRAR_PORT: '1', REGISTRAR_DATA: 'there', REGISTRAR_HTTP: '1', REGISTRAR_PASSWORD_MIN: '15', REGISTRAR_HOST: '::1' };
  const config = parseConfig(['--port', '0', '--kdf=pbkdf2:sha512:220000'], env);
  assert.equal(config.port, 0);
  assert.equal(config.data, 'there');
  assert.equal(config.isPlain, true);
  assert.equal(config.host, '::1');
  assert.equal(config.passwordCodePointsMin, 15);
  assert.deepEqual(config.kdf, { digest: 'sha512', iterations: 220_000 });
  assert.equal(parseConfig([], { REGISTRAR_HTTP: '0' }).isPlain, false);
});

test('config: what is wrong is told in one line', () => {
  const cases: [string[], Record<string, string>, RegExp][] = [
    [['--port', 'abc'], {}, /--port abc: .*from 0 to 65535/],
    [['--port', '65536'], {}, /65535/],
    [['--port=-1'], {}, /65535/],
    [[], { REGISTRAR_PORT: '8e3' }, /8e3/],
    [['--kdf', 'md5'], {}, /pbkdf2:sha256:600000/],
    [['--password-min', '7'], {}, /from 8 to 64/],
    [['--host', ''], {}, /--host/],
    [['--registration', 'closed'], {}, /--registration closed: it has to be open or admin/],
    [['--limits', '1'], {}, /on or off/],
    [['--public-url', 'registrar.example'], {}, /as in https:\/\/registrar\.example/],
    [['--public-url', 'https://registrar.example/path'], {}, /with no path/],
    [['--allow-origin', 'https://a.example, *'], {}, /--allow-origin \*/],
    [['--allow-origin', 'https://user@a.example'], {}, /origin/],
    [[], { REGISTRAR_ADMIN_TOKEN: 'short' }, /16 visible ASCII characters/],
    [[], { REGISTRAR_ADMIN_TOKEN: 'with white space in it' }, /visible/],
    [['--port', '-1'], {}, /try registrar --help/],
    [['--data', ''], {}, /--data/],
    [['--nonsense'], {}, /nonsense/],
    [['extra'], {}, /extra/],
    [['--port'], {}, /port/],
    [['--http=yes'], {}, /http/],
    [[], { REGISTRAR_HTTP: 'maybe' }, /REGISTRAR_HTTP=maybe/],
    [[], { UV_USE_IO_URING: '2' }, /unset it/],
  ];
  for (const [args, env, pattern] of cases) {
    assert.throws(() => parseConfig(args, env), (error: any) => {
      assert.equal(error.code, 'usage');
      assert.match(error.message, pattern);
      assert.ok(!error.message.includes('\n'), error.message);
      return true;
    });
  }
});

test('config: origins are as browsers send them, and the admin token comes from the environment', () => {
  const config = parseConfig(['--public-url', 'https://Registrar.Example:443/', '--allow-origin', 'https://a.example, http://localhost:3000,'], {
    REGISTRAR_ADMIN_TOKEN: 'a-token-of-some-length',
  });
  assert.equal(config.publicUrl, 'https://registrar.example');
  assert.deepEqual(config.allowedOrigins, ['https://a.example', 'http://localhost:3000']);
  assert.equal(config.adminToken, 'a-token-of-some-length');
  assert.throws(() => parseConfig(['--admin-token', 'x'], {}), { code: 'usage' }, 'argv is no place for a secret');
});

test('config: what makes a token', () => {
  assert.deepEqual(parseTokenConfig(['--new', '--data', 'there'], {}), { data: 'there', etcd: undefined, lockWaitMsMax: 5_000, isNew: true, isSigningKey: false });
  assert.deepEqual(parseTokenConfig(['--signing-key'], { REGISTRAR_DATA: 'here' }), { data: 'here', etcd: undefined, lockWaitMsMax: 5_000, isNew: false, isSigningKey: true });
});

test('config: an etcd cluster', () => {
  const { etcd } = parseConfig(['--etcd', 'https://a:2379, https://b:2379', '--etcd-ca', 'ca.pem', '--etcd-user', 'registrar', '--etcd-password-file', 'p'], {
    REGISTRAR_ETCD_PREFIX: '/other/',
  });
  assert.deepEqual(etcd, {
    endpoints: ['https://a:2379', 'https://b:2379'], prefix: '/other/', ca: 'ca.pem', cert: undefined, key: undefined, user: 'registrar', passwordFile: 'p',
  });
  for (const flags of [['--etcd-user', 'x'], ['--etcd-password-file', 'x'], ['--etcd-cert', 'x'], ['--etcd-key', 'x']]) {
    assert.throws(() => parseConfig(['--etcd', 'https://a:2379', ...flags], {}), { code: 'usage', message: /go together/ });
  }
});
