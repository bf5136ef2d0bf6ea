// The watch contract while the registry can be reached: what is delivered, what is not, how a watch ends.
import { expect } from 'vitest';
import { forEveryBackend, record } from './backends.js';
import {
  ids,
  inTime,
  listsUntil,
  nextList,
  quiet,
  refused,
  sees,
  staysPending,
  throws,
  unstamped,
  waitFor,
  within,
} from './kit.js';

forEveryBackend('watching', (it, row) => {
  it('the first next() gives the current list at once, also when it is empty', async (scope) => {
    const registry = await scope.connect();
    expect(await nextList(registry.watch('nobody'), 1500)).toEqual([]);
    await registry.register({ name: 'orders', id: 'b', version: '2' });
    await registry.register({ name: 'orders', id: 'a' });
    expect(unstamped(await nextList(registry.watch('orders'), 1500))).toEqual([
      { id: 'a', name: 'orders', version: '', metadata: {}, endpoints: [] },
      { id: 'b', name: 'orders', version: '2', metadata: {}, endpoints: [] },
    ]);
  });

  it('a list follows each join, each change and each leave', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const watcher = registry.watch('orders');
    expect(await nextList(watcher)).toEqual([]);
    const a = await other.register({ name: 'orders', id: 'a' });
    expect(ids(await nextList(watcher))).toEqual(['a']);
    const b = await other.register({ name: 'orders', id: 'b' });
    expect(ids(await nextList(watcher))).toEqual(['a', 'b']);
    await a.update({ version: '2' });
    expect(await nextList(watcher)).toMatchObject([{ id: 'a', version: '2' }, { id: 'b' }]);
    await a.deregister();
    expect(ids(await nextList(watcher))).toEqual(['b']);
    await b.deregister();
    expect(await nextList(watcher)).toEqual([]);
  });

  it(
    'the leaving of the last instance is delivered, also when its owner died',
    async (scope) => {
      const registry = await scope.connect();
      const owner = await scope.mortal('orders', 'x');
      const watcher = registry.watch('orders');
      expect(ids(await nextList(watcher))).toEqual(['x']);
      await owner.die();
      // The server looks for what has expired a second late at most. A busy one may break the watch meanwhile, and what is
      // left after a break is not believed for 15 s (emptyGraceMs) when that is nothing.
      const left = await nextList(watcher, scope.ttlMs + 30_000).catch(async (error) => {
        const others = await (await scope.observer()).getService('orders', { consistent: true });
        return `${error.message}; others see ${JSON.stringify(ids(others))}, stale: ${watcher.stale}`;
      });
      expect(left).toEqual([]);
    },
    { timeoutMs: 90_000 },
  );

  it('a list is delivered only when it differs from the last one delivered', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const watcher = registry.watch('orders');
    await scope.put('orders', 'x', record('orders', 'x', { metadata: { a: '1', b: '2' } }));
    await listsUntil(watcher, ['x']);
    const next = watcher.next();
    await scope.put('orders', 'x', record('orders', 'x', { metadata: { a: '1', b: '2' } }));
    await scope.put('orders', 'x', '{ "endpoints": [], "metadata": {"b":"2","a":"1"}, "name":"orders", "id":"x" }');
    const brother = await other.register({ name: 'orders-admin', id: 'y' });
    await brother.deregister();
    await staysPending(1500, next, 'next() after writes that change nothing'); // events take milliseconds to arrive
    await scope.put('orders', 'x', record('orders', 'x', { metadata: { a: '1', b: '3' } }));
    expect((await within(next, 3000, 'next()')).value).toMatchObject([{ metadata: { a: '1', b: '3' } }]);
  });

  it('a change that is taken back before it is consumed is no difference', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const watcher = registry.watch('orders');
    expect(await nextList(watcher)).toEqual([]);
    const probe = registry.watch('orders');
    await listsUntil(probe, []);
    const flash = await other.register({ name: 'orders', id: 'a' });
    await listsUntil(probe, ['a']);
    await flash.deregister();
    await listsUntil(probe, []);
    await staysPending(800, watcher.next(), 'next() after a net change of nothing'); // the probe has seen all there is
  });

  it('every list is sorted by id', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const watcher = registry.watch('orders');
    const wanted = ['10', '9', 'a', 'B', 'Z', 'a-b', 'a_b', ...(row.cannot.anyText ? [] : ['é', '_', '-'])];
    for (const id of wanted) await other.register({ name: 'orders', id });
    const sorted = [...wanted].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    const lists = await listsUntil(watcher, sorted);
    for (const list of lists) expect(ids(list)).toEqual(sorted.filter((id) => ids(list).includes(id)));
    expect(ids(await registry.getService('orders', { consistent: true }))).toEqual(sorted);
  });

  it(
    'no instance is in a list twice',
    async (scope) => {
      const registry = await scope.connect();
      await scope.put('orders', 'x', record('orders', 'same', { endpoints: ['grpc://10.0.0.1:1'] }));
      await scope.put('orders', 'y', record('orders', 'same', { endpoints: ['grpc://10.0.0.1:1'] }));
      const list = await nextList(registry.watch('orders'));
      expect(ids(list)).toEqual(['same']);
    },
    { needs: ['rawPut'] },
  );

  it('an instance says since when it is registered, by the clock of the registry, where a read tells it', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await other.register({ name: 'orders', id: 'a' });
    const watcher = registry.watch('orders');
    const [first] = await nextList(watcher);
    const { since } = first as { since?: number };
    if (!registry.capabilities.since) {
      expect(first).not.toHaveProperty('since');
      return;
    }
    expect(Math.abs((since as number) - Date.now())).toBeLessThan(inTime(10_000)); // the server is on this machine
    await registration.update({ version: '2' });
    const [updated] = await nextList(watcher);
    expect(updated).toMatchObject({ version: '2', since });
    await other.register({ name: 'orders', id: 'b' });
    expect((await nextList(watcher))[0], 'an instance that did not change is the same object').toBe(updated);
    expect((await registry.getService('orders', { consistent: true }))[0]).toEqual(updated);
    await registration.deregister();
    await other.register(updated as { name: string }); // as it was listed, `since` and all
    await waitFor(() => watcher.current?.some(({ id, since: now }) => id === 'a' && now !== since), {
      what: 'the instance that was registered anew',
    });
  });

  it('lists and instances are frozen', async (scope) => {
    const registry = await scope.connect();
    await registry.register({ name: 'orders', id: 'a', metadata: { k: 'v' }, endpoints: ['grpc://10.0.0.1:1'] });
    const list = await nextList(registry.watch('orders'));
    for (const part of [list, list[0], list[0]?.metadata, list[0]?.endpoints]) expect(Object.isFrozen(part)).toBe(true);
    const read = await registry.getService('orders', { consistent: true });
    for (const part of [read, read[0], read[0]?.metadata, read[0]?.endpoints]) expect(Object.isFrozen(part)).toBe(true);
  });

  it(
    'every list is one consistent read: a swap in one transaction is never seen half done',
    async (scope) => {
      const registry = await scope.connect();
      await scope.put('orders', '0', record('orders', '0'));
      const watcher = registry.watch('orders');
      const seen: string[][] = [];
      const following = (async () => {
        for await (const list of watcher) {
          seen.push(ids(list));
          if (ids(list)[0] === '200') return;
        }
      })();
      for (let i = 1; i <= 200; i++)
        await scope.transact('orders', { [i]: record('orders', String(i)) }, [String(i - 1)]);
      await within(following, 10_000, 'the last swap');
      expect(seen.filter((list) => list.length !== 1)).toEqual([]);
      expect(seen.map(([id]) => Number(id))).toEqual(seen.map(([id]) => Number(id)).sort((a, b) => a - b));
    },
    { needs: ['transactions'] },
  );

  it(
    'a watch of 1,000 instances with a slow consumer: states are skipped, the latest wins, nothing old comes after',
    async (scope) => {
      const [registry, other] = [await scope.connect(), await scope.observer()];
      const name = (i: number): string => String(i).padStart(4, '0');
      const all = Array.from({ length: 1000 }, (_, i) => name(i));
      // Before anybody watches, so that no list is made of each; and not all at once, for each write has a bound of its own.
      const rest = all.values();
      const writing = Array.from({ length: 20 }, async () => {
        for (const id of rest) await scope.put('orders', id, record('orders', id, { version: '0' }));
      });
      await Promise.all(writing);
      const watcher = registry.watch('orders');
      await listsUntil(watcher, all, 60_000);
      const probe = other.watch('orders');
      const changes = 100;
      for (let i = 1; i <= changes; i++)
        await scope.put('orders', name(i % 7), record('orders', name(i % 7), { version: String(i) }));
      for (;;) {
        const list = await nextList(probe);
        if (list.some((instance) => instance.version === String(changes))) break;
      }
      await waitFor(() => watcher.current?.some((instance) => instance.version === String(changes)), {
        what: 'the change to arrive',
      });
      const newest = (list: readonly { version: string }[]): number =>
        Math.max(...list.map((instance) => Number(instance.version)));
      const first = await nextList(watcher);
      expect(first).toHaveLength(1000);
      expect(newest(first), 'the consumer that comes late gets the latest').toBe(changes);
      await staysPending(500, watcher.next(), 'next() after the latest: no queue of old lists');
    },
    { needs: ['quickWrites'] },
  );

  it('never an older state after a newer one, with a consumer that takes its time', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const registration = await other.register({ name: 'orders', id: 'a', version: '0' });
    const seen: number[] = [];
    const following = (async () => {
      for await (const [instance] of registry.watch('orders')) {
        seen.push(Number(instance?.version));
        if (instance?.version === '100') return;
        await quiet(15); // the slow consumer
      }
    })();
    for (let i = 1; i <= 100; i++) await registration.update({ version: String(i) });
    await within(following, 15_000, 'the last version');
    expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
    expect(seen.at(-1)).toBe(100);
  });

  it('a name is matched exactly: a sibling with the same prefix is not seen', async (scope) => {
    const registry = await scope.connect();
    const watcher = registry.watch('orders');
    expect(await nextList(watcher)).toEqual([]);
    await registry.register({ name: 'orders-admin', id: 'x' });
    await registry.register({ name: 'order', id: 'y' });
    await registry.register({ name: 'ordersx', id: 'z' });
    await staysPending(1000, watcher.next(), 'next() after siblings joined'); // events take milliseconds to arrive
    expect(await registry.getService('orders', { consistent: true })).toEqual([]);
    expect(await registry.services()).toEqual(['order', 'orders-admin', 'ordersx']);
  });

  it(
    'the name inside a record counts: a record of another name under our key is not seen, and is not bad',
    async (scope) => {
      const registry = await scope.connect();
      const bad: unknown[] = [];
      registry.on('badRecord', (found) => bad.push(found));
      await scope.put('orders', 'x', record('other', 'x'));
      await scope.put('orders', 'y', record('orders', 'y'));
      expect(ids(await nextList(registry.watch('orders')))).toEqual(['y']);
      expect(bad).toEqual([]);
    },
    { needs: ['rawPut'] },
  );

  it(
    'a broken record beside good ones is skipped, and reported once with key and reason',
    async (scope) => {
      const registry = await scope.connect();
      const bad: { key: string; reason: string }[] = [];
      registry.on('badRecord', (found) => bad.push(found));
      const broken = {
        text: 'not-json',
        nothing: '',
        null: 'null',
        number: '42',
        list: '[]',
        metadata: '{"id":"x","name":"orders","metadata":{"weight":10}}',
        endpoints: '{"id":"x","name":"orders","endpoints":"grpc://10.0.0.1:1"}',
        version: '{"id":"x","name":"orders","version":1}',
        cut: '{"id":"x","name":"ord',
      };
      for (const [id, value] of Object.entries(broken)) await scope.put('orders', id, value);
      await registry.register({ name: 'orders', id: 'good' });
      const watcher = registry.watch('orders');
      expect(ids(await nextList(watcher))).toEqual(['good']);
      expect(ids(await registry.getService('orders', { consistent: true }))).toEqual(['good']);
      expect(ids(await registry.getService('orders', { consistent: true }))).toEqual(['good']);
      await scope.put('orders', 'later', record('orders', 'later'));
      await listsUntil(watcher, ['good', 'later']);
      await waitFor(() => bad.length >= Object.keys(broken).length, { what: 'all bad records to be reported' });
      await quiet(300); // a second report would come with the reads above
      expect(bad.map(({ key }) => key).sort()).toEqual(
        Object.keys(broken)
          .map((id) => scope.key('orders', id))
          .sort(),
      );
      const reason = (id: string): string | undefined => bad.find(({ key }) => key === scope.key('orders', id))?.reason;
      expect(reason('metadata')).toMatch(/metadata.*weight.*string.*number/);
      expect(reason('text')).toMatch(/JSON/);
    },
    { needs: ['rawPut'] },
  );

  it(
    'a record that turns bad leaves the list, and returns when it is mended',
    async (scope) => {
      const registry = await scope.connect();
      const watcher = registry.watch('orders');
      await scope.put('orders', 'a', record('orders', 'a'));
      await scope.put('orders', 'b', record('orders', 'b'));
      await listsUntil(watcher, ['a', 'b']);
      await scope.put('orders', 'a', 'garbage');
      await listsUntil(watcher, ['b']);
      await scope.put('orders', 'a', record('orders', 'a'));
      await listsUntil(watcher, ['a', 'b']);
    },
    { needs: ['rawPut'] },
  );

  it(
    'reading is liberal: null or missing fields, unknown keys, white space, ?isSecure=true',
    async (scope) => {
      const registry = await scope.connect();
      await scope.put('orders', 'a', ' {"future":{"x":[1]}, "name":"orders",\n"id":"a","metadata":null} ');
      await scope.put(
        'orders',
        'b',
        record('orders', 'b', { endpoints: ['grpc://10.0.0.1:9000?isSecure=true', 'http://10.0.0.1:8000'] }),
      );
      expect(unstamped(await nextList(registry.watch('orders')))).toEqual([
        { id: 'a', name: 'orders', version: '', metadata: {}, endpoints: [] },
        {
          id: 'b',
          name: 'orders',
          version: '',
          metadata: {},
          endpoints: ['grpc://10.0.0.1:9000?isSecure=true', 'http://10.0.0.1:8000'],
        },
      ]);
    },
    { needs: ['foreignEndpoints'] },
  );
});

