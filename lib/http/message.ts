/** A request as a route sees it, and the reply that a route makes; types only. */

import type { IncomingHttpHeaders } from 'node:http';
import type { Principal } from '../access.ts';
import type { Visit } from './gate.ts';

export interface Call {
  readonly params: Readonly<Record<string, string>>;
  /** The query as it stands behind the `?`. */
  readonly query: string;
  readonly headers: IncomingHttpHeaders;
  /** Who asks, and may. */
  readonly principal: Principal;
  readonly visit: Visit;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
  /** Reads the whole body as an object with exactly these fields, or throws what `body.ts` does. */
  readonly readFields: <Name extends string>(fields: FieldTable<Name>) => Promise<FieldValues<Name>>;
}

/** The fields that a body has: text that is required or optional, or an optional flag, which is read as 'true' or is not there. */
export type FieldTable<Name extends string> = Readonly<Record<Name, 'required' | 'optional' | 'flag'>>;
export type FieldValues<Name extends string> = Readonly<Partial<Record<Name, string>>>;

export interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Text or bytes are sent with their length; a stream in chunks, as fast as the client reads. */
  readonly body?: string | Buffer | AsyncIterable<Buffer>;
}

export type Route = (call: Call) => Promise<Reply> | Reply;
