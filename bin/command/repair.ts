/** The command `repair`: writes a users file anew with what can be read of a damaged one, after a question. */

import { counted, grouped } from '../../lib/errors.ts';
import { requireUsersFile } from '../../lib/open.ts';
import { prepareDirectory } from '../../lib/store/file/directory.ts';
import { nodeFileSystem } from '../../lib/store/file/file-system.ts';
import type { Recovery } from '../../lib/store/file/recover.ts';
import { repair as repairFile } from '../../lib/store/file/repair.ts';
import { recordCommand } from './audit.ts';
import type { Command } from './command.ts';

export const repair: Command = {
  name: 'repair',
  summary: 'recovers every readable user of a damaged users file',
  about: `
For a file that is refused as damaged, where there is no backup. It prints what
is lost, asks, writes a new file with every user that can be read, and keeps the
old file as users.jsonl.damaged-<time>. Services may go on running.

A lost line may have been a change, so the user is as before it; or a removal,
so the user is back. Each loss says which users it may concern. Users whose line
fails its checksum, but is a valid user, as after an edit by hand, are lost too,
unless --unverified takes them.`,
  examples: ['registrar repair --data /var/lib/registrar', 'registrar repair --unverified'],
  run: async ({ config }, terminal) => {
    const path = requireUsersFile(config);
    prepareDirectory(config.data);
    const confirm = async (reason: string, { users, losses, unverified }: Recovery): Promise<void> => {
      terminal.say(reason);
      const taken = config.unverified ? `, ${grouped(unverified)} of them from lines without a valid checksum` : '';
      const lost = (losses.length === 0 ? ['nothing that was acknowledged'] : losses).map((loss) => `  ${loss}\n`).join('');
      await terminal.print(`${counted(users.size, 'user')} can be recovered${taken}. What is lost:\n${lost}`);
      if (unverified > 0 && !config.unverified) {
        terminal.say(`Without a valid checksum, but read as a user or a removal: ${counted(unverified, 'line')}. --unverified takes them.`);
      }
      await terminal.confirm('Write a new file with them, and keep the old one? [y/N] ', config.yes);
    };
    const { lockWaitMsMax, unverified: takesUnverified } = config;
    const done = await repairFile({ fs: nodeFileSystem, path, lockWaitMsMax, now: new Date(), takesUnverified, confirm });
    if (done === undefined) return void (await terminal.print(`${path}: nothing is wrong with it\n`));
    await recordCommand(config, terminal, { event: 'repaired', count: done.users, detail: done.quarantine });
    await terminal.print(`${path} has ${counted(done.users, 'user')} now; the damaged file is ${done.quarantine}\n`);
  },
};
