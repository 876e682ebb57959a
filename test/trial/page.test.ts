/** The page in Debian's Chromium: every flow, by mouse and by keyboard, in both languages, light and dark, narrow and wide. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { adminToken, cheap, openService } from '../helper/service.ts';
import type { Service } from '../helper/service.ts';
import { keys, openBrowser } from '../helper/webdriver.ts';
import type { Browser, BrowserOptions } from '../helper/webdriver.ts';
import { root, temporaryDirectory } from '../helper/temporary.ts';
import { trial } from '../helper/trial.ts';

const closed = { REGISTRAR_ADMIN_TOKEN: adminToken };
const asAdmin = { authorization: `Bearer ${adminToken}` };
const password = 'correct horse';
const inBrowser = { needs: ['chromium', 'chromedriver'], timeout: 120_000 };

async function open(t: TestContext, options: BrowserOptions & { env?: Record<string, string>; args?: string[]; path?: string } = {}): Promise<{ browser: Browser; service: Service; url: string }> {
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
  await browser.open(`${url}${options.path ?? '/'}`);
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
  const typed = await browser.run<string[]>('return [...document.querySelectorAll("input[type=password], #link")].map(({ value }) => value).filter(Boolean)');
  assert.deepEqual(typed, [], 'a password that has done its work is in no field');
}

trial('page: its files have their types, its policy, and no other origin', async (t) => {
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

trial('page: an account from its making to its end', inBrowser, async (t) => {
  const { browser, service } = await open(t);
  const signIn = async (word: string): Promise<void> => {
    await browser.fill('#sign-in-login', 'alice');
    await browser.fill('#sign-in-password', word);
    await browser.click('#sign-in-form button');
  };
  await register(browser, 'Alice');
  await says(browser, '#status', 'Welcome, alice. Your account has been created.');
  assert.equal(await focus(browser), 'account-heading');
  const [, , headers] = await browser.run<[string, string, Record<string, string>]>('return asked.find(([method, path]) => method === "POST" && path === "/user/")');
  assert.match(headers['Idempotency-Key'] ?? '', /^"[0-9a-f]{32}"$/);
  await browser.reload();
  await seen(browser, 'account');
  assert.match(await text(browser, '#account-facts'), /Loginalice/);

  await browser.fill('#password-current', 'not the one');
  await browser.fill('#password-new', 'battery staple');
  await browser.click('#password-form button');
  await says(browser, '#password-current-error', 'The password is wrong.');
  assert.equal(await focus(browser), 'password-current');
  await browser.fill('#password-current', password);
  await browser.click('#password-form button');
  await says(browser, '#status', 'Your password has been changed');
  await browser.reload();
  await seen(browser, 'account');

  await browser.click('#sign-out-form button');
  await seen(browser, 'sign-in');
  await says(browser, '#status', 'You have signed out on all devices');
  await signIn(password);
  await says(browser, '#sign-in-form .problem', 'The login or the password is wrong');
  await signIn('battery staple');
  await seen(browser, 'account');
  await browser.back();
  await seen(browser, 'account');

  await browser.fill('#delete-password', password);
  await browser.click('#delete-form button');
  await says(browser, '#delete-password-error', 'The password is wrong.');
  assert.equal((await service.ask('/user/alice', { headers: asAdmin })).status, 200);
  await browser.fill('#delete-password', 'battery staple');
  await browser.click('#delete-form button');
  await seen(browser, 'register');
  assert.equal((await service.ask('/user/alice', { headers: asAdmin })).status, 404);
  await leavesNothing(browser);
});

trial('page: the administrator lists users in pages, finds, adds and removes', inBrowser, async (t) => {
  const { browser, service } = await open(t);
  for (let n = 0; n < 25; n++) await service.ask('/user/', { method: 'POST', body: { login: `user${n}`, password }, headers: asAdmin });
  await browser.click('footer a');
  await seen(browser, 'admin');
  for (const wrong of ['no-such-token', 'токен']) {
    await browser.fill('#token', wrong);
    await browser.click('#token-form button');
    await says(browser, '#token-error', 'The admin token is wrong.');
  }
  await browser.fill('#token', adminToken);
  await browser.click('#token-form button');
  await browser.wait('!document.getElementById("admin-tools").hidden');
  const shown = (): Promise<string[]> => browser.run('return [...document.querySelectorAll("#users tr:not([hidden]) th")].map((one) => one.textContent)');
  assert.equal((await shown()).length, 20);
  await browser.click('#list-on');
  await says(browser, '#list-page', 'Page 2');
  assert.deepEqual(await shown(), ['user20', 'user21', 'user22', 'user23', 'user24']);
  await browser.click('#list-back');
  await says(browser, '#list-page', 'Page 1');

  await browser.fill('#find-login', 'user1');
  assert.equal((await shown()).length, 11, 'user1 and user10 to user19');
  await browser.fill('#find-login', 'nobody');
  await browser.click('#find-form button');
  await says(browser, '#find-form .problem', 'There is no user “nobody”');
  await browser.fill('#find-login', 'USER24');
  await browser.click('#find-form button');
  await browser.wait('document.querySelector("#users tr:only-child th")?.textContent === "user24"');
  await browser.fill('#find-login', ' ');
  await browser.click('#find-form button');
  await browser.wait('document.querySelectorAll("#users tr").length === 20');

  await browser.click('#add');
  await browser.click('#add-form input[value=password]');
  await browser.fill('#add-password', password);
  await browser.press(keys.escape);
  await browser.wait('!document.getElementById("add-dialog").open && document.getElementById("add-password").value === ""');
  await browser.click('#add');
  await browser.fill('#add-login', 'Новая');
  await browser.click('#add-form input[value=password]');
  await browser.fill('#add-password', password);
  await browser.click('#add-form button[type=submit]');
  await says(browser, '#status', 'Новая has been added');
  assert.equal((await service.ask(`/user/${encodeURIComponent('новая')}`, { headers: asAdmin })).status, 200);

  const act = (login: string, name: string): Promise<void> => browser.click(`#users button[aria-label="${name}: ${login}"]`);
  await act('user1', 'Remove');
  await browser.wait('document.activeElement.dataset.closes === "confirm-dialog"');
  await browser.press(keys.escape);
  await browser.wait('!document.getElementById("confirm-dialog").open');
  assert.equal((await service.ask('/user/user1', { headers: asAdmin })).status, 200);
  await act('user1', 'Remove');
  await browser.click('#confirm-form button[type=submit]');
  await says(browser, '#status', 'user1 has been removed');
  assert.equal((await service.ask('/user/user1', { headers: asAdmin })).status, 404);
  await act('user2', 'Disable');
  await browser.click('#confirm-form button[type=submit]');
  await says(browser, '#status', 'user2 has been disabled');
  assert.match(await browser.run('return [...document.querySelectorAll("#users tr")].find((row) => row.textContent.includes("user2")).textContent'), /Disabled/);
  await act('user2', 'Enable');
  await says(browser, '#status', 'user2 has been enabled');
  await act('user3', 'Sign out');
  await says(browser, '#status', 'Every session of user3 has ended');
  await browser.click('#forget-token');
  await browser.wait('!document.getElementById("token-form").hidden');
  assert.equal((await shown()).length, 0);
  await leavesNothing(browser);
});

trial('page: an invitation link, made in a dialog, lets the user choose a password, once', inBrowser, async (t) => {
  const { browser, url } = await open(t, { env: {} });
  await browser.click('footer a');
  await seen(browser, 'admin');
  await browser.click('#add');
  await browser.fill('#add-login', 'алиса');
  await browser.click('#add-form button[type=submit]');
  await browser.wait('document.getElementById("link-dialog").open');
  const link = await browser.run<string>('return document.getElementById("link").value');
  assert.ok(link.startsWith(`${url}/#password=`), link);
  await browser.click('[data-closes=link-dialog]');
  await browser.wait('document.querySelector("#users")?.textContent.includes("Invited")');
  await browser.open('about:blank');
  await browser.open(link);
  await seen(browser, 'password');
  assert.deepEqual(await browser.run('return [location.hash, document.getElementById("choose-login").value]'), ['#password', 'алиса']);
  await browser.fill('#choose-password', 'password');
  await browser.click('#choose-form button');
  await says(browser, '#choose-password-error', 'common');
  await browser.fill('#choose-password', password);
  await browser.click('#choose-form button');
  await seen(browser, 'account');
  await says(browser, '#status', 'Your password has been saved. You are signed in as алиса.');
  await browser.open('about:blank');
  await browser.open(link);
  await seen(browser, 'password');
  await browser.fill('#choose-password', 'another good one');
  await browser.click('#choose-form button');
  await says(browser, '#choose-form .problem', 'Ask for a new one');
  await browser.open('about:blank');
  await browser.open(`${url}/#password=a.%25`);
  await seen(browser, 'password');
  await browser.fill('#choose-password', 'another good one');
  await browser.click('#choose-form button');
  await says(browser, '#choose-form .problem', 'Ask for a new one');
});

trial('page: it returns to the path that was wanted, of the same origin only, and keeps a session if asked to', inBrowser, async (t) => {
  const { browser, service, url } = await open(t, { path: '/sign-in?to=/health/live?a=1&b=2' });
  await service.ask('/user/', { method: 'POST', body: { login: 'alice', password }, headers: asAdmin });
  const signIn = async (): Promise<void> => {
    await browser.fill('#sign-in-login', 'alice');
    await browser.fill('#sign-in-password', password);
    await browser.click('#keep');
    await browser.click('#sign-in-form button');
  };
  await signIn();
  await browser.wait('location.pathname === "/health/live" && location.search === "?a=1&b=2"');
  for (const to of ['//evil.example', '/\\evil.example', 'https://evil.example/', '%2F%2Fevil.example', '%zz', 'javascript:alert(1)']) {
    await browser.open(`${url}/sign-in?to=${to}`);
    await seen(browser, 'account');
  }
  await browser.devtools('Network.enable', {});
  const network = (offline: boolean): Promise<unknown> =>
    browser.devtools('Network.emulateNetworkConditions', { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await network(true);
  await browser.click('#sign-out');
  await says(browser, '#status', 'cannot be reached');
  assert.equal(await browser.run('return document.getElementById("account").hidden'), false, 'a session that goes on is not told as ended');
  await network(false);
  await browser.click('#sign-out');
  await seen(browser, 'sign-in');
  await browser.reload();
  await seen(browser, 'sign-in');
});

trial('page: the form to sign in is there at once, and usable while the session is looked up', inBrowser, async (t) => {
  const { browser, url } = await open(t);
  await browser.devtools('Network.enable', {});
  await browser.devtools('Network.emulateNetworkConditions', { offline: false, latency: 400, downloadThroughput: -1, uploadThroughput: -1 });
  await browser.open(`${url}/`);
  const [isShown, paint] = await browser.run<[boolean, number]>(
    'return [!document.getElementById("sign-in").hidden, performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0]');
  assert.ok(isShown);
  t.diagnostic(`first paint of the form with a latency of 400 ms: ${paint.toFixed(0)} ms`);
});

trial('page: the screenshot of README.md is what the page looks like', inBrowser, async (t) => {
  const { browser, service, url } = await open(t, { env: {}, width: 1100, height: 560 });
  for (const login of ['alice', 'борис', 'carol@example.org', 'dora']) await service.ask('/user/', { method: 'POST', body: { login, password } });
  await service.ask('/user/dora', { method: 'PATCH', body: { disabled: true } });
  await service.ask('/user/erin/password-link', { method: 'POST' });
  await browser.open(`${url}/#admin`);
  await browser.wait('!document.getElementById("admin-tools").hidden');
  const path = join(root, 'lib/page/screenshot.png');
  const made = join(temporaryDirectory(t), 'screenshot.png');
  await browser.screenshot(made);
  const bytes = readFileSync(made);
  assert.ok(bytes.length <= 120_000, `${bytes.length} bytes`);
  // Fonts differ between machines, so it is written where it is asked for, and otherwise only has to exist.
  if (process.env.SCREENSHOT === 'write') writeFileSync(path, bytes);
  assert.ok(readFileSync(path).subarray(1, 4).equals(Buffer.from('PNG')));
});

trial('page: axe finds no violation in any section, light and dark', { ...inBrowser, needs: [...inBrowser.needs, 'npm'] }, async (t) => {
  const directory = temporaryDirectory(t);
  spawnSync('npm', ['install', '--prefix', directory, '--no-audit', '--no-fund', '--ignore-scripts', 'axe-core@4'], { encoding: 'utf8', timeout: 100_000 });
  const axe = readFileSync(join(directory, 'node_modules/axe-core/axe.min.js'), 'utf8');
  for (const isDark of [false, true]) {
    const { browser, service } = await open(t, { env: {}, isDark });
    await service.ask('/user/', { method: 'POST', body: { login: 'bob', password } });
    const check = async (name: string): Promise<void> => {
      await browser.devtools('Runtime.evaluate', { expression: axe });
      const { result } = await browser.devtools('Runtime.evaluate', {
        expression: 'axe.run().then(({ violations }) => JSON.stringify(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])))', awaitPromise: true,
      });
      assert.equal(result.value, '[]', name);
    };
    await check('sign-in');
    await browser.click('nav a[href="#register"]');
    await seen(browser, 'register');
    await check('register');
    await browser.fill('#register-login', 'a b');
    await browser.fill('#register-password', 'short');
    await browser.click('#register-form button');
    await browser.wait('document.querySelector("#register-login-error")?.textContent');
    await check('register with errors');
    await browser.click('footer a');
    await seen(browser, 'admin');
    await check('admin');
    await browser.click('#add');
    await check('add dialog');
  }
});

trial('page: in unauthenticated mode the administrator needs no token, and a deletion still the password', inBrowser, async (t) => {
  const { browser, service } = await open(t, { env: {} });
  await register(browser, 'alice');
  await browser.fill('#delete-password', 'not the one');
  await browser.click('#delete-form button');
  await says(browser, '#delete-password-error', 'The password is wrong.');
  assert.equal((await service.ask('/user/alice')).status, 200);
  await browser.click('footer a');
  await seen(browser, 'admin');
  await browser.wait('!document.getElementById("open-mode").hidden');
  assert.match(await text(browser, '#users'), /alice/);
});

trial('page: by keyboard alone, in Russian', inBrowser, async (t) => {
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
  await says(browser, '#register-password-error', 'Такой пароль не подходит');
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

trial('page: a taken login is said at its field, and a service that asks for patience is given it', inBrowser, async (t) => {
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

trial('page: light and dark can be read, and a narrow screen holds it', inBrowser, async (t) => {
  for (const isDark of [false, true]) {
    const { browser } = await open(t, { isDark, width: 320, height: 640, language: isDark ? 'ru' : 'en' });
    for (const view of ['sign-in', 'register', 'admin']) {
      await browser.click(view === 'admin' ? 'footer a' : `nav a[href="#${view}"]`);
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
