/** The OpenAPI document and the JWKS, used by linters, client generators and JOSE libraries of the registry. */

import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { openApiJson } from '../../lib/http/routes.ts';
import { adminToken, cheap, openService } from '../helper/service.ts';
import { childEnvironment, loader, npmEnvironment, root, temporaryDirectory } from '../helper/temporary.ts';
import { trial } from '../helper/trial.ts';

const env = { ...npmEnvironment(), REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' };
/** The collection is `/user/`, and both linters would rather have no slash at the end. */
const redocly = 'extends: [recommended]\nrules:\n  no-path-trailing-slash: off\n';
const spectral = 'extends: ["spectral:oas"]\nrules:\n  path-keys-no-trailing-slash: off\n';
const packages = [
  'openapi-typescript@7', 'openapi-fetch', '@hey-api/openapi-ts', 'orval@7', 'swagger-typescript-api', 'typescript@5', '@types/node',
  '@stoplight/prism-cli', '@redocly/cli', '@stoplight/spectral-cli',
];

const common = `
const [base = '', token = '', login = ''] = process.argv.slice(2);
const headers = { Authorization: 'Bearer ' + token };
const body = { login, password: 'correct horse battery' };
const check = (name: string, actual: unknown, expected: unknown): void => {
  if (actual !== expected) throw new Error(name + ': ' + String(actual) + ' and not ' + String(expected));
};
`;

/** A program for each generated client: create, read, list, sign in, a login that is taken, delete. */
const clients: Readonly<Record<string, string>> = {
  'openapi-fetch': `
import createClient from 'openapi-fetch';
import type { paths } from './typed.js';${common}
const client = createClient<paths>({ baseUrl: base, headers });
const created = await client.POST('/user/', { body });
check('create', created.data?.login, login);
const path = { login };
check('read', (await client.GET('/user/{login}', { params: { path } })).data?.id, created.data?.id);
const list = await client.GET('/user/', { params: { query: { limit: 1000 } } });
check('list', typeof list.data === 'object' && list.data.users.some((user) => user.login === login), true);
check('sign in', (await client.POST('/session', { body })).data?.user.login, login);
check('taken', (await client.POST('/user/', { body })).error?.type, 'urn:registrar:taken');
check('delete', (await client.DELETE('/user/{login}', { params: { path } })).response.status, 204);
`,
  'hey-api': `
import { client } from './hey/client.gen';
import { getUser, listUsers, openSession, registerUser, removeUser } from './hey/sdk.gen';${common}
client.setConfig({ baseUrl: base, headers });
const created = await registerUser({ body });
check('create', created.data?.login, login);
const path = { login };
check('read', (await getUser({ path })).data?.id, created.data?.id);
const list = await listUsers({ query: { limit: 1000 } });
check('list', typeof list.data === 'object' && list.data.users.some((user) => user.login === login), true);
check('sign in', (await openSession({ body })).data?.user.login, login);
check('taken', (await registerUser({ body })).error?.type, 'urn:registrar:taken');
check('delete', (await removeUser({ path })).response?.status, 204);
`,
  orval: `
import { getUser, listUsers, openSession, registerUser, removeUser } from './orval';${common}
const { fetch } = globalThis;
globalThis.fetch = (input, init) => fetch(new URL(String(input), base), init);
const created = await registerUser(body, { headers: { ...headers, 'Content-Type': 'application/json' } });
check('create', created.status === 201 ? created.data.login : created.status, login);
const read = await getUser(login, { headers });
check('read', read.status === 200 ? read.data.login : read.status, login);
const list = await listUsers({ limit: 1000 }, { headers });
// It leaves a response that may be NDJSON to its caller.
if (list.status !== 200 || !('stream' in list)) throw new Error('list: ' + list.status);
check('list', (await list.stream.text()).includes('"login":"' + login + '"'), true);
const session = await openSession(body);
check('sign in', session.status === 201 ? session.data.user.login : session.status, login);
const taken = await registerUser(body, { headers: { ...headers, 'Content-Type': 'application/json' } });
check('taken', taken.status === 409 ? taken.data.type : taken.status, 'urn:registrar:taken');
check('delete', (await removeUser(login, { headers })).status, 204);
`,
  'swagger-typescript-api': `
import { Api } from './swagger/api';${common}
const { user, session } = new Api({ baseUrl: base, baseApiParams: { headers } });
const created = await user.registerUser(body);
check('create', created.data.login, login);
check('read', (await user.getUser(login)).data.id, created.data.id);
const list = await user.listUsers({ limit: 1000 }, { format: 'json' });
check('list', typeof list.data === 'object' && list.data.users.some((other) => other.login === login), true);
check('sign in', (await session.openSession(body, { format: 'json' })).data.user.login, login);
check('taken', await user.registerUser(body).catch(({ error }) => error.type), 'urn:registrar:taken');
check('delete', (await user.removeUser(login)).status, 204);
`,
};

trial('openapi: the command prints what the service answers', async (t) => {
  const { ask } = await openService(t);
  const { text, headers } = await ask('/openapi.json');
  assert.equal(headers['content-type'], 'application/json');
  const printed = spawnSync(process.execPath, [...loader, 'bin/registrar.ts', 'openapi'], { cwd: root, env: childEnvironment(), encoding: 'utf8', timeout: 30_000 });
  assert.deepEqual([printed.status, printed.stderr, printed.stdout === text], [0, '', true]);
});

trial('openapi: linters find nothing, generated clients compile strictly and work, and Prism finds no violation', { timeout: 1_200_000 }, async (t) => {
  const directory = temporaryDirectory(t);
  const run = (command: string, ...args: readonly string[]) => {
    const { status, stdout, stderr } = spawnSync(command, args, { cwd: directory, encoding: 'utf8', timeout: 600_000, env });
    return { status, said: `${command} ${args.join(' ')}\n${stdout}${stderr}` };
  };
  const good = (command: string, ...args: readonly string[]): void => {
    const { status, said } = run(command, ...args);
    assert.equal(status, 0, said);
  };
  writeFileSync(join(directory, 'package.json'), '{"private":true,"type":"module"}');
  const installed = run('npm', 'install', '--no-audit', '--no-fund', '--ignore-scripts', ...packages);
  if (installed.status !== 0) return t.skip(`npm cannot install: ${installed.said.trim().split('\n').at(-1)}`);
  const bin = (name: string): string => join(directory, 'node_modules/.bin', name);
  const document = openApiJson();
  writeFileSync(join(directory, 'openapi.json'), document);
  writeFileSync(join(directory, 'redocly.yaml'), redocly);
  writeFileSync(join(directory, 'spectral.yaml'), spectral);
  good(bin('redocly'), 'lint', 'openapi.json');
  good(bin('spectral'), 'lint', '--fail-severity', 'hint', '--ruleset', 'spectral.yaml', 'openapi.json');
  const { info: { license: _license, ...info }, ...rest } = JSON.parse(document);
  delete rest.paths['/user/'].get.responses['200'].description;
  writeFileSync(join(directory, 'bad.json'), JSON.stringify({ ...rest, info }));
  assert.notEqual(run(bin('redocly'), 'lint', 'bad.json').status, 0);
  assert.notEqual(run(bin('spectral'), 'lint', '--ruleset', 'spectral.yaml', 'bad.json').status, 0);

  good(bin('openapi-typescript'), 'openapi.json', '-o', 'typed.ts');
  good(bin('openapi-ts'), '-i', 'openapi.json', '-o', 'hey');
  good(bin('orval'), '--input', 'openapi.json', '--output', 'orval.ts', '--client', 'fetch');
  good(bin('swagger-typescript-api'), 'generate', '-p', 'openapi.json', '-o', 'swagger', '-n', 'api.ts');
  const service = await openService(t, [...cheap, '--http'], { REGISTRAR_ADMIN_TOKEN: adminToken });
  const port = String(Number(new URL(service.url).port) + 1);
  const prism = spawn(bin('prism'), ['proxy', 'openapi.json', service.url, '--errors', '--port', port], { cwd: directory, env });
  t.after(async () => {
    prism.kill();
    if (prism.exitCode === null) await once(prism, 'exit');
  });
  let log = '';
  const listening = new Promise<void>((resolve) => prism.stdout.on('data', (chunk) => {
    log += String(chunk);
    if (log.includes('is listening')) resolve();
  }));
  await Promise.race([listening, once(prism, 'exit').then(() => assert.fail(log))]);
  for (const [name, text] of Object.entries(clients)) {
    writeFileSync(join(directory, `use-${name}.ts`), text);
    good(bin('tsc'), '--strict', '--noEmit', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler', `use-${name}.ts`);
    good(bin('esbuild'), `use-${name}.ts`, '--bundle', '--platform=node', '--format=esm', `--outfile=use-${name}.mjs`, '--log-level=warning');
    for (const [n, base] of [service.url, `http://127.0.0.1:${port}`].entries()) {
      // Not synchronously: the service runs in this process.
      const client = spawn(process.execPath, [`use-${name}.mjs`, base, adminToken, `${name}${n}`], { cwd: directory, env });
      let said = '';
      client.stderr.on('data', (chunk) => (said += String(chunk)));
      const [code] = await once(client, 'exit');
      assert.equal(code, 0, `${name}, ${n === 0 ? 'directly' : 'through Prism'}: ${said}`);
    }
  }
  assert.doesNotMatch(log, /violation|Request terminated with error/i);
});

/** Each prints `sub` and `preferred_username` of a token that it accepts, and fails for any other. Arguments: token, URL of the JWKS, audience. */
const programs: readonly (readonly [name: string, file: string, command: readonly string[], source: string])[] = [
  ['jose', 'jose.mjs', [process.execPath], `
    import { createRemoteJWKSet, jwtVerify } from 'jose';
    const [token, url, audience] = process.argv.slice(2);
    const { payload } = await jwtVerify(token, createRemoteJWKSet(new URL(url)), { issuer: 'registrar', audience, algorithms: ['ES256'] });
    console.log(payload.sub, payload.preferred_username);`],
  ['jsonwebtoken and jwks-rsa', 'jsonwebtoken.mjs', [process.execPath], `
    import jwt from 'jsonwebtoken';
    import jwksClient from 'jwks-rsa';
    const [token, jwksUri, audience] = process.argv.slice(2);
    const client = jwksClient({ jwksUri });
    const key = (header, done) => client.getSigningKey(header.kid, (error, found) => done(error, found?.getPublicKey()));
    jwt.verify(token, key, { issuer: 'registrar', audience, algorithms: ['ES256'] }, (error, payload) => {
      if (error) throw error;
      console.log(payload.sub, payload.preferred_username);
    });`],
  ['PyJWT', 'pyjwt.py', ['/usr/bin/python3'], `
import sys, jwt
token, url, audience = sys.argv[1:]
key = jwt.PyJWKClient(url).get_signing_key_from_jwt(token).key
payload = jwt.decode(token, key, algorithms=['ES256'], issuer='registrar', audience=audience)
print(payload['sub'], payload['preferred_username'])`],
  ['python-jose', 'python_jose.py', ['/usr/bin/python3'], `
import sys, json, urllib.request
from jose import jwt
token, url, audience = sys.argv[1:]
payload = jwt.decode(token, json.load(urllib.request.urlopen(url)), algorithms=['ES256'], issuer='registrar', audience=audience)
print(payload['sub'], payload['preferred_username'])`],
  ['golang-jwt', 'main.go', ['go', 'run'], `
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"

	"github.com/golang-jwt/jwt"
)

type key struct{ Kid, X, Y string }

func number(text string) *big.Int {
	bytes, _ := base64.RawURLEncoding.DecodeString(text)
	return new(big.Int).SetBytes(bytes)
}

func main() {
	response, err := http.Get(os.Args[2])
	if err != nil {
		panic(err)
	}
	var set struct{ Keys []key }
	if err := json.NewDecoder(response.Body).Decode(&set); err != nil {
		panic(err)
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}))
	token, err := parser.Parse(os.Args[1], func(token *jwt.Token) (interface{}, error) {
		for _, key := range set.Keys {
			if key.Kid == token.Header["kid"] {
				return &ecdsa.PublicKey{Curve: elliptic.P256(), X: number(key.X), Y: number(key.Y)}, nil
			}
		}
		return nil, fmt.Errorf("unknown key")
	})
	if err != nil {
		panic(err)
	}
	claims := token.Claims.(jwt.MapClaims)
	if !claims.VerifyAudience(os.Args[3], true) || !claims.VerifyIssuer("registrar", true) {
		panic("another audience or issuer")
	}
	fmt.Println(claims["sub"], claims["preferred_username"])
}`],
];

const run = promisify(execFile);

trial('jose: five libraries in three languages verify a token by the JWKS, and reject a changed one', { needs: ['npm', 'go'], timeout: 300_000 }, async (t) => {
  const directory = temporaryDirectory(t);
  await run('npm', ['install', '--no-audit', '--no-fund', '--prefix', directory, 'jose', 'jsonwebtoken', 'jwks-rsa'], { cwd: directory });
  const args = [...cheap, '--http', '--audience', 'app'];
  const { url } = await openService(t, args, { REGISTRAR_ADMIN_TOKEN: adminToken });
  const post = async (path: string): Promise<any> => {
    const body = JSON.stringify({ login: 'алиса', password: 'correct horse battery' });
    return (await fetch(`${url}${path}`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body })).json();
  };
  await post('/user/');
  const { token } = await post('/session');
  const [head, payload, signature] = token.split('.');
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
  const changed = [head, Buffer.from(JSON.stringify({ ...claims, sub: '2' })).toString('base64url'), signature].join('.');
  const jwks = `${url}/.well-known/jwks.json`;
  const env = { ...process.env, GO111MODULE: 'off', GOPATH: `${directory}/go:/usr/share/gocode`, GOCACHE: join(directory, 'cache'), PYTHONIOENCODING: 'utf-8' };
  for (const [name, file, [program = '', ...words], source] of programs) {
    const path = join(directory, file);
    writeFileSync(path, source.trimStart());
    const verify = (text: string, audience = 'app') => run(program, [...words, path, text, jwks, audience], { cwd: directory, env });
    assert.equal((await verify(token)).stdout, '1 алиса\n', name);
    await assert.rejects(verify(changed), Error, `${name}, another sub`);
    await assert.rejects(verify(token, 'other'), Error, `${name}, another audience`);
    t.diagnostic(`${name}: verified`);
  }
});
