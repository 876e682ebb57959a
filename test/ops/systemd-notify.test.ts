import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { SystemdNotifier } from '../../lib/ops/systemd-notify.ts';
import { certificates, cheap } from '../helper/service.ts';
import { loader, root, temporaryDirectory, until, without } from '../helper/temporary.ts';

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

test('systemd: it is told when the service is ready, that it lives, and when it ends', { skip: without('systemd-notify') || without('python3') }, async (t) => {
  const { path, lines } = await listen(t);
  const flags = ['serve', '--port', '0', '--data', temporaryDirectory(t), '--certs', certificates(), ...cheap];
  const child = spawn(process.execPath, [...loader, 'bin/registrar.ts', ...flags], {
    cwd: root, env: { ...process.env, NOTIFY_SOCKET: path, WATCHDOG_USEC: '400000' },
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

test('systemd: without a socket nothing is run, and another process\'s watchdog is not ours', async () => {
  const reports: string[] = [];
  const report = (line: string): void => void reports.push(line);
  // There is no such program on this path: if it were run, that would be reported.
  const alone = new SystemdNotifier({ env: { PATH: '/nowhere', WATCHDOG_USEC: '1000' }, report });
  alone.ready('x');
  await alone.stopping();
  assert.deepEqual(reports, []);
  const other = new SystemdNotifier({ env: { PATH: '/nowhere', NOTIFY_SOCKET: '/nowhere/s', WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' }, report });
  other.ready('x');
  await until(() => reports.length === 1, 'a failure is told, once');
  await other.stopping();
  assert.equal(reports.length, 1, reports.join());
  assert.match(reports[0]!, /^systemd-notify READY=1 .* failed/);
});
