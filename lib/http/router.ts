/**
 * Finds the route of a method and a path. A pattern is a list of segments, of which `{login}` takes any one that is not
 * empty. A slash at the end makes no difference, an empty segment does. GET also answers HEAD; OPTIONS is answered for
 * every path.
 */

import { RegistrarError } from '../errors.ts';
import { preflightHeaders } from './cors.ts';
import { route } from './route.ts';
import type { Route } from './route.ts';

export interface Match {
  readonly route: Route;
  /** The decoded segment that `{login}` has taken. */
  readonly login: string | undefined;
}

const allMethods = ['DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH', 'POST', 'PUT'] as const;

interface Resource {
  readonly segments: readonly string[];
  readonly routes: Map<string, Route>;
}

export class Router {
  readonly #resources: Resource[] = [];
  /** Those without a parameter, by their path. */
  readonly #fixed = new Map<string, Resource>();

  constructor(routes: readonly Route[]) {
    for (const entry of routes) this.#resource(entry.pattern).routes.set(entry.method, entry);
    for (const { segments, routes: own } of this.#resources) own.set('OPTIONS', optionsRoute(segments.join('/'), allowed(own)));
    this.#fixed.set('*', { segments: ['*'], routes: new Map([['OPTIONS', optionsRoute('*', allMethods)]]) });
  }

  /** Throws `malformed`, `not-found` or `method-not-allowed`. */
  find(method: string, path: string): Match {
    const trimmed = trim(path);
    const fixed = this.#fixed.get(trimmed);
    if (fixed !== undefined) return { route: routeOf(fixed, method), login: undefined };
    const segments = trimmed.split('/');
    if (path.includes('%')) for (let n = 0; n < segments.length; n++) segments[n] = decode(segments[n]!);
    for (const resource of this.#resources) {
      const login = match(resource.segments, segments);
      if (login !== undefined) return { route: routeOf(resource, method), login: login === '' ? undefined : login };
    }
    throw new RegistrarError('not-found', 'There is nothing at this path: users are at /user/');
  }

  #resource(pattern: string): Resource {
    const path = trim(pattern);
    const segments = path.split('/');
    let resource = this.#resources.find((other) => other.segments.join('/') === path);
    if (resource === undefined) {
      resource = { segments, routes: new Map() };
      this.#resources.push(resource);
      if (!path.includes('{')) this.#fixed.set(path, resource);
    }
    return resource;
  }
}

function trim(path: string): string {
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    throw new RegistrarError('malformed', 'The path is not percent-encoded UTF-8');
  }
}

/** What the parameter of the pattern has taken, empty if it has none; undefined if the pattern does not match. */
function match(pattern: readonly string[], segments: readonly string[]): string | undefined {
  if (pattern.length !== segments.length) return undefined;
  let login = '';
  for (let n = 1; n < pattern.length; n++) {
    if (pattern[n] === '{login}') {
      if (segments[n] === '') return undefined;
      login = segments[n]!;
    } else if (pattern[n] !== segments[n]) {
      return undefined;
    }
  }
  return login;
}

function routeOf({ routes }: Resource, method: string): Route {
  const found = routes.get(method) ?? (method === 'HEAD' ? routes.get('GET') : undefined);
  if (found !== undefined) return found;
  const allow = allowed(routes);
  throw new RegistrarError('method-not-allowed', `The method is not one of ${allow.join(', ')}`, { allow });
}

function allowed(routes: ReadonlyMap<string, Route>): string[] {
  return [...new Set([...routes.keys(), ...(routes.has('GET') ? ['HEAD'] : []), 'OPTIONS'])].sort();
}

function optionsRoute(pattern: string, allow: readonly string[]): Route {
  return route({
    method: 'OPTIONS', pattern, action: 'public', query: 'any',
    handle: (_parts, { headers }) => {
      const preflight = headers['access-control-request-method'] === undefined ? undefined : preflightHeaders();
      return { status: 204, headers: { Allow: allow.join(', '), ...preflight } };
    },
  });
}
