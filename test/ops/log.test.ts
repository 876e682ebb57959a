import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Log } from '../../lib/ops/log.ts';
import type { Served } from '../../lib/ops/served.ts';
import { until } from '../helper/temporary.ts';

const at = Date.parse('2026-11-23T08:09:10.007Z');

function served(more: Partial<Served> = {}): Served {
  return {
    id: 'p-1', method: 'GET', route: { method: 'GET', pattern: '/user/{login}', action: 'read' }, status: 200, bytes: 80, startedMs: 0, code: undefined,
    principal: { kind: 'user', by: 'basic', id: 17, login: 'alice', version: 1, expires: undefined },
    visit: { isOpen: false, client: '192.0.2.7', standings: [] }, ...more,
  };
}

/** A log whose writes are answered by hand. */
function open({ isShort = false, now = () => at } = {}): { log: Log; texts: string[]; answer: (error?: Error) => void } {
  const texts: string[] = [];
  let waiting: ((error?: Error) => void) | undefined;
  const log = new Log({
    isShort, now,
    write: (text, done) => {
      assert.equal(waiting, undefined, 'one write at a time');
      texts.push(text);
      waiting = done;
    },
  });
  log.open();
  const answer = (error?: Error): void => {
    const done = waiting;
    waiting = undefined;
    done?.(error);
  };
  return { log, texts, answer };
}

test('log: a request is one line of JSON with who, what and how long, and without the login', async () => {
  const { log, texts } = open();
  log.request(served(), 1.23456);
  log.request(served({ principal: undefined, route: undefined, status: 503, code: 'overloaded', visit: { isOpen: true, client: '', standings: [] } }), 2);
  log.event('warn', 'report', { message: 'a "line"\nand another' });
  await until(() => texts.length > 0, 'the timer');
  const [line = '', second = '', third = ''] = texts[0]!.split('\n');
  assert.deepEqual(JSON.parse(line), {
    time: '2026-11-23T08:09:10.007Z', level: 'info', event: 'request', id: 'p-1', method: 'GET', route: '/user/{login}', status: 200, ms: 1.235,
    bytes: 80, client: '192.0.2.7', who: 'basic', user: 17,
  });
  const { level, route, error, client } = JSON.parse(second);
  assert.deepEqual([level, route, error, client], ['error', '-', 'overloaded', undefined]);
  assert.equal(JSON.parse(third).message, 'a "line"\nand another');
  assert.doesNotMatch(texts[0]!, /alice/);
});

test('log: times are right to the millisecond, also when the clock goes back', async () => {
  const times = [at, at + 92, at + 93, at + 992, at + 993, at - 5000, at + 61_000];
  let n = 0;
  const { log, texts, answer } = open({ now: () => times[n++]! });
  for (const _ of times) log.request(served(), 1);
  await until(() => texts.length > 0, 'the timer');
  answer();
  const told = texts.join('').trimEnd().split('\n').map((line) => Date.parse(JSON.parse(line).time));
  assert.deepEqual(told, times);
});

test('log: a terminal gets a short form, and no events, which it has from standard error', async () => {
  const { log, texts } = open({ isShort: true });
  log.event('warn', 'report', { message: 'x' });
  log.request(served({ code: 'taken', status: 409 }), 3.14);
  await until(() => texts.length > 0, 'the timer');
  assert.match(texts[0]!, /^\d\d:\d\d:\d\d 409 GET \/user\/\{login\} 3\.1 ms 80 bytes user 17 by basic from 192\.0\.2\.7 taken\n$/);
});

test('log: while its reader is slow lines are kept up to a bound, then dropped, and their number is told', async () => {
  const { log, texts, answer } = open();
  for (let n = 0; n < 30_000; n++) log.request(served(), 1);
  assert.equal(texts.length, 1, 'the second write waits for the first');
  const kept = texts[0]!.split('\n').length - 1;
  const dropped = log.dropped;
  assert.ok(dropped > 0 && dropped < 30_000, String(dropped));
  answer();
  await until(() => texts.length > 1, 'the next write');
  assert.ok(texts[1]!.length < (1 << 20) + 1000, String(texts[1]!.length));
  answer();
  await until(() => texts.join('').includes('log-dropped'), 'the note');
  const lines = texts.join('').trimEnd().split('\n').map((line) => JSON.parse(line));
  assert.equal(lines.filter(({ event }) => event === 'request').length, 30_000 - dropped);
  assert.equal(lines.find(({ event }) => event === 'log-dropped').lines, dropped);
  assert.ok(kept < 30_000 - dropped);
});

test('log: a full disk costs lines and no more, a reader that has gone ends it', async () => {
  const { log, texts, answer } = open();
  log.request(served(), 1);
  await until(() => texts.length === 1, 'the timer');
  answer(Object.assign(new Error('no room'), { code: 'ENOSPC' }));
  assert.equal(log.dropped, 1);
  log.request(served(), 1);
  await until(() => texts.length === 2, 'the next write');
  assert.match(texts[1]!, /"log-dropped","lines":1}/);
  answer(Object.assign(new Error('gone'), { code: 'EPIPE' }));
  log.request(served(), 1);
  await log.close();
  assert.equal(texts.length, 2);
  assert.equal(log.dropped, 3 + 1, 'the note is a line too');
});

test('log: closing writes what is left, behind what is being written', async () => {
  const { log, texts, answer } = open();
  log.request(served({ id: 'first' }), 1);
  await until(() => texts.length === 1, 'the timer');
  log.request(served({ id: 'second' }), 1);
  const closed = log.close();
  answer();
  assert.match(texts[1]!, /"id":"second"/);
  answer();
  await closed;
});

test('log: closing does not try again and again where nothing can be written', { timeout: 10_000 }, async () => {
  let writes = 0;
  const write = (_: string, done: (error: Error) => void): void => {
    writes++;
    process.nextTick(done, Object.assign(new Error('no room'), { code: 'ENOSPC' }));
  };
  const log = new Log({ isShort: false, now: () => at, write });
  log.open();
  log.request(served(), 1);
  await log.close();
  assert.equal(writes, 1);
});

test('log: nothing is written before it is opened', async () => {
  const texts: string[] = [];
  const log = new Log({ isShort: false, now: () => at, write: (text) => void texts.push(text) });
  log.event('info', 'report');
  await log.close();
  assert.deepEqual(texts, []);
});