forEveryBackend('watchers', (it) => {
  it('two watchers of one name both get every state, each at its own pace', async (scope) => {
    const registry = await scope.connect();
    const [quick, slow] = [registry.watch('orders'), registry.watch('orders')];
    await nextList(quick);
    const registration = await registry.register({ name: 'orders', id: 'a' });
    await listsUntil(quick, ['a']);
    await registration.update({ version: '2' });
    await waitFor(async () => (await nextList(quick))[0]?.version === '2');
    await listsUntil(slow, ['a']);
    await waitFor(() => slow.current?.[0]?.version === '2');
  });

  it('stopping one of two watchers leaves the other running', async (scope) => {
    const registry = await scope.connect();
    const [one, two] = [registry.watch('orders'), registry.watch('orders')];
    await Promise.all([nextList(one), nextList(two)]);
    one.stop();
    await registry.register({ name: 'orders', id: 'a' });
    await listsUntil(two, ['a']);
    expect(await one.next()).toEqual({ value: undefined, done: true });
  });

  it('stop() ends a waiting next() with done, no error, and so does every later one', async (scope) => {
    const watcher = (await scope.connect()).watch('orders');
    await nextList(watcher);
    const waiting = [watcher.next(), watcher.next()];
    watcher.stop();
    for (const result of await within(Promise.all(waiting), 1000, 'next()'))
      expect(result).toEqual({ value: undefined, done: true });
    watcher.stop();
    expect((await watcher.next()).done).toBe(true);
  });

  it('stop() before the first next() ends it as well', async (scope) => {
    const watcher = (await scope.connect()).watch('orders');
    watcher.stop();
    expect((await within(watcher.next(), 1000, 'next()')).done).toBe(true);
  });

  it('break out of for await ends it', async (scope) => {
    const watcher = (await scope.connect()).watch('orders');
    for await (const list of watcher) {
      expect(list).toEqual([]);
      break;
    }
    expect((await within(watcher.next(), 1000, 'next()')).done).toBe(true);
  });

  it('return() and asyncDispose end it', async (scope) => {
    const registry = await scope.connect();
    const [one, two] = [registry.watch('orders'), registry.watch('orders')];
    expect((await one.return?.())?.done).toBe(true);
    expect((await one.next()).done).toBe(true);
    await two[Symbol.asyncDispose]();
    expect((await two.next()).done).toBe(true);
  });

  it('an AbortSignal ends it with done, no error', async (scope) => {
    const registry = await scope.connect();
    const stop = new AbortController();
    const watcher = registry.watch('orders', { signal: stop.signal });
    await nextList(watcher);
    const waiting = watcher.next();
    stop.abort();
    expect(await within(waiting, 1000, 'next()')).toEqual({ value: undefined, done: true });
    const late = registry.watch('orders', { signal: AbortSignal.abort() });
    expect((await within(late.next(), 1000, 'next()')).done).toBe(true);
  });

  it('close() ends all with done, no error', async (scope) => {
    const registry = await scope.connect();
    const watchers = [registry.watch('orders'), registry.watch('orders'), registry.watch('other')];
    await Promise.all(watchers.map((watcher) => nextList(watcher)));
    const waiting = watchers.map((watcher) => watcher.next());
    await registry.close();
    for (const result of await within(Promise.all(waiting), 1000, 'next()'))
      expect(result).toEqual({ value: undefined, done: true });
  });

  it('several next() at once are answered in order, each with a list of its own', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const watcher = registry.watch('orders');
    const [first, second, third] = [watcher.next(), watcher.next(), watcher.next()];
    expect((await first).value).toEqual([]);
    await other.register({ name: 'orders', id: 'a' });
    expect(ids((await second).value)).toEqual(['a']);
    await other.register({ name: 'orders', id: 'b' });
    expect(ids((await third).value)).toEqual(['a', 'b']);
  });

  it('current is the latest list, undefined before the first', async (scope) => {
    const registry = await scope.connect();
    await registry.register({ name: 'orders', id: 'a' });
    const watcher = registry.watch('orders');
    const first = await nextList(watcher);
    expect(watcher.current).toBe(first);
    expect([watcher.name, watcher.stale]).toEqual(['orders', false]);
    expect(watcher[Symbol.asyncIterator]()).toBe(watcher);
  });

  it('a name watched anew after the last watcher stopped is read anew', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    const first = registry.watch('orders');
    expect(await nextList(first)).toEqual([]);
    first.stop();
    await other.register({ name: 'orders', id: 'a' });
    expect(ids(await nextList(registry.watch('orders')))).toEqual(['a']);
  });

  it('watch() throws at once on a name that cannot be', async (scope) => {
    const registry = await scope.connect();
    for (const name of ['', 'a/b', 'a\u0000b', 42, undefined, null])
      throws(() => registry.watch(name as string), 'ERR_INVALID_ARGUMENT', /name/);
  });
});

