/** The page in Debian's Chromium: every flow, by mouse and by keyboard, in both languages, light and dark, narrow and wide. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { adminToken, cheap, openService } from '../helper/service.ts';
import type { Service } from '../helper/service.ts';
import { keys, openBrowser, withoutBrowser } from '../helper/webdriver.ts';
import type { Browser, BrowserOptions } from '../helper/webdriver.ts';

const closed = { REGISTRAR_ADMIN_TOKEN: adminToken };
const asAdmin = { authorization: `Bearer ${adminToken}` };
const password = 'correct horse';
const inBrowser = { skip: withoutBrowser, timeout: 120_000 };

async function open(t: TestContext, options: BrowserOptions & { env?: Record<string, string>; args?: string[] } = {}): Promise<{ browser: Browser; service: Service; url: string }> {
  const service = await openService(t, [...cheap, '--limits', 'off', ...(options.args ?? [])], options.env ?? closed);
  const browser = await openBrowser(t, options);
  // Before any script of the page: what the policy refuses is counted, and what is asked.
  await browser.devtools('Page.addScriptToEvaluateOnNewDocument', {
    source: `window.violations = []; window.asked = [];
      addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => violations.push(violatedDirective + ' ' + blockedURI));
      const whole = window.fetch;
      window.fetch = (path, options) => { asked.push([options.method, path, options.headers]); return whole(path, options); };`,
  });
  const url = service.url.replace('127.0.0.1', 'localhost');
  await browser.open(`${url}/`);
  await browser.wait('document.querySelector("main > section:not([hidden])")');
  return { browser, service, url };
}

const seen = (browser: Browser, view: string): Promise<void> => browser.wait(`!document.getElementById(arguments[0]).hidden && document.title !== 'Registrar'`, view);
const text = (browser: Browser, selector: string): Promise<string> => browser.run('return document.querySelector(arguments[0])?.textContent ?? ""', selector);
const says = (browser: Browser, selector: string, part: string): Promise<void> =>
  browser.wait('document.querySelector(arguments[0])?.textContent.includes(arguments[1])', selector, part);
const focus = (browser: Browser): Promise<string> => browser.run('return document.activeElement.id');

async function register(browser: Browser, login: string): Promise<void> {
  await browser.click('nav a[href="#register"]');
  await seen(browser, 'register');
  await browser.fill('#register-login', login);
  await browser.fill('#register-password', password);
  await browser.click('#register-form button');
  await seen(browser, 'account');
}

/** What must be so at the end of every visit. */
async function leavesNothing(browser: Browser): Promise<void> {
  const left = await browser.run('return [document.cookie, localStorage.length, sessionStorage.length, violations, location.search]');
  assert.deepEqual(left, ['', 0, 0, [], '']);
  const typed = await browser.run<string[]>('return [...document.querySelectorAll("input[type=password]")].map(({ value }) => value).filter(Boolean)');
  assert.deepEqual(typed, [], 'a password that has done its work is in no field');
}

test('page: its files have their types, its policy, and no other origin', async (t) => {
  const { ask } = await openService(t, [...cheap, '--password-min', '15'], closed);
  const page = await ask('/?from=elsewhere');
  assert.equal(page.status, 200);
  assert.match(String(page.headers['content-type']), /^text\/html; charset=utf-8$/);
  assert.match(page.text, /data-password-min="15" data-password-max="256"/);
  assert.doesNotMatch(page.text, /https?:\/\/(?!localhost)|<style|<script(?! type="module" src="\/page\/page\.js"><\/script>)|\sstyle=|\son\w+=/);
  const policy = String(page.headers['content-security-policy']);
  for (const part of ["default-src 'none'", "script-src 'self'", "form-action 'none'", "base-uri 'none'", "frame-ancestors 'none'"]) assert.ok(policy.includes(part), part);
  assert.doesNotMatch(policy, /unsafe|\*|data:/);
  for (const [, path = ''] of page.text.matchAll(/(?:href|src)="(\/[^"]+)"/g)) {
    const file = await ask(path);
    assert.equal(file.status, 200, path);
    assert.equal(file.headers['x-content-type-options'], 'nosniff');
    assert.equal(file.headers['content-security-policy'], policy);
    const type = path.endsWith('.js') ? 'text/javascript' : path.endsWith('.css') ? 'text/css' : 'image/svg+xml';
    assert.ok(String(file.headers['content-type']).startsWith(type), path);
    const head = await ask(path, { method: 'HEAD' });
    assert.deepEqual([head.status, head.text, head.headers['content-length']], [200, '', file.headers['content-length']]);
  }
  assert.equal((await ask('/', { method: 'POST' })).status, 405);
  assert.equal((await ask('/page/tsconfig.json')).status, 404);
});

