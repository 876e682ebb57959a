/**
 * The user, and the rules for a login. Both are pure.
 *
 * A login follows PRECIS UsernameCaseMapped (RFC 8265): white space around it is removed, then NFKC, lower case, 1 to
 * 254 code points of letters with their marks, digits and `. _ - @ + '`, the Bidi rule. Its letters are of one script,
 * since Latin and Cyrillic letters look alike, and UTS 39 allows them in identifiers.
 * It does not catch look-alikes within one script, nor a whole word that reads the same in another.
 */

import { acceptedScript, disallowed, rightToLeft, writingSystems } from './login-characters.ts';

/** The public fields, in the order in which they are written. */
export interface User {
  /** Unique for ever: never given to a second user, also not after a removal. */
  readonly id: number;
  readonly login: string;
  /** UTC, ISO 8601 with milliseconds. */
  readonly registered: string;
  /** 1 at registration; one more when the password is changed, sessions are ended, or the account is disabled or enabled. */
  readonly version: number;
  /** When the password was changed last; absent if never. */
  readonly changed?: string;
  /** Since when the account is disabled; absent while it is not. */
  readonly disabled?: string;
  /** The user has no password yet. It follows from the credential, and is not stored. */
  readonly invited?: true;
}

/** How a password is kept: `kdf` says how the hash was made, `password` is `salt$hash`. An invited user has `noPassword`. */
export interface Credential {
  readonly kdf: string;
  readonly password: string;
}

/** The credential of an invited user, whose password is still to be chosen: no password matches it. */
export const noPassword: Credential = { kdf: 'none', password: '' };

/** RFC 5321 bounds an e-mail address to 254 characters. */
export const loginCodePointsMax = 254;
/** 254 code points of UTF-16 with white space around them, decomposed. Nothing longer is normalized. */
const loginUnitsMax = 2048;

const punctuation = "._@+'-";
const asciiLogin = new RegExp(`^[a-z0-9${punctuation}]{1,${loginCodePointsMax}}$`);
const anyLogin = new RegExp(`^(?:\\p{L}\\p{M}*|\\p{Nd}|[${punctuation}])+$`, 'u');
const letterOrDigit = /[\p{L}\p{Nd}]/u;
/** The lookbehind keeps it linear in a run of white space. */
const whiteSpaceAround = /^\p{White_Space}+|(?<!\p{White_Space})\p{White_Space}+$/gu;
const marksMax = 4;
const tooManyMarks = new RegExp(`\\p{M}{${marksMax + 1}}`, 'u');
/** `i` with a second dot reads as `i`. */
const secondDot = /\p{Soft_Dotted}\p{M}*\u0307/u;

/** RFC 5893, section 2, for the characters of a login: rules 1, 2 and 3. Rules 5 and 6 hold since letters are of one script. */
const isRightToLeft = new RegExp(rightToLeft, 'u');
const bidiContent = new RegExp(`^(?=\\p{L})${rightToLeft}(?:${rightToLeft}|[\\p{Mn}\\p{Nd}${punctuation}])*$`, 'u');
const bidiEnd = /[\p{L}\p{Nd}]\p{Mn}*$/u;

/** The public JSON of a user: named fields only, so that nothing else can slip through. */
export function publicUser(user: User & Partial<Credential>): User {
  const { id, login, registered, version, changed, disabled, kdf } = user;
  return {
    id, login, registered, version, ...(changed === undefined ? {} : { changed }), ...(disabled === undefined ? {} : { disabled }),
    ...(kdf === noPassword.kdf ? { invited: true } : {}),
  };
}

export type LoginResult = { readonly login: string } | { readonly problem: string };

/** Makes the canonical login of what was typed, or says which rule it breaks. */
export function parseLogin(input: string): LoginResult {
  if (input.length > loginUnitsMax) return { problem: tooLong };
  if (asciiLogin.test(input) && letterOrDigit.test(input)) return { login: input };
  if (!input.isWellFormed()) return { problem: 'The login holds half a surrogate pair: it is not Unicode text' };
  const login = canonical(input);
  if (login === '') return { problem: `The login is empty: it needs 1 to ${loginCodePointsMax} characters` };
  if ([...login].length > loginCodePointsMax) return { problem: tooLong };
  const problem = asciiLogin.test(login) ? undefined : characterProblem(login);
  if (problem !== undefined) return { problem };
  return letterOrDigit.test(login) ? { login } : { problem: 'The login needs at least one letter or digit' };
}

const tooLong = `The login is longer than ${loginCodePointsMax} characters`;

function characterProblem(login: string): string | undefined {
  if (!anyLogin.test(login)) return "The login may hold letters, digits and . _ - @ + ' only";
  if (tooManyMarks.test(login)) return `The login has more than ${marksMax} marks in a row`;
  const [character = ''] = disallowed.exec(login) ?? [];
  if (character !== '') {
    const isKnown = acceptedScript.test(character);
    const reason = isKnown ? 'Unicode does not recommend in identifiers' : 'belongs to a script that logins cannot use';
    return `The login has the character ${codePoint(character)}, which ${reason}: use another one`;
  }
  if (secondDot.test(login)) return 'The login has a dot on a letter that has one already: leave it out';
  if (canonical(login) !== login) return 'The login has no stable normal form: spell it in another way';
  if (!writingSystems.some((system) => system.test(login))) {
    return 'The login mixes letters of several scripts: use letters of one, since many look alike';
  }
  if (mixesDigits(login)) return 'The login mixes digits of several scripts: use digits of one, since many look alike';
  if (isRightToLeft.test(login) && !(bidiContent.test(login) && bidiEnd.test(login))) {
    return 'The login is written from right to left: it has to begin with a letter, and end with a letter or digit (RFC 5893)';
  }
  return undefined;
}

/** The ten digits of a script have code points that differ in the last hexadecimal digit only. */
function mixesDigits(login: string): boolean {
  return new Set((login.match(/\p{Nd}/gu) ?? []).map((digit) => digit.codePointAt(0)! >> 4)).size > 1;
}

function codePoint(character: string): string {
  return `U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}`;
}

function canonical(text: string): string {
  return text.replace(whiteSpaceAround, '').normalize('NFKC').toLowerCase().normalize('NFKC');
}