forEveryBackend(
  'streams',
  (it) => {
    it(
      'watchers of one client share one stream on the server, and the last to stop frees it',
      async (scope) => {
        const registry = await scope.connect();
        const streams = (): Promise<number> => scope.streams();
        await waitFor(async () => (await streams()) === 0, { what: 'the watches of the other tests to end' });
        const watchers = Array.from({ length: 10 }, () => registry.watch('orders'));
        await Promise.all(watchers.map((watcher) => nextList(watcher)));
        await waitFor(async () => (await streams()) >= 1, { what: 'the watch on the server' });
        await quiet(300); // nine more would be there by now
        expect(await streams()).toBe(1);
        for (const watcher of watchers) watcher.stop();
        await waitFor(async () => (await streams()) === 0, {
          timeoutMs: 3000,
          what: 'the server to have one watch less',
        });
      },
      { needs: ['counts'] },
    );
  },
  { sequential: true },
);

forEveryBackend('reading', (it) => {
  it('getService() of a watched name answers from the watch: the very list that was delivered', async (scope) => {
    const registry = await scope.connect();
    await registry.register({ name: 'orders', id: 'a' });
    const watcher = registry.watch('orders');
    const list = await nextList(watcher);
    expect(await registry.getService('orders')).toBe(list);
    watcher.stop();
    expect(await registry.getService('orders')).toEqual(list);
  });

  it('getService() of a name that is not watched reads the server', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    expect(await registry.getService('orders')).toEqual([]);
    await other.register({ name: 'orders', id: 'a' });
    expect(ids(await registry.getService('orders'))).toEqual(['a']);
  });

  it('consistent: true reads the server although the name is watched', async (scope) => {
    const [registry, other] = [await scope.connect(), await scope.observer()];
    await nextList(registry.watch('orders'));
    for (let i = 0; i < 20; i++) {
      await other.register({ name: 'orders', id: String(i) });
      expect(await registry.getService('orders', { consistent: true })).toHaveLength(i + 1);
    }
  });

  it('services() lists the names that have an instance, sorted, each once', async (scope) => {
    const registry = await scope.connect();
    expect(await registry.services()).toEqual([]);
    for (const [name, id] of [
      ['b', '1'],
      ['a', '2'],
      ['b', '3'],
      ['a-b', '4'],
    ] as const)
      await registry.register({ name, id });
    expect(await registry.services()).toEqual(['a', 'a-b', 'b']);
    await (await registry.register({ name: 'c', id: '5' })).deregister();
    expect(await registry.services()).toEqual(['a', 'a-b', 'b']);
  });

  it(
    'one id under two names is two instances',
    async (scope) => {
      const registry = await scope.connect();
      const first = await registry.register({ name: 'a', id: '1' });
      await registry.register({ name: 'b', id: '1' });
      await quiet(scope.ttlMs); // time for the one to hear of the other
      expect(first.state).toBe('registered');
      expect(await registry.services()).toEqual(['a', 'b']);
    },
    { needs: ['idsPerName'] },
  );

  it('reads reject in time while the registry is away, and can be aborted', async (scope) => {
    const registry = await scope.connect();
    await scope.outage();
    await refused(within(registry.getService('orders', { timeoutMs: 500 }), 1500, 'getService()'), [
      'ERR_TIMEOUT',
      'ERR_UNAVAILABLE',
    ]);
    await refused(within(registry.services({ timeoutMs: 500 }), 1500, 'services()'), [
      'ERR_TIMEOUT',
      'ERR_UNAVAILABLE',
    ]);
    await refused(registry.getService('orders', { signal: AbortSignal.abort() }), 'ERR_ABORTED');
    await refused(registry.services({ signal: AbortSignal.abort() }), 'ERR_ABORTED');
    await scope.restore();
    await sees(registry, 'orders', []);
  });

  it(
    'a signal ends calls that are under way, at once, and its reason is the cause',
    async (scope) => {
      const registry = await scope.connect();
      scope.link.hold();
      const stop = new AbortController();
      const calls = [
        registry.getService('orders', { signal: stop.signal }),
        registry.getService('orders', { signal: stop.signal, consistent: true }),
        registry.services({ signal: stop.signal }),
      ];
      await quiet(50); // so that they are on their way
      stop.abort('enough');
      for (const call of calls as Promise<unknown>[])
        expect(await refused(within(call, 2000, 'the call'), 'ERR_ABORTED')).toMatchObject({
          name: 'AbortError',
          cause: 'enough',
        });
    },
    { needs: ['slowWay'] },
  );
});
