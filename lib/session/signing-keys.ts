/**
 * The key that signs session tokens, and those that did. It is made when it is first needed, by one of the
 * processes that share the store, and looked at again each second, so that a rotation by another is noticed.
 *
 *   signing-key.pem             the current key, PKCS #8
 *   signing-keys-retired.json   public halves of those before, each until every token that it signed has expired
 *
 * A key that is taken out of both by hand is gone at once, and its tokens with it.
 */

import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { RegistrarError, messageOf } from '../errors.ts';
import type { SecretStore } from './secret-store.ts';
import type { SigningKey, VerifyingKey } from './token.ts';

export interface SigningKeysOptions {
  /** Where the keys are kept. */
  readonly secrets: SecretStore;
  readonly now: () => Date;
  readonly report: (line: string) => void;
  /** The lifetime of a token: so long a retired key is kept. */
  readonly keepSeconds: number;
}

/** A public key as RFC 8037 has it. */
export interface PublicJwk {
  readonly kty: 'OKP';
  readonly crv: 'Ed25519';
  readonly x: string;
  readonly kid: string;
  readonly use: 'sig';
  readonly alg: 'EdDSA';
}

interface Retired extends VerifyingKey {
  readonly x: string;
  /** Milliseconds since 1970. */
  readonly until: number;
}

const currentName = 'signing-key.pem';
const retiredName = 'signing-keys-retired.json';

const freshMs = 1000;
/** A kid that is not known may be a second younger; but nobody makes us read files for every one that they invent. */
const unknownMs = 10;
/** Those who have not noticed a rotation yet go on signing with the old key for a while. */
const graceSeconds = 60;
const triesMax = 100;

export class SigningKeys {
  readonly #options: SigningKeysOptions;
  readonly #secrets: SecretStore;
  #currentText: string | undefined;
  #current: SigningKey | undefined;
  #retiredText: string | undefined;
  #retired = new Map<string, Retired>();
  #lookedAt = -Infinity;
  #problem: string | undefined;
  #making: Promise<SigningKey> | undefined;
  #reading: Promise<void> | undefined;

  private constructor(options: SigningKeysOptions) {
    this.#options = options;
    this.#secrets = options.secrets;
  }

  /** Throws `cannot-start` if there are keys that cannot be used; none at all is fine. */
  static async open(options: SigningKeysOptions): Promise<SigningKeys> {
    const keys = new SigningKeys(options);
    await keys.#read();
    return keys;
  }

  /** The key to sign with. Throws `cannot-start` if it cannot be made. */
  async current(): Promise<SigningKey> {
    await this.#refresh(freshMs);
    return this.#current ?? (this.#making ??= this.#make().finally(() => (this.#making = undefined)));
  }

  /** A key that may have signed a token. Where the store has to be waited for, one that is new is found the next time. */
  find(kid: string): VerifyingKey | undefined {
    void this.#refresh(freshMs);
    const known = this.#find(kid);
    if (known !== undefined) return known;
    void this.#refresh(unknownMs);
    return this.#find(kid);
  }

  /** Resolves when what is being read has been: a key that was not known may be then. Undefined where nothing is. */
  get reading(): Promise<void> | undefined {
    return this.#reading;
  }

