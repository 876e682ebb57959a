/**
 * One's own account: making it, signing in and out, its password, its end. The session is the browser's cookie, which no
 * script reads, and a token in a variable for browsers that take no cookies. Neither is ever stored by the page.
 */

import { Problem, ask, basic, bearer, ifMatch, registrar, userPath } from './api.js';
import { empty, onSend } from './form.js';
import { t } from './words.js';

/** @typedef {import('./api.js').User} User */
/** @typedef {{ readonly user: User, readonly expires: string, readonly token: string | undefined }} Session */

const dueMsMin = 60_000;
/** A timer of a browser takes no more. */
const dueMsMax = 2 ** 31 - 1;

/** @type {Session | undefined} */
let session;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let expiry;

export function signedIn() {
  return session;
}

/** @param {Session | undefined} next */
function become(next) {
  session = next;
  clearTimeout(expiry);
  if (next === undefined) return;
  // By this machine's clock, which may be wrong: so the service is asked then, and not too often.
  const ms = Math.min(Math.max(Date.parse(next.expires) - Date.now() + 1_000, dueMsMin), dueMsMax);
  expiry = setTimeout(() => dispatchEvent(new Event('session-due')), ms);
}

/** Asks who is signed in. Throws a Problem if that cannot be known. */
export async function lookUpSession() {
  const token = session?.token;
  try {
    const { user, expires } = await ask('GET', '/session', { headers: bearer(token) });
    become({ user, expires, token });
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    become(undefined);
  }
}

/**
 * @param {string} login
 * @param {string} password
 */
async function signIn(login, password) {
  const { user, expires, token } = await ask('POST', '/session', { body: { login, password, cookie: true } });
  become({ user, expires, token });
}

/**
 * That whoever is at the keyboard knows the password: in open mode the service would not ask.
 * @param {string} login
 * @param {string} password
 * @param {string} field where a wrong one is shown
 * @returns {Promise<User>}
 */
async function confirm(login, password, field) {
  try {
    const { user } = await ask('POST', '/session', { body: { login, password } });
    return user;
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    const detail = 'The password is wrong';
    throw new Problem('page:wrong-password', detail, { fields: [{ detail, pointer: `#/${field}` }] });
  }
}

/** @param {(view: string, status?: string) => void} go shows another part of the page */
export function wireAccount(go) {
  const register = registrar();

  onSend('sign-in-form', async ({ login = '', password = '' }, form) => {
    await signIn(login, password);
    empty(form);
    go('account', t('You are signed in as {login}.', { login: session?.user.login ?? '' }));
  });

  onSend('register-form', async ({ login = '', password = '' }, form) => {
    const user = await register(login, password);
    try {
      await signIn(user.login, password);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      empty(form);
      return go('sign-in', t('The account is made. Sign in now.'));
    }
    empty(form);
    go('account', t('Welcome, {login}. The account is made, and you are signed in.', { login: user.login }));
  });

  onSend('password-form', async ({ current = '', password = '' }, form) => {
    const { login } = owner();
    await confirm(login, current, 'current');
    await changePassword(login, current, password);
    try {
      await signIn(login, password);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      become(undefined);
      empty(form);
      return go('sign-in', t('The password was changed. Sign in with the new one.'));
    }
    empty(form);
    go('account', t('The password was changed. All other devices were signed out.'));
  });

  onSend('sign-out-form', async (_values, form) => {
    try {
      await ask('DELETE', '/session', { headers: bearer(session?.token) });
    } catch (error) {
      // A session that has ended by itself is as good.
      if (!(error instanceof Problem) || error.status !== 401) throw error;
    }
    become(undefined);
    empty(form);
    go('sign-in', t('You are signed out, on this device and on all others.'));
  });

  onSend('delete-form', async ({ password = '' }, form) => {
    const user = await confirm(owner().login, password, 'password');
    await ask('DELETE', userPath(user.login) ?? '', { headers: { ...basic(user.login, password), ...ifMatch(user) } });
    become(undefined);
    empty(form);
    go('register', t('The account of {login} is deleted.', { login: user.login }));
  });
}

function owner() {
  if (session === undefined) throw new Problem('page:session', 'The session has ended. Sign in again.');
  return session.user;
}

/**
 * @param {string} login
 * @param {string} current
 * @param {string} password
 */
async function changePassword(login, current, password) {
  try {
    await ask('PATCH', userPath(login) ?? '', { body: { password }, headers: basic(login, current) });
  } catch (error) {
    if (!(error instanceof Problem) || !error.isOpenEnded) throw error;
    throw new Problem('page:unknown', 'Whether it was done is not known: if you cannot sign in with the old password, try the new one.');
  }
}

/** Shows whose account it is. @param {HTMLElement} facts @param {(date: string) => Node} dated */
export function showAccount(facts, dated) {
  if (session === undefined) return facts.replaceChildren();
  const { user, expires } = session;
  for (const input of document.querySelectorAll('[data-own-login]')) if (input instanceof HTMLInputElement) input.value = user.login;
  /** @type {[string, string | Node][]} */
  const rows = [
    ['Login', user.login],
    ['Number', String(user.id)],
    ['Registered', dated(user.registered)],
    ['Password changed', user.changed === undefined ? t('never') : dated(user.changed)],
    ['Signed in until', dated(expires)],
  ];
  facts.replaceChildren(...rows.flatMap(([name, value]) => [withText('dt', t(name)), withText('dd', value)]));
}

/** @param {string} tag @param {string | Node} content */
function withText(tag, content) {
  const made = document.createElement(tag);
  made.append(content);
  return made;
}
