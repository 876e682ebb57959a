/** What a command is: what it is called with, what --help says of it, and what it does. Its flags are in the table of `lib/config.ts`. */

import type { CommandName, Config } from '../../lib/config.ts';
import type { CommandLine } from '../../lib/flags.ts';
import type { Terminal } from './terminal.ts';

export interface Command {
  readonly name: CommandName;
  /** Words besides flags, as in "ACTION [LOGIN]". */
  readonly words?: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** What it does, in paragraphs of at most 80 columns. */
  readonly about: string;
  readonly examples: readonly string[];
  /** Resolves with the exit code, 0 by default. Results go to standard output, all else to standard error. */
  readonly run: (line: CommandLine<Config>, terminal: Terminal) => Promise<number | void>;
}
