/**
 * `node --test` looks for TypeScript from Node 22.18 on, and for JavaScript only before that. There this
 * file, which every Node finds, runs all the others, with tsx to strip their types. Elsewhere it does nothing.
 */

import { readdirSync } from 'node:fs';

if (!('typescript' in process.features) || !process.features.typescript) {
  const { register } = await import('tsx/esm/api');
  register();
  const names = readdirSync(import.meta.dirname, { recursive: true, encoding: 'utf8' });
  for (const name of names.filter((other) => other.endsWith('.test.ts')).sort()) {
    await import(new URL(name, import.meta.url).href);
  }
}
