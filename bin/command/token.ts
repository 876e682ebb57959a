/** The command `token`: prints the admin token, and creates or replaces it and the key that signs sessions. */

import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeToken } from '../../lib/auth/static-token.ts';
import { secretFreshMs } from '../../lib/auth/secret-store.ts';
import { SigningKeys } from '../../lib/auth/signing-keys.ts';
import type { Config } from '../../lib/config.ts';
import { createDirectory, openSecrets, signingKeysOptions, usersFile } from '../../lib/open.ts';
import { recordCommand } from './audit.ts';
import type { Command } from './command.ts';
import type { Terminal } from './terminal.ts';

export const token: Command = {
  name: 'token',
  summary: 'prints the admin token, and creates it if there is none',
  about: `
Prints the admin token, and creates it if there is none. A service on the same
directory notices it within a second, and authenticates requests from then on.
The token allows everything: curl -H "Authorization: Bearer …". --metrics prints
another one instead, which opens /metrics and nothing else.

--revoke-keys ends all sessions: when the command returns, no process accepts
a token of an earlier key. --signing-key lets them live until they expire.

The tokens are kept in admin-token and metrics-token in the data directory,
readable by their owner only. A service that is given a token by a flag or a
variable does not read its file.`,
  examples: [
    'TOKEN=$(registrar token --data /var/lib/registrar)',
    'curl -k -H "Authorization: Bearer $TOKEN" https://localhost:8443/user/',
  ],
  run: async ({ config }, terminal) => {
    if (config.signingKey || config.revokeKeys) return replaceSigningKey(config, terminal);
    const directory = createDirectory(config.data, terminal.say);
    const name = config.metrics ? 'metrics' : 'admin';
    const { value, path, isNew } = await makeToken(directory, name, { isNew: config.new });
    if (isNew) await recordCommand(config, terminal, { event: 'token-made', detail: name });
    if (isNew) terminal.say(`The ${name} token is new, and is kept in "${path}".`);
    if (config.etcd.length === 0 && !existsSync(usersFile(directory))) {
      terminal.say(`There are no users in "${directory}" yet. If the service has another directory, name it with --data.`);
    }
    if (config.new) await sleep(noticedMs);
    await terminal.print(`${value}\n`);
  },
};

/** When the command ends, every process has noticed the change. */
const noticedMs = secretFreshMs + 100;

async function replaceSigningKey(config: Config, terminal: Terminal): Promise<void> {
  const { secrets, close } = await openSecrets(config, terminal.say);
  try {
    const options = signingKeysOptions(config, secrets, terminal.say);
    const { kid } = config.revokeKeys ? await SigningKeys.revoke(options) : await (await SigningKeys.open(options)).rotate();
    await recordCommand(config, terminal, { event: config.revokeKeys ? 'keys-revoked' : 'keys-rotated', detail: kid });
    await sleep(noticedMs);
    await terminal.print(`${kid}\n`);
  } finally {
    await close();
  }
}
