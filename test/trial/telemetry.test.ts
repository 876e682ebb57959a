/** Telemetry with the real programs: promtool, systemd, full pipes and disks. */

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { SystemdNotifier } from '../../lib/telemetry/systemd-notify.ts';
import { exercise } from '../helper/exercise.ts';
import { adminToken, certificates, cheap, openService, spawnService } from '../helper/service.ts';
import { childEnvironment, freePort, loader, root, temporaryDirectory, until } from '../helper/temporary.ts';
import { trial } from '../helper/trial.ts';

const password = 'correct horse battery';
const closed = { REGISTRAR_ADMIN_TOKEN: adminToken };
const admin = { Authorization: `Bearer ${adminToken}` };

trial('metrics: promtool finds nothing to complain of, and they say what has happened', { needs: ['promtool'] }, async (t) => {
  const service = await openService(t, cheap, closed);
  await exercise(service);
  const { status, text, headers } = await service.ask('/metrics', { headers: admin });
  assert.deepEqual([status, headers['content-type']], [200, 'text/plain; version=0.0.4; charset=utf-8']);
  const checked = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  assert.deepEqual([checked.status, checked.stdout, checked.stderr], [0, '', '']);
  const expected = {
    'registrar_request_duration_seconds_count{method="POST",route="/user/",status="201"}': '1',
    'registrar_request_duration_seconds_count{method="POST",route="/user/",status="409"}': '1',
    'registrar_request_duration_seconds_count{method="GET",route="/user/{login}",status="401"}': '1',
    'registrar_request_duration_seconds_count{method="HEAD",route="/user/{login}",status="200"}': '1',
    'registrar_request_duration_seconds_count{method="other",route="none",status="404"}': '1',
    'registrar_sign_ins_total{outcome="success"}': '1',
    'registrar_sign_ins_total{outcome="failure"}': '1',
    registrar_users: '1',
    registrar_ready: '1',
    'registrar_hash_duration_seconds_count': '4',
    'registrar_store_sync_duration_seconds_count': '1',
  };
  for (const [series, value] of Object.entries(expected)) {
    const line = text.split('\n').find((other) => other.startsWith(`${series} `));
    // A good password is not hashed again where it was checked a moment ago, so the session's may be one fewer.
    if (/hash|success/.test(series)) assert.match(line ?? '', / [1-9]$/, series);
    else assert.equal(line, `${series} ${value}`);
  }
  assert.doesNotMatch(text, /alice|127\.0\.0\.1|secret/);
  const bytes = readFileSync(join(service.data, 'users.jsonl')).length;
  assert.match(text, new RegExp(`^registrar_store_file_bytes ${bytes}$`, 'm'));
});

