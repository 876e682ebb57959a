/** The commands that look after the users' file: check, compact, repair. What they do is lib's business. */

import { checkUsers, compactUsers, planRepair } from '../lib/maintenance.ts';
import { parseDataConfig } from '../lib/command-config.ts';
import { RegistrarError, grouped } from '../lib/errors.ts';
import { isAgreed, say } from './terminal.ts';

export const checkUsage = `Usage: registrar check [--data data]

Reads every line of the users' file, verifies its checksum and its place, and
says what is in it. It changes nothing and waits for nobody.

  --data data        the directory of the users' file
  --help

Exit codes: 0 all is well, 1 damaged or not there, 2 usage.

  registrar check --data /var/lib/registrar
`;

export const compactUsage = `Usage: registrar compact [--data data]

Writes the users' file anew without the lines that say nothing any more: what
users were before a change, and users who were removed. Services go on reading
and writing meanwhile, and do the same by themselves when more than half of the
file, and more than 1 MB, is of that kind. There has to be room for both files.

  --data data        the directory of the users' file
  --help

Exit codes: 0 done, 1 refused or failed, and nothing was changed, 2 usage.

  registrar compact --data /var/lib/registrar
`;

export const repairUsage = `Usage: registrar repair [--data data] [--yes]

For a file that is refused as damaged, where no backup is to be had. It says
which lines cannot be read and whom they seem to be about, asks, writes a new
file with all the others, and keeps the old one as users.jsonl.damaged-<time>.
Where the lost line was a change, the user is as before it; where it was a
removal, the user is back.

  --data data        the directory of the users' file
  --yes              does not ask
  --help

Exit codes: 0 done or nothing to do, 1 refused or failed, 2 usage.

  registrar repair --data /var/lib/registrar
`;

export async function check(args: readonly string[]): Promise<void> {
  const checked = await checkUsers(parseDataConfig(args, process.env));
  if (!checked.isSound) {
    process.stdout.write(`${checked.file}: damaged\n`);
    for (const loss of checked.losses) process.stdout.write(`  ${loss}\n`);
    throw new RegistrarError('corrupt', checked.reason);
  }
  const { users, lines, deadLines, batches, bytes, unfinishedBytes } = checked.facts;
  const found = `${grouped(users)} users, ${grouped(lines)} lines of which ${grouped(deadLines)} are dead, ${grouped(batches)} batches`;
  process.stdout.write(`${checked.file}: ${found}, ${grouped(bytes)} bytes; every checksum holds\n`);
  if (unfinishedBytes > 0) say(`the last ${grouped(unfinishedBytes)} bytes are of a write that is going on, or was cut off`);
}

export async function compact(args: readonly string[]): Promise<void> {
  const { users, bytesBefore, bytesAfter } = await compactUsers(parseDataConfig(args, process.env), say);
  process.stdout.write(`${grouped(users)} users: ${grouped(bytesBefore)} bytes became ${grouped(bytesAfter)}\n`);
}

export async function repair(args: readonly string[]): Promise<void> {
  const config = parseDataConfig(args, process.env, { mayYes: true });
  const { file, reason, losses, users, carryOut } = await planRepair(config);
  if (reason === undefined) {
    process.stdout.write(`${file}: nothing is wrong with it\n`);
    return;
  }
  say(reason);
  process.stdout.write(`${grouped(users)} users can be saved. What is lost:\n`);
  for (const loss of losses) process.stdout.write(`  ${loss}\n`);
  if (losses.length === 0) process.stdout.write('  whatever stood behind the end of the file\n');
  if (!config.isYes && !(await isAgreed('Write a new file with them, and keep the old one aside? [y/N] '))) {
    throw new RegistrarError('forbidden', 'nothing was changed; with --yes nobody is asked');
  }
  const aside = await carryOut();
  process.stdout.write(`${file} has ${grouped(users)} users now; the damaged file is ${aside}\n`);
}
