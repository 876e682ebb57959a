import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lineBytesMax, readLines } from '../../lib/transfer/lines.ts';
import type { Line } from '../../lib/transfer/lines.ts';

async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(input: AsyncIterable<Uint8Array>): Promise<Line[]> {
  const lines: Line[] = [];
  for await (const some of readLines(input)) lines.push(...some);
  return lines;
}

test('lines: however they are cut into chunks they are the same', async () => {
  const long = 'x'.repeat(lineBytesMax);
  const bytes = Buffer.concat([
    Buffer.from(`\ufeff{"a":1}\r\nверная 😀\n\n  \n${long}\n${long}y\nlast but one\n`), Buffer.from([0xff, 0xfe, 0x0a]), Buffer.from('no end'),
  ]);
  const expected: Line[] = [
    { number: 1, text: '{"a":1}\r' },
    { number: 2, text: 'верная 😀' },
    { number: 5, text: long },
    { number: 6, problem: 'It is longer than 16384 bytes' },
    { number: 7, text: 'last but one' },
    { number: 8, problem: 'It is not UTF-8 text' },
    { number: 9, text: 'no end' },
  ];
  for (const size of [1, 2, 7, 100, 16_384, 16_385, bytes.length]) assert.deepEqual(await read(pieces(bytes, size)), expected, String(size));
});

test('lines: what ends in the middle of a character, or is too long and has no end, is told', async () => {
  assert.deepEqual(await read(pieces(Buffer.from([0x61, 0xd0]), 1)), [{ number: 1, problem: 'It is not UTF-8 text' }]);
  assert.deepEqual(await read(pieces(Buffer.alloc(40_000, 'x'), 1_000)), [{ number: 1, problem: 'It is longer than 16384 bytes' }]);
  assert.deepEqual(await read(pieces(Buffer.alloc(0), 1)), []);
});

test('lines: of a line of a gigabyte next to nothing is in memory', async () => {
  const chunk = Buffer.alloc(1 << 20, 'x');
  async function* gigabyte(): AsyncGenerator<Buffer> {
    for (let n = 0; n < 1024; n++) yield chunk;
    yield Buffer.from('\n{}\n');
  }
  const before = process.memoryUsage().arrayBuffers;
  const input = gigabyte();
  let most = 0;
  async function* watched(): AsyncGenerator<Buffer> {
    for await (const bytes of input) {
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
      if (most > 64 << 20) break;
      yield bytes;
    }
  }
  assert.deepEqual(await read(watched()), [{ number: 1, problem: 'It is longer than 16384 bytes' }, { number: 2, text: '{}' }]);
  assert.ok(most < 64 << 20, `${most} bytes`);
});
