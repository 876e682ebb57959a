/** The command `user`: all that is done to users by hand, also while services run. */

import { existsSync } from 'node:fs';
import { SigningKeys } from '../../lib/auth/signing-keys.ts';
import type { Config } from '../../lib/config.ts';
import type { AuditEventName } from '../../lib/telemetry/audit-log.ts';
import { RegistrarError } from '../../lib/errors.ts';
import { usage } from '../../lib/flags.ts';
import type { CommandLine } from '../../lib/flags.ts';
import { openPasswordLinks, openUsers, signingKeysOptions, usersFile } from '../../lib/open.ts';
import type { OpenedUsers } from '../../lib/open.ts';
import type { Registry } from '../../lib/registry.ts';
import { noPassword, parseLogin, publicUser } from '../../lib/user.ts';
import type { User } from '../../lib/user.ts';
import { recordCommand } from './audit.ts';
import type { Command } from './command.ts';
import type { Terminal } from './terminal.ts';

export const user: Command = {
  name: 'user',
  words: 'ACTION [LOGIN]',
  summary: 'adds, invites, shows, lists, disables and removes users',
  about: `
  user add LOGIN       registers a user
  user invite LOGIN    creates a user without a password, and prints a link to
                       choose one with
  user show LOGIN      prints the public fields of a user
  user list            prints all users in the order of registration
  user passwd LOGIN    changes the password of a user, which ends all sessions
  user reset LOGIN     prints a link to choose another password with; nothing
                       changes until it is used
  user disable LOGIN   ends all sessions and links; the user cannot sign in
  user enable LOGIN    lets the user sign in again
  user sign-out LOGIN  ends all sessions of a user
  user verify LOGIN    checks a password: exit code 0 if it is right, else 1
  user remove LOGIN    removes a user, after a question

A link works once, for --link-hours, and needs --public-url; without it the
token alone is printed. Any change of the user voids it.

A password is typed and not shown; without a terminal it is the first line of
standard input. It is never an argument, which other users of the machine can
see. --kdf and --password-min should be those of the service: --env-file.`,
  examples: [
    'registrar user add alice',
    'pass show registrar/alice | registrar user verify alice',
    'registrar user list --json | jq -r .login',
  ],
  run: async (line, terminal) => {
    const { action, config, login } = parseAction(line);
    const isAdding = action === 'add' || action === 'invite';
    const isCreating = isAdding && config.etcd.length === 0 && !existsSync(usersFile(config.data));
    // Only the service renews hashes: a command may not know its kdf.
    const isReadOnly = action === 'show' || action === 'list' || action === 'verify';
    const options = { ifMissing: isAdding ? 'create' : 'refuse', isRehashing: false, isReadOnly, report: terminal.say } as const;
    const users = await openUsers(config, options);
    const { registry, close } = users;
    if (isCreating) terminal.say(`There were no users yet: created "${usersFile(config.data)}".`);
    try {
      return await actions[action]({ registry, users, config, login, terminal });
    } finally {
      await close();
    }
  },
};

interface Action {
  readonly registry: Registry;
  readonly users: OpenedUsers;
  readonly config: Config;
  /** Normalised; empty for `list`. */
  readonly login: string;
  readonly terminal: Terminal;
}

const actions = { add, invite, show, list, passwd, reset, disable, enable, 'sign-out': signOut, verify, remove } as const;

/** Throws `usage`, or `invalid` for a login that no user can have. */
function parseAction({ config, words: [word = '', given = ''] }: CommandLine<Config>) {
  const names = Object.keys(actions);
  const action = (Object.keys(actions) as (keyof typeof actions)[]).find((name) => name === word);
  const see = 'See "registrar help user".';
  if (action === undefined) throw usage(`"registrar user" needs an action: ${names.join(', ')}. ${see}`);
  if (action === 'list' && given !== '') throw usage(`"registrar user list" takes no login. ${see}`);
  if (action !== 'list' && given === '') throw usage(`"registrar user ${action}" needs a login. ${see}`);
  if (config.yes && action !== 'remove') throw usage(`"registrar user ${action}" does not ask for confirmation: leave --yes out.`);
  const parsed = action === 'list' ? { login: '' } : parseLogin(given);
  if ('problem' in parsed && (action === 'add' || action === 'invite')) throw new RegistrarError('invalid', `${parsed.problem}.`);
  return { config, action, login: 'login' in parsed ? parsed.login : given };
}

async function add({ registry, login, ...to }: Action): Promise<void> {
  // A taken login is reported before a password is typed, twice.
  if ((await registry.findPublic(login)) !== undefined) throw new RegistrarError('taken', `The login "${login}" is taken.`);
  const password = await to.terminal.readPassword(`Password of ${login}`, { isNew: true });
  const { id, registered, version } = await registry.register({ login, password, isReservedAllowed: true });
  await record(to, 'registered', id);
  await print(to, { id, login, registered, version }, `${login} is user ${id}`);
}

async function invite({ login, ...to }: Action): Promise<void> {
  const { created, user: found } = await to.registry.invite(login);
  const isInvited = created || found.kdf === noPassword.kdf;
  if (!isInvited) throw new RegistrarError('taken', `The login "${login}" is taken. Run "registrar user reset ${login}".`);
  if (created) await record(to, 'invited', found.id);
  await printLink(to, found);
}

