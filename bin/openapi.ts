/** The command `openapi`: prints the description of the API, the same as the service answers at /openapi.json. */

import { parseNothing } from '../lib/command-config.ts';
import { openApiJson } from '../lib/http/openapi.ts';
import { print } from './terminal.ts';

export const openapiUsage = `Usage: registrar openapi

Prints the description of the API, OpenAPI 3.1 in JSON. A service answers the
same at /openapi.json.

  --help

Exit codes: 0 done, 1 it cannot be written, 2 usage.

  registrar openapi > openapi.json
`;

export async function openapi(args: readonly string[]): Promise<void> {
  parseNothing(args);
  await print(openApiJson());
}
