/**
 * Where secrets that several processes share are kept: the contract, types only. Files have it (`secret-files.ts`),
 * and so may anything else that can compare and set.
 */

export interface SecretStore {
  /** Undefined if there is none. At once where nothing has to be waited for. */
  get(name: string): Promise<string | undefined> | string | undefined;

  /** Durably puts the secret there if there is none, whoever else tries; false if there was one. */
  putIfAbsent(name: string, value: string): Promise<boolean>;

  /** Durably puts another in its place; false if it is no longer what is expected (undefined: none). */
  replace(name: string, expected: string | undefined, value: string): Promise<boolean>;
}
