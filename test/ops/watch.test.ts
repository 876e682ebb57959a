import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync, renameSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Output } from '../../lib/ops/watch.ts';
import { adminToken, certificates, cheap, openService, spawnService } from '../helper/service.ts';
import type { Service } from '../helper/service.ts';
import { loader, root, temporaryDirectory, until, without } from '../helper/temporary.ts';

const password = 'correct horse battery';
const closed = { REGISTRAR_ADMIN_TOKEN: adminToken };
const admin = { Authorization: `Bearer ${adminToken}` };

function basic(login: string, word = password): Record<string, string> {
  return { Authorization: `Basic ${Buffer.from(`${login}:${word}`).toString('base64')}` };
}

/** The value of a series of /metrics, as it is written there. */
async function metric({ ask }: Service, series: string): Promise<string | undefined> {
  const { text } = await ask('/metrics', { headers: admin });
  return text.split('\n').find((line) => line.startsWith(`${series} `))?.slice(series.length + 1);
}

/** Something of everything: good and bad sign-ins, each kind of principal, paths that are none, a client that is none. */
async function exercise({ ask, url }: Service): Promise<void> {
  const register = { method: 'POST', body: { login: 'alice', password } };
  assert.equal((await ask('/user/', register)).status, 201);
  assert.equal((await ask('/user/', register)).status, 409);
  assert.equal((await ask('/user/alice', { headers: basic('alice') })).status, 200);
  assert.equal((await ask('/user/alice', { headers: basic('alice', 'wrong-secret') })).status, 401);
  assert.equal((await ask('/user/alice', { method: 'HEAD', headers: admin })).status, 200);
  assert.equal((await ask('/user/', { headers: { ...admin, Accept: 'application/x-ndjson' } })).status, 200);
  const { json } = await ask('/session', { method: 'POST', body: { login: 'alice', password, cookie: true } });
  assert.equal((await ask('/session', { headers: { Authorization: `Bearer ${json.token}` } })).status, 200);
  assert.equal((await ask('/session', { headers: { Cookie: `__Host-registrar=${json.token}` } })).status, 200);
  assert.equal((await ask('/secret-place?secret=query')).status, 404);
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  await once(socket, 'connect');
  socket.destroy();
}

test('metrics: promtool finds nothing to complain of, and they say what has happened', { skip: without('promtool') }, async (t) => {
  const service = await openService(t, cheap, closed);
  await exercise(service);
  const { status, text, headers } = await service.ask('/metrics', { headers: admin });
  assert.deepEqual([status, headers['content-type']], [200, 'text/plain; version=0.0.4; charset=utf-8']);
  const checked = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  assert.deepEqual([checked.status, checked.stdout, checked.stderr], [0, '', '']);
  const expected = {
    'registrar_requests_total{method="POST",route="/user",status="201"}': '1',
    'registrar_requests_total{method="POST",route="/user",status="409"}': '1',
    'registrar_requests_total{method="GET",route="/user/{login}",status="401"}': '1',
    'registrar_requests_total{method="HEAD",route="/user/{login}",status="200"}': '1',
    'registrar_requests_total{method="other",route="none",status="404"}': '1',
    'registrar_sign_ins_total{outcome="good"}': '1',
    'registrar_sign_ins_total{outcome="bad"}': '1',
    registrar_sessions_issued_total: '1',
    registrar_requests_in_flight: '1',
    registrar_users: '1',
    registrar_ready: '1',
    registrar_hashes_total: '4',
    'registrar_hash_duration_seconds_count': '4',
    'registrar_store_batch_changes_sum': '1',
    'registrar_store_sync_duration_seconds_count': '1',
  };
  for (const [series, value] of Object.entries(expected)) {
    const line = text.split('\n').find((other) => other.startsWith(`${series} `));
    // A good password is not hashed again where it was checked a moment ago, so the session's may be one fewer.
    if (/hash|good/.test(series)) assert.match(line ?? '', / [1-9]$/, series);
    else assert.equal(line, `${series} ${value}`);
  }
  assert.doesNotMatch(text, /alice|127\.0\.0\.1|secret/);
  const bytes = readFileSync(join(service.data, 'users.jsonl')).length;
  assert.match(text, new RegExp(`^registrar_store_file_bytes ${bytes}$`, 'm'));
});

test('metrics: in closed mode they are for the admin token only', async (t) => {
  const { ask } = await openService(t, cheap, closed);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  assert.equal((await ask('/metrics')).status, 401);
  assert.equal((await ask('/metrics', { headers: basic('alice') })).status, 403);
});

test('metrics: what somebody thinks of makes no new series', async (t) => {
  const service = await openService(t);
  const count = async (): Promise<number> => (await service.ask('/metrics')).text.split('\n').length;
  for (const method of ['GET', 'PROPFIND']) await service.ask('/nowhere', { method });
  await service.ask('/user/u', { method: 'PROPFIND' });
  await count();
  const before = await count();
  for (let n = 0; n < 50; n++) await service.ask(`/nowhere-${n}`, { method: ['GET', 'PROPFIND', 'LOCK'][n % 3]! });
  for (let n = 0; n < 50; n++) await service.ask(`/user/u${n}`, { method: ['MKCOL', 'PROPFIND', 'LOCK'][n % 3]! });
  assert.equal(await count(), before);
});

test('metrics: a limit that refuses is counted by its name', async (t) => {
  const service = await openService(t, cheap, closed);
  for (let n = 0; n < 21; n++) await service.ask('/user/alice', { headers: basic('alice', `wrong-${n}`) });
  assert.equal(await metric(service, 'registrar_limits_refused_total{limit="sign-in-failures-of-login"}'), '1');
});

