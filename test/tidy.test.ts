/** The rules of the house that a machine can check. A finding is `path:line: what is wrong`. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import { root } from './helper/temporary.ts';

const columnsMax = 140;
const linesMax = 400;

/** What an import may reach, from the longest prefix of the importing file that is listed. No rule: itself and errors. */
const reach: Readonly<Record<string, readonly string[]>> = {
  'bin/proxy.ts': ['bin/proxy-run.ts', 'bin/terminal.ts', 'lib/errors.ts', 'lib/proxy/', 'lib/session/admin-token.ts'],
  'bin/proxy-run.ts': ['bin/terminal.ts', 'lib/app.ts', 'lib/errors.ts', 'lib/maintenance.ts', 'lib/proxy/'],
  'bin/registrar.ts': ['bin/', 'lib/ops/systemd-notify.ts', 'lib/app.ts', 'lib/config.ts', 'lib/errors.ts'],
  'bin/systemd.ts': ['lib/ops/systemd-unit.ts', 'lib/config.ts', 'lib/errors.ts'],
  'bin/log-output.ts': ['lib/ops/watch.ts'],
  'bin/bench.ts': ['bin/bench-usage.ts', 'lib/store/cursor.ts', 'test/helper/'],
  'bin/bench-usage.ts': [],
  'bin/': ['bin/terminal.ts', 'lib/command-config.ts', 'lib/config.ts', 'lib/errors.ts', 'lib/maintenance.ts', 'lib/moving.ts', 'lib/open-registry.ts'],
  'bin/openapi.ts': ['bin/terminal.ts', 'lib/command-config.ts', 'lib/http/openapi.ts'],
  'lib/app.ts': ['lib/'],
  'lib/flags.ts': ['lib/errors.ts', 'lib/password/kdf.ts'],
  'lib/config.ts': ['lib/access.ts', 'lib/flags.ts', 'lib/password/kdf.ts'],
  'lib/command-config.ts': ['lib/config.ts', 'lib/flags.ts', 'lib/password/foreign-hash.ts'],
  'lib/maintenance.ts': ['lib/'],
  'lib/open-store.ts': ['lib/'],
  'lib/moving.ts': ['lib/'],
  'lib/open-registry.ts': ['lib/'],
  'lib/open-policy.ts': ['lib/config.ts', 'lib/password/kdf.ts', 'lib/password-policy.ts'],
  'lib/library.ts': ['lib/command-config.ts', 'lib/errors.ts', 'lib/open-registry.ts', 'lib/user.ts'],
  'lib/errors.ts': [],
  'lib/json.ts': [],
  'lib/user.ts': [],
  'lib/user-store.ts': ['lib/user.ts'],
  'lib/password-policy.ts': [],
  'lib/access.ts': ['lib/errors.ts'],
  'lib/registry.ts': ['lib/errors.ts', 'lib/user.ts', 'lib/user-store.ts', 'lib/password-policy.ts'],
  'lib/password/': ['lib/password/', 'lib/errors.ts', 'lib/user.ts'],
  'lib/transfer/': [
    'lib/transfer/', 'lib/errors.ts', 'lib/json.ts', 'lib/user.ts', 'lib/user-store.ts', 'lib/password-policy.ts',
    'lib/password/foreign-hash.ts', 'lib/password/kdf.ts',
  ],
  'lib/session/': ['lib/session/', 'lib/errors.ts'],
  'lib/proxy/': [
    'lib/proxy/', 'lib/config.ts', 'lib/errors.ts', 'lib/flags.ts', 'lib/access.ts', 'lib/http/body.ts', 'lib/http/client-address.ts', 'lib/http/server.ts',
  ],
  'lib/ops/': ['lib/ops/', 'lib/access.ts', 'lib/errors.ts'],
  'lib/http/router.ts': [],
  'lib/http/': ['lib/http/', 'lib/ops/served.ts', 'lib/json.ts', 'lib/errors.ts', 'lib/user.ts', 'lib/registry.ts', 'lib/access.ts'],
  'lib/http/page/': ['lib/http/page/'],
  'lib/store/file/': ['lib/store/file/', 'lib/store/cursor.ts', 'lib/store/decide.ts', 'lib/errors.ts', 'lib/user-store.ts'],
  'lib/store/etcd/': ['lib/store/etcd/', 'lib/store/cursor.ts', 'lib/store/decide.ts', 'lib/errors.ts', 'lib/user-store.ts'],
  'lib/store/': ['lib/store/cursor.ts', 'lib/store/decide.ts', 'lib/errors.ts', 'lib/user.ts', 'lib/user-store.ts'],
};

