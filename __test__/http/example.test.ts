// examples/http-orders, as its README says.
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { server } from '../faults/kit.js';
import { output } from '../support/process.js';

test('the client counts no error while each of the servers is restarted', { timeout: 120_000 }, async (context) => {
  const etcd = await server(context, {});
  const demo = fileURLToPath(new URL('../../examples/http-orders/demo.mjs', import.meta.url));
  const told = await output(process.execPath, [demo], { ROLLCALL_REGISTRY: etcd.url, NO_COLOR: '1', NODE_OPTIONS: '' });
  expect(told.match(/^restarting orders-[123]$/gm)).toHaveLength(3);
  const lines = told.trimEnd().split('\n');
  expect(lines.filter((line) => !/^restarting |^\d+ calls, /.test(line))).toEqual([]); // messages of errors
  const [, calls, answers = ''] = /^(\d+) calls, 0 errors: (.+)$/.exec(lines.at(-1) ?? '') ?? [];
  expect(Number(calls)).toBeGreaterThan(200);
  expect(Object.keys(JSON.parse(answers)).sort()).toEqual([1, 2, 3, 4, 5, 6].map((n) => `orders-${n}`));
});
