// Applications of Midway as their users make them: the packed tarball and Midway installed into an empty folder, the
// sources compiled as CommonJS and as ES modules, each started as a process.

import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installedWithPackage, tool } from '../packaging/tools.js';
import { freePorts } from '../support/ports.js';
import { runProgram, type Script } from '../support/process.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const fixtures = fileURLToPath(new URL('fixtures/apps', import.meta.url));
/** Those of one version. */
const fixturesOf = (version: MidwayVersion) => fileURLToPath(new URL(`fixtures/apps${version}`, import.meta.url));

export type MidwayVersion = 3 | 4;
export type ModuleKind = 'cjs' | 'esm';

/** What an application prints, besides its log. */
export type Line = Record<string, unknown>;

export interface Project {
  readonly folder: string;
  /** Starts an application: a folder of `fixtures/apps` with its `configuration.ts`, by Midway's Bootstrap. */
  start(kind: ModuleKind, app: string, env?: NodeJS.ProcessEnv): Script<Line>;
  /** Runs a file of `fixtures/apps` itself. */
  run(kind: ModuleKind, file: string, env?: NodeJS.ProcessEnv): Script<Line>;
}

/**
 * A project with rollcall from its tarball, one version of Midway, and all applications compiled both ways. Midway stays in
 * `build/` from one run to the next; rollcall is installed anew each time.
 */
export async function project(version: MidwayVersion): Promise<Project> {
  const folder = await installMidway(version);
  await Promise.all((['cjs', 'esm'] as const).map((kind) => compile(folder, kind, version)));
  // Midway itself looks for a free port, gives it back, and takes it again: too late at times.
  const ports = await freePorts(32);
  let turn = 0;
  const run = (kind: ModuleKind, file: string, env: NodeJS.ProcessEnv = {}) =>
    runProgram<Line>(process.execPath, [join(folder, kind, 'out', `${file}.js`)], {
      NODE_OPTIONS: '',
      NODE_ENV: '',
      MIDWAY_SERVER_ENV: 'local', // logs to the console
      NO_COLOR: '1',
      ROLLCALL_REGISTRY: undefined,
      PORT: String(ports[turn++ % ports.length]),
      ...env,
    });
  return { folder, run, start: (kind, app, env) => run(kind, 'bootstrap', { APP: app, ...env }) };
}

async function installMidway(version: MidwayVersion): Promise<string> {
  const names = [
    'core',
    'koa',
    'bootstrap',
    'mock',
    'logger',
    ...(version === 3 ? ['express', 'grpc', 'axios', 'cron'] : []),
  ];
  // Beside the copy of grpc-js to which @midwayjs/grpc pins itself the program has one of its own.
  const own = version === 3 ? ['@grpc/grpc-js@~1.14'] : [];
  return await installedWithPackage(`midway${version}`, [
    ...names.map((name) => `@midwayjs/${name}@${version}`),
    'croner@11',
    'ioredis@6',
    ...own,
  ]);
}

/** As the scaffold of Midway does it. */
async function compile(folder: string, kind: ModuleKind, version: MidwayVersion): Promise<void> {
  const own = join(folder, kind);
  rmSync(own, { recursive: true, force: true });
  mkdirSync(own);
  cpSync(fixtures, join(own, 'src'), { recursive: true });
  cpSync(fixturesOf(version), join(own, 'src'), { recursive: true });
  writeFileSync(join(own, 'src', 'root.ts'), `export const root = ${JSON.stringify(own)};\n`);
  const type = kind === 'esm' ? 'module' : 'commonjs';
  writeFileSync(join(own, 'package.json'), JSON.stringify({ name: kind, private: true, type }));
  const compilerOptions = {
    target: 'ES2020',
    module: 'NodeNext',
    moduleResolution: 'NodeNext',
    rootDir: 'src',
    outDir: 'out',
    strict: true,
    strictPropertyInitialization: false,
    useDefineForClassFields: false,
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
    skipLibCheck: true,
    typeRoots: [join(root, 'node_modules', '@types')],
    types: ['node'],
  };
  writeFileSync(join(own, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['src'] }));
  await tool(join(root, 'node_modules', '.bin', 'tsc'), ['--project', own], own);
}
