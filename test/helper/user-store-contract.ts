/** The conformance suite of a `UserStore`: it runs on memory, file and etcd. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { RegistrarError } from '../../lib/errors.ts';
import { publicUser } from '../../lib/user.ts';
import type { ImportedUser, NewUser, StoredUser, UserStore } from '../../lib/user-store.ts';

export function newUser(login: string, more: Partial<NewUser> = {}): NewUser {
  return {
    login,
    registered: '2026-11-22T15:00:00.000Z',
    kdf: 'pbkdf2:sha256:1',
    password: `${'0'.repeat(32)}$${'1'.repeat(64)}`,
    ...more,
  };
}

function importedUser(login: string, more: Partial<ImportedUser> = {}): ImportedUser {
  return { ...newUser(login), ...more };
}

async function recordsOf(store: UserStore): Promise<StoredUser[]> {
  const users: StoredUser[] = [];
  for (let after: string | undefined, more = true; more; more = after !== undefined) {
    const piece = await store.recordPage(after);
    users.push(...piece.users);
    after = piece.next;
  }
  return users;
}

const at = '2026-11-23T08:00:00.000Z';
const other = { kdf: 'pbkdf2:sha512:2', password: `${'2'.repeat(32)}$${'3'.repeat(128)}` };

export function testUserStore(
  name: string,
  open: (t: TestContext) => Promise<UserStore>,
  register: (name: string, run: (t: TestContext) => Promise<void>) => unknown = test,
): void {
  register(`${name}: a created user is found with every field`, async (t) => {
    const store = await open(t);
    const outcome = await store.create(newUser('алиса', { key: 'ab'.repeat(32) }));
    assert.equal(outcome.created, true);
    assert.deepEqual(outcome.user, { id: 1, version: 1, ...newUser('алиса', { key: 'ab'.repeat(32) }) });
    assert.deepEqual(await store.findRecord('алиса'), outcome.user);
    assert.equal(await store.findRecord('bob'), undefined);
  });

  register(`${name}: findPublic gives the public side of the record, and undefined for an unknown login`, async (t) => {
    const store = await open(t);
    // Each is a part of another one's line, or of the line's own syntax.
    const logins = ['алиса', 'a', 'al', 'alice', 'login', 'version', 'registered', 'kdf', '1', '名字', 'a'.repeat(64), '名'.repeat(64)];
    for (const login of logins) await store.create(newUser(login, { key: 'ab'.repeat(32) }));
    const alice = await store.findRecord('alice');
    await store.replace(alice!, { ...other, changed: at });
    await store.remove((await store.findRecord('al'))!, at);
    for (const login of logins) {
      const user = await store.findRecord(login);
      const view = await store.findPublic(login);
      const expected = user && { id: user.id, version: user.version, json: JSON.stringify(publicUser(user)) };
      assert.deepEqual(view, expected, login);
    }
    assert.equal((await store.findPublic('alice'))?.version, 2);
    for (const login of ['al', 'bob', '', 'alice"', 'x'.repeat(1000)]) assert.equal(await store.findPublic(login), undefined);
  });

  register(`${name}: a create for a taken login returns the user who has it`, async (t) => {
    const store = await open(t);
    const first = await store.create(newUser('alice'));
    const second = await store.create(newUser('alice', { ...other }));
    assert.deepEqual(second, { created: false, user: first.user });
    assert.deepEqual(await store.findRecord('alice'), first.user);
  });

  register(`${name}: of fifty concurrent creates for one login one succeeds`, async (t) => {
    const store = await open(t);
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => store.create(newUser('alice'))));
    assert.equal(outcomes.filter(({ created }) => created).length, 1);
    assert.deepEqual(new Set(outcomes.map(({ user }) => user.id)), new Set([1]));
  });

  register(`${name}: a change of password raises the version and drops the key, a rehash does neither`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(newUser('alice', { key: 'ab'.repeat(32) }));
    const rehashed = await store.replace(user, other);
    assert.deepEqual(rehashed, { ...user, ...other });
    const changed = await store.replace(user, { ...other, changed: at });
    const { key, ...rest } = user;
    assert.equal(key, 'ab'.repeat(32));
    assert.deepEqual(changed, { ...rest, ...other, version: 2, changed: at });
    assert.deepEqual(await store.findRecord('alice'), changed);
    assert.deepEqual(await store.replace({ ...user, version: 2 }, other), { ...changed, ...other });
  });

  register(`${name}: a write for another id or version changes nothing`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(newUser('alice'));
    const changed = await store.replace(user, { ...other, changed: at });
    assert.equal(await store.replace(user, { ...other, changed: at }), undefined);
    assert.equal(await store.remove(user, at), false);
    assert.equal(await store.replace({ ...user, login: 'bob' }, other), undefined);
    assert.equal(await store.remove({ ...user, version: 2, id: 7 }, at), false);
    assert.deepEqual(await store.findRecord('alice'), changed);
  });

  register(`${name}: the last id is not below any that was assigned, also after a removal`, async (t) => {
    const store = await open(t);
    await store.createMany([newUser('alice'), importedUser('bob', { id: 70 })]);
    const { user } = await store.create(newUser('carol'));
    const last = await store.lastId();
    assert.ok(last >= user.id && last >= 70, `${last}`);
    await store.remove(user, at);
    assert.ok((await store.lastId()) >= last);
  });

  register(`${name}: a removed user is not found, and neither id nor version is used again`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(newUser('alice'));
    assert.equal(await store.remove(user, at), true);
    assert.equal(await store.findRecord('alice'), undefined);
    assert.equal(await store.remove(user, at), false);
    const again = await store.create(newUser('alice'));
    assert.equal(again.created, true);
    assert.equal(again.user.id, 2);
    assert.equal(await store.replace(user, other), undefined);
  });

  register(`${name}: concurrent writes on one login are applied in the order of the calls`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(newUser('alice'));
    const [removed, again, lost] = await Promise.all([
      store.remove(user, at),
      store.create(newUser('alice')),
      store.replace(user, other),
    ]);
    assert.equal(removed, true);
    assert.equal(again.created, true);
    assert.equal(lost, undefined);
    assert.equal((await store.findRecord('alice'))?.id, 2);
  });

  register(`${name}: pages list each user once, in the order of ids, with public fields only`, async (t) => {
    const store = await open(t);
    const users = [];
    for (let n = 0; n < 25; n++) users.push((await store.create(newUser(`user${n}`))).user);
    assert.equal(await store.remove(users[3]!, at), true);
    await store.replace(users[5]!, { ...other, changed: at });
    const seen: string[] = [];
    let pages = 0;
    for (let after: string | undefined, more = true; more; pages++) {
      const page = await store.page(after, 10);
      seen.push(...page.users.map((user) => user.toString('utf8')));
      if (pages === 0) await store.create(newUser('late'));
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

  register(`${name}: the last page has no cursor`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.page(undefined, 5), { users: [], next: undefined });
    for (let n = 0; n < 5; n++) await store.create(newUser(`user${n}`));
    const page = await store.page(undefined, 5);
    assert.equal(page.users.length, 5);
    assert.equal(page.next, undefined);
  });

  register(`${name}: ndjsonPage lists each user once, in the order of page, in several pages`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.ndjsonPage(undefined), { bytes: Buffer.alloc(0), next: undefined });
    const logins = Array.from({ length: 1_500 }, (_, n) => `${n % 2 === 0 ? 'user' : '名'.repeat(40)}${n}`);
    const users = (await store.createMany(logins.map((login) => importedUser(login, { key: 'ab'.repeat(32) })))).map(({ user }) => user);
    await store.replace(users[3]!, { ...other, changed: at });
    await store.remove(users[5]!, at);
    const pieces: Buffer[] = [];
    for (let after: string | undefined, more = true; more; ) {
      const piece = await store.ndjsonPage(after);
      pieces.push(piece.bytes);
      after = piece.next;
      more = after !== undefined;
    }
    assert.ok(pieces.length > 1 && pieces.every((piece) => piece.at(-1) === 0x0a));
    const page = await store.page(undefined, 2_000);
    assert.equal(page.users.length, 1_499);
    assert.equal(Buffer.concat(pieces).toString('utf8'), page.users.map((user) => `${user}\n`).join(''));
  });

  register(`${name}: createMany keeps id, version and changed where it can, and never assigns an id twice`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.createMany([]), []);
    const key = 'ab'.repeat(32);
    const outcomes = await store.createMany([
      importedUser('alice', { id: 5, version: 3, changed: at, key }),
      importedUser('bob'),
      importedUser('carol', { id: 5 }),
      importedUser('dave', { id: 6, version: 2 }),
      importedUser('erin', { id: 100 }),
    ]);
    assert.ok(outcomes.every(({ created }) => created));
    const users = outcomes.map(({ user }) => user);
    assert.deepEqual(users[0], { id: 5, version: 3, changed: at, ...newUser('alice', { key }) });
    const ids = users.map(({ id }) => id);
    assert.equal(new Set(ids).size, 5);
    assert.equal(ids[4], 100);
    assert.deepEqual(users.map(({ version }) => version), [3, 1, 1, 2, 1]);
    assert.deepEqual(await Promise.all(users.map(({ login }) => store.findRecord(login))), users);
    assert.equal(await store.remove(users[4]!, at), true);
    const [again] = await store.createMany([importedUser('erin', { id: 100 })]);
    assert.ok(again?.created === true && !ids.includes(again.user.id));
    const later = await store.create(newUser('frank'));
    assert.ok(![...ids, again.user.id].includes(later.user.id));
    // The next one has to have an id as well.
    await store.createMany([importedUser('greta', { id: Number.MAX_SAFE_INTEGER })]);
    const { user } = await store.create(newUser('heidi'));
    assert.ok(Number.isSafeInteger(user.id) && !ids.includes(user.id));
    assert.deepEqual(await store.findRecord('heidi'), user);
  });

  register(`${name}: create ignores the id, version and changed of its argument`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(importedUser('alice', { id: 17, version: 9, changed: at }));
    assert.deepEqual(user, { id: 1, version: 1, ...newUser('alice') });
  });

  register(`${name}: createMany reports a taken login, also of an earlier user in the same call`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(newUser('alice'));
    const [bob, alice, bobAgain, carol] = await store.createMany([
      importedUser('bob'), importedUser('alice', { ...other, id: 9 }), importedUser('bob', { ...other, version: 7 }), importedUser('carol'),
    ]);
    assert.deepEqual(alice, { created: false, user });
    assert.equal(bob?.created, true);
    assert.deepEqual(bobAgain, { created: false, user: bob.user });
    assert.equal(carol?.created, true);
    assert.equal((await store.page(undefined, 10)).users.length, 3);
  });

  register(`${name}: recordPage lists whole records, in the order of page, in several pages`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.recordPage(undefined), { users: [], next: undefined });
    const imported = Array.from({ length: 1_500 }, (_, n) => importedUser(`user${n}`, n % 2 === 0 ? { key: 'ab'.repeat(32) } : { version: 2, changed: at }));
    const users = (await store.createMany(imported)).map((outcome) => outcome.user);
    const changed = await store.replace(users[3]!, { ...other, changed: at });
    await store.remove(users[5]!, at);
    assert.ok((await store.recordPage(undefined)).next !== undefined);
    const records = await recordsOf(store);
    const logins = (await store.page(undefined, 2_000)).users.map((user) => JSON.parse(user.toString('utf8')).login as string);
    assert.deepEqual(records.map(({ login }) => login), logins);
    const expected = new Map(users.map((user) => [user.login, user]));
    expected.set('user3', changed!).delete('user5');
    assert.deepEqual(new Map(records.map((user) => [user.login, user])), expected);
  });

  register(`${name}: kdfs lists the costliest of each algorithm, however it was written, and no more`, async (t) => {
    const store = await open(t);
    assert.deepEqual(await store.kdfs(), []);
    const { user } = await store.create(newUser('alice', { kdf: 'pbkdf2:sha256:3' }));
    await store.createMany([
      importedUser('bob', { kdf: 'pbkdf2:sha256:29000:hex', version: 12, changed: at }),
      importedUser('名字', { kdf: 'pbkdf2:sha256:1', disabled: at }),
      importedUser('kdf', { kdf: 'pbkdf2:sha256:2' }),
      importedUser('invited', { kdf: 'none', password: '' }),
      importedUser('werkzeug', { kdf: 'scrypt:32768:8:1' }),
    ]);
    assert.deepEqual([...(await store.kdfs())].sort(), ['pbkdf2:sha256:29000:hex', 'scrypt:32768:8:1']);
    await store.replace(user, { ...other, changed: at });
    assert.deepEqual([...(await store.kdfs())].sort(), ['pbkdf2:sha256:29000:hex', 'pbkdf2:sha512:2', 'scrypt:32768:8:1']);
  });

  register(`${name}: disabling and enabling raise the version, and every other write keeps what is disabled`, async (t) => {
    const store = await open(t);
    const { user } = await store.create(newUser('alice', { key: 'ab'.repeat(32) }));
    const { kdf, password } = user;
    const disabled = await store.replace(user, { kdf, password, disabled: at });
    assert.deepEqual(disabled, { ...user, version: 2, disabled: at });
    assert.deepEqual(await store.findRecord('alice'), disabled);
    const rehashed = await store.replace(disabled!, other);
    assert.deepEqual(rehashed, { ...disabled, ...other });
    const { json } = (await store.findPublic('alice'))!;
    assert.equal(json, `{"id":1,"login":"alice","registered":"${user.registered}","version":2,"disabled":"${at}"}`);
    assert.equal((await store.page(undefined, 5)).users.toString(), json);
    assert.equal((await store.ndjsonPage(undefined)).bytes.toString(), `${json}\n`);
    const { key, ...kept } = rehashed!;
    assert.deepEqual(await store.replace(rehashed!, { ...other, changed: at }), { ...kept, version: 3, changed: at });
    const { disabled: before, ...enabled } = kept;
    assert.deepEqual([key, before], ['ab'.repeat(32), at]);
    assert.deepEqual(await store.replace({ ...user, version: 3 }, { ...other, disabled: false }), { ...enabled, version: 4, changed: at });
    assert.equal((await store.replace({ ...user, version: 4 }, { ...other, endsSessions: true }))?.version, 5);
  });

  register(`${name}: an invited user has no password, and is stored, imported and listed as any other`, async (t) => {
    const store = await open(t);
    const invited = { kdf: 'none', password: '' };
    const { user } = await store.create(newUser('alice', invited));
    assert.deepEqual(user, { id: 1, version: 1, ...newUser('alice', invited) });
    await store.createMany([importedUser('bob', { ...invited, disabled: at })]);
    assert.deepEqual((await recordsOf(store)).map(({ login, kdf, password, disabled }) => [login, kdf, password, disabled]), [
      ['alice', 'none', '', undefined], ['bob', 'none', '', at],
    ]);
    assert.equal(JSON.parse((await store.findPublic('alice'))!.json).kdf, undefined);
    assert.deepEqual(await store.replace(user, { ...other, changed: at }), { ...user, ...other, version: 2, changed: at });
  });

  register(`${name}: a malformed cursor is rejected`, async (t) => {
    const store = await open(t);
    for (const cursor of ['', '17', 'aWQ6MQ==', 'aWQ6LTE', '\u0000', 'x'.repeat(100)]) {
      await assert.rejects(store.page(cursor, 5), (error) => error instanceof RegistrarError && error.code === 'malformed');
      await assert.rejects(store.ndjsonPage(cursor), (error) => error instanceof RegistrarError && error.code === 'malformed');
      await assert.rejects(store.recordPage(cursor), (error) => error instanceof RegistrarError && error.code === 'malformed');
    }
  });
}
