/** What holds under every version of Midway, shown by applications that are processes of their own, on a real etcd. */

import { connect, type Registry } from 'rollcall';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { type Script, uniqueName, waitFor } from '../support/process.js';
import { type Line, type MidwayVersion, type Project, project } from './kit.js';

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
      expect(await answer(listening, '/seeds')).toEqual({
        fooValue: 'bar',
        allFValues: [`${PREFIX}foo`],
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

  more?.(() => ground);
}
