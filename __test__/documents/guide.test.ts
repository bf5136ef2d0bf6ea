// The sections on coord of the guide of a fleet in Go, as programs on a real etcd: each block of theirs is a test, in their order, and
// the paths of configuration that its other sections name come last.
//
// What the fleet's programs have written lies there as bytes, where they write it: their coord puts `/config` before each key of
// configuration, which begins with it already, and a lock of theirs is Go's `concurrency.Mutex` below `/locks`.
// What can't be as it is there: a record of their registry has an address and a port and no endpoints, so nobody but their own client
// calls it; the service in Go has a record of Kratos here.
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Coord, defineConfig, type Entry } from 'rollcall/coord';
import { grpcClient } from 'rollcall/grpc';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { anything, client, type Finish, failure, schemaOf, until } from '../coord/kit.js';
import { etcdctl } from '../etcd/recipes.js';
import { callerOf, load, ORDERS, ordersServer, project } from '../grpc/kit.js';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { freePorts } from '../support/ports.js';
import { runScript, temporaryFolder } from '../support/process.js';

let etcd: EtcdCluster;
let cluster: EtcdCluster;
beforeAll(async () => {
  [etcd, cluster] = await Promise.all([startEtcd(), startEtcd({ members: 3 }), project()]);
}, 300_000);
afterAll(() => Promise.all([etcd, cluster].map((server) => server?.close())));

/** A provider of coord. */
const provider = (finish: Finish, env = 'dev'): Promise<Coord> =>
  client(finish, `${etcd.url}?prefix=/services`, { env, service: 'message-service' });

/** Where a key of the guide's configuration lies in etcd. */
const inEtcd = <Key extends string>(key: Key): `/config${Key}` => `/config${key}`;
/** The key of what lies there. */
const ofGuide = (key: string) => key.slice('/config'.length);
const written = (key: string, value: unknown) => etcd.put(inEtcd(key), JSON.stringify(value));

describe('main()', () => {
  const program = fileURLToPath(new URL('fixtures/guide/main.mjs', import.meta.url));
  type Line = { level: string; namespace: string; msg: string };
  const main = (finish: Finish, environment: string, endpoints: readonly string[]) => {
    const app = runScript<Line>(program, [environment, JSON.stringify(endpoints)]);
    finish.onTestFinished(() => app.kill('SIGKILL'));
    return app;
  };

  it.for([
    ['development', () => etcd.hosts],
    ['production', () => cluster.hosts],
  ] as const)(
    '%s: coord is made, and closed by the signal that ends the service',
    async ([environment, hosts], finish) => {
      const app = main(finish, environment, hosts());
      await app.line(({ msg }) => msg.startsWith('所有组件初始化完毕'), { what: 'the service' });
      app.kill('SIGTERM');
      expect(await app.exit).toMatchObject({ code: 0, stderr: '' });
      const told = app.seen.map(({ msg }) => msg);
      expect([told.includes('coord Provider 初始化成功'), told.at(-1)]).toEqual([true, '服务已优雅关闭']);
      expect(new Set(app.seen.map(({ namespace }) => namespace))).toEqual(new Set(['message-service.coord']));
    },
  );

  it('without etcd: coord is not made, and the log says why', async (finish) => {
    const [port] = await freePorts(1);
    const app = main(finish, 'development', [`127.0.0.1:${port}`]);
    const line = await app.line(({ level }) => level === 'error', { what: 'the failure' });
    expect(line.msg).toMatch(new RegExp(`^初始化 coord 失败: .*127\\.0\\.0\\.1:${port}`));
    expect((await app.exit).code).toBe(1);
  });
});

