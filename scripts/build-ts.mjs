// Builds dist/ from lib/ with tsc alone:
//   dist/cjs  the package, CommonJS, with its declarations
//   dist/esm  a thin ES module over it, so that `import` and `require` share every class and every declaration; except
//             lib/nest, a real ES module: Nest 12 is one, and must not be required while it is being imported; and the
//             recipes, which `import` takes from dist/cjs
// The new dist/ takes the place of the old one at the very end: a failed build leaves the old one.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const work = join(root, 'build', `dist-${process.pid}`);

/** Entry points and other modules that are thin in dist/esm: a path below dist/cjs and dist/esm. */
const THIN = [
  'index',
  'etcd/index',
  'http/index',
  'coord/index',
  'grpc/index',
  'nest/shared/index',
  'midway/index',
  'midway/discovery/index',
];
/** Entry points for `import` as well, with nothing over them: an ES module would take about as long to import as they do. */
const BARE = ['breaker/index', 'ratelimit/index', 'once/index', 'uid/index'];
/** Folders of lib that are compiled twice, without their folders. What they import is among the above. */
const TWICE = ['nest'];
/** Entry points. */
const ENTRIES = [...THIN, ...BARE, ...TWICE.map((folder) => `${folder}/index`)];

/**
 * What tsc makes, in turn. Comments are in the declarations, where editors look: in the code they would be a third of it. The
 * first is what checks.
 */
const PARTS = [['--emitDeclarationOnly'], ['--declaration', 'false', '--removeComments', '--noCheck']];

class Failed extends Error {}

try {
  rmSync(work, { recursive: true, force: true });
  compile(join(work, 'cjs'));
  pruneDeclarations(join(work, 'cjs'));
  mkdirSync(join(work, 'esm'));
  writeFileSync(join(work, 'esm', 'package.json'), '{"type":"module"}\n');
  for (const entry of THIN) writeWrapper(entry);
  compile(join(work, 'twice'), ['--module', 'ESNext', '--moduleResolution', 'Bundler']);
  for (const folder of TWICE) takeModules(folder);
  rmSync(join(work, 'twice'), { recursive: true });
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  renameSync(work, join(root, 'dist'));
} catch (error) {
  if (!(error instanceof Failed)) throw error;
  process.exitCode = 1; // tsc has said why
} finally {
  rmSync(work, { recursive: true, force: true });
}

function compile(outDir, options = []) {
  const tsc = join(root, 'node_modules', '.bin', 'tsc');
  for (const part of PARTS) {
    const args = ['--project', join(root, 'tsconfig.build.json'), '--outDir', outDir, ...part, ...options];
    const { status } = spawnSync(tsc, args, { stdio: 'inherit', shell: process.platform === 'win32' });
    if (status !== 0) throw new Failed();
  }
}

/** Keeps the declarations that the entries reach. One of them that needs the native binding would break its users. */
function pruneDeclarations(folder) {
  const reached = new Set(ENTRIES.map((entry) => join(folder, `${entry}.d.ts`)));
  for (const file of reached) {
    for (const [, specifier] of readFileSync(file, 'utf8').matchAll(/(?:from |import\()['"]([^'"]+)['"]/g)) {
      if (/native/.test(specifier)) {
        throw new Error(`${relative(folder, file)} exposes types of the native binding: mark them @internal`);
      }
      if (specifier.startsWith('.')) reached.add(join(dirname(file), specifier.replace(/\.js$/, '.d.ts')));
    }
  }
  for (const name of readdirSync(folder, { recursive: true })) {
    const file = join(folder, name);
    if (file.endsWith('.d.ts') && !reached.has(file)) rmSync(file);
  }
}

/** Moves the ES modules of a folder to their place. They may import one another, packages, and thin modules. */
function takeModules(folder) {
  const from = join(work, 'twice', folder);
  const thin = new Set(THIN.map((path) => join(work, 'esm', `${path}.js`)));
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const to = join(work, 'esm', folder, entry.name);
    const text = readFileSync(join(from, entry.name), 'utf8');
    for (const [, specifier] of text.matchAll(/(?:from |import\()['"](\.[^'"]+)['"]/g)) {
      const target = join(dirname(to), specifier);
      if (dirname(target) !== dirname(to) && !thin.has(target)) {
        throw new Error(`${relative(work, to)} imports ${specifier}, which dist/esm lacks`);
      }
    }
    writeFileSync(to, text);
  }
}

/** The names are written out: a build that loses one is seen in the types and in the tests. */
function writeWrapper(entry) {
  const names = Object.keys(require(join(work, 'cjs', `${entry}.js`))).sort();
  const up = '../'.repeat(entry.split('/').length);
  const cjs = `${up}cjs/${entry}.js`;
  const js = `import cjs from '${cjs}';\n\nexport const {\n${names.map((name) => `  ${name},\n`).join('')}} = cjs;\n`;
  mkdirSync(join(work, 'esm', dirname(entry)), { recursive: true });
  writeFileSync(join(work, 'esm', `${entry}.js`), js);
  writeFileSync(join(work, 'esm', `${entry}.d.ts`), `export * from '${cjs}';\n`);
}
