// The document of Midway's etcd component, on an etcd with users: its three programs as they are written there, but for the import,
// the server's address, the user, and a brace too many.
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { freePorts } from '../support/ports.js';
import { runProgram, waitFor } from '../support/process.js';
import { compiled } from './kit.js';

let etcd: EtcdCluster;
let folder: string;
beforeAll(async () => {
  etcd = await startEtcd({ users: [{ name: 'root', password: 'guang' }] });
  const midway = ['core', 'koa', 'bootstrap', 'logger'].map((name) => `@midwayjs/${name}@3`);
  folder = await compiled('midway', midway, etcd.hosts[0] as string);
}, 300_000);
afterAll(() => etcd?.close());

it.each([
  ['the default client', 'client', ['foo was: bar', 'all our keys starting with "f": [ \'foo\' ]', 'left: []']],
  ['several clients', 'clients', ['instance2 reads: instance1']],
  ['a client made at run time', 'created', ['instance3 reads: instance3']],
])('%s', async (_, APP, told) => {
  const [port] = await freePorts(1);
  const app = runProgram(process.execPath, [join(folder, 'bootstrap.js')], {
    NODE_OPTIONS: '',
    NODE_ENV: '',
    NO_COLOR: '1',
    MIDWAY_SERVER_ENV: 'local',
    APP,
    PORT: String(port),
  });
  let out = '';
  app.child.stdout?.on('data', (chunk: string) => {
    out += chunk;
  });
  const ready = waitFor(() => /^ready$/m.test(out), { what: APP });
  await Promise.race([ready, app.exit]);
  expect(out.split('\n'), app.stderr).toEqual(expect.arrayContaining(told));
  app.kill('SIGTERM');
  expect(await app.exit).toMatchObject({ code: 0 });
});
