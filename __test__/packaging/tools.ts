// Programs that are run to their end, and the package as it is packed.

import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { temporaryFolder } from '../support/process.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts'];

const projects = join(root, 'build', 'test-projects');
const placeOf = (name: string): string => join(projects, name);

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

/**
 * Installs packages of other people, and then those of `apart`, into a folder of their own below build/, which stays; gives its
 * path. Files that want the same at once, as on a fresh machine, each install it beside that folder, and the first one counts.
 */
export async function installed(
  name: string,
  packages: readonly string[],
  apart: readonly string[] = [],
): Promise<string> {
  const folder = placeOf(name);
  const stamp = JSON.stringify([...packages, ...apart]);
  const isThere = () => {
    const file = join(folder, 'installed.json');
    return existsSync(file) && readFileSync(file, 'utf8') === stamp;
  };
  if (isThere()) return folder;
  mkdirSync(projects, { recursive: true });
  const made = mkdtempSync(`${folder}-`);
  writeFileSync(join(made, 'package.json'), '{ "name": "project", "private": true }\n');
  await tool('npm', [...install, ...packages], made);
  if (apart.length > 0) await tool('npm', [...install, ...apart], made);
  writeFileSync(join(made, 'installed.json'), stamp);
  try {
    if (!isThere()) {
      rmSync(folder, { recursive: true, force: true });
      renameSync(made, folder);
    }
  } catch (error) {
    if (!isThere()) throw error;
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
  return folder;
}

/** Refuses a folder into which another test file writes now: what came of both would depend on who is faster. */
function claim(folder: string): void {
  const file = `${folder}.pid`;
  mkdirSync(projects, { recursive: true });
  const pid = existsSync(file) ? Number(readFileSync(file, 'utf8')) : process.pid;
  if (pid !== process.pid && existsSync(`/proc/${pid}`)) {
    throw new Error(`${folder} is in use by process ${pid}: give each test file a folder of its own`);
  }
  writeFileSync(file, String(process.pid));
}

/** The same, and beside them the package as it is packed now. For one test file: it is installed anew each time. */
export async function installedWithPackage(
  name: string,
  packages: readonly string[],
  apart: readonly string[] = [],
): Promise<string> {
  claim(placeOf(name));
  const folder = await installed(name, packages, apart);
  const tarballs = temporaryFolder('rollcall-packed-');
  const tarball = await packInto(tarballs.path);
  rmSync(join(folder, 'node_modules', 'rollcall'), { recursive: true, force: true });
  await tool('npm', [...install, '--offline', '--no-save', tarball], folder);
  tarballs.remove();
  return folder;
}
