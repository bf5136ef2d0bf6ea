/** Bundlers and other package managers: what the README says of them. */

import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { temporaryFolder } from '../support/process.js';
import { installed, packInto, tool } from './tools.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** Stays from one run to the next: what is installed here comes from the registry. */
const project = join(root, 'build', 'test-projects', 'bundlers');
const TOOLS = ['esbuild@0.28', 'webpack@5', 'pnpm@10'];
const { path: folder, remove } = temporaryFolder('rollcall-bundlers-');
let tarball: string;

const bin = (name: string) => join(project, 'node_modules', '.bin', name);
const node = (file: string) => tool(process.execPath, [file], project);

beforeAll(async () => {
  await installed('bundlers', TOOLS);
  tarball = await packInto(folder);
  rmSync(join(project, 'node_modules', 'rollcall'), { recursive: true, force: true });
  await tool('npm', ['install', '--offline', '--no-save', '--no-audit', '--no-fund', tarball], project);
  cpSync(join(root, '__test__/packaging/fixtures/bundled.mjs'), join(project, 'bundled.mjs'));
  rmSync(join(project, 'out'), { recursive: true, force: true });
}, 300_000);
afterAll(remove);

describe('esbuild', () => {
  it('leaves the package outside when it is told so', async () => {
    const options = ['--bundle', '--platform=node', '--format=esm', '--external:rollcall', '--outdir=out/esbuild'];
    await tool(bin('esbuild'), ['bundled.mjs', ...options, '--out-extension:.js=.mjs'], project);
    expect(await node('out/esbuild/bundled.mjs')).toBe('1 function');
  });

  it('takes the package in, with its native file beside the bundle', async () => {
    writeFileSync(
      join(project, 'entry.cjs'),
      readFileSync(join(project, 'bundled.mjs'), 'utf8')
        .replace(/import (\{.+\}) from ('.+');/g, 'const $1 = require($2);')
        .replace(/^const registry[\s\S]+/m, (body) => `(async () => {\n${body}})();\n`),
    );
    const options = ['--bundle', '--platform=node', '--format=cjs', '--loader:.node=copy', '--outdir=out/whole'];
    await tool(bin('esbuild'), ['entry.cjs', ...options], project);
    // Without the package it comes from.
    const alone = join(folder, 'whole');
    cpSync(join(project, 'out/whole'), alone, { recursive: true });
    expect(readdirSync(alone).filter((name) => name.endsWith('.node'))).toHaveLength(1);
    expect(await tool(process.execPath, [join(alone, 'entry.js')], alone)).toBe('1 function');
  });
});

describe('webpack', () => {
  it('leaves the package outside when it is told so', async () => {
    const config = `
      const external = ({ request }, done) => (/^rollcall(\\/|$)/.test(request) ? done(null, 'import ' + request) : done());
      const configuration = {
        target: 'node', mode: 'production', entry: './bundled.mjs', externals: [external],
        experiments: { outputModule: true },
        output: { path: ${JSON.stringify(join(project, 'out/webpack'))}, filename: 'bundle.mjs', module: true, chunkFormat: 'module' },
      };
      require('webpack')(configuration, (error, stats) => {
        if (error || stats.hasErrors()) { console.error(error ?? stats.toString()); process.exit(1); }
      });`;
    writeFileSync(join(project, 'webpack.cjs'), config);
    await node('webpack.cjs');
    expect(await node('out/webpack/bundle.mjs')).toBe('1 function');
  });
});

describe('pnpm', () => {
  it('installs nothing but the package, and it runs', async () => {
    const empty = join(folder, 'pnpm');
    mkdirSync(empty);
    writeFileSync(join(empty, 'package.json'), '{ "name": "empty", "private": true }\n');
    const store = ['--store-dir', join(folder, 'store'), '--offline'];
    await tool(bin('pnpm'), ['add', ...store, tarball], empty);
    expect(
      readdirSync(join(empty, 'node_modules', '.pnpm')).filter(
        (name) => /^[\w@]/.test(name) && name !== 'node_modules' && !name.endsWith('.yaml'),
      ),
    ).toEqual([expect.stringMatching(/^rollcall@/)]);
    cpSync(join(project, 'bundled.mjs'), join(empty, 'bundled.mjs'));
    expect(await tool(process.execPath, ['bundled.mjs'], empty)).toBe('1 function');
  });
});
