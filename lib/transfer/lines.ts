/**
 * Splits a stream of bytes into numbered lines of UTF-8 text. A line that is too long is skipped as it comes, without
 * being kept in memory; a line that is not UTF-8 is reported as such. Blank lines are counted and left out.
 */

import { isUtf8 } from 'node:buffer';

/** As much as a body may have. A login of 254 characters and a password of 256, each escaped as a surrogate pair, have 6 KB. */
export const lineBytesMax = 16_384;

/** Counted from 1. */
export type Line =
  | { readonly number: number; readonly text: string }
  | { readonly number: number; readonly problem: string };

const newline = 0x0a;
const byteOrderMark = '\ufeff';

/** The lines as they come, those of one chunk together. The last line needs no newline. */
export async function* readLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<readonly Line[]> {
  let rest: Buffer = Buffer.alloc(0);
  /** The beginning of the line has been dropped. */
  let isTooLong = false;
  let number = 0;
  for await (const chunk of chunks) {
    const bytes = rest.length === 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length) : Buffer.concat([rest, chunk]);
    const lines: Line[] = [];
    let start = 0;
    const areText = isUtf8(bytes.subarray(0, bytes.lastIndexOf(newline) + 1));
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
      const line = decode(bytes.subarray(start, end), ++number, isTooLong, areText);
      if (line !== undefined) lines.push(line);
      isTooLong = false;
      start = end + 1;
    }
    rest = bytes.subarray(start);
    isTooLong ||= rest.length > lineBytesMax;
    if (isTooLong) rest = Buffer.alloc(0);
    if (lines.length > 0) yield lines;
  }
  const last = rest.length > 0 || isTooLong ? decode(rest, number + 1, isTooLong, false) : undefined;
  if (last !== undefined) yield [last];
}

function decode(bytes: Buffer, number: number, isTooLong: boolean, isText: boolean): Line | undefined {
  if (isTooLong || bytes.length > lineBytesMax) return { number, problem: `It is longer than ${lineBytesMax} bytes` };
  if (!isText && !isUtf8(bytes)) return { number, problem: 'It is not UTF-8 text' };
  const decoded = bytes.toString('utf8');
  const text = number === 1 && decoded.startsWith(byteOrderMark) ? decoded.slice(1) : decoded;
  // Files that were joined by cat have one in the middle.
  if (text.startsWith(byteOrderMark)) return { number, problem: 'It begins with a byte order mark (U+FEFF), which may begin a file only' };
  return text.trim() === '' ? undefined : { number, text };
}
