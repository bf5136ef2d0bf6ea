// What the README shows of rollcall/etcd is an example that runs, and ends by itself.

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
let etcd: EtcdCluster;
beforeAll(async () => {
  etcd = await startEtcd();
});
afterAll(() => etcd?.close());

test('the example of the README prints what it says, ends by itself, and leaves no lease behind', async () => {
  const [, section = ''] = readFileSync(`${root}/README.md`, 'utf8').split(/^## The etcd client: `rollcall\/etcd`$/m);
  const [, code] = /^```js\n(.*?)^```$/ms.exec(section) ?? [];
  expect(code).toBe(readFileSync(`${root}/examples/etcd.mjs`, 'utf8'));
  const run = promisify(execFile)(process.execPath, ['examples/etcd.mjs'], {
    cwd: root,
    env: { ...process.env, ETCD_HOSTS: etcd.hosts.join(',') },
    timeout: 30_000,
  });
  expect((await run).stdout.trim().split('\n')).toEqual([
    "hello [ 'greeting' ]",
    'put workers/1 here true',
    'true 42',
    'nobody else',
  ]);
  expect(await etcd.leases()).toEqual([]);
});
