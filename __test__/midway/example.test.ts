/** examples/midway-orders, as its README says, with the packed package in the place of `file:../..`. */

import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { packInto, tool } from '../packaging/tools.js';
import { temporaryFolder } from '../support/process.js';
import { builtProgram } from '../support/programs.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const example = join(root, 'examples', 'midway-orders');
/** Stays from one run to the next. */
const project = join(root, 'build', 'test-projects', 'midway-orders');
const { path: folder, remove } = temporaryFolder('rollcall-example-');

beforeAll(async () => {
  const { dependencies, devDependencies, ...rest } = JSON.parse(readFileSync(join(example, 'package.json'), 'utf8'));
  const { rollcall: _, ...others } = dependencies;
  const manifest = JSON.stringify({ ...rest, dependencies: others, devDependencies });
  const file = join(project, 'package.json');
  const how = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', '--no-save'];
  if (!existsSync(file) || readFileSync(file, 'utf8') !== manifest) {
    rmSync(project, { recursive: true, force: true });
    mkdirSync(project, { recursive: true });
    writeFileSync(join(project, '.npmrc'), 'package-lock=false\n');
    writeFileSync(file, manifest);
    await tool('npm', how, project);
  }
  for (const name of ['src', 'scripts', 'tsconfig.json']) {
    rmSync(join(project, name), { recursive: true, force: true });
    cpSync(join(example, name), join(project, name), { recursive: true });
  }
  rmSync(join(project, 'node_modules', 'rollcall'), { recursive: true, force: true });
  await tool('npm', [...how, '--offline', await packInto(folder)], project);
}, 300_000);
afterAll(remove);

it('finds the inventories by name, and loses no order while one of them stops', async () => {
  await tool('npm', ['run', 'build'], project);
  process.env.ETCD = builtProgram('etcd');
  const told = await tool('npm', ['run', '--silent', 'demo'], project);
  expect(told).toMatch(/^10 orders: \{.+: 5,.+: 5\s*\}$/ms);
  expect(told).toMatch(/^[1-9]\d* orders while one inventory stopped, none lost; left: 1$/m);
});

it('is installed by the command of its README', () => {
  expect(readFileSync(join(example, 'package.json'), 'utf8')).toContain('"rollcall": "file:../.."');
  expect(readFileSync(join(example, '.npmrc'), 'utf8')).toContain('install-links=true');
});
