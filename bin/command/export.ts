/** The command `export`: writes all users as lines of JSON, hashes included. */

import { statSync } from 'node:fs';
import { counted } from '../../lib/errors.ts';
import { usage } from '../../lib/flags.ts';
import { openUsers, usersFile } from '../../lib/open.ts';
import { exportText } from '../../lib/transfer/export.ts';
import { writeWholeFile } from '../../lib/transfer/whole-file.ts';
import { recordCommand } from './audit.ts';
import type { Command } from './command.ts';
import { Interruption } from './interruption.ts';
import type { Terminal } from './terminal.ts';

export const exportCommand: Command = {
  name: 'export',
  summary: 'exports all users as lines of JSON, to move them or as a backup',
  about: `
Writes all users as lines of JSON, hashes included: protect it as you protect
the users file. It is a backup that is made while services run, and "registrar
import" reads it. Each user is as it was when it was read; users who register
meanwhile are left out, and so are fields that this version does not know, with
a message. --json writes one JSON document, which "registrar import" does not
read.

Exit codes: 0 done, 1 refused or failed, 2 usage, 130 or 143 interrupted, 141
the reader of the output has left. Unless it is 0, FILE is as it was.`,
  examples: ['registrar export --output backup.jsonl', 'registrar export --data /var/lib/registrar | gzip > users.jsonl.gz'],
  run: async ({ config }, terminal) => {
    const output = config.output === '-' ? undefined : config.output;
    if (config.etcd.length === 0 && output !== undefined && isSameFile(output, usersFile(config.data))) {
      throw usage(`--output ${output} is the users file itself: name another.`);
    }
    const { store, close } = await openUsers(config, { report: terminal.say, ifMissing: 'refuse', isRehashing: false, isReadOnly: true });
    try {
      const leftOut = new Map<string, number>();
      const text = exportText(store, { isDocument: config.json, isShared: config.etcd.length > 0, leftOut });
      const exitCode = output === undefined ? await write(text, terminal) : await writeFile(output, text, terminal);
      if (exitCode === 0) await recordCommand(config, terminal, { event: 'exported', detail: output ?? 'standard output' });
      for (const [name, count] of leftOut) terminal.say(leftOutMessage(name, count));
      return exitCode;
    } finally {
      await close();
    }
  },
};

/** A write to a pipe that is not read blocks the process: there a signal ends it at once. */
async function write(text: AsyncIterable<Buffer>, terminal: Terminal): Promise<number> {
  for await (const bytes of text) if (!(await terminal.print(bytes))) return 141;
  return 0;
}

async function writeFile(output: string, text: AsyncIterable<Buffer>, terminal: Terminal): Promise<number> {
  const interruption = new Interruption();
  try {
    await writeWholeFile(output, text, interruption.signal);
    return 0;
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
    terminal.say(`Interrupted. "${output}" is as it was.`);
    return interruption.exitCode;
  } finally {
    interruption.close();
  }
}

function leftOutMessage(name: string, count: number): string {
  const field = `the field ${JSON.stringify(name)} of ${counted(count, 'user')}`;
  return `Left out ${field}: this version does not know it. Copy the users file to keep it.`;
}

function isSameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => statSync(path, { throwIfNoEntry: false }));
  return a !== undefined && a.ino === b?.ino && a.dev === b.dev;
}
