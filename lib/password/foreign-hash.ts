/**
 * Password hashes as other programs write them; pure. Those of pbkdf2 with SHA-256, SHA-384 or SHA-512 can be kept as
 * they are, so that users who come from there sign in with the passwords that they have.
 *
 *   werkzeug  pbkdf2:sha256:600000$salt$hex                   Flask; the salt is text
 *   django    pbkdf2_sha256$870000$salt$base64                the salt is text
 *   phc       $pbkdf2-sha256$i=29000,l=32$base64$base64       no padding; the salt is bytes
 *   passlib   $pbkdf2-sha256$29000$base64$base64              the same with `.` for `+`
 *
 * Nothing of a text that is refused is repeated: where somebody mistook the field it is a password.
 */

import type { Credential } from '../user.ts';
import { digestBytes, foreignCredential, iterationsMax, parseKdf, saltBytesMax } from './kdf.ts';

export const foreignFormats = ['werkzeug', 'django', 'phc', 'passlib'] as const;
export type ForeignFormat = (typeof foreignFormats)[number];

export type ForeignHash = Credential | { readonly problem: string };

/** What the text has, not looked into yet. */
interface Parts {
  readonly digest: string;
  readonly iterations: string;
  readonly salt: Buffer | undefined;
  readonly hash: Buffer | undefined;
  /** How long the text says that the hash is. */
  readonly bytes?: string | undefined;
}

const readers: Readonly<Record<ForeignFormat, (text: string) => Parts | undefined>> = {
  werkzeug: (text) => {
    const [, digest = '', iterations = '', salt = '', hash = ''] = /^pbkdf2:(sha\d+):(\d+)\$([^$]*)\$([^$]*)$/.exec(text) ?? [];
    return digest === '' ? undefined : { digest, iterations, salt: Buffer.from(salt), hash: fromHex(hash) };
  },
  django: (text) => {
    const [, digest = '', iterations = '', salt = '', hash = ''] = /^pbkdf2_(sha\d+)\$(\d+)\$([^$]*)\$([^$]*)$/.exec(text) ?? [];
    return digest === '' ? undefined : { digest, iterations, salt: Buffer.from(salt), hash: fromBase64(hash, true) };
  },
  phc: (text) => {
    const [, digest = '', parameters = '', salt = '', hash = ''] = /^\$pbkdf2-(sha\d+)\$([^$]*)\$([^$]*)\$([^$]*)$/.exec(text) ?? [];
    const [, iterations, bytes] = /^i=(\d+)(?:,l=(\d+))?$/.exec(parameters) ?? [];
    if (digest === '' || iterations === undefined) return undefined;
    return { digest, iterations, bytes, salt: fromBase64(salt, false), hash: fromBase64(hash, false) };
  },
  passlib: (text) => {
    const [, digest = '', iterations = '', salt = '', hash = ''] = /^\$pbkdf2-(sha\d+)\$(\d+)\$([^$+]*)\$([^$+]*)$/.exec(text) ?? [];
    if (digest === '') return undefined;
    return { digest, iterations, salt: fromAdapted(salt), hash: fromAdapted(hash) };
  },
};

const examples: Readonly<Record<ForeignFormat, string>> = {
  werkzeug: 'pbkdf2:sha256:600000$…$…',
  django: 'pbkdf2_sha256$870000$…$…',
  phc: '$pbkdf2-sha256$i=29000,l=32$…$…',
  passlib: '$pbkdf2-sha256$29000$…$…',
};

/** The other ways in which these programs make hashes, by how those begin. */
const others: readonly (readonly [start: RegExp, name: string])[] = [
  [/^scrypt[:$]|^\$scrypt\$/, 'scrypt'],
  [/^\$2[abxy]?\$|^bcrypt(?:_sha256)?\$|^\$bcrypt/, 'bcrypt'],
  [/^argon2\$|^\$argon2/, 'argon2'],
  [/^pbkdf2:sha1[:$]|^pbkdf2_sha1\$|^\$pbkdf2\$|^\$pbkdf2-sha1\$/, 'pbkdf2 with SHA-1'],
];

/** Whether the text is a hash by the look of it, of whatever kind. */
export function looksLikeHash(text: string): boolean {
  return /^\$?pbkdf2[:_$-]/.test(text) || others.some(([start]) => start.test(text));
}

/** The hash as it can be kept, or which rule it breaks. */
export function parseForeignHash(format: ForeignFormat, text: string): ForeignHash {
  const other = others.find(([start]) => start.test(text));
  const only = 'pbkdf2 with sha256, sha384 or sha512 alone can be kept';
  if (other !== undefined) return { problem: `The hash was made by ${other[1]}: ${only}` };
  const parts = readers[format](text);
  if (parts === undefined) return { problem: `The hash is not as ${format} writes it: ${examples[format]}` };
  const { digest, iterations, salt, hash, bytes } = parts;
  if (digestOf(digest) === undefined) return { problem: `The hash was made with another digest: ${only}` };
  const kdf = parseKdf(`pbkdf2:${digest}:${iterations}`);
  if (kdf === undefined) return { problem: `The hash does not have 1 to ${iterationsMax} iterations` };
  if (salt === undefined || hash === undefined) return { problem: `The salt or the hash is not encoded as ${format} does it` };
  if (salt.length === 0) return { problem: 'The salt is empty' };
  if (salt.length > saltBytesMax) return { problem: `The salt is longer than ${saltBytesMax} bytes` };
  const whole = digestBytes[kdf.digest];
  if (hash.length !== whole) return { problem: `The hash has ${hash.length} bytes: one by ${kdf.digest} has ${whole}` };
  if (bytes !== undefined && Number(bytes) !== whole) {
    return { problem: `The hash has ${whole} bytes, and says that it has another length` };
  }
  return foreignCredential(kdf, salt, hash);
}

function digestOf(text: string): number | undefined {
  return Object.hasOwn(digestBytes, text) ? digestBytes[text as keyof typeof digestBytes] : undefined;
}

function fromHex(text: string): Buffer | undefined {
  return /^(?:[0-9a-f]{2})*$/i.test(text) ? Buffer.from(text, 'hex') : undefined;
}

/** Only what encodes to the same again: anything else was cut off or changed. */
function fromBase64(text: string, isPadded: boolean): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64');
  const again = bytes.toString('base64');
  return text === (isPadded ? again : again.replace(/=+$/, '')) ? bytes : undefined;
}

function fromAdapted(text: string): Buffer | undefined {
  return fromBase64(text.replaceAll('.', '+'), false);
}
