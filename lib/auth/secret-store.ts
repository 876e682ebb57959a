/** Where the processes of a service keep the secrets that they share: a contract with two implementations, files and etcd. */

/** Every process notices a changed secret within this time, at the first use after it. */
export const secretFreshMs = 1000;

export interface SecretStore {
  /** Undefined if there is none. A promise where the store has to be waited for. */
  get(name: string): string | undefined | Promise<string | undefined>;

  /** Durably replaces the secret; false if it is no longer the expected one. Undefined stands for no secret. */
  replace(name: string, expected: string | undefined, value: string): Promise<boolean>;
}
