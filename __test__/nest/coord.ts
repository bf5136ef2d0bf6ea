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
