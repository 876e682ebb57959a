/**
 * Fills the placeholders of a file of this folder; pure but for reading it.
 *
 *   {{name}}                 the value
 *   {{#name}} … {{/name}}    lines that stay if there is a value; {{^name}} if there is none
 *
 * A section begins and ends with a line of its own; sections may contain sections. A name without a value in `values` is a
 * mistake in the file, and throws. Values are checked before (`site.ts`): none has a character that a server would interpret.
 */

import { readFileSync } from 'node:fs';

export type FileName = 'nginx.conf' | 'apache.conf' | 'Caddyfile';
export type Values = Readonly<Record<string, string | number | boolean | undefined>>;

export function fillFile(name: FileName, values: Values): string {
  return fill(readFileSync(new URL(name, import.meta.url), 'utf8'), values);
}

export function fill(template: string, values: Values): string {
  const kept: string[] = [];
  /** For each open section: its name, and whether its lines stay. */
  const open: { readonly name: string; readonly isKept: boolean }[] = [];
  for (const line of template.split('\n')) {
    const [, mark, section = ''] = /^\s*\{\{([#^/])([\w]+)\}\}$/.exec(line) ?? [];
    if (mark === '/') {
      if (open.pop()?.name !== section) throw new Error(`{{/${section}}} closes no section`);
    } else if (mark !== undefined) {
      const isPresent = !['', false, undefined].includes(valueOf(section, values) as string);
      open.push({ name: section, isKept: (open.at(-1)?.isKept ?? true) && (mark === '#') === isPresent });
    } else if (open.at(-1)?.isKept ?? true) {
      kept.push(line.replaceAll(/\{\{(\w+)\}\}/g, (_, name: string) => String(valueOf(name, values))));
    }
  }
  if (open.length > 0) throw new Error(`{{#${open.at(-1)?.name}}} is not closed`);
  return kept.join('\n');
}

function valueOf(name: string, values: Values): Values[string] {
  if (!Object.hasOwn(values, name)) throw new Error(`{{${name}}} has no value`);
  return values[name];
}
