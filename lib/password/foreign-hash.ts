/**
 * Password hashes as other programs write them; pure. Those of pbkdf2 with SHA-256, SHA-384 or SHA-512, and of scrypt, can be
 * kept as they are, so that their users sign in with the passwords that they have.
 *
 *   werkzeug  pbkdf2:sha256:600000$salt$hex                   scrypt:32768:8:1$salt$hex             the salt is text
 *   django    pbkdf2_sha256$870000$salt$base64                scrypt$16384$salt$8$1$base64          the salt is text
 *   phc       $pbkdf2-sha256$i=29000,l=32$base64$base64       $scrypt$ln=16,r=8,p=1$base64$base64   no padding; the salt is bytes
 *   passlib   $pbkdf2-sha256$29000$base64$base64              as phc                                with `.` for `+` in pbkdf2
 *
 * Nothing of a text that is refused is repeated: it may be a password in the wrong field.
 */

import type { Credential } from '../user.ts';
import { foreignCredential, iterationsMax, lengthProblem, parseStoredKdf, saltBytesMax } from './kdf.ts';

export const foreignFormats = ['werkzeug', 'django', 'phc', 'passlib'] as const;
export type ForeignFormat = (typeof foreignFormats)[number];

export type ForeignHash = Credential | { readonly problem: string };

/** What the text says, not judged yet. */
interface Parts {
  /** As it would be stored. */
  readonly kdf: string;
  readonly salt: Buffer | undefined;
  readonly hash: Buffer | undefined;
  /** The length that the text gives for the hash. */
  readonly bytes?: string;
}

type Reader = readonly [pattern: RegExp, read: (groups: Readonly<Record<string, string>>) => Parts];

const phcScrypt: Reader = [
  /^\$scrypt\$ln=(?<ln>[1-9]\d?),r=(?<r>\d+),p=(?<p>\d+)\$(?<salt>[^$]*)\$(?<hash>[^$]*)$/,
  ({ ln = '', r, p, salt = '', hash = '' }) =>
    ({ kdf: `scrypt:${2 ** Number(ln)}:${r}:${p}`, salt: fromBase64(salt, false), hash: fromBase64(hash, false) }),
];

const readers: Readonly<Record<ForeignFormat, readonly Reader[]>> = {
  werkzeug: [[
    /^(?<kdf>pbkdf2:sha\d+:\d+|scrypt:\d+:\d+:\d+)\$(?<salt>[^$]*)\$(?<hash>[^$]*)$/,
    ({ kdf = '', salt = '', hash = '' }) => ({ kdf, salt: Buffer.from(salt), hash: fromHex(hash) }),
  ]],
  django: [
    [
      /^pbkdf2_(?<digest>sha\d+)\$(?<iterations>\d+)\$(?<salt>[^$]*)\$(?<hash>[^$]*)$/,
      ({ digest, iterations, salt = '', hash = '' }) =>
        ({ kdf: `pbkdf2:${digest}:${iterations}`, salt: Buffer.from(salt), hash: fromBase64(hash, true) }),
    ],
    [
      /^scrypt\$(?<n>\d+)\$(?<salt>[^$]*)\$(?<r>\d+)\$(?<p>\d+)\$(?<hash>[^$]*)$/,
      ({ n, r, p, salt = '', hash = '' }) => ({ kdf: `scrypt:${n}:${r}:${p}`, salt: Buffer.from(salt), hash: fromBase64(hash, true) }),
    ],
  ],
  phc: [
    phcScrypt,
    [
      /^\$pbkdf2-(?<digest>sha\d+)\$i=(?<iterations>\d+)(?:,l=(?<bytes>\d+))?\$(?<salt>[^$]*)\$(?<hash>[^$]*)$/,
      ({ digest, iterations, bytes, salt = '', hash = '' }) =>
        ({ kdf: `pbkdf2:${digest}:${iterations}`, bytes, salt: fromBase64(salt, false), hash: fromBase64(hash, false) }),
    ],
  ],
  passlib: [
    phcScrypt,
    [
      /^\$pbkdf2-(?<digest>sha\d+)\$(?<iterations>\d+)\$(?<salt>[^$+]*)\$(?<hash>[^$+]*)$/,
      ({ digest, iterations, salt = '', hash = '' }) =>
        ({ kdf: `pbkdf2:${digest}:${iterations}`, salt: fromAdapted(salt), hash: fromAdapted(hash) }),
    ],
  ],
};

const examples: Readonly<Record<ForeignFormat, string>> = {
  werkzeug: 'scrypt:32768:8:1$…$… or pbkdf2:sha256:600000$…$…',
  django: 'pbkdf2_sha256$870000$…$… or scrypt$16384$…$8$1$…',
  phc: '$pbkdf2-sha256$i=29000,l=32$…$… or $scrypt$ln=16,r=8,p=1$…$…',
  passlib: '$pbkdf2-sha256$29000$…$… or $scrypt$ln=16,r=8,p=1$…$…',
};

/** The other algorithms that these programs use, by how their hashes begin. */
const others: readonly (readonly [start: RegExp, name: string])[] = [
  [/^\$2[abxy]?\$|^bcrypt(?:_sha256)?\$|^\$bcrypt/, 'bcrypt'],
  [/^argon2\$|^\$argon2/, 'argon2'],
  [/^pbkdf2:sha1[:$]|^pbkdf2_sha1\$|^\$pbkdf2\$|^\$pbkdf2-sha1\$/, 'pbkdf2 with SHA-1'],
];

/** Whether the text looks like a hash, of whatever algorithm. */
export function looksLikeHash(text: string): boolean {
  return /^\$?pbkdf2[:_$-]|^scrypt[:$]|^\$scrypt\$/.test(text) || others.some(([start]) => start.test(text));
}

/** The hash as it can be kept, or which rule it breaks. */
export function parseForeignHash(format: ForeignFormat, text: string): ForeignHash {
  const only = 'only scrypt and pbkdf2 with sha256, sha384 or sha512 can be kept';
  const other = others.find(([start]) => start.test(text));
  if (other !== undefined) return { problem: `The hash was made by ${other[1]}: ${only}` };
  const parts = read(format, text);
  if (parts === undefined) return { problem: `The hash is not as ${format} writes it: ${examples[format]}` };
  const { kdf: kdfText, salt, hash, bytes } = parts;
  const kdf = parseStoredKdf(kdfText);
  if (kdf === undefined) return { problem: kdfProblem(kdfText, only) };
  if (salt === undefined || hash === undefined) return { problem: `The salt or the hash is not encoded as ${format} does it` };
  if (salt.length === 0) return { problem: 'The salt is empty' };
  if (salt.length > saltBytesMax) return { problem: `The salt is longer than ${saltBytesMax} bytes` };
  if (bytes !== undefined && Number(bytes) !== hash.length) {
    return { problem: `The hash has ${hash.length} bytes, and says that it has another length` };
  }
  const problem = lengthProblem(hash.length);
  return problem === undefined ? foreignCredential(kdf, salt, hash) : { problem };
}

function read(format: ForeignFormat, text: string): Parts | undefined {
  for (const [pattern, parts] of readers[format]) {
    const { groups } = pattern.exec(text) ?? {};
    if (groups !== undefined) return parts(groups);
  }
  return undefined;
}

function kdfProblem(kdf: string, only: string): string {
  if (kdf.startsWith('scrypt')) return 'The parameters of scrypt are not valid, or need more than 128 MB or 2 s';
  if (/^pbkdf2:sha(?:256|384|512):/.test(kdf)) return `The hash does not have 1 to ${iterationsMax} iterations`;
  return `The hash was made with another digest: ${only}`;
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
