/** The command `restore`: puts a backup in the place of the users file, and ends every session. */

import { existsSync } from 'node:fs';
import { SecretFiles } from '../../lib/auth/secret-files.ts';
import { SigningKeys } from '../../lib/auth/signing-keys.ts';
import { RegistrarError, counted } from '../../lib/errors.ts';
import { usage } from '../../lib/flags.ts';
import { createDirectory, now, signingKeysOptions, usersFile } from '../../lib/open.ts';
import { nodeFileSystem } from '../../lib/store/file/file-system.ts';
import { readBackup, restore as restoreFile } from '../../lib/store/file/restore.ts';
import { recordCommand } from './audit.ts';
import type { Command } from './command.ts';

export const restore: Command = {
  name: 'restore',
  words: 'BACKUP',
  summary: 'puts a backup in the place of the users file, and ends every session',
  about: `
Puts a backup in the place of the users file: a copy of one, which may have been
made while a service wrote to it, or what "registrar export" wrote. Stop every
service first. The backup is verified before anything is changed, and the present
file is kept as users.jsonl.replaced-<time>.

Every session ends, since tokens issued after the backup would otherwise be
valid again. Ids continue above those given since the backup; where there is no
present file to tell them, a million ids are skipped.`,
  examples: ['registrar restore backup.jsonl --data /var/lib/registrar'],
  run: async ({ config, words: [backup] }, terminal) => {
    if (backup === undefined) throw usage('registrar restore takes the path of a backup. See "registrar help restore".');
    if (!existsSync(backup)) throw new RegistrarError('cannot-start', `There is no backup "${backup}".`);
    const found = await readBackup(nodeFileSystem, backup);
    const directory = createDirectory(config.data, terminal.say);
    const path = usersFile(directory);
    const users = counted(found.recovery.users.size, 'user');
    terminal.say(`"${backup}" is ${found.kind === 'copy' ? 'a copy of a users file' : 'an export'} with ${users}.`);
    if (existsSync(path)) await terminal.confirm(`Replace "${path}" with it, and end every session? [y/N] `, config.yes);
    const keys = signingKeysOptions(config, new SecretFiles(directory), terminal.say);
    const { lockWaitMsMax } = config;
    const beforeReplace = async (): Promise<void> => void (await SigningKeys.revoke(keys));
    const kept = await restoreFile({ fs: nodeFileSystem, path, lockWaitMsMax, now: now(), beforeReplace }, found);
    await recordCommand(config, terminal, { event: 'restored', count: found.recovery.users.size, detail: backup });
    await terminal.print(`${path} has ${users} now${kept === undefined ? '' : `; the file before is ${kept}`}\n`);
  },
};
