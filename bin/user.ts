/** The command `user`: users are added, shown, listed, given a password, verified and removed, also while services run. */

import { parseUserConfig } from '../lib/command-config.ts';
import type { UserConfig } from '../lib/command-config.ts';
import { RegistrarError } from '../lib/errors.ts';
import { openRegistry } from '../lib/open-registry.ts';
import type { OpenRegistry } from '../lib/open-registry.ts';
import { isAgreed, print, readPassword, say } from './terminal.ts';

export const userUsage = `Usage: registrar user ACTION [LOGIN] [flags]

Works on the users of a data directory, also while services run on it.

  user add LOGIN     registers a user
  user show LOGIN    says what is known of a user
  user list          says it of everybody, a line each, in the order of
                     registration
  user passwd LOGIN  gives a user another password, which ends their sessions
  user verify LOGIN  whether a password is right: exit code 0 if it is, else 1
  user remove LOGIN  removes a user, and asks before

  --data data        the directory of the users' file; add makes it if need be
  --etcd URL,URL     users are in a cluster; with the other flags of serve for it
  --json             JSON, as the service answers it, a line for each user
  --yes              remove does not ask
  --kdf pbkdf2:sha256:600000
                     how a new password is hashed
  --password-min 8   characters that a new password needs
  --help

A password is asked for, and not shown; without a terminal it is the first line
of standard input. It is never an argument, which others could see. --kdf and
--password-min are the service's own: give both the same, by their variables
(REGISTRAR_KDF) say. Exit codes: 0 done, 1 refused or failed, 2 usage.

  registrar user add alice
  pass show registrar/alice | registrar user verify alice
  registrar user list --json | jq -r .login
`;

export async function userCommand(args: readonly string[]): Promise<void> {
  const config = parseUserConfig(args, process.env);
  const mayMake = config.action === 'add';
  // Whether a hash is made anew is the service's business: it knows its own kdf.
  const users = await openRegistry({ ...config, mayMake, isRehashing: false, report: say });
  try {
    await actions[config.action](users, config);
  } finally {
    await users.close();
  }
}

type Open = Pick<OpenRegistry, 'registry'>;

const actions: Readonly<Record<UserConfig['action'], (users: Open, config: UserConfig) => Promise<void>>> = {
  add, show, list, passwd, verify, remove,
};

/** What is printed of a user, in the order in which it is. */
interface Shown {
  readonly id: number;
  readonly login: string;
  readonly registered: string;
  readonly version: number;
  readonly changed?: string;
}

async function add({ registry }: Open, config: UserConfig): Promise<void> {
  // A taken login is told before a password is asked for, twice.
  const taken = await registry.look(config.login);
  if (taken !== undefined) throw new RegistrarError('taken', `The login "${parse(taken.json).login}" is taken`);
  const password = await readPassword(`Password of ${config.login}`, { isNew: true });
  const { id, login, registered, version } = await registry.register({ login: config.login, password });
  await tell(config, { id, login, registered, version }, `${login} is user ${id}`);
}

async function show({ registry }: Open, { login, isJson }: UserConfig): Promise<void> {
  const { json } = await registry.view(login);
  if (isJson) return void (await print(`${json}\n`));
  const fields = Object.entries(parse(json)).map(([name, value]) => `${name.padEnd(12)}${String(value)}\n`);
  await print(fields.join(''));
}

/** The login is last: it is the one column whose width nobody knows before the end. */
async function list({ registry }: Open, { isJson }: UserConfig): Promise<void> {
  if (!isJson && !(await print(row('ID', 'REGISTERED', 'CHANGED', 'LOGIN')))) return;
  for (let after: string | undefined; ; ) {
    const { bytes, next } = await registry.lines(after);
    const isRead = bytes.length === 0 || (await print(isJson ? bytes : table(bytes)));
    if (!isRead || next === undefined) return;
    after = next;
  }
}

function table(bytes: Buffer): string {
  const lines = bytes.toString('utf8').trimEnd().split('\n');
  return lines.map(parse).map(({ id, registered, changed, login }) => row(String(id), registered, changed ?? '-', login)).join('');
}

function row(id: string, registered: string, changed: string, login: string): string {
  return `${id.padStart(8)}  ${registered.padEnd(24)}  ${changed.padEnd(24)}  ${login}\n`;
}

async function passwd({ registry }: Open, config: UserConfig): Promise<void> {
  const { id } = await registry.view(config.login);
  const password = await readPassword(`New password of ${config.login}`, { isNew: true });
  const { login, registered, version, changed } = await registry.changePassword(config.login, { password }, same(id));
  await tell(config, { id, login, registered, version, ...(changed === undefined ? {} : { changed }) }, `${login} has another password`);
}

/** Wrong password and unknown login are one and the same, as with the service. */
async function verify({ registry }: Open, { login, isJson }: UserConfig): Promise<void> {
  const user = await registry.verify(login, await readPassword(`Password of ${login}`));
  const isRight = user !== undefined;
  await print(isJson ? `${JSON.stringify({ login: user?.login ?? login, right: isRight })}\n` : `${isRight ? 'right' : 'wrong'}\n`);
  if (!isRight) process.exitCode = 1;
}

async function remove({ registry }: Open, config: UserConfig): Promise<void> {
  const user = parse((await registry.view(config.login)).json);
  const question = `Remove ${user.login}, user ${user.id}, registered ${user.registered}? [y/N] `;
  if (!config.isYes && !(await isAgreed(question))) {
    throw new RegistrarError('forbidden', 'nothing was changed; with --yes nobody is asked');
  }
  await registry.remove(config.login, same(user.id));
  await tell(config, user, `${user.login}, user ${user.id}, is removed`);
}

/** Who was looked at before somebody was asked is whom it is done to: meanwhile another may have the login. */
function same(id: number): (user: Pick<Shown, 'id'>) => void {
  return (user) => {
    if (user.id !== id) throw new RegistrarError('conflict', 'The login is another user\'s by now: nothing was changed');
  };
}

async function tell({ isJson }: UserConfig, user: Shown, text: string): Promise<void> {
  await print(isJson ? `${JSON.stringify(user)}\n` : `${text}\n`);
}

function parse(json: string): Shown {
  return JSON.parse(json) as Shown;
}
