/** Nest 12: see suite.ts; and what Terminus knows from its version 12 on. */

import { expect, it } from 'vitest';
import { startEtcd } from '../support/etcd.js';
import { uniqueName, waitFor } from '../support/process.js';
import { type Ground, suite } from './suite.js';

suite(12, { kind: 'esm', adapter: 'express', more });

function more(ground: () => Ground): void {
  it('is degraded, and answers 200, while what it follows is stale', async () => {
    const { apps, told } = ground();
    const etcd = await startEtcd();
    const env = { REGISTRY: `${etcd.url}?ttlMs=120000`, SERVICE: uniqueName('orders'), HOSTS: etcd.hosts.join(',') };
    const app = apps.start('esm', 'health', env);
    try {
      const { listening } = await told<{ listening: number }>(app, 'listening');
      const health = async () => {
        const response = await fetch(`http://127.0.0.1:${listening}/registry`);
        return { code: response.status, ...((await response.json()) as object) };
      };
      expect(await health()).toMatchObject({ code: 200, status: 'ok', details: { registry: { status: 'up' } } });
      await etcd.stop();
      await waitFor(async () => JSON.stringify(await health()).includes('"stale"'), { what: 'a stale list' });
      expect(await health()).toMatchObject({
        code: 200,
        status: 'degraded',
        details: { registry: { status: 'degraded', registration: 'registered', stale: ['payments'] } },
      });
      await etcd.start();
      await waitFor(async () => JSON.stringify(await health()).includes('"ok"'), { what: 'all to be well again' });
    } finally {
      app.kill('SIGKILL');
      await app.exit;
      await etcd.close();
    }
  });
}
