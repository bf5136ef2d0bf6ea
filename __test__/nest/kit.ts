// Applications of Nest as their users make them: the packed tarball and Nest installed into an empty folder, the sources
// compiled as CommonJS and as ES modules, each started as a process.

import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installedWithPackage, tool } from '../packaging/tools.js';
import { runProgram, type Script } from '../support/process.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const fixtures = fileURLToPath(new URL('fixtures/apps', import.meta.url));
const scripts = fileURLToPath(new URL('fixtures/scripts', import.meta.url));

export type NestVersion = 10 | 11 | 12;
export type ModuleKind = 'cjs' | 'esm';

/** What belongs together. */
const PACKAGES: Record<NestVersion, readonly string[]> = {
  10: ['common', 'core', 'platform-express', 'platform-fastify', 'microservices', 'testing', 'terminus@11', 'config@3'],
  11: [
    'common',
    'core',
    'platform-express',
    'platform-fastify',
    'microservices',
    'testing',
    'terminus@11',
    'config@4',
    'schedule@6',
    'axios@4',
  ],
  12: [
    'common',
    'core',
    'platform-express',
    'platform-fastify',
    'microservices',
    'testing',
    'terminus@12',
    'config@12',
  ],
};

/** What an application prints, besides its log. */
export type Line = Record<string, unknown>;

export interface Project {
  readonly folder: string;
  /** Starts an application of `fixtures/apps`. */
  start(kind: ModuleKind | 'swc', app: string, env?: NodeJS.ProcessEnv): Script<Line>;
  /** Runs a file of `fixtures/scripts` to its end, and gives what it printed. */
  run(script: string): Promise<string>;
}

/**
 * A project with rollcall from its tarball, one version of Nest, and all applications compiled both ways. Nest stays in
 * `build/` from one run to the next; rollcall is installed anew each time.
 */
export async function project(version: NestVersion): Promise<Project> {
  const folder = await installNest(version);
  await Promise.all((['cjs', 'esm'] as const).map((kind) => compile(folder, kind)));
  cpSync(scripts, folder, { recursive: true });
  return {
    folder,
    run: (script) => tool(process.execPath, [script], folder),
    start: (kind, app, env = {}) =>
      runProgram(process.execPath, [join(folder, kind, 'out', `${app}.js`)], {
        NODE_OPTIONS: '',
        NO_COLOR: '1',
        ROLLCALL_REGISTRY: undefined,
        ...env,
      }),
  };
}

async function installNest(version: NestVersion): Promise<string> {
  const named = PACKAGES[version].map((name) => `@nestjs/${name.includes('@') ? name : `${name}@${version}`}`);
  const rest = [
    ...(version === 11 ? ['@swc/core@1', 'axios@1'] : []),
    'rxjs@7',
    'reflect-metadata@0.2',
    'croner@11',
    'ioredis@6',
    '@nestjs/throttler@6',
    '@grpc/grpc-js@1',
    '@grpc/proto-loader@0.8',
  ];
  // Terminus apart: one of its optional peers, resolved in one go with Nest 12, wants Nest 11.
  const terminus = named.filter((name) => name.includes('terminus'));
  const others = named.filter((name) => !terminus.includes(name));
  return await installedWithPackage(`nest${version}`, [...others, ...rest], terminus);
}

/** As `nest build -b swc` does it: into CommonJS, which needs `@swc/core` in the project. */
export async function compileBySwc({ folder }: Project): Promise<void> {
  const own = join(folder, 'swc');
  rmSync(own, { recursive: true, force: true });
  mkdirSync(join(own, 'out'), { recursive: true });
  writeFileSync(join(own, 'package.json'), '{ "name": "swc", "private": true, "type": "commonjs" }\n');
  // What the schematics of Nest write into .swcrc.
  const options = {
    swcrc: false,
    module: { type: 'commonjs' },
    jsc: {
      target: 'es2022',
      parser: { syntax: 'typescript', decorators: true },
      transform: { legacyDecorator: true, decoratorMetadata: true },
      keepClassNames: true,
    },
  };
  const script = `
    const { transformFileSync } = require('@swc/core');
    const { readdirSync, writeFileSync } = require('node:fs');
    for (const name of readdirSync('cjs/src').filter((name) => name.endsWith('.ts'))) {
      const { code } = transformFileSync('cjs/src/' + name, ${JSON.stringify(options)});
      writeFileSync('swc/out/' + name.replace('.ts', '.js'), code);
    }`;
  await tool(process.execPath, ['-e', script], folder);
}

/** Checks the applications as somebody else compiles them. */
export async function typeCheck({ folder }: Project, how: object): Promise<void> {
  const own = join(folder, 'cjs');
  const compilerOptions = { lib: ['ES2022', 'ESNext.Disposable'], rootDir: 'src', noEmit: true, ...how };
  const config = join(own, 'tsconfig.types.json');
  writeFileSync(config, JSON.stringify({ extends: './tsconfig.json', compilerOptions, include: ['src'] }));
  await tool(join(root, 'node_modules', '.bin', 'tsc'), ['--project', config], own);
}

/** As `nest build` does it with tsc. */
async function compile(folder: string, kind: ModuleKind): Promise<void> {
  const own = join(folder, kind);
  rmSync(own, { recursive: true, force: true });
  mkdirSync(own);
  cpSync(fixtures, join(own, 'src'), { recursive: true });
  const type = kind === 'esm' ? 'module' : 'commonjs';
  writeFileSync(join(own, 'package.json'), JSON.stringify({ name: kind, private: true, type }));
  const compilerOptions = {
    target: 'ES2022',
    module: 'NodeNext',
    moduleResolution: 'NodeNext',
    rootDir: 'src',
    outDir: 'out',
    strict: true,
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
    skipLibCheck: true,
    typeRoots: [join(root, 'node_modules', '@types')],
    types: ['node'],
  };
  writeFileSync(join(own, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['src'] }));
  await tool(join(root, 'node_modules', '.bin', 'tsc'), ['--project', own], own);
  cpSync(join(fixtures, 'hero.proto'), join(own, 'out', 'hero.proto'));
}
