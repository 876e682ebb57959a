/** The command `systemd`: prints a unit that runs the service with the same flags. */

import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseConfig } from '../lib/config.ts';
import { RegistrarError } from '../lib/errors.ts';
import { systemdUnit } from '../lib/ops/systemd-unit.ts';

export const systemdUsage = `Usage: registrar systemd [--user registrar] [flags of serve]

Prints a hardened unit that runs the service with these flags, and with the
REGISTRAR_ variables that are set now. It installs nothing.

  --user registrar   the user that the service runs as
  --data /var/lib/registrar, --certs /etc/registrar
                     where these are if no flag and no variable says so; the
                     user has to be able to read key.pem
  --help

A variable that holds a secret is left out: make the admin token with
registrar token, as that user.
Exit codes: 0 done, 2 usage.

  registrar systemd --port 443 > /etc/systemd/system/registrar.service
`;

/** What a stop takes above --drain-seconds: 10 s for what is being answered, and the rest. */
const stopSecondsMore = 20;
const secret = /_TOKEN$|_PASSWORD$/;
const placed = ['data', 'certs', 'socket'];
/** Files that a flag names; the unit starts in another directory. */
const files = ['etcd-ca', 'etcd-cert', 'etcd-key', 'etcd-password-file'];

export async function systemdCommand(args: readonly string[]): Promise<void> {
  const { value: user = 'registrar', rest } = take(args, 'user');
  if (!/^[a-z_][a-z0-9_-]{0,30}$/i.test(user)) throw new RegistrarError('usage', `--user ${user}: it has to be the name of a user`);
  const { env } = process;
  const config = parseConfig(rest, { REGISTRAR_DATA: '/var/lib/registrar', REGISTRAR_CERTS: '/etc/registrar', ...env });
  const [data, certs] = [resolve(config.data), resolve(config.certs)];
  const socket = config.socket === undefined ? undefined : resolve(config.socket);
  const named = files.flatMap((flag) => {
    const file = take(rest, flag).value ?? env[variable(flag)] ?? '';
    return file === '' ? [] : [`--${flag}`, resolve(file)];
  });
  const others = [...placed, ...files].reduce((words, flag) => take(words, flag).rest, rest);
  const places = ['--data', data, '--certs', certs, ...(socket === undefined ? [] : ['--socket', socket]), ...named];
  const program = fileURLToPath(new URL(import.meta.url.endsWith('.js') ? 'registrar.js' : 'registrar.ts', import.meta.url));
  const variables = Object.entries(env).filter(([name]) => /^REGISTRAR_/.test(name) && !secret.test(name) && !isPlace(name));
  process.stdout.write(systemdUnit({
    user,
    command: [process.execPath, ...process.execArgv, program, 'serve', ...others, ...places],
    environment: Object.fromEntries(variables.map(([name, value = '']) => [name, value])),
    directory: fileURLToPath(new URL('..', import.meta.url)).replace(/(?<=.)\/$/, ''),
    data,
    certs: config.isPlain ? undefined : certs,
    socket,
    port: config.port,
    stopSeconds: config.drainSeconds + stopSecondsMore,
  }));
}

/** These are given as flags, absolute. */
function isPlace(name: string): boolean {
  return [...placed, ...files].some((flag) => variable(flag) === name);
}

function variable(flag: string): string {
  return `REGISTRAR_${flag.toUpperCase().replaceAll('-', '_')}`;
}

/** The last value of a flag, and the words without it. */
function take(args: readonly string[], flag: string): { value: string | undefined; rest: string[] } {
  const rest: string[] = [];
  let value: string | undefined;
  for (let n = 0; n < args.length; n++) {
    const word = args[n]!;
    if (word === `--${flag}`) value = args[++n];
    else if (word.startsWith(`--${flag}=`)) value = word.slice(flag.length + 3);
    else rest.push(word);
  }
  return { value, rest };
}
