/**
 * Reads flags and the variables that stand for them; pure. A flag wins over its variable, and a variable over the
 * default: `--port 8443` is `REGISTRAR_PORT=8443`. It does not know what a flag means.
 */

import { parseArgs } from 'node:util';
import { RegistrarError, messageOf } from './errors.ts';
import { parseKdf } from './password/kdf.ts';
import type { Kdf } from './password/kdf.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface FlagTable {
  /** Flags that take a value, with what is taken where there is none. */
  readonly values: Readonly<Record<string, string>>;
  /** Flags that are there or not. Only those of `switchesWithVariable` have a variable: nobody agrees to everything in advance. */
  readonly switches?: readonly string[];
  readonly switchesWithVariable?: readonly string[];
  /** Words that are no flags are taken: actions, logins, files. */
  readonly hasWords?: boolean;
}

export class Flags {
  readonly words: readonly string[];
  readonly #given: Readonly<Record<string, unknown>>;
  readonly #env: Environment;
  readonly #defaults: Readonly<Record<string, string>>;

  /** Throws `usage`. */
  constructor(args: readonly string[], env: Environment, table: FlagTable) {
    const { values, switches = [], switchesWithVariable = [], hasWords = false } = table;
    const strings = Object.keys(values).map((name) => [name, { type: 'string' }] as const);
    const booleans = [...switches, ...switchesWithVariable].map((name) => [name, { type: 'boolean' }] as const);
    try {
      const options = Object.fromEntries([...strings, ...booleans]);
      const parsed = parseArgs({ args: [...args], options, strict: true, allowPositionals: hasWords });
      this.#given = parsed.values;
      this.words = parsed.positionals;
    } catch (error) {
      // Of its sentences the first says what is wrong; a value is never in it.
      const [said = ''] = messageOf(error).split(/\. |\n/);
      throw usage(`${said}; try registrar --help`);
    }
    this.#env = env;
    this.#defaults = values;
    // Wrong positions and lost writes were seen with it (nodejs/node#55113).
    if (!['', '0'].includes(env.UV_USE_IO_URING ?? '')) throw usage('UV_USE_IO_URING: files are not safe with it; unset it');
  }

  text(name: string): string {
    const given = this.#given[name];
    return typeof given === 'string' ? given : (this.#env[variable(name)] ?? this.#defaults[name] ?? '');
  }

  /** Undefined where it is empty. */
  optional(name: string): string | undefined {
    const text = this.text(name);
    return text === '' ? undefined : text;
  }

  /** Throws `usage` where it is empty. @param what as in "a directory". */
  present(name: string, what: string): string {
    const text = this.text(name);
    if (text !== '') return text;
    throw usage(`--${name}: it has to name ${what}`);
  }

  list(name: string): string[] {
    return this.text(name).split(',').map((part) => part.trim()).filter((part) => part !== '');
  }

  isOn(name: string): boolean {
    return this.#given[name] === true;
  }

  /** The same for a switch that has a variable. */
  isOnOrSet(name: string): boolean {
    if (this.#given[name] !== undefined) return this.isOn(name);
    const text = this.#env[variable(name)] ?? '';
    if (['', '0', 'false', 'no'].includes(text)) return false;
    if (['1', 'true', 'yes'].includes(text)) return true;
    throw usage(`${variable(name)}=${text}: it has to be 1 (yes, true) or 0 (no, false)`);
  }

  wholeNumber(name: string, min: number, max: number): number {
    const text = this.text(name);
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw usage(`--${name} ${text}: it has to be a whole number from ${min} to ${max}`);
  }

  oneOf<Value extends string>(name: string, values: readonly Value[]): Value {
    const text = this.text(name);
    const value = values.find((other) => other === text);
    if (value !== undefined) return value;
    throw usage(`--${name} ${text}: it has to be ${values.join(' or ')}`);
  }

  kdf(name: string): Kdf {
    const text = this.text(name);
    const kdf = parseKdf(text);
    if (kdf !== undefined) return kdf;
    throw usage(`--${name} ${text}: it has to be as in pbkdf2:sha256:600000, with sha256, sha384 or sha512 and 1 to 10000000`);
  }
}

export function usage(detail: string): RegistrarError {
  return new RegistrarError('usage', detail);
}

function variable(name: string): string {
  return `REGISTRAR_${name.toUpperCase().replaceAll('-', '_')}`;
}
