/** What holds under every version of Nest, shown by applications that are processes of their own, on a real etcd. */

import { connect, type Registry } from 'rollcall';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EtcdCluster, startEtcd } from '../support/etcd.js';
import { type Script, uniqueName, waitFor } from '../support/process.js';
import { type Line, type NestVersion, type Project, project } from './kit.js';

export function suite(version: NestVersion): void {
  let etcd: EtcdCluster;
  let apps: Project;
  let registry: Registry;
  let url: string;

  beforeAll(async () => {
    [etcd, apps] = await Promise.all([startEtcd(), project(version)]);
    url = `${etcd.url}?ttlMs=3000`;
    registry = await connect({ backend: 'etcd', hosts: etcd.hosts });
  });
  afterAll(async () => {
    await registry?.close();
    await etcd?.stop();
  });

  describe.each(['cjs', 'esm'] as const)(`an application of Nest ${version} (%s)`, (kind) => {
    it.each(['express', 'fastify'])('with %s is in the registry from listen() until SIGTERM', async (ADAPTER) => {
      const SERVICE = uniqueName('orders');
      const app = apps.start(kind, 'orders', { REGISTRY: url, SERVICE, ADAPTER });
      const { listening, registered } = await told<{ listening: number; registered: object }>(app, 'listening');
      expect(registered).toMatchObject({
        name: SERVICE,
        version: '1.4.0',
        metadata: { zone: 'a' },
        endpoints: [`http://127.0.0.1:${listening}`],
      });
      expect(await registry.getService(SERVICE)).toEqual([registered]);
      app.kill('SIGTERM');
      await waitFor(async () => (await registry.getService(SERVICE)).length === 0, { what: 'the instance to leave' });
      // Before any hook of the program itself.
      expect(await told(app, 'destroy')).toEqual({ destroy: 'deregistered' });
      expect(await app.exit).toMatchObject({ signal: 'SIGTERM' });
    });
  });

  function told<T extends Line>(app: Script<Line>, key: string): Promise<T> {
    return app.line((line) => key in line, { what: key }) as Promise<T>;
  }
}
