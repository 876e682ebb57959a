/**
 * The rules for a new password; pure. Every path that sets a password calls `checkNewPassword`.
 *
 * NIST SP 800-63B-4: length in code points, nothing cut off, no rules of composition; common passwords, runs, repetitions
 * and passwords made of the login or the service's name are refused, and the answer says which rule was broken.
 * A password that is checked against a hash is only normalized.
 */

export interface PasswordPolicy {
  readonly codePointsMin: number;
  readonly codePointsMax: number;
  /** Common passwords, folded as `fold` does. */
  readonly common: Pick<ReadonlySet<string>, 'has'>;
  /** Names of the service, in lower case. */
  readonly serviceNames?: readonly string[];
}

/** Nothing longer is normalized: 256 code points are at most 512 UTF-16 units, and a few times as many decomposed. */
const unitsMax = 4096;
/** Basic credentials cannot carry these (RFC 7617). */
const control = /\p{Cc}/u;
/** A name with so many characters around it is guessed from the name. */
const charactersAroundNameMax = 4;
/** `abcdefgh` is one run, `1234abcd` and `12344321` are two. */
const runsMin = 3;

/**
 * The text that is hashed, by the OpaqueString profile of RFC 8265: every other space becomes U+0020, then NFC. Undefined
 * if it cannot be a password: it is empty, not Unicode text, or has a NUL. HMAC fills a short key up with NULs, so pbkdf2
 * does not tell a password that ends in NULs from one that does not.
 */
export function normalizePassword(input: string): string | undefined {
  if (input === '' || input.length > unitsMax || input.includes('\0') || !input.isWellFormed()) return undefined;
  return input.replace(/\p{Zs}/gu, ' ').normalize('NFC');
}

export type PasswordResult = { readonly password: string } | { readonly problem: string };

/** Makes the normalized password, or says which rule it breaks. `login` is canonical, if there is one. */
export function checkNewPassword(input: string, login: string | undefined, policy: PasswordPolicy): PasswordResult {
  const { codePointsMin, codePointsMax } = policy;
  if (input.length > unitsMax) return { problem: `The password is longer than ${codePointsMax} characters` };
  if (control.test(input)) return { problem: 'The password holds a control character, such as a tab: leave it out' };
  if (!input.isWellFormed()) return { problem: 'The password holds half a surrogate pair: it is not Unicode text' };
  const password = normalizePassword(input) ?? '';
  const length = [...password].length;
  if (length < codePointsMin) return { problem: `The password has ${length} characters: it needs at least ${codePointsMin}` };
  if (length > codePointsMax) return { problem: `The password has ${length} characters: it may have at most ${codePointsMax}` };
  const problem = guessableProblem(fold(password), login, policy);
  return problem === undefined ? { password } : { problem };
}

/** Capitals, full-width forms and spaces at the ends make a password no better. */
function fold(password: string): string {
  return password.normalize('NFKC').toLowerCase().trim();
}

function guessableProblem(folded: string, login: string | undefined, policy: PasswordPolicy): string | undefined {
  const characters = [...folded];
  if (login !== undefined && [login, login.split('@')[0]!].some((name) => isNearly(folded, name))) {
    return 'The password is little more than the login';
  }
  if (policy.serviceNames?.some((name) => isNearly(folded, name))) return 'The password is little more than the name of this service';
  if (policy.common.has(folded)) return 'The password is on the list of common passwords';
  if (countRuns(characters) < runsMin) return 'The password is a run of characters, such as 12345678 or aaaaaaaa';
  if (periodOf(characters) < policy.codePointsMin) return 'The password repeats a few characters, such as abcabcabc';
  return undefined;
}

function isNearly(folded: string, name: string): boolean {
  return name !== '' && folded.includes(name) && [...folded].length - [...name].length <= charactersAroundNameMax;
}

/** Pieces in which each character is the same step from the one before: one up, one down, or the same. */
function countRuns(characters: readonly string[]): number {
  let runs = 0;
  let stepOfRun: number | undefined;
  for (const [n, character] of characters.entries()) {
    const step = n === 0 ? undefined : stepBetween(characters[n - 1]!, character);
    const isContinued = step !== undefined && (stepOfRun === undefined || step === stepOfRun) && runs > 0;
    if (!isContinued) runs++;
    stepOfRun = isContinued ? step : undefined;
  }
  return runs;
}

function stepBetween(one: string, other: string): number | undefined {
  if (`${one}${other}` === '90' || `${one}${other}` === 'za') return 1;
  if (`${one}${other}` === '09' || `${one}${other}` === 'az') return -1;
  const step = other.codePointAt(0)! - one.codePointAt(0)!;
  return Math.abs(step) <= 1 ? step : undefined;
}

/** The length of the piece that the characters repeat; Infinity if they do not come to two of it. */
function periodOf(characters: readonly string[]): number {
  for (let period = 1; period * 2 <= characters.length; period++) {
    if (characters.every((character, n) => n < period || character === characters[n - period])) return period;
  }
  return Infinity;
}

/** Reads the shipped list: one folded password a line. It stays one string: a search takes microseconds, a set megabytes. */
export function parseCommonPasswords(text: string): Pick<ReadonlySet<string>, 'has'> {
  const lines = `\n${text.trim()}\n`;
  return { has: (folded) => lines.includes(`\n${folded}\n`) };
}
