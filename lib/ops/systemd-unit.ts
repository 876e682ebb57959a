/**
 * The unit of a systemd service, hardened as far as the service allows; pure. What it leaves open, and why, stands in
 * the unit itself. It is printed, and not installed.
 */

import { posix } from 'node:path';

export interface UnitOptions {
  readonly user: string;
  /** The program and its first arguments, absolute. */
  readonly command: readonly string[];
  /** Variables that it is to have; no secret. */
  readonly environment: Readonly<Record<string, string>>;
  /** The directory to start in: that of the program. */
  readonly directory: string;
  /** All absolute. */
  readonly data: string;
  readonly certs: string | undefined;
  readonly socket: string | undefined;
  readonly port: number;
  /** How long ending may take. */
  readonly stopSeconds: number;
}

const watchdogSeconds = 30;
const privilegedPorts = 1024;

/** Throws nothing: what systemd would not take is quoted. */
export function systemdUnit(options: UnitOptions): string {
  const { user, command, environment, directory, stopSeconds } = options;
  const needsPort = options.socket === undefined && options.port > 0 && options.port < privilegedPorts;
  const variables = Object.entries(environment).map(([name, value]) => `Environment=${quote(`${name}=${value}`)}`);
  return `${[
    '[Unit]',
    'Description=Registrar, a user-registration service',
    'After=network-online.target',
    'Wants=network-online.target',
    '',
    '[Service]',
    '# It says itself when it is ready and, twice in each interval of the watchdog, that it lives, by systemd-notify,',
    '# which is a child of its.',
    'Type=notify',
    'NotifyAccess=all',
    `WatchdogSec=${watchdogSeconds}`,
    `User=${user}`,
    `WorkingDirectory=${path(directory)}`,
    ...variables,
    `ExecStart=${command.map(argument).join(' ')}`,
    '# It reads the certificate anew.',
    'ExecReload=/bin/kill -HUP $MAINPID',
    'Restart=on-failure',
    'RestartSec=1',
    '# After a reboot a large file is read whole before it is ready.',
    'TimeoutStartSec=300',
    `TimeoutStopSec=${stopSeconds}`,
    'LimitNOFILE=65536',
    'UMask=0077',
    '',
    '# Where it writes: the users\' file, its lock (unix sockets, symbolic links) and its keys, all in one directory.',
    ...places(options),
    'ProtectSystem=strict',
    ...home(options),
    'PrivateTmp=yes',
    'PrivateDevices=yes',
    'ProtectClock=yes',
    'ProtectHostname=yes',
    'ProtectKernelLogs=yes',
    'ProtectKernelModules=yes',
    'ProtectKernelTunables=yes',
    'ProtectControlGroups=yes',
    '# ProtectProc= and ProcSubset= stay open: the lock looks at /proc for the process that has it, which may be a command',
    '# outside of this unit, and for the boot id. One that it could not see would seem to be dead.',
    '',
    '# Workers lower their own priority, by setpriority, which is in @system-service.',
    'NoNewPrivileges=yes',
    ...(needsPort
      ? ['AmbientCapabilities=CAP_NET_BIND_SERVICE', 'CapabilityBoundingSet=CAP_NET_BIND_SERVICE']
      : ['CapabilityBoundingSet=', 'AmbientCapabilities=', 'PrivateUsers=yes']),
    'SystemCallFilter=@system-service @pkey',
    'SystemCallFilter=~@privileged',
    'SystemCallErrorNumber=EPERM',
    'SystemCallArchitectures=native',
    '# AF_UNIX is for the lock, and for systemd.',
    'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6',
    'RestrictNamespaces=yes',
    'RestrictRealtime=yes',
    'RestrictSUIDSGID=yes',
    'LockPersonality=yes',
    'RemoveIPC=yes',
    'KeyringMode=private',
    '# MemoryDenyWriteExecute= cannot be: V8 compiles JavaScript into memory that it then executes.',
    '',
    '[Install]',
    'WantedBy=multi-user.target',
  ].join('\n')}\n`;
}

/** systemd makes the directories below /var/lib and /run for the user; others have to be there. */
function places({ data, socket }: UnitOptions): string[] {
  const lines = [below('/var/lib/', data, 'StateDirectory') ?? `ReadWritePaths=${quote(data)}`];
  if (lines[0]!.startsWith('State')) lines.push('StateDirectoryMode=0700');
  if (socket === undefined) return lines;
  const directory = posix.dirname(socket);
  const runtime = below('/run/', directory, 'RuntimeDirectory');
  // The proxy has to come in.
  return [...lines, ...(runtime === undefined ? [`ReadWritePaths=${quote(directory)}`] : [runtime, 'RuntimeDirectoryMode=0755'])];
}

function below(base: string, directory: string, setting: string): string | undefined {
  const name = directory.startsWith(base) ? directory.slice(base.length) : '';
  return /^[\w.@-]+(?:\/[\w.@-]+)*$/.test(name) ? `${setting}=${name}` : undefined;
}

/** What lies in somebody's home has to be read there. */
function home({ command, data, certs, directory }: UnitOptions): string[] {
  const isHome = [...command, data, certs ?? '', directory].some((place) => /^\/(?:home|root|run\/user)\//.test(`${place}/`));
  return isHome ? ['# It lies in a home directory itself: better in /opt.', 'ProtectHome=read-only'] : ['ProtectHome=yes'];
}

/** A word of a command line: systemd would put variables and specifiers in. */
function argument(word: string): string {
  return quote(word).replaceAll('$', '$$$$');
}

function quote(word: string): string {
  const text = path(word);
  return /^[\w@+:,./=%-]+$/.test(text) ? text : `"${text.replace(/[\\"]/g, '\\$&')}"`;
}

function path(text: string): string {
  return text.replaceAll('%', '%%');
}
