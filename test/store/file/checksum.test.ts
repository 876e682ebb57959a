import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { ChecksumProof, seedOf } from '../../../lib/store/file/checksum.ts';
import { checksumHolds, encodeRemoval, encodeUser } from '../../../lib/store/file/record.ts';

/** Lines of many lengths, as `encodeUser` makes them. */
function lines(count: number, seed: number): Buffer[] {
  return Array.from({ length: count }, (_, n) => {
    if (n % 7 === 3) return encodeRemoval(n + 1, `user${n}`, '2026-11-22T15:00:00.000Z', n * 100, seed);
    const login = 'ж'.repeat(randomInt(1, 64));
    const password = `${randomBytes(16).toString('hex')}$${randomBytes(randomInt(32, 65)).toString('hex')}`;
    return encodeUser({ id: n + 1, login, registered: '2026-11-22T15:00:00.000Z', version: 1, kdf: 'pbkdf2:sha256:1', password }, n * 100, seed);
  });
}

test('checksum: many lines are proven together, whatever their lengths, seed and place', () => {
  for (const seed of [0, 1, 0x5e0c41d7, 0xffffffff]) {
    const proof = new ChecksumProof();
    for (let n = 0; n < 20; n++) {
      const before = randomBytes(n);
      const bytes = Buffer.concat([before, ...lines(n * 10 + 1, seed), Buffer.from('{"id":')]);
      const end = bytes.length - 6;
      assert.equal(proof.holds(bytes, n, end, seed), true);
      assert.equal(proof.holds(bytes, n, end, (seed ^ 1) >>> 0), false);
      assert.equal(proof.holds(bytes, n, end - 1, seed), false, 'the last line has no end');
    }
  }
});

test('checksum: no bit of any line may be another', () => {
  const proof = new ChecksumProof();
  const bytes = Buffer.concat(lines(8, 0x5e0c41d7));
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    assert.equal(proof.holds(bytes, 0, bytes.length, 0x5e0c41d7), false, `bit ${bit}`);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
  }
  assert.equal(proof.holds(bytes, 0, bytes.length, 0x5e0c41d7), true);
});

test('checksum: together and one by one say the same of lines that are changed, swapped, dropped, doubled or glued', () => {
  const proof = new ChecksumProof();
  const seed = 0xabad1dea;
  for (let n = 0; n < 2_000; n++) {
    const all = lines(6, seed);
    const [a, b] = [randomInt(6), randomInt(6)];
    const kind = n % 5;
    if (kind === 0) all[a]![randomInt(all[a]!.length)] = randomInt(256);
    if (kind === 1) [all[a], all[b]] = [all[b]!, all[a]!];
    if (kind === 2) all.splice(a, 1);
    if (kind === 3) all.splice(a, 0, all[b]!);
    if (kind === 4) all[a] = all[a]!.subarray(0, -1);
    const bytes = Buffer.concat(all);
    let isEachRight = bytes.at(-1) === 0x0a;
    for (let start = 0; start < bytes.length; ) {
      const found = bytes.indexOf(0x0a, start);
      const end = found < 0 ? bytes.length : found;
      isEachRight &&= checksumHolds(bytes, start, end, seed);
      start = end + 1;
    }
    assert.equal(proof.holds(bytes, 0, bytes.length, seed), isEachRight, `kind ${kind}`);
  }
});

test('checksum: the seed is told by any line', () => {
  for (let n = 0; n < 300; n++) {
    const [bytes, seed] = [randomBytes(1 + n * 13), randomBytes(4).readUInt32LE()];
    assert.equal(seedOf(bytes, crc32(bytes, seed)), seed);
  }
});
