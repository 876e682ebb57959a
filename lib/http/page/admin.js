/**
 * The administrator's part: everybody in pages, one by login, adding and removing. The admin token is in a variable of
 * this file and nowhere else; in open mode none is asked for. Whether it is open mode the service tells when it is asked.
 */

import { Problem, ask, bearer, ifMatch, registrar, userPath } from './api.js';
import { element, empty, onSend, say, showProblem } from './form.js';
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
/** @type {User | undefined} */
let doomed;
/** @type {(date: string) => Node} */
let dated;

/** Shows the tools, or asks for the token where the service does. */
export async function enterAdmin() {
  element('list-problem').textContent = '';
  try {
    await showPage(path);
    letIn();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401 || error.status === 403) return lock();
    letIn();
    showProblem(element('list-problem'), error);
  }
}

function letIn() {
  element('token-form').hidden = true;
  element('admin-tools').hidden = false;
  element('open-mode').hidden = token !== undefined;
  element('locked-by').hidden = token === undefined;
}

function lock() {
  token = undefined;
  path = [firstPage];
  element('token-form').hidden = false;
  element('admin-tools').hidden = true;
  element('users').replaceChildren();
  showFound(undefined);
}

/** @param {readonly string[]} wanted */
async function showPage(wanted) {
  const page = await ask('GET', wanted.at(-1) ?? firstPage, { headers: bearer(token) });
  path = [...wanted];
  next = page.next;
  element('list-heading').textContent = path.length === 1 && next === null ? t('Users') : t('Users, page {page}', { page: path.length });
  element('users').replaceChildren(...page.users.map(item));
  element('list-empty').hidden = page.users.length > 0;
  element('list-back').hidden = path.length === 1;
  element('list-on').hidden = next === null;
}

/** @param {User | undefined} user */
function showFound(user) {
  const found = element('found');
  found.hidden = user === undefined;
  found.replaceChildren(...(user === undefined ? [] : [item(user)]));
}

/** @param {User} user */
function item(user) {
  const row = document.createElement('li');
  const facts = document.createElement('div');
  const login = document.createElement('strong');
  login.textContent = user.login;
  const small = document.createElement('small');
  const [before = '', after = ''] = t('No. {id}, registered {date}', { id: user.id }).split('{date}');
  small.append(before, dated(user.registered), after);
  facts.append(login, small);
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'danger';
  button.textContent = t('Remove');
  button.setAttribute('aria-label', t('Remove {login}', { login: user.login }));
  button.addEventListener('click', () => askWhether(user));
  row.append(facts, button);
  return row;
}

/** @param {User} user */
function askWhether(user) {
  doomed = user;
  const form = element('remove-form');
  if (form instanceof HTMLFormElement) empty(form);
  element('remove-heading').textContent = t('Remove {login}?', { login: user.login });
  dialog().showModal();
}

function dialog() {
  const found = element('remove-dialog');
  if (!(found instanceof HTMLDialogElement)) throw new Error('There is no dialog');
  return found;
}

/** Reads the page that is shown again, after something was done that was done in any case. */
async function refresh() {
  try {
    await showPage(path);
  } catch (error) {
    showProblem(element('list-problem'), error);
  }
}

/** @param {(date: string) => Node} showDate */
export function wireAdmin(showDate) {
  dated = showDate;
  const register = registrar();

  onSend('token-form', async ({ token: typed = '' }, form) => {
    const detail = 'The admin token is wrong';
    const wrong = new Problem('page:token', detail, { fields: [{ detail, pointer: '#/token' }] });
    // What cannot stand in a header is no token.
    if (!/^[\x21-\x7e]+$/.test(typed.trim())) throw wrong;
    token = typed.trim();
    try {
      await showPage([firstPage]);
    } catch (error) {
      token = undefined;
      throw error instanceof Problem && (error.status === 401 || error.status === 403) ? wrong : error;
    }
    empty(form);
    letIn();
    element('admin-heading').focus();
  });

  element('forget-token').addEventListener('click', () => {
    lock();
    say(t('The token is forgotten.'), true);
  });

  onSend('find-form', async ({ login = '' }) => {
    showFound(undefined);
    const missing = new Problem('page:not-found', t('There is no user “{login}”.', { login }));
    const at = userPath(login);
    if (at === undefined) throw missing;
    try {
      showFound(await ask('GET', at, { headers: bearer(token) }));
    } catch (error) {
      throw error instanceof Problem && error.status === 404 ? missing : error;
    }
    element('found').focus();
  });

  onSend('add-form', async ({ login = '', password = '' }, form) => {
    const user = await register(login, password, bearer(token));
    empty(form);
    await refresh();
    say(t('{login} was added.', { login: user.login }), true);
  });

  onSend('remove-form', async () => {
    if (doomed === undefined) return;
    const { login } = doomed;
    try {
      await ask('DELETE', userPath(login) ?? '', { headers: { ...bearer(token), ...ifMatch(doomed) } });
    } catch (error) {
      // Somebody else has removed the same user.
      if (!(error instanceof Problem) || error.status !== 404) throw error;
    }
    dialog().close();
    showFound(undefined);
    await refresh();
    say(t('{login} was removed.', { login }), true);
  });
  element('remove-cancel').addEventListener('click', () => dialog().close());

  element('list-on').addEventListener('click', () => turn(next === null ? path : [...path, next]));
  element('list-back').addEventListener('click', () => turn(path.length > 1 ? path.slice(0, -1) : path));
}

/** @param {readonly string[]} to */
async function turn(to) {
  element('list-problem').textContent = '';
  try {
    await showPage(to);
    element('list-heading').focus();
  } catch (error) {
    showProblem(element('list-problem'), error);
  }
}
