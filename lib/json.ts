/** Finds a field that stands twice in an object: JSON.parse takes the last one and says nothing. */

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
