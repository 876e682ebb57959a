/** The whole route table of the API, and its description. */

import { openApiDocument } from './openapi.ts';
import { route } from './route.ts';
import type { Route } from './route.ts';
import { serviceRoutes } from './service-routes.ts';
import { sessionRoutes } from './session-routes.ts';
import { userRoutes } from './user-routes.ts';

export const apiRoutes: readonly Route[] = [
  ...userRoutes,
  ...sessionRoutes,
  ...serviceRoutes,
  route({
    method: 'GET', pattern: '/openapi.json', action: 'public',
    describe: {
      id: 'readDescription', tag: 'service', summary: 'This description', description: 'OpenAPI 3.1; `registrar openapi` prints the same.',
      responses: { 200: { is: 'The description.', content: { 'application/json': 'object' } } },
    },
    handle: ({ prefix }) => ({ status: 200, headers: { 'Content-Type': 'application/json' }, body: openApiJson(prefix) }),
  }),
];

const made = new Map<string, string>();

/** The OpenAPI document as it is served and printed, made at the first call for a prefix. */
export function openApiJson(prefix = ''): string {
  const known = made.get(prefix);
  if (known !== undefined) return known;
  const text = `${JSON.stringify(openApiDocument(apiRoutes, prefix), undefined, 2)}\n`;
  made.set(prefix, text);
  return text;
}
