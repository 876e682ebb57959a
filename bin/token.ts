/** The command `token`: the admin token and the signing key, made and made anew. */

import { parseTokenConfig } from '../lib/command-config.ts';
import { makeAdminToken, rotateSigningKey } from '../lib/maintenance.ts';
import { say } from './terminal.ts';

export const tokenUsage = `Usage: registrar token [--data data] [--new] [--signing-key]

Prints the admin token, and makes it first if there is none. A service that runs
on the same directory notices it within a second, and from then on asks everybody
who they are. Whoever has it may do everything: curl -H "Authorization: Bearer …".

  --data data        the directory of the users' file
  --etcd URL,URL     where the signing key is, if users are in a cluster; with
                     the other flags of serve for it
  --new              makes another one; the one until now is good no more
  --signing-key      makes another key to sign session tokens with, and prints
                     its id; those signed with the one until now stay good
                     until they expire
  --help

The token is kept in admin-token in that directory, the key in signing-key.pem,
both readable by the owner alone. A service with REGISTRAR_ADMIN_TOKEN in its
environment goes by that, and not by the file.
Exit codes: 0 done, 1 refused or failed, 2 usage.

  TOKEN=$(registrar token --data /var/lib/registrar)
  curl -k -H "Authorization: Bearer $TOKEN" https://localhost:8443/user/
`;

export async function token(args: readonly string[]): Promise<void> {
  const config = parseTokenConfig(args, process.env);
  if (config.isSigningKey) {
    const id = await rotateSigningKey(config, say);
    process.stdout.write(`${id}\n`);
    return;
  }
  const { value, path, isNew } = await makeAdminToken(config);
  if (isNew) say(`the admin token is new, and is kept in ${path}`);
  process.stdout.write(`${value}\n`);
}
