import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { readUsersFile, spawnService } from './helper/service.ts';
import { without } from './helper/temporary.ts';

const run = promisify(execFile);

for (const [first, second] of [['alice', 'bob'], ['алиса', 'борис']] as const) {
  test(`six steps: the exercise through curl -k, as ${first}`, { skip: without('curl') }, async (t) => {
    const { url, data } = await spawnService(t, { args: [] });
    const curl = async (...args: string[]): Promise<{ status: string; text: string }> => {
      const { stdout } = await run('curl', ['-k', '-s', '-w', '\n%{http_code}', ...args]);
      const cut = stdout.lastIndexOf('\n');
      return { status: stdout.slice(cut + 1), text: stdout.slice(0, cut) };
    };
    const json = ['-H', 'Content-Type: application/json'];
    const register = (login: string): Promise<{ status: string; text: string }> =>
      curl('-X', 'POST', ...json, '-d', JSON.stringify({ login, password: 'correct horse' }), `${url}/user/`);
    const path = `${url}/user/${encodeURIComponent(first)}`;

    const created = await register(first);
    assert.equal(created.status, '201');
    assert.equal(JSON.parse(created.text).login, first);

    assert.equal((await register(second)).status, '201');
    const [one, two] = readUsersFile(data).slice(1);
    assert.match(one.password, /^[0-9a-f]{32}\$[0-9a-f]{64}$/);
    assert.equal(one.kdf, 'pbkdf2:sha256:600000');
    assert.notEqual(one.password, two.password);
    assert.notEqual(one.password.split('$')[0], two.password.split('$')[0]);

    assert.equal((await register(first)).status, '409');

    const read = await curl(path);
    assert.equal(read.status, '200');
    assert.deepEqual(JSON.parse(read.text), JSON.parse(created.text));
    assert.ok(Math.abs(Date.parse(JSON.parse(read.text).registered) - Date.now()) < 60_000);

    assert.deepEqual(await curl('-X', 'DELETE', path), { status: '204', text: '' });
    assert.equal((await curl(path)).status, '404');
  });
}
