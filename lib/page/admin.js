/**
 * The administrator's users: a table in pages, with what can be done to each user. The admin token is in a variable of this file
 * and nowhere else; in unauthenticated mode the service requires none.
 */

import { Problem, ask, bearer, ifMatch, registrar, userPath } from './api.js';
import { dialog, element, empty, formOf, input, onSend, say, showProblem } from './form.js';
import { t } from './words.js';

/** @typedef {import('./api.js').User} User */

const pageUsers = 20;
const firstPage = `/user/?limit=${pageUsers}`;

/** @type {string | undefined} */
let token;
/** Where each page up to this one begins. */
let path = [firstPage];
/** @type {string | null} */
let next = null;
let isOpen = false;
/** Runs when the dialog is confirmed. @type {() => Promise<void>} */
let confirmed = async () => undefined;
/** @type {(date: string) => Node} */
let dated;

/** Whether the administrator's tools are shown. */
export function isAdmin() {
  return isOpen;
}

/** Shows the tools, or asks for the token where the service requires one. */
export async function enterAdmin() {
  element('list-problem').textContent = '';
  try {
    await showPage(path);
    unlock();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401 || error.status === 403) return lock();
    unlock();
    showProblem(element('list-problem'), error);
  }
}

function unlock() {
  isOpen = true;
  element('token-form').hidden = true;
  element('admin-tools').hidden = false;
  element('open-mode').hidden = token !== undefined;
  element('forget-token').hidden = token === undefined;
}

function lock() {
  token = undefined;
  isOpen = false;
  path = [firstPage];
  element('token-form').hidden = false;
  element('admin-tools').hidden = true;
  element('users').replaceChildren();
}

/** @param {readonly string[]} wanted */
async function showPage(wanted) {
  const page = await ask('GET', wanted.at(-1) ?? firstPage, { headers: bearer(token) });
  path = [...wanted];
  next = page.next;
  element('list-page').textContent = path.length === 1 && next === null ? '' : t('Page {page}', { page: path.length });
  showRows(page.users);
  element('list-back').hidden = path.length === 1;
  element('list-on').hidden = next === null;
}

/** @param {readonly User[]} users */
function showRows(users) {
  element('users').replaceChildren(...users.map(row));
  element('list-empty').hidden = users.length > 0;
}

/** @param {User} user */
function row(user) {
  const made = document.createElement('tr');
  const login = document.createElement('th');
  login.scope = 'row';
  login.textContent = user.login;
  const state = user.disabled !== undefined ? t('Disabled') : user.invited ? t('Invited') : t('Active');
  const cells = [String(user.id), dated(user.registered), state, actions(user)].map((content) => {
    const cell = document.createElement('td');
    cell.append(content);
    return cell;
  });
  made.append(login, ...cells);
  return made;
}

/** @param {User} user */
function actions(user) {
  const group = document.createElement('div');
  group.className = 'actions';
  const isDisabled = user.disabled !== undefined;
  if (isDisabled) {
    group.append(action(user, t('Enable'), () => change(user, false)));
  } else {
    const hint = t('Every session ends, and the user cannot sign in.');
    const disable = () => confirmFirst(t('Disable {login}?', user), hint, t('Disable'), () => change(user, true));
    group.append(action(user, user.invited ? t('Invitation link') : t('Reset link'), () => issueLink(user)));
    group.append(action(user, t('Disable'), disable));
    if (!user.invited) group.append(action(user, t('Sign out'), () => signOut(user)));
  }
  const hint = t('This cannot be undone. Someone else may register the login afterwards.');
  group.append(action(user, t('Remove'), () => confirmFirst(t('Remove {login}?', user), hint, t('Remove'), () => remove(user)), 'danger'));
  return group;
}

/**
 * @param {User} user
 * @param {string} text
 * @param {() => unknown} act
 * @param {string} [kind]
 */
function action({ login }, text, act, kind = 'plain') {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = kind;
  button.textContent = text;
  button.setAttribute('aria-label', `${text}: ${login}`);
  button.addEventListener('click', async () => {
    try {
      await act();
    } catch (error) {
      showProblem(element('list-problem'), error);
    }
  });
  return button;
}

/** @param {Pick<User, 'login'>} user */
async function issueLink({ login }) {
  const { link, token: linkToken, expires } = await ask('POST', `${userPath(login)}/password-link`, { headers: bearer(token) });
  element('link-heading').textContent = t('Link for {login}', { login });
  const page = `${location.origin}${document.documentElement.dataset.prefix ?? ''}`;
  input('link').value = link ?? `${page}/#password=${linkToken}`;
  element('link-expires').replaceChildren(t('Valid until'), ' ', dated(expires));
  dialog('link-dialog').showModal();
}

/** @param {User} user @param {boolean} disabled */
async function change(user, disabled) {
  await ask('PATCH', userPath(user.login) ?? '', { body: { disabled }, headers: { ...bearer(token), ...ifMatch(user) } });
  await refresh(disabled ? t('{login} has been disabled.', user) : t('{login} has been enabled.', user));
}

