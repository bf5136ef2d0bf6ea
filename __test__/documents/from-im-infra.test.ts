// docs/from-im-infra.md, line by line: what stands in its right column is run as it stands there, on an etcd and a Redis, in the order
// of the page, but that everything is closed at the end. Of each line it is known here what it has to come to.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as redisPackage from 'redis';
import type { Registry } from 'rollcall';
import * as breakerEntry from 'rollcall/breaker';
import * as coordEntry from 'rollcall/coord';
import { grpcClient } from 'rollcall/grpc';
import * as onceEntry from 'rollcall/once';
import * as ratelimitEntry from 'rollcall/ratelimit';
import * as uidEntry from 'rollcall/uid';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { schemaOf } from '../coord/kit.js';
import { load, ORDERS, project } from '../grpc/kit.js';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { type RedisServer, startRedis } from '../support/redis.js';

const page = readFileSync(fileURLToPath(new URL('../../docs/from-im-infra.md', import.meta.url)), 'utf8');

interface Line {
  /** The call of im-infra. */
  readonly theirs: string;
  readonly ours: string;
  readonly isRun: boolean;
}

const lines: Line[] = [...page.matchAll(/^\| (.+) \|$/gm)].flatMap(([, row = '']) => {
  const cells = row.split(' | ');
  const [, marked, ours] = /^(not run: )?`(.+)`$/.exec(cells.at(-1) as string) ?? [];
  return ours === undefined ? [] : [{ theirs: cells[0] as string, ours, isRun: marked === undefined }];
});

type Scope = Record<string, unknown>;
type Told = { value: unknown; scope: Scope };

/** What a line gives another by, and what it has to come to. */
const EXPECTED: Record<string, { as?: string; comesTo: (told: Told) => unknown }> = {
  'coordProvider.Registry().GetConnection(': {
    as: 'userClient',
    comesTo: ({ value }) => expect(value).toHaveProperty('close'),
  },
  'coordProvider.Config().Get(': {
    comesTo: ({ value }) => expect(value).toEqual({ driver: 'mysql', maxOpenConns: 25 }),
  },
  'coordProvider.Config().WatchPrefix(': {
    as: 'watcher',
    comesTo: ({ value }) => expect(value).toHaveProperty('stop'),
  },
  'watcher.Chan()': {
    comesTo: ({ scope }) => expect(scope.reloaded).toEqual(['/config/config/ratelimit/rules/send.json']),
  },
  'watcher.Close()': { comesTo: ({ scope }) => expect(ended(scope.watcher)).resolves.toBe(true) },
  'coordProvider.Lock().Acquire(': { as: 'held', comesTo: ({ value }) => expect(value).toHaveProperty('token') },
  'lock.Unlock(ctx)': {
    comesTo: ({ scope }) => expect((scope.held as { isHeld: boolean }).isHeld).toBe(false),
  },
  'coordProvider.Close()': {
    comesTo: ({ scope }) =>
      expect((scope.coord as coordEntry.Coord).config.list('/config/')).rejects.toMatchObject({ code: 'ERR_CLOSED' }),
  },
  'uidProvider.GetUUIDV7()': {
    comesTo: ({ value }) =>
      expect(Math.abs(uidEntry.parseUuidv7(value as string).at.getTime() - Date.now())).toBeLessThan(60_000),
  },
  'uidProvider.GenerateSnowflake()': { as: 'messageID', comesTo: ({ value }) => expect(typeof value).toBe('bigint') },
  'uidProvider.ParseSnowflake(messageID)': {
    comesTo: ({ value, scope }) =>
      expect(value).toMatchObject({ workerId: (scope.uid as uidEntry.Uid).workerId, at: expect.any(Date) }),
  },
  'uidProvider.Close()': { comesTo: ({ scope }) => expect(() => (scope.uid as uidEntry.Uid).next()).toThrow(/closed/) },
  'rateLimitProvider.Allow(': { comesTo: ({ value }) => expect(value).toBe(true) },
  'if err != nil': { comesTo: ({ value }) => expect(value).toBe('allow') },
  'rateLimitProvider.Close()': { comesTo: ({ value }) => expect(value).toBeUndefined() },
  'onceProvider.Do(': {
    comesTo: ({ value, scope }) => expect([value, scope.payments]).toEqual(['ran', 1]),
  },
  'onceProvider.Execute(': { comesTo: ({ value }) => expect(value).toEqual({ id: 'doc-1' }) },
  'onceProvider.Clear(': { comesTo: ({ value }) => expect(value).toBe(true) },
  'onceProvider.Close()': {
    comesTo: ({ scope }) =>
      expect((scope.once as onceEntry.Once).do('a', 1000, () => {})).rejects.toMatchObject({ code: 'ERR_CLOSED' }),
  },
  'breakerProvider.GetBreaker(': { as: 'breaker', comesTo: ({ value }) => expect(value).toHaveProperty('state') },
  'b.Do(ctx, fn)': { comesTo: ({ value }) => expect(value).toBe('called') },
  'errors.Is(err, breaker.ErrBreakerOpen)': { comesTo: ({ value }) => expect(value).toBe(true) },
  'breakerProvider.Close()': { comesTo: ({ value }) => expect(value).toBeUndefined() },
  'cacheProvider.String().Set(': { comesTo: ({ value }) => expect(value).toBe('OK') },
  'cacheProvider.String().Get(': { comesTo: ({ value }) => expect(value).toBe('John') },
  'errors.Is(err, cache.ErrCacheMiss)': { comesTo: ({ value }) => expect(value).toBe(true) },
  'cacheProvider.Lock().Acquire(': { comesTo: ({ value }) => expect(value).toBeUndefined() },
  'coord.WithLogger(': { comesTo: ({ value }) => expect(value).toBeUndefined() },
};

