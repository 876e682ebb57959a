/**
 * The store and the hasher of a dry run: it reads the real store, and keeps in memory what the run would add, some 400 bytes
 * a user. Nothing is hashed: a plaintext password stands for its hash.
 */

import type { Credential } from '../user.ts';
import type { StoredUser, UserStore } from '../user-store.ts';

export interface ImportHasher {
  /** Of new hashes. */
  readonly kdf: string;
  hash(password: string, signal?: AbortSignal): Promise<Credential>;
  verify(password: string, credential: Credential, options: { readonly signal?: AbortSignal }): Promise<boolean>;
}

/** Where users are imported to. */
export interface ImportTarget {
  readonly store: Pick<UserStore, 'findRecord' | 'createMany'>;
  readonly hasher: ImportHasher;
}

const plaintextKdf = 'plaintext';
/** Users of the real store have lower ids. */
const id = Number.MAX_SAFE_INTEGER;

export function dryRun({ store, hasher }: ImportTarget): ImportTarget {
  const added = new Map<string, StoredUser>();
  const findRecord: UserStore['findRecord'] = async (login) => added.get(login) ?? store.findRecord(login);
  return {
    store: {
      findRecord,
      createMany: async (users) => {
        const owners = await Promise.all(users.map(({ login }) => findRecord(login)));
        return users.map((user, n) => {
          const owner = owners[n] ?? added.get(user.login);
          if (owner !== undefined) return { created: false, user: owner };
          const created = { ...user, id, version: user.version ?? 1 };
          added.set(user.login, created);
          return { created: true, user: created };
        });
      },
    },
    hasher: dryHasher(hasher),
  };
}

function dryHasher(hasher: ImportHasher): ImportHasher {
  return {
    kdf: hasher.kdf,
    hash: async (password) => ({ kdf: plaintextKdf, password }),
    verify: async (password, credential, options) =>
      credential.kdf === plaintextKdf ? credential.password === password : hasher.verify(password, credential, options),
  };
}