trial('metrics: the documented configuration of Prometheus scrapes the service, and the three alerts fire', { needs: ['prometheus', 'openssl'] }, async (t) => {
  const directory = temporaryDirectory(t);
  const certs = join(directory, 'certs');
  mkdirSync(certs);
  const make = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '5', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
  spawnSync('openssl', [...make, '-keyout', join(certs, 'key.pem'), '-out', join(certs, 'cert.pem')]);
  chmodSync(join(certs, 'key.pem'), 0o600);
  const tokens = ['admin', 'metrics'].flatMap((name) => {
    const path = join(directory, name);
    writeFileSync(path, `the-token-of-these-tests-for-${name}\n`, { mode: 0o600 });
    return [`--${name}-token-file`, path];
  });
  const service = await spawnService(t, { args: [...cheap, '--certs', certs, '--limits', 'off', ...tokens] });
  const [, yaml = ''] = /```yaml\n(.*?)```/s.exec(readFileSync(join(root, 'lib/telemetry/README.md'), 'utf8')) ?? [];
  const rules = readFileSync(join(root, 'lib/deploy/prometheus-rules.yml'), 'utf8');
  // Only the times are shorter than those that are shipped.
  writeFileSync(join(directory, 'rules.yml'), rules.replace(/for: \w+/g, 'for: 0s').replace('[5m]', '[10s]'));
  const configuration = yaml.replace('/etc/prometheus/registrar-token', join(directory, 'metrics')).replace('/etc/prometheus/registrar.pem', join(certs, 'cert.pem'))
    .replace('registrar.example:8443', `localhost:${new URL(service.url).port}`).replace('/etc/prometheus/registrar-rules.yml', join(directory, 'rules.yml'));
  writeFileSync(join(directory, 'prometheus.yml'), `global: { scrape_interval: 1s, evaluation_interval: 1s }\n${configuration}`);
  const port = await freePort();
  const prometheus = spawn('prometheus', [
    `--config.file=${join(directory, 'prometheus.yml')}`, `--storage.tsdb.path=${join(directory, 'tsdb')}`, `--web.listen-address=127.0.0.1:${port}`,
  ], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  prometheus.stderr.on('data', (chunk) => (said += chunk));
  const ended = once(prometheus, 'exit');
  t.after(async () => {
    prometheus.kill('SIGKILL');
    await ended;
  });
  const get = async (path: string): Promise<any> => ((await (await fetch(`http://127.0.0.1:${port}/api/v1/${path}`)).json()) as any).data;
  const firing = async (): Promise<string[]> => (await get('alerts')).alerts.filter(({ state }: { state: string }) => state === 'firing').map(({ labels }: any) => labels.alertname).sort();
  await until(async () => {
    assert.equal(prometheus.exitCode, null, said);
    return (await get('targets').catch(() => undefined))?.activeTargets[0]?.health === 'up';
  }, 'the target is up', 30_000);
  await until(async () => (await firing()).join() === 'RegistrarCertificateExpires', 'the first alert', 30_000);
  const wrong = { Authorization: `Basic ${Buffer.from('alice:wrong horse').toString('base64')}` };
  await until(async () => {
    for (let n = 0; n < 20; n++) assert.equal((await service.ask('/session', { headers: wrong })).status, 401);
    return (await firing()).includes('RegistrarFailedSignIns');
  }, 'the second alert', 30_000);
  appendFileSync(join(service.data, 'users.jsonl'), 'not a line\n');
  await until(async () => (await firing()).includes('RegistrarNotReady'), 'the third alert', 30_000);
});

trial('health: it answers every client, however often, and is not ready in the drain period', async (t) => {
  const { ask, app } = await openService(t, [...cheap, '--drain-seconds', '1'], closed);
  for (let n = 0; n < 3_100; n++) {
    const { status } = await ask('/health/ready');
    if (status !== 200) assert.fail(`${status} after ${n}`);
  }
  assert.notEqual((await ask('/user/alice')).status, 429, 'nor does it take from what others may ask');
  const ended = app.close();
  const [live, ready] = [await ask('/health/live'), await ask('/health/ready')];
  assert.deepEqual([live.status, live.text], [200, '{"status":"ok"}\n']);
  assert.deepEqual([ready.status, ready.text], [503, '{"status":"unready","reason":"the service is stopping"}\n']);
  assert.equal((await ask('/user/alice')).status, 401, 'requests are still served');
  await ended;
  await assert.rejects(ask('/health/live'), /ECONNREFUSED|ECONNRESET|socket hang up/);
});

trial('log: the service goes on when its pipe is full, when its reader has gone, and when there is no room', async (t) => {
  const requests = 1_000;
  for (const output of ['| sleep 30', '| head -c 1', '> /dev/full']) {
    if (output.includes('/dev/full') && !existsSync('/dev/full')) continue;
    const data = temporaryDirectory(t);
    const flags = ['serve', '--port', '0', '--socket', join(data, 'socket'), '--http', '--data', join(data, 'd'), '--certs', certificates(), ...cheap];
    const command = `exec 3>&1; { ${[process.execPath, ...loader, 'bin/registrar.ts', ...flags].join(' ')} & echo $! >&3; wait; } ${output}`;
    const child = spawn('sh', ['-c', command], { cwd: root, env: childEnvironment({ ...closed }) });
    const [chunk] = await once(child.stdout, 'data');
    const pid = Number(/\d+/.exec(String(chunk))?.[0]);
    t.after(() => {
      try {
        process.kill(pid, 'SIGKILL');
      } catch { /* it has ended */ }
      child.kill('SIGKILL');
    });
    // The file is there a moment before it is listened to.
    let socket: Socket | undefined;
    await until(async () => {
      const tried = connect(join(data, 'socket'));
      if (await new Promise<boolean>((resolve) => tried.once('connect', () => resolve(true)).once('error', () => resolve(false)))) socket = tried;
      return socket !== undefined;
    }, 'the socket');
    assert.ok(socket !== undefined);
    let text = '';
    socket.on('data', (more) => (text += more));
    for (let n = 1; n <= requests; n++) {
      socket.write('GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n');
      if (n % 50 === 0 || n === 1) await until(() => text.split('{"status":"ok"}').length === 2, `answer ${n} with ${output}`);
      else await until(() => text.includes('{"status":"ok"}'), `answer ${n}`);
      text = '';
    }
    socket.destroy();
    process.kill(pid, 'SIGTERM');
    await until(() => !existsSync(`/proc/${pid}`) || /\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1')), `its end with ${output}`);
    child.kill('SIGKILL');
  }
});

trial('log: with --log off there is the line that says where it listens, and no other', async (t) => {
  for (const [flag, count] of [['off', 0], ['on', 5]] as const) {
    const service = await spawnService(t, { args: [...cheap, '--log', flag] });
    let text = '';
    service.child.stdout?.on('data', (chunk) => (text += chunk));
    for (let n = 0; n < 5; n++) await service.ask('/health/live');
    service.terminate();
    assert.equal(await service.ended, 0);
    assert.equal(text.split('\n').filter((line) => line.includes('"request"')).length, count, text);
  }
});

trial('health: it is not ready while there are too many passwords to hash, nor when the store has failed', async (t) => {
  const { ask, data, reports } = await openService(t, ['--kdf', 'pbkdf2:sha256:10000000']);
  const ready = async (): Promise<string> => (await ask('/health/ready')).text;
  assert.equal(await ready(), '{"status":"ok"}\n');
  const controller = new AbortController();
  const { signal } = controller;
  const asked = Array.from({ length: 40 }, (_, n) =>
    ask('/user/', { method: 'POST', body: { login: `user-${n}`, password }, signal }).catch(() => undefined));
  await until(async () => (await ready()).includes('too many passwords are waiting'), 'a full queue');
  controller.abort();
  await Promise.all(asked);
  await until(async () => (await ready()) === '{"status":"ok"}\n', 'an empty queue');
  renameSync(join(data, 'users.jsonl.lock'), join(data, 'elsewhere'));
  await until(async () => {
    await ask('/user/alice');
    return /^\{"status":"unready","reason":".*(?:removed|replaced).*"\}\n$/.test(await ready());
  }, 'the failure');
  assert.match(reports.join(), /failed: /);
});

/** What systemd is: a socket for datagrams. It prints each, and closes the descriptor that the sender may wait for. */
const listener = `
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound', flush=True)
while True:
    text, ancillary, *_ = s.recvmsg(4096, 1024)
    for level, kind, data in ancillary:
        if kind == socket.SCM_RIGHTS:
            for fd in array.array('i', data): os.close(fd)
    print(text.decode().replace('\\n', ' '), flush=True)
`;

async function listen(t: TestContext): Promise<{ path: string; lines: () => string[] }> {
  const path = join(temporaryDirectory(t), 'notify');
  const child = spawn('python3', ['-c', listener, path]);
  t.after(async () => {
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  let text = '';
  child.stdout.on('data', (chunk) => (text += chunk));
  await until(() => text.startsWith('bound\n'), 'the listener');
  return { path, lines: () => text.split('\n').slice(1, -1) };
}

trial('systemd: it is told when the service is ready, that it lives, and when it ends', { needs: ['systemd-notify', 'python3'] }, async (t) => {
  const { path, lines } = await listen(t);
  const flags = ['serve', '--port', '0', '--data', temporaryDirectory(t), '--certs', certificates(), ...cheap];
  const child = spawn(process.execPath, [...loader, 'bin/registrar.ts', ...flags], {
    cwd: root, env: childEnvironment({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '400000' }),
  });
  t.after(() => void child.kill('SIGKILL'));
  const has = (pattern: RegExp): boolean => lines().some((line) => pattern.test(line));
  await until(() => has(/^READY=1 STATUS=Listens on https:\/\/127\.0\.0\.1:\d+/), 'READY');
  await until(() => lines().filter((line) => line.startsWith('WATCHDOG=1')).length >= 2, 'the watchdog');
  child.kill('SIGTERM');
  await until(() => has(/^STOPPING=1/), 'STOPPING');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
  assert.equal(lines().findIndex((line) => line.startsWith('READY=1')), 0, 'that it is ready comes first');
});

trial('systemd: without a socket nothing is run, and another process\'s watchdog is not ours', async () => {
  const reports: string[] = [];
  const report = (line: string): void => void reports.push(line);
  // There is no such program on this path: if it were run, that would be reported.
  const alone = new SystemdNotifier({ PATH: '/nowhere' }, report);
  alone.ready('x');
  await alone.stopping();
  assert.deepEqual(reports, []);
  const other = new SystemdNotifier({ PATH: '/nowhere', NOTIFY_SOCKET: '/nowhere/s', WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' }, report);
  other.ready('x');
  await until(() => reports.length === 1, 'a failure is told, once');
  await other.stopping();
  assert.equal(reports.length, 1, reports.join());
  assert.match(reports[0]!, /^systemd-notify READY=1 .* failed/);
});
