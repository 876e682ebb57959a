/**
 * What only root may do, and not in every container: mounting, and making namespaces. Each function says why this machine does not
 * permit it, or false. A trial passes it as `cannot`, and is then listed as not run.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type FileSystemKind = 'tmpfs' | 'ext4' | 'xfs' | 'btrfs';

export interface Mounted {
  readonly directory: string;
  readonly unmount: () => void;
  readonly mount: () => void;
  /** Cuts the power of an image: what the kernel has not written to the device is gone after `unmount` and `mount`. */
  readonly cut: () => void;
  /** Makes the file system anew, empty. */
  readonly make: () => void;
  /** Unmounts it and removes all of it. */
  readonly remove: () => void;
}

/** A file system of its own: of `size` (as in 16M) in memory, or in an image. Its directory is 0700 and ours. */
export function mountNew(kind: FileSystemKind, size: string): Mounted {
  const base = mkdtempSync(join(tmpdir(), 'registrar-mount-'));
  const image = join(base, 'image');
  const directory = join(base, 'mounted');
  mkdirSync(directory, { mode: 0o700 });
  const run = (program: string, ...args: string[]): void => {
    execFileSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'], timeout: 60_000 });
  };
  let isMounted = false;
  /** What is on the device when the power of btrfs, which cannot be shut down, is cut. */
  const afterCut = `${image}.cut`;
  const cut = (): void => {
    if (kind === 'btrfs') run('cp', '--sparse=always', image, afterCut);
    else run('xfs_io', '-x', '-c', 'shutdown', directory);
  };
  const mount = (): void => {
    if (kind === 'tmpfs') run('mount', '-t', 'tmpfs', '-o', `size=${size},mode=0700`, 'tmpfs', directory);
    else {
      if (existsSync(afterCut)) renameSync(afterCut, image);
      // A device of its own each time: a process in another mount namespace may hold the one before a little longer,
      // with a file system that was shut down.
      const device = execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8', timeout: 60_000 }).trim();
      try {
        run('mount', device, directory);
      } finally {
        // It goes when the file system does.
        run('losetup', '--detach', device);
      }
    }
    isMounted = true;
  };
  const unmount = (): void => {
    run('umount', directory);
    isMounted = false;
  };
  const make = (): void => {
    if (isMounted) unmount();
    if (kind !== 'tmpfs') {
      rmSync(image, { force: true });
      rmSync(afterCut, { force: true });
      run('truncate', '-s', size, image);
      // Without blocks reserved for root: the disk would be full for others only.
      run(`mkfs.${kind}`, '-q', ...(kind === 'ext4' ? ['-m', '0'] : []), image);
    }
    mount();
  };
  const remove = (): void => {
    // What is killed may take a moment to let go.
    for (let n = 0; isMounted; n++) {
      try {
        unmount();
      } catch (error) {
        if (n === 50) throw error;
        spawnSync('sleep', ['0.1']);
      }
    }
    rmSync(base, { recursive: true, force: true });
  };
  try {
    make();
  } catch (error) {
    remove();
    throw error;
  }
  return { directory, mount, cut, unmount, make, remove };
}

const known = new Map<string, string | false>();

/** False, or why there can be no file system of that kind here. */
export function cannotMount(kind: FileSystemKind, size = kind === 'xfs' || kind === 'btrfs' ? '320M' : '16M'): string | false {
  return once(kind, () => {
    if (process.getuid?.() !== 0) return 'only root may mount';
    try {
      mountNew(kind, size).remove();
      return false;
    } catch (error) {
      return `no ${kind} can be mounted (${(error instanceof Error ? error.message : String(error)).split('\n')[1] ?? 'no program for it'})`;
    }
  });
}

/** False, or why there can be no namespace of that kind here. */
export function cannotUnshare(...flags: readonly string[]): string | false {
  return once(flags.join(' '), () => {
    const { status } = spawnSync('unshare', [...flags, 'true'], { stdio: 'ignore', timeout: 10_000 });
    return status === 0 ? false : `unshare ${flags.join(' ')} does not work`;
  });
}

/** False, or why no systemd can be booted here: it gets namespaces of its own, an overlay of this machine's root, and cgroup v2. */
export function cannotBootSystemd(): string | false {
  return once('systemd', () => {
    const mounts = [
      'mount -t tmpfs tmpfs /mnt', 'cd /mnt', 'mkdir upper work root', 'mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root',
      'mount -t cgroup2 cgroup2 root/mnt',
    ];
    const flags = ['--mount', '--uts', '--ipc', '--net', '--cgroup', '--pid', '--fork'];
    const { status } = spawnSync('unshare', [...flags, 'sh', '-c', mounts.join(' && ')], { stdio: 'ignore', timeout: 10_000 });
    return status === 0 ? false : 'namespaces, an overlay of the root or cgroup v2 are not permitted';
  });
}

function once(key: string, find: () => string | false): string | false {
  const before = known.get(key);
  if (before !== undefined) return before;
  const found = find();
  known.set(key, found);
  return found;
}
