// The API documentation of the public entry points, into build/api. TypeDoc takes TypeScript up to 6.0, the package is compiled
// by a newer one: TypeDoc and its compiler lie in build/typedoc, put there when this folder's package.json or lock has changed.

import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const here = join(root, 'scripts', 'docs');
const tool = join(root, 'build', 'typedoc');
const stampFile = join(tool, 'installed');

const stamp = ['package.json', 'package-lock.json'].map((name) => readFileSync(join(here, name), 'utf8')).join('');
if (!existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp) {
  console.log('installing TypeDoc…');
  mkdirSync(tool, { recursive: true });
  for (const name of ['package.json', 'package-lock.json']) copyFileSync(join(here, name), join(tool, name));
  const shell = process.platform === 'win32'; // npm is a script there
  execFileSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: tool, stdio: 'inherit', shell });
  writeFileSync(stampFile, stamp);
}
const typedoc = join(tool, 'node_modules', 'typedoc', 'bin', 'typedoc');
// The entry points of the package, as lib/ has them.
const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const entries = Object.values(exports).flatMap((entry) => {
  const types = entry.import?.types ?? entry.types;
  return types ? [types.replace(/^\.\/dist\/(?:cjs|esm)\/(.+)\.d\.ts$/, 'lib/$1.ts')] : [];
});
const options = ['--options', join(here, 'typedoc.json'), ...entries.flatMap((entry) => ['--entryPoints', entry])];
process.exitCode = spawnSync(process.execPath, [typedoc, ...options], { cwd: root, stdio: 'inherit' }).status ?? 1;