/** The calls that the guide shows, but for those that set up and log. */
const GUIDE = [
  ...[
    'Registry().GetConnection',
    'Config().Get',
    'Config().WatchPrefix',
    'watcher.Chan',
    'Lock().Acquire',
    'lock.Unlock',
  ],
  ...['String().Set', 'String().Get', 'Bloom().BFExists', 'Bloom().BFAdd', 'ErrCacheMiss'],
  ...['GetUUIDV7', 'GenerateSnowflake', 'ParseSnowflake', 'rateLimitProvider.Allow'],
  ...['onceProvider.Do', 'onceProvider.Execute', 'onceProvider.Clear', 'GetBreaker', 'b.Do', 'ErrBreakerOpen'],
  ...['NewProducer', 'producer.Send(', 'SendSync', 'NewConsumer', 'consumer.Subscribe'],
  ...[
    'dbProvider.DB(ctx).Where',
    'dbProvider.DB(ctx).Create',
    'dbProvider.Transaction',
    'BulkIndex',
    'SearchInSession',
  ],
  ...[
    'GRPCServerInterceptor',
    'GRPCClientInterceptor',
    'HTTPMiddleware',
    'clog.Init',
    'clog.WithContext',
    'Namespace(',
  ],
];

const ended = async (watcher: unknown) => (await (watcher as AsyncIterator<unknown>).next()).done;

const run = (code: string, scope: Scope): Promise<unknown> => {
  const isStatement = code.startsWith('for ');
  const body = isStatement ? code : `return (${code});`;
  return new Function(...Object.keys(scope), `return (async () => { ${body} })();`)(...Object.values(scope));
};

let etcd: EtcdCluster;
let redis: RedisServer & AsyncDisposable;
beforeAll(async () => {
  [etcd, redis] = await Promise.all([startEtcd(), startRedis(), project()]);
}, 300_000);
afterAll(() => Promise.all([etcd?.close(), redis?.[Symbol.asyncDispose]()]));