  /** The public halves, the current one first: the document of RFC 7517. */
  async jwks(): Promise<{ readonly keys: readonly PublicJwk[] }> {
    const { kid, publicKey } = await this.current();
    const now = this.#options.now().getTime();
    const retired = [...this.#retired.values()].filter((key) => key.until > now && key.kid !== kid);
    return { keys: [{ kid, x: coordinate(publicKey) }, ...retired].map((key) => publicJwk(key.kid, key.x)) };
  }

  /** Signs with a new key from now on, here and, within a second, everywhere. */
  async rotate(): Promise<SigningKey> {
    for (let n = 0; n < triesMax; n++) {
      await this.#read();
      const old = this.#current;
      if (old === undefined) return this.current();
      // First the old one's public half is safe: a crash in between leaves a key that is listed twice.
      if (!(await this.#retire(old))) continue;
      const [key, text] = generate();
      if (!(await this.#secrets.replace(currentName, this.#currentText, text))) continue;
      await this.#read();
      return this.#current ?? key;
    }
    throw new RegistrarError('busy', 'Cannot rotate the signing key: other processes go on changing it; try again');
  }

  #find(kid: string): VerifyingKey | undefined {
    if (this.#current?.kid === kid) return this.#current;
    const retired = this.#retired.get(kid);
    return retired !== undefined && retired.until > this.#options.now().getTime() ? retired : undefined;
  }

  async #make(): Promise<SigningKey> {
    const [key, text] = generate();
    await this.#secrets.putIfAbsent(currentName, text);
    await this.#read();
    if (this.#current === undefined) throw new RegistrarError('unavailable', 'Cannot make a signing key: it is gone as soon as it is made');
    if (this.#current.kid === key.kid) this.#options.report(`made the signing key of session tokens, ${key.kid}`);
    return this.#current;
  }

  async #retire({ kid, publicKey }: SigningKey): Promise<boolean> {
    const now = this.#options.now().getTime();
    const until = now + (this.#options.keepSeconds + graceSeconds) * 1000;
    const others = [...this.#retired.values()].filter((key) => key.until > now && key.kid !== kid);
    const keys = [...others, { kid, x: coordinate(publicKey), until }].map((key) => ({
      kid: key.kid,
      x: key.x,
      until: new Date(key.until).toISOString(),
    }));
    const text = `${JSON.stringify({ keys }, undefined, 2)}\n`;
    return this.#secrets.replace(retiredName, this.#retiredText, text);
  }

  /** Looks again if that is `ms` ago. While keys cannot be read those that could be are used, and it is said once. */
  #refresh(ms: number): void | Promise<void> {
    const now = this.#options.now().getTime();
    // The clock may be set back.
    if (Math.abs(now - this.#lookedAt) < ms) return;
    const say = (error: unknown): void => {
      const problem = messageOf(error);
      if (problem !== this.#problem) this.#options.report(`${problem}; the signing keys stay as they were`);
      this.#problem = problem;
    };
    try {
      const reading = this.#read();
      if (!(reading instanceof Promise)) return undefined;
      const settled = reading.catch(say).finally(() => {
        if (this.#reading === settled) this.#reading = undefined;
      });
      this.#reading = settled;
      return settled;
    } catch (error) {
      say(error);
    }
  }

  #read(): void | Promise<void> {
    this.#lookedAt = this.#options.now().getTime();
    // The current one first: it is among the retired before it is replaced, so it is in one of the two as they are read.
    const current = this.#secrets.get(currentName);
    if (current instanceof Promise) return this.#readSlowly(current);
    const retired = this.#secrets.get(retiredName);
    if (retired instanceof Promise) return retired.then((text) => this.#accept(current, text));
    this.#accept(current, retired);
  }

  async #readSlowly(current: Promise<string | undefined>): Promise<void> {
    const text = await current;
    this.#accept(text, await this.#secrets.get(retiredName));
  }

  #accept(currentText: string | undefined, retiredText: string | undefined): void {
    if (currentText !== this.#currentText) this.#current = currentText === undefined ? undefined : parseKey(currentText);
    this.#currentText = currentText;
    if (retiredText !== this.#retiredText) this.#retired = retiredText === undefined ? new Map() : parseRetired(retiredText);
    this.#retiredText = retiredText;
    this.#problem = undefined;
  }
}

function generate(): [key: SigningKey, text: string] {
  const { privateKey } = generateKeyPairSync('ed25519');
  const text = String(privateKey.export({ type: 'pkcs8', format: 'pem' }));
  return [parseKey(text), text];
}

function parseKey(text: string): SigningKey {
  const problem = `Cannot use the signing key "${currentName}": it is no Ed25519 key in PEM; put it back, or remove it for a new one`;
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(text);
  } catch (cause) {
    throw new RegistrarError('cannot-start', problem, { cause });
  }
  if (privateKey.asymmetricKeyType !== 'ed25519') throw new RegistrarError('cannot-start', problem);
  const publicKey = createPublicKey(privateKey);
  return { kid: thumbprint(coordinate(publicKey)), privateKey, publicKey };
}

function parseRetired(text: string): Map<string, Retired> {
  try {
    const { keys } = JSON.parse(text) as { keys: readonly { x: string; until: string }[] };
    return new Map(
      keys.map(({ x, until }) => {
        const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
        const kid = thumbprint(x);
        return [kid, { kid, x, publicKey, until: Date.parse(until) }];
      }),
    );
  } catch (cause) {
    const what = `Cannot use the retired signing keys "${retiredName}": they are not as they were written`;
    throw new RegistrarError('cannot-start', `${what}; remove the file, which ends the tokens that they signed`, { cause });
  }
}

/** The public key itself, as the `x` of a JWK. */
function coordinate(publicKey: KeyObject): string {
  return String(publicKey.export({ format: 'jwk' }).x);
}

/** RFC 7638, with the members that RFC 8037, 2 names, in their order. */
function thumbprint(x: string): string {
  return createHash('sha256').update(JSON.stringify({ crv: 'Ed25519', kty: 'OKP', x })).digest('base64url');
}

function publicJwk(kid: string, x: string): PublicJwk {
  return { kty: 'OKP', crv: 'Ed25519', x, kid, use: 'sig', alg: 'EdDSA' };
}
