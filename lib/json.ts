/** Reads an object from text of others, strictly: JSON.parse takes the last of two fields of one name and says nothing. */

export type ParsedObject =
  | { readonly fields: Record<string, unknown> }
  /** `problem` goes on behind the name of what was read, and repeats nothing of it. */
  | { readonly flaw: 'syntax' | 'no-object' | 'repeated'; readonly problem: string };

export function parseObject(text: string): ParsedObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    // The engine's message quotes the text; only the place is taken from it.
    const [, position] = /at position (\d+)/.exec(error.message) ?? [];
    return { flaw: 'syntax', problem: `is not JSON${position === undefined ? '' : ` at character ${Number(position) + 1}`}` };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { flaw: 'no-object', problem: 'is JSON, but no object' };
  const fields = value as Record<string, unknown>;
  if (hasAllQuotes(text, fields) || repeatedField(text) === undefined) return { fields };
  return { flaw: 'repeated', problem: 'has a field twice' };
}

/**
 * Whether the text has no more quotes than its fields have. One that is there twice has more, and so has what is escaped
 * or nested: then it takes a closer look.
 */
function hasAllQuotes(text: string, fields: Record<string, unknown>): boolean {
  let quotes = 0;
  for (const name in fields) quotes += typeof fields[name] === 'string' ? 4 : 2;
  for (let at = 0; at < text.length; at++) {
    if (text.charCodeAt(at) === quote) quotes--;
  }
  return quotes === 0;
}

const quote = 0x22;

/** @param text valid JSON, an object. @returns the name of a repeated field at its top level. */
export function repeatedField(text: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const c = text[at];
    if (c === '{' || c === '[') depth++;
    else if (c === '}' || c === ']') depth--;
    else if (c === '"') {
      const end = stringEnd(text, at);
      if (depth === 1 && /^\s*:/.test(text.slice(end, end + whitespaceMax))) {
        // Spelled in two ways ("a", "\u0061"), a name is still the same.
        const name = JSON.parse(text.slice(at, end)) as string;
        if (seen.has(name)) return name;
        seen.add(name);
      }
      at = end - 1;
    }
  }
  return undefined;
}

/** A colon behind more white space than this is looked for in vain: no body or line that is read is larger. */
const whitespaceMax = 16_384;

function stringEnd(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === '"') return at + 1;
  }
  return text.length;
}
