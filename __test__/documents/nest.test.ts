// The document on etcd in Nest: four ways to have the client, each a program on an etcd with users. Its code is as it is written
// there, but for the import of the client, the server's address, and the language of its messages. What is the program's own there
// is in the package: `own/` is the last of the four once more, by the module that `rollcall/nest` has.
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { runProgram, type Script, uniqueName } from '../support/process.js';
import { compiled } from './kit.js';

let etcd: EtcdCluster;
let folder: string;
beforeAll(async () => {
  etcd = await startEtcd({ users: [{ name: 'root', password: 'guang' }] });
  const nest = ['common', 'core', 'platform-express'].map((name) => `@nestjs/${name}@11`);
  folder = await compiled(
    'nest',
    [...nest, '@nestjs/config@4', 'rxjs@7', 'reflect-metadata@0.2'],
    etcd.hosts[0] as string,
  );
}, 300_000);
afterAll(() => etcd?.close());

type Line = { url?: string; instances?: object[]; discovered?: object[]; done?: string };

async function started(app: string, SERVICE = ''): Promise<Script<Line> & { get(path: string): Promise<string> }> {
  const program = runProgram<Line>(process.execPath, [join(folder, 'main.js')], {
    NODE_OPTIONS: '',
    NODE_ENV: '',
    APP: app,
    SERVICE,
    etcd_hosts: `http://${etcd.hosts[0]}`,
    etcd_auth_username: 'root',
    etcd_auth_password: 'guang',
  });
  const { url } = await program.line(({ url }) => url !== undefined, { what: app });
  return Object.assign(program, { get: async (path: string) => (await fetch(url + path)).text() });
}

/** With shutdown hooks and a client that nobody closes: the end may not be held up. */
async function ended(program: Script<Line>): Promise<void> {
  program.kill('SIGTERM');
  expect(await program.exit).toMatchObject({ signal: 'SIGTERM', stderr: '' });
}

it('the client as a provider: put, get, delete', async () => {
  const app = await started('provider/app.module');
  expect(await app.get('/')).toBe('Hello World!');
  const answers = [];
  for (const path of ['/put?value=1', '/get', '/put?value=2', '/get', '/del', '/get'])
    answers.push(await app.get(path));
  expect(answers).toEqual(['done', '1', 'done', '2', 'done', '']);
  await ended(app);
});

describe.each([
  ['the module and the service of the program', 'local/app.module'],
  ['a controller by the module of the package', 'own/async.module'],
])('settings: %s', (_, program) => {
  it('are saved and read', async () => {
    const app = await started(program);
    const value = uniqueName('value');
    expect([await app.get(`/aaa/save?value=${value}`), await app.get('/aaa/get')]).toEqual(['done', value]);
    await ended(app);
  });
});

describe.each([
  ['a module of the program', 'local/app.module'],
  ['a dynamic module of the program, forRoot()', 'dynamic/app.module'],
  ['a dynamic module of the program, forRootAsync()', 'dynamic/async.module'],
  ['EtcdModule.forRoot() of the package', 'own/app.module'],
  ['EtcdModule.forRootAsync() of the package', 'own/async.module'],
])('services: %s', (_, program) => {
  it('are registered, discovered and watched; one that ended goes', async () => {
    const service = uniqueName('services');
    const [app, other] = [await started(program, service), await started(program, service)];
    const ask = async (of: Script<Line>, what: string) => {
      of.child.stdin?.write(`${what}\n`);
      await of.line(({ done }) => done === what, { what });
    };
    const seen = (count: number) => app.line(({ instances }) => instances?.length === count, { what: `${count}` });
    await ask(app, 'watch');
    await ask(app, 'register a');
    await ask(other, 'register b');
    const instance = { host: '10.0.0.1', port: 3000 };
    await seen(2);
    await ask(app, 'discover');
    expect(await app.line(({ discovered }) => discovered !== undefined)).toEqual({ discovered: [instance, instance] });
    // The lease of the document's service ends with its process; the package's leaves with it.
    other.kill('SIGTERM');
    const keys = async () => (await etcd.keys(`/services/${service}/`)).length;
    await expect.poll(keys, { timeout: 20_000 }).toBe(1);
    const last = async () => app.seen.filter(({ instances }) => instances).at(-1)?.instances;
    await expect.poll(last, { timeout: 20_000 }).toEqual([instance]);
    await ended(app);
  });
});
