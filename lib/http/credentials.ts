/** Reads what a client proves itself with: Basic (RFC 7617, UTF-8), Bearer (RFC 6750), the page's cookie; pure. */

export type Credentials =
  | { readonly kind: 'none' }
  | { readonly kind: 'basic'; readonly login: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string }
  /** There is something, and it cannot be read. */
  | { readonly kind: 'unreadable' };

/** The prefix binds the cookie to this host, to https and to the path /. */
export const cookieName = '__Host-registrar';

const none: Credentials = { kind: 'none' };
const unreadable: Credentials = { kind: 'unreadable' };
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/;

export function readAuthorization(header: string | undefined): Credentials {
  if (header === undefined) return none;
  const cut = header.indexOf(' ');
  const scheme = header.slice(0, Math.max(cut, 0)).toLowerCase();
  const value = header.slice(cut + 1).trim();
  if (scheme === 'bearer' && value !== '') return { kind: 'bearer', token: value };
  return scheme === 'basic' ? readBasic(value) : unreadable;
}

function readBasic(value: string): Credentials {
  if (value === '' || !base64.test(value)) return unreadable;
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

/** The session token in the cookie; undefined if there is none, or if it is there twice. */
export function readCookie(header: string | undefined): string | undefined {
  if (header === undefined || !header.includes(cookieName)) return undefined;
  const values = header.split(';').map((pair) => pair.trim()).filter((pair) => pair.startsWith(`${cookieName}=`));
  const [value = ''] = values;
  return values.length === 1 ? value.slice(cookieName.length + 1) : undefined;
}

export function setCookie(token: string, seconds: number): string {
  return `${cookieName}=${token}; Path=/; Max-Age=${seconds}; Secure; HttpOnly; SameSite=Lax`;
}

export function clearCookie(): string {
  return setCookie('', 0);
}
