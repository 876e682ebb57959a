/** Directories that go with their test, and what the tests find on this machine. */

import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** A new directory, removed when the test has ended. */
export function temporaryDirectory(t: Pick<TestContext, 'after'>): string {
  const directory = mkdtempSync(join(tmpdir(), 'registrar-'));
  t.after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  return directory;
}

/** False, or why a test that needs the program is skipped. */
export function without(program: string): string | false {
  const { status } = spawnSync('sh', ['-c', `command -v ${program}`]);
  return status === 0 ? false : `${program} is not installed`;
}

/** A key and a certificate as users make them. */
export function makeCertificate(directory: string): void {
  execFileSync('make', ['cert', `CERTS=${directory}`], { cwd: root, stdio: 'pipe' });
}

/** What comes before a TypeScript file on the command line: nothing where Node reads it itself. */
export const loader: readonly string[] =
  'typescript' in process.features && process.features.typescript ? [] : ['--import', 'tsx'];

/** What a script of ours prints, as JSON, run in a process of its own. */
export async function runScript<T>(file: string, ...args: string[]): Promise<T> {
  const child = spawn(process.execPath, [...loader, file, ...args], { cwd: root });
  let [printed, said] = ['', ''];
  child.stdout.on('data', (chunk) => (printed += chunk));
  child.stderr.on('data', (chunk) => (said += chunk));
  const [code] = await once(child, 'close');
  assert.equal(code, 0, said);
  return JSON.parse(printed);
}

/** Resolves when `condition` holds; rejects after `ms`, which only a failing test takes. */
export async function until(condition: () => boolean | Promise<boolean>, what: string, ms = 20_000): Promise<void> {
  for (const deadline = Date.now() + ms; ; ) {
    if (await condition()) return;
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** For npm and npx within a test: what an npx that runs the tests themselves was told is not for them, nor is coverage. */
export function npmEnvironment(): NodeJS.ProcessEnv {
  const { npm_config_package: _package, npm_config_call: _call, ...env } = process.env;
  return { ...env, NODE_V8_COVERAGE: '', NODE_OPTIONS: '', npm_config_update_notifier: 'false' };
}
