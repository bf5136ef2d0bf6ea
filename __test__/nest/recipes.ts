/** The recipes in applications of Nest, both kinds of modules, on a real etcd and a real Redis. */

import { type Coord, connectCoord } from 'rollcall/coord';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EtcdCluster } from '../support/etcd.js';
import { askIdempotently } from '../support/idempotent-requests.js';
import { freePorts } from '../support/ports.js';
import { uniqueName, waitFor } from '../support/process.js';
import { as, askOverLimit, asks, askUntilOpen } from '../support/recipe-requests.js';
import { startRedis } from '../support/redis.js';
import type { NestVersion, Project } from './kit.js';

/** The tests of one version, beside the others of it: they share its project. */
export function recipeSuite(_version: NestVersion, ground: () => { etcd: EtcdCluster; apps: Project }): void {
  let coord: Coord;
  beforeAll(async () => {
    coord = await connectCoord({ url: ground().etcd.url });
  });
  afterAll(async () => await coord?.close());

  describe.each([
    ['cjs', 'express'],
    ['esm', 'fastify'],
  ] as const)('a recipe in an application (%s, %s)', (kind, ADAPTER) => {
    it('calls methods through a breaker, whose policy changes while it runs, and answers for those it refuses', async () => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const policy = (name: string, value: object) =>
        coord.config.set(`/config/test/${SERVICE}/breakers/${name}`, value);
      await policy('default.json', { failureThreshold: 2, openStateTimeout: '5m' });
      await policy('slow', { timeoutMs: 50 });
      const [GRPC_PORT] = await freePorts(1);
      const env = { COORD: etcd.url, SERVICE, ADAPTER, GRPC_PORT: String(GRPC_PORT) };
      const app = apps.start(kind, 'breakers', env);
      try {
        const { listening } = await app.line((line) => 'listening' in line, { what: 'listening' });
        const get = asks(listening);
        await askUntilOpen(get);
        expect((await get('users/state')).body).toEqual({ state: 'open', calls: 3, same: true });
        app.child.stdin?.write('call\n');
        expect(await app.line((line) => 'grpc' in line, { what: 'the answer over gRPC' })).toEqual({
          grpc: [14, 'What is needed for this does not answer at the moment'],
        });

        await policy('grpc:users', { force: 'closed' });
        await waitFor(async () => (await get('users/7')).status === 200, { what: 'the policy' });
        expect((await get('users/or-none')).body).toEqual({ found: 'user 7!' });

        expect((await get('users/slow')).body).toEqual({ failed: 'ERR_TIMEOUT' });
        expect(await app.line((line) => 'ended' in line)).toEqual({ ended: 'ERR_TIMEOUT' });
        app.kill('SIGTERM');
        const { stdout, stderr } = await app.exit;
        expect(stdout + stderr).not.toContain('not closed in order');
      } finally {
        app.kill('SIGKILL');
        await app.exit;
      }
    });

    it('says in one line what is wrong with breakers', async () => {
      const app = ground().apps.start(kind, 'breakers', { DOES: 'refuse', ADAPTER });
      const { code, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      expect(app.seen[0]).toEqual({
        alone: 'it started',
        unknown: 'BreakerModule: options.polices: unknown option; did you mean "policies"?',
        policy: expect.stringMatching(
          /^BreakerModule: options\.policies\.users\.failureThreshold: expected a whole number/,
        ),
        noCoord: 'BreakerModule: coord: there is no CoordModule: import CoordModule.forRoot(…) in the root module',
        noSuchCoord:
          'BreakerModule: coord: there is no client "eu": import CoordModule.forRoot(…) for it in the root module',
        factory: expect.stringMatching(/^BreakerModule: options\.maxKeys: expected a whole number/),
        wellMade: 'it started',
        bare: expect.stringContaining('BreakerModule: imported without options in StartModule'),
        two: expect.stringContaining('BreakerModule: forRoot was called with different options in StartModule'),
        same: 'it started',
        noModule: expect.stringContaining(
          'BreakerModule.forRoot(…), which @Breaker needs: import it in the root module',
        ),
        otherModule: expect.stringContaining('BreakerModule.forRoot(…), which @Breaker needs'),
        byHand:
          '@Breaker on Users.get: called on an object that Nest has not made: take it from an application with a BreakerModule',
        name: '@Breaker on Any.run: name: expected the name of a breaker, such as "grpc:users"',
        option: '@Breaker on Any.run: options.fallBack: unknown option; did you mean "fallback"?',
      });
    });

    it('answers requests with one Idempotency-Key once, in two processes, whose clients go away in the middle', async () => {
      const { apps } = ground();
      await using redis = await startRedis();
      const env = { REDIS: redis.url, ADAPTER };
      const two = [apps.start(kind, 'idempotent', env), apps.start(kind, 'idempotent', env)] as const;
      try {
        const [one, other] = await Promise.all(
          two.map((app) => app.line((line) => 'listening' in line, { what: 'listening' })),
        );
        await askIdempotently(two, [one?.listening, other?.listening], redis);
        const counts = await Promise.all(
          [one, one, other].map(async (line) => {
            const how = { headers: { 'x-user': 'ann' } };
            return (await asks(line?.listening)('orders/count', how)).body.first;
          }),
        );
        expect(new Set(counts).size, 'by OnceService').toBe(1);
        for (const app of two) {
          app.kill('SIGTERM');
          const { stdout, stderr } = await app.exit;
          expect(stdout).toContain('atShutdown');
          expect(stdout + stderr).not.toContain('not closed in order');
        }
      } finally {
        for (const app of two) app.kill('SIGKILL');
        await Promise.all(two.map((app) => app.exit));
      }
    }, 60_000); // processes start, and wait

    it('says in one line what is wrong with what is done once', async () => {
      const { apps, etcd } = ground();
      const app = apps.start(kind, 'idempotent', { DOES: 'refuse', COORD: etcd.url, ADAPTER });
      const { code, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      const wanted = 'expected one of store, such as memoryOnce(), redis, a client of it, and coord';
      expect(app.seen[0]).toEqual({
        onCoord: 'kept',
        underCoord: 'kept',
        noCoord:
          'OnceModule: coord: there is no client "default": import CoordModule.forRoot(…) for it in the root module',
        well: 'it started',
        same: 'it started',
        two: expect.stringContaining('OnceModule: forRoot was called with different options in StartModule'),
        neither: `OnceModule: options.store: ${wanted}`,
        both: `OnceModule: options.store: ${wanted}`,
        noClient: expect.stringMatching(
          /^OnceModule: .*expected a client of ioredis or node-redis, got an object without/,
        ),
        unknown: 'OnceModule: options.prefx: unknown option; did you mean "prefix"?',
        bare: expect.stringContaining('OnceModule: imported without options in StartModule'),
        noModule: expect.stringContaining(
          'OnceModule.forRoot(…), which @Idempotent needs: import it in the root module',
        ),
        ttl: expect.stringMatching(/^@Idempotent: options\.ttlMs: expected a whole number from 1 to/),
        option: '@Idempotent: options.scop: unknown option; did you mean "scope"?',
        scope: '@Idempotent: options.scope: expected a function',
      });
    });

    it('limits rates by rules of the store, in two processes, and those of @nestjs/throttler without a restart', async () => {
      const { apps, etcd } = ground();
      await using redis = await startRedis();
      const SERVICE = uniqueName('orders');
      const rule = (name: string, value: object) =>
        coord.config.set(`/config/test/${SERVICE}/ratelimit/${name}`, value);
      await rule('send.json', { mode: 'distributed', rate: 0.001, capacity: 3 });
      await rule('page.json', { mode: 'local', rate: 0.001, capacity: 2 });
      const GRPC_PORTS = (await freePorts(2)).map(String);
      const env = { REDIS: redis.url, COORD: etcd.url, SERVICE, ADAPTER };
      const two = GRPC_PORTS.map((GRPC_PORT) => apps.start(kind, 'rates', { ...env, GRPC_PORT }));
      try {
        const [one, other] = (
          await Promise.all(two.map((app) => app.line((line) => 'listening' in line, { what: 'listening' })))
        ).map(({ listening }) => asks(listening));
        if (!one || !other) throw new Error('two were started');
        await askOverLimit(one, other);
        const bob = await one('send', as('bob'));
        expect([bob.status, bob.headers.get('ratelimit')]).toEqual([200, expect.stringMatching(/^"send";r=2;/)]);
        expect((await one('send?cost=2', as('bob'))).status).toBe(200);
        expect((await one('send', as('bob'))).status).toBe(429);
        expect((await one('send?cost=4', as('eve'))).status, 'more than there is').toBe(500);
        expect((await one('taken')).body).toEqual({ first: true, second: 'ERR_RATE_LIMITED' });
        for (let i = 0; i < 4; i++) two[0]?.child.stdin?.write('call\n');
        const called = () => two[0]?.seen.filter((line) => 'grpc' in line) ?? [];
        await waitFor(() => called().length === 4, { what: 'the answers over gRPC' });
        expect(called().map(({ grpc }) => grpc)).toContainEqual([8, 'Too many requests']);
        expect(called().filter(({ grpc }) => Array.isArray(grpc))).toHaveLength(1);

        const page = async () => {
          const { status, headers } = await one('page');
          return [status, headers.get('x-ratelimit-limit-page'), headers.get('x-ratelimit-remaining-page')];
        };
        expect([await page(), await page()]).toEqual([
          [200, '2', '1'],
          [200, '2', '0'],
        ]);
        expect((await page())[0]).toBe(429);
        await rule('page.json', { mode: 'local', rate: 0.001, capacity: 5 });
        let first: unknown[] | undefined;
        await waitFor(
          async () => {
            first = await page();
            return first[0] === 200;
          },
          { what: 'the rule' },
        );
        expect([first, await page(), await page()], 'what was consumed stays so').toEqual([
          [200, '5', '2'],
          [200, '5', '1'],
          [200, '5', '0'],
        ]);
        expect((await page())[0]).toBe(429);
        for (const app of two) {
          app.kill('SIGTERM');
          const { stdout, stderr } = await app.exit;
          expect(stdout + stderr).not.toContain('not closed in order');
        }
      } finally {
        for (const app of two) app.kill('SIGKILL');
        await Promise.all(two.map((app) => app.exit));
      }
    }, 60_000); // processes start, and wait

    it('says in one line what is wrong with rate limits', async () => {
      const app = ground().apps.start(kind, 'rates', { DOES: 'refuse', ADAPTER });
      const { code, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      expect(app.seen[0]).toEqual({
        well: 'it started',
        shared: 'it started',
        noRules: expect.stringContaining(
          'RateLimitModule: options.rules: expected rules by their names, got undefined',
        ),
        rule: expect.stringMatching(/^RateLimitModule: options\.rules\.send\.rate: expected a number above 0/),
        noRedis: 'RateLimitModule: options.rules.send.mode: "distributed" needs options.redis',
        noCoord: 'RateLimitModule: coord: there is no CoordModule: import CoordModule.forRoot(…) in the root module',
        noRegistry:
          'RateLimitModule: registry: there is no RegistryModule: import RegistryModule.forRoot(…) in the root module',
        unknown: 'RateLimitModule: options.unknwonRule: unknown option; did you mean "unknownRule"?',
        bare: expect.stringContaining('RateLimitModule: imported without options in StartModule'),
        noModule: expect.stringContaining(
          'RateLimitModule.forRoot(…), which @RateLimit needs: import it in the root module',
        ),
        name: '@RateLimit: rule: expected the name of a rule, such as "send"',
        cost: '@RateLimit: options.cost: expected a number from 0, or a function, got string',
        option: '@RateLimit: options.bye: unknown option; did you mean "by"?',
      });
    });

    it('makes ids that no two processes make, and gives the worker id back at the end', async () => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const start = () => apps.start(kind, 'ids', { COORD: etcd.url, SERVICE, ADAPTER });
      const made = async (app: ReturnType<typeof start>) =>
        (await app.line((line) => 'ids' in line, { what: 'the ids' })) as { worker: number; ids: string[] };
      const held = () => etcd.keys(`/im-infra/allocators/${SERVICE}/ids/`);
      const two = [start(), start()] as const;
      const all = [...two];
      try {
        const [one, other] = await Promise.all([made(two[0]), made(two[1])]);
        expect(one.worker).not.toBe(other.worker);
        expect(new Set([...one.ids, ...other.ids]).size).toBe(4000);
        expect(await held()).toHaveLength(2);
        two[0].kill('SIGTERM');
        const { stdout, stderr } = await two[0].exit;
        const last = two[0].seen.find((line) => 'last' in line)?.last as string;
        expect(BigInt(last), 'made while it ended').toBeGreaterThan(BigInt(one.ids.at(-1) as string));
        expect(stdout + stderr).not.toContain('not closed in order');
        expect(await held()).toHaveLength(1);
        const third = start();
        all.push(third);
        const next = await made(third);
        expect(new Set([...one.ids, ...other.ids, ...next.ids, last]).size).toBe(6001);
      } finally {
        for (const app of all) app.kill('SIGKILL');
        await Promise.all(all.map((app) => app.exit));
      }
    });

    it('says in one line what is wrong with ids', async () => {
      const app = ground().apps.start(kind, 'ids', { DOES: 'refuse', ADAPTER });
      const { code, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      expect(app.seen[0]).toEqual({
        fixed: 'it started',
        inMemory: 'it started',
        noCoord: 'UidModule: coord: there is no CoordModule: import CoordModule.forRoot(…) in the root module',
        noService: 'UidModule: options.service: expected a string, got undefined',
        worker: expect.stringMatching(/^UidModule: options\.workerId: expected a whole number from 0 to 1023/),
        both: expect.stringMatching(/^UidModule: options\.?[a-z]*: /),
        unknown: expect.stringMatching(/^UidModule: options\.widnowMs: unknown option/),
        bare: expect.stringContaining('UidModule: imported without options in StartModule'),
      });
    });
  });
}
