/**
 * The keys of a store, and the requests and responses of etcd's HTTP/JSON gateway; pure.
 *
 * In JSON keys and values are padded base64, 64-bit numbers are strings, and a response omits a field that has its default
 * value. etcd ignores fields that it does not know: a misspelt comparison would compare with 0. So every body is made here,
 * and golden tests pin the bodies. A response of another shape is thrown as UnexpectedResponse.
 */

export type Compare = Readonly<Record<string, string>>;
export type Operation = Readonly<Record<string, object>>;

/** `success` is executed if all comparisons hold, `failure` otherwise. */
export interface Transaction {
  readonly compare?: readonly Compare[];
  readonly success: readonly Operation[];
  readonly failure?: readonly Operation[];
}

/** etcd rejects a transaction with more comparisons or operations, nested ones included (`--max-txn-ops`). */
export const operationsMax = 128;

/** As many digits as the largest safe integer has, so that keys sort as ids do. */
const idDigits = 16;

export type Keys = ReturnType<typeof keysOf>;

/** The keys of one store. The prefix ends in a slash. */
export function keysOf(prefix: string) {
  return {
    /** The format of all other keys. */
    format: `${prefix}format`,
    /** The lowest id that was never assigned, a blank, and a mark of the write. */
    nextId: `${prefix}next-id`,
    /** The record of a user. */
    user: (login: string): string => `${prefix}user/${login}`,
    /** The login of a user, for lists in the order of ids. */
    id: (id: number): string => `${prefix}id/${String(id).padStart(idDigits, '0')}`,
    /** The prefix of the costliest kdf of each algorithm. */
    kdfs: `${prefix}kdf/`,
    /** The prefix of all write tokens. */
    writeTokens: `${prefix}write/`,
    secret: (name: string): string => `${prefix}secret/${name}`,
  };
}

export const isAbsent = (key: string): Compare => ({ ...equal(key, 'CREATE'), create_revision: '0' });
/** The last write of the key has that revision; '0' means that the key does not exist. */
export const isUnchanged = (key: string, revision: string): Compare => ({ ...equal(key, 'MOD'), mod_revision: revision });
export const hasValue = (key: string, value: string): Compare => ({ ...equal(key, 'VALUE'), value: base64(value) });
const equal = (key: string, target: 'CREATE' | 'MOD' | 'VALUE') => ({ key: base64(key), target, result: 'EQUAL' });

export const get = (key: string): Operation => ({ request_range: { key: base64(key) } });
export const put = (key: string, value: string): Operation => ({ request_put: { key: base64(key), value: base64(value) } });
export const remove = (key: string): Operation => ({ request_delete_range: { key: base64(key) } });
/** Keys in [from, to). etcd visits every key in the range, whatever the limit. */
export const range = (from: string, to: string, limit: number): Operation => ({ request_range: { ...interval(from, to), limit } });
/** All keys with the prefix. */
export const rangeOf = (prefix: string, limit: number): Operation => range(prefix, endOf(prefix), limit);
export const removeAll = (prefix: string): Operation => ({ request_delete_range: interval(prefix, endOf(prefix)) });
const interval = (from: string, to: string) => ({ key: base64(from), range_end: base64(to) });
export const nested = (transaction: Transaction): Operation => ({ request_txn: transaction });

export interface KeyValue {
  readonly key: string;
  readonly value: string;
  /** Of the last write, for `isUnchanged`. */
  readonly revision: string;
}

export interface TransactionResult {
  readonly succeeded: boolean;
  /** Of the cluster after the transaction: that of each key that it wrote. */
  readonly revision: string;
  /** For each operation the keys that it read. */
  readonly found: readonly (readonly KeyValue[])[];
}

export class UnexpectedResponse extends Error {
  override readonly name = 'UnexpectedResponse';
  override readonly message = 'the response is not one of etcd';
}

export interface EtcdRequest<T> {
  readonly path: string;
  readonly body: string;
  /** Reads the JSON of a response. Throws UnexpectedResponse. */
  readonly read: (json: unknown) => T;
}

export function transactionRequest({ compare = [], success, failure = [] }: Transaction): EtcdRequest<TransactionResult> {
  return { path: '/v3/kv/txn', body: JSON.stringify({ compare, success, failure }), read: readTransaction };
}

/** The response is the token. */
export function authenticationRequest(name: string, password: string): EtcdRequest<string> {
  return { path: '/v3/auth/authenticate', body: JSON.stringify({ name, password }), read: (json) => text(object(json).token) };
}

/** The response is the names of the active alarms. */
export const alarmsRequest: EtcdRequest<readonly string[]> = {
  path: '/v3/maintenance/alarm',
  body: '{"action":"GET"}',
  read: (json) => list(object(json).alarms).map((alarm) => text(object(alarm).alarm)),
};

/** The message in the body of an error, which is JSON or plain text. */
export function readErrorMessage(body: string): string {
  try {
    const { error, message } = object(JSON.parse(body));
    return typeof error === 'string' ? error : typeof message === 'string' ? message : body;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof UnexpectedResponse) return body.trim().slice(0, 200);
    throw error;
  }
}

function readTransaction(json: unknown): TransactionResult {
  const { header, succeeded, responses } = object(json);
  return { succeeded: succeeded === true, revision: text(object(header).revision), found: list(responses).map(readFound) };
}

function readFound(json: unknown): readonly KeyValue[] {
  const { response_range: ofRange = {} } = object(json);
  return list(object(ofRange).kvs).map(toKeyValue);
}

function toKeyValue(json: unknown): KeyValue {
  const { key, value = '', mod_revision: revision } = object(json);
  return { key: decoded(text(key)), value: decoded(text(value)), revision: text(revision) };
}

function base64(decodedText: string): string {
  return Buffer.from(decodedText, 'utf8').toString('base64');
}

function decoded(base64Text: string): string {
  return Buffer.from(base64Text, 'base64').toString('utf8');
}

/** The end of the range of keys with the prefix, which ends in an ASCII character. */
function endOf(prefix: string): string {
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}

function object(json: unknown): Readonly<Record<string, unknown>> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new UnexpectedResponse();
  return json as Record<string, unknown>;
}

function list(json: unknown): readonly unknown[] {
  if (json === undefined) return [];
  if (!Array.isArray(json)) throw new UnexpectedResponse();
  return json;
}

function text(json: unknown): string {
  if (typeof json !== 'string') throw new UnexpectedResponse();
  return json;
}
