/** The rules of the house that a machine can check. A finding is `path:line: what is wrong`. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import { root } from './helper/temporary.ts';

const columnsMax = 140;
const linesMax = 300;
const testFilesMax = 90;

/** What the stores share. */
const storeRules = ['lib/store/costliest-kdfs.ts', 'lib/store/cursor.ts', 'lib/store/decide.ts', 'lib/store/user-record.ts'];

/** What an import may reach, from the longest prefix of the importing file that is listed. No rule: itself and errors. */
const reach: Readonly<Record<string, readonly string[]>> = {
  'bin/command/': ['bin/command/', 'lib/'],
  'bin/registrar.ts': ['bin/command/main.ts'],
  'lib/app.ts': ['lib/'],
  'lib/flags.ts': ['lib/errors.ts'],
  'lib/config.ts': ['lib/auth/client-address.ts', 'lib/flags.ts', 'lib/password/foreign-hash.ts', 'lib/password/kdf.ts'],
  'lib/open.ts': ['lib/'],
  'lib/library.ts': ['lib/config.ts', 'lib/errors.ts', 'lib/flags.ts', 'lib/open.ts', 'lib/user.ts'],
  'lib/errors.ts': [],
  'lib/durable-file.ts': ['lib/errors.ts'],
  'lib/json.ts': [],
  'lib/login-characters.ts': [],
  'lib/reserved-logins.ts': [],
  'lib/user.ts': ['lib/login-characters.ts'],
  'lib/user-store.ts': ['lib/user.ts'],
  'lib/password-policy.ts': [],
  'lib/access.ts': ['lib/errors.ts'],
  'lib/registry.ts': ['lib/errors.ts', 'lib/reserved-logins.ts', 'lib/user.ts', 'lib/user-store.ts', 'lib/password-policy.ts'],
  'lib/password/': ['lib/password/', 'lib/errors.ts', 'lib/user.ts'],
  'lib/transfer/': [
    'lib/transfer/', 'lib/durable-file.ts', 'lib/errors.ts', 'lib/json.ts', 'lib/user.ts', 'lib/user-store.ts', 'lib/password-policy.ts',
    'lib/password/equalize-cost.ts', 'lib/password/foreign-hash.ts', 'lib/password/kdf.ts',
  ],
  'lib/auth/': ['lib/durable-file.ts', 'lib/auth/', 'lib/access.ts', 'lib/errors.ts', 'lib/registry.ts', 'lib/user.ts'],
  'lib/deploy/': [
    'lib/deploy/', 'lib/config.ts', 'lib/errors.ts', 'lib/flags.ts', 'lib/access.ts', 'lib/http/body.ts', 'lib/auth/client-address.ts', 'lib/http/server-options.ts',
  ],
  'lib/telemetry/': ['lib/telemetry/', 'lib/auth/request-context.ts', 'lib/errors.ts'],
  'lib/http/': ['lib/http/', 'lib/auth/', 'lib/json.ts', 'lib/errors.ts', 'lib/user.ts', 'lib/registry.ts', 'lib/access.ts'],
  'lib/page/': ['lib/page/'],
  'lib/store/file/': ['lib/store/file/', 'lib/user.ts', 'lib/durable-file.ts', ...storeRules, 'lib/errors.ts', 'lib/user-store.ts'],
  'lib/store/etcd/': ['lib/store/etcd/', ...storeRules, 'lib/errors.ts', 'lib/json.ts', 'lib/user-store.ts'],
  'lib/store/': [...storeRules, 'lib/errors.ts', 'lib/user.ts', 'lib/user-store.ts'],
};

