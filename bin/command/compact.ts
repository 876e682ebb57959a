/** The command `compact`: removes obsolete records from the users file. */

import { counted, grouped } from '../../lib/errors.ts';
import { requireUsersFile } from '../../lib/open.ts';
import { prepareDirectory } from '../../lib/store/file/directory.ts';
import { FileUserStore } from '../../lib/store/file/file-user-store.ts';
import type { Command } from './command.ts';

export const compact: Command = {
  name: 'compact',
  summary: 'removes obsolete records from the users file',
  about: `
Writes the users file without obsolete records: earlier states of users, and
users that were removed. Services read and write meanwhile. A service compacts
by itself when more than half of the file, and more than 1 MB, is obsolete.
The disk needs room for both files.`,
  examples: ['registrar compact --data /var/lib/registrar'],
  run: async ({ config }, terminal) => {
    const path = requireUsersFile(config);
    prepareDirectory(config.data);
    const store = await FileUserStore.open({ path, lockWaitMsMax: config.lockWaitMsMax, report: terminal.say });
    const { users, bytesBefore, bytesAfter } = await store.compact().finally(() => store.close());
    await terminal.print(`${counted(users, 'user')}: ${grouped(bytesBefore)} bytes became ${grouped(bytesAfter)}\n`);
  },
};
