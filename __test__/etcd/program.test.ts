// One program, two imports: it compiles with both and prints the same.

import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ETCD_VERSIONS, startEtcd } from '../support/etcd.js';
import { temporaryFolder } from '../support/process.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const IMPORTS = ['etcd3', 'rollcall/etcd'] as const;
const { path: folder, remove } = temporaryFolder('program');

beforeAll(async () => {
  // A project of its own, with both packages installed.
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(join(root, 'node_modules', 'etcd3'), join(folder, 'node_modules', 'etcd3'));
  symlinkSync(join(root, 'node_modules', '@types'), join(folder, 'node_modules', '@types'));
  mkdirSync(join(folder, 'node_modules', 'rollcall'));
  for (const name of ['package.json', 'index.js', 'index.d.ts', 'dist']) {
    cpSync(join(root, name), join(folder, 'node_modules', 'rollcall', name), { recursive: true });
  }
  for (const name of await nodeFiles()) cpSync(join(root, name), join(folder, 'node_modules', 'rollcall', name));
  const source = readFileSync(new URL('./fixtures/program.ts', import.meta.url), 'utf8');
  const files = IMPORTS.map((name, i) => {
    const text = source.replace("from 'etcd3'", `from '${name}'`);
    writeFileSync(join(folder, `program${i}.ts`), text);
    return `program${i}.ts`;
  });
  const compilerOptions = {
    target: 'ES2022',
    module: 'NodeNext',
    moduleResolution: 'NodeNext',
    strict: true,
    types: ['node'],
    skipLibCheck: true, // etcd3's own types do not stand strictness
    outDir: 'out',
    rootDir: '.',
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }));
  writeFileSync(join(folder, 'package.json'), '{"type":"commonjs"}');
  await run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', folder]).catch((error) => {
    throw new Error(`the program does not compile:\n${error.stdout}`);
  });
});
afterAll(remove);

async function nodeFiles(): Promise<string[]> {
  const { readdir } = await import('node:fs/promises');
  return (await readdir(root)).filter((name) => name.endsWith('.node'));
}

// A server for each run, so that all of them can wait for leases at the same time.
test.concurrent.each(ETCD_VERSIONS)(
  'a program written for etcd3 prints the same with rollcall/etcd: etcd %s',
  async (version) => {
    const printed = await Promise.all(
      IMPORTS.map(async (_, i) => {
        const cluster = await startEtcd({ version });
        try {
          const program = [join(folder, 'out', `program${i}.js`), cluster.hosts[0] as string];
          const { stdout } = await run(process.execPath, program, { timeout: 50_000 });
          return stdout.trimEnd().split('\n');
        } finally {
          await cluster.close();
        }
      }),
    );
    expect(printed[0]?.length).toBeGreaterThan(80);
    expect(printed[1]).toEqual(printed[0]);
  },
);
