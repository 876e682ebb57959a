/**
 * What etcd's gateway answers, read defensively; pure. It leaves out whatever has its default value: `succeeded`
 * when it is false, `kvs` when there are none. Anything of another shape is no answer of etcd's and is thrown as that.
 */

/** One key as it is now. */
export interface Found {
  readonly key: string;
  readonly value: string;
  /** The revision that wrote it last, for `isUnchanged`. */
  readonly revision: string;
  /** The revision that made it. */
  readonly created: string;
}

/** The answer to one operation: what a range found, or the transaction within. */
export interface Response {
  readonly found: readonly Found[];
  readonly succeeded: boolean;
  readonly responses: readonly Response[];
}

export interface TransactionAnswer {
  readonly succeeded: boolean;
  /** Of the cluster after it, which is that of everything it wrote. */
  readonly revision: string;
  readonly responses: readonly Response[];
}

export class StrangeAnswer extends Error {
  override readonly name = 'StrangeAnswer';
}

export function readTransaction(json: unknown): TransactionAnswer {
  const answer = object(json);
  const revision = text(object(answer.header).revision);
  return { succeeded: answer.succeeded === true, revision, responses: list(answer.responses).map(readResponse) };
}

/** The answer to a range for one key. */
export function readOne(json: unknown): Found | undefined {
  return list(object(json).kvs).map(readFound)[0];
}

export function readToken(json: unknown): string {
  return text(object(json).token);
}

/** The names of the alarms that are raised. */
export function readAlarms(json: unknown): string[] {
  return list(object(json).alarms).map((alarm) => text(object(alarm).alarm));
}

/** An error of etcd's: its text, and the gRPC code where it gives one. Some are plain text. */
export function readError(body: string): { readonly text: string; readonly code: number | undefined } {
  try {
    const { error, message, code } = object(JSON.parse(body));
    const said = typeof error === 'string' ? error : typeof message === 'string' ? message : body;
    return { text: said, code: typeof code === 'number' ? code : undefined };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof StrangeAnswer) return { text: body.trim().slice(0, 200), code: undefined };
    throw error;
  }
}

function readResponse(json: unknown): Response {
  const { response_range: ofRange, response_txn: ofTransaction } = object(json);
  if (ofTransaction !== undefined) {
    const { succeeded, responses } = object(ofTransaction);
    return { found: [], succeeded: succeeded === true, responses: list(responses).map(readResponse) };
  }
  const found = ofRange === undefined ? [] : list(object(ofRange).kvs).map(readFound);
  return { found, succeeded: false, responses: [] };
}

function readFound(json: unknown): Found {
  const { key, value, mod_revision: revision, create_revision: created } = object(json);
  const written = value === undefined ? '' : decode(text(value));
  return { key: decode(text(key)), value: written, revision: text(revision), created: text(created) };
}

function decode(base64: string): string {
  return Buffer.from(base64, 'base64').toString('utf8');
}

function object(json: unknown): Readonly<Record<string, unknown>> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new StrangeAnswer('the answer is not what etcd answers');
  return json as Record<string, unknown>;
}

function list(json: unknown): readonly unknown[] {
  if (json === undefined) return [];
  if (!Array.isArray(json)) throw new StrangeAnswer('the answer is not what etcd answers');
  return json;
}

function text(json: unknown): string {
  if (typeof json !== 'string') throw new StrangeAnswer('the answer is not what etcd answers');
  return json;
}