test('page: an account from its making to its end', inBrowser, async (t) => {
  const { browser, service } = await open(t);
  const signIn = async (word: string): Promise<void> => {
    await browser.fill('#sign-in-login', 'alice');
    await browser.fill('#sign-in-password', word);
    await browser.click('#sign-in-form button');
  };
  await register(browser, 'Alice');
  await says(browser, '#status', 'Welcome, alice');
  assert.equal(await focus(browser), 'account-heading');
  const [, , headers] = await browser.run<[string, string, Record<string, string>]>('return asked.find(([method, path]) => method === "POST" && path === "/user/")');
  assert.match(headers['Idempotency-Key'] ?? '', /^"[0-9a-f]{32}"$/);
  await browser.reload();
  await seen(browser, 'account');
  assert.match(await text(browser, '#account-facts'), /Loginalice/);

  await browser.fill('#password-current', 'not the one');
  await browser.fill('#password-new', 'battery staple');
  await browser.click('#password-form button');
  await says(browser, '#password-current-error', 'The password is wrong');
  assert.equal(await focus(browser), 'password-current');
  await browser.fill('#password-current', password);
  await browser.click('#password-form button');
  await says(browser, '#status', 'The password was changed');
  await browser.reload();
  await seen(browser, 'account');

  await browser.click('#sign-out-form button');
  await seen(browser, 'sign-in');
  await says(browser, '#status', 'You are signed out');
  await signIn(password);
  await says(browser, '#sign-in-form .problem', 'The login or the password is wrong');
  await signIn('battery staple');
  await seen(browser, 'account');
  await browser.back();
  await seen(browser, 'account');

  await browser.fill('#delete-password', password);
  await browser.click('#delete-form button');
  await says(browser, '#delete-password-error', 'The password is wrong');
  assert.equal((await service.ask('/user/alice', { headers: asAdmin })).status, 200);
  await browser.fill('#delete-password', 'battery staple');
  await browser.click('#delete-form button');
  await seen(browser, 'register');
  assert.equal((await service.ask('/user/alice', { headers: asAdmin })).status, 404);
  await leavesNothing(browser);
});