test('log: one line for each request, with the id of its answer, and nothing secret', async (t) => {
  const { lines, service } = await openLogged(t);
  await exercise(service);
  const { headers } = await service.ask('/user/bob', { headers: admin });
  await until(() => lines().some(({ id }) => id === headers['x-request-id']), 'the last line');
  const requests = lines().filter(({ event }) => event === 'request');
  assert.deepEqual(requests.map(({ method, route, status, who }) => `${method} ${route} ${status} ${who}`), [
    'POST /user 201 anyone', 'POST /user 409 anyone', 'GET /user/{login} 200 basic', 'GET /user/{login} 401 undefined',
    'HEAD /user/{login} 200 admin', 'GET /user 200 admin', 'POST /session 201 anyone', 'GET /session 200 bearer', 'GET /session 200 cookie',
    'GET - 404 undefined', 'GET /user/{login} 404 admin',
  ]);
  assert.equal(new Set(requests.map(({ id }) => id)).size, requests.length);
  for (const { ms, client, time } of requests) assert.ok(ms > 0 && client === '127.0.0.1' && Date.parse(time) <= Date.now());
  assert.deepEqual(requests.filter(({ user }) => user === 1).length, 3);
  const [, , read, , head, stream] = requests;
  assert.ok(read!.bytes > 50 && head!.bytes === 0 && stream!.bytes === read!.bytes, JSON.stringify([read, head, stream]));
  assert.doesNotMatch(JSON.stringify(requests), /alice|horse|secret|eyJ|registrar-|administrators/);
});

test('log: an error of ours is an event with the id that the client was told', async (t) => {
  const { lines, service } = await openLogged(t);
  await service.ask('/user/', { method: 'POST', body: { login: 'alice', password } });
  const path = join(service.data, 'users.jsonl');
  const bytes = readFileSync(path);
  bytes[bytes.length - 30]! ^= 1;
  const fd = openSync(path, 'r+');
  spawnSync('dd', [`of=${path}`, 'conv=notrunc', 'status=none'], { input: bytes });
  closeSync(fd);
  const { status, json } = await service.ask('/user/alice', { headers: admin });
  assert.equal(status, 500);
  await until(() => lines().some(({ event, id }) => event === 'report' && id === json.request), 'the event');
  const { level, message } = lines().find(({ event, id }) => event === 'report' && id !== undefined);
  assert.equal(level, 'error');
  assert.match(message, /corrupt: .*fails its checksum/);
});

/** A service in this process with a log that is kept. */
async function openLogged(t: Parameters<typeof openService>[0]): Promise<{ lines: () => any[]; service: Service }> {
  let text = '';
  const output: Output = {
    isTerminal: false,
    write: (more, done) => {
      text += more;
      setImmediate(done, null);
    },
  };
  const service = await openService(t, cheap, closed, output);
  return { lines: () => text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line)), service };
}

test('health: it says so to whoever asks, however often, and is not ready while it drains', async (t) => {
  const { ask, app } = await openService(t, [...cheap, '--drain-seconds', '1'], closed);
  for (let n = 0; n < 3_100; n++) {
    const { status } = await ask('/health/ready');
    if (status !== 200) assert.fail(`${status} after ${n}`);
  }
  assert.notEqual((await ask('/user/alice')).status, 429, 'nor does it take from what others may ask');
  const ended = app.close();
  const [live, ready] = [await ask('/health/live'), await ask('/health/ready')];
  assert.deepEqual([live.status, live.text], [200, '{"status":"ok"}\n']);
  assert.deepEqual([ready.status, ready.text], [503, '{"status":"unready","reason":"the service is ending"}\n']);
  assert.equal((await ask('/user/alice')).status, 401, 'whoever asks all the same is served');
  await ended;
  await assert.rejects(ask('/health/live'), /ECONNREFUSED/);
});

test('log: the service goes on when its pipe is full, when its reader has gone, and when there is no room', async (t) => {
  const requests = 1_000;
  for (const output of ['| sleep 30', '| head -c 1', '> /dev/full']) {
    if (output.includes('/dev/full') && !existsSync('/dev/full')) continue;
    const data = temporaryDirectory(t);
    const flags = ['serve', '--port', '0', '--socket', join(data, 'socket'), '--http', '--data', join(data, 'd'), '--certs', certificates(), ...cheap];
    const command = `exec 3>&1; { ${[process.execPath, ...loader, 'bin/registrar.ts', ...flags].join(' ')} & echo $! >&3; wait; } ${output}`;
    const child = spawn('sh', ['-c', command], { cwd: root, env: { ...process.env, ...closed } });
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

test('log: with --log off there is the line that says where it listens, and no other', async (t) => {
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

test('metrics: the lock is waited for and handed over between two services, and both count it', async (t) => {
  const first = await openService(t);
  const second = await openService(t, [...cheap, '--data', first.data]);
  for (const [n, { ask }] of [first, second, first, second].entries()) {
    assert.equal((await ask('/user/', { method: 'POST', body: { login: `user-${n}`, password } })).status, 201);
  }
  for (const service of [first, second]) {
    assert.match((await metric(service, 'registrar_store_lock_hand_overs_total')) ?? '', /^[1-9]/);
    assert.match((await metric(service, 'registrar_store_lock_wait_seconds_count')) ?? '', /^[1-9]/);
    assert.equal(await metric(service, 'registrar_store_batch_changes_sum'), '2');
  }
});

test('health: it is not ready while there are too many passwords to hash, nor when the store has failed', async (t) => {
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
    return (await ready()) === '{"status":"unready","reason":"the store has failed"}\n';
  }, 'the failure');
  assert.match(reports.join(), /failed: /);
});