/** Each with what to do instead. */
const banned: readonly [pattern: RegExp, instead: string, where: RegExp][] = [
  [/\bconsole\./, 'report through the option that is passed in', /^lib\//],
  [/\bprocess\.(?:argv|env|exit|exitCode|stdout|stderr|stdin)\b/, 'let bin/ pass it in', /^lib\//],
  [/\bexport default\b/, 'name the export', /^(?:lib|bin|test)\//],
  [/\b(?:enum|namespace)\s+\w+\s*\{/, 'use a union of literals, or a module', /^(?:lib|bin|test)\//],
  [/:\s*any\b|<any>|as any\b/, 'use unknown and narrow it', /^(?:lib|bin)\//],
  [/\b(?:TODO|FIXME|XXX)\b/, 'do it', /^(?:lib|bin|test)\/(?!tidy)/],
  [/@ts-(?:ignore|expect-error|nocheck)/, 'mend the type', /^(?:lib|bin|test)\/(?!tidy)/],
  [/\btest\.only\b|\bonly:\s*true/, 'run all of them', /^test\/(?!tidy)/],
  [/from '(?!node:|\.)/, 'use what Node has', /^(?:lib|bin)\//],
  // The old vocabulary, as far as a word has no other use.
  [
    /\b(?:KdfSet|InClear|Newcomer|LateHasher|StrangeAnswer|reseat|nicest|decoy|dearest|ousted|salvage\w*|unproven|giveBack|handOver|carryOut|isStale)\b/,
    'use the term of the field', /^(?:lib|bin|test)\/(?!tidy)/,
  ],
  [/\b(?:isPlain|isHarmless|isDoubtful|beacons?|set aside|break right|closed mode|open mode)\b/, 'use the term of the field', /^(?:lib|bin|test)\/(?!tidy)/],
  [/^\s*(?:\/?\*|\/\/|test\(|trial\().*\b(?:some|any|every|no)body\b/i, 'name the user, the client or the process', /^(?:lib|bin|test)\/(?!tidy)/],
  [/^\s*(?:\/?\*|\/\/|test\(|trial\().*\b(?:whoever|lest)\b/i, 'write it in plain words', /^(?:lib|bin|test)\/(?!tidy)/],
];

function files(...directories: string[]): string[] {
  return directories.flatMap((directory) =>
    readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' })
      .map((name) => join(directory, name))
      .filter((name) => /\.(?:ts|js)$/.test(name) && statSync(join(root, name)).isFile()),
  ).sort();
}

const sources = files('lib', 'bin');
const texts = new Map([...sources, ...files('test')].map((name) => [name, readFileSync(join(root, name), 'utf8')]));

const isTest = (name: string): boolean => /\.test\.ts$/.test(name);

function imports(name: string): string[] {
  const found = (texts.get(name) ?? '').matchAll(/(?:from|import)\s+'(\.[^']+)'/g);
  return [...found].map(([, path = '']) => relative(root, resolve(root, dirname(name), path)));
}

test('tidy: imports run downwards only', () => {
  const findings: string[] = [];
  for (const name of sources) {
    const rule = Object.keys(reach).filter((prefix) => name.startsWith(prefix)).sort((a, b) => b.length - a.length)[0];
    assert.ok(rule !== undefined, `${name} has no rule`);
    for (const target of imports(name)) {
      if (!reach[rule]!.some((allowed) => target === allowed || (allowed.endsWith('/') && target.startsWith(allowed)))) {
        findings.push(`${name}: imports ${target}`);
      }
    }
  }
  assert.deepEqual(findings, []);
});

test('tidy: no import leads back to where it began, types included', () => {
  const findings: string[] = [];
  const done = new Set<string>();
  const visit = (name: string, path: readonly string[]): void => {
    if (path.includes(name)) {
      findings.push([...path.slice(path.indexOf(name)), name].join(' -> '));
      return;
    }
    if (done.has(name)) return;
    for (const target of imports(name)) visit(target, [...path, name]);
    done.add(name);
  };
  for (const name of sources) visit(name, []);
  assert.deepEqual([...new Set(findings)], []);
});

test('tidy: nothing that is banned, no line too long, no file too long', () => {
  const findings: string[] = [];
  for (const [name, text] of texts) {
    const lines = text.split('\n');
    if (!name.startsWith('test/') && lines.length > linesMax) findings.push(`${name}: has ${lines.length} lines, and may have ${linesMax}`);
    for (const [n, line] of lines.entries()) {
      if ([...line].length > columnsMax && !name.startsWith('test/')) findings.push(`${name}:${n + 1}: is longer than ${columnsMax} columns`);
      if (/\s$/.test(line)) findings.push(`${name}:${n + 1}: ends in white space`);
      for (const [pattern, instead, where] of banned) {
        if (where.test(name) && pattern.test(line)) findings.push(`${name}:${n + 1}: ${pattern.source}: ${instead}`);
      }
    }
  }
  assert.deepEqual(findings, []);
});

test('tidy: every source file opens with a comment, and a fast test imports it, directly or not', () => {
  const findings: string[] = [];
  const reached = new Set<string>();
  const follow = (name: string): void => {
    if (reached.has(name)) return;
    reached.add(name);
    imports(name).forEach(follow);
  };
  // Commands are tested as processes, so what they import counts as well.
  [...texts.keys()].filter((name) => name.startsWith('bin/') || (isTest(name) && !name.startsWith('test/trial/'))).forEach(follow);
  for (const name of sources) {
    if (!/^(?:#!.*\n)?\/\*\*/.test(texts.get(name) ?? '')) findings.push(`${name}:1: opens with no comment`);
    // The page's scripts run in a browser, the worker in a thread, and a command in a process of its own.
    if (/^lib\/(?:http\/)?page\/|^lib\/password\/hash-worker\.js$|^bin\//.test(name)) continue;
    if (!reached.has(name)) findings.push(`${name}: no fast test imports it`);
  }
  assert.deepEqual(findings, []);
});

test('tidy: trials are registered by trial() alone, and at most 90 files are below test/', () => {
  const findings: string[] = [];
  for (const [name, text] of texts) {
    if (!name.startsWith('test/trial/')) continue;
    if (!isTest(name)) findings.push(`${name}: is no test file; helpers stand in test/helper/`);
    if (/^import \{[^}]*\} from 'node:test'/m.test(text)) findings.push(`${name}: imports node:test; use test/helper/trial.ts`);
    if (!/from '\.\.\/helper\/(?:trial|proxy-trials)\.ts'/.test(text)) findings.push(`${name}: does not import test/helper/trial.ts`);
  }
  const all = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' }).filter((name) => statSync(join(root, 'test', name)).isFile());
  if (all.length > testFilesMax) findings.push(`test/ has ${all.length} files, and may have ${testFilesMax}`);
  assert.deepEqual(findings, []);
});

test('tidy: exports have a name that is used elsewhere', () => {
  const findings: string[] = [];
  const all = [...texts];
  for (const name of sources.filter((source) => source.startsWith('lib/'))) {
    for (const [, word = ''] of (texts.get(name) ?? '').matchAll(/^export (?:async )?(?:function|class|const|interface|type) (\w+)/gm)) {
      const isUsed = all.some(([other, text]) => other !== name && new RegExp(`\\b${word}\\b`).test(text));
      // A type may be exported for the signature that it stands in.
      const stands = new RegExp(`[:<|(]\\s*(?:readonly )?${word}\\b|${word}\\)`).test(texts.get(name) ?? '');
      if (!isUsed && !stands) findings.push(`${name}: no file uses ${word}`);
    }
  }
  assert.deepEqual(findings, []);
});

test('tidy: no runtime dependency, and four to develop with', () => {
  const { dependencies, optionalDependencies, peerDependencies, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.deepEqual([dependencies, optionalDependencies, peerDependencies], [undefined, undefined, undefined]);
  assert.deepEqual(Object.keys(devDependencies), ['@types/node', 'c8', 'tsx', 'typescript']);
});

test('tidy: the top level holds what it should, and no secret is tracked', () => {
  const listed = spawnSync('git', ['ls-files', '-co', '--exclude-standard'], { cwd: root, encoding: 'utf8' });
  const allowed = [
    '.ci', '.gitignore', 'LICENSE', 'Makefile', 'README.md', 'bin', 'certs', 'data', 'lib', 'package-lock.json', 'package.json', 'test', 'tsconfig.json',
  ];
  if (listed.status !== 0) {
    // No git, or no checkout: what .gitignore names may be there.
    const ignored = ['.git', 'node_modules', 'dist', 'coverage'];
    assert.deepEqual(readdirSync(root).filter((name) => !ignored.includes(name)).sort(), allowed);
    return;
  }
  const tracked = listed.stdout.trim().split('\n');
  assert.deepEqual([...new Set(tracked.map((name) => name.split('/')[0]!))].sort(), allowed);
  assert.deepEqual(tracked.filter((name) => /^(?:data|certs)\//.test(name)), ['certs/.gitignore', 'data/.gitignore']);
});
