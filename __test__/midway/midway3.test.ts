/** Midway 3: see suite.ts; and what does not depend on the version. */

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ServiceInstance } from 'rollcall';
import { expect, it } from 'vitest';
import { uniqueName, waitFor } from '../support/process.js';
import { type Ground, suite } from './suite.js';

suite(3, more);

function more(ground: () => Ground): void {
  it('puts the endpoints of express and gRPC into one record, and calls others by name with its HttpService', async () => {
    const { apps, url, registry, told, count } = ground();
    const SERVICE = uniqueName('heroes');
    const CALLED = uniqueName('orders');
    const server = createServer(({ headers, url }, response) => response.end(`${headers.host} ${url}`));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const called = await registry.register({ name: CALLED, endpoints: [`http://127.0.0.1:${port}`] });
    const app = apps.start('cjs', 'hybrid', { REGISTRY: url, SERVICE, CALLED });
    const { registered } = await told<{ registered: ServiceInstance }>(app, 'registered');
    expect(registered.endpoints).toEqual([
      expect.stringMatching(/^http:\/\/127\.0\.0\.1:[1-9]\d*$/),
      expect.stringMatching(/^grpc:\/\/127\.0\.0\.1:[1-9]\d*$/),
    ]);
    expect(await registry.getService(SERVICE)).toEqual([registered]);
    // Midway's own client, by the name, with the copy of grpc-js that Midway brings.
    const caller = apps.start('cjs', 'dialling', { REGISTRY: url, SERVICE });
    const { hero, copies } = await told<{ hero: object; copies: string[] }>(caller, 'hero');
    expect(hero).toEqual({ id: 7 });
    expect(new Set(copies).size).toBe(2);
    caller.kill('SIGKILL'); // it is in the middle of its start
    // Its HttpService calls by name.
    expect(await told(app, 'answer')).toMatchObject({ answer: `${CALLED} /7` });
    await called.deregister();
    server.closeAllConnections();
    server.close();
    app.kill('SIGTERM');
    expect(await app.exit).toMatchObject({ code: 0 });
    expect(await count(SERVICE)).toBe(0);
  });

  it.each(['cjs', 'esm'] as const)(
    'runs a job of @midwayjs/cron where it leads, and one once for each tick (%s)',
    async (kind) => {
      const { apps, etcd, told } = ground();
      const SERVICE = uniqueName('orders');
      const start = () => apps.start(kind, 'cron', { COORD: etcd.url, SERVICE });
      const first = start();
      const ran = await told<{ token: string }>(first, 'ran');
      expect(ran).toMatchObject({ isHeld: true });
      const second = start();
      try {
        await told(second, 'started');
        await waitFor(async () => (await etcd.keys(`/elections/test:${SERVICE}/`)).length === 2, { what: 'a second' });
        expect(second.seen.filter((line) => 'ran' in line)).toEqual([]);
        first.kill('SIGTERM');
        expect(BigInt((await told<{ token: string }>(second, 'ran')).token)).toBeGreaterThan(BigInt(ran.token));
        await first.exit;
        const ticks = () => [first, second].flatMap(({ seen }) => seen.flatMap(({ tick }) => (tick as number) ?? []));
        await waitFor(() => ticks().length > 2, { what: 'three ticks' });
        expect(new Set(ticks()).size).toBe(ticks().length);
      } finally {
        for (const app of [first, second]) app.kill('SIGKILL');
        await Promise.all([first.exit, second.exit]);
      }
    },
  );
}
