/**
 * The server that the service is measured beside: Fastify 5 with better-sqlite3, as one writes it in an afternoon. Both are
 * installed into a temporary folder, where SQLite is compiled, and are no dependencies; without a registry its measures are left out.
 */

import { spawnSync } from 'node:child_process';
import { pbkdf2, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';

interface Row {
  readonly id: number;
  readonly login: string;
  readonly registered: string;
  readonly version: number;
}

interface Request {
  readonly params: { readonly login: string };
  readonly body: { readonly password: string };
}

interface Reply {
  code(status: number): Reply;
  header(name: string, value: string): Reply;
  send(body: unknown): Reply;
}

interface Fastify {
  get(path: string, handle: (request: Request, reply: Reply) => unknown): void;
  put(path: string, handle: (request: Request, reply: Reply) => unknown): void;
  listen(options: { readonly port: number; readonly host: string }): Promise<string>;
}

interface Statement {
  get(...values: unknown[]): Row | undefined;
  run(...values: unknown[]): { readonly lastInsertRowid: number };
}

interface Database {
  pragma(text: string): unknown;
  exec(text: string): unknown;
  prepare(text: string): Statement;
}

/** @returns whether the packages are there. */
export function installFastify(directory: string, env: NodeJS.ProcessEnv): boolean {
  writeFileSync(join(directory, 'package.json'), '{"private":true}');
  const words = ['install', '--no-audit', '--no-fund', 'fastify@5', 'better-sqlite3@12'];
  return spawnSync('npm', words, { cwd: directory, env, timeout: 1_800_000 }).status === 0;
}

/** @param directory of the packages. @param users how many `user-N` there are at the start. */
export async function runFastify(directory: string, data: string, certs: string, users: number): Promise<void> {
  const load = createRequire(join(directory, 'package.json'));
  const Sqlite = load('better-sqlite3') as new (path: string) => Database;
  const makeFastify = load('fastify') as (options: unknown) => Fastify;
  const database = new Sqlite(join(data, 'users.sqlite'));
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  database.exec(`CREATE TABLE user (id INTEGER PRIMARY KEY AUTOINCREMENT, login TEXT NOT NULL UNIQUE, registered TEXT NOT NULL,
    version INTEGER NOT NULL, password TEXT NOT NULL)`);
  const insert = database.prepare('INSERT INTO user (login, registered, version, password) VALUES (?, ?, 1, ?) ON CONFLICT DO NOTHING');
  const find = database.prepare('SELECT id, login, registered, version FROM user WHERE login = ?');
  database.exec('BEGIN');
  for (let n = 1; n <= users; n++) insert.run(`user-${n}`, '2026-11-22T15:00:00.000Z', 'x'.repeat(97));
  database.exec('COMMIT');
  const hash = promisify(pbkdf2);
  const app = makeFastify({ https: { key: readFileSync(join(certs, 'key.pem')), cert: readFileSync(join(certs, 'cert.pem')) }, logger: false });
  app.get('/user/:login', (request, reply) => {
    const user = find.get(request.params.login);
    return user === undefined ? reply.code(404).send({ status: 404 }) : reply.header('ETag', `"${user.id}.${user.version}"`).send(user);
  });
  app.put('/user/:login', async (request, reply) => {
    const salt = randomBytes(16).toString('hex');
    const hashed = await hash(request.body.password, salt, 1, 32, 'sha256');
    const registered = new Date().toISOString();
    const { lastInsertRowid: id } = insert.run(request.params.login, registered, `${salt}$${hashed.toString('hex')}`);
    return reply.code(201).send({ id, login: request.params.login, registered, version: 1 });
  });
  process.stdout.write(`Fastify listens on ${await app.listen({ port: 0, host: '127.0.0.1' })}\n`);
}
