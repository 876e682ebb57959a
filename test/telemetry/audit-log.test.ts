/** The audit log: what is recorded, by requests and commands, and what happens to its file. */

import assert from 'node:assert/strict';
import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { AuditLog } from '../../lib/telemetry/audit-log.ts';
import type { AuditEvent } from '../../lib/telemetry/audit-log.ts';
import { runCommand } from '../helper/command.ts';
import { adminToken, cheap, openService } from '../helper/service.ts';
import { temporaryDirectory, until } from '../helper/temporary.ts';

const password = 'correct horse';
/** The complete lines: one that is being written can be read in part. */
const read = (path: string): any[] => {
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line));
};
const event = (target: number): AuditEvent => ({ event: 'removed', actor: 'admin', target });

function open(t: TestContext, path = join(temporaryDirectory(t), 'audit.jsonl')) {
  const reports: string[] = [];
  let ms = Date.parse('2026-11-26T12:00:00Z');
  const audit = new AuditLog({ path, key: async () => 'the key', now: () => new Date(ms), report: (line) => reports.push(line) });
  t.after(() => audit.close());
  return { path, audit, reports, pass: (seconds: number) => void (ms += seconds * 1000) };
}

test('audit: every event of the API has its actor, target, client and request, and no login or secret', async (t) => {
  const { ask, data } = await openService(t, cheap, { REGISTRAR_ADMIN_TOKEN: adminToken });
  const admin = { authorization: `Bearer ${adminToken}` };
  const own = { authorization: `Basic ${Buffer.from(`алиса:${password}`).toString('base64')}` };
  const path = `/user/${encodeURIComponent('алиса')}`;
  const created = await ask('/user/', { method: 'POST', body: { login: 'алиса', password } });
  await ask('/session', { method: 'POST', body: { login: 'алиса', password } });
  await ask(path, { headers: { authorization: `Basic ${Buffer.from('алиса:wrong horse').toString('base64')}` } });
  await ask(path, { headers: { authorization: 'Bearer wrong' } });
  await ask(path, { method: 'PATCH', body: { password: 'battery staple' }, headers: own });
  const { json: { token } } = await ask(`${path}/password-link`, { method: 'POST', headers: admin });
  await ask('/password', { method: 'POST', body: { token, password } });
  await ask('/user/bob/password-link', { method: 'POST', headers: admin });
  for (const disabled of [true, false]) await ask(path, { method: 'PATCH', body: { disabled }, headers: admin });
  await ask(`${path}/session`, { method: 'DELETE', headers: own });
  await ask(path, { method: 'DELETE', headers: own });
  const expected = [
    ['registered', 'anonymous', 1], ['signed-in', 'anonymous', 1], ['rejected', 'anonymous', undefined], ['password-changed', 'user:1', 1],
    ['link-issued', 'admin', 1], ['link-used', 'anonymous', 1], ['invited', 'admin', 2], ['link-issued', 'admin', 2],
    ['disabled', 'admin', 1], ['enabled', 'admin', 1], ['sessions-ended', 'user:1', 1], ['removed', 'user:1', 1],
  ];
  const file = join(data, 'audit.jsonl');
  await until(() => existsSync(file) && read(file).length >= expected.length, 'the events are written');
  const lines = read(file);
  // The line of a rejection waits for its key.
  const found = lines.map(({ event: name, actor, target }) => [name, actor, target]);
  assert.deepEqual(found.sort(), expected.sort());
  assert.equal(lines.find(({ event: name }) => name === 'registered').request, created.headers['x-request-id']);
  assert.match(lines.find(({ event: name }) => name === 'rejected').detail, /^login [0-9a-f]{32}$/);
  for (const { client, time } of lines) assert.deepEqual([client, new Date(time).toISOString()], ['127.0.0.1', time]);
  const text = readFileSync(file, 'utf8');
  for (const secret of ['алиса', password, 'staple', token, adminToken]) assert.ok(!text.includes(secret), secret);
  assert.equal(statSync(file).mode & 0o777, 0o600);
});

