/** Session tokens as the service issues and reads them: keys, lifetime and issuer in one place, and few signatures checked twice. */

import { SigningKeys } from './signing-keys.ts';
import type { SigningKeysOptions } from './signing-keys.ts';
import { signToken, verifyToken } from './token.ts';
import type { Claims } from './token.ts';
import { VerifiedTokens } from './verified-tokens.ts';

export interface SessionsOptions extends Omit<SigningKeysOptions, 'keepSeconds'> {
  /** What others know the service as, `iss`; services that share users have to agree on it. */
  readonly issuer: string | undefined;
  /** How long a token is good. */
  readonly seconds: number;
}

interface Session extends Signed {
  readonly expires: string;
}

interface Signed {
  readonly id: number;
  readonly login: string;
  readonly version: number;
}

/** Where no public URL is configured. RFC 7519 takes any text without a colon. */
const issuerDefault = 'registrar';
const rememberedMax = 10_000;

export class Sessions {
  readonly #keys: SigningKeys;
  readonly #issuer: string;
  readonly #seconds: number;
  readonly #now: () => Date;
  readonly #verified: VerifiedTokens;

  private constructor(keys: SigningKeys, { issuer = issuerDefault, seconds, now }: SessionsOptions) {
    this.#keys = keys;
    this.#issuer = issuer;
    this.#seconds = seconds;
    this.#now = now;
    this.#verified = new VerifiedTokens({ entriesMax: rememberedMax, now });
  }

  /** Throws `cannot-start` if there are keys that cannot be used. */
  static async open(options: SessionsOptions): Promise<Sessions> {
    return new Sessions(await SigningKeys.open({ ...options, keepSeconds: options.seconds }), options);
  }

  /** A token for the user as it is now. `expires` is ISO 8601, `seconds` the same from now. */
  async issue({ id, login, version }: Signed): Promise<{ token: string; expires: string; seconds: number }> {
    const iat = Math.floor(this.#now().getTime() / 1000);
    const exp = iat + this.#seconds;
    const claims = { iss: this.#issuer, sub: String(id), preferred_username: login, version, iat, exp };
    const token = signToken(await this.#keys.current(), claims);
    return { token, expires: isoTime(exp), seconds: this.#seconds };
  }

  /**
   * Whom a good token was issued to; whether the user is still the same is not looked at. At once, but where a key that
   * another service has made is yet to be read.
   */
  read(token: string): Session | undefined | Promise<Session | undefined> {
    const claims = this.#claims(token);
    if (claims !== undefined) return session(claims);
    return this.#keys.reading?.then(() => {
      const found = this.#claims(token);
      return found && session(found);
    });
  }

  #claims(token: string): Claims | undefined {
    const known = this.#verified.get(token);
    if (known !== undefined) return known;
    const claims = verifyToken(token, this.#keys, { now: this.#now(), issuer: this.#issuer });
    if (claims !== undefined) this.#verified.remember(token, claims);
    return claims;
  }

  /** The public keys (RFC 7517), for others to verify tokens with. */
  async jwks(): Promise<string> {
    return JSON.stringify(await this.#keys.jwks());
  }
}

function session({ sub, preferred_username, version, exp }: Claims): Session {
  return { id: Number(sub), login: preferred_username, version, expires: isoTime(exp) };
}

function isoTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}
