/**
 * One line of an import, read strictly; pure. What is refused is not repeated: it may be a password.
 *
 *   plaintext  {"login":"alice","password":"correct horse battery"}
 *   hashed     {"login":"alice","kdf":"pbkdf2:sha256:600000","password":"9c1f…$5be0…"}
 *   exported   {"id":17,"login":"alice","registered":"…","version":1,"kdf":"…","password":"…"}
 *   invited    {"login":"alice","kdf":"none","password":""}
 *   foreign    {"login":"alice","password":"pbkdf2_sha256$870000$…$…"}, of the format that `from` names
 *
 * `registered` and `disabled` may stand in each of them.
 */

import { parseObject } from '../json.ts';
import { costFactorMax } from '../password/equalize-cost.ts';
import { looksLikeHash, parseForeignHash } from '../password/foreign-hash.ts';
import type { ForeignFormat } from '../password/foreign-hash.ts';
import { costOf, credentialProblem, iterationsMax, parseStoredKdf } from '../password/kdf.ts';
import type { StoredKdf } from '../password/kdf.ts';
import { checkNewPassword } from '../password-policy.ts';
import type { PasswordPolicy } from '../password-policy.ts';
import { noPassword, parseLogin } from '../user.ts';
import type { Credential } from '../user.ts';

interface Common {
  /** Canonical. */
  readonly login: string;
  /** As in a user; absent if the line does not say. */
  readonly registered?: string;
  readonly disabled?: string;
}

export interface PlaintextUser extends Common {
  /** Normalized, and within the policy. */
  readonly plaintext: string;
}

export interface HashedUser extends Common, Credential {
  readonly id?: number;
  readonly version?: number;
  readonly changed?: string;
  readonly key?: string;
}

export type ImportLine = PlaintextUser | HashedUser;

export interface LineRules {
  readonly from: ForeignFormat | undefined;
  readonly policy: PasswordPolicy;
  /** The kdf of the service. */
  readonly kdf: string;
  /** Whether a hash may cost more than `costFactorMax` times one of the service. */
  readonly isCostlyAllowed: boolean;
}

type Fields = Readonly<Record<string, 'text' | 'number'>>;

const plainFields: Fields = { login: 'text', password: 'text', registered: 'text', disabled: 'text' };
const hashedFields: Fields = {
  id: 'number', login: 'text', registered: 'text', version: 'number', changed: 'text', disabled: 'text', kdf: 'text', password: 'text',
  key: 'text',
};

/** Every change raises the version: one from elsewhere must not be the last that there is. */
const versionMax = 2 ** 47;

/** The user of this line, or the first rule that it breaks. */
export function parseImportLine(text: string, rules: LineRules): ImportLine | { readonly problem: string } {
  const object = parseObject(text);
  if ('problem' in object) return { problem: `It ${object.problem}` };
  const value = object.fields;
  if (value.format === 'registrar-users') return { problem: 'It is from a users file: import what registrar export makes of that' };
  const isHashed = rules.from === undefined && Object.hasOwn(value, 'kdf');
  const problem = shapeProblem(value, isHashed ? hashedFields : plainFields);
  if (problem !== undefined) return { problem };
  const raw = value as RawLine;
  const parsed = parseLogin(raw.login ?? '');
  if ('problem' in parsed) return parsed;
  const registered = parseTime(raw.registered);
  const disabled = parseTime(raw.disabled);
  const changed = parseTime(raw.changed);
  const wrong = timeProblem('registered', raw.registered, registered) ?? timeProblem('disabled', raw.disabled, disabled) ??
    timeProblem('changed', raw.changed, changed);
  if (wrong !== undefined) return { problem: wrong };
  const { login } = parsed;
  if (!isHashed) return unhashedUser({ login, registered, disabled }, raw.password ?? '', rules);
  const { id, version, kdf = '', password = '', key } = raw;
  const broken = hashProblem(kdf, password) ?? costProblem(kdf, rules) ?? numberProblem('id', id, Number.MAX_SAFE_INTEGER) ??
    numberProblem('version', version, versionMax) ?? keyProblem(key);
  // A field that the line does not have is undefined: objects of one shape are made several times as fast.
  return broken === undefined ? { id, login, registered, version, changed, disabled, kdf, password, key } : { problem: broken };
}