test('page: the administrator looks at everybody in pages, finds, adds and removes', inBrowser, async (t) => {
  const { browser, service } = await open(t);
  for (let n = 0; n < 25; n++) await service.ask('/user/', { method: 'POST', body: { login: `user${n}`, password }, headers: asAdmin });
  await browser.click('nav a[href="#admin"]');
  await seen(browser, 'admin');
  for (const wrong of ['no-such-token', 'токен']) {
    await browser.fill('#token', wrong);
    await browser.click('#token-form button');
    await says(browser, '#token-error', 'The admin token is wrong');
  }
  await browser.fill('#token', adminToken);
  await browser.click('#token-form button');
  await browser.wait('!document.getElementById("admin-tools").hidden');
  const shown = (): Promise<string[]> => browser.run('return [...document.querySelectorAll("#users strong")].map((one) => one.textContent)');
  assert.equal((await shown()).length, 20);
  await browser.click('#list-on');
  await says(browser, '#list-heading', 'page 2');
  assert.deepEqual(await shown(), ['user20', 'user21', 'user22', 'user23', 'user24']);
  await browser.wait('document.activeElement.id === "list-heading"');
  await browser.click('#list-back');
  await says(browser, '#list-heading', 'page 1');

  await browser.fill('#find-login', 'nobody');
  await browser.click('#find-form button');
  await says(browser, '#find-form .problem', 'There is no user “nobody”');
  await browser.fill('#find-login', 'USER7');
  await browser.click('#find-form button');
  await says(browser, '#found', 'user7');
  await browser.fill('#add-login', 'Новая');
  await browser.fill('#add-password', password);
  await browser.click('#add-form button');
  await says(browser, '#status', 'новая was added');
  assert.equal((await service.ask(`/user/${encodeURIComponent('новая')}`, { headers: asAdmin })).status, 200);

  await browser.click('#users li:nth-child(2) button');
  assert.equal(await focus(browser), 'remove-cancel');
  await browser.press(keys.escape);
  await browser.wait('!document.getElementById("remove-dialog").open');
  assert.equal((await service.ask('/user/user1', { headers: asAdmin })).status, 200);
  await browser.click('#users li:nth-child(2) button');
  await browser.click('#remove-form button[type=submit]');
  await says(browser, '#status', 'user1 was removed');
  assert.equal((await service.ask('/user/user1', { headers: asAdmin })).status, 404);
  await browser.click('#forget-token');
  await browser.wait('!document.getElementById("token-form").hidden');
  assert.equal((await shown()).length, 0);
  await leavesNothing(browser);
});

test('page: in open mode the administrator\'s part asks for no token, and one\'s own still for the password', inBrowser, async (t) => {
  const { browser, service } = await open(t, { env: {} });
  await register(browser, 'alice');
  await browser.fill('#delete-password', 'not the one');
  await browser.click('#delete-form button');
  await says(browser, '#delete-password-error', 'The password is wrong');
  assert.equal((await service.ask('/user/alice')).status, 200);
  await browser.click('nav a[href="#admin"]');
  await seen(browser, 'admin');
  await browser.wait('!document.getElementById("open-mode").hidden');
  assert.match(await text(browser, '#users'), /alice/);
});

test('page: by keyboard alone, in Russian', inBrowser, async (t) => {
  const { browser, service } = await open(t, { language: 'ru' });
  assert.equal(await browser.run('return document.documentElement.lang'), 'ru');
  const tabTo = async (id: string): Promise<void> => {
    for (let n = 0; n < 30; n++) {
      await browser.press(keys.tab);
      const [at, href, outline] = await browser.run<string[]>(
        'const { activeElement: e } = document; return [e.id || e.form?.id + " " + e.type, e.getAttribute("href"), getComputedStyle(e).outlineStyle]');
      if (outline === 'none') assert.fail(`the focus on ${at} ${href} cannot be seen`);
      if (at === id || href === id) return;
    }
    assert.fail(`Tab never comes to ${id}`);
  };
  await tabTo('#register');
  await browser.press(keys.enter);
  await seen(browser, 'register');
  await tabTo('register-login');
  await browser.press('Алиса');
  await browser.press(keys.tab);
  await browser.press('корот');
  await says(browser, '#register-password-note', 'Символов: 5, нужно не меньше 8');
  await browser.press(keys.enter);
  await says(browser, '#register-password-error', 'Символов в пароле: 5, а нужно не меньше 8');
  const field = await browser.run('const e = document.activeElement; return [e.id, e.getAttribute("aria-invalid"), e.getAttribute("aria-describedby").split(" ")[0]]');
  assert.deepEqual(field, ['register-password', 'true', 'register-password-error']);
  await browser.press('кий пароль', keys.enter);
  await seen(browser, 'account');
  await says(browser, '#status', 'Добро пожаловать, алиса');
  await tabTo('sign-out-form submit');
  await browser.press(keys.space);
  await seen(browser, 'sign-in');
  assert.equal((await service.ask(`/user/${encodeURIComponent('алиса')}`, { headers: asAdmin })).status, 200);
  await leavesNothing(browser);
});

