/**
 * Session tokens: compact JWTs (RFC 7519, 7515) signed by Ed25519 (RFC 8037). Pure.
 *
 *   {"alg":"EdDSA","typ":"JWT","kid":"…"}.{"iss","sub","preferred_username","version","iat","exp"}.signature
 *
 * Only what `signToken` makes is read: no other algorithm, no other header, no second spelling of the same bytes.
 * Whether the version is still the user's is not asked here.
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

export interface Claims {
  readonly iss: string;
  /** The user's id. */
  readonly sub: string;
  readonly preferred_username: string;
  /** The user's version when it was signed: another one ends the token. */
  readonly version: number;
  /** Seconds since 1970. */
  readonly iat: number;
  readonly exp: number;
}

/** A login of 64 characters of four bytes and a long issuer take less than half of it. */
const lengthMax = 2048;
/** Machines of a cluster have clocks of their own. */
const clockSkewSecondsMax = 60;
const signatureBytes = 64;

export function signToken(key: SigningKey, claims: Claims): string {
  const { iss, sub, preferred_username, version, iat, exp } = claims;
  const header = encode(JSON.stringify({ alg: 'EdDSA', typ: 'JWT', kid: key.kid }));
  const payload = encode(JSON.stringify({ iss, sub, preferred_username, version, iat, exp }));
  const signature = sign(null, Buffer.from(`${header}.${payload}`), key.privateKey);
  return `${header}.${payload}.${signature.toString('base64url')}`;
}

/** The claims of a token that is ours, of this issuer and not expired; else undefined, whatever is wrong. */
export function verifyToken(
  token: string,
  keys: { find(kid: string): VerifyingKey | undefined },
  { now, issuer }: { readonly now: Date; readonly issuer: string },
): Claims | undefined {
  if (token.length > lengthMax) return undefined;
  const parts = token.split('.').map(decode);
  const [header, payload, signature] = parts;
  if (parts.length !== 3 || header === undefined || payload === undefined || signature?.length !== signatureBytes) return undefined;
  const kid = readHeader(header);
  const key = kid === undefined ? undefined : keys.find(kid);
  if (key === undefined) return undefined;
  if (!verify(null, Buffer.from(token.slice(0, token.lastIndexOf('.'))), key.publicKey, signature)) return undefined;
  const claims = readClaims(payload);
  if (claims === undefined || claims.iss !== issuer) return undefined;
  const seconds = now.getTime() / 1000;
  return claims.exp > seconds && claims.iat <= seconds + clockSkewSecondsMax && claims.exp > claims.iat ? claims : undefined;
}

function readHeader(bytes: Buffer): string | undefined {
  const header = parseObject(bytes);
  // Exactly these three: with `crit`, `jwk`, `jku`, `x5c`, `b64` a header says how it wants to be checked (RFC 8725).
  if (header === undefined || Object.keys(header).length !== 3) return undefined;
  const { alg, typ, kid } = header;
  return alg === 'EdDSA' && typ === 'JWT' && typeof kid === 'string' ? kid : undefined;
}

function readClaims(bytes: Buffer): Claims | undefined {
  const claims = parseObject(bytes);
  if (claims === undefined) return undefined;
  const { iss, sub, preferred_username, version, iat, exp } = claims;
  if (typeof iss !== 'string' || typeof sub !== 'string' || !/^[1-9][0-9]{0,15}$/.test(sub)) return undefined;
  if (typeof preferred_username !== 'string' || !isCount(version) || !isCount(iat) || !isCount(exp)) return undefined;
  return { iss, sub, preferred_username, version, iat, exp };
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

function encode(text: string): string {
  return Buffer.from(text).toString('base64url');
}

/** Undefined unless it is the one way to write these bytes: Node reads padding, line breaks and stray bits too. */
function decode(part: string): Buffer | undefined {
  const bytes = Buffer.from(part, 'base64url');
  return bytes.toString('base64url') === part ? bytes : undefined;
}
