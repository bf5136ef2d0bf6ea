// Programs that are run to their end, and the package as it is packed.

import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { temporaryFolder } from '../support/process.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts'];

/** Runs a program and gives what it printed; a failure shows that. */
export async function tool(command: string, args: readonly string[], cwd: string): Promise<string> {
  try {
    // Vitest sets NODE_ENV, and npm reads it.
    const env = { ...process.env, NO_COLOR: '1', NODE_ENV: '', NODE_OPTIONS: '' };
    return (await run(command, args, { cwd, env, maxBuffer: 64 * 1024 * 1024 })).stdout.trim();
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    throw new Error(`${command} ${args.join(' ')}\n${stdout}\n${stderr}`, { cause: error });
  }
}

/** Packs the package into a folder and gives the path of the tarball. */
export async function packInto(folder: string): Promise<string> {
  const [packed] = JSON.parse(await tool('npm', ['pack', '--json', '--pack-destination', folder], root));
  return join(folder, packed.filename);
}

/** Installs packages of other people into a folder of their own below build/, which stays; gives its path. */
export async function installed(name: string, packages: readonly string[]): Promise<string> {
  const folder = join(root, 'build', 'test-projects', name);
  const stamp = JSON.stringify(packages);
  const stampFile = join(folder, 'installed.json');
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return folder;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "name": "project", "private": true }\n');
  await tool('npm', [...install, ...packages], folder);
  writeFileSync(stampFile, stamp);
  return folder;
}

/** The same, and beside them the package as it is packed now. */
export async function installedWithPackage(name: string, packages: readonly string[]): Promise<string> {
  const folder = await installed(name, packages);
  const tarballs = temporaryFolder('rollcall-packed-');
  const tarball = await packInto(tarballs.path);
  rmSync(join(folder, 'node_modules', 'rollcall'), { recursive: true, force: true });
  await tool('npm', [...install, '--offline', '--no-save', tarball], folder);
  tarballs.remove();
  return folder;
}
