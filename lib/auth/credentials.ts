/**
 * Reads the credentials of a request: Basic (RFC 7617, UTF-8), Bearer (RFC 6750), the cookie of the web page (RFC 6265).
 * Header fields are bytes, which Node passes on as latin1: only SP and HTAB are white space, and only ASCII letters have
 * a case. Pure.
 */

export type Credentials =
  | { readonly kind: 'none' }
  | { readonly kind: 'basic'; readonly login: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string }
  | { readonly kind: 'unreadable' };

/** The prefix binds the cookie to this host, to https and to the path /. */
const cookieStart = '__Host-registrar=';

const none: Credentials = { kind: 'none' };
const unreadable: Credentials = { kind: 'unreadable' };
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** RFC 9110, 11.4: a scheme, spaces, and a token; an admin token may hold any visible ASCII character. */
const authorization = /^(?:([Bb][Ee][Aa][Rr][Ee][Rr])|[Bb][Aa][Ss][Ii][Cc]) +([\x21-\x7e]+)$/;
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/;

export function readAuthorization(header: string | undefined): Credentials {
  if (header === undefined) return none;
  const [, bearer, value = ''] = authorization.exec(header) ?? [];
  if (bearer !== undefined) return { kind: 'bearer', token: value };
  return base64.test(value) ? readBasic(value) : unreadable;
}

function readBasic(value: string): Credentials {
  let text: string;
  try {
    text = decoder.decode(Buffer.from(value, 'base64'));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return unreadable;
  }
  const cut = text.indexOf(':');
  return cut < 0 ? unreadable : { kind: 'basic', login: text.slice(0, cut), password: text.slice(cut + 1) };
}

/** The session token in the cookie; undefined if there is none, or more than one. */
export function readCookie(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  // The only cookie, as a rule.
  if (header.startsWith(cookieStart) && !header.includes(';')) return header.slice(cookieStart.length);
  const values = header.split(';').map(trimOws).filter((pair) => pair.startsWith(cookieStart));
  return values.length === 1 ? values[0]?.slice(cookieStart.length) : undefined;
}

/** @param seconds for which the browser keeps it; undefined for as long as it runs. */
export function setCookie(token: string, seconds: number | undefined): string {
  return `${cookieStart}${token}; Path=/;${seconds === undefined ? '' : ` Max-Age=${seconds};`} Secure; HttpOnly; SameSite=Lax`;
}

export function clearCookie(): string {
  return setCookie('', 0);
}

/**
 * Removes white space at both ends (RFC 9110, 5.6.3). `trim` would remove U+00A0 too, which browsers accept in a cookie's
 * name. A loop: a pattern takes 20 ms for 8 KB of spaces that are not at the end.
 */
export function trimOws(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && isOws(text, start)) start++;
  while (end > start && isOws(text, end - 1)) end--;
  return text.slice(start, end);
}

function isOws(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code === 0x20 || code === 0x09;
}
