/** What the documentation shows is what there is. */

import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string) => readFileSync(join(root, file), 'utf8');

describe('the quick start', () => {
  it('of the README is the example', () => {
    const [, section = ''] = read('README.md').split(/^## Quick start$/m);
    const [, code] = /^```js\n(.*?)^```$/ms.exec(section) ?? [];
    expect(code).toBe(read('examples/quickstart.mjs'));
  });

  it('runs, and ends by itself', async () => {
    const { ROLLCALL_REGISTRY: _, ...env } = process.env;
    // Any exit but 0, and none within the time, rejects.
    const run = promisify(execFile)(process.execPath, ['examples/quickstart.mjs'], { cwd: root, env, timeout: 30_000 });
    expect((await run).stdout).toContain('grpc://10.1.2.3:9000');
  });
});

it('the example of coord runs, and ends by itself', async () => {
  const { ROLLCALL_COORD: _, ROLLCALL_REGISTRY: __, ...env } = process.env;
  const run = promisify(execFile)(process.execPath, ['examples/coord.mjs'], { cwd: root, env, timeout: 30_000 });
  const told = (await run).stdout.split('\n').filter((line) => !line.startsWith('rollcall: ')); // where it is, the log
  expect(told.map((line) => line.replace(/token [1-9]\d*/, 'token n'))).toEqual([
    'the rate is 100',
    'the rate is 200',
    'the report is ours alone, with token n',
    'instance a leads, with token n',
    '',
  ]);
});

const pages = [
  ...readdirSync(root),
  ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' }).map((page) => join('docs', page)),
].filter((page) => page.endsWith('.md'));

it('no page runs a package of the registry by a name that is not published', () => {
  expect(pages.filter((page) => /\bnpx\b/.test(read(page)))).toEqual([]);
});

describe('every relative link points to a file', () => {
  it.each(pages)('in %s', (page) => {
    const prose = read(page).replace(/^(```+)[^\n]*\n.*?^\1$/gms, '');
    const inline = [...prose.matchAll(/\]\(<?([^()\s<>]+)>?(?:\s+"[^"]*")?\)/g)];
    const references = [...prose.matchAll(/^\[[^\]]+\]:\s+<?([^\s<>]+)/gm)];
    const files = [...inline, ...references]
      .map(([, target = '']) => target.replace(/[?#].*$/, ''))
      .filter((target) => target !== '' && !/^[a-z][a-z0-9+.-]*:/i.test(target));
    expect(files.filter((file) => !existsSync(join(root, dirname(page), decodeURIComponent(file))))).toEqual([]);
  });
});
