/**
 * The page's beginning: the reader's language, and which part is shown, by the part of the address behind `#`, so that
 * the browser's way back works. It sends nothing but the question who is signed in.
 */

import { lookUpSession, showAccount, signedIn, wireAccount } from './account.js';
import { enterAdmin, wireAdmin } from './admin.js';
import { element, say, showProblem, watchInputs } from './form.js';
import { chooseLanguage, t } from './words.js';

const views = ['sign-in', 'register', 'account', 'admin'];
const { dataset } = document.documentElement;
const bounds = { min: Number(dataset.passwordMin), max: Number(dataset.passwordMax) };

const language = chooseLanguage(navigator.languages);
document.documentElement.lang = language;
const locale = navigator.languages.find((tag) => tag.toLowerCase().startsWith(language)) ?? language;
const dates = new Intl.DateTimeFormat(locale, { dateStyle: 'long', timeStyle: 'short' });
const days = new Intl.DateTimeFormat(locale, { dateStyle: 'medium' });

for (const place of document.querySelectorAll('[data-t]')) {
  place.textContent = t(place.textContent ?? '', bounds, place.getAttribute('data-t') ?? '');
}
for (const place of document.querySelectorAll('[data-t-label]')) {
  place.setAttribute('aria-label', t(place.getAttribute('aria-label') ?? ''));
}

/** What the next view says at its top. */
let arriving = '';
/** @type {string | undefined} */
let shown;

/**
 * @param {string} date
 * @param {Intl.DateTimeFormat} [format]
 */
function dated(date, format = dates) {
  const time = document.createElement('time');
  time.dateTime = date;
  time.textContent = format.format(new Date(date));
  return time;
}

/**
 * @param {string} view
 * @param {string} [status]
 */
function go(view, status = '') {
  arriving = status;
  if (location.hash === `#${view}`) void show(true);
  else location.hash = view;
}

/** The view that the address asks for, as far as it makes sense. */
function wanted() {
  const asked = location.hash.slice(1);
  if (asked === 'admin') return 'admin';
  if (signedIn() !== undefined) return 'account';
  return asked === 'register' ? 'register' : 'sign-in';
}

/** @param {boolean} movesFocus */
async function show(movesFocus) {
  const view = wanted();
  const status = arriving;
  arriving = '';
  if (location.hash !== `#${view}`) history.replaceState(null, '', `#${view}`);
  if (view === 'admin') await enterAdmin();
  // The reader has gone on meanwhile, and that is shown by its own call.
  if (wanted() !== view) return;
  showAccount(element('account-facts'), dated);
  for (const name of views) element(name).hidden = name !== view;
  for (const item of document.querySelectorAll('[data-for]')) {
    if (item instanceof HTMLElement) item.hidden = (item.dataset.for === 'signed-in') !== (signedIn() !== undefined);
  }
  for (const link of document.querySelectorAll('nav a')) {
    if (link.getAttribute('href') === `#${view}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
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

/** A session may have ended: by time, in another tab, on another device. Where that cannot be known, nothing is said. */
async function lookAgain() {
  if (signedIn() === undefined) return;
  await lookUpSession().catch(() => undefined);
  if (signedIn() !== undefined) return;
  arriving = t('The session has ended. Sign in again.');
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

try {
  await lookUpSession();
  await show(false);
} catch (error) {
  await show(false);
  showProblem(element('status'), error);
}
