// A program of its own with a client of rollcall/etcd, for what can't be done to the process of the tests: to block its
// thread, to stop it, to see whether it ends.

import { fileURLToPath } from 'node:url';
import { runProgram, type Script } from '../support/process.js';

const entry = fileURLToPath(new URL('../../dist/esm/etcd/index.js', import.meta.url));

const head = `
import { Etcd3, EtcdLeaseInvalidError } from ${JSON.stringify(entry)};
import { setTimeout as delay } from 'node:timers/promises';
const say = (value) => process.stdout.write(JSON.stringify({ ...value, at: performance.now() }) + '\\n');
const block = (ms) => { for (const end = performance.now() + ms; performance.now() < end; ); };
const [hosts, options = {}] = JSON.parse(process.argv[1]);
const client = new Etcd3({ hosts, logger: false, ...options });
`;

/** Runs `body`, which sees `client`, `say(object)`, `block(ms)` and `delay(ms)`, as a module. */
export function clientProgram(
  hosts: readonly string[],
  body: string,
  options: object = {},
): Script<Record<string, unknown> & { at: number }> {
  const argument = JSON.stringify([hosts, options]);
  return runProgram(process.execPath, ['--input-type=module', '-e', head + body, argument], { NODE_OPTIONS: '' });
}
