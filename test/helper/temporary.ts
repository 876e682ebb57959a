/** Directories that go with their test, and what the tests find on this machine. */

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isInstalled } from './trial.ts';

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** A new directory, removed when the test has ended. */
export function temporaryDirectory(t: Pick<TestContext, 'after'>): string {
  const directory = mkdtempSync(join(tmpdir(), 'registrar-'));
  // Not synchronously: a service that is closed by a later hook may be finishing a write.
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 10 }));
  return directory;
}

/** False, or why a test that needs the program is skipped. */
export function without(program: string): string | false {
  return isInstalled(program) ? false : `${program} is not installed`;
}

/** A key and a certificate for localhost, with openssl alone. `make cert` has a trial of its own. */
export function makeCertificate(directory: string, days = 30): void {
  const key = join(directory, 'key.pem');
  mkdirSync(directory, { recursive: true });
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key, '-out', join(directory, 'cert.pem'),
    '-days', String(days), '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1',
  ], { stdio: 'pipe' });
  chmodSync(key, 0o600);
}

/** What comes before a TypeScript file on the command line: nothing where Node reads it itself. */
export const loader: readonly string[] =
  'typescript' in process.features && process.features.typescript ? [] : ['--import', 'tsx'];

/**
 * The environment for child processes, without what the test runner and make set for themselves: a child's output is the same on a terminal, in
 * a pipe, and below `make`.
 */
export function childEnvironment(more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, ...more };
  for (const name of ['FORCE_COLOR', 'NO_COLOR', 'NODE_TEST_CONTEXT', 'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS', 'MAKEOVERRIDES']) delete env[name];
  return env;
}

/** What a script of ours prints, as JSON, run in a process of its own. */
export async function runScript<T>(file: string, ...args: string[]): Promise<T> {
  const child = spawn(process.execPath, [...loader, file, ...args], { cwd: root, env: childEnvironment() });
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

/** TCP ports of 127.0.0.1 that are free, below those that the kernel gives to outgoing connections: none is taken before it is used. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = 12_000 + Math.floor(Math.random() * 20_000);
    const server = createServer().listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(() => true, () => false);
    if (isFree) await once(server.close(), 'close');
    if (isFree) ports.add(port);
  }
  return [...ports];
}

export async function freePort(): Promise<number> {
  const [port = 0] = await freePorts(1);
  return port;
}
