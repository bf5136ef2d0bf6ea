// The names: watchServices() keeps the contract of watch(), with names for instances.

import type { Registry, ServiceName, ServicesWatcher } from 'rollcall';
import { expect } from 'vitest';
import { forEveryBackend, record } from './backends.js';
import { ids, nextList, quiet, refused, staysPending, throws, waitFor, within } from './kit.js';

const names = (list: readonly ServiceName[]): string[] => list.map(({ name }) => name);

async function next(watcher: ServicesWatcher, timeoutMs = 10_000): Promise<readonly ServiceName[]> {
  const { value, done } = await within(watcher.next(), timeoutMs, 'next() of the names');
  expect(done ?? false, 'the watcher has ended').toBe(false);
  return value as readonly ServiceName[];
}

/** Takes lists until one has exactly these names. */
async function until(watcher: ServicesWatcher, expected: string[], timeoutMs = 10_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  const taken: string[][] = [];
  for (;;) {
    const left = Math.max(end - performance.now(), 1);
    const list = names(
      await next(watcher, left).catch((error: Error) => {
        throw new Error(`no list [${expected.join(', ')}]: ${error.message}; taken: ${JSON.stringify(taken)}`);
      }),
    );
    taken.push(list);
    if (JSON.stringify(list) === JSON.stringify(expected)) return;
  }
}

/** An instance of somebody else, whose id is one of the whole registry. */
const put = (scope: { put(name: string, id: string, value: string): Promise<void> }, name: string, id = name) =>
  scope.put(name, id, record(name, id));

const stale = (watcher: ServicesWatcher) =>
  waitFor(() => watcher.stale, { timeoutMs: 20_000, what: 'the watcher to be stale' });

