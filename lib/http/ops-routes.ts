/** Health and metrics, for those who watch the service: neither says anything of a user. */

import type { Reply } from './message.ts';
import { readQuery } from './query.ts';
import type { RouteEntry } from './routes.ts';

export interface OpsParts {
  /** Why it is not to be sent requests; undefined if it is. */
  readonly unready: () => string | undefined;
  /** In Prometheus' text format 0.0.4. */
  readonly metrics: () => Promise<string>;
}

export function opsRoutes({ unready, metrics }: OpsParts): readonly RouteEntry[] {
  return [
    {
      method: 'GET', pattern: '/health/live', action: 'public',
      route: ({ query }) => {
        readQuery(query, []);
        return health(undefined);
      },
    },
    {
      method: 'GET', pattern: '/health/ready', action: 'public',
      route: ({ query }) => {
        readQuery(query, []);
        return health(unready());
      },
    },
    {
      method: 'GET', pattern: '/metrics', action: 'read-metrics',
      route: async () => ({ status: 200, headers: { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' }, body: await metrics() }),
    },
  ];
}

/** Those who check look at the status; the reason is for people. */
function health(reason: string | undefined): Reply {
  const headers = { 'Content-Type': 'application/json' };
  if (reason === undefined) return { status: 200, headers, body: '{"status":"ok"}\n' };
  return { status: 503, headers, body: `${JSON.stringify({ status: 'unready', reason })}\n` };
}
