/**
 * The user's own account: registering, signing in and out, the password, its removal. The session is the browser's cookie, which
 * no script can read. The page stores nothing.
 */

import { Problem, ask, basic, ifMatch, registrar, userPath } from './api.js';
import { element, empty, input, onSend, showProblem } from './form.js';
import { t } from './words.js';

/** @typedef {import('./api.js').User} User */
/** @typedef {{ readonly user: User, readonly expires: string }} Session */
/** @typedef {(view: string, status?: string) => void} Go shows another section of the page */

const dueMsMin = 60_000;
/** A timer of a browser takes no more. */
const dueMsMax = 2 ** 31 - 1;

/** @type {Session | undefined} */
let session;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let expiry;
/** The token of a password link. */
let linkToken = '';

export function signedIn() {
  return session;
}

/** @param {Session | undefined} next */
function become(next) {
  session = next;
  clearTimeout(expiry);
  if (next === undefined) return;
  // The clock of this machine may be wrong, so the service is asked then, and not too often.
  const ms = Math.min(Math.max(Date.parse(next.expires) - Date.now() + 1_000, dueMsMin), dueMsMax);
  expiry = setTimeout(() => dispatchEvent(new Event('session-due')), ms);
}

/** Asks whose session this is, which also renews the cookie. Throws a Problem if that cannot be known. */
export async function lookUpSession() {
  try {
    const { user, expires } = await ask('GET', '/session');
    become({ user, expires });
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    become(undefined);
  }
}

/** @param {string} login @param {string} password @param {boolean} [keeps] whether the session outlives the browser */
async function signIn(login, password, keeps = false) {
  const { user, expires } = await ask('POST', '/session', { body: { login, password, cookie: keeps ? 'persistent' : 'session' } });
  become({ user, expires });
}

/**
 * Checks the password of the user at the keyboard, which the service does not require in unauthenticated mode.
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
    const detail = 'The password is wrong.';
    throw new Problem('page:wrong-password', detail, { fields: [{ detail, pointer: `#/${field}` }] });
  }
}

/** The login of a password link. @param {string} token */
export function takeLink(token) {
  linkToken = token;
  const [encoded = ''] = token.split('.');
  const isBase64 = /^(?:[\w-]{4})*(?:[\w-]{2,3})?$/.test(encoded);
  // Of a link that was cut the login is not known; the service rejects it.
  const bytes = isBase64 ? atob(encoded.replaceAll('-', '+').replaceAll('_', '/')) : '';
  input('choose-login').value = new TextDecoder().decode(Uint8Array.from(bytes, (c) => c.charCodeAt(0)));
}

/** The path of this origin to which the user returns after signing in; undefined for the page itself. */
export function returnPath() {
  const [, given = ''] = /[?&]to=(.*)$/.exec(location.search) ?? [];
  const to = given.startsWith('%') ? decoded(given) : given;
  return /^\/(?![/\\])/.test(to) && new URL(to, location.origin).origin === location.origin ? to : undefined;
}

/** Empty for text that is not percent-encoded UTF-8. @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}

/** @param {Go} go */
export function wireAccount(go) {
  const register = registrar();

  /** @param {string} status */
  const arrive = (status) => {
    const to = returnPath();
    if (to === undefined) go('account', status);
    else location.assign(to);
  };

  onSend('sign-in-form', async ({ login = '', password = '' }, form) => {
    await signIn(login, password, input('keep').checked);
    empty(form);
    arrive(t('You are signed in as {login}.', { login: session?.user.login ?? '' }));
  });

  onSend('register-form', async ({ login = '', password = '' }, form) => {
    const user = await register(login, password);
    try {
      await signIn(user.login, password);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      empty(form);
      return go('sign-in', t('Your account has been created. Sign in.'));
    }
    empty(form);
    arrive(t('Welcome, {login}. Your account has been created.', { login: user.login }));
  });

  onSend('choose-form', async ({ password = '' }, form) => {
    const user = await ask('POST', '/password', { body: { token: linkToken, password } });
    linkToken = '';
    await signIn(user.login, password);
    empty(form);
    go('account', t('Your password has been saved. You are signed in as {login}.', { login: user.login }));
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
      return go('sign-in', t('Your password has been changed. Sign in with the new one.'));
    }
    empty(form);
    go('account', t('Your password has been changed. All other devices have been signed out.'));
  });

  element('sign-out').addEventListener('click', async () => {
    try {
      await ask('DELETE', '/session');
    } catch (error) {
      return showProblem(element('status'), error);
    }
    become(undefined);
    go('sign-in', t('You have signed out.'));
  });

  onSend('sign-out-form', async (_values, form) => {
    try {
      await ask('DELETE', `${userPath(owner().login)}/session`);
    } catch (error) {
      // A session that has ended by itself has the same outcome.
      if (!(error instanceof Problem) || error.status !== 401) throw error;
    }
    become(undefined);
    empty(form);
    go('sign-in', t('You have signed out on all devices.'));
  });

  onSend('delete-form', async ({ password = '' }, form) => {
    const user = await confirm(owner().login, password, 'password');
    await ask('DELETE', userPath(user.login) ?? '', { headers: { ...basic(user.login, password), ...ifMatch(user) } });
    await ask('DELETE', '/session').catch(() => undefined);
    become(undefined);
    empty(form);
    go('register', t('The account {login} has been deleted.', { login: user.login }));
  });
}

function owner() {
  if (session === undefined) throw new Problem('page:session', 'Your session has ended. Sign in again.');
  return session.user;
}

/** @param {string} login @param {string} current @param {string} password */
async function changePassword(login, current, password) {
  try {
    await ask('PATCH', userPath(login) ?? '', { body: { password }, headers: basic(login, current) });
  } catch (error) {
    if (!(error instanceof Problem) || !error.isOpenEnded) throw error;
    throw new Problem('page:unknown', 'The password may or may not have been changed. If the old one does not work, try the new one.');
  }
}

/** Shows whose account it is. @param {HTMLElement} facts @param {(date: string) => Node} dated */
export function showAccount(facts, dated) {
  if (session === undefined) return facts.replaceChildren();
  const { user, expires } = session;
  for (const input of document.querySelectorAll('[data-own-login]')) if (input instanceof HTMLInputElement) input.value = user.login;
  /** @type {[string, string | Node][]} */
  const rows = [
    [t('Login'), user.login],
    ['ID', String(user.id)],
    [t('Registered'), dated(user.registered)],
    [t('Password changed'), user.changed === undefined ? t('never') : dated(user.changed)],
    [t('Signed in until'), dated(expires)],
  ];
  facts.replaceChildren(...rows.flatMap(([name, value]) => [withText('dt', name), withText('dd', value)]));
}

/** @param {string} tag @param {string | Node} content */
function withText(tag, content) {
  const made = document.createElement(tag);
  made.append(content);
  return made;
}
