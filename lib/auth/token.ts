/**
 * Session tokens: compact JWTs (RFC 7519, 7515), signed with ES256 (RFC 7518), which every JOSE library verifies. Pure.
 *
 *   {"alg":"ES256","typ":"JWT","kid":"…"}.{"iss","aud","sub","preferred_username","version","iat","exp",…}.signature
 *
 * Only the output of `signToken` is read: no other algorithm, no other header, no second spelling of the same bytes.
 * `readToken` checks the signature, which never changes; `isCurrent` checks what changes with time and configuration.
 */

import { sign, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

export interface VerifyingKey {
  /** The thumbprint of RFC 7638. */
  readonly kid: string;
  readonly publicKey: KeyObject;
}

export interface SigningKey extends VerifyingKey {
  readonly privateKey: KeyObject;
}

/** A token is accepted only from where it was issued for: the cookie, or the header Authorization. */
export type TokenUse = 'cookie' | 'bearer';

export interface Claims {
  readonly iss: string;
  readonly aud: string;
  /** The id of the user. */
  readonly sub: string;
  readonly preferred_username: string;
  /** The user's version at sign-in. Another version ends the token. */
  readonly version: number;
  /** Times are in seconds since 1970. */
  readonly iat: number;
  readonly exp: number;
  readonly nbf?: number;
  /** The sign-in with the password; a renewed token keeps it. */
  readonly auth_time: number;
  readonly jti: string;
  readonly use: TokenUse;
  /** Whether the cookie outlives the browser's session. */
  readonly persistent: boolean;
}

export interface TokenRules {
  readonly issuer: string;
  readonly audience: string;
  readonly use: TokenUse;
  /** The longest time from `iat` to `exp`, and from the sign-in to `exp`. */
  readonly secondsMax: number;
  readonly sessionSecondsMax: number;
  readonly now: Date;
}

/** A browser takes no longer cookie. A login of 254 characters of four bytes needs 1,400. */
const lengthMax = 4096;
/** The clocks of a cluster differ. */
const clockSkewSecondsMax = 60;

export function signToken({ kid, privateKey }: SigningKey, claims: Claims): string {
  const signed = `${encode({ alg: 'ES256', typ: 'JWT', kid })}.${encode(claims)}`;
  const signature = sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  return `${signed}.${signature.toString('base64url')}`;
}

/** The claims of a token with a good signature and its key's id; undefined for anything else. */
export function readToken(token: string, find: (kid: string) => VerifyingKey | undefined): (Claims & { readonly kid: string }) | undefined {
  if (token.length > lengthMax) return undefined;
  const parts = token.split('.').map(decode);
  const [header, payload, signature] = parts;
  if (parts.length !== 3 || header === undefined || payload === undefined || signature === undefined) return undefined;
  const kid = readHeader(header);
  const key = kid === undefined ? undefined : find(kid);
  if (kid === undefined || key === undefined) return undefined;
  const signed = Buffer.from(token.slice(0, token.lastIndexOf('.')));
  if (!verify('sha256', signed, { key: key.publicKey, dsaEncoding: 'ieee-p1363' }, signature)) return undefined;
  const claims = readClaims(payload);
  return claims && { ...claims, kid };
}

/** Whether the claims are good now, here, and for this use. */
export function isCurrent({ iss, aud, use, iat, exp, nbf = iat, auth_time }: Claims, rules: TokenRules): boolean {
  const now = rules.now.getTime() / 1000;
  const isInTime = exp > now && exp - iat <= rules.secondsMax && exp - auth_time <= rules.sessionSecondsMax;
  return iss === rules.issuer && aud === rules.audience && use === rules.use && isInTime &&
    Math.max(iat, nbf, auth_time) <= now + clockSkewSecondsMax;
}

function readHeader(bytes: Buffer): string | undefined {
  const header = parseObject(bytes);
  // Exactly these three: `crit`, `jwk`, `jku`, `x5c`, `b64` would choose how the token is verified (RFC 8725).
  if (header === undefined || Object.keys(header).length !== 3) return undefined;
  const { alg, typ, kid } = header;
  return alg === 'ES256' && typ === 'JWT' && typeof kid === 'string' ? kid : undefined;
}

function readClaims(bytes: Buffer): Claims | undefined {
  const { iss, aud, sub, preferred_username, version, iat, exp, nbf, auth_time, jti, use, persistent } = parseObject(bytes) ?? {};
  if (typeof iss !== 'string' || typeof aud !== 'string' || typeof jti !== 'string') return undefined;
  if (typeof preferred_username !== 'string') return undefined;
  if (typeof sub !== 'string' || !/^[1-9][0-9]{0,15}$/.test(sub) || typeof persistent !== 'boolean') return undefined;
  if (!isCount(version) || !isCount(iat) || !isCount(exp) || !isCount(auth_time) || !(nbf === undefined || isCount(nbf))) return undefined;
  if (use !== 'cookie' && use !== 'bearer') return undefined;
  return { iss, aud, sub, preferred_username, version, iat, exp, nbf, auth_time, jti, use, persistent };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 1;
}

function parseObject(bytes: Buffer): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined;
    throw error;
  }
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

/** Undefined unless it is the one spelling of these bytes: Node also reads padding, line breaks and stray bits. */
function decode(part: string): Buffer | undefined {
  const bytes = Buffer.from(part, 'base64url');
  return bytes.toString('base64url') === part ? bytes : undefined;
}
