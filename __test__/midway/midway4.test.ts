/** Midway 4: see suite.ts; what only Midway 4 has, and what does not depend on the version. */

import { connect, type ServiceInstance } from 'rollcall';
import { describe, expect, it } from 'vitest';
import { startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor } from '../support/process.js';
import { answer, type Ground, suite } from './suite.js';

suite(4, more);

function more(ground: () => Ground): void {
  describe.each(['cjs', 'esm'] as const)('the service discovery of Midway (%s)', (kind) => {
    it('registers, goes offline and online, finds in turn, and leaves before the registry is closed', async () => {
      const { apps, url, registry, told, count } = ground();
      const SERVICE = uniqueName('orders');
      const app = apps.start(kind, 'discovery', { REGISTRY: url, SERVICE });
      const { registered, listening } = await told<{ registered: ServiceInstance; listening: number }>(
        app,
        'registered',
      );
      // What is given to the client counts before the configuration, field by field.
      expect(registered).toEqual({
        id: expect.any(String),
        name: SERVICE,
        version: '2.0.0',
        metadata: { zone: 'a', tier: 'x' },
        endpoints: [`http://127.0.0.1:${listening}`],
      });
      expect(await registry.getService(SERVICE)).toEqual([registered]);
      const who = () => answer<{ id: string; all: string[]; failed?: string }>(listening, `/who?name=${SERVICE}`);
      const act = (what: string) => answer<{ failed?: string }>(listening, `/do?what=${what}`);

      // Each may be repeated.
      for (const what of ['register', 'online', 'online']) expect(await act(what)).toMatchObject({ done: what });
      expect(await registry.getService(SERVICE, { consistent: true })).toEqual([registered]);
      for (let i = 0; i < 2; i++) await act('offline');
      expect(await registry.getService(SERVICE, { consistent: true })).toEqual([]);
      await waitFor(async () => (await who()).failed === `no instance of ${SERVICE} is in the registry`);
      await act('online');
      expect(await registry.getService(SERVICE, { consistent: true })).toEqual([registered]);
      for (let i = 0; i < 2; i++) await act('deregister');
      expect(await act('online')).toEqual({ failed: 'online(): nothing to bring back: call register() first' });
      await act('register');

      // In turn; a list that shrinks leaves no hole.
      const other = await registry.register({ name: SERVICE, id: 'zz-other' });
      await waitFor(async () => (await who()).all?.length === 2);
      const four = [await who(), await who(), await who(), await who()].map(({ id }) => id === 'zz-other');
      expect(four.filter(Boolean)).toHaveLength(2);
      expect(four[0]).not.toBe(four[1]);
      await other.deregister();
      await waitFor(async () => (await who()).all?.length === 1);
      for (let i = 0; i < 3; i++) expect((await who()).id).not.toBe('zz-other');

      // By a strategy of rollcall: a quarter, three quarters, and nothing.
      for (const [id, weight] of [
        ['three', '300'],
        ['none', '0'],
      ] as const) {
        await registry.register({ name: SERVICE, id, metadata: { weight }, endpoints: ['http://127.0.0.1:9'] });
      }
      await waitFor(async () => (await who()).all?.length === 3);
      await answer(listening, '/weighted');
      const counts: Record<string, number> = {};
      for (let i = 0; i < 40; i++) {
        const { id } = await who();
        counts[id] = (counts[id] ?? 0) + 1;
      }
      expect(Object.keys(counts).sort()).toEqual([registered.id, 'three'].sort());
      expect(Math.abs((counts.three as number) - 30)).toBeLessThanOrEqual(2); // within 2 of its share, always

      app.kill('SIGTERM');
      await waitFor(async () => (await count(SERVICE)) === 2);
      const { code, stderr, stdout } = await app.exit;
      expect(code).toBe(0);
      expect(stderr + stdout).not.toMatch(/closed|close with error/);
    });
  });

  it('says that the password is wrong', async () => {
    const { apps, told } = ground();
    const etcd = await startEtcd({ users: [{ name: 'root', password: 'right' }] });
    try {
      for (const CASE of ['etcdPassword', 'registryPassword']) {
        const app = apps.run('cjs', 'broken', { CASE, HOSTS: etcd.hosts.join(',') });
        const { failed } = await told<{ failed: string }>(app, 'failed');
        expect(failed).toMatch(/^(etcd|registry)\.client: .+; check the user and the password$/);
        await app.exit;
      }
    } finally {
      await etcd.stop();
    }
  });

  it('away at the start of a lazy application, etcd delays its registration and nothing else', async () => {
    const { apps, told } = ground();
    const etcd = await startEtcd();
    const [member] = etcd.members;
    await member?.stop();
    const SERVICE = uniqueName('orders');
    const env = { CASE: 'lazy', REGISTRY: etcd.url, HOSTS: etcd.hosts.join(','), SERVICE };
    const app = apps.run('cjs', 'broken', env);
    try {
      await told(app, 'listening');
      await member?.start();
      expect(await told(app, 'registered')).toMatchObject({ registered: { name: SERVICE } });
      const registry = await connect(etcd.url);
      expect(await registry.getService(SERVICE)).toHaveLength(1);
      await registry.close();
    } finally {
      app.kill('SIGKILL');
      await app.exit;
      await etcd.stop();
    }
  });
}
