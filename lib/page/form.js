/**
 * How every form of the page behaves: one request at a time, errors at their fields, a countdown where the service requires a
 * wait, the length of a new password. The rules are those of the service, which is asked when the form is sent.
 */

import { Problem } from './api.js';
import { t, translated } from './words.js';

/** A screen reader is told of a hint when the typing pauses, not at each key. */
const pauseMs = 1_000;

/** @param {string} id */
export function element(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`There is no #${id}`);
  return found;
}

/**
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 */
function elementOf(id, kind) {
  const found = element(id);
  if (!(found instanceof kind)) throw new Error(`#${id} is no ${kind.name}`);
  return found;
}

/** @param {string} id */
export const dialog = (id) => elementOf(id, HTMLDialogElement);
/** @param {string} id */
export const input = (id) => elementOf(id, HTMLInputElement);
/** @param {string} id */
export const formOf = (id) => elementOf(id, HTMLFormElement);

/** @param {HTMLFormElement} form */
function inputsOf(form) {
  return [...form.querySelectorAll('input')].filter((input) => input.type !== 'checkbox' && input.type !== 'radio');
}

/** @param {HTMLFormElement} form */
function buttonOf(form) {
  const found = form.querySelector('button[type="submit"]');
  if (!(found instanceof HTMLButtonElement)) throw new Error('The form has no button');
  return found;
}

/**
 * Says what has happened, to the eye and to a screen reader.
 * @param {string} text empty to say nothing any more
 * @param {boolean} [takesFocus] where the reader would stand on something that is gone
 */
export function say(text, takesFocus = false) {
  const status = element('status');
  status.textContent = text;
  if (!takesFocus) return;
  status.focus();
  status.scrollIntoView({ block: 'nearest' });
}

/** @param {HTMLElement} place @param {unknown} error */
export function showProblem(place, error) {
  if (!(error instanceof Problem)) throw error;
  place.textContent = error.type.startsWith('page:') ? t(error.message) : translated(error.message, error.type);
}

/**
 * Sends the form by `act`, whose Problem is shown where it belongs.
 * @param {string} id
 * @param {(values: Record<string, string>, form: HTMLFormElement) => Promise<void>} act
 */
export function onSend(id, act) {
  const form = formOf(id);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = buttonOf(form);
    if (button.getAttribute('aria-disabled') === 'true') return;
    clearProblems(form);
    if (!isFilled(form)) return;
    say('');
    cover(form);
    const label = hold(button, t('Please wait…'));
    form.setAttribute('aria-busy', 'true');
    const values = Object.fromEntries(inputsOf(form).map((input) => [input.name, input.value]));
    /** @type {number | undefined} */
    let waitSeconds;
    try {
      await act(values, form);
    } catch (error) {
      if (error instanceof Problem) waitSeconds = error.retryAfterSeconds;
      showInForm(form, error);
    } finally {
      form.removeAttribute('aria-busy');
      if (waitSeconds === undefined) release(button, label);
      else countDown(button, label, waitSeconds);
    }
  });
}

/** Empties a form whose work is done: no password stays in the page. @param {HTMLFormElement} form */
export function empty(form) {
  form.reset();
  clearProblems(form);
  for (const note of form.querySelectorAll('.note')) note.textContent = '';
  cover(form);
}

/** A password that was shown is sent as a password: the browser would remember it as text. @param {HTMLFormElement} form */
function cover(form) {
  for (const box of form.querySelectorAll('input')) {
    if (box.dataset.shows === undefined) continue;
    box.checked = false;
    show(box);
  }
}

/** @param {HTMLFormElement} form */
function isFilled(form) {
  const missing = inputsOf(form).filter((input) => input.required && input.value === '');
  for (const input of missing) showFieldProblem(input, t('Enter a value.'));
  missing[0]?.focus();
  return missing.length === 0;
}

/**
 * The button stays where it is and can have the focus, which one that is disabled loses.
 * @param {HTMLButtonElement} button
 * @param {string} text
 * @returns {string} what it said
 */
function hold(button, text) {
  const label = button.textContent ?? '';
  button.setAttribute('aria-disabled', 'true');
  button.textContent = text;
  return label;
}

/** @param {HTMLButtonElement} button @param {string} label */
function release(button, label) {
  button.removeAttribute('aria-disabled');
  button.textContent = label;
}

