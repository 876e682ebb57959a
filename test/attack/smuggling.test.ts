/** Requests that hide another one, sent to the service alone and through a proxy in front of it. */

import assert from 'node:assert/strict';
import https from 'node:https';
import { test } from 'node:test';
import { sendRaw } from '../helper/raw.ts';
import { adminToken, cheap, client, openService } from '../helper/service.ts';
import { ambiguousRequests, hiddenRequest } from '../helper/smuggling.ts';
import { nginx, spawnNginx } from '../helper/stock-nginx.ts';
import { without } from '../helper/temporary.ts';

const admin = { headers: { authorization: `Bearer ${adminToken}` } };

test('smuggling: whatever can be read in two ways is refused and closed, and what is hidden in it is never carried out', async (t) => {
  const { url, ask } = await openService(t, [...cheap, '--limits', 'off'], { REGISTRAR_ADMIN_TOKEN: adminToken });
  assert.ok(ambiguousRequests.length >= 30);
  const findings = await Promise.all(ambiguousRequests.map(async ({ name, bytes, status = 400 }, n) => {
    const started = performance.now();
    const text = await sendRaw(url, [bytes(hiddenRequest(`hidden${n}`))]);
    const wrong: string[] = [];
    const statuses = (text.match(/^HTTP\/1\.1 \d+/gm) ?? []).map((line) => Number(line.slice(9)));
    if (String(statuses) !== (status === 0 ? '' : String(status))) wrong.push(`was answered ${statuses.join(', ') || 'nothing'}`);
    if (status !== 0 && !/\r\nConnection: close\r\n/i.test(text)) wrong.push('does not say that the connection is closed');
    if (performance.now() - started > 2_900) wrong.push('was left open');
    return wrong.map((line) => `${name}: ${line}`);
  }));
  const { users } = (await ask('/user/?limit=1000', admin)).json;
  for (const { login } of users) findings.push([`${login} was carried out: ${ambiguousRequests[Number(login.slice(6))]?.name}`]);
  assert.deepEqual(findings.flat(), []);
  // The same request is carried out where nothing hides it.
  assert.match(await sendRaw(url, [hiddenRequest('seen').replace('Host:', 'Connection: close\r\nHost:')]), /^HTTP\/1\.1 201 /);
});

test('smuggling: what nginx passes on is one request to both, and none that nginx did not see', { skip: without(nginx) }, async (t) => {
  const args = [...cheap, '--limits', 'off', '--trusted-proxy', '127.0.0.1'];
  const { url, ask } = await openService(t, args, { REGISTRAR_ADMIN_TOKEN: adminToken });
  const settings = 'proxy_http_version 1.1; proxy_set_header Connection "";';
  // As it stands in guides, with connections that are kept, and with bodies that are passed on while they come.
  const proxy = await spawnNginx(t, url, ['', settings, `${settings} proxy_request_buffering off;`]);
  const requestNumber = async (): Promise<number> => Number(String((await ask('/nothing')).headers['x-request-id']).split('-')[1]);
  const before = await requestNumber();
  const sent = proxy.urls.flatMap((front, site) => ambiguousRequests.map(({ bytes }, n) => ({ front, bytes: bytes(hiddenRequest(`hidden${site}-${n}`)) })));
  for (let from = 0; from < sent.length; from += 50) {
    await Promise.all(sent.slice(from, from + 50).map(({ front, bytes }) => sendRaw(front, [bytes], 1_500)));
  }
  const judged = await requestNumber() - before - 1;
  const passed = proxy.passed();
  assert.ok(passed.length > 20, `nginx has passed on ${passed.length}`);
  assert.equal(judged, passed.length, 'requests that the service saw, and that nginx has passed on');
  // nginx reads some of them in one way, and what stands behind is a request of its own then: it says so.
  const { users } = (await ask('/user/?limit=1000', admin)).json;
  const seen = new Set(passed.map((line) => /PUT \/user\/(\S+) /.exec(line)?.[1]));
  assert.deepEqual(users.filter(({ login }: { login: string }) => !seen.has(login)), []);
});

