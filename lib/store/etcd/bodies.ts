/**
 * The keys of the store and the bodies of every request to etcd's JSON gateway; pure. etcd ignores a field that it
 * does not know, so that a compare that is spelt wrong becomes "compare with 0": bodies are made here alone, and
 * golden tests pin them. Keys and values are padded base64 there; 64-bit numbers are strings.
 */

export interface Compare {
  readonly key: string;
  readonly target: 'CREATE' | 'MOD' | 'VALUE';
  readonly result: 'EQUAL';
  readonly create_revision?: string;
  readonly mod_revision?: string;
  readonly value?: string;
}

export type Operation =
  | { readonly request_put: { readonly key: string; readonly value: string } }
  | { readonly request_range: { readonly key: string; readonly range_end?: string; readonly limit?: number; readonly keys_only?: true } }
  | { readonly request_delete_range: { readonly key: string } }
  | { readonly request_txn: Transaction };

export interface Transaction {
  readonly compare?: readonly Compare[];
  readonly success: readonly Operation[];
  readonly failure?: readonly Operation[];
}

/** etcd takes no more operations in one transaction (`--max-txn-ops`). */
export const operationsMax = 128;

/** As wide as the largest safe integer, so that ids sort as numbers do. */
const idDigits = 16;

/** Where everything of one store is; the prefix ends in a slash. */
export class Keys {
  readonly prefix: string;

  constructor(prefix: string) {
    this.prefix = prefix;
  }

  /** Says what format all the others are in. */
  get format(): string {
    return `${this.prefix}format`;
  }

  /** The first id that was never given to anybody, then a blank and the mark of who raised it. */
  get counter(): string {
    return `${this.prefix}next-id`;
  }

  /** The whole record. */
  user(login: string): string {
    return `${this.prefix}user/${login}`;
  }

  /** The login of a living user, for lists in the order of ids. */
  id(id: number): string {
    return `${this.prefix}id/${String(id).padStart(idDigits, '0')}`;
  }

  /** All keys that begin so. */
  get kdfs(): string {
    return `${this.prefix}kdf/`;
  }

  get receipts(): string {
    return `${this.prefix}receipt/`;
  }

  secret(name: string): string {
    return `${this.prefix}secret/${name}`;
  }
}

export function base64(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}

/** The key is not there. */
export function isAbsent(key: string): Compare {
  return { key: base64(key), target: 'CREATE', result: 'EQUAL', create_revision: '0' };
}

/** The key was last written at that revision; '0' means that it is not there. */
export function isUnchanged(key: string, revision: string): Compare {
  return { key: base64(key), target: 'MOD', result: 'EQUAL', mod_revision: revision };
}

/** The key is there, with that value. */
export function holds(key: string, value: string): Compare {
  return { key: base64(key), target: 'VALUE', result: 'EQUAL', value: base64(value) };
}

export function put(key: string, value: string): Operation {
  return { request_put: { key: base64(key), value: base64(value) } };
}

export function get(key: string): Operation {
  return { request_range: { key: base64(key) } };
}

/** Keys from `from` up to `to`, which is not among them. It costs etcd as much as there are keys between, whatever the limit. */
export function range(from: string, to: string, limit: number): Operation {
  return { request_range: { key: base64(from), range_end: base64(to), limit } };
}

export function remove(key: string): Operation {
  return { request_delete_range: { key: base64(key) } };
}

export function nested(transaction: Transaction): Operation {
  return { request_txn: transaction };
}

/** The end of the range of all keys that begin with the prefix, which ends in an ASCII character. */
export function endOf(prefix: string): string {
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}

/** For `/v3/kv/txn`. */
export function transactionBody({ compare = [], success, failure = [] }: Transaction): string {
  return JSON.stringify({ compare, success, failure });
}

/** For `/v3/kv/range`. */
export function getBody(key: string): string {
  return `{"key":"${base64(key)}"}`;
}

/** For `/v3/kv/deleterange`: all keys that begin with the prefix. */
export function removePrefixBody(prefix: string): string {
  return JSON.stringify({ key: base64(prefix), range_end: base64(endOf(prefix)) });
}

/** For `/v3/auth/authenticate`. */
export function authenticateBody(user: string, password: string): string {
  return JSON.stringify({ name: user, password });
}

/** For `/v3/maintenance/alarm`. */
export const alarmsBody = '{"action":"GET"}';
