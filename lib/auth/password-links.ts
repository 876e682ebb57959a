/**
 * One-time links to choose a password with: an administrator hands them over, so no mail server is needed.
 *
 *   <login, base64url>.<id>.<expires, seconds since 1970>.<HMAC-SHA256 of purpose, id, version and expiry, base64url>
 *
 * Nothing is stored. Every change of the user raises its version and so voids its links, the use of one included. The key of
 * the HMAC is derived by HKDF (RFC 5869) from the current signing key of sessions: rotating or revoking that voids every link.
 * In a link the token is the fragment, which browsers send to no server.
 */

import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { RegistrarError, hasCode } from '../errors.ts';
import type { LimitCheck, Registry, StoredUser } from '../registry.ts';
import type { User } from '../user.ts';
import { isoTime } from './sessions.ts';
import type { SigningKeys } from './signing-keys.ts';

export interface PasswordLinksOptions {
  readonly registry: Registry;
  readonly keys: Pick<SigningKeys, 'current'>;
  /** How long a link is good. */
  readonly seconds: number;
  /** The address of the page; undefined if it is not known. */
  readonly publicUrl: string | undefined;
  readonly now: () => Date;
}

export interface PasswordLink {
  /** Absent where the address of the page is not known. */
  readonly link?: string;
  readonly token: string;
  /** ISO 8601. */
  readonly expires: string;
}

const purpose = 'registrar password link';
const tokenPattern = /^([A-Za-z0-9_-]{1,1400})\.([1-9]\d{0,15})\.([1-9]\d{0,10})\.([A-Za-z0-9_-]{43})$/;

export class PasswordLinks {
  readonly #options: PasswordLinksOptions;
  /** The derived key, and the signing key that it was derived from. */
  #derived: { readonly kid: string; readonly key: Buffer } | undefined;

  constructor(options: PasswordLinksOptions) {
    this.#options = options;
  }

  /** A link for the user as it is now. Throws `conflict` for a disabled account. */
  async issue({ login, id, version, disabled }: User): Promise<PasswordLink> {
    if (disabled !== undefined) throw new RegistrarError('conflict', `The account "${login}" is disabled: enable it first.`);
    const { seconds, publicUrl, now } = this.#options;
    const expires = Math.floor(now().getTime() / 1000) + seconds;
    const mac = await this.#mac(id, version, expires);
    const token = `${Buffer.from(login, 'utf8').toString('base64url')}.${id}.${expires}.${mac}`;
    const link = publicUrl === undefined ? {} : { link: `${publicUrl}/#password=${token}` };
    return { ...link, token, expires: isoTime(expires) };
  }

  /**
   * Sets the password of the user of a token. Throws `invalid-link` for a token that is forged, used, void or expired, and
   * `invalid` for a password that breaks a rule, after which the token is still good.
   */
  async use(token: string, password: string, limitCheck: LimitCheck, signal?: AbortSignal): Promise<User> {
    const { registry } = this.#options;
    const [, encoded = '', id = '', expires = '', mac = ''] = tokenPattern.exec(token) ?? [];
    const login = Buffer.from(encoded, 'base64url').toString('utf8');
    let user: StoredUser | undefined;
    const isValid = await limitCheck(login, async () => {
      user = await registry.getRecord(login).catch((error: unknown) => {
        if (!hasCode(error, 'not-found')) throw error;
        return undefined;
      });
      const expected = await this.#mac(Number(id), user?.version ?? 0, Number(expires));
      const isSame = mac !== '' && timingSafeEqual(Buffer.from(mac), Buffer.from(expected));
      return isSame && user?.id === Number(id) && Number(expires) * 1000 > this.#options.now().getTime();
    });
    const changed = isValid && user !== undefined ? await registry.choosePassword(user, password, signal) : undefined;
    if (changed !== undefined) return changed;
    throw new RegistrarError('invalid-link', 'The link was used, has expired, or is not valid. Ask for a new one.');
  }

  async #mac(id: number, version: number, expires: number): Promise<string> {
    const { kid, privateKey } = await this.#options.keys.current();
    if (this.#derived?.kid !== kid) {
      const secret = privateKey.export({ format: 'der', type: 'pkcs8' });
      this.#derived = { kid, key: Buffer.from(hkdfSync('sha256', secret, '', purpose, 32)) };
    }
    return createHmac('sha256', this.#derived.key).update(JSON.stringify([purpose, id, version, expires])).digest('base64url');
  }
}
