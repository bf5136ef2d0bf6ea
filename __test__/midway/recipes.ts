/** The recipes in applications of Midway, both kinds of modules, on a real etcd and a real Redis. */

import { type Coord, connectCoord } from 'rollcall/coord';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EtcdCluster } from '../support/etcd.js';
import { askIdempotently } from '../support/idempotent-requests.js';
import { uniqueName, waitFor } from '../support/process.js';
import { as, askOverLimit, asks, askUntilOpen } from '../support/recipe-requests.js';
import { startRedis } from '../support/redis.js';
import type { Project } from './kit.js';

type App = ReturnType<Project['start']>;

/** The tests of one version, beside the others of it: they share its project. */
export function recipeSuite(ground: () => { etcd: EtcdCluster; apps: Project }): void {
  let coord: Coord;
  beforeAll(async () => {
    coord = await connectCoord({ url: ground().etcd.url });
  });
  afterAll(async () => await coord?.close());

  describe.each(['cjs', 'esm'] as const)('a recipe in an application (%s)', (kind) => {
    /** Midway does not wait for its server to listen. */
    const server = async (app: App) => {
      const { listening } = await app.line((line) => 'listening' in line, { what: 'listening' });
      await waitFor(async () => await fetch(`http://127.0.0.1:${listening}/`), { what: 'the server' });
      return asks(listening);
    };

    it('calls methods through a breaker, whose policy changes while it runs, and answers for those it refuses', async () => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const policy = (name: string, value: object) =>
        coord.config.set(`/config/test/${SERVICE}/breakers/${name}`, value);
      await policy('default.json', { failureThreshold: 2, openStateTimeout: '5m' });
      await policy('slow', { timeoutMs: 50 });
      const app = apps.start(kind, 'breakers', { COORD: etcd.url, SERVICE });
      try {
        const get = await server(app);
        await askUntilOpen(get);
        expect((await get('users/state')).body).toEqual({ state: 'open', calls: 3 });

        await policy('grpc:users', { force: 'closed' });
        await waitFor(async () => (await get('users/7')).status === 200, { what: 'the policy' });
        expect((await get('users/or-none')).body).toEqual({ found: 'user 7!' });
        expect((await get('users/slow')).body).toEqual({ failed: 'ERR_TIMEOUT' });
        expect(await app.line((line) => 'ended' in line)).toEqual({ ended: 'ERR_TIMEOUT' });
        app.kill('SIGTERM');
        expect(await app.exit).toMatchObject({ code: 0 });
      } finally {
        app.kill('SIGKILL');
        await app.exit;
      }
    });

    it('answers requests with one Idempotency-Key once, in two processes, whose clients go away in the middle', async () => {
      const { apps } = ground();
      await using redis = await startRedis();
      const two = [1, 2].map(() => apps.start(kind, 'idempotent', { REDIS: redis.url })) as [App, App];
      try {
        const requests = await Promise.all(two.map((app) => server(app)));
        const [one, other] = await Promise.all(two.map((app) => app.line((line) => 'listening' in line)));
        await askIdempotently(two, [one?.listening, other?.listening], redis);
        const how = { headers: { 'x-user': 'ann' } };
        const firsts = await Promise.all(requests.map(async (get) => (await get('orders/count', how)).body.first));
        expect(new Set(firsts).size, 'by OnceService').toBe(1);
        for (const app of two) {
          app.kill('SIGTERM');
          expect(await app.exit).toMatchObject({ code: 0 });
        }
      } finally {
        for (const app of two) app.kill('SIGKILL');
        await Promise.all(two.map((app) => app.exit));
      }
    }, 60_000); // processes start, and wait

    it('limits rates by rules of the store, which change without a restart, in two processes', async () => {
      const { apps, etcd } = ground();
      await using redis = await startRedis();
      const SERVICE = uniqueName('orders');
      const rule = (name: string, value: object) =>
        coord.config.set(`/config/test/${SERVICE}/ratelimit/${name}`, value);
      await rule('send.json', { mode: 'distributed', rate: 0.001, capacity: 3 });
      const env = { REDIS: redis.url, COORD: etcd.url, SERVICE };
      const two = [1, 2].map(() => apps.start(kind, 'rates', env));
      try {
        const [one, other] = await Promise.all(two.map((app) => server(app)));
        if (!one || !other) throw new Error('two were started');
        await askOverLimit(one, other);
        expect((await one('send?cost=2', as('bob'))).headers.get('ratelimit')).toMatch(/^"send";r=1;/);
        expect((await one('free')).body, 'without a limit').toEqual({ sent: true });
        expect((await one('taken')).body).toEqual({ first: true, second: 'ERR_RATE_LIMITED' });
        await rule('send.json', { mode: 'distributed', rate: 0.001, capacity: 5 });
        await waitFor(async () => (await one('send?cost=0', as('ann'))).headers.get('ratelimit')?.includes('r=2'), {
          what: 'the rule',
        });
        const now = [];
        for (let i = 0; i < 3; i++) now.push((await one('send', as('ann'))).status);
        expect(now, 'what was consumed stays so').toEqual([200, 200, 429]);
        for (const app of two) {
          app.kill('SIGTERM');
          expect(await app.exit).toMatchObject({ code: 0 });
        }
      } finally {
        for (const app of two) app.kill('SIGKILL');
        await Promise.all(two.map((app) => app.exit));
      }
    }, 60_000); // processes start, and wait

    it('makes ids that no two processes make, and gives the worker id back at the end', async () => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const held = () => etcd.keys(`/im-infra/allocators/${SERVICE}/ids/`);
      const two = [1, 2].map(() => apps.start(kind, 'ids', { COORD: etcd.url, SERVICE }));
      try {
        const made = (await Promise.all(two.map((app) => app.line((line) => 'ids' in line, { what: 'the ids' })))) as {
          worker: number;
          ids: string[];
        }[];
        expect(new Set(made.map(({ worker }) => worker)).size).toBe(2);
        expect(new Set(made.flatMap(({ ids }) => ids)).size).toBe(4000);
        expect(await held()).toHaveLength(2);
        for (const app of two) app.kill('SIGTERM');
        for (const app of two) expect(await app.exit).toMatchObject({ code: 0 });
        expect(await held()).toEqual([]);
      } finally {
        for (const app of two) app.kill('SIGKILL');
        await Promise.all(two.map((app) => app.exit));
      }
    });

    it('says in one line what is wrong with them', async () => {
      const app = ground().apps.run(kind, 'recipes-refused');
      const { code, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      const told = Object.assign({}, ...app.seen);
      expect(told.breakers).toEqual({
        used: 'it ran',
        injected: 'closed',
        unknown: 'breakers: options.polices: unknown option; did you mean "policies"?',
        policy: expect.stringMatching(/^breakers: options\.policies\.users\.failureThreshold: expected a whole number/),
        noCoord: 'breakers: coord: not in the configuration, and what is given lies in its store',
        noKey: '@Breaker on Users.get: breakers: not in the configuration: give it, such as breakers: {}',
        byHand: expect.stringMatching(/^@Breaker on Users\.get: called on an object that Midway has not made/),
      });
      const wanted = 'expected one of store, such as memoryOnce(), redis, a client of it, and coord';
      expect(told.once).toEqual({
        well: 'ran',
        neither: `once: options.store: ${wanted}`,
        copied: 'once: options.redis: expected a function that gives it, got object',
        noClient: expect.stringMatching(/^once: .*expected a client of ioredis or node-redis, got an object without/),
        unknown: 'once: options.prefx: unknown option; did you mean "prefix"?',
        absent: 'once: not in the configuration: give it, such as once: { redis: (container) => client }',
        ttl: expect.stringMatching(/^idempotent: options\.ttlMs: expected a whole number from 1 to/),
        option: 'idempotent: options.scop: unknown option; did you mean "scope"?',
      });
      expect(told.rateLimit).toEqual({
        well: '[true,false]',
        shared: 'it started',
        noRules: 'rateLimit: options.rules: expected rules by their names, got undefined',
        rule: expect.stringMatching(/^rateLimit: options\.rules\.send\.rate: expected a number above 0/),
        copied: 'rateLimit: options.redis: expected a function that gives it, got object',
        noRedis: 'rateLimit: options.rules.send.mode: "distributed" needs options.redis',
        noCoord: 'rateLimit: coord: not in the configuration, and what is given lies in its store',
        noRegistry:
          'rateLimit: registry: there is no client "default": give it in registry.clients, or "default" as registry.client',
        absent: 'rateLimit: not in the configuration: give it, such as rateLimit: { rules }',
        option: '@RateLimit on Users.get: options.bye: unknown option; did you mean "by"?',
      });
      expect(told.uid).toEqual({
        fixed: '7',
        ofStore: 'true',
        noCoord: 'uid: coord: not in the configuration, and what is given lies in its store',
        noService: 'uid: options.service: expected a string, got undefined',
        worker: expect.stringMatching(/^uid: options\.workerId: expected a whole number from 0 to 1023/),
        absent: 'uid: not in the configuration: give it, such as uid: { service }',
      });
    });
  });
}