it('1. a connection of gRPC by the name of a service, which follows who is there', async (finish) => {
  const coord = await provider(finish);
  const [inGo, here] = await Promise.all(['in Go', 'here'].map((id) => ordersServer(finish, id)));
  const key = '/services/user-service/1';
  const endpoints = [`grpc://127.0.0.1:${inGo?.port}`];
  await etcd.put(key, JSON.stringify({ id: '1', name: 'user-service', version: 'v1', metadata: null, endpoints }));
  const own = { id: '2', name: 'user-service', address: '127.0.0.1', port: 1, metadata: {} };
  await etcd.put('/services/user-service/2', JSON.stringify(own));

  const grpc = await load(14);
  const UserServiceClient = grpc.makeGenericClientConstructor(ORDERS, 'UserService');
  const userClient = grpcClient(coord.registry, UserServiceClient, 'user-service', { grpc, allowLocal: true });
  finish.onTestFinished(() => userClient.close());
  const users = callerOf(grpc, userClient);
  await users.reaches(['in Go']); // the one without endpoints is called by nobody
  await coord.registry.register({ name: 'user-service', endpoints: [`grpc://127.0.0.1:${here?.port}`] });
  await users.reaches(['here', 'in Go']);
  await etcd.del(key);
  await users.reaches(['here']);
});

it('2. a configuration is read, into a type that is looked at', async (finish) => {
  interface DatabaseConfig {
    driver: string;
    dsn: string;
    maxOpenConns: number;
  }
  const { config } = await provider(finish);
  const key = '/config/dev/global/db';
  const schema = schemaOf<DatabaseConfig>((value) => {
    const { driver, maxOpenConns } = (value ?? {}) as Partial<DatabaseConfig>;
    if (typeof driver !== 'string') return { issues: [{ message: 'expected the name of a driver', path: ['driver'] }] };
    if (!Number.isInteger(maxOpenConns)) return { issues: [{ message: 'expected a number', path: ['maxOpenConns'] }] };
    return { value: value as DatabaseConfig };
  });
  const database = defineConfig({ key: inEtcd('/config/{env}/global/db'), schema });
  expect(await failure(config.get(database)), 'nothing is there yet').toMatchObject({ code: 'ERR_INVALID_CONFIG' });
  const inGo = { driver: 'mysql', dsn: 'user:password@tcp(127.0.0.1:3306)/gochat', maxOpenConns: 25 };
  await written(key, inGo);
  expect(await config.get(database)).toEqual(inGo);
  await config.set(inEtcd(key), { ...inGo, maxOpenConns: 50 });
  expect(JSON.parse((await etcd.get(inEtcd(key))) as string), 'as a program in Go reads it').toEqual({
    ...inGo,
    maxOpenConns: 50,
  });
  // What is no such value is not handed out as the text that it is.
  await etcd.put(inEtcd(key), '{"driver":"mysql","maxOpenConns":"many"}');
  expect(await failure(config.get(database))).toMatchObject({
    code: 'ERR_INVALID_CONFIG',
    issues: [{ path: 'maxOpenConns', message: 'expected a number' }],
  });
});

it('2.1. a prefix is watched: each change with its type and its key', async (finish) => {
  const coord = await provider(finish);
  const rules = '/config/ratelimit/rules/';
  await written(`${rules}send.json`, { mode: 'local', rate: 30, capacity: 60 });
  const watcher = coord.config.watchPrefix(inEtcd(rules));
  const events: string[] = [];
  const following = (async () => {
    let before: ReadonlyMap<string, Entry> | undefined;
    for await (const entries of watcher) {
      for (const [key, entry] of entries) {
        // What stood there at the start is no change, and what did not change is the same object.
        if (before && before.get(key) !== entry) events.push(`type=PUT, key=${ofGuide(key)}`);
      }
      for (const key of before?.keys() ?? []) if (!entries.has(key)) events.push(`type=DELETE, key=${ofGuide(key)}`);
      before = entries;
    }
  })();
  await until('the rules that are there', () => watcher.revision > 0n);
  const told: string[] = [];
  const tells = async (type: string, name: string, change: Promise<unknown>) => {
    told.push(`type=${type}, key=${rules}${name}`);
    await change;
    await until(`${told.length} events`, () => events.length >= told.length);
    expect(events).toEqual(told);
  };
  await written('/config/ratelimit/rules-old/send.json', { rate: 1 }); // below another prefix
  await tells('PUT', 'login.json', written(`${rules}login.json`, { mode: 'local', rate: 5, capacity: 10 }));
  await tells('PUT', 'send.json', written(`${rules}send.json`, { mode: 'local', rate: 60, capacity: 60 }));
  await tells('DELETE', 'login.json', etcd.del(inEtcd(`${rules}login.json`)));
  watcher.stop();
  await following;
});

