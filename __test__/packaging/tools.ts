// Programs that are run to their end, and the package as it is packed.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));

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