async function reset({ login, ...to }: Action): Promise<void> {
  await printLink(to, await to.registry.getRecord(login));
}

async function printLink({ users, config, terminal }: Omit<Action, 'login'>, found: User): Promise<void> {
  const keys = await SigningKeys.open(signingKeysOptions(config, users.secrets, terminal.say));
  const issued = await openPasswordLinks(config, users.registry, keys).issue(found);
  await record({ config, terminal }, 'link-issued', found.id);
  terminal.say(`The link for ${found.login}, user ${found.id}, works once, until ${issued.expires}.`);
  if (issued.link === undefined) terminal.say('Without --public-url this is the token alone. It belongs behind "/#password=" of the page.');
  await terminal.print(config.json ? `${JSON.stringify({ login: found.login, ...issued })}\n` : `${issued.link ?? issued.token}\n`);
}

async function disable({ registry, login, ...to }: Action): Promise<void> {
  const changed = await registry.setDisabled(login, true);
  await record(to, 'disabled', changed.id);
  await print(to, changed, `${login} is disabled, and all sessions and links have ended`);
}

async function enable({ registry, login, ...to }: Action): Promise<void> {
  const changed = await registry.setDisabled(login, false);
  await record(to, 'enabled', changed.id);
  await print(to, changed, `${login} is enabled`);
}

async function signOut({ registry, login, ...to }: Action): Promise<void> {
  const changed = await registry.endSessions(login);
  await record(to, 'sessions-ended', changed.id);
  await print(to, changed, `All sessions and links of ${login} have ended`);
}

async function show({ registry, login, config, terminal }: Action): Promise<void> {
  const { json } = await registry.getPublic(login);
  const fields = Object.entries(parse(json)).map(([name, value]) => `${name.padEnd(12)}${String(value)}\n`);
  await terminal.print(config.json ? `${json}\n` : fields.join(''));
}

/** The login is the last column: its width is not known before the end. */
async function list({ registry, config, terminal }: Action): Promise<void> {
  if (!config.json && !(await terminal.print(row('ID', 'REGISTERED', 'CHANGED', 'STATE', 'LOGIN')))) return;
  for (let after: string | undefined; ; ) {
    const { bytes, next } = await registry.ndjsonPage(after);
    const isRead = bytes.length === 0 || (await terminal.print(config.json ? bytes : table(bytes)));
    if (!isRead || next === undefined) return;
    after = next;
  }
}

function table(bytes: Buffer): string {
  const lines = bytes.toString('utf8').trimEnd().split('\n');
  const rows = lines.map(parse).map((found) => {
    const { id, registered, changed = '-', login } = found;
    return row(String(id), registered, changed, stateOf(found), login);
  });
  return rows.join('');
}

function stateOf({ disabled, invited }: User): string {
  return disabled !== undefined ? 'disabled' : invited === true ? 'invited' : 'active';
}

function row(id: string, registered: string, changed: string, state: string, login: string): string {
  return `${id.padStart(8)}  ${registered.padEnd(24)}  ${changed.padEnd(24)}  ${state.padEnd(8)}  ${login}\n`;
}

async function passwd({ registry, login, ...to }: Action): Promise<void> {
  const { id } = await registry.getPublic(login);
  const password = await to.terminal.readPassword(`New password of ${login}`, { isNew: true });
  const { registered, version, changed } = await registry.changePassword(login, { password }, requireId(id));
  await record(to, 'password-changed', id);
  await print(to, { id, login, registered, version, changed }, `${login} has another password`);
}

/** A wrong password and an unknown login have the same result, as with the service. */
async function verify({ registry, login, config, terminal }: Action): Promise<number> {
  const verified = await registry.verify(login, await terminal.readPassword(`Password of ${login}`));
  const isRight = verified !== undefined;
  await terminal.print(config.json ? `${JSON.stringify({ login, right: isRight })}\n` : `${isRight ? 'right' : 'wrong'}\n`);
  return isRight ? 0 : 1;
}

async function remove({ registry, login, ...to }: Action): Promise<void> {
  const found = parse((await registry.getPublic(login)).json);
  await to.terminal.confirm(`Remove ${found.login}, user ${found.id}, registered ${found.registered}? [y/N] `, to.config.yes);
  await registry.remove(login, requireId(found.id));
  await record(to, 'removed', found.id);
  await print(to, found, `${found.login}, user ${found.id}, is removed`);
}

/** The user that was shown before the question is the one that is changed: another may have taken the login meanwhile. */
function requireId(id: number): (found: Pick<User, 'id'>) => void {
  return (found) => {
    if (found.id !== id) throw new RegistrarError('conflict', 'Another user has taken the login meanwhile. Nothing was changed.');
  };
}

function record({ config, terminal }: Pick<Action, 'config' | 'terminal'>, event: AuditEventName, target: number): Promise<void> {
  return recordCommand(config, terminal, { event, target });
}

async function print({ config, terminal }: Pick<Action, 'config' | 'terminal'>, shown: User, text: string): Promise<void> {
  await terminal.print(config.json ? `${JSON.stringify(publicUser(shown))}\n` : `${text}\n`);
}

function parse(json: string): User {
  return JSON.parse(json) as User;
}
