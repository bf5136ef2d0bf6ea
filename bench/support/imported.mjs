// What `import` or `require` of a module takes in a fresh process.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const PROGRAMS = { import: 'import-entry.mjs', require: 'require-entry.cjs' };

/** In milliseconds, among it what the first import of a process takes, whatever it imports. */
export function imported(way, entry) {
  const program = fileURLToPath(new URL(`../programs/${PROGRAMS[way]}`, import.meta.url));
  const env = { ...process.env, NODE_OPTIONS: '' };
  return Number(execFileSync(process.execPath, [program, entry], { encoding: 'utf8', env }));
}

/** What it takes without that: over a module that has nothing in it. */
export const importedOverEmpty = (way, entry) => imported(way, entry) - imported(way, '../programs/import-empty.cjs');
