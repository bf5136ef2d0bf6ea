/** The tarball as a user gets it: installed into an empty project, loaded both ways, type-checked every way. */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isDebugBuild } from '../../bench/support/machine.mjs';
import { inTime } from '../support/process.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const fixtures = fileURLToPath(new URL('fixtures', import.meta.url));
const tool = (name: string) => join(root, 'node_modules', '.bin', name);

let folder: string;
let project: string;
let tarball: string;
let packed: string[];
let bytes: { tarball: number; native: number };

/** Runs a program; a failure shows what it printed. */
async function output(program: string, args: string[], cwd = project): Promise<string> {
  try {
    return (await run(program, args, { cwd, env: { ...process.env, NO_COLOR: '1' } })).stdout.trim();
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    throw new Error(`${program} ${args.join(' ')}\n${stdout}\n${stderr}`, { cause: error });
  }
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rollcall-package-'));
  project = join(folder, 'project');
  await mkdir(project);
  const [answer] = JSON.parse(await output('npm', ['pack', '--json', '--pack-destination', folder], root));
  tarball = join(folder, answer.filename);
  packed = answer.files.map(({ path }: { path: string }) => path);
  const native = answer.files.find(({ path }: { path: string }) => path.endsWith('.node'));
  bytes = { tarball: answer.size, native: native.size };
  await writeFile(join(project, 'package.json'), '{ "name": "project", "private": true }\n');
  await output('npm', ['install', '--offline', '--no-audit', '--no-fund', tarball]);
  await cp(fixtures, project, { recursive: true });
}, 300_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('the tarball', () => {
  it('holds what is needed and nothing else', () => {
    const rest = packed.filter((path) => !/^dist\/(cjs|esm)\/[\w/-]+(\.d\.ts|\.js)$/.test(path)).sort();
    const expected = [/^dist\/esm\/package\.json$/, /^index\.d\.ts$/, /^index\.js$/, /^package\.json$/];
    const pages = [/^(README|CHANGELOG)(\.[\w-]+)?\.md$/, /^docs\/[\w./-]+\.md$/];
    const allowed = [...pages, /^LICENSE-(MIT|APACHE)$/, /^rollcall\.[\w-]+\.node$/];
    for (const pattern of expected)
      expect(
        rest.some((path) => pattern.test(path)),
        String(pattern),
      ).toBe(true);
    expect(rest.filter((path) => ![...expected, ...allowed].some((pattern) => pattern.test(path)))).toEqual([]);
  });

  it('is small: 7 MB, of which the addon is 16 before it is packed', (context) => {
    if (isDebugBuild()) context.skip('a debug build of the addon');
    expect(bytes.native).toBeLessThanOrEqual(16e6);
    expect(bytes.tarball).toBeLessThanOrEqual(7e6);
  });

  it('holds the pages that its README names', async () => {
    const readme = await readFile(join(project, 'node_modules', 'rollcall', 'README.md'), 'utf8');
    const pages = [...readme.matchAll(/\]\((docs\/[^)#]+\.md)/g)].map(([, page]) => page);
    expect(pages.length).toBeGreaterThan(10);
    expect(pages.filter((page) => !packed.includes(page as string))).toEqual([]);
  });

  it('is found by the words that people look for', async () => {
    const { keywords } = JSON.parse(await readFile(join(project, 'node_modules', 'rollcall', 'package.json'), 'utf8'));
    expect(keywords).toEqual(
      expect.arrayContaining(['nestjs', 'midway', 'etcd', 'etcd3', 'consul', 'zookeeper', 'kratos']),
    );
  });

  it('is not made for a release that does not say where its repository is', async () => {
    const released = await mkdtemp(join(folder, 'released-'));
    const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
    await mkdir(join(released, 'dist', 'cjs'), { recursive: true });
    await writeFile(join(released, 'dist', 'cjs', 'index.js'), '');
    await cp(join(root, 'scripts', 'prepack.mjs'), join(released, 'scripts', 'prepack.mjs'));
    const pack = async (more: object) => {
      const { repository: _, ...rest } = manifest;
      await writeFile(join(released, 'package.json'), JSON.stringify({ ...rest, optionalDependencies: {}, ...more }));
      return output('npm', ['pack', '--dry-run', '--json'], released);
    };
    await expect(pack({})).rejects.toThrow('package.json has no repository');
    const url = 'git+https://example.org/rollcall.git';
    expect(await pack({ repository: { type: 'git', url } })).toContain('package.json');
  });

  it('is not made before the package is built', async () => {
    const empty = await mkdtemp(join(folder, 'unbuilt-'));
    await cp(join(root, 'package.json'), join(empty, 'package.json'));
    await cp(join(root, 'scripts', 'prepack.mjs'), join(empty, 'scripts', 'prepack.mjs'));
    await expect(output('npm', ['pack', '--dry-run'], empty)).rejects.toThrow(
      'Nothing to pack: there is no dist or no .node file; run npm run build first.',
    );
  });

  it('has no dependencies but optional ones', async () => {
    const { dependencies, peerDependencies, peerDependenciesMeta } = JSON.parse(
      await readFile(join(root, 'package.json'), 'utf8'),
    );
    expect(dependencies).toBeUndefined();
    const optional = Object.fromEntries(Object.keys(peerDependencies).map((name) => [name, { optional: true }]));
    expect(peerDependenciesMeta).toEqual(optional);
    // Ranges that fit everything take part in npm's resolution, and make it fail.
    expect(Object.values(peerDependencies).filter((range) => !/^\^\d/.test(String(range)))).toEqual([]);
  });
});

describe('an empty project', () => {
  it('gets the same classes by require and by import', async () => {
    expect(await output('node', ['same-class.cjs'])).toBe('same');
  });

  it('gets nothing of the frameworks, which only their entry points ask for', async () => {
    expect((await readdir(join(project, 'node_modules'))).filter((name) => !name.startsWith('.'))).toEqual([
      'rollcall',
    ]);
    const both = 'console.log(typeof require("rollcall").connect, typeof require("rollcall/etcd").Etcd3)';
    expect(await output('node', ['-e', both])).toBe('function function');
    const grpc = 'require("rollcall/grpc").registerResolver({ service() {}, watch() {} })';
    await expect(output('node', ['-e', grpc])).rejects.toThrow('@grpc/grpc-js is not found: install it');
    await expect(output('node', ['-e', 'require("rollcall/nest")'])).rejects.toThrow(
      "Cannot find module '@nestjs/common'",
    );
  });

  it('is told which package is missing that reads expressions, YAML or TOML', async () => {
    const program = `
      const { connectCoord, defineConfig } = require('rollcall/coord');
      const told = ({ code, message, operation }) => ({ code, message, operation });
      (async () => {
        const coord = await connectCoord('memory://missing?logger=0');
        const lines = [];
        try { coord.cron('report', '0 3 * * *', () => {}); } catch (error) { lines.push(told(error)); }
        for (const end of ['yaml', 'toml']) {
          await coord.config.set('/config/a.' + end, 'max: 1');
          const schema = { '~standard': { version: 1, vendor: 'test', validate: (value) => ({ value }) } };
          await coord.config.open(defineConfig({ key: '/config/a.' + end, schema })).catch((error) => lines.push(told(error)));
        }
        await coord.close();
        console.log(JSON.stringify(lines));
      })();`;
    const wanted = (name: string, what: string) =>
      `expected the package "${name}" beside rollcall, to read ${what}: npm install ${name}`;
    expect(JSON.parse(await output('node', ['-e', program]))).toEqual([
      { code: 'ERR_UNSUPPORTED', message: wanted('croner', 'expressions'), operation: 'cron' },
      { code: 'ERR_INVALID_CONFIG', message: expect.stringContaining(wanted('yaml', 'YAML')), operation: 'open' },
      { code: 'ERR_INVALID_CONFIG', message: expect.stringContaining(wanted('smol-toml', 'TOML')), operation: 'open' },
    ]);
  });

  it('imports it as an ES module', async () => {
    expect(await output('node', ['import.mjs'])).toBe('imported');
  });

  it('loads it in far less than 100 ms (the target is 10 ms, measured by `make bench`)', async () => {
    // The best of several: other work on the machine is not what is measured.
    const times: { package: number; addon: number; coord: number; early: string[] }[] = [];
    for (let i = 0; i < 3; i++) times.push(JSON.parse(await output('node', ['load-time.cjs'])));
    const best = Math.min(...times.map((time) => time.package));
    expect(best, JSON.stringify(times)).toBeLessThanOrEqual(inTime(100));
    expect(Math.min(...times.map((time) => time.coord)), JSON.stringify(times)).toBeLessThanOrEqual(inTime(100));
    expect(times[0]?.early).toEqual([]); // nobody pays for an entry point that he does not ask for
  });

  it('tests with Jest and its fake timers', async () => {
    await writeFile(
      join(project, 'jest.config.js'),
      'module.exports = { testEnvironment: "node", watchman: false };\n',
    );
    const told = await output(tool('jest'), [
      '--rootDir',
      project,
      '--config',
      join(project, 'jest.config.js'),
      '--json',
    ]);
    expect(JSON.parse(told)).toMatchObject({ numPassedTests: 1, numTotalTests: 1 });
  });
});

/** A compiler of an older version, which stays in `build/` from one run to the next. */
async function typescript(version: string): Promise<string> {
  const place = join(root, 'build', 'test-projects', `typescript-${version}`);
  const compiler = join(place, 'node_modules', '.bin', 'tsc');
  if (existsSync(compiler)) return compiler;
  await mkdir(place, { recursive: true });
  await writeFile(join(place, 'package.json'), '{ "name": "compiler", "private": true }\n');
  await output('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', `typescript@${version}`], place);
  return compiler;
}

describe('the types', () => {
  it.each([
    ['a CommonJS file', 'cts', 'NodeNext', 'NodeNext'],
    ['an ES module', 'mts', 'NodeNext', 'NodeNext'],
    ['a CommonJS file of Node 16', 'cts', 'Node16', 'Node16'],
    ['an ES module of Node 16', 'mts', 'Node16', 'Node16'],
    ['a bundler', 'ts', 'ESNext', 'Bundler'],
  ])('work in %s', async (_, extension, module, moduleResolution) => {
    const name = `consumer-${module}.${extension}`;
    await cp(join(fixtures, 'consumer.ts'), join(project, name));
    const config = `tsconfig-${module}-${extension}.json`;
    const compilerOptions = {
      target: 'ES2022',
      lib: ['ES2022', 'ESNext.Disposable'],
      module,
      moduleResolution,
      strict: true,
      noEmit: true,
      noUncheckedIndexedAccess: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      typeRoots: [join(root, 'node_modules', '@types')],
      types: ['node'],
    };
    await writeFile(join(project, config), JSON.stringify({ compilerOptions, files: [name] }));
    await output(tool('tsc'), ['--project', config]);
  });

  it.each(['5.0', 'current'])(
    'and the smallest program of docs/faq.md compile with TypeScript %s, and it runs',
    { timeout: 300_000 }, // the older one is installed once
    async (version) => {
      const compiler = version === 'current' ? tool('tsc') : await typescript(version);
      const faq = await readFile(join(root, 'docs', 'faq.md'), 'utf8');
      const [program = '', config = ''] = ['ts', 'json'].map(
        (kind) => faq.split(`\`\`\`${kind}\n`)[1]?.split('```')[0],
      );
      const small = join(project, `small-${version}`);
      await mkdir(join(small, 'node_modules'), { recursive: true });
      await writeFile(join(small, 'package.json'), '{ "type": "module" }');
      await writeFile(join(small, 'main.ts'), program);
      await cp(join(fixtures, 'consumer.ts'), join(small, 'consumer.ts'));
      await writeFile(join(small, 'tsconfig.json'), config);
      await symlink(join(root, 'node_modules', '@types'), join(small, 'node_modules', '@types'));
      await output(compiler, ['--project', small]);
      expect(await output('node', [join(small, 'main.js')])).toBe('http://10.1.2.3:8080 registered');
    },
  );

  it('and the exports map please publint', async () => {
    await output(tool('publint'), ['--strict', tarball], root);
  });

  it('are found by every kind of resolution', async () => {
    await output(tool('attw'), [tarball, '--no-emoji'], root);
  });
});
