/** The files of the container image alone, in a root of their own, as the image runs them; without Docker. */

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, copyFileSync, cpSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { dirname, join } from 'node:path';
import { cannotUnshare } from '../helper/possible.ts';
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
