/**
 * Runs the tests on Node 20. There `node --test` finds JavaScript only, so this file imports every test with tsx, which strips the types.
 * From Node 22.18 on, `node --test` finds the tests itself, and this file does nothing.
 */

import { readdirSync } from 'node:fs';

if (!('typescript' in process.features) || !process.features.typescript) {
  const { register } = await import('tsx/esm/api');
  register();
  const names = readdirSync(import.meta.dirname, { recursive: true, encoding: 'utf8' });
  for (const name of names.filter((other) => other.endsWith('.test.ts') && !other.startsWith('trial')).sort()) {
    await import(new URL(name, import.meta.url).href);
  }
}
