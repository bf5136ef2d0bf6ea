// Who is measured.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { start } from '../support/child.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const loop = `${root}target/release/examples/etcd_loop${process.platform === 'win32' ? '.exe' : ''}`;

/** In the order of the tables. */
export const CONTENDERS = {
  etcd3: 'etcd3',
  rollcall: 'rollcall/etcd',
  grouped: 'rollcall/etcd, groupGets',
  rust: 'Rust loop',
};

/** Builds the loop in Rust. */
export function buildLoop() {
  const build = ['build', '--locked', '--release', '--package', 'rollcall-core', '--example', 'etcd_loop'];
  execFileSync('cargo', build, { cwd: root, stdio: 'inherit' });
  if (!existsSync(loop)) throw new Error(`${loop} was not built where it is looked for`);
}

/**
 * All of them, each in a process of its own. `ask(action, argument)` as of `support/child.mjs`. `beside` is the module of
 * another build of rollcall/etcd, which then is one more of them.
 */
export function startContenders(host, beside) {
  const node = (who, module) =>
    start('../etcd/programs/client.mjs', { args: [who, host, module], nodeArgs: ['--no-warnings'] });
  if (beside) CONTENDERS.beside = 'the other build';
  return {
    etcd3: node('etcd3', 'etcd3'),
    rollcall: node('rollcall', 'rollcall/etcd'),
    grouped: node('grouped', 'rollcall/etcd'),
    rust: startLoop(host),
    ...(beside && { beside: node('beside', pathToFileURL(beside).href) }),
  };
}

/** The loop in Rust: it knows the actions `load` and `write`. */
export function startLoop(host) {
  const child = spawn(loop, [`http://${host}`], { stdio: ['pipe', 'pipe', 'inherit'] });
  process.on('exit', () => child.kill('SIGKILL'));
  const waiting = [];
  createInterface({ input: child.stdout }).on('line', (line) => waiting.shift()?.resolve(JSON.parse(line)));
  child.once('exit', (code, signal) => {
    for (const { reject } of waiting) reject(new Error(`the loop in Rust ended with ${signal ?? `code ${code}`}`));
  });
  return {
    ask: (action, argument) =>
      new Promise((resolve, reject) => {
        waiting.push({ resolve, reject });
        child.stdin.write(`${JSON.stringify({ do: action, ...argument })}\n`);
      }),
    end: () => child.kill('SIGKILL'),
  };
}
