/** Health and metrics. None of them says anything of a user. */

import { json, route } from './route.ts';
import type { Reply, Route } from './route.ts';

const health = { 'application/json': 'Health' } as const;

export const serviceRoutes: readonly Route[] = [
  route({
    method: 'GET', pattern: '/health/live', action: 'public',
    describe: {
      id: 'readLiveness', tag: 'service', summary: 'Whether the service runs', description: 'It does if it responds.',
      responses: { 200: { is: 'It runs.', content: health } },
    },
    handle: () => readiness(undefined),
  }),
  route({
    method: 'GET', pattern: '/health/ready', action: 'public',
    describe: {
      id: 'readReadiness', tag: 'service', summary: 'Whether the service is ready for requests',
      description: 'For a load balancer, which reads the status; the reason is for people.',
      responses: { 200: { is: 'It is ready.', content: health }, 503: { is: 'It is not ready.', content: health } },
    },
    handle: ({ unhealthyReason }) => readiness(unhealthyReason()),
  }),
  route({
    method: 'GET', pattern: '/metrics', action: 'read-metrics', query: 'any',
    describe: {
      id: 'readMetrics', tag: 'service', summary: 'Metrics for Prometheus',
      description: 'In the text format 0.0.4. No metric is about one user.',
      responses: { 200: { is: 'The metrics.', content: { 'text/plain': 'text' } } },
    },
    handle: ({ metrics }) => ({
      status: 200, headers: { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' }, body: metrics(),
    }),
  }),
];

function readiness(reason: string | undefined): Reply {
  return reason === undefined ? json(200, { status: 'ok' }) : json(503, { status: 'unready', reason });
}
