/** A browser for tests: Debian's Chromium over WebDriver (W3C), with fetch. It ends what it started, and leaves nothing behind. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { childEnvironment, until } from './temporary.ts';

/** What WebDriver calls the keys that have no character (17.4.2). */
export const keys = { tab: '\uE004', enter: '\uE007', escape: '\uE00C', space: ' ', shift: '\uE008', backspace: '\uE003', control: '\uE009' } as const;

const elementKey = 'element-6066-11e4-a52e-4f735466cecf';

export interface BrowserOptions {
  /** As in Accept-Language: "ru" or "en". */
  readonly language?: string;
  readonly width?: number;
  readonly height?: number;
  readonly isDark?: boolean;
}

export interface Browser {
  open(url: string): Promise<void>;
  reload(): Promise<void>;
  back(): Promise<void>;
  /** Runs the body of a function in the page; a promise is waited for. */
  run<Result>(body: string, ...values: unknown[]): Promise<Result>;
  /** Types into what has the focus. */
  press(...strokes: string[]): Promise<void>;
  /** Clicks where the element is, as a mouse does. */
  click(selector: string): Promise<void>;
  /** Empties the field and types. */
  fill(selector: string, text: string): Promise<void>;
  /** Resolves when the expression is true in the page. */
  wait(expression: string, ...values: unknown[]): Promise<void>;
  /** Chromium's own commands (the DevTools protocol). */
  devtools(cmd: string, params: Readonly<Record<string, unknown>>): Promise<any>;
  screenshot(path: string): Promise<void>;
}

export async function openBrowser(t: Pick<TestContext, 'after'>, { language = 'en', width = 800, height = 900, isDark = false }: BrowserOptions = {}): Promise<Browser> {
  const directory = mkdtempSync(join(tmpdir(), 'registrar-browser-'));
  const driver = spawn('chromedriver', ['--port=0'], { stdio: ['ignore', 'pipe', 'pipe'], env: childEnvironment({ HOME: directory, LANGUAGE: language }) });
  const ended = once(driver, 'exit');
  let output = '';
  driver.stdout.on('data', (chunk) => (output += chunk));
  driver.stderr.on('data', (chunk) => (output += chunk));
  let session = '';
  let base = '';
  t.after(async () => {
    // The session's end is the browser's.
    if (session !== '') await fetch(session, { method: 'DELETE' }).catch(() => undefined);
    driver.kill();
    await ended;
    // What Chromium still writes when its driver has gone is tried again.
    rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  });
  await until(() => {
    const port = /started successfully on port (\d+)/.exec(output)?.[1];
    base = `http://127.0.0.1:${port}`;
    return port !== undefined;
  }, 'chromedriver listens');
  const args = [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
    `--user-data-dir=${directory}/profile`, `--lang=${language}`, '--hide-scrollbars',
  ];
  const prefs = { 'intl.accept_languages': language, 'credentials_enable_service': false };
  const alwaysMatch = { browserName: 'chrome', acceptInsecureCerts: true, 'goog:chromeOptions': { args, prefs, binary: '/usr/bin/chromium' } };
  const { sessionId } = await command('POST', `${base}/session`, { capabilities: { alwaysMatch } });
  session = `${base}/session/${sessionId}`;

  const post = (path: string, body: unknown): Promise<any> => command('POST', `${session}/${path}`, body);
  const run = (body: string, ...values: unknown[]): Promise<any> => post('execute/sync', { script: body, args: values });
  const devtools = (cmd: string, params: unknown): Promise<any> => post('goog/cdp/execute', { cmd, params });
  const press = async (...strokes: string[]): Promise<void> => {
    const actions = strokes.flatMap((stroke) => (Object.values<string>(keys).includes(stroke) ? [stroke] : [...stroke])).flatMap((value) => [
      { type: 'keyDown', value },
      { type: 'keyUp', value },
    ]);
    await post('actions', { actions: [{ type: 'key', id: 'keyboard', actions }] });
  };
  const find = async (selector: string): Promise<string> => (await post('element', { using: 'css selector', value: selector }))[elementKey];
  await devtools('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
  await devtools('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: isDark ? 'dark' : 'light' }] });
  return {
    open: (url) => post('url', { url }),
    reload: () => post('refresh', {}),
    back: () => post('back', {}),
    run,
    press,
    click: async (selector) => post(`element/${await find(selector)}/click`, {}),
    fill: async (selector, text) => {
      const element = await find(selector);
      await post(`element/${element}/clear`, {});
      await post(`element/${element}/value`, { text });
    },
    wait: (expression, ...values) => until(async () => (await run(`return Boolean(${expression})`, ...values)) === true, expression, 10_000),
    devtools,
    screenshot: async (path) => {
      const { data } = await devtools('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true });
      writeFileSync(path, Buffer.from(data, 'base64'));
    },
  };
}

async function command(method: string, url: string, body: unknown): Promise<any> {
  const response = await fetch(url, { method, body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } });
  const { value } = await response.json() as { value: any };
  if (!response.ok) throw new Error(`${url.replace(/.*\/session\/[^/]*/, '')}: ${value.error}: ${value.message}`);
  return value;
}
