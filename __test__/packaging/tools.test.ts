/** Folders with packages of other people, which test files share: on a fresh machine several want the same at once. */

import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { installed, installedWithPackage } from './tools.js';

const place = fileURLToPath(new URL('../../build/test-projects/shared', import.meta.url));
const remove = () => {
  rmSync(place, { recursive: true, force: true });
  rmSync(`${place}.pid`, { force: true });
};
afterAll(remove);

it('is installed by as many as want it at once, and left whole', async () => {
  remove();
  const folders = await Promise.all([1, 2, 3].map(() => installed('shared', ['axios@1'])));
  expect(new Set(folders)).toEqual(new Set([place]));
  expect(existsSync(join(place, 'node_modules', 'axios', 'package.json'))).toBe(true);
  expect(readdirSync(dirname(place)).filter((name) => name.startsWith('shared-'))).toEqual([]);
  expect(await installed('shared', ['axios@1'])).toBe(place);
});

it('takes rollcall for one test file alone', async () => {
  mkdirSync(dirname(place), { recursive: true });
  writeFileSync(`${place}.pid`, String(process.ppid));
  await expect(installedWithPackage('shared', ['axios@1'])).rejects.toThrow(
    `shared is in use by process ${process.ppid}: give each test file a folder of its own`,
  );
});
