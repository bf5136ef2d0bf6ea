// The demonstration of configuration says what it shows, on memory and on an etcd that it starts itself.
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { output } from '../support/process.js';
import { builtProgram } from '../support/programs.js';

const demo = fileURLToPath(new URL('../../examples/demo-coord.mjs', import.meta.url));

test.each([
  ['memory', []],
  ['etcd', ['--etcd', builtProgram('etcd')]],
])('a wrong value, a canary, a rollback, a start without the store: on %s', async (_, args) => {
  const told = await output(process.execPath, [demo, ...args], { NO_COLOR: '1', NODE_OPTIONS: '' });
  const lines = told.split('\n').map((line) => line.replace(/^ *[\d.]+ s {2}/, ''));
  const find = (part: string) => {
    const at = lines.findIndex((line) => line.includes(part));
    expect(at, `${part} in\n${told}`).toBeGreaterThanOrEqual(0);
    return at;
  };
  const order = [
    'a        starts with rate 100',
    'c        refused: rate expected a whole number above 0; rate stays 100',
    '{"rate":100}  (rollback to ',
    'rates are 100 100 500',
    'rates are 500 500 500',
    'b        starts with rate 500, from its file, stale',
    'b        the store is there again',
    'rates are 300 300 300',
    'No instance was ever without a good value.',
  ].map(find);
  expect(order).toEqual(order.toSorted((a, b) => a - b));
});
