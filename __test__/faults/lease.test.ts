// The lease of etcd: what the server grants counts; what is taken away is made anew.
import { describe, expect, test } from 'vitest';
import { grantedTtl, stored } from '../conformance/gateway.js';
import { hear, inTime, quiet, sees, waitFor } from '../conformance/kit.js';
import { ETCD_VERSIONS } from '../support/etcd.js';
import { client, server, way } from './kit.js';

const instance = { name: 'orders', id: 'a' };
const key = '/microservices/orders/a';

describe.concurrent.each(ETCD_VERSIONS)('etcd %s', (version) => {
  const granted = async (url: string): Promise<number | undefined> =>
    grantedTtl(url, (await stored(url, key))?.lease ?? '0');

  test('a server that grants another TTL than was asked for: 1 s becomes 2 s, and the granted one counts', async (context) => {
    const etcd = await server(context, { version });
    const link = await way(context, etcd);
    const registry = await client(context, link, { ttlMs: 1000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    expect(await granted(etcd.httpUrl)).toBe(2);
    await quiet(6000); // three granted TTLs: it is renewed in time
    expect(heard.events).toEqual([]);
    link.setEnabled(false);
    const start = performance.now();
    await waitFor(() => registration.state === 'lost', { timeoutMs: 5000, intervalMs: 5, what: 'the loss' });
    expect(performance.now() - start, 'the loss is judged by 2 s since the last renewal, not by 1 s').toBeGreaterThan(
      1000,
    );
    expect(performance.now() - start).toBeLessThan(inTime(2500));
    link.setEnabled(true);
    await waitFor(() => heard.count('restored') === 1, { timeoutMs: 12_000, what: '"restored"' });
  });

  test('a TTL that is no whole second is rounded up', async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 3200 });
    await registry.register(instance);
    expect(await granted(etcd.httpUrl)).toBe(4);
  });

  test('the default TTL is that of Kratos, 15 s', async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd);
    await registry.register(instance);
    expect(await granted(etcd.httpUrl)).toBe(15);
  });

  test('a hundred registrations need at most a hundred leases, and close() leaves none', async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 10_000 });
    await Promise.all(Array.from({ length: 100 }, (_, i) => registry.register({ name: 'orders', id: String(i) })));
    expect((await etcd.leases()).length).toBeLessThanOrEqual(100);
    await registry.close();
    expect([await etcd.keys('/microservices/'), await etcd.leases()]).toEqual([[], []]);
  });

  test('losses leave no leases behind: after four repairs there is one lease', async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 60_000 });
    const registration = await registry.register(instance);
    const heard = hear(registration);
    for (let round = 1; round <= 4; round++) {
      await etcd.del(key);
      await waitFor(() => heard.count('restored') === round, { timeoutMs: 12_000, what: `"restored" no. ${round}` });
    }
    await waitFor(async () => (await etcd.leases()).length === 1, { timeoutMs: 5000, what: 'one lease' });
    expect([await etcd.leaseOf(key)]).toEqual(await etcd.leases());
  });

  test('the lease revoked under many: all come back on new ones', async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 10_000 });
    const heard = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => hear(await registry.register({ name: 'orders', id: String(i) }))),
    );
    const old = await etcd.leases();
    for (const lease of old) await etcd.revoke(lease);
    await waitFor(() => heard.every((one) => one.count('restored') === 1), {
      timeoutMs: 15_000,
      what: 'all to be back',
    });
    await sees(registry, 'orders', Array.from({ length: 100 }, (_, i) => String(i)).sort());
    for (const { events } of heard) expect(events).toEqual(['lost', 'restored']);
    expect((await etcd.leases()).filter((lease) => old.includes(lease))).toEqual([]);
    expect((await etcd.leases()).length).toBeLessThanOrEqual(100);
  });

  test('the key put under another lease of ours is no loss: an update keeps the lease', async (context) => {
    const etcd = await server(context, { version });
    const registry = await client(context, etcd, { ttlMs: 10_000 });
    const registration = await registry.register(instance);
    const before = await etcd.leaseOf(key);
    for (let i = 0; i < 5; i++) await registration.update({ version: String(i) });
    expect(await etcd.leaseOf(key)).toBe(before);
    expect(await etcd.leases()).toHaveLength(1);
  });
});