test('smuggling: open mode serves nobody who comes through a stock nginx', { skip: without(nginx) }, async (t) => {
  const { url, ask } = await openService(t);
  await ask('/user/', { method: 'POST', body: { login: 'alice', password: 'correct horse' } });
  const names = [
    'X-Forwarded-For', 'X-Forwarded-Host', 'X-Forwarded-Proto', 'X-Forwarded-Port', 'X-Forwarded-Server', 'X-Forwarded-Prefix', 'X-Real-IP', 'Forwarded',
    'Forwarded-For', 'Via', 'X-Client-IP', 'X-Cluster-Client-IP', 'X-Original-URL', 'X-Original-Host', 'X-Envoy-External-Address', 'CF-Connecting-IP',
    'True-Client-IP', 'Fastly-Client-IP',
  ];
  const modern = 'proxy_http_version 1.1; proxy_set_header Host localhost;';
  const proxy = await spawnNginx(t, url, [
    // The address of the upstream for a host, in HTTP/1.0; the client's host; HTTP/1.1 with the client's host.
    '', 'proxy_set_header Host $host;', 'proxy_http_version 1.1; proxy_set_header Host $host;', 'proxy_set_header Host localhost;',
    ...names.map((name) => `${modern} proxy_set_header ${name} $remote_addr;`),
  ]);
  const agent = new https.Agent({ keepAlive: true });
  t.after(() => agent.destroy());
  for (const [n, front] of proxy.urls.entries()) {
    const through = client(front, agent);
    const headers = { host: n === 2 ? 'evil.example' : 'localhost' };
    const asked = [['GET', '/user/'], ['GET', '/user/alice'], ['DELETE', '/user/alice'], ['OPTIONS', '/user/'], ['GET', '/nothing']] as const;
    for (const [method, path] of asked) {
      const { status, json } = await through(path, { method, headers });
      assert.equal(status, 403, `site ${n}: ${method} ${path}`);
      assert.equal(json.type, 'urn:registrar:forbidden');
      assert.match(json.detail, /registrar token/);
    }
  }
  assert.equal((await ask('/user/alice')).status, 200);
});

test('smuggling: a name that was made to point here is refused, whatever it looks like, by Host and by the page\'s origin', async (t) => {
  const { ask } = await openService(t);
  const hosts = [
    'evil.example', 'evil.example:8443', 'localhost.evil.example', 'localhost.', 'localhost.localdomain', '127.0.0.1.nip.io', '127.0.0.2', '127.1', '0x7f.1',
    '2130706433', '0', '0.0.0.0', '[::]', '[::ffff:127.0.0.1]', '::1', '[::1', '[::1].evil.example', 'localhost@evil.example', 'evil.example#localhost', 'localhost:',
    'localhost:8443:1', 'localhost:999999', 'localhost, evil.example', 'xn--lcalhost-x1b',
  ];
  for (const host of hosts) {
    const { status, json } = await ask('/user/', { headers: { host } });
    assert.deepEqual([status, json.type], [403, 'urn:registrar:forbidden'], host);
  }
  const origins = ['null', 'https://evil.example', 'https://localhost', 'https://localhost.evil.example', 'file://', 'http://127.0.0.1:1', ''];
  for (const origin of origins) {
    const { status } = await ask('/user/', { method: 'POST', headers: { host: 'localhost:8443', origin }, body: { login: 'mallory', password: 'correct horse' } });
    assert.equal(status, 403, origin);
  }
  for (const site of ['cross-site', 'same-site']) {
    const { status } = await ask('/user/', { method: 'POST', headers: { 'sec-fetch-site': site }, body: { login: 'mallory', password: 'correct horse' } });
    assert.equal(status, 403, site);
  }
  assert.deepEqual((await ask('/user/')).json.users, []);
});
