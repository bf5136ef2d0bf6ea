// The services of a registry, on a native side that is told what to do.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, it } from 'vitest';
import { logOf } from '../../lib/common/logger.js';
import { leastLoaded } from '../../lib/service/pick/least-loaded.js';
import { Services } from '../../lib/service/services.js';
import { waitFor } from '../support/process.js';
import { instance, nativeError, openFake } from '../unit/fake-client.js';

async function open() {
  const { registry, client } = await openFake();
  const holding = new Set<object>();
  const services = new Services({
    watch: (name, refused) => registry.watchPatiently(name, refused),
    hold: (waiting) => void holding.add(waiting),
    release: (waiting) => void holding.delete(waiting),
    log: logOf('logger', false),
    timeoutMs: 10_000,
    allowLocal: true,
  });
  const watches = () => client.watchers.filter(({ stopped }) => !stopped).length;
  return { registry, client, services, holding, watches };
}

it('all users of a name share one watch, which ends lingerMs after the last let go', async () => {
  const { client, services, watches } = await open();
  const [a, b, c] = ['a', 'b', 'c'].map(() => services.open('orders', { lingerMs: 50 }));
  await client.publish('orders', [instance('x')]);
  expect(watches()).toBe(1);
  expect([a, b, c].map((cache) => cache?.instances)).toEqual([a?.instances, a?.instances, a?.instances]);
  a?.release();
  a?.release(); // counts once
  b?.release();
  expect(a?.state).toBe('released');
  expect(c?.pick().instance.id).toBe('x');
  c?.release();
  expect(watches()).toBe(1);
  const again = services.open('orders', undefined); // in time: nothing is read again
  expect([again.instances.length, client.watchers.length]).toEqual([1, 1]);
  again.release();
  await waitFor(() => watches() === 0, { timeoutMs: 10_000, what: 'the watch to end' });
});

it('10,000 names, of three users each, let go in random order: at most 256 are followed, and none after the close', async () => {
  const { registry, services, watches } = await open();
  const caches = Array.from({ length: 10_000 }, (_, n) =>
    [1, 2, 3].map(() => services.open(`s${n}`, undefined)),
  ).flat();
  expect(watches()).toBe(10_000);
  const shuffled = caches.map((cache, n) => ({ cache, order: (n * 7919) % 30_011 })).sort((a, b) => a.order - b.order);
  for (const { cache } of shuffled.slice(0, 15_000)) cache.release();
  services.close(); // in the middle
  for (const { cache } of shuffled.slice(15_000)) cache.release();
  expect(watches()).toBe(0);
  await registry.close();

  const second = await open();
  for (let n = 0; n < 1000; n++) second.services.open(`s${n}`, undefined).release();
  expect(second.watches()).toBe(256);
  second.services.open('now', { lingerMs: 0 }).release();
  expect(second.watches()).toBe(256);
  second.services.close();
  expect(second.watches()).toBe(0);
});

it('a cache that is forgotten lets go as garbage, one with listeners does not', async () => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const { services, watches } = await open();
  for (let n = 0; n < 50; n++) services.open('forgotten', { lingerMs: 0 });
  services.open('heard', { lingerMs: 0 }).on('change', () => {});
  expect(watches()).toBe(2);
  await waitFor(
    () => {
      gc();
      return watches() === 1;
    },
    { timeoutMs: 20_000, what: 'the cache to be collected' },
  );
  services.close();
});

it('options of one user are its own; those that all share must be the same', async () => {
  const { client, services } = await open();
  const plain = services.open('orders', { warmUpMs: 1000, outlier: { consecutiveFailures: 3 } });
  await client.publish('orders', [instance('x'), instance('yy', { version: '2' })]);
  expect(services.open('orders', { strategy: leastLoaded(), scheme: 'grpc' }).pick().instance).toBeDefined();
  services.open('orders', { outlier: { consecutiveFailures: 3 } });
  expect(() => services.open('orders', { warmUpMs: 0 })).toThrow(/^options\.warmUpMs: others use orders with another/);
  expect(() => services.open('orders', { outlier: false })).toThrow(/^options\.outlier: /);
  plain.release();
});