forEveryBackend('watching the names', (it, row) => {
  it('a name comes with its first instance and goes with its last', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const watcher = registry.watchServices();
    expect(await next(watcher)).toEqual([]);
    const first = await other.register({ name: 'orders', id: '1' });
    await until(watcher, ['orders']);
    const admin = await other.register({ name: 'orders-admin', id: '2' });
    await until(watcher, ['orders', 'orders-admin']);
    const second = await other.register({ name: 'orders', id: '3' });
    await first.deregister();
    await admin.deregister();
    await until(watcher, ['orders']);
    await second.deregister();
    await until(watcher, []);
    await staysPending(500, watcher.next(), 'next() after all there is');
  });

  it('a list is frozen and sorted, and a name that stays is the same object', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const all = ['Z', 'a', 'b', '10', '9', ...(row.cannot.anyText || row.cannot.anyName ? [] : ['_', 'é'])];
    for (const [at, name] of all.entries()) await other.register({ name, id: String(at) });
    const watcher = registry.watchServices();
    const list = await next(watcher);
    const sorted = [...all].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(names(list)).toEqual(sorted);
    expect(await registry.services({ consistent: true })).toEqual(sorted);
    for (const part of [list, ...list]) expect(Object.isFrozen(part)).toBe(true);
    await other.register({ name: 'b-c', id: 'new' });
    await until(
      watcher,
      [...sorted, 'b-c'].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
    );
    const kept = (watcher.current ?? []).filter((entry) => list.includes(entry));
    expect(names(kept)).toEqual(sorted);
  });

  it('a count is told where the registry tells it with the name, and nowhere else', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const watcher = registry.watchServices();
    await next(watcher);
    const registrations = [];
    for (const id of ['1', '2', '3']) registrations.push(await other.register({ name: 'orders', id }));
    const shown = (count: number): object => ({ name: 'orders', ...(registry.capabilities.countsNames && { count }) });
    const shows = (count: number) =>
      waitFor(() => expect(watcher.current).toEqual([shown(count)]) ?? true, { what: `a count of ${count}` });
    await shows(3);
    await registrations[1]?.deregister();
    await shows(2);
  });

  it('records of others that are no instances make no name and break no list', async (scope) => {
    const registry = await scope.connect();
    const watcher = registry.watchServices();
    await next(watcher);
    await scope.put('broken', 'x', 'this is no JSON').catch(() => {}); // Consul takes no such thing
    await scope.put('empty', 'x', '').catch(() => {});
    await put(scope, 'good');
    await until(watcher, ['good']);
    expect(await registry.services({ consistent: true })).toEqual(['good']);
  });

  it(
    'a record that turns bad takes its name along, and brings it back',
    async (scope) => {
      const registry = await scope.connect();
      const watcher = registry.watchServices();
      await put(scope, 'orders', 'x');
      await until(watcher, ['orders']);
      await scope.put('orders', 'y', record('elsewhere', 'y')); // under our key, of another name
      await scope.put('orders', 'x', '{');
      await until(watcher, []);
      await put(scope, 'orders', 'x');
      await until(watcher, ['orders']);
      await put(scope, 'orders', 'z');
      await scope.remove('orders', 'x');
      await quiet(300); // what is left of it is an instance still
      expect(names(watcher.current ?? [])).toEqual(['orders']);
      await scope.remove('orders', 'z');
      await until(watcher, []);
    },
    { needs: ['rawPut'] },
  );

  it(
    'the name of an owner that dies goes with its record',
    async (scope) => {
      const registry = await scope.connect();
      const owner = await scope.mortal('orders', 'x');
      await put(scope, 'stays', 'y');
      const watcher = registry.watchServices();
      await until(watcher, ['orders', 'stays']);
      await owner.die();
      await until(watcher, ['stays'], scope.ttlMs + 30_000);
    },
    { timeoutMs: 60_000 },
  );

  it('services() answers from the watch, stale or not; consistent: true does not pretend', async (scope) => {
    const registry = await scope.connect();
    await put(scope, 'orders');
    const watcher = registry.watchServices();
    await until(watcher, ['orders']);
    expect(await registry.services()).toEqual(['orders']);
    await scope.outage();
    await stale(watcher);
    expect(await registry.services()).toEqual(['orders']);
    const read = registry.services({ consistent: true, timeoutMs: 500 });
    await refused(within(read, 1500, 'services()'), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
    watcher.stop();
    const alone = registry.services({ timeoutMs: 500 });
    await refused(within(alone, 1500, 'services()'), ['ERR_TIMEOUT', 'ERR_UNAVAILABLE']);
  });

  it('two watchers share one list; one that stops takes nothing from the other', async (scope) => {
    const registry = await scope.connect();
    const [one, two] = [registry.watchServices(), registry.watchServices()];
    await put(scope, 'orders');
    await until(one, ['orders']);
    await until(two, ['orders']);
    expect(one.current).toBe(two.current);
    one.stop();
    expect(await one.next()).toEqual({ done: true, value: undefined });
    await put(scope, 'payments');
    await until(two, ['orders', 'payments']);
    expect(names(one.current ?? [])).toEqual(['orders']);
  });

  it('an outage: the list stays and is stale, then what changed comes as one net change', async (scope) => {
    const registry = await scope.connect();
    for (const name of ['a', 'b', 'c', 'd']) await put(scope, name);
    const watcher = registry.watchServices();
    const events: string[] = [];
    watcher.on('stale', () => events.push('stale')).on('fresh', () => events.push('fresh'));
    await until(watcher, ['a', 'b', 'c', 'd']);
    const pending = watcher.next();
    await scope.outage();
    await stale(watcher);
    await scope.remove('a', 'a');
    await put(scope, 'e');
    await put(scope, 'f');
    await scope.remove('f', 'f');
    await staysPending(500, pending, 'next() during an outage');
    expect(names(watcher.current ?? [])).toEqual(['a', 'b', 'c', 'd']);
    await scope.restore();
    const { value } = await within(pending, 15_000, 'next()');
    expect(names(value as ServiceName[])).toEqual(['b', 'c', 'd', 'e']);
    expect(watcher.stale).toBe(false);
    await waitFor(() => events.length === 2, { what: 'the events' });
    expect(events).toEqual(['stale', 'fresh']);
    await put(scope, 'g');
    await until(watcher, ['b', 'c', 'd', 'e', 'g']);
  });

  it(
    'a registry that lost its names keeps the old list for emptyGraceMs',
    async (scope) => {
      const registry = await scope.connect({ emptyGraceMs: 2500 });
      for (const name of ['a', 'b', 'c']) await put(scope, name);
      const watcher = registry.watchServices();
      await until(watcher, ['a', 'b', 'c']);
      const pending = watcher.next();
      await scope.outage();
      await stale(watcher);
      await scope.wipe();
      await scope.restore();
      const { value } = await within(pending, 30_000, 'next()');
      expect(names(value as ServiceName[])).toEqual([]);
    },
    { timeoutMs: 60_000 },
  );

  it('it ends by stop, break, a signal and close, and refuses what it does not know', async (scope) => {
    const registry = await scope.connect();
    for (const given of [{ signal: 1 }, { consistent: true }, 'x'])
      throws(() => registry.watchServices(given as never), 'ERR_INVALID_ARGUMENT', /^watchServices|options/);
    await put(scope, 'orders');
    for await (const list of registry.watchServices()) if (names(list).includes('orders')) break;
    const aborter = new AbortController();
    const aborted = registry.watchServices({ signal: aborter.signal });
    await until(aborted, ['orders']);
    const pending = aborted.next();
    aborter.abort();
    expect((await within(pending, 2000, 'next()')).done).toBe(true);
    const closed = registry.watchServices();
    const last = (async () => {
      for await (const _ of closed) void _;
      return 'done';
    })();
    await registry.close();
    expect(await within(last, 2000, 'the end')).toBe('done');
    await refused(registry.watchServices().next(), 'ERR_CLOSED');
  });

  it('the names and a name are followed side by side', async (scope) => {
    const registry: Registry = await scope.connect();
    const [all, one] = [registry.watchServices(), registry.watch('orders')];
    await next(all);
    await nextList(one);
    await put(scope, 'orders', 'x');
    await until(all, ['orders']);
    await waitFor(() => ids(one.current ?? []).join() === 'x', { what: 'the instance' });
    one.stop();
    await scope.remove('orders', 'x');
    await until(all, []);
  });
});
