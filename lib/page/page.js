/**
 * The beginning of the page: the user's language, and which section is shown, by the fragment of the address, so that the
 * browser's back button works. The form to sign in can be used before the service has said whether there is a session.
 */

import { lookUpSession, returnPath, showAccount, signedIn, takeLink, wireAccount } from './account.js';
import { enterAdmin, isAdmin, wireAdmin } from './admin.js';
import { element, say, showProblem, watchInputs } from './form.js';
import { chooseLanguage, t } from './words.js';

const views = ['sign-in', 'register', 'password', 'account', 'admin'];
const { dataset } = document.documentElement;
const bounds = { min: Number(dataset.passwordMin), max: Number(dataset.passwordMax) };

const language = chooseLanguage(navigator.languages);
document.documentElement.lang = language;
const locale = navigator.languages.find((tag) => tag.toLowerCase().startsWith(language)) ?? language;
const dates = new Intl.DateTimeFormat(locale, { dateStyle: 'long', timeStyle: 'short' });
const days = new Intl.DateTimeFormat(locale, { dateStyle: 'medium' });

for (const place of document.querySelectorAll('[data-t]')) place.textContent = t(place.textContent ?? '', bounds);
for (const name of ['label', 'placeholder']) {
  const attribute = name === 'label' ? 'aria-label' : name;
  for (const place of document.querySelectorAll(`[data-t-${name}]`)) place.setAttribute(attribute, t(place.getAttribute(attribute) ?? ''));
}
if (dataset.help !== undefined && dataset.help !== '') element('help').textContent = dataset.help;

/** What the next section reports at its top. */
let arriving = '';
let hasLink = false;
/** @type {string | undefined} */
let shown;

/** @param {string} date @param {Intl.DateTimeFormat} [format] */
function dated(date, format = dates) {
  const time = document.createElement('time');
  time.dateTime = date;
  time.textContent = format.format(new Date(date));
  return time;
}

/** @param {string} view @param {string} [status] */
function go(view, status = '') {
  arriving = status;
  hasLink = false;
  if (location.hash === `#${view}`) void show(true);
  else location.hash = view;
}

/** The token of a link leaves the address, and so the history, at once. */
function readLink() {
  const [, token = ''] = /^#password=(.+)$/.exec(location.hash) ?? [];
  if (token === '') return;
  history.replaceState(null, '', '#password');
  takeLink(token);
  hasLink = true;
}

/** The section that the address asks for, as far as the user may see it. */
function wanted() {
  const asked = location.hash.slice(1);
  if (asked === 'password' && hasLink) return 'password';
  if (asked === 'admin') return 'admin';
  if (signedIn() !== undefined) return 'account';
  return asked === 'register' ? 'register' : 'sign-in';
}

/** @param {boolean} movesFocus */
async function show(movesFocus) {
  readLink();
  const view = wanted();
  const status = arriving;
  arriving = '';
  if (location.hash !== `#${view}` && (location.hash !== '' || view !== 'sign-in')) history.replaceState(null, '', `#${view}`);
  if (view === 'admin') await enterAdmin();
  // The user has gone on meanwhile, and that is shown by its own call.
  if (wanted() !== view) return;
  showAccount(element('account-facts'), dated);
  for (const name of views) element(name).hidden = name !== view;
  const isSignedIn = signedIn() !== undefined;
  const states = { 'signed-in': isSignedIn, 'signed-out': !isSignedIn, admin: isAdmin(), 'not-admin': !isAdmin() };
  for (const item of document.querySelectorAll('[data-for]')) {
    if (item instanceof HTMLElement) item.hidden = !Object.entries(states).some(([name, holds]) => holds && item.dataset.for === name);
  }
  for (const link of document.querySelectorAll('nav a')) {
    if (link.getAttribute('href') === `#${view}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.body.dataset.view = view;
  const heading = element(`${view}-heading`);
  document.title = `${heading.textContent} – Registrar`;
  const isOther = shown !== view;
  shown = view;
  if (movesFocus && isOther) {
    heading.focus();
    scrollTo(0, 0);
  }
  say(status, movesFocus && !isOther && status !== '');
}

/** A session may have ended: by time, in another tab, on another device. Where that cannot be known, nothing is reported. */
async function lookAgain() {
  if (signedIn() === undefined) return;
  await lookUpSession().catch(() => undefined);
  if (signedIn() !== undefined) return;
  arriving = t('Your session has ended. Sign in again.');
  await show(true);
}

watchInputs(bounds);
wireAccount(go);
wireAdmin((date) => dated(date, days));
addEventListener('hashchange', () => void show(true));
addEventListener('session-due', () => void lookAgain());
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') void lookAgain();
});
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) void lookAgain();
});

await show(false);
try {
  await lookUpSession();
  const to = returnPath();
  if (signedIn() !== undefined && to !== undefined) location.replace(to);
  else if (signedIn() !== undefined) await show(false);
} catch (error) {
  showProblem(element('status'), error);
}
