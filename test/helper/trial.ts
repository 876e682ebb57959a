/**
 * Registers trials: tests that kill, flood, mount, cut power, measure time, or need other programs or the registry.
 *
 * A trial is registered only when the environment has TRIAL, which the targets of the Makefile set. So `node --test` finds none. With
 * TRIAL=all every trial is registered, else those whose name begins with that word. A file that was asked for trials and registered none
 * fails. Counts come from TRIALS, SECONDS, CONNECTIONS and USERS.
 */

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { after, before, test } from 'node:test';
import type { TestContext } from 'node:test';

/** Programs that a trial starts inherit the variable, and register nothing. */
const asked = process.env.TRIAL ?? '';
const isAsked = asked !== '' && /\.test\.[jt]s$/.test(process.argv[1] ?? '');
let registered = 0;

if (isAsked) {
  process.on('exit', () => {
    if (registered > 0) return;
    process.stderr.write('This file registers no trial.\n');
    process.exitCode = 1;
  });
}

export interface TrialOptions {
  /** Programs that it runs. Where one is missing, the trial is skipped. */
  readonly needs?: readonly string[];
  /** Why this machine does not permit the trial (no root, no mount), or false. It is then listed as NOT RUN. */
  readonly cannot?: () => string | false;
  readonly timeout?: number;
}

export type TrialBody = (t: TestContext) => void | Promise<void>;

export function trial(name: string, ...rest: readonly [TrialBody] | readonly [TrialOptions, TrialBody]): void {
  if (!isAsked || (asked !== 'all' && !name.startsWith(asked))) return;
  registered++;
  const [{ needs = [], cannot, ...options }, run] = rest.length === 1 ? [{} as TrialOptions, rest[0]] : rest;
  const missing = needs.filter((program) => !isInstalled(program));
  const reason = missing.length === 0 && cannot?.();
  if (reason !== false && reason !== undefined) test(`NOT RUN here, ${reason}: ${name}`, (t) => t.diagnostic(reason));
  else test(name, { ...options, skip: missing.length > 0 && `${missing.join(', ')}: not installed` }, run);
}

/** Runs once before the trials of a file, and not where they were not asked for. */
export function beforeTrials(run: () => void | Promise<void>): void {
  if (isAsked) before(run);
}

export function afterTrials(run: () => void | Promise<void>): void {
  if (isAsked) after(run);
}

/** The number in that variable, or the small count that a trial has by default. */
export function trialCount(variable: 'TRIALS' | 'SECONDS' | 'CONNECTIONS' | 'USERS' | 'SEED', small: number): number {
  const text = process.env[variable] ?? '';
  return text === '' ? small : Number(text);
}

export function isInstalled(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** For `cannot`: the trial reads /proc. */
export const notLinux = (): string | false => process.platform !== 'linux' && 'there is no /proc';

/** For `cannot`: the trial owns files of other users, or becomes another user. */
export const notRoot = (): string | false => process.getuid?.() !== 0 && 'only root may';
