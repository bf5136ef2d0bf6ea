/** What holds under every version of Nest, shown by applications that are processes of their own, on a real etcd. */

import { connect, type Registry, type ServiceInstance } from 'rollcall';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectionsOf } from '../support/connections.js';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { type Script, uniqueName, waitFor } from '../support/process.js';
import { coordSuite } from './coord.js';
import { type Line, type ModuleKind, type NestVersion, type Project, project } from './kit.js';
import { recipeSuite } from './recipes.js';

/** What the tests of one version share. */
export interface Ground {
  readonly etcd: EtcdCluster;
  readonly apps: Project;
  /** A client of the test itself. */
  readonly registry: Registry;
  /** Of the registry, with a TTL of 3 s. */
  readonly url: string;
  /** The line of an application that has this key. */
  told<T extends Line>(app: Script<Line>, key: string): Promise<T>;
  /** How many instances a service has. */
  count(service: string): Promise<number>;
}

/**
 * The tests of one version. What does not depend on the version is shown with one kind of module and one adapter:
 * `kind` and `adapter`.
 */
export function suite(
  version: NestVersion,
  { kind, adapter, more }: { kind: ModuleKind; adapter: 'express' | 'fastify'; more?: (ground: () => Ground) => void },
): void {
  let ground: Ground;
  beforeAll(async () => {
    const [etcd, apps] = await Promise.all([startEtcd(), project(version)]);
    const registry = await connect({ backend: 'etcd', hosts: etcd.hosts });
    ground = {
      etcd,
      apps,
      registry,
      url: `${etcd.url}?ttlMs=3000`,
      told: <T>(app: Script<Line>, key: string) => app.line((line) => key in line, { what: key }) as Promise<T>,
      count: async (service) => (await registry.getService(service)).length,
    };
  }, 300_000);
  afterAll(async () => {
    await ground?.registry.close();
    await ground?.etcd.stop();
  });

  describe.each(['cjs', 'esm'] as const)(`an application of Nest ${version} (%s)`, (kind) => {
    it.each(['express', 'fastify'])('with %s is in the registry from listen() until SIGTERM', async (ADAPTER) => {
      const { apps, url, registry, told, count } = ground;
      const SERVICE = uniqueName('orders');
      const app = apps.start(kind, 'orders', { REGISTRY: url, SERVICE, ADAPTER, EXTRA: `${SERVICE}-extra` });
      const { listening, registered } = await told<{ listening: number; registered: object }>(app, 'listening');
      expect(registered).toMatchObject({
        name: SERVICE,
        version: '1.4.0',
        metadata: { zone: 'a' },
        endpoints: [`http://127.0.0.1:${listening}`],
      });
      expect(await registry.getService(SERVICE)).toEqual([registered]);
      app.kill('SIGTERM');
      await waitFor(async () => (await count(SERVICE)) === 0, { what: 'the instance to leave' });
      // Before any hook of the program itself.
      expect(await told(app, 'destroy')).toEqual({ destroy: 'deregistered', extra: 'deregistered' });
      expect(await app.exit).toMatchObject({ signal: 'SIGTERM' });
    });

    it('is tested on the memory registry, and leaves it by app.close()', async () => {
      const app = ground.apps.start(kind, 'testing', { ADAPTER: adapter });
      const { code, stdout, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      expect(stdout).toContain('{"ok":true}');
      // What a listener throws is logged, once, and stops nothing.
      expect(stderr.match(/ERROR/g)).toHaveLength(1);
      expect(stderr).toContain('a listener of the service payments failed: Error: on purpose');
    });
  });

  describe(`Nest ${version}`, () => {
    it('is loaded both ways and all at once', async () => {
      expect(await ground.apps.run('both.mjs')).toBe('both');
    });

    it('gives its services to all modules, of one client for the same options, and refuses others at the start', async () => {
      const app = ground.apps.start(kind, 'modules');
      const { code, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      const onceRoot = 'call it once, in the root module, since all modules see it';
      const noOptions = (title: string, places: string) =>
        `${title}: imported without options in ${places}: import ${title}.forRoot(…) or forRootAsync(…) once`;
      expect(await app.line(({ two }) => Boolean(two))).toEqual({
        two: expect.stringContaining(
          `RegistryModule: forRoot was called with different options in OtherModule and TwoModule: ${onceRoot}`,
        ),
        twoOfName: expect.stringContaining(
          `EtcdModule: forRoot was called with different options for "eu" in EuModule and TwoOfNameModule: ${onceRoot}`,
        ),
        sameFactory: 'it started',
        otherFactory: expect.stringContaining(`different options in FactoryModule and OtherFactoryModule: ${onceRoot}`),
        bare: expect.stringContaining(noOptions('RegistryModule', 'FeatureModule')),
        bareEtcd: expect.stringContaining(noOptions('EtcdModule', 'BareEtcdModule')),
        after: 'it started',
      });
    });

    it('takes itself out of traffic while it goes on answering, comes back, and leaves from there', async () => {
      const { apps, url, registry, told, count } = ground;
      const SERVICE = uniqueName('orders');
      const app = apps.start(kind, 'orders', { REGISTRY: url, SERVICE, ADAPTER: adapter });
      const { listening, registered } = await told<{ listening: number; registered: object }>(app, 'listening');
      const answer = async (path: string) => (await fetch(`http://127.0.0.1:${listening}/${path}`)).json();
      for (let round = 0; round < 2; round++) {
        expect(await answer('out')).toEqual({ state: 'out', outFor: ['unhealthy'] });
        expect(await count(SERVICE)).toBe(0);
        expect(await answer('in')).toEqual({ state: 'registered' });
        expect(await registry.getService(SERVICE)).toEqual([registered]);
      }
      await answer('out');
      app.kill('SIGTERM');
      expect(await told(app, 'destroy')).toMatchObject({ destroy: 'deregistered' });
      expect(await app.exit).toMatchObject({ signal: 'SIGTERM' });
      expect(await count(SERVICE)).toBe(0);
    });

    it('refuses no request of one who found it by name while instances come and go', async () => {
      const { apps, url, told } = ground;
      const env = { REGISTRY: url, SERVICE: uniqueName('orders'), ADAPTER: adapter };
      const caller = apps.start(kind, 'caller', env);
      await told(caller, 'ready');
      const started = async () => {
        const app = apps.start(kind, 'orders', env);
        const { registered } = await told<{ registered: { id: string } }>(app, 'registered');
        await caller.line(({ called }) => called === registered.id, { what: `a call of ${registered.id}` });
        return app;
      };
      let app = await started();
      for (let round = 0; round < 2; round++) {
        const next = await started();
        app.kill('SIGTERM');
        expect(await app.exit).toMatchObject({ signal: 'SIGTERM' });
        app = next;
      }
      caller.child.stdin?.end();
      const { failures, calls } = await told<{ failures: string[]; calls: object }>(caller, 'failures');
      expect(failures).toEqual([]);
      expect(Object.keys(calls)).toHaveLength(3);
      app.kill('SIGTERM');
      await app.exit;
    });

    it('puts the endpoints of HTTP, gRPC and TCP into one record', async () => {
      const { apps, url, registry, told, count } = ground;
      const SERVICE = uniqueName('heroes');
      const app = apps.start(kind, 'hybrid', { REGISTRY: url, SERVICE, ADAPTER: adapter });
      // Microservices listen before the application is initialized: nobody is sent to them yet.
      expect(await told(app, 'started')).toEqual({ started: [] });
      const { registered } = await told<{ registered: ServiceInstance }>(app, 'registered');
      expect(registered.endpoints.map((endpoint) => endpoint.replace(/:\d+$/, '')).sort()).toEqual([
        'grpc://127.0.0.1',
        'http://127.0.0.1',
        expect.stringMatching(/^tcp:\/\/(?!0\.0\.0\.0)/), // the address of this machine in place of the wildcard
      ]);
      expect(new Set(registered.endpoints.map((endpoint) => endpoint.split(':').at(-1))).size).toBe(3);
      expect(await registry.getService(SERVICE)).toEqual([registered]);
      app.kill('SIGTERM');
      await app.exit;
      expect(await count(SERVICE)).toBe(0);
    });

    it('adds what begins to listen later, and registers a microservice alone', async () => {
      const { apps, url, told, count } = ground;
      const [late, alone] = [uniqueName('heroes'), uniqueName('heroes')];
      const programs = [
        apps.start(kind, 'hybrid', { REGISTRY: url, SERVICE: late, ADAPTER: adapter, LATE: '1' }),
        apps.start(kind, 'hybrid', { REGISTRY: url, SERVICE: alone, ALONE: 'grpc' }),
      ] as const;
      const [first, second] = await Promise.all(
        programs.map((app) => told<{ registered: ServiceInstance }>(app, 'registered')),
      );
      expect(first?.registered.endpoints).toHaveLength(3);
      expect(second?.registered.endpoints).toEqual([expect.stringMatching(/^grpc:\/\/127\.0\.0\.1:[1-9]\d*$/)]);
      expect([await count(late), await count(alone)]).toEqual([1, 1]);
      for (const app of programs) app.kill('SIGTERM');
      await Promise.all(programs.map((app) => app.exit));
      expect([await count(late), await count(alone)]).toEqual([0, 0]);
    });

    it.each(['named', 'injected'])('shares the connection of an etcd client with the registry: %s', async (CASE) => {
      const { apps, told } = ground;
      const etcd = await startEtcd();
      const [member] = etcd.members;
      const SERVICE = uniqueName('orders');
      const app = apps.start(kind, 'shared', { HOSTS: etcd.hosts.join(','), SERVICE, ADAPTER: adapter, CASE });
      const outside = await connect({ backend: 'etcd', hosts: etcd.hosts });
      try {
        const { registered, limit } = await told(app, 'registered');
        expect(limit).toBe('10');
        expect(await outside.getService(SERVICE)).toEqual([registered]);
        expect(await etcd.keys(`/services/${SERVICE}/`)).toEqual([`/services/${SERVICE}/a`]);
        expect(connectionsOf(app.pid, etcd.hosts[0] as string)).toBe(1);
        await member?.kill();
        await member?.start();
        await waitFor(async () => (await outside.getService(SERVICE, { consistent: true })).length === 1);
        app.kill('SIGTERM');
        expect(await app.exit).toMatchObject({ signal: 'SIGTERM' });
        // In order: nothing was left to be taken along by the client.
        expect(app.stderr + (await app.exit).stdout).not.toContain('close the registry before');
        expect(await outside.getService(SERVICE, { consistent: true })).toEqual([]);
        expect(await etcd.keys('/services/')).toEqual([]);
      } finally {
        app.kill('SIGKILL');
        await outside.close();
        await etcd.close();
      }
    });

    it('says which client a registry can not share', async () => {
      const { apps, etcd, told } = ground;
      const app = apps.start(kind, 'shared', { HOSTS: etcd.hosts.join(','), SERVICE: 'orders', CASE: 'refused' });
      expect((await told(app, 'refused')).refused).toEqual([
        'RegistryModule: registry.etcd: there is no etcd client "eu": import EtcdModule.forRoot(…) for it in the root module',
        'RegistryModule: registry.etcd: a name is for forRoot(): in forRootAsync() inject the client, by getEtcdToken(), and give it as { client }',
        'RegistryModule: registry.etcd: given together with registry.hosts',
      ]);
    });

    it('calls a service over gRPC by the URL discovery:///name', async () => {
      const { apps, url, told } = ground;
      const SERVICE = uniqueName('heroes');
      const server = apps.start(kind, 'hybrid', { REGISTRY: url, SERVICE, ALONE: 'grpc' });
      await told(server, 'registered');
      const caller = apps.start(kind, 'dialling', { REGISTRY: url, SERVICE });
      expect(await told(caller, 'hero')).toEqual({ hero: { id: 7, name: 'hero' } });
      expect(await caller.exit).toMatchObject({ code: 0 }); // the channel holds nothing
      server.kill('SIGTERM');
      await server.exit;
    });

    it('has etcd clients by token, class and name, and the services of EtcdService', async () => {
      const { apps, etcd, registry, told } = ground;
      const SERVICE = uniqueName('orders');
      const app = apps.start(kind, 'etcd', { HOSTS: etcd.hosts.join(','), SERVICE });
      await told(app, 'ready');
      const lines = app.seen;
      expect(lines).toContainEqual({ same: true, others: true });
      expect(lines).toContainEqual({ created: 'second' });
      expect(lines).toContainEqual({ created: 'third' });
      expect(lines).toContainEqual({ config: ['hello', '{"port":3000,"hosts":["a"]}', null] });
      expect(lines).toContainEqual({ raw: 'hello' });
      // A property that holds a setting: before the hooks of the program, after a change, after a deletion.
      expect(lines).toContainEqual({ limitAtStart: 10 });
      expect(lines).toContainEqual({ limits: [10, 20, 10] });
      const a = { host: '10.0.0.1', port: 3002 };
      const b = { host: '10.0.0.2', port: 3001 };
      expect(lines.find((line) => 'list' in line)).toEqual({ list: [] }); // at once, and nothing of "…-admin"
      await app.line(({ list }) => JSON.stringify(list) === JSON.stringify([a, b]), { what: 'both, once each' });
      expect(lines).toContainEqual({ discovered: [a, b] });
      expect(lines.find((line) => 'keys' in line)).toEqual({
        keys: { [`/services/${SERVICE}/a`]: JSON.stringify(a), [`/services/${SERVICE}/b`]: JSON.stringify(b) },
      });
      app.child.stdin?.write('unwatch\n');
      const { unwatched } = await told<{ unwatched: number }>(app, 'unwatched');
      expect(lines.filter((line) => 'list' in line)).toHaveLength(unwatched);
      app.kill('SIGTERM');
      await app.exit;
      // The drain, after its services have left.
      expect((await told<{ leftAfter: number }>(app, 'leftAfter')).leftAfter).toBeGreaterThanOrEqual(250);
      expect(await registry.getService(SERVICE)).toEqual([]);
      const services = await connect({ backend: 'etcd', hosts: etcd.hosts, prefix: '/services', codec: 'json' });
      expect(await services.getService(SERVICE)).toEqual([]);
      await services.close();
    });
  });

  coordSuite(version, () => ground);
  recipeSuite(version, () => ground);
  more?.(() => ground);
}
