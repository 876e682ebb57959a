/**
 * Session tokens of this service: issues and renews them, and tells whose a token is. A signature is verified once for each token;
 * everything else (key, times, issuer, audience, use) is checked at every use. Whether the user still has the token's
 * version is for the authenticator to check.
 */

import { randomBytes } from 'node:crypto';
import type { Session } from '../access.ts';
import { BoundedMap } from './bounded-map.ts';
import { unknownKeyFreshMs } from './signing-keys.ts';
import type { SigningKeys } from './signing-keys.ts';
import { isCurrent, readToken, signToken } from './token.ts';
import type { Claims, TokenUse, VerifyingKey } from './token.ts';

export interface SessionsOptions {
  readonly keys: SigningKeys;
  /** `iss`; services that share users have to agree on it. */
  readonly issuer: string;
  /** `aud`; another value ends the sessions. */
  readonly audience: string;
  /** The lifetime of a token, for each use. A cookie is renewed while it is used. */
  readonly seconds: Readonly<Record<TokenUse, number>>;
  /** From the sign-in with the password to the end of the last renewed cookie. */
  readonly sessionSecondsMax: number;
  readonly now: () => Date;
}

export interface IssuedToken {
  readonly token: string;
  /** ISO 8601. */
  readonly expires: string;
  /** The same from now. */
  readonly seconds: number;
}

interface VerifiedToken {
  readonly claims: Claims & { readonly kid: string };
  readonly session: Session;
}

/** Some 1 KB each. */
const tokensMax = 10_000;

export class Sessions {
  readonly #options: SessionsOptions;
  /** Claims by the token: the text is the whole of what was verified. */
  readonly #verified = new BoundedMap<VerifiedToken>(tokensMax);

  constructor(options: SessionsOptions) {
    this.#options = options;
  }

  /** A token for a user that has just signed in with the password. */
  issue(user: Pick<Session, 'id' | 'login' | 'version'>, use: TokenUse, isPersistent = false): Promise<IssuedToken> {
    return this.#issue(user, use, isPersistent, this.#seconds());
  }

  /** A later token for the cookie of a session; undefined unless half of its lifetime is over and the session may last longer. */
  renew(session: Session): Promise<IssuedToken> | undefined {
    const { issued, expires, signedIn, isPersistent } = session;
    const now = this.#seconds();
    if (now < (issued + expires) / 2 || this.#expiry('cookie', now, signedIn) <= expires) return undefined;
    return this.#issue(session, 'cookie', isPersistent, signedIn);
  }

  async #issue(
    { id, login, version }: Pick<Session, 'id' | 'login' | 'version'>, use: TokenUse, persistent: boolean, signedIn: number,
  ): Promise<IssuedToken> {
    const { keys, issuer, audience } = this.#options;
    const iat = this.#seconds();
    const exp = this.#expiry(use, iat, signedIn);
    const jti = randomBytes(16).toString('base64url');
    const token = signToken(await keys.current(), {
      iss: issuer, aud: audience, sub: String(id), preferred_username: login, version, iat, exp, auth_time: signedIn, jti, use, persistent,
    });
    return { token, expires: isoTime(exp), seconds: exp - iat };
  }

  #expiry(use: TokenUse, from: number, signedIn: number): number {
    const { seconds, sessionSecondsMax } = this.#options;
    return use === 'cookie' ? Math.min(from + seconds.cookie, signedIn + sessionSecondsMax) : from + seconds.bearer;
  }

  #seconds(): number {
    return Math.floor(this.#options.now().getTime() / 1000);
  }

  /** The session of a good token; undefined for any other. Waits only where the keys have to be read from a cluster. */
  read(token: string, use: TokenUse): Session | undefined | Promise<Session | undefined> {
    const reading = this.#options.keys.refresh();
    return reading === undefined ? this.#check(token, use) : reading.then(() => this.#check(token, use));
  }

  /** The public keys (RFC 7517), so that other services can verify tokens. */
  async jwks(): Promise<string> {
    return JSON.stringify(await this.#options.keys.jwks());
  }

  #check(token: string, use: TokenUse): Session | undefined | Promise<Session | undefined> {
    const { keys } = this.#options;
    const known = this.#verified.get(token);
    if (known !== undefined) {
      return keys.find(known.claims.kid) !== undefined && this.#isCurrent(known.claims, use) ? known.session : undefined;
    }
    let isUnknownKey = false;
    const find = (kid: string): VerifyingKey | undefined => {
      const key = keys.find(kid);
      isUnknownKey = key === undefined;
      return key;
    };
    const session = this.#verify(token, use, find);
    // Another process may have made the key a moment ago.
    if (!isUnknownKey) return session;
    const reading = keys.refresh(unknownKeyFreshMs);
    return reading === undefined ? this.#verify(token, use, find) : reading.then(() => this.#verify(token, use, find));
  }

  #verify(token: string, use: TokenUse, find: (kid: string) => VerifyingKey | undefined): Session | undefined {
    const claims = readToken(token, find);
    if (claims === undefined || !this.#isCurrent(claims, use)) return undefined;
    const { sub, preferred_username: login, version, iat: issued, exp: expires, auth_time: signedIn, persistent: isPersistent } = claims;
    const session = { id: Number(sub), login, version, issued, expires, expiresAt: isoTime(expires), signedIn, isPersistent };
    // A copy: a part of a header would keep the whole header in memory.
    this.#verified.set(Buffer.from(token, 'latin1').toString('latin1'), { claims, session });
    return session;
  }

  #isCurrent(claims: Claims, use: TokenUse): boolean {
    const { issuer, audience, seconds, sessionSecondsMax, now } = this.#options;
    const total = use === 'cookie' ? sessionSecondsMax : seconds.bearer;
    return isCurrent(claims, { issuer, audience, use, secondsMax: seconds[use], sessionSecondsMax: total, now: now() });
  }
}

/** ISO 8601. */
export function isoTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}
