import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { spawnStore } from './helper/store-process.ts';
import { cheap, readUsersFile, spawnService } from './helper/service.ts';
import { temporaryDirectory } from './helper/temporary.ts';

/** Logins that are registered four times each; more with `make race TRIALS=50000`. */
const trials = Number(process.env.TRIALS ?? 2_000);
/** The services hash and speak TLS, so they get fewer. */
const serviceTrials = Math.max(40, Math.ceil(trials / 25));

/** In `parts` pieces: two of the four go side by side from the start, two from the end, and all meet in the middle. */
function walk(logins: readonly string[], parts: number, n: number): string[][] {
  const size = Math.ceil(logins.length / parts);
  const pieces = Array.from({ length: parts }, (_, r) => logins.slice(r * size, r * size + size));
  return n % 2 === 0 ? pieces : pieces.reverse();
}

function assertEachOnce(lines: readonly { id: number; login: string }[], logins: readonly string[]): void {
  assert.equal(lines.length, logins.length);
  assert.deepEqual(new Set(lines.map(({ login }) => login)), new Set(logins));
  assert.deepEqual(lines.map(({ id }) => id), lines.map((_, n) => n + 1));
}

test(`race: 4 processes register the same ${trials} logins at once, and each login is given once`, async (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'users.jsonl');
  const stores = await Promise.all([1, 2, 3, 4].map(() => spawnStore(t, file)));
  const logins = Array.from({ length: trials }, (_, n) => `user${n}`);
  const answers: { created: boolean; id: number }[][] = await Promise.all(
    stores.map(async ({ tell }, n) => {
      const own = [];
      for (const piece of walk(logins, Math.max(20, Math.ceil(trials / 500)), n)) own.push(...(await tell({ do: 'create', logins: piece })));
      return own;
    }),
  );
  const all = answers.flat();
  assert.equal(all.length, trials * 4);
  assert.equal(all.filter(({ created }) => created).length, trials);
  assertEachOnce(readUsersFile(directory).slice(1), logins);
  for (const { tell } of stores) assert.equal((await tell({ do: 'find', login: `user${trials - 1}` })).login, `user${trials - 1}`);
  t.diagnostic(`${all.length} registrations: ${answers.map((own) => own.filter(({ created }) => created).length).join(' + ')} created`);
});

test(`race: of 4 services that are asked for the same ${serviceTrials} logins at once, one answers 201 for each, and the others 409`, async (t) => {
  const data = temporaryDirectory(t);
  const services = await Promise.all([1, 2, 3, 4].map(() => spawnService(t, { data, args: [...cheap] })));
  const logins = Array.from({ length: serviceTrials }, (_, n) => `user${n}`);
  const given = new Map<string, number>();
  const refused = new Map<string, number>();
  await Promise.all(
    services.map(async ({ ask }, n) => {
      for (const piece of walk(logins, Math.ceil(serviceTrials / 10), n)) {
        await Promise.all(piece.map(async (login) => {
          const { status, text } = await ask('/user/', { method: 'POST', body: { login, password: `the password of ${n}` } });
          assert.ok(status === 201 || status === 409, `${status} ${text}`);
          const counts = status === 201 ? given : refused;
          counts.set(login, (counts.get(login) ?? 0) + 1);
        }));
      }
    }),
  );
  for (const login of logins) assert.deepEqual([given.get(login), refused.get(login)], [1, 3], login);
  assertEachOnce(readUsersFile(data).slice(1), logins);
  t.diagnostic(`${serviceTrials * 4} registrations, ${serviceTrials} of them 201, the others 409`);
});
