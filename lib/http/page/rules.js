/**
 * What the service will say of a login and a password, said while they are typed. The service alone decides: what this
 * finds is shown and never keeps anybody from sending, and the list of common passwords it cannot know.
 */

/** @typedef {{ readonly text: string, readonly values?: Readonly<Record<string, string | number>> }} Finding */

const codePointsMax = 64;
const allowed = /^(?:\p{L}\p{M}*|\p{Nd}|[._@+-])+$/u;
const letterOrDigit = /[\p{L}\p{Nd}]/u;

/** The scripts that are written together are one system; see `lib/user.ts`, whose list is longer. */
const systems = [
  ['Latin'], ['Cyrillic'], ['Greek'], ['Arabic'], ['Armenian'], ['Devanagari'], ['Georgian'], ['Hebrew'], ['Thai'],
  ['Han', 'Hiragana', 'Katakana'], ['Han', 'Hangul'], ['Han', 'Bopomofo'],
].map((scripts) => new RegExp(`[${scripts.map((script) => `\\p{Script_Extensions=${script}}`).join('')}]`, 'gu'));

/**
 * @param {string} typed
 * @returns {Finding | undefined} the rule that is broken, in the service's own words
 */
export function loginProblem(typed) {
  const login = canonicalLogin(typed);
  if (login === '') return { text: 'The login is empty: it needs 1 to 64 characters' };
  if ([...login].length > codePointsMax) return { text: `The login is longer than ${codePointsMax} characters` };
  if (!allowed.test(login)) return { text: 'The login may hold letters, digits and . _ - @ + only' };
  if (!letterOrDigit.test(login)) return { text: 'The login needs at least one letter or digit' };
  if (mixesScripts(login)) return { text: 'The login mixes letters of several scripts: use letters of one, since many look alike' };
  return undefined;
}

/**
 * @param {string} typed
 * @returns {string} what the service makes of it
 */
export function canonicalLogin(typed) {
  return typed.normalize('NFKC').toLowerCase().normalize('NFKC');
}

/** @param {string} login */
function mixesScripts(login) {
  const letters = login.match(/\p{L}/gu) ?? [];
  // Of a letter whose script is not listed nothing is said; the service knows those too.
  if (!letters.every((letter) => systems.some((system) => letter.match(system)))) return false;
  return !systems.some((system) => letters.every((letter) => letter.match(system)));
}

/**
 * Code points, as the service counts them.
 * @param {string} typed
 */
export function passwordLength(typed) {
  return [...typed.normalize('NFC')].length;
}

/**
 * @param {string} typed
 * @param {string} login
 * @param {{ readonly min: number, readonly max: number }} bounds
 * @returns {Finding | undefined}
 */
export function passwordProblem(typed, login, { min, max }) {
  const length = passwordLength(typed);
  if (length < min) return { text: 'The password has {length} characters: it needs at least {min}', values: { length, min } };
  if (length > max) return { text: 'The password has {length} characters: it may have at most {max}', values: { length, max } };
  if (/\p{Cc}/u.test(typed)) return { text: 'The password holds a control character, such as a tab: leave it out' };
  const isLogin = login !== '' && typed.normalize('NFKC').toLowerCase() === canonicalLogin(login);
  return isLogin ? { text: 'The password is the login' } : undefined;
}
