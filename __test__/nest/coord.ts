/** Configuration in applications of Nest, both kinds of modules, on a real etcd. */

import { type Coord, connectCoord } from 'rollcall/coord';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EtcdCluster } from '../support/etcd.js';
import { uniqueName, waitFor } from '../support/process.js';
import type { Line, NestVersion, Project } from './kit.js';

/** The tests of one version, beside the others of it: they share its project. */
export function coordSuite(version: NestVersion, ground: () => { etcd: EtcdCluster; apps: Project }): void {
  let coord: Coord;
  beforeAll(async () => {
    coord = await connectCoord({ url: ground().etcd.url });
  });
  afterAll(async () => await coord?.close());

  describe.each(['cjs', 'esm'] as const)('an application (%s)', (kind) => {
    it('has its configuration before everything else, is asked before it changes, and has it to the end', async () => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const key = `/config/test/${SERVICE}/quota`;
      await coord.config.set(key, { max: 3 });
      const app = apps.start(kind, 'coord', { COORD: etcd.url, SERVICE, CHANGE_AT_START: 'yes' });
      try {
        const told = (name: string) => app.line((line) => name in line, { what: name });
        const asked = async (max: number) => {
          const is = ({ asked }: Line) => (asked as number[] | undefined)?.[0] === max;
          return (await app.line(is, { what: `the question of ${max}` })).asked;
        };
        const { listening, ...first } = (await told('listening')) as { listening: number };
        expect(first).toEqual({ same: true, refs: true, pool: { max: 3 }, loaded: [3, 1], limits: { max: 1 } });
        expect(await told('inits')).toEqual({ inits: 3 });
        expect(await told('asked'), 'of what has changed while it started').toEqual({ asked: [4, 3, 4] });
        const get = async (path: string) => {
          const response = await fetch(`http://127.0.0.1:${listening}/${path}`);
          const body = (await response.json()) as Record<string, unknown>;
          return { ...body, code: response.status } as Record<string, unknown>;
        };
        const well = { code: 200, status: 'ok', details: { coord: { status: 'up' } } };
        expect(await get('health')).toMatchObject(well);

        await coord.config.set(key, { max: 200 });
        await waitFor(async () => String((await get('gate')).rejected) === key, { what: 'the veto' });
        expect(await get('gate')).toMatchObject({ quota: { max: 4 } });
        expect(await asked(200)).toEqual([200, 4, 4]);
        expect(await get('health')).toMatchObject(
          version === 12
            ? { code: 200, status: 'degraded', details: { coord: { status: 'degraded', rejected: [key] } } }
            : { code: 503, details: { coord: { status: 'down', rejected: [key] } } },
        );
        await coord.config.set(key, { max: 5 });
        await waitFor(async () => JSON.stringify((await get('gate')).quota) === '{"max":5}', { what: 'the change' });
        expect(await asked(5), 'before it is visible').toEqual([5, 4, 4]);
        expect(await get('health')).toMatchObject(well);

        app.kill('SIGTERM');
        expect(await told('atShutdown')).toEqual({ atShutdown: false });
        expect(await told('atDestroy')).toEqual({ atDestroy: false });
        const { stdout, stderr } = await app.exit;
        expect(stdout + stderr).toContain('@OnConfigChange on Hollow.changes(): without effect');
        expect(stdout + stderr).toContain('a configuration was refused, and the one before it stays');
      } finally {
        app.kill('SIGKILL');
        await app.exit;
      }
    });

    it('runs a method under a lock, in one process at a time', async () => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const told = (app: ReturnType<typeof apps.start>, name: string) =>
        app.line((line) => name in line, { what: name }) as Promise<Record<string, unknown>>;
      const start = (env: object) => apps.start(kind, 'locking', { COORD: etcd.url, SERVICE, TIMES: '8', ...env });
      const two = [start({}), start({})];
      const [one, other] = await Promise.all(two.map((app) => told(app, 'tokens')));
      const tokens = [one, other].map((line) => ((line as Line).tokens as string[]).map(BigInt));
      for (const own of tokens) expect(own.slice(0, 8)).toEqual([...own.slice(0, 8)].sort((a, b) => (a < b ? -1 : 1)));
      expect(new Set(tokens.flat()).size, 'no token twice').toBe(18);
      expect((await coord.config.raw(`/counts/${SERVICE}`))?.value, 'no count is lost').toBe('16');
      expect(one).toMatchObject({
        report: { id: '7', key: '/locks/report:7', held: true },
        shape: ['add', 1, 1, 2],
      });
      expect([one?.two, other?.two].sort()).toEqual([2, 4]);
      for (const app of two) expect(await app.exit).toMatchObject({ code: 0 });

      const holder = start({ DOES: 'hold' });
      try {
        expect(await told(holder, 'holds')).toEqual({ holds: true });
        expect(await told(start({ DOES: 'try' }), 'tries')).toEqual({ tries: 'it did not run', waits: 'ERR_TIMEOUT' });
        holder.kill('SIGKILL');
        const next = start({ DOES: 'hold' });
        expect(await told(next, 'holds'), 'after the time to live').toEqual({ holds: true });
        const [key] = await etcd.keys(`/locks/${SERVICE}:hold/`);
        await etcd.del(key as string);
        await told(next, 'hears');
        next.child.stdin?.write('go on\n');
        expect(await told(next, 'lost')).toEqual({ lost: 'ERR_LOCK_LOST' });
        next.kill('SIGTERM');
        await next.exit;
      } finally {
        holder.kill('SIGKILL');
        await holder.exit;
      }
    }, 120_000); // processes start one after the other

    it('runs methods where it leads, and leaves that to another when it is killed or stops', async () => {
      const { apps, etcd } = ground();
      const SERVICE = uniqueName('orders');
      const HAS_CRON = version === 11 ? 'yes' : '';
      const start = () => apps.start(kind, 'leading', { COORD: etcd.url, SERVICE, HAS_CRON });
      type App = ReturnType<typeof start>;
      const candidates = async (count: number) => {
        const both = async () => [
          ...(await etcd.keys(`/elections/${SERVICE}-jobs/`)),
          ...(await etcd.keys(`/elections/test:${SERVICE}/`)),
        ];
        await waitFor(async () => (await both()).length === 2 * count, { what: `${count} candidates` });
      };
      const told = (app: App, name: string) => app.line((line) => name in line, { what: name });
      const ran = async (app: App) => {
        const lines = await Promise.all(
          ['above', 'below'].map((job) => app.line(({ ran }) => ran === job, { what: `the job ${job}` })),
        );
        expect(new Set(lines.map(({ token }) => token)).size, 'one term for both').toBe(1);
        return BigInt(lines[0]?.token as string);
      };
      const runs = (app: App) => app.seen.filter((line) => 'ran' in line);
      const all: App[] = [];
      const next = async () => {
        const app = start();
        all.push(app);
        await told(app, 'started');
        await candidates(2);
        expect(runs(app)).toEqual([]);
        return app;
      };
      try {
        const first = start();
        all.push(first);
        const token = await ran(first);
        const jobs = `${SERVICE}-jobs`;
        const leads = expect.arrayContaining([jobs, `test:${SERVICE}`]);
        expect(await told(first, 'leads')).toEqual({
          leads,
          asked: ['ran', 'ran'],
          health: { coord: { status: 'up', leads } },
        });
        const second = await next();
        expect(await told(second, 'asked')).toMatchObject({ asked: 'it did not run' });
        first.kill('SIGKILL');
        await first.exit;
        expect(await ran(second), 'after the time to live').toBeGreaterThan(token);
        await told(second, 'leads');
        const third = await next();
        second.kill('SIGTERM');
        expect(await told(second, 'ended')).toEqual({ ended: 'well', later: 'it did not run' });
        const { isHeld, stops, at } = await told(second, 'stops');
        expect([stops, isHeld], 'it still leads when it is told').toEqual(['ERR_ABORTED', true]);
        expect(await told(second, 'tickStops')).toEqual({ tickStops: 'ERR_ABORTED' });
        await ran(third);
        expect(Number(runs(third)[0]?.at)).toBeGreaterThanOrEqual(Number(at));
        expect(Number(runs(second).at(-1)?.at)).toBeLessThanOrEqual(Number(runs(third)[0]?.at));
        await second.exit;
        await candidates(1);
        await told(third, 'leads');
        // Each tick has run once, whoever led.
        const ticks = () => all.flatMap(({ seen }) => seen.flatMap(({ tick }) => (tick as number | undefined) ?? []));
        await waitFor(() => ticks().length > 3, { what: 'four ticks' });
        expect(new Set(ticks()).size).toBe(ticks().length);
        third.kill('SIGTERM');
        await third.exit;
        await candidates(0);
        expect(third.stderr + (await third.exit).stdout).toContain(`this instance leads ${jobs}, with token `);
      } finally {
        for (const app of all) app.kill('SIGKILL');
        await Promise.all(all.map((app) => app.exit));
      }
    }, 120_000); // processes start one after the other

    it('is tested on the memory of the process, and is told in one line what is wrong', async () => {
      const { apps } = ground();
      const app = apps.start(kind, 'coord-testing');
      const { code, stdout, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      expect(stdout).toContain('{"ok":true}');
      const told = await app.line((line) => 'away' in line);
      const wanted = 'expected what defineConfig() of rollcall/coord gives, got object';
      const argument = (message: string) => ['ERR_INVALID_ARGUMENT', message];
      const limits = '/config/{env}/{service}/limits';
      expect(told).toEqual({
        list: argument('CoordModule.forRoot: config: expected an array of definitions, got object'),
        entry: argument(`CoordModule.forRoot: config[1]: ${wanted}`),
        twice: argument(
          `CoordModule.forRootAsync: config[1]: expected one definition of ${limits}, got another one than config[0]`,
        ),
        token: argument(`definition: ${wanted}`),
        inject: argument(`definition: ${wanted}`),
        hears: argument(`definition: ${wanted}`),
        loader: argument(`definition: ${wanted}`),
        away: expect.stringMatching(/^CoordModule: [^\n]*127\.0\.0\.1:1[^\n]*give lazy: true to start without it$/),
        nothing: expect.stringMatching(/^CoordModule: [^\n]*\/config\/test\/orders\/quota[^\n]*$/),
        unset: 'CoordModule: coord.url: expected a URL such as "etcd://10.0.0.1:2379" or options, got undefined',
        empty: 'CoordModule: coord: expected a URL such as "etcd://10.0.0.1:2379" or options, got an empty string',
        unknown: expect.stringMatching(/^CoordModule: options\.servise: unknown option/),
        noEnv: expect.stringContaining('CoordModule: definition.key: expected the option env of connectCoord()'),
        noClient:
          'CoordModule: coord.etcd: there is no client "eu": import EtcdModule.forRoot(…) for it in the root module',
        bare: expect.stringContaining(
          'CoordModule: imported without options in StartModule: import CoordModule.forRoot(…)',
        ),
        two: expect.stringContaining('CoordModule: forRoot was called with different options in StartModule'),
        noModule: expect.stringContaining(`COORD_CONFIG:${limits} (config of CoordModule)`),
        notOpened:
          'CoordModule: @OnConfigChange on Strange.changes: expected one that is opened at the start: give the ' +
          'definition of /config/{env}/{service}/quota in config',
        another: expect.stringContaining(`COORD_CONFIG:${limits}, definition 2 of this key (config of CoordModule)`),
        noCoord: expect.stringContaining(
          'CoordModule.forRoot(…), which @WithLock, @LeaderOnly and @OncePerTick need: import it in the root module',
        ),
        noSuchCoord: expect.stringContaining(
          "CoordModule.forRoot({ name: 'eu', … }), which @WithLock, @LeaderOnly and @OncePerTick need",
        ),
        noService:
          'CoordModule: @LeaderOnly on Nightly.run: expected the name of an election, or the option service of coord, whose ' +
          'election it is then',
        twoTicks:
          'CoordModule: @OncePerTick on TwoOfOneName.second: name: expected another one than that of @OncePerTick on ' +
          'TwoOfOneName.first, for a tick of nightly is run once',
        twoTerms:
          'CoordModule: @LeaderOnly on Disagreeing.second: options.ttlMs: expected that of @LeaderOnly on Disagreeing.first, ' +
          'since both are of the election jobs',
        same: 'it started',
        lazy: 'it started',
        shared: 'it started',
        onRegistry: 'it started',
      });
    });

    it('ends by itself where its store can not be reached, with one line', async () => {
      const { apps } = ground();
      const COORD = 'etcd://127.0.0.1:1?connectTimeoutMs=300';
      const app = apps.start(kind, 'coord', { COORD, SERVICE: 'orders' });
      const { code } = await app.exit;
      expect(code).toBe(1);
      expect(await app.line((line) => 'failed' in line)).toEqual({
        failed: expect.stringMatching(/^(coordLoader|CoordModule): [^\n]*127\.0\.0\.1:1[^\n]*$/),
        code: expect.stringMatching(/^ERR_(UNAVAILABLE|TIMEOUT)$/),
      });
    });
  });
}
