/**
 * Finds the route of a path; it imports nothing. A pattern is a list of segments, of which `{name}` takes
 * any one. The table is short and is searched from top to bottom. A slash at the end makes no difference,
 * an empty segment does.
 */

export interface Match<Handler> {
  readonly handler: Handler;
  readonly params: Readonly<Record<string, string>>;
}

export type Lookup<Handler> =
  | { readonly found: 'route'; readonly match: Match<Handler> }
  /** The path is there, the method is not. */
  | { readonly found: 'path'; readonly allow: readonly string[] }
  | { readonly found: 'nothing' };

interface Resource<Handler> {
  readonly segments: readonly string[];
  readonly handlers: Map<string, Handler>;
}

export class Router<Handler> {
  readonly #resources: Resource<Handler>[] = [];

  /** @param pattern as in `/user/{login}` */
  add(method: string, pattern: string, handler: Handler): void {
    const segments = split(pattern);
    const key = segments.join('/');
    let resource = this.#resources.find((other) => other.segments.join('/') === key);
    if (resource === undefined) {
      resource = { segments, handlers: new Map() };
      this.#resources.push(resource);
    }
    resource.handlers.set(method, handler);
  }

  /** Throws a URIError if the path's percent-encoding is not that of UTF-8 text. */
  find(method: string, path: string): Lookup<Handler> {
    const segments = split(path);
    if (path.includes('%')) for (let n = 0; n < segments.length; n++) segments[n] = decodeURIComponent(segments[n]!);
    for (const { segments: pattern, handlers } of this.#resources) {
      const params = matchSegments(pattern, segments);
      if (params === undefined) continue;
      const handler = handlers.get(method) ?? (method === 'HEAD' ? handlers.get('GET') : undefined);
      if (handler !== undefined) return { found: 'route', match: { handler, params } };
      return { found: 'path', allow: allowed(handlers) };
    }
    return { found: 'nothing' };
  }
}

function split(path: string): string[] {
  const trimmed = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
  return trimmed.split('/').slice(1);
}

function matchSegments(pattern: readonly string[], segments: readonly string[]): Record<string, string> | undefined {
  if (pattern.length !== segments.length) return undefined;
  const params: Record<string, string> = {};
  for (let n = 0; n < pattern.length; n++) {
    const part = pattern[n]!;
    const segment = segments[n]!;
    if (part.startsWith('{')) {
      if (segment === '') return undefined;
      params[part.slice(1, -1)] = segment;
    } else if (part !== segment) {
      return undefined;
    }
  }
  return params;
}

function allowed(handlers: ReadonlyMap<string, unknown>): string[] {
  const methods = new Set(handlers.keys());
  if (methods.has('GET')) methods.add('HEAD');
  methods.add('OPTIONS');
  return [...methods].sort();
}
