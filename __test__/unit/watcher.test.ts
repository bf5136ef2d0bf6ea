import { describe, expect, it } from 'vitest';
import { ClosedError, PermissionDeniedError } from '../../lib/errors.js';
import { instance, nativeError, openFake } from './fake-client.js';

const ids = (result: IteratorResult<readonly { id: string }[]>) =>
  result.done ? undefined : result.value.map(({ id }) => id);
const turn = () => new Promise(setImmediate);

describe('next()', () => {
  it('waits for the first list, also when it is empty', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watch('orders');
    let settled = false;
    const first = watcher.next().finally(() => {
      settled = true;
    });
    await turn();
    expect(settled).toBe(false);
    expect(watcher.current).toBeUndefined();
    await client.publish('orders', []);
    expect(await first).toEqual({ done: false, value: [] });
    await registry.close();
  });

  it('gives a list that is already there at once', async () => {
    const { registry, client } = await openFake();
    await client.publish('orders', [instance('a')]);
    expect(ids(await registry.watch('orders').next())).toEqual(['a']);
    await registry.close();
  });

  it('skips states for a slow consumer, and a state that came back', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watch('orders');
    await client.publish('orders', [instance('a')]);
    await client.publish('orders', [instance('b')]);
    expect(ids(await watcher.next())).toEqual(['b']);
    await client.publish('orders', [instance('c')]);
    await client.publish('orders', [instance('b')]);
    const pending = watcher.next();
    await turn();
    await client.publish('orders', [instance('d')]);
    expect(ids(await pending)).toEqual(['d']);
    await registry.close();
  });

  it('converts nothing while nobody waits, and then the latest list alone', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watch('orders');
    for (const id of ['a', 'b', 'c']) await client.publish('orders', [instance(id)]);
    expect(client.watchers[0]?.takes).toBe(0);
    expect(watcher.current?.map(({ id }) => id)).toEqual(['c']);
    expect(client.watchers[0]?.takes).toBe(1);
    expect(ids(await watcher.next())).toEqual(['c']);
    expect(client.watchers[0]?.takes).toBe(1);
    await registry.close();
  });

  it('answers concurrent calls in their order, each with news', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watch('orders');
    const pending = [watcher.next(), watcher.next(), watcher.next()];
    await client.publish('orders', [instance('a')]);
    await client.publish('orders', [instance('b')]);
    watcher.stop();
    expect(ids(await (pending[0] as Promise<never>))).toEqual(['a']);
    expect(ids(await (pending[1] as Promise<never>))).toEqual(['b']);
    expect(await pending[2]).toEqual({ done: true, value: undefined });
    await registry.close();
  });

  it('delivers frozen lists that watchers and getService() share, and keeps what did not change', async () => {
    const { registry, client } = await openFake();
    const [one, two] = [registry.watch('orders'), registry.watch('orders')];
    await client.publish('orders', [instance('a'), instance('b', { metadata: { zone: 'x' } })]);
    const list = (await one.next()).value;
    expect((await two.next()).value).toBe(list);
    expect(await registry.getService('orders')).toBe(list);
    expect(client.calls).toEqual([]);
    expect(client.watchers.map(({ takes }) => takes)).toEqual([1, 0]);
    for (const part of [list, list?.[1], list?.[1]?.metadata, list?.[1]?.endpoints])
      expect(Object.isFrozen(part)).toBe(true);
    await client.publish('orders', [instance('a'), instance('b', { metadata: { zone: 'y' } })]);
    const later = (await one.next()).value;
    expect(later?.[0]).toBe(list?.[0]);
    expect(later?.[1]).not.toBe(list?.[1]);
    await registry.getService('orders', { consistent: true });
    expect(client.calls).toEqual(['getService']);
    await registry.close();
  });
});