it('waits: for the first list, for instances that fit, with a deadline, an abort, a release, a close', async () => {
  const { client, services, holding } = await open();
  const cache = services.open('orders', undefined);
  expect([cache.state, cache.stale, cache.instances]).toEqual(['loading', false, []]);
  expect(() => cache.pick()).toThrow(expect.objectContaining({ name: 'NoInstanceError', known: 0 }));
  await expect(cache.ready({ timeoutMs: 20 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  await expect(cache.ready({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  const [ready, two, picked] = [cache.ready(), cache.ready({ min: 2 }), cache.waitFor({ waitForReadyMs: 5000 })];
  expect(holding.size).toBe(3);
  await client.publish('orders', []);
  expect(await ready).toBe(cache);
  await expect(cache.waitFor({ waitForReadyMs: 20 })).rejects.toMatchObject({ name: 'NoInstanceError', known: 0 });
  await expect(cache.waitFor({ waitForReadyMs: 0 })).rejects.toMatchObject({ name: 'NoInstanceError' });
  await client.publish('orders', [instance('x')]);
  expect((await picked).instance.id).toBe('x');
  await client.publish('orders', [instance('x'), instance('yy')]);
  expect(await two).toBe(cache);
  expect(holding.size).toBe(0);

  const controller = new AbortController();
  const aborted = cache.ready({ min: 9, signal: controller.signal });
  controller.abort();
  await expect(aborted).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  const released = services.open('orders', undefined);
  const over = released.waitFor({ waitForReadyMs: 5000, exclude: new Set(['x', 'yy']) });
  released.release();
  await expect(over).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  expect(() => released.pick()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
  const closed = cache.ready({ min: 9 });
  services.close();
  await expect(closed).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  expect(holding.size).toBe(0);
  expect([cache.state, cache.pick().instance.name]).toEqual(['stale', 'orders']); // goes on with what it knows
});

it('tells what changes: lists, staleness, ejections', async () => {
  const { client, services } = await open();
  const cache = services.open('orders', undefined);
  const told: unknown[] = [];
  cache
    .on('change', ({ added, removed, updated }) =>
      told.push([added, removed, updated].map((list) => list.map(({ id }) => id))),
    )
    .on('stale', () => told.push('stale'))
    .on('fresh', () => told.push('fresh'))
    .on('ejected', ({ instance, reason, forMs }) => told.push([instance.id, reason, forMs]))
    .on('panic', () => told.push('panic'));
  await client.publish('orders', [instance('x'), instance('yy')]);
  await client.publish('orders', [instance('yy', { version: '2' }), instance('zzz')]);
  const [watcher] = client.watchers;
  if (!watcher) throw new Error('no watcher');
  watcher.isStale = true;
  await client.tell('stale', watcher.number);
  expect([cache.state, cache.stale]).toEqual(['stale', true]);
  watcher.isStale = false;
  await client.tell('fresh', watcher.number);
  for (let call = 0; call < 5; call++) cache.pick({ exclude: new Set(['yy']) }).done({ failed: true });
  expect(told).toEqual([[['zzz'], ['x'], ['yy']], 'stale', 'fresh', ['zzz', 'failures', 30_000]]);
  expect(() => cache.on('chang' as never, () => {})).toThrow(/did you mean "change"/);
});

it('a registry that refuses: picks and waits fail with its error while there is no list; a list that is known is used', async () => {
  const { client, services } = await open();
  const cache = services.open('orders', undefined);
  const ready = expect(cache.ready()).rejects.toMatchObject({ code: 'ERR_PERMISSION_DENIED' });
  const [watcher] = client.watchers;
  if (!watcher) throw new Error('no watcher');
  watcher.failure = nativeError('ERR_PERMISSION_DENIED');
  await client.tell('watchError', watcher.number);
  await ready;
  expect(cache.state).toBe('refused');
  expect(() => cache.pick()).toThrow(expect.objectContaining({ code: 'ERR_PERMISSION_DENIED' }));
  watcher.failure = null;
  await client.publish('orders', [instance('x')]);
  expect([cache.state, cache.pick().instance.id]).toEqual(['live', 'x']);
  watcher.failure = nativeError('ERR_UNAUTHENTICATED');
  await client.tell('watchError', watcher.number);
  expect([cache.state, cache.stale, cache.pick().instance.id]).toEqual(['refused', true, 'x']);
});

it.each<[unknown, string]>([
  ['x', 'options: expected an object, got string'],
  [{ filter: [] }, 'options.filter: unknown option; did you mean "filters"?'],
  [{ filters: 'x' }, 'options.filters: expected an array of filters, got string'],
  [{ filters: [5] }, 'options.filters[0]: expected a filter such as version("^1"), got number'],
  [{ strategy: leastLoaded }, 'options.strategy: expected a strategy: call the function, as in weighted()'],
  [{ strategy: 'random' }, 'options.strategy: expected a strategy such as weighted(), got string'],
  [{ zone: 5 }, 'options.zone: expected a string or an object with own, got number'],
  [{ zone: '' }, 'options.zone: expected a string that is not empty'],
  [{ zone: { own: 'a', minShare: 3 } }, 'options.zone.minShare: expected a number from 0 to 1, got 3'],
  [{ zone: { min: 3 } }, 'options.zone.own: expected a string, got undefined'],
  [{ scheme: 'grpc:' }, 'options.scheme: expected a scheme without its colon, such as "grpc"'],
  [{ scheme: [] }, 'options.scheme: expected at least one, such as "grpc"'],
  [{ scheme: ['a', 5] }, 'options.scheme[1]: expected a string, got number'],
  [{ subset: {} }, 'options.subset.size: expected a whole number from 1 to 1000000, got 0'],
  [{ subset: 5 }, 'options.subset: expected an object, got number'],
  [{ outlier: true }, 'options.outlier: expected false or an object, got boolean'],
  [{ outlier: { maxEjected: 2 } }, 'options.outlier.maxEjected: expected a number from 0 to 1, got 2'],
  [
    { outlier: { successRateFactor: 0 } },
    'options.outlier.successRateFactor: expected false or a number from 0.1 to 100, got 0',
  ],
  [{ outlier: { baseMs: 2 } }, 'options.outlier.baseMs: unknown option'],
  [{ warmUpMs: -1 }, 'options.warmUpMs: expected a whole number from 0 to 2147483647, got -1'],
  [{ lingerMs: 'x' }, 'options.lingerMs: expected a whole number from 0 to 2147483647, got string'],
  [{ allowLocal: 1 }, 'options.allowLocal: expected true or false, got number'],
])('options %j are refused', async (options, message) => {
  const { services } = await open();
  expect(() => services.open('orders', options)).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', operation: 'service', message }),
  );
});

it.each<[unknown, string]>([
  ['x', 'options: expected an object, got string'],
  [{ key: 5 }, 'options.key: expected a string, got number'],
  [{ exclude: ['a'] }, 'options.exclude: expected a Set of ids, got array'],
  [{ scheme: '' }, 'options.scheme: expected a string that is not empty'],
  [{ filter: 'x' }, 'options.filter: expected a filter such as version("^1"), got string'],
  [{ strategy: 5 }, 'options.strategy: expected a strategy such as weighted(), got number'],
  [{ waitForReadyMs: 5 }, 'options.waitForReadyMs: unknown option'],
])('a pick with %j is refused', async (options, message) => {
  const { services } = await open();
  const cache = services.open('orders', undefined);
  expect(() => cache.pick(options as never)).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message }),
  );
  await expect(cache.waitFor({} as never)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  await expect(cache.waitFor(undefined as never)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  await expect(cache.ready({ min: -1 })).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
});
