/**
 * Reads users by login, by page in the order of ids, and as lines for another file. It reads what the index knows: the
 * log decides how far that is.
 */

import type { NdjsonPage, PublicUser, RecordPage, StoredUser, UserPage } from '../../user-store.ts';
import { decodeCursor, encodeCursor } from '../cursor.ts';
import type { Line, LineReader } from './line-reader.ts';
import type { LoginIndex } from './login-index.ts';
import { copyPublic, decodePublic, decodeUser, lineBytesMax, copyLine } from './record.ts';

/** The bytes of a page, unless the number of its users is limited. */
const pageBytes = 1 << 16;

export class UserReader {
  readonly #index: LoginIndex;
  readonly #lines: LineReader;
  /** The end of what is in the index. */
  readonly #end: () => number;

  constructor(index: LoginIndex, lines: LineReader, end: () => number) {
    this.#index = index;
    this.#lines = lines;
    this.#end = end;
  }

  findRecord(login: string): StoredUser | undefined {
    return this.#find(login, (bytes, start, end) => {
      const user = decodeUser(bytes, start, end);
      return user?.login === login ? user : undefined;
    });
  }

  /** The public side of a user, without making an object of the line. */
  findPublic(login: string): PublicUser | undefined {
    return this.#find(login, decodePublic);
  }

  /** What `decode` returns for the line of the login: undefined for the line of another login with the same hash. */
  #find<T>(login: string, decode: (bytes: Buffer, start: number, end: number, login: Buffer) => T | undefined): T | undefined {
    const name = Buffer.from(login, 'utf8');
    let found: T | undefined;
    this.#index.find(this.#index.hash(name, 0, name.length), (rank) => {
      const { bytes, start, end } = this.#lines.line(this.#index.offset(rank), this.#end());
      found = decode(bytes, start, end, name);
      return found !== undefined;
    });
    return found;
  }

  /** Users behind the cursor `after`, in the order of ids. */
  page(after: string | undefined, limit: number): UserPage {
    const users: Buffer[] = [];
    const next = this.#pageAfter(after, ({ bytes, start, end }) => {
      if (users.length === limit) return false;
      const json = Buffer.allocUnsafe(end - start);
      users.push(json.subarray(0, copyPublic(bytes, start, end, json, 0)));
      return true;
    });
    return { users, next };
  }

  /** The same as bytes, each user with a newline, and as many as fit into one page. */
  ndjsonPage(after: string | undefined): NdjsonPage {
    const page = Buffer.allocUnsafe(pageBytes);
    let length = 0;
    const next = this.#pageAfter(after, ({ bytes, start, end }) => {
      // What is public is less than the line.
      if (end - start >= pageBytes - length) return false;
      length = copyPublic(bytes, start, end, page, length);
      page[length++] = 0x0a;
      return true;
    });
    return { bytes: page.subarray(0, length), next };
  }

  /** Users with all fields, as many as have their lines in one page. */
  recordPage(after: string | undefined): RecordPage {
    const users: StoredUser[] = [];
    let length = 0;
    const next = this.#pageAfter(after, ({ bytes, start, end }) => {
      length += end - start;
      if (length > pageBytes) return false;
      const user = decodeUser(bytes, start, end);
      if (user !== undefined) users.push(user);
      return true;
    });
    return { users, next };
  }

  /**
   * Copies the lines of users from `rank` on, up to the rank `to`, into `into`, as lines of another file that stand
   * there from `offset` on. It stops when `into` is full.
   */
  copyLines(rank: number, to: number, into: Buffer, offset: number, seed: number): { next: number; length: number } {
    let length = 0;
    const next = this.#each(rank, to, ({ bytes, start, end }) => {
      if (length > into.length - lineBytesMax) return false;
      length += copyLine(bytes, start, end, into, length, offset + length, seed);
      return true;
    });
    return { next, length };
  }

  /** Takes the lines of users behind the cursor until `take` has no room. Returns the cursor of the last one, if more follow. */
  #pageAfter(after: string | undefined, take: (line: Line) => boolean): string | undefined {
    const index = this.#index;
    let last = after === undefined ? 0 : decodeCursor(after);
    const stopped = this.#each(index.rankAfter(last), index.ranks, (line, rank) => {
      if (!take(line)) return false;
      last = index.id(rank);
      return true;
    });
    return stopped < index.ranks ? encodeCursor(last) : undefined;
  }

  /** The lines of users from one rank up to another, until `take` takes no more. Returns the rank at which it stopped. */
  #each(from: number, to: number, take: (line: Line, rank: number) => boolean): number {
    for (let rank = from; rank < to; rank++) {
      const offset = this.#index.offset(rank);
      if (offset !== 0 && !take(this.#lines.nextLine(offset, this.#end()), rank)) return rank;
    }
    return to;
  }
}
