// examples/grpc-orders, as its README says, with the packages of the test project.
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { server } from '../faults/kit.js';
import { output } from '../support/process.js';
import { builtProgram } from '../support/programs.js';
import { project } from './kit.js';

const example = fileURLToPath(new URL('../../examples/grpc-orders', import.meta.url));

test('the client counts no error while two servers in Node and one in Go are restarted', {
  timeout: 300_000,
}, async (context) => {
  const etcd = await server(context, {});
  const folder = join(await project(), 'grpc-orders');
  cpSync(example, folder, { recursive: true, filter: (path) => !path.includes('node_modules') });
  context.onTestFinished(() => rmSync(folder, { recursive: true }));
  const told = await output(process.execPath, [join(folder, 'demo.mjs')], {
    ROLLCALL_REGISTRY: etcd.url,
    GO_SERVER: builtProgram('peer'),
    NO_COLOR: '1',
    NODE_OPTIONS: '',
  });
  expect(told.match(/^restarting (node|go)-[123]$/gm)).toHaveLength(3);
  const lines = told.trimEnd().split('\n');
  expect(lines.filter((line) => !/^restarting |^\d+ calls, /.test(line))).toEqual([]); // messages of errors
  const [, calls, answers = ''] = /^(\d+) calls, 0 errors: (.+)$/.exec(lines.at(-1) ?? '') ?? [];
  expect(Number(calls)).toBeGreaterThan(200);
  expect(Object.keys(JSON.parse(answers)).sort()).toEqual(['go-3', 'go-6', 'node-1', 'node-2', 'node-4', 'node-5']);
});
