/**
 * The page at /: the files of `page/`, read once at the start. Their Content-Security-Policy lets the browser run and load
 * only these files, and no other page may embed them. The page uses the API alone.
 */

import { readFileSync } from 'node:fs';
import { route } from './route.ts';
import type { Reply, Route } from './route.ts';

export interface PageOptions {
  /** The lengths of a new password. */
  readonly length: { readonly codePointsMin: number; readonly codePointsMax: number };
  /** The path of the public URL; empty at the root. */
  readonly prefix: string;
  /** What a user is told who has forgotten the password; empty for the page's own text. */
  readonly help: string;
}

const files = ['page.css', 'icon.svg', 'page.js', 'account.js', 'admin.js', 'api.js', 'form.js', 'words.js'] as const;
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

/** Throws if a file is missing. */
export function pageRoutes({ length: { codePointsMin, codePointsMax }, prefix, help }: PageOptions): readonly Route[] {
  const text = read('index.html').toString('utf8')
    .replace('data-prefix=""', `data-prefix="${prefix}"`)
    .replace('data-help=""', () => `data-help="${escape(help)}"`)
    .replace(/data-password-min="\d+"/, `data-password-min="${codePointsMin}"`)
    .replace(/data-password-max="\d+"/, `data-password-max="${codePointsMax}"`);
  const html = fileReply('html', below(prefix, text));
  const rest = files.map((name) => entry(`/page/${name}`, fileReply(name.slice(name.lastIndexOf('.') + 1), read(name))));
  return [...['/', '/sign-in'].map((path) => entry(path, html)), ...rest];
}

/** For a browser that navigates to an address that does not exist. */
export function notFoundPage(prefix: string): Reply {
  return { ...fileReply('html', below(prefix, read('not-found.html').toString('utf8'))), status: 404 };
}

function below(prefix: string, html: string): Buffer {
  return Buffer.from(html.replaceAll(/(href|src)="\//g, `$1="${prefix}/`));
}

/** A query is ignored: links to a page may carry one. */
function entry(pattern: string, reply: Reply): Route {
  return route({ method: 'GET', pattern, action: 'public', query: 'any', handle: () => reply });
}

function fileReply(extension: string, body: Buffer): Reply {
  return {
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
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;');
}

function read(name: string): Buffer {
  return readFileSync(new URL(`../page/${name}`, import.meta.url));
}
