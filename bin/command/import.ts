/** The command `import`: takes users from lines of JSON, with passwords or hashes. */

import { createReadStream } from 'node:fs';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { addAbortSignal } from 'node:stream';
import { RegistrarError, counted, grouped, messageOf, systemCode } from '../../lib/errors.ts';
import { now, openUsers, reportWeakKdf } from '../../lib/open.ts';
import { importLines } from '../../lib/transfer/import.ts';
import type { ImportResult } from '../../lib/transfer/import.ts';
import { recordCommand } from './audit.ts';
import type { Command } from './command.ts';
import { fileProblem } from './command-line.ts';
import { Interruption } from './interruption.ts';
import type { Terminal } from './terminal.ts';

export const importCommand: Command = {
  name: 'import',
  words: '[FILE]',
  summary: 'imports users from lines of JSON, with passwords or hashes',
  about: `
Imports users from FILE, or from standard input, one line of JSON for each:

  {"login":"alice","password":"correct horse battery"}
  {"login":"bob","kdf":"pbkdf2:sha256:600000","password":"salt$hash"}

or what "registrar export" has written; "registered" is optional. A plaintext
password has to follow the rules for a new one. An existing user is never
changed, so an import that was interrupted is run again. Services run meanwhile.
--json prints the result of each line as a line of JSON. --kdf is the service's
own: a hash that costs more than four times as much needs --allow-costly.

Exit codes: 0 every line was imported, 1 some were refused or it failed, with
the reason and the line, 2 usage, 130 or 143 interrupted.`,
  examples: ['registrar import users.jsonl', 'registrar import --from django --dry-run django.jsonl'],
  run: async ({ config, words: [path] }, terminal) => {
    const interruption = new Interruption();
    const input = await open(path, interruption.signal, terminal);
    if (!config.dryRun) reportWeakKdf(config, terminal.say);
    const ifMissing = config.dryRun ? 'memory' : 'create';
    const users = await openUsers({ ...config, hashWaitMsMax: Infinity }, { report: terminal.say, ifMissing, isRehashing: false });
    const counts: Counts = { added: 0, unchanged: 0, refused: 0, invalid: 0 };
    const costly = { count: 0, max: 0 };
    let line = 0;
    try {
      const { from, dryRun: isDryRun, allowCostly: isCostlyAllowed, checkEmpty: isEmptyChecked } = config;
      const options = { ...users, now, from, isDryRun, isCostlyAllowed, isEmptyChecked, signal: interruption.signal };
      for await (const results of importLines(input, options)) {
        for (const result of results) counts[result.outcome]++;
        for (const result of results) {
          if (result.outcome !== 'added' || result.costs === undefined) continue;
          costly.count++;
          costly.max = Math.max(costly.max, result.costs);
        }
        line = results.at(-1)?.line ?? line;
        if (results.some((result) => 'detail' in result)) terminal.progress('');
        await printResults(results, config.json, terminal);
        terminal.progress(`${grouped(line)} lines`);
      }
    } catch (cause) {
      if (systemCode(cause) === undefined && !(cause instanceof RegistrarError)) throw cause;
      const code = cause instanceof RegistrarError ? cause.code : 'cannot-start';
      const reason = cause instanceof RegistrarError ? cause.message : `Cannot read the input: ${messageOf(cause)}`;
      throw new RegistrarError(code, `${reason.replace(/\.?$/, '.')} ${reached(line, counts.added)}`, { cause });
    } finally {
      terminal.progress('');
      interruption.close();
      input.destroy();
      await users.close();
    }
    if (!config.dryRun) await recordCommand(config, terminal, { event: 'imported', count: counts.added });
    if (costly.count > 0) terminal.say(costlyWarning(costly));
    if (config.json) terminal.say(summary(counts, config.dryRun));
    else await terminal.print(`${summary(counts, config.dryRun)}\n`);
    if (!interruption.signal.aborted) return counts.refused + counts.invalid > 0 ? 1 : 0;
    terminal.say(`Interrupted. ${reached(line, counts.added)}`);
    return interruption.exitCode;
  },
};

type Counts = Record<ImportResult['outcome'], number>;

/** Throws `cannot-start` before anything is created. */
async function open(path: string | undefined, signal: AbortSignal, terminal: Terminal): Promise<Readable> {
  if (path === undefined || path === '-') {
    if (terminal.stdin.isTTY) terminal.say('Reading lines from the terminal, up to Ctrl-D.');
    return addAbortSignal(signal, terminal.stdin);
  }
  const file = createReadStream(path);
  await once(file, 'open').catch((cause: unknown) => {
    throw new RegistrarError('cannot-start', `Cannot read "${path}": ${fileProblem(cause)}.`, { cause });
  });
  return addAbortSignal(signal, file);
}

/** Each line that was not imported, for a person; or each line, for a program. */
async function printResults(results: readonly ImportResult[], isJson: boolean, terminal: Terminal): Promise<void> {
  for (const result of isJson ? [] : results) if ('detail' in result) terminal.say(`line ${grouped(result.line)}: ${result.detail}`);
  // The reader of the results may leave: that does not undo the import.
  if (isJson) await terminal.print(results.map((result) => `${JSON.stringify(result)}\n`).join(''));
}

function summary({ added, unchanged, refused, invalid }: Readonly<Counts>, isDryRun: boolean): string {
  const lines = added + unchanged + refused + invalid;
  const [add, refuse] = isDryRun ? ['to add', 'to refuse'] : ['added', 'refused'];
  const counts = [[added, add], [unchanged, 'there already'], [refused, refuse], [invalid, 'invalid']] as const;
  const text = counts.map(([count, what]) => `${grouped(count)} ${what}`).join(', ');
  return `${counted(lines, 'line')}: ${text}${isDryRun ? '; nothing was written' : ''}`;
}

function costlyWarning({ count, max }: { readonly count: number; readonly max: number }): string {
  const hashes = count === 1 ? 'One hash costs' : `${grouped(count)} hashes cost`;
  const cost = `${hashes} up to ${max} times a hash of the service`;
  return `WARNING: ${cost}. Until their users sign in, the time of a failed sign-in shows that these logins exist.`;
}

function reached(line: number, added: number): string {
  return `It reached line ${grouped(line)}. Added, and kept: ${counted(added, 'user')}. Run it again to continue.`;
}
