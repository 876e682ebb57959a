import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sendRaw } from './helper/raw.ts';
import { spawnService } from './helper/service.ts';

/** Stands in every request, and may stand in no answer and no log. */
const secret = 'hunter2-hunter2';

function random(seed: number): <T>(from: readonly T[]) => T {
  let state = seed;
  return (from) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return from[Math.floor((state / 2 ** 32) * from.length)]!;
  };
}

const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS', 'TRACE', 'BREW', 'post', '', 'G\0T'];
const targets = [
  '/user/', '/user', '/user/alice', '/user/%', '/user/%ff', '/user/%00', '/user/..', '/user/../../etc/passwd', '//user/', '*', '', '/user/?limit=x',
  '/user/?after=%ff', '/user/%2e%2e%2f', '/user/a%2fb', '/user/%25%30', 'http://localhost/user/', '/user/\xff', '/?', '/user/?limit=1000&after=aWQ6MQ',
  `/user/${'x'.repeat(3000)}`, '/user/\u0000',
];
const versions = ['HTTP/1.1', 'HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', 'HTTP/9', 'FTP/1', ''];
const headers = [
  'Content-Type: application/json', 'Content-Type: text/plain', 'Content-Type: application/json; charset=utf-16', 'Content-Encoding: gzip',
  'Idempotency-Key: "x"', 'Idempotency-Key: \x01', 'If-Match: *', 'If-None-Match: "1.1"', 'If-Match: """', 'Expect: 100-continue', 'Expect: x',
  'Upgrade: h2c', 'Accept: application/x-ndjson', 'Accept: *', 'X: y', ': z', 'Transfer-Encoding: chunked', 'Transfer-Encoding: x', 'Via: 1.1 x',
  'Range: bytes=0-5', 'Host: evil.example', `X-Long: ${'y'.repeat(9000)}`, 'Authorization: Basic %%%', 'Connection: close', 'Sec-Fetch-Site: cross-site',
];
const bodies = [
  '', '{', '[]', 'null', '"x"', '{"login":"x"', `{"login":"a","password":"${secret}"`, `${secret}`, `{"login":"a b","password":"${secret}"}`,
  `{"login":"${secret}","password":"${secret}"}`, `{"login":"a","login":"b","password":"${secret}"}`, `{"login":1,"password":"${secret}"}`,
  `{"login":"a","password":{"x":"${secret}"}}`, `{"${secret}":1}`, `{"login":"a\\ud800","password":"${secret}"}`, '\ufeff{}', '{"a":'.repeat(3000),
  `[${'['.repeat(8000)}`, `{"login":"a","password":"${secret}\\u0000"}`, `{"__proto__":{"login":"a"},"password":"${secret}"}`, '\xc3\x28', '\xff\xfe\x00',
  '\xed\xa0\x80', '\xc0\xaf', 'x'.repeat(20_000), `{"login":"pаypal","password":"${secret}"}`, '1e999', '{"login":"a","password":"short"}',
];

const places = ['method', 'target', 'version', 'host', 'length', 'headers', 'newline', 'body', 'body', 'body', 'end'];

test('malformed: 2,000 requests that are wrong in some way get no 5xx, crash nothing, and give nothing away', async (t) => {
  const service = await spawnService(t);
  const pick = random(20_261_122);
  const counts = new Map<string, number>();
  const one = async (): Promise<void> => {
    // One to three parts of a good request are spoiled.
    const spoiled = new Set([pick(places), pick(places), pick(places)].slice(0, pick([1, 1, 2, 3])));
    const choose = <T>(place: string, good: T, bad: readonly T[]): T => (spoiled.has(place) ? pick(bad) : good);
    const body = Buffer.from(choose('body', `{"login":"a","password":"${secret}"}`, bodies), 'latin1');
    const extra = Array.from({ length: choose('headers', 0, [1, 2, 3]) }, () => pick(headers));
    const target = choose('target', '/user/', targets);
    const lines = [
      `${choose('method', 'POST', methods)} ${target} ${choose('version', 'HTTP/1.1', versions)}`,
      choose('host', 'Host: localhost', ['Host: ', 'X-No: host', 'Host: evil.example']),
      choose('length', `Content-Length: ${body.length}`, ['Content-Length: 999999999', 'Content-Length: x', 'X-No: length', 'Content-Length: -5']),
      ...extra,
    ];
    const head = Buffer.from(`${lines.join(choose('newline', '\r\n', ['\n', '\r']))}\r\n\r\n`, 'latin1');
    const whole = Buffer.concat([head, body]);
    const cut = choose('end', whole.length, [Math.floor(whole.length / 2), Math.min(whole.length, 30), whole.length - 1]);
    // Whole, in two pieces, a byte at a time at the start, or cut short.
    const parts = pick([
      [whole],
      [whole.subarray(0, cut), whole.subarray(cut)],
      [...whole.subarray(0, Math.min(cut, 20))].map((byte) => Buffer.from([byte])).concat(whole.subarray(Math.min(cut, 20))),
      [whole.subarray(0, cut)],
    ]);
    const answer = await sendRaw(service.url, parts, 150);
    assert.ok(!answer.includes(secret), answer);
    assert.doesNotMatch(answer, /pbkdf2|[0-9a-f]{32}\$|node:|\.ts:\d/);
    for (const [, status = ''] of answer.matchAll(/^HTTP\/1\.1 (\d{3}) /gm)) {
      assert.ok(Number(status) < 500, `${JSON.stringify(whole.toString('latin1').slice(0, 400))} -> ${answer}`);
      counts.set(status, (counts.get(status) ?? 0) + 1);
    }
  };
  for (let n = 0; n < 2_000; n += 50) await Promise.all(Array.from({ length: 50 }, one));
  for (const status of ['400', '403', '404', '405', '413', '415', '417', '422', '431']) assert.ok((counts.get(status) ?? 0) > 0, `no ${status}: ${[...counts]}`);
  assert.equal((await service.ask('/user/')).status, 200);
  assert.equal(service.child.exitCode, null);
  assert.ok(!service.stderr().includes(secret));
  assert.equal(service.stderr().split('\n').filter((line) => line !== '' && !line.includes('OWASP')).length, 0, service.stderr());
});