describe('the end', () => {
  it.each(['stop', 'return', 'signal', 'close', 'dispose'])(
    'by %s is done, for the pending and later calls',
    async (way) => {
      const { registry, client } = await openFake();
      const abort = new AbortController();
      const watcher = registry.watch('orders', { signal: abort.signal });
      const pending = watcher.next();
      if (way === 'stop') watcher.stop();
      if (way === 'return') expect(await watcher.return()).toEqual({ done: true, value: undefined });
      if (way === 'signal') abort.abort();
      if (way === 'close') await registry.close();
      if (way === 'dispose') await watcher[Symbol.asyncDispose]();
      expect(await pending).toEqual({ done: true, value: undefined });
      expect(await watcher.next()).toEqual({ done: true, value: undefined });
      expect(client.watchers[0]?.stopped).toBe(true);
      expect(client.referenced).toBe(false);
      watcher.stop();
      await registry.close();
    },
  );

  it('by break frees the native side and keeps the last list', async () => {
    const { registry, client } = await openFake();
    await client.publish('orders', [instance('a')]);
    const watcher = registry.watch('orders');
    for await (const list of watcher) {
      expect(list).toHaveLength(1);
      break;
    }
    expect(client.watchers[0]?.stopped).toBe(true);
    expect(watcher.current).toHaveLength(1);
    await registry.getService('orders');
    expect(client.calls).toEqual(['getService']); // no live watch, so the server is read
    await registry.close();
  });

  it('comes before the beginning when the signal has fired', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watch('orders', { signal: AbortSignal.abort() });
    expect(await watcher.next()).toEqual({ done: true, value: undefined });
    expect(client.watchers).toHaveLength(0);
    await registry.close();
  });

  it('by a refusal rejects the pending call with the typed error, then is done', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watch('orders');
    async function caller() {
      await watcher.next();
    }
    const pending = caller().catch((thrown: Error) => thrown);
    const second = watcher.next();
    const handle = client.watchers[0];
    if (handle) handle.failure = nativeError('ERR_PERMISSION_DENIED', 'no');
    await client.tell('watchError', 1);
    const error = await pending;
    expect(error).toBeInstanceOf(PermissionDeniedError);
    expect((error as Error).stack).toContain('caller');
    expect(await second).toEqual({ done: true, value: undefined });
    expect(await watcher.next()).toEqual({ done: true, value: undefined });
    expect(client.referenced).toBe(false);
    await registry.close();
  });

  it('by a refusal that nobody waits for rejects the next call, once, and keeps the last list', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watch('orders');
    await client.publish('orders', [instance('a')]);
    const handle = client.watchers[0];
    if (handle) handle.failure = nativeError('ERR_PERMISSION_DENIED');
    await client.tell('watchError', 1);
    await expect(watcher.next()).rejects.toThrow(PermissionDeniedError);
    expect((await watcher.next()).done).toBe(true);
    expect(watcher.current).toHaveLength(1);
    await registry.close();
  });

  it('not by a refusal that is no longer', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watch('orders');
    const pending = watcher.next();
    await client.tell('watchError', 1); // its handle has no error: a new try is under way
    await client.publish('orders', [instance('a')]);
    expect((await pending).value).toHaveLength(1);
    await registry.close();
  });

  it('of a registry closed before shows in the first call', async () => {
    const { registry } = await openFake();
    await registry.close();
    const watcher = registry.watch('orders');
    await expect(watcher.next()).rejects.toThrow(ClosedError);
    expect((await watcher.next()).done).toBe(true);
  });
});

it('tells stale and fresh', async () => {
  const { registry, client } = await openFake();
  const watcher = registry.watch('orders');
  const heard: string[] = [];
  watcher
    .on('stale', () => heard.push(`stale ${watcher.stale}`))
    .on('fresh', () => heard.push(`fresh ${watcher.stale}`));
  const handle = client.watchers[0];
  if (!handle) throw new Error('no watcher');
  handle.isStale = true;
  await client.tell('stale', 1);
  handle.isStale = false;
  await client.tell('fresh', 1);
  expect(heard).toEqual(['stale true', 'fresh false']);
  await registry.close();
});

it('throws only on a bad argument', async () => {
  const { registry, client } = await openFake();
  expect(() => registry.watch(5 as never)).toThrow('name: expected a string, got number');
  expect(() => registry.watch('x', { signal: 5 as never })).toThrow(
    'options.signal: expected an AbortSignal, got number',
  );
  expect(() => registry.watch('x', { singal: 5 } as never)).toThrow(
    'options.singal: unknown option; did you mean "signal"?',
  );
  client.refusal = nativeError('ERR_INVALID_ARGUMENT', 'name: expected no "/"');
  expect(() => registry.watch('a/b')).toThrow('name: expected no "/"');
  client.refusal = nativeError('ERR_UNAVAILABLE');
  await expect(registry.watch('x').next()).rejects.toMatchObject({ code: 'ERR_UNAVAILABLE' });
  client.refusal = undefined;
  await registry.close();
});