test('audit: commands are recorded with their uid, to the same file, another one, or none', async (t) => {
  const data = join(temporaryDirectory(t), 'data');
  const uid = `command:${process.getuid?.()}`;
  const run = (args: string[], input = '') => runCommand([...args, '--data', data], { input });
  assert.equal((await run(['user', 'add', 'alice', '--kdf', 'pbkdf2:sha256:1'], `${password}\n`)).status, 0);
  await run(['user', 'invite', 'bob']);
  await run(['user', 'disable', 'alice']);
  await run(['export']);
  await run(['token']);
  await run(['user', 'remove', 'bob', '--yes']);
  const found = read(join(data, 'audit.jsonl')).map(({ event: name, actor, target }) => [name, actor, target]);
  assert.deepEqual(found, [
    ['registered', uid, 1], ['invited', uid, 2], ['link-issued', uid, 2], ['disabled', uid, 1], ['exported', uid, undefined], ['token-made', uid, undefined],
    ['removed', uid, 2],
  ]);
  const other = join(temporaryDirectory(t), 'other.jsonl');
  await run(['user', 'enable', 'alice', '--audit', other]);
  await run(['user', 'sign-out', 'alice', '--audit', 'off']);
  assert.deepEqual([read(other).length, read(join(data, 'audit.jsonl')).length], [1, 7]);
});

test('audit: rejections of a client are one line and one count a minute, and many clients share a count', async (t) => {
  const { audit, path, pass } = open(t);
  const reject = (client: string) => audit.rejected({ actor: 'anonymous', client }, 'алиса');
  for (let n = 0; n < 1_000; n++) reject('192.0.2.1');
  pass(61);
  reject('192.0.2.1');
  for (let n = 0; n < 20_000; n++) reject(`2001:db8::${n.toString(16)}`);
  await audit.close();
  const lines = read(path);
  assert.deepEqual(lines.filter(({ client }) => client === '192.0.2.1').map(({ count }) => count ?? 0).sort(), [0, 0, 999]);
  assert.ok(lines.length < 10_010, String(lines.length));
  assert.equal(lines.find(({ client, count }) => client === 'other clients' && count > 0).count, 10_000);
  assert.equal(new Set(lines.map(({ detail }) => detail)).size, 2, 'the same login has the same hash');
});

test('audit: two processes share the file, a torn line is closed, and a renamed file is begun anew', async (t) => {
  const { audit, path } = open(t);
  const { audit: other } = open(t, path);
  for (let n = 0; n < 500; n++) for (const log of [audit, other]) log.record(event(n));
  await until(() => existsSync(path) && read(path).length === 1_000, 'all are written');
  await other.close();
  appendFileSync(path, '{"time":"2026-');
  const { audit: next } = open(t, path);
  next.record(event(1));
  await next.close();
  const lines = readFileSync(path, 'utf8').split('\n');
  assert.deepEqual([lines.at(-3), JSON.parse(lines.at(-2)!).target], ['{"time":"2026-', 1]);
  renameSync(path, `${path}.1`);
  audit.record(event(2));
  await until(() => existsSync(path), 'a new file');
  await audit.close();
  assert.deepEqual(read(path).map(({ target }) => target), [2]);
});

test('audit: a failure is reported once and counted, and the next event is tried; without a directory the operator gets the events', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'audit.jsonl');
  mkdirSync(path);
  const { audit, reports } = open(t, path);
  for (let n = 0; n < 3; n++) {
    audit.record(event(n));
    await until(() => audit.failures === n + 1, 'the failure is counted');
  }
  assert.equal(reports.length, 1);
  assert.match(reports[0]!, /^Cannot write the audit log ".*": .*EISDIR/);
  rmSync(path, { recursive: true });
  audit.record(event(4));
  await audit.close();
  assert.equal(read(path).length, 1);
  const { audit: lost, reports: lines } = open(t, join(directory, 'nothing', 'audit.jsonl'));
  lost.record(event(5));
  await lost.close();
  assert.match(lines[0]!, /^audit: \{.*"target":5\}$/);
});

test('audit: the key is read once; while it cannot be read, rejections are written without their logins, and that is reported once', async (t) => {
  const path = join(temporaryDirectory(t), 'audit.jsonl');
  const reports: string[] = [];
  let [calls, isBroken] = [0, true];
  const key = async (): Promise<string> => {
    calls++;
    if (isBroken) throw new Error('no key');
    return 'the key';
  };
  const audit = new AuditLog({ path, key, now: () => new Date(), report: (line) => reports.push(line) });
  for (let n = 0; n < 50; n++) audit.rejected({ actor: 'anonymous', client: `192.0.2.${n}` }, 'алиса');
  await until(() => existsSync(path) && read(path).length === 50, 'all are written');
  assert.deepEqual([reports.length, audit.failures, new Set(read(path).map(({ detail }) => detail))], [1, 50, new Set([undefined])]);
  [calls, isBroken] = [0, false];
  for (let n = 50; n < 100; n++) audit.rejected({ actor: 'anonymous', client: `192.0.2.${n}` }, 'алиса');
  await audit.close();
  assert.equal(calls, 1);
  assert.equal(read(path).filter(({ detail }) => /^login [0-9a-f]{32}$/.test(detail)).length, 50);
});
