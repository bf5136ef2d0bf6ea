/** Configuration in applications of Midway, both kinds of modules, on a real etcd. */

import { type Coord, connectCoord } from 'rollcall/coord';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EtcdCluster } from '../support/etcd.js';
import { uniqueName, waitFor } from '../support/process.js';
import type { Line, Project } from './kit.js';

/** The tests of one version, beside the others of it: they share its project. */
export function coordSuite(ground: () => { etcd: EtcdCluster; apps: Project }): void {
  let coord: Coord;
  beforeAll(async () => {
    coord = await connectCoord({ url: ground().etcd.url });
  });
  afterAll(async () => await coord?.close());

  describe.each(['cjs', 'esm'] as const)('an application (%s)', (kind) => {
    it.each([
      ['and puts it before other components', 'yes'],
      ['and keeps it for itself', 'no'],
    ])('opens its configuration %s, is asked before it changes, and has it to the end', async (_, PLACED) => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const key = `/config/test/${SERVICE}/quota`;
      await coord.config.set(key, { max: 3 });
      const app = apps.start(kind, 'coord', { COORD: etcd.url, SERVICE, PLACED, CHANGE_AT_START: 'yes' });
      try {
        const told = (name: string) => app.line((line) => name in line, { what: name });
        const asked = async (max: number) => {
          const is = ({ asked }: Line) => (asked as number[] | undefined)?.[0] === max;
          return (await app.line(is, { what: `the question of ${max}` })).asked;
        };
        const isPlaced = PLACED === 'yes';
        const size = isPlaced ? { min: 0, max: 4 } : { min: 0 };
        expect(await told('pool')).toEqual({ pool: { size } });
        expect(await told('inits')).toEqual({ inits: 3 });
        expect(await asked(4), 'of what has changed while it was made').toEqual([4, 3, 4]);
        const { listening } = (await told('listening')) as { listening: string };
        const get = async (path: string) => {
          const response = await fetch(`http://127.0.0.1:${listening}/${path}`);
          return (await response.json()) as Record<string, unknown>;
        };
        // Midway does not wait for its server to listen.
        await waitFor(async () => await get('gate'));
        expect(await get('gate')).toEqual({
          limits: { max: 1 },
          quota: { max: 4 },
          atStart: size,
          same: true,
          rejected: [],
          health: expect.objectContaining({ status: true }),
        });
        expect(await get('other')).toEqual({
          code: 'ERR_INVALID_ARGUMENT',
          message:
            'definition: expected the definition of /config/{env}/{service}/limits that is given in config, got another ' +
            'one of this key',
        });

        await coord.config.set(key, { max: 200 });
        await waitFor(async () => String((await get('gate')).rejected) === key, { what: 'the veto' });
        expect(await asked(200)).toEqual([200, 4, 4]);
        expect(await get('gate')).toMatchObject({
          quota: { max: 4 },
          health: { status: false, reason: `coord: rejected: ${key}` },
        });
        await coord.config.set(key, { max: 5 });
        await waitFor(async () => JSON.stringify((await get('gate')).quota) === '{"max":5}', { what: 'the change' });
        expect(await asked(5), 'before it is visible').toEqual([5, 4, 4]);

        app.kill('SIGTERM');
        expect(await told('atStop')).toEqual({ atStop: false });
        const { code, stdout, stderr } = await app.exit;
        expect(code).toBe(0);
        expect(stdout + stderr).toContain('@OnConfigChange on Hollow: without effect');
        expect(stdout + stderr).toContain('a configuration was refused, and the one before it stays');
      } finally {
        app.kill('SIGKILL');
        await app.exit;
      }
    });

    it('runs methods under a lock, in one process at a time', async () => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const two = [1, 2].map(() => apps.start(kind, 'guarded', { COORD: etcd.url, SERVICE, TIMES: '8' }));
      try {
        const ports = await Promise.all(
          two.map((app) => app.line((line) => 'listening' in line, { what: 'listening' })),
        );
        const answers = await Promise.all(
          ports.map(async ({ listening }) => {
            const url = (name: string) => `http://127.0.0.1:${listening}/count/${name}`;
            const counted = async (name: string) => (await (await fetch(url(name))).json()) as Line;
            await waitFor(async () => await fetch(url('other')), { what: 'the server' });
            return await counted(SERVICE);
          }),
        );
        for (const { tokens, ...answer } of answers) {
          expect(answer).toEqual({
            key: `/locks/count:${SERVICE}`,
            shape: ['add', 1],
            refused: '@WithLock on Counter.add: {0.name}: expected a text without "/"',
            health: true,
            skipped: ['it did not run'],
          });
          const own = (tokens as string[]).map(BigInt);
          expect(own).toEqual([...own].sort((a, b) => (a < b ? -1 : 1)));
        }
        expect(new Set(answers.flatMap(({ tokens }) => tokens as string[])).size, 'no token twice').toBe(16);
        expect((await coord.config.raw(`/counts/${SERVICE}`))?.value, 'no count is lost').toBe('16');
      } finally {
        for (const app of two) app.kill('SIGKILL');
        await Promise.all(two.map((app) => app.exit));
      }
    }, 120_000); // processes start one after the other

    it('runs methods where it leads, and leaves that to another when it is killed or stops', async () => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const jobs = `${SERVICE}-jobs`;
      const all: ReturnType<typeof apps.start>[] = [];
      const told = (app: (typeof all)[number], name: string) => app.line((line) => name in line, { what: name });
      const start = async (count: number) => {
        const app = apps.start(kind, 'guarded', { COORD: etcd.url, SERVICE });
        all.push(app);
        await told(app, 'listening');
        const keys = async () => [
          ...(await etcd.keys(`/elections/${jobs}/`)),
          ...(await etcd.keys(`/elections/test:${SERVICE}/`)),
        ];
        await waitFor(async () => (await keys()).length === 2 * count, { what: `${count} candidates` });
        if (count === 2) expect(app.seen.filter((line) => 'ran' in line)).toEqual([]);
        return app;
      };
      try {
        const first = await start(1);
        const { token } = await told(first, 'ran');
        expect(await told(first, 'leads')).toEqual({
          leads: expect.arrayContaining([jobs, `test:${SERVICE}`]),
          asked: 'ran',
        });
        const second = await start(2);
        first.kill('SIGKILL');
        await first.exit;
        expect(BigInt((await told(second, 'ran')).token as string)).toBeGreaterThan(BigInt(token as string));
        await told(second, 'leads');
        const third = await start(2);
        second.kill('SIGTERM');
        expect(await told(second, 'stops'), 'it still leads when it is told').toEqual({
          stops: 'ERR_ABORTED',
          isHeld: true,
        });
        expect(await told(second, 'tickStops')).toEqual({ tickStops: 'ERR_ABORTED' });
        expect(await told(second, 'later')).toEqual({ later: 'it did not run' });
        const begun = (await told(third, 'ran')).at;
        const { code, stdout, stderr } = await second.exit;
        expect(code).toBe(0);
        const last = second.seen.filter((line) => 'ran' in line).at(-1)?.at;
        expect(Number(last)).toBeLessThanOrEqual(Number(begun));
        expect(stdout + stderr).toContain(`this instance leads ${jobs}, with token `);
        // Each tick has run once, whoever led.
        const ticks = () => all.flatMap(({ seen }) => seen.flatMap(({ tick }) => (tick as number | undefined) ?? []));
        await waitFor(() => ticks().length > 3, { what: 'four ticks' });
        expect(new Set(ticks()).size).toBe(ticks().length);
      } finally {
        for (const app of all) app.kill('SIGKILL');
        await Promise.all(all.map((app) => app.exit));
      }
    }, 120_000); // processes start one after the other

    it('is told in one line what is wrong', async () => {
      const { apps } = ground();
      const app = apps.run(kind, 'coord-refused');
      const { code, stdout, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      expect(stdout).toContain('{"ok":true}');
      const wanted = 'expected what defineConfig() of rollcall/coord gives, got object';
      const away = expect.stringMatching(/^coord: [^\n]*127\.0\.0\.1:1[^\n]*give lazy: true to start without it$/);
      const limits = '/config/{env}/{service}/limits';
      expect(await app.line((line) => 'away' in line)).toEqual({
        absent: 'coord: not in the configuration: give it, such as { url, config: [limits] }',
        list: 'coord: config: expected an array of definitions, got object',
        entry: `coord: config[1]: ${wanted}`,
        twice: `coord: config[1]: expected one definition of ${limits}, got another one than config[0]`,
        as: 'coord: config[0].as: expected a place in the configuration, such as "redis.client"',
        ref: ['ERR_INVALID_ARGUMENT', `definition: ${wanted}`],
        hears: ['ERR_INVALID_ARGUMENT', `definition: ${wanted}`],
        away,
        awayPlaced: away,
        nothing: expect.stringMatching(/^coord: [^\n]*\/config\/test\/orders\/quota[^\n]*$/),
        unset: 'coord: coord.url: expected a URL such as "etcd://10.0.0.1:2379" or options, got undefined',
        noClient: 'coord: coord.etcd: there is no client "eu": give it in etcd.clients, or "default" as etcd.client',
        noRegistry:
          'coord: coord.registry: there is no client "eu": give it in registry.clients, or "default" as registry.client',
        noCoord: '@WithLock on Locked.run: coord: not in the configuration: give it, such as { url, config: [limits] }',
        noService:
          'coord: @LeaderOnly on Nightly.run: expected the name of an election, or the option service of coord, whose election it is then',
        twoTicks:
          'coord: @OncePerTick on TwoOfOneName.second: name: expected another one than that of @OncePerTick on ' +
          'TwoOfOneName.first, for a tick of nightly is run once',
        outside:
          '@WithLock on Locked.run: called on an object that Midway has not made, or imports of @Configuration is without rollcall/midway',
        lazy: 'it started',
        onRegistry: 'it started',
        onEtcd: 'it started',
      });
    });
  });
}