it('3. a lock is acquired for thirty seconds and unlocked, beside programs in Go', async (finish) => {
  const { lock } = await provider(finish);
  const ctx = new AbortController();
  const held = await lock.acquire('my-resource-key', { ttlMs: 30_000, signal: ctx.signal });
  expect(await etcd.keys('/locks/')).toEqual([held.key]);
  expect(held.key).toBe(`/locks/my-resource-key/${await etcd.leaseOf(held.key)}`);
  expect(held.remainingMs).toBeGreaterThan(20_000);

  // `etcdctl lock` is concurrency.Mutex. It holds the lock until it finds a file.
  const folder = temporaryFolder();
  finish.onTestFinished(folder.remove);
  const says = `echo '{"has": true}'; until [ -e ${folder.path}/done ]; do sleep 0.05; done`;
  const inGo = etcdctl(finish, etcd, 'lock', '/locks/my-resource-key', '--', 'sh', '-c', says);
  await until('the one in Go to wait', async () => (await etcd.keys('/locks/')).length === 2);
  expect(inGo.seen).toEqual([]);
  await held.release();
  await inGo.line((line) => line.has === true, { what: 'the one in Go to hold it' });

  const next = lock.acquire('my-resource-key', { ttlMs: 30_000, timeoutMs: 0 });
  const given = failure(lock.acquire('my-resource-key', { ttlMs: 30_000, timeoutMs: 0, signal: ctx.signal }));
  await until('both to wait', async () => (await etcd.keys('/locks/')).length === 3);
  ctx.abort();
  expect(await given).toMatchObject({ code: 'ERR_ABORTED' });
  writeFileSync(`${folder.path}/done`, '');
  expect((await next).token).toBeGreaterThan(held.token);
  await (await next).release();
  expect(await etcd.keys('/locks/')).toEqual([]);
});

it('the rules and policies of other sections change while the program runs, and one that is wrong changes nothing', async (finish) => {
  const { config } = await provider(finish, 'prod');
  interface Rule {
    rate: number;
    capacity: number;
  }
  const rule = schemaOf<Rule>((value) => {
    const { rate, capacity } = (value ?? {}) as Partial<Rule>;
    if (typeof rate === 'number' && typeof capacity === 'number') return { value: value as Rule };
    return { issues: [{ message: 'expected a rate and a capacity' }] };
  });
  const rulesPath = '/config/prod/message-service/ratelimit/';
  const policiesPath = '/config/prod/message-service/policies/';
  await written(`${rulesPath}send_message.json`, { mode: 'distributed', rate: 30, capacity: 60, description: '发送' });
  await written(`${policiesPath}default.json`, { failureThreshold: 5, successThreshold: 2, openStateTimeout: '1m' });
  const [rules, policies] = await Promise.all([
    config.open(defineConfig({ key: inEtcd('/config/{env}/{service}/ratelimit/'), schema: rule })),
    config.open(defineConfig({ key: inEtcd('/config/{env}/{service}/policies/'), schema: anything })),
  ]);
  expect(rules.value['send_message.json']).toMatchObject({ mode: 'distributed', rate: 30 });
  expect(policies.value['default.json']).toMatchObject({ openStateTimeout: '1m' });
  const rates: unknown[] = [];
  rules.subscribe((next) => rates.push(next['send_message.json']?.rate));
  await written(`${rulesPath}send_message.json`, { mode: 'distributed', rate: 10, capacity: 60 });
  await until('the change', () => rates.length === 1);
  await etcd.put(inEtcd(`${rulesPath}send_message.json`), '{"mode":"distributed","rate":');
  await until('the refusal', () => rules.rejected);
  expect(rules.rejected?.issues).toEqual([{ entry: 'send_message.json', message: 'expected JSON', path: '' }]);
  expect([rules.value['send_message.json'], rates]).toEqual([{ mode: 'distributed', rate: 10, capacity: 60 }, [10]]);
  await written(`${policiesPath}default.json`, { failureThreshold: 3, openStateTimeout: 60_000_000_000 });
  await until(
    'the policy',
    () => (policies.value['default.json'] as { failureThreshold: number }).failureThreshold === 3,
  );
});
