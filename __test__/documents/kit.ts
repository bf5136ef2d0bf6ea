// The programs of a document as somebody has them who follows it: the packed tarball and the framework installed into an empty
// folder, the sources compiled as the framework's scaffold does it, each started as a process.
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installedWithPackage, tool } from '../packaging/tools.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Compiles the programs of `fixtures/{name}` and gives the folder of what came of it. */
export async function compiled(name: string, packages: readonly string[], hosts: string): Promise<string> {
  const folder = await installedWithPackage(`documents-${name}`, packages);
  rmSync(join(folder, 'src'), { recursive: true, force: true });
  rmSync(join(folder, 'out'), { recursive: true, force: true });
  cpSync(fileURLToPath(new URL(`fixtures/${name}`, import.meta.url)), join(folder, 'src'), { recursive: true });
  // The documents name the server in the code; this one has a port that is free.
  for (const file of readdirSync(join(folder, 'src'), { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts')) continue;
    const path = join(folder, 'src', file);
    writeFileSync(path, readFileSync(path, 'utf8').replace(/(localhost|127\.0\.0\.1):2379/g, hosts));
  }
  const compilerOptions = {
    target: 'ES2022',
    module: 'nodenext',
    rootDir: 'src',
    outDir: 'out',
    strict: false,
    useDefineForClassFields: false,
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
    skipLibCheck: true,
    typeRoots: [join(root, 'node_modules', '@types')],
    types: ['node'],
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['src'] }));
  await tool(join(root, 'node_modules', '.bin', 'tsc'), [], folder);
  return join(folder, 'out');
}
