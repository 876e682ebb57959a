import assert from 'node:assert/strict';
import { test } from 'node:test';
import { halfSipHash } from '../../../lib/store/file/half-sip-hash.ts';
import { LoginIndex } from '../../../lib/store/file/index.ts';

test('half-sip-hash: the reference vectors of its authors', () => {
  // HalfSipHash-2-4, 32 bits, key 00..07, input 00, 01, …, of as many bytes as the place in this list.
  const vectors = ['a9359f5b', '27475ab8', 'fa62a603', '8afee704', '2a6e4689', 'c5fab669', '5863fc23', '8bcf63c5', 'd0b8848f'];
  const input = Buffer.from(vectors.map((_, n) => n));
  for (const [length, vector] of vectors.entries()) {
    const expected = Buffer.from(vector, 'hex').readUInt32LE();
    assert.equal(halfSipHash(0x03020100, 0x07060504, input, 0, length), expected);
    assert.equal(halfSipHash(0x03020100, 0x07060504, Buffer.concat([Buffer.from('x'), input]), 1, length + 1), expected);
  }
});

/** A generator with a seed, so that a failure can be had again. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

for (const hashBits of [32, 4]) {
  test(`index: it does as a Map does, with hashes of ${hashBits} bits`, () => {
    const next = random(hashBits);
    const index = new LoginIndex([1, 2]);
    const model = new Map<string, { id: number; offset: number }>();
    const logins = new Map<number, string>();
    const hashOf = (login: string): number => {
      const bytes = Buffer.from(login);
      return index.hash(bytes, 0, bytes.length) % 2 ** hashBits;
    };
    const find = (login: string): number => index.find(hashOf(login), (ordinal) => logins.get(index.id(ordinal)) === login);
    let id = 0;
    let offset = 0;
    const steps = hashBits === 32 ? 60_000 : 1_500;
    for (let step = 0; step < steps; step++) {
      const login = `user${next(steps / 6)}`;
      offset += 200 + next(2 ** 33);
      const known = model.get(login);
      const ordinal = find(login);
      assert.equal(ordinal >= 0, known !== undefined);
      if (known === undefined) {
        id += 1 + next(2 ** 20);
        index.add(hashOf(login), id, offset);
        logins.set(id, login);
        model.set(login, { id, offset });
      } else if (next(3) === 0) {
        index.remove(ordinal);
        model.delete(login);
      } else {
        index.move(ordinal, offset);
        known.offset = offset;
      }
    }
    assert.equal(index.size, model.size);
    assert.equal(index.lastId, id);
    assert.ok(offset > 2 ** 40 && id > 2 ** 28);
    for (const [login, known] of model) {
      const ordinal = find(login);
      assert.equal(index.id(ordinal), known.id);
      assert.equal(index.offset(ordinal), known.offset);
      assert.equal(index.after(known.id), ordinal + 1);
      assert.equal(index.after(known.id - 1), ordinal);
    }
  });
}

test('index: ids above 32 bits are kept, and go up', () => {
  const index = new LoginIndex([1, 2]);
  const high = 2 ** 45 + 12_345;
  index.add(7, high, 2 ** 47 + 5);
  assert.equal(index.id(0), high);
  assert.equal(index.offset(0), 2 ** 47 + 5);
  index.move(0, 2 ** 33 + 1);
  assert.equal(index.id(0), high);
  assert.equal(index.offset(0), 2 ** 33 + 1);
  assert.throws(() => index.add(8, high, 1), RangeError);
});

test('index: it takes at most 32 bytes for a user', () => {
  const index = new LoginIndex([1, 2]);
  for (let id = 1; id <= 400_000; id++) {
    index.add(Math.imul(id, 0x9e3779b1) >>> 0, id, id * 250);
    if (id >= 100_000 && id % 1000 === 0) assert.ok(index.bytes / id <= 32, `${index.bytes / id} bytes each for ${id}`);
  }
});