it('names every call that the guide shows, and runs a line of each that is not marked', () => {
  const all = lines.map(({ theirs }) => theirs).join('\n');
  expect(GUIDE.filter((call) => !all.includes(call))).toEqual([]);
  const known = (theirs: string) => Object.keys(EXPECTED).filter((begin) => theirs.includes(begin));
  for (const { theirs, isRun } of lines) expect([theirs, known(theirs).length]).toEqual([theirs, isRun ? 1 : 0]);
  expect(lines.filter(({ isRun }) => isRun)).toHaveLength(Object.keys(EXPECTED).length);
});

it('each line does what it stands for', async () => {
  const put = (key: string, value: unknown) => etcd.put(`/config/config/${key}`, JSON.stringify(value));
  await put('dev/global/db', { driver: 'mysql', maxOpenConns: 25 });
  await put('ratelimit/rules/send.json', { mode: 'local', rate: 30, capacity: 60 });
  await put('prod/message-service/ratelimit/send_message.json', {
    ...{ mode: 'distributed', rate: 30, capacity: 60, description: '发送', onStoreFailure: 'allow' },
  });
  await put('prod/message-service/policies/default.json', {
    ...{ failureThreshold: 5, successThreshold: 2, openStateTimeout: '1m' },
  });
  const scope = await start();
  const error = new breakerEntry.BreakerOpenError('open', { breaker: 'users', retryAfterMs: 1 });
  const grpc = await load(14);
  Object.assign(scope, {
    ...{ error, BreakerOpenError: breakerEntry.BreakerOpenError, payments: 0, reloaded: [] as string[] },
    // Of grpc-js there are several copies here.
    grpcClient: (of: Registry, Client: never, name: string) => grpcClient(of, Client, name, { grpc }),
    UserServiceClient: grpc.makeGenericClientConstructor(ORDERS, 'UserService'),
    databaseSchema: schemaOf((value) => ({ value })),
    reload: (entries: ReadonlyMap<string, unknown>) => (scope.reloaded as string[]).push(...entries.keys()),
    processPayment: () => {
      scope.payments = (scope.payments as number) + 1;
    },
    createDocument: () => ({ id: 'doc-1' }),
    callDownstreamService: () => 'called',
  });
  const isEnd = ({ ours }: Line) => /^(await )?(uid|limiter|once|breakers|coord)\.close\(\)$/.test(ours);
  const shown = lines.filter(({ isRun }) => isRun);
  const order = [...shown.filter((line) => !isEnd(line)), ...shown.filter(isEnd).reverse()];
  for (const { theirs, ours } of order) {
    const [, { as, comesTo }] = Object.entries(EXPECTED).find(([begin]) => theirs.includes(begin)) as [
      string,
      (typeof EXPECTED)[string],
    ];
    try {
      const value = await run(ours, scope);
      if (as !== undefined) scope[as] = value;
      await comesTo({ value, scope });
    } catch (cause) {
      throw new Error(`${ours}: ${(cause as Error).message}`, { cause });
    }
  }
  (scope.userClient as { close(): void }).close();
  await (scope.redis as { close(): Promise<void> }).close();
}, 60_000);

/** The block at the start of the page, with these servers in the place of its own, and what it makes. */
async function start(): Promise<Scope> {
  const [, block = ''] = /^```ts\n(.*?)^```$/ms.exec(page) ?? [];
  const code = block
    .replace(/^import .*$/gm, '')
    .replace('etcd://localhost:2379', `etcd://${etcd.hosts[0]}`)
    .replace('redis://localhost:6379', redis.url);
  const given: Scope = {
    ...breakerEntry,
    ...coordEntry,
    ...onceEntry,
    ...ratelimitEntry,
    ...uidEntry,
    ...redisPackage,
  };
  delete given.default;
  const made = ['coord', 'redis', 'uid', 'limiter', 'once', 'breakers'];
  const whole = `return (async () => { ${code}; return { ${made.join(', ')} }; })();`;
  return { ...given, ...(await new Function(...Object.keys(given), whole)(...Object.values(given))) };
}
