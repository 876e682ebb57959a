/**
 * The keys of session tokens, in one document that the processes of a service share: `signing-keys.json`, a JWK set
 * (RFC 7517). The first key signs, and only it has its private part `d`; the others verify what they have signed, until
 * the last of it has expired. The document is read again at each use that comes a second or more after the last reading,
 * so a key that was removed is void after a second in every process. A document that cannot be read voids every key.
 */

import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { RegistrarError } from '../errors.ts';
import { secretFreshMs } from './secret-store.ts';
import type { SecretStore } from './secret-store.ts';
import type { SigningKey, VerifyingKey } from './token.ts';

export interface SigningKeysOptions {
  readonly secrets: SecretStore;
  readonly now: () => Date;
  readonly report: (line: string) => void;
  /** The longest lifetime of a token: a retired key is kept as long. */
  readonly keepSeconds: number;
}

/** A key as RFC 7518, 6.2 has it. */
interface KeyRecord {
  readonly kty: string;
  readonly crv: string;
  readonly x: string;
  readonly y: string;
  /** The private part, of the current key only. */
  readonly d?: string;
  /** ISO 8601; undefined for the current key. */
  readonly until?: string;
}

interface KnownKey extends VerifyingKey {
  readonly record: KeyRecord;
  /** Milliseconds since 1970. */
  readonly until: number;
}

const documentName = 'signing-keys.json';

/** The age at which the document is read again for an unknown key: another process may have made it a moment ago. */
export const unknownKeyFreshMs = 10;
/** A process signs with the old key until it has read the document again, and clocks differ. */
const graceSeconds = 60;
const triesMax = 100;

export class SigningKeys {
  readonly #options: SigningKeysOptions;
  #text: string | undefined;
  /** Why the document cannot be used. */
  #problem: RegistrarError | undefined;
  #known = new Map<string, KnownKey>();
  #current: SigningKey | undefined;
  #readAt = -Infinity;
  #reading: Promise<void> | undefined;

  private constructor(options: SigningKeysOptions) {
    this.#options = options;
  }

  /** Throws `cannot-start` if there is a document that cannot be used. */
  static async open(options: SigningKeysOptions): Promise<SigningKeys> {
    const keys = new SigningKeys(options);
    await keys.refresh();
    return keys;
  }

  /** Reads the document if the last reading is older than `ms`; a promise where the store has to be waited for. */
  refresh(ms = secretFreshMs): void | Promise<void> {
    if (this.#reading !== undefined) return this.#reading;
    const startedAt = this.#options.now().getTime();
    // The clock may be set back.
    if (Math.abs(startedAt - this.#readAt) < ms && this.#problem === undefined) return undefined;
    const found = this.#options.secrets.get(documentName);
    if (!(found instanceof Promise)) return this.#accept(found, startedAt);
    this.#reading = found.then((text) => this.#accept(text, startedAt)).finally(() => (this.#reading = undefined));
    return this.#reading;
  }

  /** A key that may have signed a token, as it was read last. */
  find(kid: string): VerifyingKey | undefined {
    const key = this.#known.get(kid);
    return key !== undefined && key.until > this.#options.now().getTime() ? key : undefined;
  }

  /** The key to sign with; the first call on a store makes it. */
  async current(): Promise<SigningKey> {
    await this.refresh();
    return this.#current ?? this.#replace(() => []);
  }

  /** The public keys, the current one first: the document of RFC 7517. */
  async jwks(): Promise<{ readonly keys: readonly object[] }> {
    await this.current();
    const now = this.#options.now().getTime();
    const valid = [...this.#known.values()].filter(({ until }) => until > now);
    return { keys: valid.map(({ kid, record: { kty, crv, x, y } }) => ({ kty, crv, x, y, kid, use: 'sig', alg: 'ES256' })) };
  }

  /** Signs with a new key from now on. Tokens of the old one stay good until they expire. */
  rotate(): Promise<SigningKey> {
    const until = (): string => new Date(this.#options.now().getTime() + (this.#options.keepSeconds + graceSeconds) * 1000).toISOString();
    return this.#replace((old) => old.map(({ kty, crv, x, y, until: end = until() }) => ({ kty, crv, x, y, until: end })), true);
  }

  /** Voids every key and every token, also where the document is damaged, and makes a new key. */
  static revoke(options: SigningKeysOptions): Promise<SigningKey> {
    return new SigningKeys(options).#replace(nothing, true);
  }

  /** Puts a new key before what is kept of the old ones, as compare-and-set. Unless `force`, a key that is there stays. */
  async #replace(keep: (old: readonly KeyRecord[]) => readonly KeyRecord[], force = false): Promise<SigningKey> {
    for (let n = 0; n < triesMax; n++) {
      try {
        await this.refresh(0);
      } catch (error) {
        if (keep !== nothing || error !== this.#problem) throw error;
      }
      if (this.#current !== undefined && !force) return this.#current;
      const now = this.#options.now().getTime();
      const old = keep([...this.#known.values()].filter(({ until }) => until > now).map(({ record }) => record));
      const text = `${JSON.stringify({ keys: [generate(), ...old] }, undefined, 2)}\n`;
      if (!(await this.#options.secrets.replace(documentName, this.#text, text))) continue;
      this.#accept(text, this.#options.now().getTime());
      if (this.#current === undefined) break;
      this.#options.report(`Made the signing key ${this.#current.kid} of session tokens.`);
      return this.#current;
    }
    throw new RegistrarError('busy', `Cannot replace the signing key: other processes keep changing "${documentName}". Try again.`);
  }

  #accept(text: string | undefined, at: number): void {
    if (text !== this.#text || this.#problem !== undefined) {
      this.#text = text;
      this.#known = new Map();
      this.#current = undefined;
      this.#problem = undefined;
      try {
        const keys = text === undefined ? [] : parse(text);
        this.#known = new Map(keys.map((key) => [key.kid, key]));
        this.#current = keys.find((key): key is KnownKey & SigningKey => 'privateKey' in key);
      } catch (cause) {
        const remedy = 'Restore it, or run "registrar token --revoke-keys", which ends all sessions.';
        const detail = `Cannot use the signing keys "${documentName}": it is not a JWK set of P-256 keys. ${remedy}`;
        throw (this.#problem = new RegistrarError('cannot-start', detail, { cause }));
      }
    }
    this.#readAt = at;
  }
}

const nothing = (): readonly KeyRecord[] => [];

function generate(): KeyRecord {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' }) as KeyRecord;
}

function parse(text: string): readonly (KnownKey | (KnownKey & SigningKey))[] {
  const { keys } = JSON.parse(text) as { keys: readonly KeyRecord[] };
  return keys.map((record) => {
    const { kty, crv, x, y, until } = record;
    const publicKey = createPublicKey({ key: { kty, crv, x, y }, format: 'jwk' });
    if (publicKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error(`a key is on the curve ${crv}`);
    const kid = createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
    const known = { kid, publicKey, record, until: until === undefined ? Infinity : Date.parse(until) };
    return record.d === undefined ? known : { ...known, privateKey: createPrivateKey({ key: { ...record }, format: 'jwk' }) };
  });
}
