// The types under the compilers and settings that people have, over what they write first, from the packed tarball. A sample
// of them, in which each compiler, each kind of module and each setting stands once; all of them with TYPES=all.
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { installedWithPackage, tool } from './tools.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const fixtures = fileURLToPath(new URL('fixtures', import.meta.url));
let folder: string;

const COMPILERS = ['5.2', '5.4', '5.9', 'current'] as const;
/** `commonjs` resolves as Node.js did before packages had `exports`; what the newest compiler took out of it. */
const MODULES = {
  'nodenext, CommonJS': { extension: 'cts', module: 'NodeNext', moduleResolution: 'NodeNext' },
  'nodenext, ES module': { extension: 'mts', module: 'NodeNext', moduleResolution: 'NodeNext' },
  bundler: { extension: 'ts', module: 'ESNext', moduleResolution: 'Bundler' },
  commonjs: { extension: 'ts', module: 'CommonJS', moduleResolution: 'Node10' },
} as const;
const SETTINGS = {
  strict: { strict: true },
  'exact optional properties': { strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
} as const;

type Row = readonly [(typeof COMPILERS)[number], keyof typeof MODULES, keyof typeof SETTINGS];
const SAMPLE: readonly Row[] = [
  ['5.2', 'nodenext, CommonJS', 'exact optional properties'],
  ['5.4', 'commonjs', 'strict'],
  ['5.9', 'bundler', 'strict'],
  ['current', 'nodenext, ES module', 'exact optional properties'],
];
const ALL: readonly Row[] = COMPILERS.flatMap((compiler) =>
  (Object.keys(MODULES) as (keyof typeof MODULES)[]).flatMap((modules) =>
    (Object.keys(SETTINGS) as (keyof typeof SETTINGS)[]).map((setting) => [compiler, modules, setting] as const),
  ),
).filter(([compiler, modules]) => !(compiler === 'current' && modules === 'commonjs'));

const OLD = COMPILERS.filter((compiler) => compiler !== 'current');
/** The types of Node.js of their time: newer ones are written in words that an old compiler does not know. */
const NODE_TYPES = { '5.2': '20.8', '5.4': '20.11', '5.9': '20.19' } as const;
const PACKAGES = [
  '@nestjs/common@11',
  '@nestjs/core@11',
  'rxjs@7',
  'reflect-metadata@0.2',
  ...OLD.flatMap((version) => [
    `typescript-${version}@npm:typescript@~${version}.0`,
    `@node-${version}/node@npm:@types/node@${NODE_TYPES[version]}`,
  ]),
];

beforeAll(async () => {
  folder = await installedWithPackage('types', PACKAGES);
}, 300_000);

it.each(process.env.TYPES === 'all' ? ALL : SAMPLE)('TypeScript %s, %s, %s', async (compiler, modules, setting) => {
  const { extension, module, moduleResolution } = MODULES[modules];
  const own = join(folder, `${compiler}-${modules}-${setting}`.replace(/\W+/g, '-'));
  rmSync(own, { recursive: true, force: true });
  mkdirSync(own);
  for (const name of ['users', 'users-nest']) cpSync(join(fixtures, `${name}.ts`), join(own, `${name}.${extension}`));
  const isCurrent = compiler === 'current';
  const compilerOptions = {
    target: 'ES2022',
    lib: ['ES2022', 'ESNext.Disposable'],
    module,
    moduleResolution,
    ...SETTINGS[setting],
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
    noEmit: true,
    typeRoots: isCurrent ? [join(root, 'node_modules', '@types')] : [join(folder, 'node_modules', `@node-${compiler}`)],
    types: ['node'],
  };
  const program = isCurrent
    ? [join(root, 'node_modules', 'typescript', 'bin', 'tsc')]
    : [join(folder, 'node_modules', `typescript-${compiler}`, 'bin', 'tsc')];
  const check = async (name: string, skipLibCheck: boolean) => {
    const config = join(own, `tsconfig-${name}.json`);
    const files = [`${name}.${extension}`];
    writeFileSync(config, JSON.stringify({ compilerOptions: { ...compilerOptions, skipLibCheck }, files }));
    await tool(process.execPath, [...program, '--project', config], own);
  };
  await check('users', false); // the declarations of the package too
  await check('users-nest', true); // those of Nest are Nest's
});

it('has each compiler, each kind of module and each setting in its sample', () => {
  expect(new Set(SAMPLE.map(([compiler]) => compiler))).toEqual(new Set(COMPILERS));
  expect(new Set(SAMPLE.map(([, modules]) => modules))).toEqual(new Set(Object.keys(MODULES)));
  expect(new Set(SAMPLE.map(([, , setting]) => setting))).toEqual(new Set(Object.keys(SETTINGS)));
});
