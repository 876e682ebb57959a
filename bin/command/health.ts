/** The command `health`: whether the service of these flags is ready, for a container's health check. */

import http from 'node:http';
import https from 'node:https';
import { once } from 'node:events';
import type { Config } from '../../lib/config.ts';
import { RegistrarError, messageOf } from '../../lib/errors.ts';
import type { Command } from './command.ts';

const answerMsMax = 5_000;

export const health: Command = {
  name: 'health',
  summary: 'tells whether the service is ready',
  about: `
Asks the service of these flags for /health/ready. Exit code 0 if it is ready,
else 1, with the reason. It sends no secret, so the certificate is not verified.`,
  examples: ['registrar health', 'registrar health --env-file /etc/registrar/registrar.env'],
  run: async ({ config }, terminal) => {
    const { status, body } = await ask(config).catch((cause: unknown) => {
      throw new RegistrarError('unavailable', `The service does not answer: ${messageOf(cause)}.`, { cause });
    });
    const { reason = '' } = JSON.parse(body) as { readonly reason?: string };
    await terminal.print(status === 200 ? 'ready\n' : `not ready: ${reason}\n`);
    return status === 200 ? 0 : 1;
  },
};

async function ask({ http: isHttp, socket, host, port }: Config): Promise<{ readonly status: number; readonly body: string }> {
  const local = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  const at = socket === undefined ? { host: local, port } : { socketPath: socket };
  const options = { ...at, path: '/health/ready', headers: { Host: 'localhost' }, signal: AbortSignal.timeout(answerMsMax) };
  const request = isHttp ? http.get(options) : https.get({ ...options, rejectUnauthorized: false });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') };
}
