/** The command `check`: reads every line of the users file, and changes nothing. */

import { RegistrarError, counted, grouped, hasCode, systemCode } from '../../lib/errors.ts';
import { requireUsersFile } from '../../lib/open.ts';
import { cannotRead, openToOthers } from '../../lib/store/file/directory.ts';
import { nodeFileSystem } from '../../lib/store/file/file-system.ts';
import { inspect } from '../../lib/store/file/inspect.ts';
import type { Inspection } from '../../lib/store/file/inspect.ts';
import { examine } from '../../lib/store/file/repair.ts';
import type { Command } from './command.ts';

export const check: Command = {
  name: 'check',
  summary: 'reads every line of the users file and verifies its checksum',
  about: `
Reads every line of the users file, verifies its checksum and its place, and
prints what is in the file. It changes nothing and waits for no other process.`,
  examples: ['registrar check --data /var/lib/registrar'],
  run: async ({ config }, terminal) => {
    const file = requireUsersFile(config);
    const problem = openToOthers(file);
    if (problem !== undefined) terminal.say(`WARNING: ${problem}`);
    const facts = await readFacts(file);
    if (facts === undefined) {
      const { reason = 'The file was changed meanwhile.', recovery } = await examine(nodeFileSystem, file);
      await terminal.print(`${file}: damaged\n${recovery.losses.map((loss) => `  ${loss}\n`).join('')}`);
      throw new RegistrarError('corrupt', reason);
    }
    const { users, lines, deadLines, batches, bytes, unfinishedBytes } = facts;
    const read = `${counted(users, 'user')}, ${counted(lines, 'line')} (${grouped(deadLines)} obsolete)`;
    await terminal.print(`${file}: ${read}, ${counted(batches, 'batch', 'batches')}, ${counted(bytes, 'byte')}; every checksum holds\n`);
    if (unfinishedBytes === 0) return;
    terminal.say(`The last ${counted(unfinishedBytes, 'byte')} belong to a write that is in progress, or was interrupted.`);
  },
};

/** Undefined for a damaged file. */
async function readFacts(file: string): Promise<Inspection | undefined> {
  try {
    const facts = await inspect(nodeFileSystem, file);
    return facts.damage === undefined ? facts : undefined;
  } catch (error) {
    if (systemCode(error) !== 'EIO' && !hasCode(error, 'corrupt')) throw cannotRead(file, error);
    return undefined;
  }
}