/** @param {HTMLButtonElement} button @param {string} label @param {number} seconds */
function countDown(button, label, seconds) {
  const end = performance.now() + seconds * 1000;
  const tick = () => {
    const left = Math.ceil((end - performance.now()) / 1000);
    if (left <= 0) {
      clearInterval(timer);
      release(button, label);
      const problem = button.form?.querySelector('.problem');
      if (problem) problem.textContent = '';
      element('spoken').textContent = t('You can try again now.');
      return;
    }
    button.textContent = t('Try again in {time}', { time: `${Math.floor(left / 60)}:${String(left % 60).padStart(2, '0')}` });
  };
  const timer = setInterval(tick, 250);
  tick();
}

/** @param {HTMLFormElement} form @param {unknown} error */
function showInForm(form, error) {
  const place = form.querySelector('.problem');
  if (!(place instanceof HTMLElement)) throw error;
  if (!(error instanceof Problem)) {
    place.textContent = t('The response did not come from Registrar. Try again.');
    throw error;
  }
  /** @type {HTMLInputElement | undefined} */
  let first;
  for (const { detail, pointer, parameter } of fieldsOf(error)) {
    const name = pointer?.replace(/^#\//, '') ?? parameter;
    const input = inputsOf(form).find((one) => one.name === name && !one.hidden);
    if (input === undefined) continue;
    const text = error.type.startsWith('page:') ? t(detail) : translated(detail, error.type, pointer);
    showFieldProblem(input, text);
    first ??= input;
  }
  if (first === undefined) showProblem(place, error);
  else first.focus();
}

/**
 * A login that is taken is the login's matter, though the service, which may have had it in the path, names no field.
 * @param {Problem} error
 */
function fieldsOf({ fields, type, message }) {
  return fields.length === 0 && type === 'urn:registrar:taken' ? [{ detail: message, pointer: '#/login' }] : fields;
}

/** @param {HTMLInputElement} input @param {string} text */
function showFieldProblem(input, text) {
  const id = `${input.id}-error`;
  let place = document.getElementById(id);
  if (place === null) {
    place = document.createElement('p');
    place.id = id;
    place.className = 'error';
    input.after(place);
    input.setAttribute('aria-describedby', [id, input.getAttribute('aria-describedby') ?? ''].join(' ').trim());
  }
  const before = place.textContent ?? '';
  place.textContent = before === '' ? text : `${before.replace(/\.?$/, '.')} ${text}`;
  input.setAttribute('aria-invalid', 'true');
  // What the service has said stands in place of what was foreseen.
  const note = document.getElementById(`${input.id}-note`);
  if (note !== null) note.textContent = '';
}

/** @param {HTMLFormElement} form */
function clearProblems(form) {
  for (const place of form.querySelectorAll('.problem')) place.textContent = '';
  for (const input of inputsOf(form)) clearFieldProblem(input);
}

/** @param {HTMLInputElement} input */
function clearFieldProblem(input) {
  input.removeAttribute('aria-invalid');
  const place = document.getElementById(`${input.id}-error`);
  if (place !== null) place.textContent = '';
}

/**
 * The length of a new password while the user types, the boxes that show a password, the buttons that close a dialog.
 * @param {{ readonly min: number, readonly max: number }} bounds
 */
export function watchInputs(bounds) {
  for (const button of document.querySelectorAll('[data-closes]')) {
    button.addEventListener('click', () => dialog(button.getAttribute('data-closes') ?? '').close());
  }
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  for (const input of document.querySelectorAll('input')) {
    if (input.dataset.shows !== undefined) {
      input.addEventListener('change', () => show(input));
      continue;
    }
    input.addEventListener('input', () => {
      clearFieldProblem(input);
      const note = document.getElementById(`${input.id}-note`);
      if (note === null || input.dataset.counted === undefined) return;
      note.textContent = lengthNote(input.value, bounds);
      clearTimeout(timer);
      timer = setTimeout(() => (element('spoken').textContent = note.textContent), pauseMs);
    });
  }
}

/** @param {HTMLInputElement} box */
function show(box) {
  for (const id of (box.dataset.shows ?? '').split(' ')) input(id).type = box.checked ? 'text' : 'password';
}

/** Code points, as the service counts them. @param {string} typed @param {{ readonly min: number }} bounds */
function lengthNote(typed, { min }) {
  const length = [...typed.replace(/\p{Zs}/gu, ' ').normalize('NFC')].length;
  if (length === 0) return '';
  return length < min ? t('Characters: {length}, at least {min} are required', { length, min }) : t('Characters: {length}', { length });
}
