import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemdUnit } from '../../lib/ops/systemd-unit.ts';
import { loader, root, temporaryDirectory, without } from '../helper/temporary.ts';

/** As `systemd-analyze security` counts, tenths of 0 (safe) to 10; what is left is named in the unit. */
const exposureMax = 22;

const options = {
  user: 'registrar', command: [process.execPath, '/opt/registrar/bin/registrar.ts', 'serve'], environment: {}, directory: '/opt/registrar',
  data: '/var/lib/registrar', certs: '/etc/registrar', socket: undefined, port: 8443, stopSeconds: 20,
};

function print(args: readonly string[], env: Record<string, string> = {}): string {
  const command = [...loader, 'bin/registrar.ts', 'systemd', ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8', env: { ...process.env, ...env } });
  assert.deepEqual([status, stderr], [0, '']);
  return stdout;
}

test('systemd unit: systemd finds nothing wrong with it, and little that it leaves open', { skip: without('systemd-analyze') }, (t) => {
  const directory = temporaryDirectory(t);
  const cases = [[], ['--port', '443', '--data', '/srv/users data'], ['--socket', '/run/registrar/http', '--http', '--trusted-proxy', 'unix']];
  for (const [n, args] of cases.entries()) {
    const path = join(directory, `registrar-${n}.service`);
    writeFileSync(path, print(args));
    // What this machine lacks of other units is not this one's business.
    const verified = spawnSync('systemd-analyze', ['verify', '--recursive-errors=no', path], { encoding: 'utf8' });
    assert.deepEqual([verified.status, verified.stdout, verified.stderr], [0, '', ''], args.join(' '));
    const security = spawnSync('systemd-analyze', ['security', '--offline=yes', `--threshold=${exposureMax}`, path], { encoding: 'utf8' });
    assert.equal(security.status, 0, security.stdout + security.stderr);
  }
});

test('systemd unit: it runs what was asked for, with directories that are absolute, and no secret in it', () => {
  const unit = print(['--port', '9443', '--data=data', '--user', 'accounts'], {
    REGISTRAR_LIMITS: 'off', REGISTRAR_PASSWORD_MIN: '15', REGISTRAR_ADMIN_TOKEN: 'a-token-of-many-characters', REGISTRAR_CERTS: 'x',
  });
  const [, command = ''] = /^ExecStart=(.*)$/m.exec(unit) ?? [];
  assert.ok(command.endsWith(`serve --port 9443 --data ${join(root, 'data')} --certs ${join(root, 'x')}`), command);
  assert.match(unit, /^User=accounts$/m);
  assert.match(unit, /^Environment=REGISTRAR_LIMITS=off$/m);
  assert.match(unit, /^Environment=REGISTRAR_PASSWORD_MIN=15$/m);
  assert.doesNotMatch(unit, /a-token-of|ADMIN_TOKEN|REGISTRAR_CERTS/);
});

test('systemd unit: nothing in a path is a variable, a specifier or two words', () => {
  const unit = systemdUnit({ ...options, command: ['/opt/a b/node', '/opt/$HOME/%n', 'say "hi"\\'], data: '/srv/100%' });
  assert.ok(unit.includes('ExecStart="/opt/a b/node" "/opt/$$HOME/%%n" "say \\"hi\\"\\\\"'), unit);
  assert.match(unit, /^ReadWritePaths=\/srv\/100%%$/m);
});

test('systemd unit: it may bind a low port, and only then has a capability', () => {
  const capability = /^AmbientCapabilities=CAP_NET_BIND_SERVICE$/m;
  assert.match(systemdUnit({ ...options, port: 443 }), capability);
  assert.doesNotMatch(systemdUnit({ ...options, port: 443 }), /PrivateUsers/);
  assert.doesNotMatch(systemdUnit(options), capability);
  assert.doesNotMatch(systemdUnit({ ...options, port: 443, socket: '/run/registrar/http' }), capability);
});

test('systemd unit: home directories are out of sight unless it lies in one', () => {
  assert.match(systemdUnit(options), /^ProtectHome=yes$/m);
  assert.match(systemdUnit({ ...options, certs: '/home/anna/certs' }), /^ProtectHome=read-only$/m);
});
