/**
 * The user, and the rules for a login. Both are pure.
 *
 * A login follows PRECIS UsernameCaseMapped (RFC 8265) in spirit: NFKC, lower case, then 1 to 64 code
 * points of letters with their marks, digits and `. _ - @ +`. Its letters are of one script, since
 * Latin and Cyrillic letters look alike (UTS 39); Japanese and Korean mix scripts as they are written.
 * It does not catch look-alikes within one script, nor a whole word that reads the same in another.
 */

/** What anybody allowed to see the user may see, in the order in which it is written. */
export interface User {
  /** Unique for ever: never given to a second user, also not after a removal. */
  readonly id: number;
  readonly login: string;
  /** UTC, ISO 8601 with milliseconds. */
  readonly registered: string;
  /** 1 at registration, one more with each change of password. */
  readonly version: number;
  /** When the password was changed last; absent if never. */
  readonly changed?: string;
}

/** How a password is kept: `kdf` says how the hash was made, `password` is `salt$hash`. */
export interface Credential {
  readonly kdf: string;
  readonly password: string;
}

export const loginCodePointsMax = 64;
/** NFKC can make one character eighteen; nothing longer than this is looked at. */
const loginUnitsMax = 512;

/** The scripts of UTS 31 table 5, and the combinations that UTS 39 takes for one writing system. */
const writingSystems: readonly RegExp[] = [
  ['Latin'], ['Cyrillic'], ['Greek'], ['Arabic'], ['Armenian'], ['Bengali'], ['Devanagari'], ['Ethiopic'],
  ['Georgian'], ['Gujarati'], ['Gurmukhi'], ['Hebrew'], ['Kannada'], ['Khmer'], ['Lao'], ['Malayalam'],
  ['Myanmar'], ['Oriya'], ['Sinhala'], ['Tamil'], ['Telugu'], ['Thaana'], ['Thai'], ['Tibetan'],
  ['Han', 'Hiragana', 'Katakana'], ['Han', 'Hangul'], ['Han', 'Bopomofo'],
].map((scripts) => {
  const members = scripts.map((script) => `\\p{Script_Extensions=${script}}`).join('');
  return new RegExp(`^[${members}\\p{Script_Extensions=Common}\\p{Script_Extensions=Inherited}]*$`, 'u');
});

const asciiLogin = /^[a-z0-9._@+-]{1,64}$/;
const anyLogin = /^(?:\p{L}\p{M}*|\p{Nd}|[._@+-])+$/u;
/** What cannot be seen, and what only stretches or repeats the letter before it (RFC 5892, 2.6). */
const unfit = /[\p{Default_Ignorable_Code_Point}\u0640\u07fa\u302e\u302f\u3031-\u3035\u303b]/u;
/** The letter takes the dot for its own: `i` with a second dot reads as `i`. */
const secondDot = /\p{Soft_Dotted}\p{M}*\u0307/u;
const letterOrDigit = /[\p{L}\p{Nd}]/u;

/** The public JSON of a user: named fields only, so that nothing else can slip through. */
export function publicUser(user: User): User {
  const { id, login, registered, version, changed } = user;
  return changed === undefined
    ? { id, login, registered, version }
    : { id, login, registered, version, changed };
}

export type LoginResult = { readonly login: string } | { readonly problem: string };

/** Makes the canonical login of what somebody typed, or says which rule it breaks. */
export function parseLogin(input: string): LoginResult {
  if (input.length > loginUnitsMax) return { problem: tooLong };
  if (asciiLogin.test(input) && letterOrDigit.test(input)) return { login: input };
  if (!input.isWellFormed()) return { problem: 'The login holds half a surrogate pair: it is not Unicode text' };
  const login = canonical(input);
  if (asciiLogin.test(login)) {
    return letterOrDigit.test(login) ? { login } : { problem: noLetter };
  }
  if (login === '') return { problem: 'The login is empty: it needs 1 to 64 characters' };
  if ([...login].length > loginCodePointsMax) return { problem: tooLong };
  if (!anyLogin.test(login) || unfit.test(login) || secondDot.test(login)) return { problem: badCharacter };
  if (!letterOrDigit.test(login)) return { problem: noLetter };
  if (canonical(login) !== login) return { problem: 'The login has no stable normal form: spell it in another way' };
  if (!writingSystems.some((system) => system.test(login))) {
    return { problem: 'The login mixes letters of several scripts: use letters of one, since many look alike' };
  }
  return { login };
}

const tooLong = `The login is longer than ${loginCodePointsMax} characters`;
const badCharacter = 'The login may hold letters, digits and . _ - @ + only';
const noLetter = 'The login needs at least one letter or digit';

function canonical(text: string): string {
  return text.normalize('NFKC').toLowerCase().normalize('NFKC');
}
