/**
 * The page at /: its files as they lie in `page/`, read once at the start. The policy that goes with them lets the
 * browser run and load nothing but these files, and show the page in nobody else's. It does what the API does, no more.
 */

import { readFileSync } from 'node:fs';
import type { Reply, Route } from './message.ts';

/** A line of the table of routes. */
export interface PageRoute {
  readonly method: 'GET';
  readonly pattern: string;
  readonly action: 'public';
  readonly route: Route;
}

/** The bounds that the page tells before the service has to. */
export interface PasswordLength {
  readonly codePointsMin: number;
  readonly codePointsMax: number;
}

const files = ['page.css', 'icon.svg', 'page.js', 'account.js', 'admin.js', 'api.js', 'form.js', 'rules.js', 'words.js'] as const;
const types: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
};

const policy = [
  "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self'", "form-action 'none'",
  "base-uri 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
].join('; ');

/** Throws if a file is not there. */
export function pageRoutes({ codePointsMin, codePointsMax }: PasswordLength): readonly PageRoute[] {
  const html = read('index.html').toString('utf8')
    .replace(/data-password-min="\d+"/, `data-password-min="${codePointsMin}"`)
    .replace(/data-password-max="\d+"/, `data-password-max="${codePointsMax}"`);
  const rest = files.map((name) => entry(`/page/${name}`, name.slice(name.lastIndexOf('.') + 1), read(name)));
  return [entry('/', 'html', Buffer.from(html)), ...rest];
}

/** A query is nothing to a file: others' links may carry one. */
function entry(pattern: string, extension: string, body: Buffer): PageRoute {
  const reply: Reply = {
    status: 200,
    headers: {
      'Content-Type': types[extension] ?? 'application/octet-stream',
      'Content-Security-Policy': policy,
      'Referrer-Policy': 'same-origin',
      'Cross-Origin-Opener-Policy': 'same-origin',
      'Cross-Origin-Resource-Policy': 'same-origin',
    },
    body,
  };
  return { method: 'GET', pattern, action: 'public', route: () => reply };
}

function read(name: string): Buffer {
  return readFileSync(new URL(`./page/${name}`, import.meta.url));
}
