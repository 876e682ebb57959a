/**
 * A route: what is served, which action it is to `access.ts`, what it takes, how it is described, and the function that
 * answers. Routing, authorization, the readers of body and query and the OpenAPI document are all driven by this table.
 */

import type { Action } from '../access.ts';
import type { Authenticator } from '../auth/authenticator.ts';
import type { RequestContext } from '../auth/request-context.ts';
import type { PasswordLinks } from '../auth/password-links.ts';
import type { Sessions } from '../auth/sessions.ts';
import type { ErrorCode } from '../errors.ts';
import type { Registry } from '../registry.ts';
import type { HeaderName, SchemaName } from './openapi-schemas.ts';

export interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Text or bytes are sent with their length; a stream in chunks, as fast as the client reads. */
  readonly body?: string | Buffer | AsyncIterable<Buffer>;
}

/** What routes record in the audit log. */
export type RouteEvent =
  | 'registered' | 'invited' | 'signed-in' | 'password-changed' | 'link-issued' | 'link-used' | 'disabled' | 'enabled'
  | 'sessions-ended' | 'removed';

/** What routes call. The table itself is constant, so that it can be described without a running service. */
export interface RouteParts {
  readonly registry: Registry;
  readonly sessions: Sessions;
  readonly links: PasswordLinks;
  readonly authenticator: Pick<Authenticator, 'registration' | 'attempt' | 'signIn'>;
  /** The path of the public URL, as in `/accounts`; empty at the root. A proxy strips it from requests. */
  readonly prefix: string;
  /** Why the service is not ready; undefined if it is. */
  readonly unhealthyReason: () => string | undefined;
  /** Records an event of this request, about the user with that id. */
  readonly audit: (event: RouteEvent, context: RequestContext, target: number) => void;
  /** In Prometheus' text format 0.0.4. */
  readonly metrics: () => string;
}

/** The fields of a JSON body: text that is required or optional, or an optional boolean. */
export type FieldTable = Readonly<Record<string, 'required' | 'optional' | 'boolean'>>;
export type FieldValues<Fields extends FieldTable> = {
  readonly [Name in keyof Fields]: Fields[Name] extends 'required' ? string
    : (Fields[Name] extends 'boolean' ? boolean : string) | undefined;
};
export type QueryName = 'limit' | 'after';
export type QueryValues<Query extends QueryName = QueryName> = Readonly<Partial<Record<Query, string>>>;

/** A response as the OpenAPI document describes it. */
export interface ResponseDescription {
  readonly is: string;
  /** By media type; none for an empty body. */
  readonly content?: Readonly<Record<string, SchemaName | 'text' | 'object'>>;
  readonly headers?: readonly HeaderName[];
}

/** What the OpenAPI document says of a route. */
export interface RouteDescription {
  readonly id: string;
  readonly tag: 'users' | 'sessions' | 'service';
  readonly summary: string;
  readonly description: string;
  /** The name of the schema that is made from the fields. */
  readonly body?: string;
  readonly headers?: readonly ('Idempotency-Key' | 'If-Match' | 'If-None-Match')[];
  readonly responses: Readonly<Record<number, ResponseDescription>>;
  /** Besides those that follow from the rest of the route. */
  readonly errors?: readonly ErrorCode[];
}

interface RouteOf<Fields extends FieldTable, Query extends QueryName> {
  readonly method: 'DELETE' | 'GET' | 'PATCH' | 'POST' | 'PUT' | 'OPTIONS';
  /** As in `/user/{login}`. */
  readonly pattern: string;
  readonly action: Action;
  /** Without them the body is read and ignored. */
  readonly fields?: Fields;
  /** The parameters that are known; any other is refused, unless `any` is ignored. */
  readonly query?: readonly Query[] | 'any';
  /** Undefined for the files of the page. */
  readonly describe?: RouteDescription;
  /** Called when the request has arrived completely, is valid, and its principal may do this. */
  readonly handle: (
    parts: RouteParts, context: RequestContext, body: FieldValues<Fields>, query: QueryValues<Query>,
  ) => Promise<Reply> | Reply;
}

/** A route of any fields and query: the handler passes it what its own table has read. */
export interface Route extends Omit<RouteOf<FieldTable, QueryName>, 'handle'> {
  readonly handle: (parts: RouteParts, context: RequestContext, body: never, query: QueryValues) => Promise<Reply> | Reply;
}

export function route<const Fields extends FieldTable = Record<never, never>, const Query extends QueryName = never>(
  definition: RouteOf<Fields, Query>,
): Route {
  return definition;
}

export function json(status: number, value: unknown, headers?: Readonly<Record<string, string>>): Reply {
  return { status, headers: { 'Content-Type': 'application/json', ...headers }, body: `${JSON.stringify(value)}\n` };
}
