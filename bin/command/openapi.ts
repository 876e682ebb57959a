/** The command `openapi`: prints the description of the API, the same as the service answers at /openapi.json. */

import { openApiJson } from '../../lib/http/routes.ts';
import type { Command } from './command.ts';

export const openapi: Command = {
  name: 'openapi',
  summary: 'prints the OpenAPI document of the API',
  about: 'Prints the OpenAPI document of the API, in JSON. A service answers the same at\n/openapi.json.',
  examples: ['registrar openapi > openapi.json'],
  run: async (_line, terminal) => void (await terminal.print(openApiJson())),
};
