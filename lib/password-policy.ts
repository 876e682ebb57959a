/**
 * The rules for a new password; pure. There is one function and every path that sets a password calls it.
 * NIST SP 800-63B-4: length in code points, never cut, no rules of composition, a list of common ones,
 * and the answer says which rule was broken. Checking a password against a hash applies none of them.
 */

export interface PasswordPolicy {
  readonly codePointsMin: number;
  readonly codePointsMax: number;
  /** Passwords that nobody may choose, in lower case. */
  readonly common: ReadonlySet<string>;
}

/** A longer one than this is not even normalised: 256 code points are at most 512 UTF-16 units. */
const unitsMax = 4096;
/** Basic credentials cannot carry these (RFC 7617). */
const control = /\p{Cc}/u;

/**
 * The bytes' text that is hashed: NFC (RFC 8265 OpaqueString). Undefined if the input is no Unicode
 * text, for then it cannot have been registered either; or if it holds a NUL: HMAC, and pbkdf2 with it, fills short
 * keys up with NULs, so that a password with some behind it has the same hash as without.
 */
export function normalizePassword(input: string): string | undefined {
  if (input.length > unitsMax || input.includes('\0') || !input.isWellFormed()) return undefined;
  return input.normalize('NFC');
}

export type PasswordResult = { readonly password: string } | { readonly problem: string };

/** Makes the normalised password, or says which rule it breaks. `login` is canonical, if there is one. */
export function checkNewPassword(input: string, login: string | undefined, policy: PasswordPolicy): PasswordResult {
  if (input.length > unitsMax) return { problem: `The password is longer than ${policy.codePointsMax} characters` };
  if (control.test(input)) {
    return { problem: 'The password holds a control character, such as a tab: leave it out' };
  }
  const password = normalizePassword(input);
  if (password === undefined) return { problem: 'The password holds half a surrogate pair: it is not Unicode text' };
  const length = [...password].length;
  if (length < policy.codePointsMin) {
    return { problem: `The password has ${length} characters: it needs at least ${policy.codePointsMin}` };
  }
  if (length > policy.codePointsMax) {
    return { problem: `The password has ${length} characters: it may have at most ${policy.codePointsMax}` };
  }
  const folded = password.normalize('NFKC').toLowerCase();
  if (login !== undefined && folded === login) return { problem: 'The password is the login' };
  if (policy.common.has(folded)) return { problem: 'The password is on the list of common passwords' };
  return { password };
}

/** Reads the shipped list: one password a line. */
export function parseCommonPasswords(text: string): ReadonlySet<string> {
  return new Set(text.split('\n').filter((line) => line !== '').map((line) => line.toLowerCase()));
}
