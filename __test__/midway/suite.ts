/** What holds under every version of Midway, shown by applications that are processes of their own, on a real etcd. */

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect, type Registry } from 'rollcall';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectionsOf } from '../support/connections.js';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { type Script, uniqueName, waitFor, within } from '../support/process.js';
import { coordSuite } from './coord.js';
import { type Line, type MidwayVersion, type Project, project } from './kit.js';
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

/** What an application answers over HTTP. */
export async function answer<T>(port: number | string, path: string): Promise<T> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`);
  return (await response.json()) as T;
}

/** The tests of one version, and those of `more`. */
export function suite(version: MidwayVersion, more?: (ground: () => Ground) => void): void {
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

  describe.each(['cjs', 'esm'] as const)(`an application of Midway ${version} (%s)`, (kind) => {
    it('written for @midwayjs/etcd runs with the import changed, and nothing else', async () => {
      const { apps, etcd, told } = ground;
      const PREFIX = `/${uniqueName('seeds')}/`;
      const app = apps.start(kind, 'etcd', { HOSTS: etcd.hosts.join(','), PREFIX });
      const { listening } = await told<{ listening: string }>(app, 'listening');
      // Midway does not wait for its server to listen.
      await waitFor(async () => await answer(listening, '/instances'));
      expect(await answer(listening, '/seeds')).toEqual({
        fooValue: 'bar',
        allFValues: ['foo'],
        left: [],
      });
      expect(await answer(listening, '/instances')).toEqual({
        read: '2',
        same: true,
        none: true,
        own: 2,
        members: 1,
        namespaced: '2',
      });
      app.kill('SIGTERM');
      expect(await app.exit).toMatchObject({ code: 0 });
    });

    it('is in the registry from its start until SIGTERM', async () => {
      const { apps, url, registry, told, count } = ground;
      const SERVICE = uniqueName('orders');
      const app = apps.start(kind, 'orders', { REGISTRY: url, SERVICE });
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
      expect(await app.exit).toMatchObject({ code: 0 });
    });
  });

  describe(`Midway ${version}`, () => {
    it.each(['cjs', 'esm'] as const)('is tested on the memory registry and closed by close() (%s)', async (kind) => {
      const { code, stdout, stderr } = await ground.apps.run(kind, 'testing').exit;
      expect(code, stderr).toBe(0);
      expect(stdout).toContain('{"ok":true}');
      expect(stderr + stdout).toContain('a listener of the service payments failed: Error: on purpose');
      expect(stderr + stdout).toContain('orders is not registered: nothing of it listens');
    });

    it('is loaded both ways, with the same classes', async () => {
      const app = ground.apps.run('esm', 'both');
      const { code, stderr } = await app.exit;
      expect(code, stderr).toBe(0);
      const discovery =
        version === 4
          ? 'same'
          : 'rollcall/midway/discovery needs Midway 4; on Midway 3 use RegistryService of rollcall/midway';
      expect(app.seen).toEqual([{ midway: 'same' }, { discovery }]);
    });

    it('takes itself out of traffic while it goes on answering, comes back, and leaves from there', async () => {
      const { apps, url, registry, told, count } = ground;
      const SERVICE = uniqueName('orders');
      const app = apps.start('cjs', 'orders', { REGISTRY: url, SERVICE });
      const { listening, registered } = await told<{ listening: number; registered: object }>(app, 'listening');
      for (let round = 0; round < 2; round++) {
        expect(await answer(listening, '/out')).toEqual({ state: 'out', outFor: ['unhealthy'] });
        expect(await count(SERVICE)).toBe(0);
        expect(await answer(listening, '/health')).toMatchObject({ status: true }); // its own doing
        expect(await answer(listening, '/in')).toEqual({ state: 'registered' });
        expect(await registry.getService(SERVICE)).toEqual([registered]);
      }
      await answer(listening, '/out');
      app.kill('SIGTERM');
      expect(await app.exit).toMatchObject({ code: 0 });
      expect(await count(SERVICE)).toBe(0);
    });

    it('shares the connection of an etcd client with the registry', async () => {
      const { apps, told } = ground;
      const etcd = await startEtcd();
      const SERVICE = uniqueName('orders');
      const app = apps.start('cjs', 'orders', { HOSTS: etcd.hosts.join(','), SHARED: 'default', SERVICE });
      const outside = await connect({ backend: 'etcd', hosts: etcd.hosts });
      try {
        const { listening, registered } = await told<{ listening: number; registered: object }>(app, 'listening');
        expect(await outside.getService(SERVICE)).toEqual([registered]);
        expect(await answer(listening, '/health')).toMatchObject({ status: true });
        expect(connectionsOf(app.pid, etcd.hosts[0] as string)).toBe(1);
        await etcd.kill();
        await etcd.start();
        await waitFor(async () => (await outside.getService(SERVICE, { consistent: true })).length === 1);
        app.kill('SIGTERM');
        const { code, stdout, stderr } = await app.exit;
        expect(code).toBe(0);
        expect(stdout + stderr).not.toContain('close the registry before');
        expect(await outside.getService(SERVICE, { consistent: true })).toEqual([]);
      } finally {
        app.kill('SIGKILL');
        await outside.close();
        await etcd.close();
      }
      const wrong = apps.start('cjs', 'orders', { HOSTS: ground.etcd.hosts.join(','), SHARED: 'eu', SERVICE });
      const { stdout, stderr } = await wrong.exit;
      expect(stdout + stderr).toContain(
        'registry.client: registry.etcd: there is no client "eu": give it in etcd.clients, or "default" as etcd.client',
      );
    });

    it('refuses no request of one who found it by name while instances come and go', async () => {
      const { apps, url, told } = ground;
      const env = { REGISTRY: url, SERVICE: uniqueName('orders') };
      const caller = apps.start('cjs', 'caller', env);
      await told(caller, 'ready');
      const started = async () => {
        const app = apps.start('cjs', 'orders', env);
        const { registered } = await told<{ registered: { id: string } }>(app, 'registered');
        await caller.line(({ called }) => called === registered.id, { what: `a call of ${registered.id}` });
        return app;
      };
      let app = await started();
      for (let round = 0; round < 2; round++) {
        const next = await started();
        app.kill('SIGTERM');
        expect(await app.exit).toMatchObject({ code: 0 });
        app = next;
      }
      caller.child.stdin?.end();
      const { failures, calls } = await told<{ failures: string[]; calls: object }>(caller, 'failures');
      expect(failures).toEqual([]);
      expect(Object.keys(calls)).toHaveLength(3);
      app.kill('SIGTERM');
      await Promise.all([app.exit, caller.exit]);
    });

    it('survives a restart of etcd: registered again after it, well in the health check, and callers go on', async () => {
      const { apps, told } = ground;
      const etcd = await startEtcd();
      const [member] = etcd.members;
      const env = { REGISTRY: `${etcd.url}?ttlMs=1000`, SERVICE: uniqueName('orders'), HOSTS: etcd.hosts.join(',') };
      const app = apps.start('cjs', 'orders', { ...env, FOLLOW: env.SERVICE });
      const caller = apps.start('cjs', 'caller', env);
      try {
        const { listening } = await told<{ listening: number }>(app, 'listening');
        const health = () => answer<{ status: boolean; reason?: string }>(listening, '/health');
        await caller.line((line) => 'called' in line, { what: 'a call' });
        expect(await health()).toMatchObject({ status: true });
        await member?.stop();
        const reasons = [/etcd client default: /, /registry: the application is lost/, /registry: stale: orders-/];
        await waitFor(async () => {
          const { status, reason } = await health();
          return !status && reasons.every((each) => each.test(reason ?? ''));
        });
        await member?.start();
        await waitFor(async () => (await health()).status, { timeoutMs: 30_000, what: 'all to be well again' });
        const registry = await connect({ backend: 'etcd', hosts: etcd.hosts });
        expect(await registry.getService(env.SERVICE)).toHaveLength(1);
        await registry.close();
        caller.child.stdin?.end();
        expect(await told(caller, 'failures')).toMatchObject({ failures: [] });
      } finally {
        app.kill('SIGTERM');
        caller.kill('SIGTERM');
        await Promise.all([app.exit, caller.exit]);
        await etcd.stop();
      }
    });

    it.each([
      ['noHosts', {}, 'etcd.client: options.hosts: expected the members, such as "10.0.0.1:2379", got undefined'],
      ['emptyHosts', {}, 'etcd.client: Cannot construct an etcd client with no hosts specified'],
      [
        'noClient',
        {},
        'etcd default instance not found: give etcd.client, such as { hosts: ["10.0.0.1:2379"] }, or say by etcd.defaultClientName which of etcd.clients it is',
      ],
      ['wrongDefault', {}, 'etcd.defaultClientName: there is no client "z" in etcd.clients'],
      [
        'noRegistry',
        {},
        'registry.client: registry: expected a URL such as "etcd://10.0.0.1:2379" or options, got undefined',
      ],
      ['unknownBackend', {}, /^registry\.client: options: expected a URL such as .*"etcd:\/\/host:port"/],
      ['noName', {}, 'registry: register.name: expected a string that is not empty'],
      ['badMetadata', {}, 'registry: register.metadata.weight: expected a string, got number; write String(1)'],
      [
        'etcdAway',
        { HOSTS: '127.0.0.1:1' },
        /^etcd\.clients\.orders: .+; check its hosts, or give lazy: true to start without it$/,
      ],
      [
        'registryAway',
        { REGISTRY: 'etcd://127.0.0.1:1' },
        /^registry\.client: .+; check its hosts, or give lazy: true to start without it$/,
      ],
    ])('says in one line why a start can not succeed: %s', async (CASE, env, message) => {
      const { failed } = await failing(CASE, env);
      if (typeof message === 'string') expect(failed).toBe(message);
      else expect(failed).toMatch(message);
    });

    it('says which of two names of the members counts', async () => {
      const { failed, out } = await failing('twoNames', { HOSTS: '127.0.0.1:1' });
      expect(failed).toContain('etcd.client: 14 UNAVAILABLE: cannot connect to http://127.0.0.1:1');
      expect(out).toContain('etcd.client: host is without effect beside hosts');
    });

    // Of the second nothing is left that keeps the process alive.
    it.each(['portTaken', 'portTakenOfFollower'])(
      'fails the start when the port is taken, and registers nothing: %s',
      async (CASE) => {
        const server = createServer();
        await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
        const { port } = server.address() as AddressInfo;
        const { failed } = await failing(CASE, { PORT: String(port) });
        expect(failed).toBe(`registry.register: listen EADDRINUSE: address already in use 127.0.0.1:${port}`);
        server.close();
      },
    );

    async function failing(CASE: string, env: object): Promise<{ failed: string; out: string }> {
      const app = ground.apps.run('cjs', 'broken', { CASE, ...env });
      const line = await ground.told<{ failed: string }>(app, 'failed');
      expect(line.failed).not.toContain('\n');
      const end = await within(app.exit, 20_000, 'the end of the process');
      expect(end).toMatchObject({ code: 1 });
      return { ...line, out: end.stdout + end.stderr };
    }
  });

  coordSuite(() => ground);
  recipeSuite(() => ground);
  more?.(() => ground);
}
