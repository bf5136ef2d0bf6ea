// A service to be called, by the built package, on the memory registry.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { connect, consistentHash, leastLoaded, MemoryServer, NoInstanceError, version, weighted, zone } from 'rollcall';
import { expect, test } from 'vitest';
import { ids } from '../conformance/kit.js';
import { uniqueName, waitFor } from '../support/process.js';

async function open({ onTestFinished }: { onTestFinished(f: () => unknown): void }) {
  const namespace = uniqueName();
  const registry = await connect(`memory://${namespace}?ttlMs=1000&logger=0`);
  onTestFinished(() => registry.close());
  return { registry, server: MemoryServer.of(namespace) };
}

test('an instance that registers is picked, one that leaves is not', async (context) => {
  const { registry } = await open(context);
  await using orders = registry.service('orders');
  expect(() => orders.pick()).toThrow(NoInstanceError);
  const waiting = orders.waitFor({ waitForReadyMs: 10_000 });
  const first = await registry.register({ name: 'orders', id: 'a', endpoints: ['grpc://10.0.0.1:9000'] });
  const picked = await waiting;
  expect([picked.instance.id, picked.endpoint.port, orders.state]).toEqual(['a', 9000, 'live']);
  picked.done();
  await registry.register({ name: 'orders', id: 'b', version: '2.0.0', endpoints: ['grpc://10.0.0.2:9000'] });
  await orders.ready({ min: 2 });
  expect(orders.pick({ filter: version('^2') }).instance.id).toBe('b');
  await first.deregister();
  await waitFor(() => orders.instances.length === 1, { timeoutMs: 10_000, what: 'the change' });
  for (let call = 0; call < 20; call++) expect(orders.pick().instance.id).toBe('b');
});

test('while the registry is away calls go on, and a user who comes then has the list at once', async (context) => {
  const { registry, server } = await open(context);
  await registry.register({ name: 'orders', id: 'a', endpoints: ['http://10.0.0.1:80'] });
  const orders = registry.service('orders');
  await orders.ready({ min: 1 });
  const told: string[] = [];
  orders.on('stale', () => told.push('stale')).on('fresh', () => told.push('fresh'));
  server.setAway(true);
  await waitFor(() => orders.stale, { timeoutMs: 10_000, what: 'the list to be stale' });
  for (let call = 0; call < 100; call++) orders.pick().done();
  const late = registry.service('orders', { strategy: weighted() });
  expect([late.state, late.pick().instance.id]).toEqual(['stale', 'a']);
  await late.ready();
  await expect(registry.service('other').ready({ timeoutMs: 50 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  server.setAway(false);
  await waitFor(() => told.length === 2, { timeoutMs: 20_000, what: '"fresh"' });
  expect(told).toEqual(['stale', 'fresh']);
  await registry.service('other').ready();
});

test('thousands of names that are resolved and let go leave no watch behind', async (context) => {
  const { registry } = await open(context);
  await registry.register({ name: 's7', id: 'a', endpoints: ['http://10.0.0.1:80'] });
  const lots = Array.from({ length: 3000 }, (_, n) => registry.service(`s${n}`, { lingerMs: 0 }));
  await Promise.all(lots.map((cache) => cache.ready({ timeoutMs: 30_000 })));
  expect(lots[7]?.pick().instance.id).toBe('a');
  for (const cache of lots) cache.release();
  // A new one reads the registry again: nothing is left that knows the list.
  const isForgotten = () => {
    const cache = registry.service('s7', { lingerMs: 0 });
    cache.release();
    return cache.instances.length === 0;
  };
  await waitFor(isForgotten, { timeoutMs: 10_000, what: 'the watch to end' });
});

test('the registry is closed in the middle: waits end, picks go on with what is known, nothing new begins', async (context) => {
  const { registry } = await open(context);
  await registry.register({ name: 'orders', id: 'a', endpoints: ['http://10.0.0.1:80'] });
  const orders = registry.service('orders');
  await orders.ready({ min: 1 });
  const waits = [orders.ready({ min: 5 }), registry.service('none').waitFor({ waitForReadyMs: 60_000 })];
  const refused = Promise.all(waits.map((wait) => expect(wait).rejects.toMatchObject({ code: 'ERR_CLOSED' })));
  const flying = orders.pick();
  const closing = registry.close();
  await refused;
  await closing;
  expect([orders.state, orders.stale, orders.pick().instance.id]).toEqual(['stale', true, 'a']);
  flying.done();
  expect(() => registry.service('orders')).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
  orders.release();
  expect(() => orders.pick()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
});

test('options of the service: zone, subset, scheme, strategy', async (context) => {
  const { registry } = await open(context);
  for (let n = 0; n < 6; n++) {
    const metadata = { zone: n % 2 ? 'a' : 'b' };
    await registry.register({
      name: 'orders',
      id: `${n}`,
      metadata,
      endpoints: [`http://10.0.0.${n}:80`, `grpc://10.0.0.${n}:90`],
    });
  }
  const picked = (options: Parameters<typeof registry.service>[1], count = 60) => {
    const cache = registry.service('orders', options);
    return new Set(
      Array.from({ length: count }, () => cache.pick({ key: 'k' })).map(
        ({ instance, endpoint }) => `${instance.id} ${endpoint.scheme}`,
      ),
    );
  };
  await registry.service('orders').ready({ min: 6 });
  expect([...picked({ zone: 'a', scheme: 'grpc' })].sort()).toEqual(['1 grpc', '3 grpc', '5 grpc']);
  expect([...picked({ zone: { own: 'a', min: 4 } })]).toHaveLength(6);
  expect([...picked({ filters: [zone('b')], subset: { size: 2, key: 'x' } })]).toHaveLength(2);
  expect([...picked({ strategy: consistentHash({ bound: false }) })]).toHaveLength(1);
  expect(registry.service('orders', { strategy: leastLoaded() }).explain().usable).toHaveLength(6);
  expect(ids(registry.service('orders').instances)).toEqual(['0', '1', '2', '3', '4', '5']);
});

test.each<[unknown, unknown, RegExp]>([
  [undefined, undefined, /^name: expected a string, got undefined/],
  [5, undefined, /^name: /],
  ['', undefined, /name/],
  ['\ud800', undefined, /^name: /],
  ['a/b', undefined, /^name: /],
  ['orders', { zones: 'a' }, /^options\.zones: unknown option; did you mean "zone"/],
])('a name %j with %j is refused', async (name, options, message) => {
  const registry = await connect('memory://');
  try {
    expect(() => registry.service(name as never, options as never)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringMatching(message) }),
    );
  } finally {
    await registry.close();
  }
});

test('a cache keeps no process alive, a wait does until its deadline; selectors are loaded with the first that is made', async () => {
  const program = `
    const { connect, random } = require('rollcall');
    const loaded = () => Object.keys(require.cache).filter((file) => /[\\\\/]service[\\\\/]/.test(file) && !/selectors/.test(file)).length;
    (async () => {
      const before = loaded();
      const registry = await connect('memory://');
      random();
      const cache = registry.service('nobody');
      await cache.ready();
      const start = performance.now();
      const failure = await cache.waitFor({ waitForReadyMs: 300 }).catch(({ name }) => name);
      console.log(JSON.stringify({ before, after: loaded() > 0, failure, waited: performance.now() - start > 290 }));
    })();`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', program], { timeout: 30_000 });
  expect(JSON.parse(stdout)).toEqual({ before: 0, after: true, failure: 'NoInstanceError', waited: true });
});