interface RawLine {
  readonly login?: string;
  readonly registered?: string;
  readonly disabled?: string;
  readonly password?: string;
  readonly kdf?: string;
  readonly changed?: string;
  readonly key?: string;
  readonly id?: number;
  readonly version?: number;
}

function unhashedUser(common: Common, password: string, rules: LineRules): ImportLine | { readonly problem: string } {
  if (rules.from === undefined) {
    if (looksLikeHash(password)) return { problem: 'The password looks like a hash: name its format with --from' };
    const checked = checkNewPassword(password, common.login, rules.policy);
    return 'problem' in checked ? checked : { ...common, plaintext: checked.password };
  }
  const foreign = parseForeignHash(rules.from, password);
  if ('problem' in foreign) return foreign;
  const problem = costProblem(foreign.kdf, rules);
  return problem === undefined ? { ...common, ...foreign } : { problem };
}

function shapeProblem(value: Record<string, unknown>, fields: Fields): string | undefined {
  for (const name of ['login', 'password']) if (!Object.hasOwn(value, name)) return `"${name}" is missing`;
  for (const name of Object.keys(value)) {
    const kind = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (kind === undefined) {
      // The name is not repeated either.
      return `It has an unknown field: it may have ${Object.keys(fields).map((known) => `"${known}"`).join(', ')}`;
    }
    if (kind === 'text' && typeof value[name] !== 'string') return `"${name}" has to be text`;
    if (kind === 'number' && typeof value[name] !== 'number') return `"${name}" has to be a number`;
  }
  return undefined;
}

function hashProblem(kdf: string, password: string): string | undefined {
  if (kdf === noPassword.kdf) return password === noPassword.password ? undefined : 'An invited user has "kdf":"none" and "password":""';
  const stored = storedKdf(kdf);
  if (stored !== undefined) return credentialProblem(stored, password);
  return `The kdf is not as in pbkdf2:sha256:600000, with 1 to ${iterationsMax} iterations, or scrypt:32768:8:1`;
}

/** Most lines name the kdf of the line before. */
let lastKdf: { readonly text: string; readonly kdf: StoredKdf | undefined } = { text: '', kdf: undefined };

function storedKdf(text: string): StoredKdf | undefined {
  if (text !== lastKdf.text) lastKdf = { text, kdf: parseStoredKdf(text) };
  return lastKdf.kdf;
}

/** How many hashes of the service one of this kdf costs. */
export function costFactor(kdf: string, own: string): number {
  const [stored, service] = [storedKdf(kdf), parseStoredKdf(own)];
  return stored === undefined || service === undefined ? 0 : costOf(stored) / costOf(service);
}

function costProblem(kdf: string, { kdf: own, isCostlyAllowed }: LineRules): string | undefined {
  const factor = kdf === own || isCostlyAllowed ? 0 : costFactor(kdf, own);
  if (factor <= costFactorMax) return undefined;
  return `The hash costs ${factor.toFixed(1)} times one of the service (${own}): above ${costFactorMax} times it needs --allow-costly`;
}

function numberProblem(name: string, value: number | undefined, max: number): string | undefined {
  if (value === undefined || (Number.isSafeInteger(value) && value >= 1 && value <= max)) return undefined;
  return `"${name}" has to be a whole number from 1 to ${max}`;
}

function keyProblem(key: string | undefined): string | undefined {
  return key === undefined || /^[0-9a-f]{64}$/.test(key) ? undefined : '"key" has to be 64 hex characters';
}

function timeProblem(name: string, text: string | undefined, time: string | undefined): string | undefined {
  return text === undefined || time !== undefined ? undefined : `"${name}" is no time as in 2026-11-22T15:00:00.000Z`;
}

const anyTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)$/;

/** RFC 3339, as others write it, to what is stored: UTC with milliseconds. */
function parseTime(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  // A time in the stored form, on one of the first 28 days, is always valid.
  if (ownTime.test(text)) return text;
  const ms = text.length <= timeCharactersMax ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(ms)) return undefined;
  const time = new Date(ms).toISOString();
  if (time.length !== '2026-11-22T15:00:00.000Z'.length) return undefined;
  return time === text || anyTime.test(text) ? time : undefined;
}

const timeCharactersMax = 40;
const ownTime = /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z$/;
