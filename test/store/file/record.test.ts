import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import {
  checksumHolds, decodeHeader, decodeUser, encodeHeader, encodeRemoval, encodeUser, publicJson, scanLine,
} from '../../../lib/store/file/record.ts';
import type { Scanned } from '../../../lib/store/file/record.ts';

const seed = 0x5e0c41d7;
const user = {
  id: 17,
  login: 'алиса',
  registered: '2026-11-22T15:00:00.000Z',
  version: 2,
  changed: '2026-11-23T08:00:00.000Z',
  kdf: 'pbkdf2:sha256:600000',
  password: `${'9c1f'.repeat(8)}$${'5be0'.repeat(16)}`,
  key: 'ab'.repeat(32),
};

function scan(line: Buffer): Scanned | string {
  const scanned: Scanned = { id: 0, isRemoval: false, batch: 0, loginStart: 0, loginEnd: 0 };
  return scanLine(line, 0, line.length - 1, seed, scanned) ?? scanned;
}

test('record: the vectors of version 1 are read and written as they always were', () => {
  const lines = readFileSync(new URL('../../vectors/users-v1.jsonl', import.meta.url));
  const [first = '', ...rest] = lines.toString('utf8').trimEnd().split('\n');
  const header = decodeHeader(Buffer.from(first));
  if (typeof header === 'string') throw new Error(header);
  assert.deepEqual(header, { version: 1, created: '2026-11-22T15:00:00.000Z', nextId: 1, seed });
  assert.equal(encodeHeader(header).toString(), `${first}\n`);
  for (const text of rest) {
    const line = Buffer.from(`${text}\n`);
    assert.equal(checksumHolds(line, 0, line.length - 1, seed), true);
    const { id, login, deleted, batch } = JSON.parse(text);
    const found = decodeUser(line, 0, line.length - 1);
    const again = found === undefined ? encodeRemoval(id, login, deleted, batch, seed) : encodeUser(found, batch, seed);
    assert.equal(again.toString(), line.toString());
  }
  assert.equal(rest.length, 6);
});

test('record: a line says all that is kept, and its checksum is the CRC-32 of what is before it', () => {
  const line = encodeUser(user, 20_480, seed);
  const { batch, crc, ...fields } = JSON.parse(line.toString());
  assert.deepEqual(fields, user);
  assert.deepEqual(Object.keys(fields), ['id', 'login', 'registered', 'version', 'changed', 'kdf', 'password', 'key']);
  assert.equal(batch, 20_480);
  assert.equal(crc, crc32(line.subarray(0, line.indexOf(',"crc"')), seed).toString(16).padStart(8, '0'));
  assert.equal(line.at(-1), 0x0a);
});

test('record: the public JSON is a prefix of the line and has no secret in it', () => {
  const line = encodeUser(user, 20_480, seed);
  const { kdf, password, key, ...open } = user;
  assert.deepEqual(JSON.parse(publicJson(line, 0, line.length - 1).toString()), open);
  assert.ok(kdf && password && key);
  const removal = encodeRemoval(17, 'bob', '2026-11-23T08:00:00.000Z', 5, seed);
  assert.throws(() => publicJson(removal, 0, removal.length - 1), RangeError);
});

test('record: a scan finds id, login, batch and whether it is a removal', () => {
  const line = encodeUser(user, 20_480, seed);
  const found = scan(line);
  assert.ok(typeof found !== 'string');
  assert.deepEqual([found.id, found.isRemoval, found.batch], [17, false, 20_480]);
  assert.equal(line.toString('utf8', found.loginStart, found.loginEnd), 'алиса');
  const removal = scan(encodeRemoval(900_719_925_474_099, 'bob', '2026-11-23T08:00:00.000Z', 105, seed));
  assert.ok(typeof removal !== 'string');
  assert.deepEqual([removal.id, removal.isRemoval, removal.batch], [900_719_925_474_099, true, 105]);
});

test('record: no single changed byte passes, nor another seed', () => {
  const line = encodeUser(user, 20_480, seed);
  for (let at = 0; at < line.length - 1; at++) {
    for (const bit of [1, 8, 128]) {
      const bad = Buffer.from(line);
      bad[at]! ^= bit;
      assert.equal(scan(bad), 'fails its checksum', `byte ${at}`);
    }
  }
  assert.equal(checksumHolds(line, 0, line.length - 1, seed + 1), false);
});

test('record: a line with a good checksum that is no record is told', () => {
  const text = '{"hello":1';
  const line = Buffer.from(`${text},"crc":"${crc32(text, seed).toString(16).padStart(8, '0')}"}\n`);
  assert.equal(scan(line), 'is no record of a user');
  assert.equal(scan(Buffer.from('\n')), 'fails its checksum');
});

test('record: a header of another kind is refused by name', () => {
  const good = encodeHeader({ version: 1, created: 'x', nextId: 1, seed }).subarray(0, -1).toString();
  const cases: [string, RegExp][] = [
    ['nonsense', /not JSON/],
    ['[]', /does not say/],
    ['{"format":"other"}', /does not say/],
    [good.replace('"version":1', '"version":2'), /format version 2, and this program knows version 1 only/],
    [good.replace('"nextId":1', '"nextId":2'), /fails its checksum/],
    [good.replace('"seed":"5e', '"seed":"5E'), /lacks a field/],
  ];
  for (const [text, pattern] of cases) assert.match(String(decodeHeader(Buffer.from(text))), pattern);
});