/** @param {User} user */
async function signOut(user) {
  await ask('DELETE', `${userPath(user.login)}/session`, { headers: bearer(token) });
  await refresh(t('Every session of {login} has ended.', user));
}

/** @param {User} user */
async function remove(user) {
  try {
    await ask('DELETE', userPath(user.login) ?? '', { headers: { ...bearer(token), ...ifMatch(user) } });
  } catch (error) {
    // Another administrator has removed the same user.
    if (!(error instanceof Problem) || error.status !== 404) throw error;
  }
  await refresh(t('{login} has been removed.', user));
}

/**
 * Asks before something that cannot be undone.
 * @param {string} heading
 * @param {string} hint
 * @param {string} button
 * @param {() => Promise<void>} act
 */
function confirmFirst(heading, hint, button, act) {
  confirmed = act;
  empty(formOf('confirm-form'));
  element('confirm-heading').textContent = heading;
  element('confirm-hint').textContent = hint;
  element('confirm-button').textContent = button;
  dialog('confirm-dialog').showModal();
}

/** Reads the page again after a change, and keeps the place. @param {string} status */
async function refresh(status) {
  const { scrollY } = window;
  try {
    await showPage(path);
  } catch (error) {
    showProblem(element('list-problem'), error);
  }
  say(status);
  scrollTo(0, scrollY);
}

/** @param {(date: string) => Node} showDate */
export function wireAdmin(showDate) {
  dated = showDate;
  const register = registrar();

  onSend('token-form', async ({ token: typed = '' }, form) => {
    const detail = 'The admin token is wrong.';
    const wrong = new Problem('page:token', detail, { fields: [{ detail, pointer: '#/token' }] });
    // A header cannot contain other characters.
    if (!/^[\x21-\x7e]+$/.test(typed.trim())) throw wrong;
    token = typed.trim();
    try {
      await showPage([firstPage]);
    } catch (error) {
      token = undefined;
      throw error instanceof Problem && (error.status === 401 || error.status === 403) ? wrong : error;
    }
    empty(form);
    unlock();
    dispatchEvent(new Event('hashchange'));
    element('admin-heading').focus();
  });

  element('forget-token').addEventListener('click', () => {
    lock();
    dispatchEvent(new Event('hashchange'));
    say(t('The token has been forgotten.'), true);
  });

  // The loaded page is filtered while the user types; the service is asked for an exact login.
  input('find-login').addEventListener('input', () => {
    const typed = input('find-login').value.trim().toLowerCase();
    for (const line of element('users').querySelectorAll('tr')) {
      line.hidden = !(line.querySelector('th')?.textContent ?? '').includes(typed);
    }
  });
  onSend('find-form', async ({ login = '' }) => {
    if (login.trim() === '') return refresh('');
    const missing = new Problem('page:not-found', t('There is no user “{login}”.', { login }));
    const at = userPath(login);
    if (at === undefined) throw missing;
    try {
      showRows([await ask('GET', at, { headers: bearer(token) })]);
    } catch (error) {
      throw error instanceof Problem && error.status === 404 ? missing : error;
    }
  });

  const hasPassword = () => document.querySelector('#add-form input[name=way]:checked')?.getAttribute('value') === 'password';
  element('add').addEventListener('click', () => dialog('add-dialog').showModal());
  for (const choice of document.querySelectorAll('#add-form input[name=way]')) {
    choice.addEventListener('change', () => (element('add-password-field').hidden = !hasPassword()));
  }
  dialog('add-dialog').addEventListener('close', () => {
    empty(formOf('add-form'));
    element('add-password-field').hidden = true;
  });
  onSend('add-form', async ({ login = '', password = '' }) => {
    const isInvited = !hasPassword();
    if (isInvited) {
      const at = userPath(login) ?? '/user/%2e';
      const taken = await ask('GET', at, { headers: bearer(token) }).then(() => true, (error) => {
        if (error instanceof Problem && error.status === 404) return false;
        throw error;
      });
      if (taken) throw new Problem('urn:registrar:taken', `The login "${login}" is taken`, { status: 409 });
      await issueLink({ login });
    } else {
      await register(login, password, bearer(token));
    }
    dialog('add-dialog').close();
    await refresh(t('{login} has been added.', { login }));
  });

  onSend('confirm-form', async () => {
    await confirmed();
    dialog('confirm-dialog').close();
  });
  element('link-copy').addEventListener('click', async () => {
    input('link').select();
    await navigator.clipboard.writeText(input('link').value).catch(() => document.execCommand('copy'));
    element('spoken').textContent = t('Copied.');
  });
  dialog('link-dialog').addEventListener('close', () => (input('link').value = ''));

  element('list-on').addEventListener('click', () => turn(next === null ? path : [...path, next]));
  element('list-back').addEventListener('click', () => turn(path.length > 1 ? path.slice(0, -1) : path));
}

/** @param {readonly string[]} to */
async function turn(to) {
  element('list-problem').textContent = '';
  try {
    await showPage(to);
    element('admin-heading').focus();
  } catch (error) {
    showProblem(element('list-problem'), error);
  }
}