test('page: a taken login is said at its field, and a service that asks for patience is given it', inBrowser, async (t) => {
  const { browser, service } = await open(t);
  await service.ask('/user/', { method: 'POST', body: { login: 'alice', password }, headers: asAdmin });
  await browser.click('nav a[href="#register"]');
  await browser.fill('#register-login', 'alice');
  await browser.fill('#register-password', password);
  await browser.click('#register-form button');
  await says(browser, '#register-login-error', 'taken');
  assert.equal(await focus(browser), 'register-login');

  await browser.run(`const whole = window.fetch; let n = 0;
    window.fetch = async (path, options) => {
      if (path !== '/user/') return whole(path, options);
      n++;
      if (n === 1) { await whole(path, options); throw new TypeError('the answer is lost'); }
      if (n > 2) return whole(path, options);
      const body = JSON.stringify({ type: 'urn:registrar:overloaded', title: '', status: 503, detail: 'The queue is long' });
      return new Response(body, { status: 503, headers: { 'Retry-After': '2' } });
    };`);
  await browser.fill('#register-login', 'bob');
  await browser.run('const form = document.getElementById("register-form"); form.requestSubmit(); form.requestSubmit();');
  await says(browser, '#register-form .problem', 'cannot be reached');
  await browser.click('#register-form button');
  await says(browser, '#register-form button', 'Try again in 0:0');
  await says(browser, '#register-form .problem', 'The queue is long');
  await browser.click('#register-form button');
  await says(browser, '#spoken', 'You can try again now.');
  // The account was made at the first try; its answer was lost, and the same key gets it.
  await browser.click('#register-form button');
  await seen(browser, 'account');
  const sent = await browser.run<string[]>('return asked.filter(([method, path]) => method === "POST" && path === "/user/").map(([, , headers]) => headers["Idempotency-Key"])');
  assert.equal(sent.length, 3, 'one for alice, the lost one, and the repeat: what was sent twice or too early was not');
  assert.equal(sent[1], sent[2]);
  await leavesNothing(browser);
});

test('page: light and dark can be read, and a narrow screen holds it', inBrowser, async (t) => {
  for (const isDark of [false, true]) {
    const { browser } = await open(t, { isDark, width: 320, height: 640, language: isDark ? 'ru' : 'en' });
    for (const view of ['sign-in', 'register', 'admin']) {
      await browser.click(`nav a[href="#${view}"]`);
      await seen(browser, view);
      if (view === 'register') {
        await browser.fill('#register-login', 'a b');
        await browser.fill('#register-password', 'short');
        await browser.click('#register-form button');
        await browser.wait('document.querySelector("#register-login-error")?.textContent');
      }
      const { poor, count, width, paper } = await browser.run<{ poor: string[]; count: number; width: number; paper: number }>(`
        const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const luminance = (colour) => {
          const [r, g, b] = channels(colour).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (element) => {
          for (let at = element; at; at = at.parentElement) {
            const { backgroundColor } = getComputedStyle(at);
            if (channels(backgroundColor)[3] !== 0) return backgroundColor;
          }
        };
        const poor = []; let count = 0;
        for (const element of document.querySelectorAll('body *')) {
          if (!element.checkVisibility() || ![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
          count++;
          const pair = [luminance(getComputedStyle(element).color), luminance(behind(element))].sort();
          if ((pair[1] + 0.05) / (pair[0] + 0.05) < 4.5) poor.push(element.outerHTML);
        }
        return { poor, count, width: document.documentElement.scrollWidth, paper: luminance(behind(document.body)) };`);
      assert.deepEqual(poor, []);
      assert.ok(count >= 8);
      assert.equal(width, 320, view);
      assert.equal(paper < 0.5, isDark);
    }
  }
});