/** Files whose behaviour is another file's test, since alone they do nothing that could be seen. */
const testedBy: Readonly<Record<string, string>> = {
  'lib/app.ts': 'test/cli.test.ts',
  'lib/command-config.ts': 'test/config.test.ts',
  'lib/flags.ts': 'test/config.test.ts',
  'lib/maintenance.ts': 'test/cli.test.ts',
  'lib/open-store.ts': 'test/cluster.test.ts',
  'lib/moving.ts': 'test/transfer/cli-transfer.test.ts',
  'lib/open-policy.ts': 'test/cli.test.ts',
  'lib/open-registry.ts': 'test/user-command.test.ts',
  'lib/user-store.ts': 'test/helper/user-store-contract.ts',
  'lib/http/body.ts': 'test/http/api.test.ts',
  'lib/http/conditional.ts': 'test/http/api.test.ts',
  'lib/http/gate.ts': 'test/http/session.test.ts',
  'lib/http/handler.ts': 'test/http/server.test.ts',
  'lib/http/listen.ts': 'test/http/server.test.ts',
  'lib/http/message.ts': 'test/http/api.test.ts',
  'lib/http/openapi-operations.ts': 'test/http/openapi.test.ts',
  'lib/http/openapi-schemas.ts': 'test/http/openapi.test.ts',
  'lib/http/page-routes.ts': 'test/http/page.test.ts',
  'lib/http/page/account.js': 'test/http/page.test.ts',
  'lib/http/page/admin.js': 'test/http/page.test.ts',
  'lib/http/page/api.js': 'test/http/page.test.ts',
  'lib/http/page/form.js': 'test/http/page.test.ts',
  'lib/http/page/page.js': 'test/http/page.test.ts',
  'lib/http/page/rules.js': 'test/http/page-words.test.ts',
  'lib/http/page/words.js': 'test/http/page-words.test.ts',
  'lib/http/problem.ts': 'test/http/api.test.ts',
  'lib/http/ops-routes.ts': 'test/ops/watch.test.ts',
  'lib/http/query.ts': 'test/http/api.test.ts',
  'lib/http/request-check.ts': 'test/malformed.test.ts',
  'lib/http/routes.ts': 'test/http/api.test.ts',
  'lib/password/failure-work.ts': 'test/password/hasher.test.ts',
  'lib/http/send.ts': 'test/http/handler.test.ts',
  'lib/http/session-routes.ts': 'test/http/session.test.ts',
  'lib/ops/process-metrics.ts': 'test/ops/watch.test.ts',
  'lib/ops/served.ts': 'test/ops/watch.test.ts',
  'lib/ops/service-metrics.ts': 'test/ops/watch.test.ts',
  'lib/password/hash-worker.js': 'test/password/hasher.test.ts',
  'lib/proxy/config.ts': 'test/proxy/site.test.ts',
  'lib/proxy/nginx-auth.ts': 'test/proxy/nginx.test.ts',
  'lib/session/secret-store.ts': 'test/session/secret-files.test.ts',
  'lib/session/sessions.ts': 'test/http/session.test.ts',
  'lib/store/cursor.ts': 'test/helper/user-store-contract.ts',
  'lib/store/decide.ts': 'test/helper/user-store-contract.ts',
  'lib/store/etcd/batches.ts': 'test/store/etcd/store.test.ts',
  'lib/store/etcd/creates.ts': 'test/store/etcd/store.test.ts',
  'lib/store/etcd/ids.ts': 'test/store/etcd/store.test.ts',
  'lib/store/etcd/kdfs.ts': 'test/store/etcd/store.test.ts',
  'lib/store/etcd/list.ts': 'test/store/etcd/store.test.ts',
  'lib/store/etcd/member.ts': 'test/store/etcd/client.test.ts',
  'lib/store/etcd/reads.ts': 'test/store/etcd/store.test.ts',
  'lib/store/etcd/secrets.ts': 'test/store/etcd/store.test.ts',
  'lib/store/file/beacon.ts': 'test/store/file/lock.test.ts',
  'lib/store/file/failure.ts': 'test/store/file/store.test.ts',
  'lib/store/file/file-system.ts': 'test/store/file/store.test.ts',
  'lib/store/file/half-sip-hash.ts': 'test/store/file/index.test.ts',
  'lib/store/file/identity.ts': 'test/store/file/lock.test.ts',
  'lib/store/file/line-reader.ts': 'test/store/file/store.test.ts',
  'lib/store/file/log.ts': 'test/store/file/recover.test.ts',
  'lib/store/file/kdf-set.ts': 'test/store/file/record.test.ts',
  'lib/store/file/salvage.ts': 'test/store/file/repair.test.ts',
  'lib/store/file/settle.ts': 'test/store/file/store.test.ts',
  'lib/store/file/shared-log.ts': 'test/store/file/store.test.ts',
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
  const visit = (name: string, path: readonly string[]): void => {
    if (path.includes(name)) {
      findings.push([...path.slice(path.indexOf(name)), name].join(' -> '));
      return;
    }
    for (const target of imports(name)) visit(target, [...path, name]);
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

test('tidy: every source file opens by saying what it is, and every one has a test', () => {
  const findings: string[] = [];
  for (const name of sources) {
    if (!/^(?:#!.*\n)?\/\*\*/.test(texts.get(name) ?? '')) findings.push(`${name}:1: opens with no comment`);
    if (!name.startsWith('lib/')) continue;
    const own = name.replace(/^lib\//, 'test/').replace(/\.ts$/, '.test.ts');
    const tested = testedBy[name] ?? own;
    if (!texts.has(tested)) findings.push(`${name}: has no ${tested}`);
  }
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
      if (!isUsed && !stands) findings.push(`${name}: nobody uses ${word}`);
    }
  }
  assert.deepEqual(findings, []);
});

test('tidy: no runtime dependency, and four to develop with', () => {
  const { dependencies, optionalDependencies, peerDependencies, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.deepEqual([dependencies, optionalDependencies, peerDependencies], [undefined, undefined, undefined]);
  assert.deepEqual(Object.keys(devDependencies), ['@types/node', 'c8', 'tsx', 'typescript']);
});

test('tidy: the top level holds what it should, and no secret is tracked', { skip: spawnSync('git', ['-C', root, 'rev-parse']).status !== 0 && 'this is no git checkout' }, () => {
  const tracked = spawnSync('git', ['ls-files', '-co', '--exclude-standard'], { cwd: root, encoding: 'utf8' }).stdout.trim().split('\n');
  const allowed = [
    '.ci', '.gitignore', 'LICENSE', 'Makefile', 'README.md', 'bin', 'certs', 'data', 'lib', 'package-lock.json', 'package.json', 'test', 'tsconfig.json',
  ];
  assert.deepEqual([...new Set(tracked.map((name) => name.split('/')[0]!))].sort(), allowed);
  assert.deepEqual(tracked.filter((name) => /^(?:data|certs)\//.test(name)), ['certs/.gitignore', 'data/.gitignore']);
});
