/** Wiring: the rules for new passwords that a configuration means, with the list that is shipped. For the service and the commands. */

import { readFileSync } from 'node:fs';
import type { Config } from './config.ts';
import { formatKdf, weakness } from './password/kdf.ts';
import type { Kdf } from './password/kdf.ts';
import { parseCommonPasswords } from './password-policy.ts';
import type { PasswordPolicy } from './password-policy.ts';

export function openPolicy(config: Pick<Config, 'passwordCodePointsMin' | 'passwordCodePointsMax'>): PasswordPolicy {
  return {
    codePointsMin: config.passwordCodePointsMin,
    codePointsMax: config.passwordCodePointsMax,
    common: parseCommonPasswords(readFileSync(new URL('./password/common-passwords.txt', import.meta.url), 'utf8')),
  };
}

/** Says so where hashes are to be made cheaper than OWASP advises. */
export function reportWeakness(kdf: Kdf, report: (line: string) => void): void {
  const advised = weakness(kdf);
  if (advised === undefined) return;
  report(`WARNING: --kdf ${formatKdf(kdf)} makes passwords cheap to guess: OWASP advises ${advised} iterations or more`);
}
