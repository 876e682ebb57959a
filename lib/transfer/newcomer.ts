/**
 * One line of an import: what it says, strictly; pure. What is refused is not repeated: it may be a password.
 *
 *   in clear   {"login":"alice","password":"correct horse battery"}
 *   hashed     {"login":"alice","kdf":"pbkdf2:sha256:600000","password":"9c1f…$5be0…"}
 *   exported   {"id":17,"login":"alice","registered":"…","version":1,"kdf":"…","password":"…"}
 *   foreign    {"login":"alice","password":"pbkdf2_sha256$870000$…$…"}, of a format that is told beside
 *
 * `registered` may stand in each of them.
 */

import { parseObject } from '../json.ts';
import { looksLikeHash, parseForeignHash } from '../password/foreign-hash.ts';
import type { ForeignFormat } from '../password/foreign-hash.ts';
import { credentialProblem, iterationsMax, parseStoredKdf } from '../password/kdf.ts';
import type { StoredKdf } from '../password/kdf.ts';
import { checkNewPassword } from '../password-policy.ts';
import type { PasswordPolicy } from '../password-policy.ts';
import { parseLogin } from '../user.ts';
import type { Credential } from '../user.ts';

interface Common {
  /** Canonical. */
  readonly login: string;
  /** As in a user; undefined if the line does not say. */
  readonly registered: string | undefined;
}

export interface InClear extends Common {
  /** Normalised, and within the policy. */
  readonly clear: string;
}

export interface Hashed extends Common, Credential {
  readonly id?: number;
  readonly version?: number;
  readonly changed?: string;
  readonly key?: string;
}

export type Newcomer = InClear | Hashed;

type Fields = Readonly<Record<string, 'text' | 'number'>>;

const clearFields: Fields = { login: 'text', password: 'text', registered: 'text' };
const hashedFields: Fields = {
  id: 'number', login: 'text', registered: 'text', version: 'number', changed: 'text', kdf: 'text', password: 'text', key: 'text',
};

export interface LineRules {
  readonly from: ForeignFormat | undefined;
  readonly policy: PasswordPolicy;
}

/** Who comes with this line, or the first rule that it breaks. */
export function parseNewcomer(text: string, { from, policy }: LineRules): Newcomer | { readonly problem: string } {
  const object = parseObject(text);
  if ('problem' in object) return { problem: `It ${object.problem}` };
  const value = object.fields;
  if (value.format === 'registrar-users') return { problem: "It is from a users' file: import what registrar export makes of that" };
  const isHashed = from === undefined && Object.hasOwn(value, 'kdf');
  const wrong = shapeProblem(value, isHashed ? hashedFields : clearFields);
  if (wrong !== undefined) return { problem: wrong };
  const { login: given, password, kdf, registered: time, changed: changeTime, id, version, key } = value as Record<string, string> & {
    id?: number; version?: number;
  };
  const parsed = parseLogin(given ?? '');
  if ('problem' in parsed) return parsed;
  const { login } = parsed;
  const registered = time === undefined ? undefined : parseTime(time);
  const changed = changeTime === undefined ? undefined : parseTime(changeTime);
  for (const [name, was, is] of [['registered', time, registered], ['changed', changeTime, changed]] as const) {
    if (was !== undefined && is === undefined) return { problem: `"${name}" is no time as in 2026-11-22T15:00:00.000Z` };
  }
  if (from !== undefined) {
    const foreign = parseForeignHash(from, password ?? '');
    return 'problem' in foreign ? foreign : { login, registered, ...foreign };
  }
  if (kdf === undefined) {
    if (looksLikeHash(password ?? '')) return { problem: 'The password is a hash by the look of it: say whose with --from' };
    const checked = checkNewPassword(password ?? '', login, policy);
    return 'problem' in checked ? checked : { login, registered, clear: checked.password };
  }
  const stored = storedKdf(kdf);
  if (stored === undefined) return { problem: `The kdf is not as in pbkdf2:sha256:600000, with 1 to ${iterationsMax} iterations` };
  const problem = credentialProblem(stored, password ?? '') ?? numbersProblem(id, version) ?? keyProblem(key);
  if (problem !== undefined) return { problem };
  return {
    login, registered, kdf, password: password ?? '',
    ...(id === undefined ? {} : { id }), ...(version === undefined ? {} : { version }),
    ...(changed === undefined ? {} : { changed }), ...(key === undefined ? {} : { key }),
  };
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

/** Most lines name the kdf of the line before. */
let lastKdf: { readonly text: string; readonly kdf: StoredKdf | undefined } = { text: '', kdf: undefined };

function storedKdf(text: string): StoredKdf | undefined {
  if (text !== lastKdf.text) lastKdf = { text, kdf: parseStoredKdf(text) };
  return lastKdf.kdf;
}

function numbersProblem(id: number | undefined, version: number | undefined): string | undefined {
  for (const [name, value] of [['id', id], ['version', version]] as const) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1)) return `"${name}" has to be a whole number from 1 on`;
  }
  return undefined;
}

function keyProblem(key: string | undefined): string | undefined {
  return key === undefined || /^[0-9a-f]{64}$/.test(key) ? undefined : '"key" has to be 64 hex characters';
}

const anyTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)$/;

/** RFC 3339, as others write it, to what is kept: UTC with milliseconds. */
function parseTime(text: string): string | undefined {
  // Of a time that is written as here, on one of the first 28 days, nothing can be wrong.
  if (ownTime.test(text)) return text;
  const ms = text.length <= timeCharactersMax ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(ms)) return undefined;
  const time = new Date(ms).toISOString();
  if (time.length !== '2026-11-22T15:00:00.000Z'.length) return undefined;
  return time === text || anyTime.test(text) ? time : undefined;
}

const timeCharactersMax = 40;
const ownTime = /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z$/;
