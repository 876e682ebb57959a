/** The files of lib/deploy: the container image in a root of its own, without Docker, and the unit under a systemd that was booted for it. */

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { dirname, join } from 'node:path';
import { cannotBootSystemd, cannotUnshare } from '../helper/possible.ts';
import { certificates, client } from '../helper/service.ts';
import { freePort, loader, root, temporaryDirectory, until } from '../helper/temporary.ts';
import { trial } from '../helper/trial.ts';

const cannot = (): string | false =>
  loader.length === 0 ? cannotUnshare('--pid', '--fork', '--mount') : 'the image has Node 24, which runs TypeScript';

/** What the Dockerfile copies, and the program with its libraries. */
function makeRoot(directory: string): void {
  const ignored = readFileSync(join(root, 'lib/deploy/Dockerfile.dockerignore'), 'utf8').match(/^![^*\n]*$/gm) ?? [];
  for (const line of ignored) {
    const name = line.slice(1);
    cpSync(join(root, name), join(directory, 'opt/registrar', name), { recursive: true, filter: (path) => !path.endsWith('README.md') || name.endsWith('README.md') });
  }
  const libraries = [...execFileSync('ldd', [process.execPath], { encoding: 'utf8' }).matchAll(/(?:=> )?(\/\S+) \(0x/g)].map(([, path = '']) => path);
  for (const path of libraries) {
    mkdirSync(join(directory, dirname(path)), { recursive: true });
    copyFileSync(path, join(directory, path));
  }
  mkdirSync(join(directory, 'bin'));
  copyFileSync(process.execPath, join(directory, 'bin/node'));
  chmodSync(join(directory, 'bin/node'), 0o755);
  for (const name of ['proc', 'dev', 'data', 'certs', 'run']) mkdirSync(join(directory, name));
  writeFileSync(join(directory, 'dev/null'), '');
}

for (const [kind, owner, mode] of [['a volume of its own', [1000, 1000], 0o700], ['a volume of root that its group may write to', [0, 2000], 0o2775]] as const) {
  trial(`container: as uid 1000 and PID 1, read-only but for ${kind}; SIGTERM ends it within a second`, { cannot, needs: ['ldd', 'unshare', 'chroot'] }, async (t) => {
    const directory = join(temporaryDirectory(t), 'root');
    mkdirSync(directory);
    makeRoot(directory);
    const [volume, certs, port] = [temporaryDirectory(t), temporaryDirectory(t), await freePort()];
    cpSync(certificates(), certs, { recursive: true });
    writeFileSync(join(certs, 'admin-token'), 'the-token-of-this-container\n', { mode: 0o444 });
    for (const path of [certs, join(certs, 'key.pem'), join(certs, 'cert.pem')]) chownSync(path, 1000, 1000);
    chownSync(volume, owner[0], owner[1]);
    chmodSync(volume, mode);
    const script = `set -e
      mount --bind '${directory}' '${directory}'
      mount --bind '${volume}' '${directory}/data'; mount --bind '${certs}' '${directory}/certs'; mount --bind /dev/null '${directory}/dev/null'
      mount -t proc proc '${directory}/proc'
      mount -o remount,bind,ro '${directory}'
      exec chroot --userspec=1000:2000 --groups=2000 '${directory}' /bin/node /opt/registrar/bin/registrar.ts serve --port ${port}`;
    const env = {
      PATH: '/bin:/usr/bin:/sbin:/usr/sbin', REGISTRAR_DATA: '/data', REGISTRAR_CERTS: '/certs', REGISTRAR_HOST: '0.0.0.0', REGISTRAR_KDF: 'pbkdf2:sha256:1',
      REGISTRAR_ADMIN_TOKEN_FILE: '/certs/admin-token',
    };
    const child = spawn('unshare', ['--pid', '--fork', '--kill-child', '--mount', 'sh', '-c', script], { env });
    t.after(() => child.kill('SIGKILL'));
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
    const ended = once(child, 'exit');
    await until(() => {
      assert.equal(child.exitCode, null, output);
      return output.includes('"listening"');
    }, 'the container listens');
    const agent = new https.Agent();
    t.after(() => agent.destroy());
    const ask = client(`https://127.0.0.1:${port}`, agent);
    const body = { login: 'алиса', password: 'correct horse' };
    assert.equal((await ask('/user/', { method: 'POST', body })).status, 201, output);
    const pid = Number(execFileSync('pgrep', ['-P', String(child.pid)], { encoding: 'utf8' }));
    const health = ['-t', String(pid), '-m', '-p', '-r', '/bin/node', '/opt/registrar/bin/registrar.ts', 'health', '--port', String(port)];
    const healthy = spawnSync('nsenter', health, { encoding: 'utf8' });
    assert.deepEqual([healthy.status, healthy.stdout], [0, 'ready\n'], healthy.stderr);
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    assert.match(status, /^Uid:\s+1000\s+1000/m);
    assert.match(status, /^NSpid:\s+\d+\s+1$/m);
    assert.equal(statSync(join(volume, 'users.jsonl')).mode & 0o777, 0o600);
    const from = performance.now();
    process.kill(pid, 'SIGTERM');
    assert.deepEqual((await ended)[0], 0, output);
    assert.ok(performance.now() - from < 1_000, `${performance.now() - from} ms`);
  });
}

/** As `systemd-analyze security` counts, tenths of 0 (safe) to 10; what is left is named in the unit. */
const exposureMax = 22;

trial('systemd unit: systemd finds no fault in it, and little that it leaves open', { needs: ['systemd-analyze'] }, (t) => {
  const path = join(temporaryDirectory(t), 'registrar.service');
  const unit = readFileSync(join(root, 'lib/deploy/registrar.service'), 'utf8');
  // `registrar` need not be installed here.
  writeFileSync(path, unit.replace('ExecStart=registrar serve', `ExecStart=${process.execPath} serve`));
  // What this machine lacks of other units does not matter.
  const verified = spawnSync('systemd-analyze', ['verify', '--recursive-errors=no', path], { encoding: 'utf8' });
  assert.deepEqual([verified.status, verified.stdout, verified.stderr], [0, '', '']);
  const security = spawnSync('systemd-analyze', ['security', '--offline=yes', `--threshold=${exposureMax}`, path], { encoding: 'utf8' });
  assert.equal(security.status, 0, security.stdout + security.stderr);
});

/** The console block of the section "systemd", without prompts. This root has no sudo. */
function documentedSteps(): string {
  const [, block = ''] = /^## systemd\n+```console root\n(.*?)```/ms.exec(readFileSync(join(root, 'lib/deploy/README.md'), 'utf8')) ?? [];
  const steps = block.replace(/^# /gm, '').replace(/sudo -u (\w+)/, 'setpriv --reuid $1 --regid $1 --clear-groups');
  assert.match(steps, /^systemctl daemon-reload && systemctl enable --now registrar$/m);
  return `set -eu\ncd /mnt\n${steps.trimEnd()} || { systemctl --no-pager status registrar; exit 1; }`;
}

trial('systemd unit: the documented steps install it, and systemd starts, reloads, restarts and stops the service', {
  cannot: () => (loader.length === 0 ? cannotBootSystemd() : 'make install needs the Node that runs it to read TypeScript'),
  needs: ['systemctl', 'nsenter', 'setpriv', 'curl'],
}, async (t) => {
  const base = temporaryDirectory(t);
  const at = join(base, 'root');
  // A systemd with no unit but the documented one and the targets that it names, on an overlay of this machine's root. The checkout
  // is at /mnt, below an overlay of its own.
  const script = `set -e
    mount --make-rprivate /
    mkdir -p '${base}/cgroup' '${at}' '${base}/overlay'
    mount -t cgroup2 cgroup2 '${base}/cgroup'
    mkdir -p '${base}/cgroup/registrar-trial'
    echo $$ > '${base}/cgroup/registrar-trial/cgroup.procs'
    umount '${base}/cgroup'
    mount -t tmpfs tmpfs '${base}/overlay'
    cd '${base}/overlay'
    mkdir upper work upper-mnt work-mnt
    mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work '${at}'
    mount -t overlay overlay -o 'lowerdir=${root},upperdir=upper-mnt,workdir=work-mnt' '${at}/mnt'
    exec unshare --cgroup --pid --fork --kill-child --mount-proc='${at}/proc' sh -ec '
      cd "${at}"
      mount -t sysfs -o ro sysfs sys
      mount -t cgroup2 cgroup2 sys/fs/cgroup
      mount -o bind,ro proc/sys proc/sys
      mount -t tmpfs tmpfs run
      mount --rbind /dev dev
      ip link set lo up
      touch usr/local/bin/node
      mount --bind "${process.execPath}" usr/local/bin/node
      mkdir run/units
      mkdir -p etc/systemd/system/registrar.service.d
      printf "[Service]\nStandardOutput=append:/run/output\nStandardError=inherit\n" > etc/systemd/system/registrar.service.d/output.conf
      for target in sysinit basic shutdown network-online multi-user; do echo "[Unit]" > "run/units/$target.target"; done
      mkdir -p old
      pivot_root . old
      umount -l /old
      exec /usr/bin/env -i container=trial PATH=/usr/local/bin:/usr/bin:/bin SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units \
        /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=0'`;
  const child = spawn('unshare', ['--mount', '--uts', '--ipc', '--net', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  const ended = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
    const remove = 'mount -t cgroup2 cgroup2 /mnt && find /mnt/registrar-trial -depth -type d -exec rmdir {} +';
    await until(() => spawnSync('unshare', ['--mount', 'sh', '-c', remove]).status === 0, 'the control groups are removed');
  });
  let pid = '';
  await until(() => {
    assert.equal(child.exitCode, null, output);
    pid = spawnSync('pgrep', ['-x', '-P', String(child.pid), 'systemd'], { encoding: 'utf8' }).stdout.trim();
    return pid !== '';
  }, 'systemd is booted');
  const run = (command: string): string => {
    const inside = ['-t', pid, '-a', '-r', '/usr/bin/env', '-i', 'PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'sh', '-c', command];
    const { status, stdout, stderr } = spawnSync('nsenter', inside, { encoding: 'utf8', timeout: 60_000 });
    const served = join('/proc', pid, 'root/run/output');
    assert.equal(status, 0, `${command}\n${stdout}${stderr}${output}${existsSync(served) ? readFileSync(served, 'utf8') : ''}`);
    return stdout.trim();
  };
  const property = (name: string): string => run(`systemctl show registrar --value -p ${name}`);
  await until(() => spawnSync('nsenter', ['-t', pid, '-a', '-r', 'systemctl', 'is-active', 'basic.target']).status === 0, 'the manager answers');
  run(documentedSteps());
  assert.deepEqual([property('ActiveState'), property('UnitFileState')], ['active', 'enabled']);
  assert.match(property('StatusText'), /^Listens on https:/);
  const health = 'registrar health --env-file /etc/registrar/registrar.env';
  assert.equal(run(`setpriv --reuid registrar --regid registrar --clear-groups ${health}`), 'ready');
  const create = `curl -sk -H "Content-Type: application/json" -d '{"login":"alice","password":"correct horse battery staple"}' -w '%{http_code}' https://127.0.0.1:8443/user/`;
  assert.match(run(create), /201$/);
  assert.equal(run('stat -c "%U %a" /var/lib/registrar/users.jsonl'), 'registrar 600');
  run('systemctl reload registrar');
  const first = property('MainPID');
  assert.match(run(create), /409$/);
  run('systemctl kill --signal=KILL --kill-whom=main registrar');
  // Both in one call: between two, the process may end.
  const states = (): readonly string[] => run('systemctl show registrar -p ActiveState -p MainPID').split('\n');
  await until(() => {
    const now = states();
    return now.includes('ActiveState=active') && !now.includes('MainPID=0') && !now.includes(`MainPID=${first}`);
  }, 'systemd restarts it', 30_000);
  assert.match(run(create), /409$/, 'the user is still there');
  run('systemctl stop registrar');
  assert.deepEqual([property('ActiveState'), property('Result')], ['inactive', 'success']);
});
