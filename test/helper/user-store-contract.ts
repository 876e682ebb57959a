/** What every store of users has to do: one suite, run on each implementation. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../lib/errors.ts';
import { publicUser } from '../../lib/user.ts';
import type { Arrival, Candidate, StoredUser, UserStore } from '../../lib/user-store.ts';

export function candidate(login: string, more: Partial<Candidate> = {}): Candidate {
  return {
    login,
    registered: '2026-11-22T15:00:00.000Z',
    kdf: 'pbkdf2:sha256:1',
    password: `${'0'.repeat(32)}$${'1'.repeat(64)}`,
    ...more,
  };
}

function arrival(login: string, more: Partial<Arrival> = {}): Arrival {
  return { ...candidate(login), ...more };
}

async function recordsOf(store: UserStore): Promise<StoredUser[]> {
  const users: StoredUser[] = [];
  for (let after: string | undefined, more = true; more; more = after !== undefined) {
    const piece = await store.records(after);
    users.push(...piece.users);
    after = piece.next;
  }
  return users;
}

const at = '2026-11-23T08:00:00.000Z';
const other = { kdf: 'pbkdf2:sha512:2', password: `${'2'.repeat(32)}$${'3'.repeat(128)}` };

export function testUserStore(name: string, open: (t: TestContext) => Promise<UserStore>): void {
  test(`${name}: a created user is found, with all that was given`, async (t) => {
    const store = await open(t);
    const outcome = await store.create(candidate('алиса', { key: 'ab'.repeat(32) }));
    assert.equal(outcome.created, true);
    assert.deepEqual(outcome.user, { id: 1, version: 1, ...candidate('алиса', { key: 'ab'.repeat(32) }) });
    assert.deepEqual(await store.find('алиса'), outcome.user);
    assert.equal(await store.find('bob'), undefined);
  });

  test(`${name}: the view of a user is the public side of what is found, and nobody's is undefined`, async (t) => {
    const store = await open(t);
    // Each is a part of another one's line, or of the line's own syntax.
    const logins = ['алиса', 'a', 'al', 'alice', 'login', 'version', 'registered', 'kdf', '1', '名字', 'a'.repeat(64), '名'.repeat(64)];
    for (const login of logins) await store.create(candidate(login, { key: 'ab'.repeat(32) }));
    const alice = await store.find('alice');
    await store.replace(alice!, { ...other, changed: at });
    await store.remove((await store.find('al'))!, at);
    for (const login of logins) {
      const user = await store.find(login);
      const view = await store.view(login);
      const expected = user && { id: user.id, version: user.version, json: JSON.stringify(publicUser(user)) };
      assert.deepEqual(view, expected, login);
    }
    assert.equal((await store.view('alice'))?.version, 2);
    for (const login of ['al', 'bob', '', 'alice"', 'x'.repeat(1000)]) assert.equal(await store.view(login), undefined);
  });

  test(`${name}: a taken login gives the user who has it`, async (t) => {
    const store = await open(t);
    const first = await store.create(candidate('alice'));
    const second = await store.create(candidate('alice', { ...other }));
    assert.deepEqual(second, { created: false, user: first.user });
    assert.deepEqual(await store.find('alice'), first.user);
  });

  test(`${name}: of many that want one login at once, one gets it`, async (t) => {
    const store = await open(t);
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => store.create(candidate('alice'))));
    assert.equal(outcomes.filter(({ created }) => created).length, 1);
    assert.deepEqual(new Set(outcomes.map(({ user }) => user.id)), new Set([1]));
  });

  test(`${name}: a change raises the version and drops the key, a new hash of the same password does neither`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(candidate('alice', { key: 'ab'.repeat(32) }));
    const rehashed = await store.replace(user, other);
    assert.deepEqual(rehashed, { ...user, ...other });
    const changed = await store.replace(user, { ...other, changed: at });
    const { key, ...rest } = user;
    assert.equal(key, 'ab'.repeat(32));
    assert.deepEqual(changed, { ...rest, ...other, version: 2, changed: at });
    assert.deepEqual(await store.find('alice'), changed);
    assert.deepEqual(await store.replace({ ...user, version: 2 }, other), { ...changed, ...other });
  });

  test(`${name}: a write meant for another state of the user does nothing`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(candidate('alice'));
    const changed = await store.replace(user, { ...other, changed: at });
    assert.equal(await store.replace(user, { ...other, changed: at }), undefined);
    assert.equal(await store.remove(user, at), false);
    assert.equal(await store.replace({ ...user, login: 'bob' }, other), undefined);
    assert.equal(await store.remove({ ...user, version: 2, id: 7 }, at), false);
    assert.deepEqual(await store.find('alice'), changed);
  });

  test(`${name}: a removed user is gone, and neither the id nor the old state comes back`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(candidate('alice'));
    assert.equal(await store.remove(user, at), true);
    assert.equal(await store.find('alice'), undefined);
    assert.equal(await store.remove(user, at), false);
    const again = await store.create(candidate('alice'));
    assert.equal(again.created, true);
    assert.equal(again.user.id, 2);
    assert.equal(await store.replace(user, other), undefined);
  });

  test(`${name}: writes on one login that are asked for at once are decided one after the other`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(candidate('alice'));
    const [removed, again, lost] = await Promise.all([
      store.remove(user, at),
      store.create(candidate('alice')),
      store.replace(user, other),
    ]);
    assert.equal(removed, true);
    assert.equal(again.created, true);
    assert.equal(lost, undefined);
    assert.equal((await store.find('alice'))?.id, 2);
  });

  test(`${name}: pages have everybody once, in one order, and the public fields alone`, async (t) => {
    const store = await open(t);
    const users = [];
    for (let n = 0; n < 25; n++) users.push((await store.create(candidate(`user${n}`))).user);
    assert.equal(await store.remove(users[3]!, at), true);
    await store.replace(users[5]!, { ...other, changed: at });
    const seen: string[] = [];
    let pages = 0;
    for (let after: string | undefined, more = true; more; pages++) {
      const page = await store.page(after, 10);
      seen.push(...page.users.map((user) => user.toString('utf8')));
      if (pages === 0) await store.create(candidate('late'));
      after = page.next;
      more = after !== undefined;
    }
    assert.equal(pages, 3);
    const expected = users.filter((_, n) => n !== 3).map(({ id, login, registered }) => {
      const isChanged = login === 'user5';
      return JSON.stringify({ id, login, registered, version: isChanged ? 2 : 1, ...(isChanged ? { changed: at } : {}) });
    });
    assert.deepEqual(seen.slice(0, 24), expected);
    assert.equal(JSON.parse(seen[24]!).login, 'late');
    assert.equal(seen.length, 25);
  });

  test(`${name}: a page that ends with the last user has no next`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.page(undefined, 5), { users: [], next: undefined });
    for (let n = 0; n < 5; n++) await store.create(candidate(`user${n}`));
    const page = await store.page(undefined, 5);
    assert.equal(page.users.length, 5);
    assert.equal(page.next, undefined);
  });

  test(`${name}: lines have everybody once, in the order of pages, piece by piece`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.lines(undefined), { bytes: Buffer.alloc(0), next: undefined });
    const logins = Array.from({ length: 1_500 }, (_, n) => `${n % 2 === 0 ? 'user' : '名'.repeat(40)}${n}`);
    const users = await Promise.all(logins.map(async (login) => (await store.create(candidate(login, { key: 'ab'.repeat(32) }))).user));
    await store.replace(users[3]!, { ...other, changed: at });
    await store.remove(users[5]!, at);
    const pieces: Buffer[] = [];
    for (let after: string | undefined, more = true; more; ) {
      const piece = await store.lines(after);
      pieces.push(piece.bytes);
      after = piece.next;
      more = after !== undefined;
    }
    assert.ok(pieces.length > 1 && pieces.every((piece) => piece.at(-1) === 0x0a));
    const page = await store.page(undefined, 2_000);
    assert.equal(page.users.length, 1_499);
    assert.equal(Buffer.concat(pieces).toString('utf8'), page.users.map((user) => `${user}\n`).join(''));
  });

  test(`${name}: arrivals keep id, version and change where they can, and an id is never given twice`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.createMany([]), []);
    const key = 'ab'.repeat(32);
    const outcomes = await store.createMany([
      arrival('alice', { id: 5, version: 3, changed: at, key }),
      arrival('bob'),
      arrival('carol', { id: 5 }),
      arrival('dave', { id: 6, version: 2 }),
      arrival('erin', { id: 100 }),
    ]);
    assert.ok(outcomes.every(({ created }) => created));
    const users = outcomes.map(({ user }) => user);
    assert.deepEqual(users[0], { id: 5, version: 3, changed: at, ...candidate('alice', { key }) });
    const ids = users.map(({ id }) => id);
    assert.equal(new Set(ids).size, 5);
    assert.equal(ids[4], 100);
    assert.deepEqual(users.map(({ version }) => version), [3, 1, 1, 2, 1]);
    assert.deepEqual(await Promise.all(users.map(({ login }) => store.find(login))), users);
    assert.equal(await store.remove(users[4]!, at), true);
    const [again] = await store.createMany([arrival('erin', { id: 100 })]);
    assert.ok(again?.created === true && !ids.includes(again.user.id));
    const later = await store.create(candidate('frank'));
    assert.ok(![...ids, again.user.id].includes(later.user.id));
    // The next one has to have an id as well.
    await store.createMany([arrival('greta', { id: Number.MAX_SAFE_INTEGER })]);
    const { user } = await store.create(candidate('heidi'));
    assert.ok(Number.isSafeInteger(user.id) && !ids.includes(user.id));
    assert.deepEqual(await store.find('heidi'), user);
  });

  test(`${name}: what a candidate has besides is not taken for an arrival's`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(arrival('alice', { id: 17, version: 9, changed: at }));
    assert.deepEqual(user, { id: 1, version: 1, ...candidate('alice') });
  });

  test(`${name}: an arrival finds who has the login, be it one that came with it`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(candidate('alice'));
    const [bob, alice, bobAgain, carol] = await store.createMany([
      arrival('bob'), arrival('alice', { ...other, id: 9 }), arrival('bob', { ...other, version: 7 }), arrival('carol'),
    ]);
    assert.deepEqual(alice, { created: false, user });
    assert.equal(bob?.created, true);
    assert.deepEqual(bobAgain, { created: false, user: bob.user });
    assert.equal(carol?.created, true);
    assert.equal((await store.page(undefined, 10)).users.length, 3);
  });

  test(`${name}: records have every user whole, in the order of pages, piece by piece`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.records(undefined), { users: [], next: undefined });
    const arrivals = Array.from({ length: 1_500 }, (_, n) => arrival(`user${n}`, n % 2 === 0 ? { key: 'ab'.repeat(32) } : { version: 2, changed: at }));
    const users = (await store.createMany(arrivals)).map((outcome) => outcome.user);
    const changed = await store.replace(users[3]!, { ...other, changed: at });
    await store.remove(users[5]!, at);
    assert.ok((await store.records(undefined)).next !== undefined);
    const records = await recordsOf(store);
    const logins = (await store.page(undefined, 2_000)).users.map((user) => JSON.parse(user.toString('utf8')).login as string);
    assert.deepEqual(records.map(({ login }) => login), logins);
    const expected = new Map(users.map((user) => [user.login, user]));
    expected.set('user3', changed!).delete('user5');
    assert.deepEqual(new Map(records.map((user) => [user.login, user])), expected);
  });

  test(`${name}: kdfs has that of every user, however it was written`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.kdfs(), []);
    const { user } = await store.create(candidate('alice', { kdf: 'pbkdf2:sha256:1' }));
    await store.createMany([
      arrival('bob', { kdf: 'pbkdf2:sha256:29000:hex', version: 12, changed: at }),
      arrival('名字', { kdf: 'pbkdf2:sha256:1' }),
      arrival('kdf', { kdf: 'pbkdf2:sha256:2' }),
    ]);
    assert.deepEqual([...(await store.kdfs())].sort(), ['pbkdf2:sha256:1', 'pbkdf2:sha256:2', 'pbkdf2:sha256:29000:hex']);
    await store.replace(user, { ...other, changed: at });
    const kdfs = new Set(await store.kdfs());
    for (const { kdf } of await recordsOf(store)) assert.ok(kdfs.has(kdf), kdf);
    assert.equal(kdfs.size, 4 - Number(!kdfs.has('pbkdf2:sha256:1')));
  });

  test(`${name}: a cursor that is none is refused`, async (t) => {
    const store = await open(t);
    for (const cursor of ['', '17', 'aWQ6MQ==', 'aWQ6LTE', '\u0000', 'x'.repeat(100)]) {
      await assert.rejects(store.page(cursor, 5), (error) => error instanceof RegistrarError && error.code === 'malformed');
      await assert.rejects(store.lines(cursor), (error) => error instanceof RegistrarError && error.code === 'malformed');
      await assert.rejects(store.records(cursor), (error) => error instanceof RegistrarError && error.code === 'malformed');
    }
  });
}