describe('watchServices()', () => {
  const named = (name: string, count: number) => instance(name, { name, version: String(count) });

  it('gives frozen lists of names, where one that did not change is the same object', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watchServices();
    await client.publish('', [named('a', 1), named('b', 2)]);
    const { value: first } = await watcher.next();
    expect(first).toEqual([
      { name: 'a', count: 1 },
      { name: 'b', count: 2 },
    ]);
    await client.publish('', [named('a', 1), named('b', 3), named('c', -1)]);
    const { value: second } = await watcher.next();
    expect(second).toEqual([{ name: 'a', count: 1 }, { name: 'b', count: 3 }, { name: 'c' }]);
    expect(second[0]).toBe(first[0]);
    expect([second, ...second].every(Object.isFrozen)).toBe(true);
    expect(await registry.services()).toEqual(['a', 'b', 'c']);
    expect(client.calls).not.toContain('services');
    await registry.services({ consistent: true });
    expect(client.calls).toContain('services');
    await registry.close();
  });

  it('keeps the process alive as a watch does', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watchServices();
    expect(client.referenced).toBe(true);
    watcher.stop();
    expect(client.referenced).toBe(false);
    await registry.close();
  });

  it('is refused at once where the registry lists no names, and nothing is left of it', async () => {
    const { registry, client } = await openFake();
    client.refusal = nativeError('ERR_UNSUPPORTED', "it can't list names", 'watchServices');
    expect(() => registry.watchServices()).toThrow(expect.objectContaining({ code: 'ERR_UNSUPPORTED' }));
    expect(() => registry.watchServices({ signal: 1 as never })).toThrow(/options\.signal/);
    expect(client.referenced).toBe(false);
    client.refusal = undefined;
    await registry.close();
    await expect(registry.watchServices().next()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('tells a missing right once, from next()', async () => {
    const { registry, client } = await openFake();
    const watcher = registry.watchServices();
    const pending = expect(watcher.next()).rejects.toBeInstanceOf(PermissionDeniedError);
    const [native] = client.watchers;
    if (native) native.failure = nativeError('ERR_PERMISSION_DENIED');
    await client.tell('watchError', native?.number ?? 0);
    await pending;
    expect((await watcher.next()).done).toBe(true);
    await registry.close();
  });
});

describe('onChange()', () => {
  it('calls back with the list and every change, the latest when it was busy, until it is ended', async () => {
    const { registry, client, logged } = await openFake();
    await client.publish('orders', [instance('a')]);
    const heard: string[][] = [];
    let release: () => void = () => {};
    const stop = registry.onChange('orders', async (list) => {
      heard.push(list.map(({ id }) => id));
      if (heard.length === 1) throw new Error('mine');
      if (heard.length === 2) await new Promise<void>((resolve) => (release = resolve));
    });
    await turn();
    await client.publish('orders', [instance('b')]);
    await turn();
    await client.publish('orders', [instance('c')]);
    await client.publish('orders', [instance('d')]);
    await turn();
    expect(heard).toEqual([['a'], ['b']]);
    release();
    await turn();
    expect(heard).toEqual([['a'], ['b'], ['d']]);
    expect(logged).toEqual([
      { level: 'error', message: expect.stringContaining('a listener of the service orders failed: Error: mine') },
    ]);
    stop();
    stop();
    await turn();
    expect(client.referenced).toBe(false);
    await registry.close();
  });

  it('is asked again where the registry refuses, which is logged once', async () => {
    const { registry, client, logged } = await openFake();
    const heard: number[] = [];
    const abort = new AbortController();
    registry.onChange('orders', (list) => heard.push(list.length), { signal: abort.signal });
    const handle = client.watchers[0];
    if (handle) handle.failure = nativeError('ERR_PERMISSION_DENIED', 'no');
    await client.tell('watchError', 1);
    await client.tell('watchError', 1);
    expect(logged).toEqual([
      {
        level: 'error',
        message: 'rollcall: the registry refuses to tell of the service orders, and is asked again: no',
      },
    ]);
    await client.publish('orders', [instance('a')]);
    await turn();
    expect(heard).toEqual([1]);
    abort.abort();
    await turn();
    expect(client.referenced).toBe(false);
    await registry.close();
  });

  it('refuses what is no function, no name, and a closed registry', async () => {
    const { registry } = await openFake();
    expect(() => registry.onChange('orders', undefined as never)).toThrow(/^listener: expected a function/);
    expect(() => registry.onChange(5 as never, () => {})).toThrow(/^name: /);
    expect(() => registry.onChange('orders', () => {}, { once: true } as never)).toThrow(/^options\.once: unknown/);
    await registry.close();
    expect(() => registry.onChange('orders', () => {})).toThrow(ClosedError);
  });
});

it('two loops over one watcher, of which each would miss lists, are refused', async () => {
  const { registry, client } = await openFake();
  await client.publish('orders', [instance('a')]);
  const watcher = registry.watch('orders');
  for await (const list of watcher) {
    expect(list).toHaveLength(1);
    expect(() => watcher[Symbol.asyncIterator]()).toThrow(/^watch: expected one loop over a watcher/);
    break;
  }
  // It is over: a loop over it ends at once.
  for await (const _ of watcher) expect.unreachable();
  await registry.close();
});
